package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// written is a configuration as Write writes it.
func written(t *testing.T, c *Config) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// again checks that a configuration that was changed means what its lines say.
func again(t *testing.T, c *Config) {
	t.Helper()
	text := written(t, c)
	equal(t, "read again:\n"+text, parse(t, text), c)
}

// include makes a file to include and returns the line for it.
func include(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "included")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return "lxc.include = " + path + "\n"
}

func TestSetAddsALine(t *testing.T) {
	t.Parallel()
	c := parse(t, "# mine\nlxc.uts.name = a\n\n")
	sets := []struct{ key, value string }{
		{"lxc.uts.name", "b"}, {"lxc.cap.drop", "mknod"}, {"lxc.cap.drop", " kill "},
		{"lxc.utsname", `"c"`}, {"lxc.environment", `"A= b "`}, {"lxc.net.0.type", "veth"},
		{"lxc.net.0.veth.pair", "v"}, {"lxc.network.type", "phys"}, {"lxc.network.link", "eth1"},
		{"lxc.environment", `""q""`},
	}
	for _, s := range sets {
		if err := c.Set(s.key, s.value); err != nil {
			t.Fatalf("Set(%q, %q): %v", s.key, s.value, err)
		}
		again(t, c)
	}
	equal(t, "lines", written(t, c), "# mine\nlxc.uts.name = a\n\nlxc.uts.name = b\n"+
		"lxc.cap.drop = mknod\nlxc.cap.drop = kill\nlxc.uts.name = \"c\"\n"+
		"lxc.environment = \"A= b \"\nlxc.net.0.type = veth\nlxc.net.0.veth.pair = v\n"+
		"lxc.net.1.type = phys\nlxc.net.1.link = eth1\nlxc.environment = \"\"q\"\"\n")
	want := Config{Environment: []string{"A= b ", `"q"`}, Nets: []Net{
		{Type: "veth", VethPair: "v"}, {Index: 1, Type: "phys", Link: "eth1"}}}
	want.Uts.Name, want.Caps.Drop = "c", []string{"mknod", "kill"}
	equal(t, "meaning", meaning(c), &want)
}

func TestAWrongSetChangesNothing(t *testing.T) {
	t.Parallel()
	const text = "lxc.uts.name = a\nlxc.cap.drop = kill\nlxc.net.0.type = veth\n"
	c := parse(t, text)
	for _, s := range []struct{ key, value, want string }{
		{"lxc.tty.max", "x", `lxc.tty.max = "x": want a number from 0 to 4096`},
		{"lxc.cap.drop", "mknod mknot", `lxc.cap.drop = "mknod mknot": want names of ` +
			`capabilities(7) in lower case without cap_; "mknot" is not one; ` +
			`did you mean "mknod"?`},
		{"lxc.cap.keep", "kill", `lxc.cap.keep = "kill": capabilities are either dropped or ` +
			`kept: clear lxc.cap.drop first`},
		{"lxc.uts.name", "b\nlxc.tty.max = 4",
			`lxc.uts.name = "b\nlxc.tty.max = 4": want one line of less than 64 KiB`},
		{"lxc.net.0.vlan.id", "4",
			`lxc.net.0.vlan.id = "4": only for type vlan: lxc.net.0 has type veth`},
		{"lxc.net.1.veth.pair", "v",
			`lxc.net.1.veth.pair = "v": only for type veth: set lxc.net.1.type first`},
		{"lxc.uts.name", strings.Repeat("x", maxLine), `lxc.uts.name = "` +
			strings.Repeat("x", 120) + `"…: want one line of less than 64 KiB`},
		{"lxc.unknown", "", `lxc.unknown = "": no such key`},
		{"lxc.net.0.lnk", "", `lxc.net.0.lnk = "": no such key; did you mean "lxc.net.0.link"?`},
		{"lxc.init.groups", "1,2,x",
			`lxc.init.groups = "1,2,x": want numbers of groups with commas between them`},
	} {
		err := c.Set(s.key, s.value)
		if err == nil || err.Error() != s.want || !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("Set(%q, %q): got %v, want %s", s.key, s.value, err, s.want)
		}
		equal(t, s.key, c, parse(t, text))
	}
}

