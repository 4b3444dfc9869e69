package config

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// settingsToTry are all lines of the cases of keys, also without values, for several interfaces.
func settingsToTry() [][2]string {
	var all [][2]string
	add := func(text string) {
		if key, value, ok := split(text); ok && key != "" && key != "lxc.include" {
			all = append(all, [2]string{key, value}, [2]string{key, value}, [2]string{key, ""})
		}
	}
	for _, tc := range keyCases {
		for text := range strings.SplitSeq(tc.lines, "\n") {
			add(text)
		}
	}
	for _, tc := range netCases {
		for text := range strings.SplitSeq(tc.lines, "\n") {
			for i := range 3 {
				add(fmt.Sprintf("lxc.net.%d.%s", i, text))
			}
			add("lxc.network." + text)
		}
	}
	for _, text := range []string{
		"lxc.net =", "lxc.net.1 =", "lxc.hook =", "lxc.cgroup =", "lxc.cgroup2 =", "lxc.prlimit =",
		"lxc.rootfs.backend = lvm", "lxc.rootfs = /x", "lxc.limit.nofile = 5", "lxc.kmsg = 1",
	} {
		add(text)
	}
	return all
}

// TestRandomChanges sets and clears keys at random on top of an included file. After every change
// the configuration is the one that its lines say, a key that was cleared has the value of an empty
// configuration, and a change that was refused has changed nothing.
func TestRandomChanges(t *testing.T) {
	t.Parallel()
	all := settingsToTry()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, seed))
		var included strings.Builder
		for range r.IntN(15) {
			s := all[r.IntN(len(all))]
			text := included.String() + s[0] + " = " + s[1] + "\n"
			if _, err := Parse("f", strings.NewReader(text)); err == nil {
				included.Reset()
				included.WriteString(text)
			}
		}
		c := parse(t, include(t, included.String()))
		for range 150 {
			before := *c
			s := all[r.IntN(len(all))]
			key, value := s[0], s[1]
			err := c.Set(key, value)
			again(t, c)
			var expanded strings.Builder
			if err := c.WriteExpanded(&expanded); err != nil {
				t.Fatal(err)
			}
			equal(t, "expanded", meaning(parse(t, expanded.String())), meaning(c))
			if err != nil && !reflect.DeepEqual(before, *c) {
				t.Errorf("Set(%q, %q): %v, but there was a change", key, value, err)
			}
			if err == nil && value == "" {
				checkCleared(t, c, key)
			}
			if t.Failed() {
				t.Fatalf("seed %d, Set(%q, %q): %v, included:\n%s\nbefore:\n%s",
					seed, key, value, err, included.String(), written(t, &before))
			}
		}
	}
}

// checkCleared reports a key that does not have the value of an empty configuration, or of an
// interface that has its type alone.
func checkCleared(t *testing.T, c *Config, key string) {
	t.Helper()
	if strings.HasPrefix(key, "lxc.network") {
		return // which may be another interface now
	}
	var empty Config
	for _, n := range c.Nets {
		empty.Nets = append(empty.Nets, Net{Index: n.Index, Type: n.Type})
	}
	if key == "lxc.net" {
		empty.Nets = nil
	}
	got, err := c.Get(key)
	want, err2 := empty.Get(key)
	if !reflect.DeepEqual(got, want) || (err == nil) != (err2 == nil) {
		t.Errorf("%s has %q and %v, want %q and %v", key, got, err, want, err2)
	}
}

// TestOddValues gives every key values at which a parser may stumble. They are refused, or mean
// what their lines say.
func TestOddValues(t *testing.T) {
	t.Parallel()
	names := slices.DeleteFunc(keyNames(), func(name string) bool { return name == "lxc.include" })
	for _, kind := range netTypes {
		for i := range netKeys {
			names = append(names, kind+" lxc.net.0."+netKeys[i].name)
		}
	}
	names = append(names, "lxc.cgroup.a.b", "lxc.cgroup2.a.b", "lxc.prlimit.core", "lxc.sysctl.a",
		"lxc.proc.a", "lxc.rootfs.backend", "lxc.rootfs", "lxc.network.ipv4", "lxc.limit.core")
	for _, name := range names {
		for _, value := range []string{
			"' '", `"`, `""`, `" a "`, "=", ":", "::", ",", ",,", "/", "//", ".", "..", "-", "+",
			"0x", "-0", "00", "\\", "\\0", "%", "x:", ":x", "a:b:c", "a/b", "a/", "/1", "0/0",
			"::/0", "\xff",
			"é", "none", "auto", "up", "1 1", "1 1 1", "u u u u", "a a a a a a", "1h", "-1ns", "h",
		} {
			var c Config
			kind, key, ok := strings.Cut(name, " ")
			if !ok {
				key = name
			} else if err := c.Set("lxc.net.0.type", kind); err != nil {
				t.Fatal(err)
			}
			before := c
			if err := c.Set(key, value); err != nil && !reflect.DeepEqual(c, before) {
				t.Errorf("Set(%q, %q): %v, but there was a change", key, value, err)
			}
			again(t, &c)
		}
	}
}
