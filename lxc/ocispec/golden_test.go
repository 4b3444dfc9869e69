package ocispec

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"strake/container/plan"
	"strake/lxc/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// host1 and host2 are hosts with version 1 and version 2 cgroups.
var (
	host1 = Host{Arch: "amd64", CgroupVersion: 1}
	host2 = Host{Arch: "amd64", CgroupVersion: 2, AppArmor: true}
)

// exists is a host of which these paths are asked for.
func exists(paths ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(paths, name) }
}

// planHost is how the library sees a host of these tests.
func planHost(h *Host) plan.Host {
	out := plan.Host{
		LastCap: 40, Cgroup2: h.CgroupVersion == 2, AppArmor: h.AppArmor, SELinux: h.SELinux,
	}
	for _, dir := range []string{"memory", "systemd", "unified"} {
		l := plan.Hierarchy{Dir: dir, Path: "/sys/fs/cgroup/" + dir + "/lxc.payload"}
		switch dir {
		case "memory":
			l.Options = []string{"memory"}
		case "systemd":
			l.Options = []string{"none", "name=systemd"}
		}
		out.Hierarchies = append(out.Hierarchies, l)
	}
	if out.Cgroup2 {
		out.Hierarchies = []plan.Hierarchy{{Path: "/sys/fs/cgroup/lxc.payload"}}
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

func golden(t *testing.T, name string, made *Made) {
	t.Helper()
	got, err := json.MarshalIndent(made, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs from what is made now; compare after go test -update:\n%s", file, got)
	}
}

func devices(allow string) []config.Setting {
	list := []config.Setting{{Name: "devices.deny", Value: "a"}}
	for _, rule := range []string{
		"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 5:0 rwm", "c 5:1 rwm",
		"c 5:2 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 136:* rwm", allow,
	} {
		list = append(list, config.Setting{Name: "devices.allow", Value: rule})
	}
	return list
}

// common is what most containers of LXC have, in our words.
func common(name string) *config.Config {
	c := &config.Config{Arch: "amd64"}
	c.Uts.Name = name
	c.Rootfs.Path = "dir:/srv/lxc/" + name + "/rootfs"
	c.TTY.Max, c.TTY.Dir = 4, "lxc"
	c.PTYMax = 1024
	c.Caps.Drop = []string{"mac_admin", "mac_override", "sys_time", "sys_module", "sys_rawio"}
	c.Cgroup, c.Cgroup2 = devices("c 10:229 rwm"), devices("c 10:229 rwm")
	c.Mount.Auto = []config.AutoMount{
		{What: "cgroup", Variant: "mixed"}, {What: "proc", Variant: "mixed"},
		{What: "sys", Variant: "mixed"},
	}
	c.Mount.Entries = []config.MountEntry{{
		Source: "/sys/fs/fuse/connections", Target: "sys/fs/fuse/connections", Type: "none",
		Options: []string{"bind"}, Optional: true,
	}}
	return c
}

func input(c *config.Config, host Host) *Input {
	in := &Input{
		Name: c.Uts.Name, Config: c, Root: "/srv/lxc/" + c.Uts.Name + "/rootfs", Host: host,
		CgroupsPath: "/lxc.payload." + c.Uts.Name,
		Environ:     []string{"PATH=/usr/bin:/bin", "TERM=linux", "SECRET=1"},
		Exists:      exists("/sys/fs/fuse/connections"),
	}
	for i := range c.TTY.Max {
		in.TTYs = append(in.TTYs, "/dev/pts/"+string(rune('0'+i)))
	}
	return in
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, in := range inputs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, err := Make(in)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, made)
			accept(t, in, made)
		})
	}
}

func inputs() map[string]*Input {
	return map[string]*Input{
		"debian-v1": input(common("debian"), host1),
		"debian-v2": input(common("debian"), host2),
	}
}