func TestSetOfAnIncludeReadsIt(t *testing.T) {
	t.Parallel()
	c := parse(t, "")
	_, path, _ := split(strings.TrimSuffix(include(t, "lxc.tty.max = 3\n"), "\n"))
	if err := c.Set("lxc.include", path); err != nil {
		t.Fatal(err)
	}
	equal(t, "ttys", c.TTY.Max, 3)
	again(t, c)
	_, path, _ = split(strings.TrimSuffix(include(t, "\nlxc.tty.max = q\n"), "\n"))
	err := c.Set("lxc.include", path)
	if err == nil || err.Error() != path+`:2: lxc.tty.max = "q": want a number from 0 to 4096` {
		t.Errorf("got %v", err)
	}
}

func TestClearTakesTheLinesOfAKey(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, text, key, want string }{
		{"scalar", "lxc.tty.max = 4\n# c\nlxc.utsname = a\n", "lxc.uts.name",
			"lxc.tty.max = 4\n# c\n"},
		{"old name", "lxc.uts.name = a\n", "lxc.utsname", ""},
		{"list", "lxc.cap.drop = kill\nlxc.cap.drop =\nlxc.cap.drop = chown\n", "lxc.cap.drop", ""},
		{"one sub key", "lxc.cgroup.a.b = 1\nlxc.cgroup.c.d = 2\nlxc.cgroup.a.b = 3\n",
			"lxc.cgroup.a.b", "lxc.cgroup.c.d = 2\n"},
		{"all sub keys", "lxc.cgroup.a.b = 1\nlxc.cgroup.dir = x\nlxc.cgroup2.c.d = 2\n",
			"lxc.cgroup", "lxc.cgroup.dir = x\nlxc.cgroup2.c.d = 2\n"},
		{"limits", "lxc.limit.core = 1\nlxc.prlimit.nofile = 2\n", "lxc.prlimit", ""},
		{"one hook", "lxc.hook.start = /a\nlxc.hook.stop = /b\n", "lxc.hook.start",
			"lxc.hook.stop = /b\n"},
		{"hooks", "lxc.hook.start = /a\nlxc.hook.version = 1\nlxc.hook =\nlxc.hook.stop = /b\n",
			"lxc.hook", "lxc.hook.version = 1\n"},
		{"share", "lxc.namespace.share.net = a\nlxc.namespace.share.ipc = a\n",
			"lxc.namespace.share.net", "lxc.namespace.share.ipc = a\n"},
		{"network", "lxc.net.1.type = veth\nlxc.net.10.type = veth\nlxc.net.1.link = a\n",
			"lxc.net.1", "lxc.net.10.type = veth\n"},
		{"type", "lxc.net.1.type = veth\nlxc.net.1.veth.pair = a\n", "lxc.net.1.type", ""},
		{"networks", "lxc.network.type = veth\nlxc.net.10.type = veth\nlxc.tty.max = 1\n",
			"lxc.net", "lxc.tty.max = 1\n"},
		{"old networks", "lxc.network.type=veth\n lxc.network.ipv4 = 10.0.0.1/8\n" +
			"lxc.network.type = 'phys'\nlxc.network.link =\n", "lxc.net.0",
			"lxc.net.1.type = 'phys'\nlxc.net.1.link =\n"},
		{"nothing", "lxc.tty.max = 4\n", "lxc.net.3", "lxc.tty.max = 4\n"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := parse(t, tc.text)
			if err := c.Set(tc.key, ""); err != nil {
				t.Fatal(err)
			}
			equal(t, "lines", written(t, c), tc.want)
			again(t, c)
		})
	}
}

