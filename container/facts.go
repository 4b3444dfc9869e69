package container

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/container/plan"
)

// nsFlag is the clone flag of a namespace type.
func nsFlag(t specs.LinuxNamespaceType) uint64 {
	switch t {
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET
	case specs.MountNamespace:
		return unix.CLONE_NEWNS
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP
	case specs.TimeNamespace:
		return unix.CLONE_NEWTIME
	}
	return 0
}

// namespaceFlags are the namespaces that a container has of its own, new or joined: what an exec
// has to join.
func namespaceFlags(spec *specs.Spec) (flags uint64) {
	if spec.Linux == nil {
		return 0
	}
	for _, ns := range spec.Linux.Namespaces {
		flags |= nsFlag(ns.Type)
	}
	return flags
}

// twoStages says whether the program goes on in a second process, as plan decides.
func (c *Container) twoStages() bool {
	if c.spec.Linux == nil {
		return false
	}
	joins, newUser := false, false
	for _, ns := range c.spec.Linux.Namespaces {
		if ns.Path != "" && (ns.Type == specs.PIDNamespace || ns.Type == specs.UserNamespace) {
			return true
		}
		joins = joins || ns.Path != ""
		newUser = newUser || ns.Path == "" && ns.Type == specs.UserNamespace
	}
	return joins && newUser
}

func resources(spec *specs.Spec) *specs.LinuxResources {
	if spec.Linux == nil {
		return nil
	}
	res := spec.Linux.Resources
	if res == nil || len(res.Devices) == 0 {
		return res
	}
	// Rules commonly begin with a denial of everything; the devices that every container has
	// (runtime-spec config-linux.md, "Default Devices") are allowed after all.
	out := *res
	out.Devices = append(slices.Clone(res.Devices), cgroup.DefaultDevices()...)
	return &out
}

// cgroupsPath is the container's group: the one that the configuration names, or one with the
// container's name directly below the root. A parent group of strake's would stay when the
// container is deleted, and in the engine's parent group the engine would remove it as a leftover.
func (c *Container) cgroupsPath() string {
	if c.spec != nil && c.spec.Linux != nil && c.spec.Linux.CgroupsPath != "" {
		return c.spec.Linux.CgroupsPath
	}
	return "/strake-runtime-" + c.rec.ID
}

// lastCap is the highest capability of the running kernel, which answers EINVAL for unknown ones
// (prctl(2), PR_CAPBSET_READ).
func lastCap() int {
	known := func(n int) bool {
		_, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		return err == nil
	}
	n := unix.CAP_LAST_CAP
	for n > 0 && !known(n) {
		n--
	}
	for n < 63 && known(n+1) {
		n++
	}
	return n
}

// hostFacts gathers what the plan of a process wants to know.
func hostFacts(h *cgroup.Host, hier []plan.Hierarchy, p *specs.Process) plan.Host {
	there := func(path string) bool { return unix.Access(path, unix.F_OK) == nil }
	return plan.Host{
		LastCap: lastCap(), Cgroup2: h.Version() == 2, Hierarchies: hier,
		AppArmor: p != nil && p.ApparmorProfile != "" &&
			there("/sys/kernel/security/apparmor/profiles"),
		SELinux: p != nil && p.SelinuxLabel != "" && there("/sys/fs/selinux/enforce"),
	}
}

// wholeMounts lists where procfs and sysfs are mounted, but for places in the container's root, in
// the order of /proc/self/mountinfo (proc_pid_mountinfo(5)).
func wholeMounts(mountinfo []byte, root string) (list []string) {
	for line := range bytes.Lines(mountinfo) {
		before, after, _ := bytes.Cut(line, []byte(" - "))
		f, g := bytes.Fields(before), bytes.Fields(after)
		if len(f) < 5 || len(g) < 1 || string(g[0]) != "proc" && string(g[0]) != "sysfs" {
			continue
		}
		place := unescape(string(f[4]))
		if rest, inside := strings.CutPrefix(place, root); inside && strings.HasPrefix(rest, "/") {
			continue
		}
		list = append(list, place)
	}
	return list
}

// unescape undoes the octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// mountsCgroup says whether the configuration mounts cgroups, so that their hierarchies matter to
// the plan.
func mountsCgroup(spec *specs.Spec) bool {
	for _, m := range spec.Mounts {
		if m.Type == "cgroup" || m.Type == "cgroup2" {
			return true
		}
	}
	return false
}

// hierarchies lists the hierarchies with the container's group in each.
func (b *birth) hierarchies() []plan.Hierarchy {
	if !mountsCgroup(b.spec) {
		return nil
	}
	var list []plan.Hierarchy
	group := filepath.Clean("/" + b.c.cgroupsPath())
	for _, h := range b.host.Hierarchies() {
		list = append(
			list,
			plan.Hierarchy{Dir: filepath.Base(h.Mount), Options: h.Options, Path: h.Mount + group},
		)
	}
	return list
}
