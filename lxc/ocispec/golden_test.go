package ocispec

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strake/container/plan"
	"strake/lxc/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// host1 and host2 are hosts with version 1 and version 2 cgroups.
var (
	host1 = Host{Arch: "amd64", CgroupVersion: 1}
	host2 = Host{Arch: "amd64", CgroupVersion: 2, AppArmor: true, LastCap: 39}
)

const policy = "2\ndenylist\nreject_force_umount\n[all]\nkexec_load errno 1\nfuture errno 1\n" +
	"open_by_handle_at errno 1\n"

// planHost is how the library sees a host of these tests.
func planHost(h *Host) plan.Host {
	out := plan.Host{
		LastCap: 40, Cgroup2: h.CgroupVersion == 2, AppArmor: h.AppArmor, SELinux: h.SELinux,
	}
	if out.Cgroup2 {
		out.Hierarchies = []plan.Hierarchy{{Path: "/sys/fs/cgroup/lxc.payload"}}
		return out
	}
	for dir, options := range map[string][]string{
		"memory": {"memory"}, "systemd": {"none", "name=systemd"}, "unified": nil,
	} {
		out.Hierarchies = append(out.Hierarchies, plan.Hierarchy{
			Dir: dir, Path: "/sys/fs/cgroup/" + dir + "/lxc.payload", Options: options,
		})
	}
	return out
}

// accept has the library take a result.
func accept(t *testing.T, in *Input, made *Made) {
	t.Helper()
	if _, err := plan.Init(made.Spec, plan.Options{
		Host: planHost(&in.Host), Assist: true, Hooks: made.Spec.Hooks != nil,
		NoNewKeyring: made.NoNewKeyring, Reaper: made.Init,
	}); err != nil {
		t.Errorf("the library refuses the result: %v", err)
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func golden(t *testing.T, name string, made *Made) {
	t.Helper()
	got := encode(t, made) + "\n"
	file := filepath.Join("testdata", name+".json")
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
		t.Errorf("%s differs from what is made now; compare after go test -update:\n%s", file, got)
	}
}

// parse is a configuration of these lines.
func parse(t *testing.T, lines ...string) *config.Config {
	t.Helper()
	c, err := config.Parse(t.Name(), strings.NewReader(strings.Join(lines, "\n")+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// input is a container of a configuration on a host that has what containers of these tests mount.
func input(c *config.Config, host Host) *Input {
	in := &Input{
		Name: c.Uts.Name, Config: c, Root: "/srv/lxc/" + c.Uts.Name + "/rootfs", Host: host,
		ConfigFile: "/srv/lxc/" + c.Uts.Name + "/config", LXCPath: "/srv/lxc",
		CgroupsPath: "/lxc.payload." + c.Uts.Name,
		Environ:     []string{"PATH=/usr/bin:/bin", "TERM=linux", "SECRET=1"},
		Exists: func(name string) bool {
			return slices.Contains([]string{"/sys/fs/fuse/connections", "/srv/data"}, name)
		},
	}
	for i := range c.TTY.Max {
		in.TTYs = append(in.TTYs, "/dev/pts/"+string(rune('0'+i)))
	}
	if c.Seccomp.Profile != "" {
		in.Seccomp = []byte(policy)
	}
	return in
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(in *Input){
		"debian-v1": func(in *Input) { in.Netns = "/run/netns/trixie" },
		"debian-v2": func(in *Input) { in.Host = host2 },
		"minimal": func(in *Input) {
			in.Name, in.Root = "minimal", "/srv/lxc/minimal/rootfs"
		},
		"unprivileged":    func(in *Input) { in.Host.Caps = 1 },
		"unprivileged-v2": func(in *Input) { in.Host = host2 },
		"nested":          func(in *Input) { in.Host.AppArmor, in.Host.Confined = true, true },
		"networks":        func(in *Input) { in.Netns = "/run/netns/router" },
		"application":     func(in *Input) { in.Command = []string{} },
		"hostfs": func(in *Input) {
			in.Root, in.Shared = "/", map[string]string{"ipc": "/proc/7/ns/ipc"}
		},
		"hooks": func(in *Input) { in.Root = "/run/lxc/hooked" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := config.Load(filepath.Join("testdata", name+".conf"))
			if err != nil {
				t.Fatal(err)
			}
			in := input(c, host1)
			change(in)
			before := encode(t, in.Config)
			made, err := Make(in)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, made)
			accept(t, in, made)
			if again, err := Make(in); err != nil || encode(t, again) != encode(t, made) {
				t.Errorf("the same input gives another result: %v", err)
			}
			if after := encode(t, in.Config); after != before {
				t.Errorf("the configuration was changed to\n%s", after)
			}
		})
	}
}