func TestClearOfWhatAnIncludedFileSays(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, included, own, key, want string }{
		{"scalar", "lxc.uts.name = a\n", "lxc.uts.name = b\n", "lxc.uts.name", "lxc.uts.name =\n"},
		{"flag", "lxc.autodev = 0\n", "", "lxc.autodev", "lxc.autodev =\n"},
		{"list", "lxc.cap.drop = kill\n", "lxc.cap.drop = chown\n", "lxc.cap.drop",
			"lxc.cap.drop =\n"},
		{"hooks", "lxc.hook.stop = /a\n", "lxc.hook.start = /b\n", "lxc.hook", "lxc.hook =\n"},
		{"network", "lxc.net.0.type = veth\n", "lxc.net.0.link = a\n", "lxc.net.0.type",
			"lxc.net.0 =\n"},
		{"needed", "lxc.cap.drop = kill\n", "lxc.cap.drop =\nlxc.cap.keep = chown\n",
			"lxc.cap.drop", "lxc.cap.drop =\nlxc.cap.keep = chown\nlxc.cap.drop =\n"},
		{"other", "lxc.tty.max = 1\n", "lxc.uts.name = b\n", "lxc.uts.name", ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			line := include(t, tc.included)
			c := parse(t, line+tc.own)
			if err := c.Clear(tc.key); err != nil {
				t.Fatal(err)
			}
			equal(t, "lines", written(t, c), line+tc.want)
			again(t, c)
		})
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	c := parse(t, "lxc.network.type = empty\nlxc.network.type = veth\nlxc.limit.core = 1\n")
	cases := []struct {
		key  string
		want []string
	}{
		{"lxc.limit.core", []string{"1"}},
		{"lxc.limit", []string{"lxc.prlimit.core = 1"}},
		{"lxc.network.1.type", []string{"veth"}},
		{"lxc.network.type", []string{"veth"}},
		{"lxc.net.0", []string{"type", "script.up", "script.down"}},
		{"lxc.net.1", []string{"type", "script.up", "script.down", "flags", "link", "l2proxy",
			"name", "hwaddr", "mtu", "ipv6.address", "ipv6.gateway", "ipv4.address", "ipv4.gateway",
			"veth.mode", "veth.pair", "veth.n_rxqueues", "veth.n_txqueues", "veth.ipv4.route",
			"veth.ipv6.route", "veth.vlan.id", "veth.vlan.tagged.id"}},
		{"lxc.cgroup2.memory.max", nil},
		{"lxc.hook.start", nil},
	}
	for _, tc := range cases {
		got, err := c.Get(tc.key)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("Get(%q): got %q and %v, want %q", tc.key, got, err, tc.want)
		}
	}
	wrong := []struct {
		key   string
		class error
		want  string
	}{
		{"lxc.uts", errdefs.ErrInvalidArgument,
			`key "lxc.uts": no such key; did you mean "lxc.uts.name"?: invalid argument`},
		{"lxc.net.9.link", errdefs.ErrNotFound, `key "lxc.net.9.link": no such network: not found`},
		{"lxc.net.9", errdefs.ErrNotFound, `key "lxc.net.9": no such network: not found`},
		{"lxc.net.1.vlan.id", errdefs.ErrInvalidArgument, `key "lxc.net.1.vlan.id": ` +
			`only for type vlan: lxc.net.1 has type veth: invalid argument`},
		{"lxc.net.1.lnk", errdefs.ErrInvalidArgument, `key "lxc.net.1.lnk": no such key; ` +
			`did you mean "lxc.net.1.link"?: invalid argument`},
		{"lxc.namespace.share", errdefs.ErrInvalidArgument, `key "lxc.namespace.share": ` +
			`no such key; did you mean "lxc.namespace.share.user"?: invalid argument`},
	}
	for _, tc := range wrong {
		if _, err := c.Get(tc.key); !errors.Is(err, tc.class) || err.Error() != tc.want {
			t.Errorf("Get(%q): got %v, want %s", tc.key, err, tc.want)
		}
	}
	if _, err := parse(t, "").Get("lxc.network.link"); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("without a network: got %v", err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	c := parse(t, "lxc.net.0.type = vlan\n")
	cases := []struct {
		prefix string
		want   []string
	}{
		{"lxc.cap", []string{"drop", "keep"}},
		{"lxc.uts", []string{"name"}},
		{"lxc.namespace.share",
			[]string{"user", "mnt", "pid", "uts", "ipc", "net", "cgroup", "time"}},
		{"lxc.net.0", []string{"type", "script.up", "script.down", "flags", "link", "l2proxy",
			"name", "hwaddr", "mtu", "ipv6.address", "ipv6.gateway", "ipv4.address", "ipv4.gateway",
			"vlan.id"}},
		{"lxc.net.1", nil}, {"lxc.net.x", nil}, {"lxc.nothing", nil}, {"lxc.kmsg", nil},
	}
	for _, tc := range cases {
		if got := c.Keys(tc.prefix); !slices.Equal(got, tc.want) {
			t.Errorf("Keys(%q): got %q, want %q", tc.prefix, got, tc.want)
		}
	}
	all := c.Keys("")
	if all[0] != "lxc.arch" || len(all) != len(keys)-gone-1+len(namespaces) ||
		slices.Contains(all, "lxc.kmsg") {
		t.Errorf("all keys: got %d, %q", len(all), all)
	}
	for _, name := range all {
		if _, err := c.Get(name); err != nil {
			t.Errorf("Get(%q): %v", name, err)
		}
	}
}

