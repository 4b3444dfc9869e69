package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// golden compares with a file of testdata, or writes it with -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n got %s\nwant %s", file, got, want)
	}
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no files, %v", pattern, err)
	}
	return files
}

// said are all keys with a value that an empty configuration does not have.
func said(t *testing.T, c *Config) string {
	t.Helper()
	var b strings.Builder
	var empty Config
	get := func(key string) {
		values, err := c.Get(key)
		if err != nil {
			t.Fatal(err)
		}
		if without, _ := empty.Get(key); slices.Equal(values, without) {
			return
		}
		for _, v := range values {
			if !strings.HasPrefix(v, key+".") {
				v = key + " = " + v
			}
			b.WriteString(v + "\n")
		}
	}
	for _, key := range c.Keys("") {
		get(key)
	}
	for _, n := range c.Nets {
		prefix := fmt.Sprintf("lxc.net.%d", n.Index)
		for _, key := range c.Keys(prefix) {
			get(prefix + "." + key)
		}
	}
	return b.String()
}

// TestConfigurations reads ten configurations of testdata/configs and compares what Get says of
// them with the file that ends in .get.
func TestConfigurations(t *testing.T) {
	t.Parallel()
	files := glob(t, "testdata/configs/*.conf")
	if len(files) != 10 {
		t.Errorf("there are %d configurations", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			c, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".conf")+".get", said(t, c))
			want, _ := os.ReadFile(file)
			equal(t, "lines", written(t, c), string(want))
			again(t, c)
			var expanded bytes.Buffer
			if err := c.WriteExpanded(&expanded); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(expanded.String(), "lxc.include") {
				t.Errorf("expanded, it includes:\n%s", expanded.String())
			}
			equal(t, "expanded", meaning(parse(t, expanded.String())), meaning(c))
		})
	}
}

// TestUpdate rewrites the configurations of testdata/old. The result, which is in the file that
// ends in .now, means what the old one does, has no old spelling, and needs no update.
func TestUpdate(t *testing.T) {
	t.Parallel()
	for _, file := range glob(t, "testdata/old/*.conf") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			old, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var now, twice bytes.Buffer
			if err := Update(bytes.NewReader(old), &now); err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".conf")+".now", now.String())
			want := meaning(parse(t, string(old)))
			want.backend = "" // which is part of the path
			equal(t, "meaning", meaning(parse(t, now.String())), want)
			if err := Update(bytes.NewReader(now.Bytes()), &twice); err != nil {
				t.Fatal(err)
			}
			equal(t, "updated twice", twice.String(), now.String())
			for text := range strings.Lines(now.String()) {
				key, _, _ := split(strings.TrimSpace(text))
				if name, _ := new(Config).modern(key, "x"); name != key {
					t.Errorf("%s has still %s", file, key)
				}
			}
		})
	}
}

func TestUpdateKeepsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	const text = "#lxc.utsname = a\n\n  \nno setting\nlxc.unknown=x\r\nlxc.tty.max = 4\n"
	var b bytes.Buffer
	if err := Update(strings.NewReader(text), &b); err != nil {
		t.Fatal(err)
	}
	equal(t, "lines", b.String(), strings.ReplaceAll(text, "\r", ""))

	b.Reset()
	err := Update(strings.NewReader("lxc.utsname = a\nlxc.network.link = b\n"), &b)
	want := `line 2: lxc.network.link = "b": want lxc.network.type first, ` +
		`which starts a new interface`
	if err == nil || err.Error() != want || b.Len() > 0 {
		t.Errorf("got %v and %q, want %s", err, b.String(), want)
	}
}

// TestOldSpellings pairs each old key with its current one.
func TestOldSpellings(t *testing.T) {
	t.Parallel()
	cases := []struct{ old, now string }{
		{"lxc.aa_allow_incomplete = 1", "lxc.apparmor.allow_incomplete = 1"},
		{"lxc.aa_profile = p", "lxc.apparmor.profile = p"},
		{"lxc.console = none", "lxc.console.path = none"},
		{"lxc.devttydir = lxc", "lxc.tty.dir = lxc"},
		{"lxc.haltsignal = 30", "lxc.signal.halt = 30"},
		{"lxc.id_map = u 0 1 2", "lxc.idmap = u 0 1 2"},
		{"lxc.init_cmd = /i", "lxc.init.cmd = /i"},
		{"lxc.init_gid = 1", "lxc.init.gid = 1"},
		{"lxc.init_uid = 1", "lxc.init.uid = 1"},
		{"lxc.kmsg = 1", ""},
		{"lxc.limit.core = 1\nlxc.limit =", ""},
		{"lxc.limit.core = 1:2", "lxc.prlimit.core = 1:2"},
		{"lxc.logfile = /l", "lxc.log.file = /l"},
		{"lxc.loglevel = 1", "lxc.log.level = DEBUG"},
		{"lxc.mount = /f", "lxc.mount.fstab = /f"},
		{"lxc.network.type = veth\nlxc.network =", ""},
		{"lxc.network.type = veth\nlxc.network.type =\nlxc.network.type = phys",
			"lxc.net.0.type = phys"},
		{"lxc.network.type = veth\nlxc.network.ipv4 = 10.0.0.1/8\nlxc.network.type = phys\n" +
			"lxc.network.ipv6 = fd00::1/64",
			"lxc.net.0.type = veth\nlxc.net.1.type = phys\nlxc.net.0.ipv4.address = 10.0.0.1/8\n" +
				"lxc.net.1.ipv6.address = fd00::1/64"},
		{"lxc.network.0.type = veth\nlxc.network.0.ipv4 = 10.0.0.1/8\nlxc.network.3.type = none",
			"lxc.net.0.type = veth\nlxc.net.0.ipv4.address = 10.0.0.1/8\nlxc.net.3.type = none"},
		{"lxc.network.type = veth\nlxc.network.type = phys\nlxc.network.0 =",
			"lxc.net.1.type = phys"},
		{"lxc.pivotdir = x", ""},
		{"lxc.pts = 5", "lxc.pty.max = 5"},
		{"lxc.rebootsignal = 2", "lxc.signal.reboot = 2"},
		{"lxc.rootfs = /r", "lxc.rootfs.path = /r"},
		{"lxc.se_context = c", "lxc.selinux.context = c"},
		{"lxc.seccomp = /s", "lxc.seccomp.profile = /s"},
		{"lxc.stopsignal = 9", "lxc.signal.stop = 9"},
		{"lxc.syslog = daemon", "lxc.log.syslog = daemon"},
		{"lxc.tty = 5", "lxc.tty.max = 5"},
		{"lxc.utsname = u", "lxc.uts.name = u"},
	}
	covered := make(map[string]bool)
	for _, tc := range cases {
		equal(t, tc.old, meaning(parse(t, tc.old)), meaning(parse(t, tc.now)))
		key, _, _ := strings.Cut(tc.old, " ")
		covered[key] = true
	}
	for _, o := range oldKeys {
		if !covered[o.old] && o.old != "lxc.limit" && o.old != "lxc.network" {
			t.Errorf("no case has %s", o.old)
		}
	}
	for _, text := range []string{
		"lxc.rootfs.backend = lvm\nlxc.rootfs = /dev/vg/a",
		"lxc.rootfs = /dev/vg/a\nlxc.rootfs.backend = lvm",
	} {
		equal(t, text, parse(t, text).Rootfs.Path, "lvm:/dev/vg/a")
	}
	c := parse(t, "lxc.rootfs.backend = lvm\nlxc.rootfs = dir:/a")
	equal(t, "a path with its own type", c.Rootfs.Path, "dir:/a")
}
