package cli

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// feature is something that containers need of the kernel.
type feature struct {
	label  string
	config string // without CONFIG_
	// required says that no container starts without it.
	required bool
	module   string // its module, if it may be one
	// sign is a file that a kernel with the feature has, or that has the line or word after a space.
	sign string
}

// featureSections are what lxc-checkconfig lists, by its headings.
var featureSections = []struct {
	heading  string
	features []feature
}{
	{"Namespaces", []feature{
		{"Namespaces", "NAMESPACES", true, "", "/proc/self/ns/mnt"},
		{"Utsname namespace", "UTS_NS", false, "", "/proc/self/ns/uts"},
		{"Ipc namespace", "IPC_NS", true, "", "/proc/self/ns/ipc"},
		{"Pid namespace", "PID_NS", true, "", "/proc/self/ns/pid"},
		{"User namespace", "USER_NS", false, "", "/proc/self/ns/user"},
		{"Network namespace", "NET_NS", false, "", "/proc/self/ns/net"},
	}},
	{"Control groups", []feature{
		{"Cgroups", "CGROUPS", false, "", "/proc/cgroups"},
		{"Cgroup namespace", "", false, "", "/proc/self/ns/cgroup"},
		{"Cgroup device", "CGROUP_DEVICE", false, "", "/proc/cgroups devices"},
		{"Cgroup sched", "CGROUP_SCHED", false, "", "/proc/cgroups cpu"},
		{"Cgroup cpu account", "CGROUP_CPUACCT", false, "", "/proc/cgroups cpuacct"},
		{"Cgroup memory controller", "MEMCG", false, "", "/proc/cgroups memory"},
		{"Cgroup cpuset", "CPUSETS", false, "", "/proc/cgroups cpuset"},
	}},
	{"Misc", []feature{
		{"Veth pair device", "VETH", false, "veth", "/sys/module/veth"},
		{"Macvlan", "MACVLAN", false, "macvlan", "/sys/module/macvlan"},
		{"Vlan", "VLAN_8021Q", false, "8021q", "/proc/net/vlan"},
		{"Bridges", "BRIDGE", false, "bridge", "/sys/module/bridge"},
		{"Advanced netfilter", "NETFILTER_ADVANCED", false, "nf_tables", "/sys/module/nf_tables"},
		{
			"CONFIG_IP_NF_TARGET_MASQUERADE", "IP_NF_TARGET_MASQUERADE", false,
			"nf_nat_masquerade_ipv4", "/sys/module/xt_MASQUERADE",
		},
		{
			"CONFIG_IP6_NF_TARGET_MASQUERADE", "IP6_NF_TARGET_MASQUERADE", false,
			"nf_nat_masquerade_ipv6", "/sys/module/xt_MASQUERADE",
		},
		{
			"CONFIG_NETFILTER_XT_TARGET_CHECKSUM", "NETFILTER_XT_TARGET_CHECKSUM", false,
			"xt_CHECKSUM", "/sys/module/xt_CHECKSUM",
		},
		{
			"CONFIG_NETFILTER_XT_MATCH_COMMENT", "NETFILTER_XT_MATCH_COMMENT", false,
			"xt_comment", "/sys/module/xt_comment",
		},
		{"FUSE (for use with lxcfs)", "FUSE_FS", false, "fuse", "/proc/filesystems fuse"},
		{"Overlay (for lxc-copy -s)", "OVERLAY_FS", false, "overlay", "/proc/filesystems overlay"},
	}},
	{"Checkpoint/Restore", []feature{
		{"checkpoint restore", "CHECKPOINT_RESTORE", false, "", "/proc/self/timers"},
		{"CONFIG_FHANDLE", "FHANDLE", false, "", ""},
		{"CONFIG_EVENTFD", "EVENTFD", false, "", ""},
		{"CONFIG_EPOLL", "EPOLL", false, "", "/proc/sys/fs/epoll"},
		{"CONFIG_UNIX_DIAG", "UNIX_DIAG", false, "", "/sys/module/unix_diag"},
		{"CONFIG_INET_DIAG", "INET_DIAG", false, "", "/sys/module/inet_diag"},
		{"CONFIG_PACKET_DIAG", "PACKET_DIAG", false, "", "/sys/module/af_packet_diag"},
		{"CONFIG_NETLINK_DIAG", "NETLINK_DIAG", false, "", "/sys/module/netlink_diag"},
		{"File capabilities", "", false, "", "/proc/sys/kernel/cap_last_cap"},
	}},
}

