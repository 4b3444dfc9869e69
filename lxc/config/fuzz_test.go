package config

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"
)

// withoutIncludes makes includes harmless: what is fuzzed must not read files of the host.
func withoutIncludes(text string) string {
	return strings.ReplaceAll(text, "lxc.include", "#xc.include")
}

func seed(f *testing.F) {
	for _, pattern := range []string{"testdata/configs/*.conf", "testdata/old/*.conf"} {
		for _, file := range glob(f, pattern) {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data), "lxc.uts.name", "x")
		}
	}
	for _, tc := range keyCases {
		f.Add(tc.lines, tc.key, "")
	}
	for _, tc := range netCases {
		text := "lxc.net.0." + strings.ReplaceAll(tc.lines, "\n", "\nlxc.net.0.")
		f.Add(text, "lxc.net.0."+tc.key, "1")
		f.Add("lxc.network.type = veth\n"+text, "lxc.network."+tc.key, "'1'")
	}
}

// FuzzParse reads a configuration, writes it and reads it again, and does the same after a change.
// What is read twice is equal, and a refused change changes nothing.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text, key, value string) {
		text, key = withoutIncludes(text), withoutIncludes(key)
		c, err := Parse("f", strings.NewReader(text))
		if err != nil {
			if c != nil || err.Error() == "" {
				t.Fatalf("got %v with %v", c, err)
			}
			return
		}
		c = fixpoint(t, c)
		before := reflect.ValueOf(*c).Interface()
		for _, change := range []func() error{
			func() error { return c.Set(key, value) },
			func() error { return c.Clear(key) },
		} {
			if err := change(); err != nil && !reflect.DeepEqual(before, *c) {
				t.Fatalf("%v, but there was a change", err)
			}
			c = fixpoint(t, c)
			before = reflect.ValueOf(*c).Interface()
		}
		for _, name := range append(c.Keys(""), key) {
			_, _ = c.Get(name)
		}
		var once, twice bytes.Buffer
		if err := Update(strings.NewReader(text), &once); err != nil {
			t.Fatalf("Parse took what Update refuses: %v", err)
		}
		now, err := Parse("f", bytes.NewReader(once.Bytes()))
		if err != nil {
			t.Fatalf("updated to %q: %v", once.String(), err)
		}
		old, _ := Parse("f", strings.NewReader(text))
		old.backend = "" // which is part of the path
		equal(t, "updated to "+once.String(), meaning(now), meaning(old))
		if err := Update(bytes.NewReader(once.Bytes()), &twice); err != nil ||
			once.String() != twice.String() {
			t.Fatalf("updated twice: %v\n%q\n%q", err, once.String(), twice.String())
		}
	})
}

// fixpoint writes a configuration and returns what is read of that, which is equal.
func fixpoint(t *testing.T, c *Config) *Config {
	t.Helper()
	var b bytes.Buffer
	if err := c.Write(&b); err != nil {
		t.Fatal(err)
	}
	again, err := Parse("f", bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatalf("%q: %v", b.String(), err)
	}
	if !reflect.DeepEqual(c, again) {
		t.Fatalf("written and read again:\n%q\n got %+v\nwant %+v", b.String(), again, c)
	}
	return again
}

// FuzzFSTab looks for input that makes ParseFSTab and ParseSystem panic.
func FuzzFSTab(f *testing.F) {
	f.Add(`/a\040b c none bind,create=dir 0 0`)
	f.Add("lxc.lxcpath = /x")
	f.Add(`\777 \ \1 a`)
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := ParseFSTab("f", strings.NewReader(text))
		for _, m := range entries {
			if m.Source == "" || m.Target == "" || m.Type == "" {
				t.Fatalf("%+v and %v", m, err)
			}
		}
		if s, err := ParseSystem("f", strings.NewReader(text), ""); (s == nil) == (err == nil) {
			t.Fatalf("%+v and %v", s, err)
		}
	})
}
