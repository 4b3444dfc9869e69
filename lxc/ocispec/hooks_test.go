package ocispec

import (
	"path"
	"slices"
	"strings"
	"testing"

	"strake/lxc/config"
)

func TestHookCall(t *testing.T) {
	t.Parallel()
	const known = "LXC_NAME=c\nLXC_CONFIG_FILE=/srv/lxc/c/config\n" +
		"LXC_ROOTFS_MOUNT=/srv/lxc/c/rootfs\nLXC_ROOTFS_PATH=/srv/lxc/c/rootfs\n" +
		"LXC_CGNS_AWARE=1\nLXC_LOG_LEVEL=ERROR\n"
	namespaces := []config.Setting{{Name: "mnt", Value: "/proc/1/fd/5"}, {Name: "net", Value: "/p"}}
	for _, c := range []struct {
		name, lines, hook, script string
		at                        Moment
		args, env                 string
	}{
		{
			"version 0", "", "pre-start", "/bin/hook a b", Moment{},
			"/bin/hook a b c lxc pre-start", known + "LXC_HOOK_VERSION=0",
		},
		{
			"version 1", "lxc.hook.version = 1", "start-host", "/bin/hook",
			Moment{PID: 7, Namespaces: namespaces}, "/bin/hook",
			known + "LXC_HOOK_VERSION=1\nLXC_HOOK_TYPE=start-host\nLXC_HOOK_SECTION=lxc\n" +
				"LXC_MNT_NS=/proc/1/fd/5\nLXC_NET_NS=/p\nLXC_PID=7",
		},
		{
			"stop, version 0", "", "stop", "/bin/hook",
			Moment{Target: "reboot", Namespaces: namespaces},
			"/bin/hook c lxc stop mnt:/proc/1/fd/5 net:/p",
			known + "LXC_HOOK_VERSION=0\nLXC_TARGET=reboot",
		},
		{
			"a shell's words", "", "clone", `hook "$X"`,
			Moment{Args: []string{"it's"}, SrcName: "old"},
			`/bin/sh -c exec hook "$X" 'c' 'lxc' 'clone' 'it'\''s'`,
			known + "LXC_HOOK_VERSION=0\nLXC_SRC_NAME=old",
		},
		{
			"network, version 0", "", "up", "/bin/up",
			Moment{Section: "net", Args: []string{"veth", "br0", "vethX"}},
			"/bin/up c net up veth br0 vethX", known + "LXC_HOOK_VERSION=0",
		},
		{
			"network, version 1", "lxc.hook.version = 1", "up", "/bin/up",
			Moment{Section: "net", Args: []string{"veth", "br0", "vethX"}},
			"/bin/up veth br0 vethX",
			known + "LXC_HOOK_VERSION=1\nLXC_HOOK_TYPE=up\nLXC_HOOK_SECTION=net\n" +
				"LXC_NET_TYPE=veth\nLXC_NET_PEER=vethX\nLXC_NET_PARENT=br0",
		},
		{
			"network without a link", "lxc.hook.version = 1", "down", "/bin/up",
			Moment{Section: "net", Args: []string{"macvlan"}}, "/bin/up macvlan",
			known + "LXC_HOOK_VERSION=1\nLXC_HOOK_TYPE=down\nLXC_HOOK_SECTION=net\n" +
				"LXC_NET_TYPE=macvlan\nLXC_NET_PARENT=",
		},
		{
			"settings", "lxc.console.path = /dev/tty9\nlxc.console.logfile = /l\n" +
				"lxc.log.level = info\nlxc.environment.hooks = A=1\nlxc.environment = TERM\n" +
				"lxc.environment.runtime = B=2",
			"destroy", "/h", Moment{}, "/h c lxc destroy",
			"A=1\n" + strings.Replace(
				strings.Replace(known, "=ERROR", "=INFO", 1), "LXC_CGNS",
				"LXC_CONSOLE=/dev/tty9\nLXC_CONSOLE_LOGPATH=/l\nLXC_CGNS", 1,
			) + "LXC_HOOK_VERSION=0",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := input(parse(t, base, c.lines), host1)
			args, env := HookCall(in, c.hook, c.script, c.at)
			if got := strings.Join(args, " "); got != c.args {
				t.Errorf("args: got %s, want %s", got, c.args)
			}
			// The caller's environment comes first.
			want := append(slices.Clone(in.Environ), strings.Split(c.env, "\n")...)
			if !slices.Equal(env, want) {
				t.Errorf(
					"env: got\n%s\nwant\n%s", strings.Join(env, "\n"), strings.Join(want, "\n"),
				)
			}
		})
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	for command, want := range map[string][]string{
		"": nil, "  a\tb ": {"a", "b"}, `a "b c" 'd "e'`: {"a", "b c", `d "e`},
		`a""b '' x`: {"ab", "", "x"}, `a\ b`: {`a\`, "b"},
	} {
		if got, ok := Words(command); !ok || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", command, got, ok, want)
		}
	}
	for _, command := range []string{`"`, `a 'b`, `"'"'`} {
		if got, ok := Words(command); ok {
			t.Errorf("%s: got %q, want an error about the quote", command, got)
		}
	}
}

// TestBesides: of all names, the patterns match those that are not excepted and what is in them.
func TestBesides(t *testing.T) {
	t.Parallel()
	match := func(patterns []string, name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			// {,/**} is what the name is, or anything in the directory of that name.
			p, _ = strings.CutSuffix(p, "{,/**}")
			ok, err := path.Match(p, name)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		})
	}
	patterns := besides("/d/", []string{"net", "new", "shm*", "s"})
	for name, want := range map[string]bool{
		"net": false, "new": false, "shm": false, "shmall": false, "s": false,
		"n": true, "ne": true, "nex": true, "nett": true, "news": true, "sh": true, "sha": true,
		"st": true, "other": true, "NET": true, "x": true,
	} {
		if got := match(patterns, "/d/"+name); got != want {
			t.Errorf(
				"%s: matched: %v, want %v by\n%s", name, got, want, strings.Join(patterns, "\n"),
			)
		}
	}
}