func TestRewrite(t *testing.T) {
	t.Parallel()
	line := include(t, "lxc.hook.start = /old/included\n")
	c := parse(t, line+"# /old stays\nlxc.network.type = veth\n"+
		"lxc.network.hwaddr = 00:16:3e:xx:xx:xx\n"+
		"lxc.hook.start =  /old/a /old/b\nlxc.rootfs = '/old/rootfs'\nlxc.utsname = old\n"+
		"lxc.environment = A=/old\n\nlxc.tty.max = 4\n")
	var seen []string
	err := c.Rewrite(func(key, value string) string {
		seen = append(seen, key)
		switch key {
		case "lxc.net.0.hwaddr":
			address, err := CompleteHWAddr(value, strings.NewReader("\x01\x12\xf3\x44\x05\x0a"))
			if err != nil {
				t.Error(err)
			}
			return address
		case "lxc.uts.name":
			return ""
		case "lxc.environment":
			return "'A=/new'"
		case "lxc.tty.max":
			return value
		}
		return strings.ReplaceAll(value, "/old", "/new")
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "keys", seen, []string{"lxc.include", "lxc.net.0.type", "lxc.net.0.hwaddr",
		"lxc.hook.start", "lxc.rootfs.path", "lxc.uts.name", "lxc.environment", "lxc.tty.max"})
	equal(t, "lines", written(t, c), line+"# /old stays\nlxc.network.type = veth\n"+
		"lxc.net.0.hwaddr = 00:16:3e:12:34:5a\nlxc.hook.start = /new/a /new/b\n"+
		"lxc.rootfs.path = /new/rootfs\nlxc.uts.name =\n"+
		"lxc.environment = \"'A=/new'\"\n\nlxc.tty.max = 4\n")
	equal(t, "hooks", c.Hooks["start"], []string{"/old/included", "/new/a /new/b"})
	again(t, c)

	for value, want := range map[string]string{
		"x":    `lxc.tty.max = "x": want a number from 0 to 4096`,
		"1\n2": `lxc.tty.max = "1\n2": want one line of less than 64 KiB`,
	} {
		before := written(t, c)
		err = c.Rewrite(func(key, old string) string {
			if key == "lxc.tty.max" {
				return value
			}
			return old
		})
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		equal(t, "after a wrong value", written(t, c), before)
	}
}

func TestRewriteOfAnInclude(t *testing.T) {
	t.Parallel()
	_, other, _ := split(strings.TrimSuffix(include(t, "lxc.tty.max = 2\n"), "\n"))
	_, wrong, _ := split(strings.TrimSuffix(include(t, "lxc.tty.max = x\n"), "\n"))
	c := parse(t, include(t, "lxc.tty.max = 1\n"))
	for path, want := range map[string]string{
		wrong: wrong + `:1: lxc.tty.max = "x": want a number from 0 to 4096`,
		"/nonexistent/file": `lxc.include = "/nonexistent/file": stat /nonexistent/file: ` +
			`no such file or directory`,
	} {
		err := c.Rewrite(func(string, string) string { return path })
		if err == nil || err.Error() != want || c.TTY.Max != 1 {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := c.Rewrite(func(string, string) string { return other }); err != nil {
		t.Fatal(err)
	}
	equal(t, "ttys", c.TTY.Max, 2)
	again(t, c)
}

func TestCompleteHWAddr(t *testing.T) {
	t.Parallel()
	random := bytes.Repeat([]byte{0xff}, 12)
	got, err := CompleteHWAddr("xx:xx:xx:xx:xX:XX", bytes.NewReader(random))
	if got != "fe:ff:ff:ff:ff:ff" || err != nil {
		t.Errorf("got %s and %v", got, err)
	}
	if _, err := CompleteHWAddr("xx:16:3e:00:00:00", bytes.NewReader(random[:1])); err == nil {
		t.Error("an address was completed without random bytes")
	}
}
