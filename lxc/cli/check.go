package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// option is one of the kernel's configuration.
type option struct {
	label, key string
	required   bool
}

// kernelOptions are what lxc-checkconfig(1) shows, by section.
var kernelOptions = []struct {
	title string
	list  []option
}{
	{"Namespaces", []option{
		{"Namespaces", "NAMESPACES", true},
		{"Utsname namespace", "UTS_NS", false},
		{"Ipc namespace", "IPC_NS", true},
		{"Pid namespace", "PID_NS", true},
		{"User namespace", "USER_NS", false},
		{"Network namespace", "NET_NS", false},
	}},
	{"Control groups", []option{
		{"Cgroups", "CGROUPS", false},
		{"Cgroup device", "CGROUP_DEVICE", false},
		{"Cgroup sched", "CGROUP_SCHED", false},
		{"Cgroup cpu account", "CGROUP_CPUACCT", false},
		{"Cgroup memory controller", "MEMCG", false},
		{"Cgroup cpuset", "CPUSETS", false},
	}},
	{"Misc", []option{
		{"Veth pair device", "VETH", false},
		{"Macvlan", "MACVLAN", false},
		{"Vlan", "VLAN_8021Q", false},
		{"Bridges", "BRIDGE", false},
		{"nf_tables", "NF_TABLES", false},
		{"Overlay filesystem", "OVERLAY_FS", false},
		{"FUSE (for use with lxcfs)", "FUSE_FS", false},
		{"Seccomp filters", "SECCOMP_FILTER", false},
	}},
}

// checkConfig shows what the kernel has of what containers use. The variable CONFIG names another
// configuration, as LXC has it. The status is 1 if a required one is missing.
func checkConfig(*pflag.FlagSet) action {
	return func(_ context.Context, c *call) (int, error) {
		file, have, err := kernelConfig(os.Getenv("CONFIG"))
		if err != nil {
			return 1, err
		}
		fmt.Fprintf(c.Out, "Kernel configuration: %s\n", file)
		code := 0
		for _, section := range kernelOptions {
			fmt.Fprintf(c.Out, "\n--- %s ---\n", section.title)
			for _, o := range section.list {
				state := "enabled"
				switch {
				case have[o.key]:
				case o.required:
					state, code = "required", 1
				default:
					state = "missing"
				}
				fmt.Fprintf(c.Out, "%s: %s\n", o.label, state)
			}
			if section.title == "Control groups" {
				if err := c.mountedGroups(); err != nil {
					return 1, err
				}
			}
		}
		return code, nil
	}
}

// mountedGroups lists where control groups are mounted.
func (c *call) mountedGroups() error {
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for i, kind := range []string{"cgroup", "cgroup2"} {
		fmt.Fprintf(c.Out, "Cgroup v%d mount points: \n", i+1)
		for line := range strings.Lines(string(raw)) {
			if f := strings.Fields(line); len(f) > 2 && f[2] == kind {
				fmt.Fprintf(c.Out, " - %s\n", f[1])
			}
		}
	}
	return nil
}

// kernelConfig reads the options of a kernel's configuration that are built in or modules; "" is
// that of the running one.
func kernelConfig(file string) (name string, have map[string]bool, err error) {
	places := []string{file}
	if file == "" {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return "", nil, err
		}
		release := unix.ByteSliceToString(u.Release[:])
		places = []string{
			"/proc/config.gz", "/boot/config-" + release,
			filepath.Join("/lib/modules", release, "build/.config"),
		}
	}
	for _, place := range places {
		raw, err := os.ReadFile(place)
		if errors.Is(err, os.ErrNotExist) && file == "" {
			continue
		}
		if err != nil {
			return "", nil, err
		}
		have, err := parseKernelConfig(raw)
		return place, have, err
	}
	return "", nil, fmt.Errorf(
		"the kernel's configuration is in none of %s: CONFIG=FILE names it",
		strings.Join(places, ", "),
	)
}

// parseKernelConfig reads a configuration, compressed or not, of at most 16 MB.
func parseKernelConfig(raw []byte) (map[string]bool, error) {
	if z, err := gzip.NewReader(bytes.NewReader(raw)); err == nil {
		const most = 16 << 20
		if raw, err = io.ReadAll(io.LimitReader(z, most)); err != nil {
			return nil, fmt.Errorf("kernel configuration: %w", err)
		}
	}
	have := map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if key, is := strings.CutPrefix(key, "CONFIG_"); ok && is && (value == "y" || value == "m") {
			have[key] = true
		}
	}
	return have, nil
}