func checkConfig(*pflag.FlagSet) action {
	return func(_ context.Context, c *call) (int, error) {
		k := &kernelCheck{w: bufio.NewWriter(c.Out), colour: isTerminal(c.Out)}
		defer k.w.Flush()
		fmt.Fprintf(k.w, "strake-lxc version %s\n", c.Version)
		if err := k.load(os.Getenv("CONFIG")); err != nil {
			return 1, err
		}
		for _, section := range featureSections {
			fmt.Fprintf(k.w, "\n--- %s ---\n", section.heading)
			for i := range section.features {
				k.show(&section.features[i])
			}
			switch section.heading {
			case "Namespaces":
				k.limits()
			case "Control groups":
				k.mounts()
			}
		}
		fmt.Fprintf(
			k.w, "\nNote: Before booting a new kernel, you can check its configuration with:\n\n"+
				"  CONFIG=/path/to/config %s\n\n", strings.Join(append(c.Program, "checkconfig"), " "),
		)
		return 0, nil
	}
}

// kernelCheck is one run of lxc-checkconfig.
type kernelCheck struct {
	w      *bufio.Writer
	colour bool
	// set are the options of the kernel's configuration; nil: it is not known, and the kernel that
	// runs is asked.
	set map[string]bool
}

// load reads the configuration of a kernel: that of a file, or that which the running one has left
// somewhere.
func (k *kernelCheck) load(file string) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	release := unix.ByteSliceToString(uts.Release[:])
	places := []string{
		"/proc/config.gz", "/boot/config-" + release, "/lib/modules/" + release + "/build/.config",
	}
	if file != "" {
		places = []string{file}
	}
	for i, place := range places {
		raw, err := os.ReadFile(place)
		if err != nil {
			if file != "" {
				return fmt.Errorf("the kernel's configuration: %w", err)
			}
			continue
		}
		if i > 0 {
			fmt.Fprintf(k.w, "Kernel configuration found at %s\n", place)
		}
		if k.set, err = parseKernelConfig(raw); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
		return nil
	}
	fmt.Fprintln(k.w, "Kernel configuration not found; asking the kernel that runs")
	return nil
}

// parseKernelConfig reads options that are "y" or "m" from a file that may be compressed.
func parseKernelConfig(raw []byte) (map[string]bool, error) {
	if bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		const enough = 16 << 20
		if raw, err = io.ReadAll(io.LimitReader(z, enough)); err != nil {
			return nil, err
		}
	}
	set := map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		name, is := strings.CutPrefix(name, "CONFIG_")
		if ok && is && (value == "y" || value == "m") {
			set[name] = true
		}
	}
	return set, nil
}

func (k *kernelCheck) has(f *feature) (known, has bool) {
	if k.set != nil && f.config != "" {
		return true, k.set[f.config]
	}
	if f.sign == "" {
		return false, false
	}
	file, word, listed := strings.Cut(f.sign, " ")
	if !listed {
		_, err := os.Stat(file)
		// A module that is not loaded leaves no sign.
		return err == nil || f.module == "" && !strings.HasPrefix(file, "/sys/module/"), err == nil
	}
	raw, err := os.ReadFile(file)
	found := slices.Contains(strings.Fields(string(raw)), word)
	return found || f.module == "", err == nil && found
}

func (k *kernelCheck) show(f *feature) {
	known, has := k.has(f)
	word, colour := "enabled", "\x1b[1;32m"
	switch {
	case !known:
		word, colour = "unknown", "\x1b[1;33m"
	case !has && f.required:
		word, colour = "required", "\x1b[1;31m"
	case !has:
		word, colour = "missing", "\x1b[1;33m"
	}
	if k.colour {
		word = colour + word + "\x1b[0;39m"
	}
	fmt.Fprintf(k.w, "%s: %s%s\n", f.label, word, loaded(f, has))
}

// loaded tells of a module whether it is there.
func loaded(f *feature, has bool) string {
	raw, err := os.ReadFile("/proc/modules")
	switch {
	case f.module == "" || !has || err != nil:
		return ""
	case bytes.HasPrefix(raw, []byte(f.module+" ")), bytes.Contains(raw, []byte("\n"+f.module+" ")):
		return ", loaded"
	}
	return ", not loaded"
}

var limitName = regexp.MustCompile(`max_(.*)_namespaces$`)

func (k *kernelCheck) limits() {
	fmt.Fprintln(k.w, "Namespace limits:")
	files, _ := filepath.Glob("/proc/sys/user/max_*_namespaces")
	for _, file := range files {
		if raw, err := os.ReadFile(file); err == nil {
			name := limitName.FindStringSubmatch(file)[1]
			fmt.Fprintf(k.w, "  %s: %s\n", name, bytes.TrimSpace(raw))
		}
	}
}

func (k *kernelCheck) mounts() {
	raw, _ := os.ReadFile("/proc/self/mounts")
	for _, v := range []struct{ version, kind string }{{"v1", "cgroup"}, {"v2", "cgroup2"}} {
		fmt.Fprintf(k.w, "Cgroup %s mount points:\n", v.version)
		for line := range strings.Lines(string(raw)) {
			if f := strings.Fields(line); len(f) > 2 && f[2] == v.kind {
				fmt.Fprintf(k.w, " - %s\n", f[1])
			}
		}
	}
}
