package plan

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// withLinux is the configuration with linux set.
func withLinux(s *specs.Spec) *specs.Spec {
	if s.Linux != nil {
		return s
	}
	copied := *s
	copied.Linux = &specs.Linux{}
	return &copied
}

// withRoot is the configuration with root set.
func withRoot(s *specs.Spec) *specs.Spec {
	if s.Root != nil {
		return s
	}
	copied := *s
	copied.Root = &specs.Root{}
	return &copied
}

// validate checks what the kernel would not, or not in words that name the field.
func validate(s *specs.Spec, opt *Options) error {
	if err := validateNamespaces(s.Linux); err != nil {
		return err
	}
	if err := validateMountNamespace(s.Linux); err != nil {
		return err
	}
	if err := validateRoot(s.Root, opt.Overlay); err != nil {
		return err
	}
	if err := validateMounts(s.Mounts, opt); err != nil {
		return err
	}
	if err := validateNames(s); err != nil {
		return err
	}
	if err := validateLinux(s, opt); err != nil {
		return err
	}
	return validateProcess("process", s.Process)
}

func validateNamespaces(l *specs.Linux) error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for i, ns := range l.Namespaces {
		field := fmt.Sprintf("linux.namespaces[%d]", i)
		if _, ok := namespaceFlags.get(ns.Type); !ok {
			return invalid(
				field+".type", "%q, want one of pid, network, mount, ipc, uts, user, cgroup, time",
				ns.Type,
			)
		}
		if seen[ns.Type] {
			return invalid(field+".type", "%q appears twice", ns.Type)
		}
		seen[ns.Type] = true
		if ns.Path != "" && !path.IsAbs(ns.Path) {
			return invalid(field+".path", "%q is not absolute", ns.Path)
		}
	}
	for _, ns := range l.Namespaces {
		if ns.Type == specs.UserNamespace && ns.Path == "" &&
			(len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0) {
			return invalid(
				"linux.uidMappings", "a new user namespace needs uidMappings and gidMappings",
			)
		}
	}
	if !seen[specs.UserNamespace] &&
		(len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0) {
		return invalid("linux.uidMappings", "set without a user namespace in linux.namespaces")
	}
	if !seen[specs.TimeNamespace] && len(l.TimeOffsets) > 0 {
		return invalid("linux.timeOffsets", "set without a time namespace in linux.namespaces")
	}
	for clock := range l.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return invalid("linux.timeOffsets", "clock %q, want monotonic or boottime", clock)
		}
	}
	return nil
}

// validateMountNamespace wants the one in which the root filesystem is made.
func validateMountNamespace(l *specs.Linux) error {
	for i, ns := range l.Namespaces {
		if ns.Type != specs.MountNamespace {
			continue
		}
		if ns.Path != "" {
			return invalid(
				fmt.Sprintf("linux.namespaces[%d].path", i),
				"a mount namespace can be created, not joined, because the root filesystem is "+
					"made in it",
			)
		}
		return nil
	}
	return invalid(
		"linux.namespaces",
		"a mount namespace is missing: without one the container's mounts would be the host's",
	)
}

func validateRoot(root *specs.Root, o *Overlay) error {
	if o == nil {
		if root.Path == "" {
			return invalid("root.path", "missing")
		}
		if !path.IsAbs(root.Path) {
			return invalid("root.path", "%q is not absolute", root.Path)
		}
	} else {
		for _, dir := range append([]string{o.Upper, o.Work, o.Target}, o.Lower...) {
			if strings.ContainsRune(dir, 0) {
				return invalid("root", "layer directory %q has a zero byte", dir)
			}
		}
		if len(o.Lower) == 0 || o.Target == "" || (o.Upper == "") != (o.Work == "") {
			return invalid(
				"root",
				"an overlay needs lower directories, a target, and an upper directory with its "+
					"work directory or neither",
			)
		}
	}
	return nil
}

func validateMounts(mounts []specs.Mount, opt *Options) error {
	for i, m := range mounts {
		field := fmt.Sprintf("mounts[%d] (%s)", i, m.Destination)
		dest := path.Clean("/" + m.Destination)
		switch {
		case m.Destination == "":
			return invalid(field, "destination is missing")
		case strings.ContainsRune(m.Destination, 0) || strings.ContainsRune(m.Source, 0):
			return invalid(field, "a NUL byte in a path")
		case dest == "/":
			return invalid(field, "the root itself cannot be mounted over; set root.path")
		}
		o := parseOptions(m.Options)
		isBind := o.bind || m.Type == "bind"
		if isBind && !o.remount && !path.IsAbs(m.Source) {
			return invalid(field, "source %q is not absolute", m.Source)
		}
		if !isBind && m.Type == "" {
			return invalid(
				field, `type is missing; want a filesystem type, or option "bind" or "rbind"`,
			)
		}
		if isBind && (dest == "/proc" || strings.HasPrefix(dest, "/proc/")) &&
			!slices.Contains(procTargets, dest) && dest != "/proc" {
			return invalid(
				field,
				"nothing may be mounted inside of /proc but files that only inform, such as "+
					"/proc/meminfo",
			)
		}
		if !isBind && m.Type != "proc" && (dest == "/proc" || strings.HasPrefix(dest, "/proc/")) {
			return invalid(field, "only a procfs may be mounted on /proc, not %q", m.Type)
		}
		if (o.idmap || len(m.UIDMappings)+len(m.GIDMappings) > 0) && !isBind {
			return invalid(field, "only bind mounts can be id-mapped")
		}
		if len(o.data) > 0 && isBind {
			return invalid(field, "option %q is unknown for a bind mount", o.data[0])
		}
		if o.copyUp && m.Type != "tmpfs" {
			return invalid(field, `option "tmpcopyup" is for a tmpfs only`)
		}
		if o.copyUp && !opt.Assist {
			return invalid(field, `option "tmpcopyup" is not supported here`)
		}
		for _, d := range o.data {
			if len(d) > 255 {
				return invalid(field, "option %.20q... is longer than 255 bytes", d)
			}
		}
	}
	return nil
}

func validateNames(s *specs.Spec) error {
	if len(s.Hostname) > 64 || len(s.Domainname) > 64 {
		return invalid("hostname", "host and domain names are at most 64 bytes")
	}
	if s.Hostname != "" && !hasType(s.Linux, specs.UTSNamespace) {
		return invalid(
			"hostname", "%q needs a uts namespace of its own, or it would rename the host",
			s.Hostname,
		)
	}
	if s.Domainname != "" && !hasType(s.Linux, specs.UTSNamespace) {
		return invalid("domainname", "%q needs a uts namespace of its own", s.Domainname)
	}
	return nil
}

func hasType(l *specs.Linux, t specs.LinuxNamespaceType) bool {
	for _, ns := range l.Namespaces {
		if ns.Type == t {
			return true
		}
	}
	return false
}

func validateLinux(s *specs.Spec, opt *Options) error {
	l := s.Linux
	if prop := l.RootfsPropagation; prop != "" {
		if _, ok := propagations.get(prop); !ok {
			return invalid(
				"linux.rootfsPropagation",
				"%q, want private, slave, shared or unbindable, or one of them with a leading r",
				prop,
			)
		}
	}
	for i, d := range l.Devices {
		field := fmt.Sprintf("linux.devices[%d] (%s)", i, d.Path)
		if !path.IsAbs(d.Path) || path.Clean(d.Path) == "/" {
			return invalid(field, "path is not absolute")
		}
		if d.Type != "c" && d.Type != "b" && d.Type != "u" && d.Type != "p" {
			return invalid(field, "type %q, want c, u, b or p", d.Type)
		}
	}
	if err := validateSysctls(s); err != nil {
		return err
	}
	if l.IntelRdt != nil {
		return invalid("linux.intelRdt", "this host's resource control is not used by strake")
	}
	if l.MemoryPolicy != nil {
		if _, _, err := memoryPolicyNumbers(l.MemoryPolicy); err != nil {
			return err
		}
	}
	return validateNetDevices(l, opt)
}

// validateNetDevices wants a network namespace, names of interfaces, and none of them twice.
func validateNetDevices(l *specs.Linux, opt *Options) error {
	devices := l.NetDevices
	if len(devices) == 0 {
		return nil
	}
	if !hasType(l, specs.NetworkNamespace) {
		return invalid(
			"linux.netDevices", "unable to move network devices without a network namespace",
		)
	}
	if !opt.Assist {
		return invalid("linux.netDevices", "moving network devices is not supported here")
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		field := fmt.Sprintf("linux.netDevices[%s]", name)
		there := cmp.Or(devices[name].Name, name)
		for _, s := range []string{name, there} {
			// dev_valid_name of net/core/dev.c; % would be a pattern for a number.
			if s == "" || len(s) >= unix.IFNAMSIZ || s == "." || s == ".." ||
				strings.ContainsAny(s, "/:% \t\n\v\f\r\x00") {
				return invalid(field, "invalid network device name %q", s)
			}
		}
		if seen[there] {
			return invalid(field, "another device is called %q in the container", there)
		}
		seen[there] = true
	}
	return nil
}

// validateSysctls reports the first name in order that is refused.
func validateSysctls(s *specs.Spec) (refused error) {
	first := ""
	for name := range s.Linux.Sysctl {
		if err := validateSysctl(s, name); err != nil && (refused == nil || name < first) {
			first, refused = name, err
		}
	}
	return refused
}

// validateSysctl lets through what is the namespace's and not the host's (runtime-spec
// config-linux.md, Sysctl).
func validateSysctl(s *specs.Spec, name string) error {
	field := fmt.Sprintf("linux.sysctl[%s]", name)
	clean := sysctlPath(name)
	if clean == "" || path.Clean("/"+clean) != "/"+clean {
		return invalid(field, "not the name of a kernel parameter")
	}
	if clean == "kernel/hostname" {
		return invalid(field, "set hostname instead")
	}
	if d := s.Domainname; clean == "kernel/domainname" && d != "" &&
		d != s.Linux.Sysctl[name] {
		return invalid(field, "%q, but domainname is %q", s.Linux.Sysctl[name], d)
	}
	need := sysctlNamespace(clean)
	if need == "" {
		return invalid(field, "is not separate for each container")
	}
	if !hasType(s.Linux, need) {
		return invalid(field, "needs a %s namespace, or it would change the host", need)
	}
	return nil
}

// sysctlNamespace is the type of the namespaces that have a parameter each, or empty. clean is its
// path below /proc/sys.
func sysctlNamespace(clean string) specs.LinuxNamespaceType {
	switch {
	case strings.HasPrefix(clean, "net/"):
		return specs.NetworkNamespace
	case clean == "kernel/domainname":
		return specs.UTSNamespace
	case strings.HasPrefix(clean, "fs/mqueue/"), clean == "kernel/sem",
		strings.HasPrefix(clean, "kernel/shm"), strings.HasPrefix(clean, "kernel/msg"):
		return specs.IPCNamespace
	}
	return ""
}

func validateProcess(field string, proc *specs.Process) error {
	if proc == nil {
		return invalid(field, "missing")
	}
	if len(proc.Args) == 0 || proc.Args[0] == "" {
		return invalid(field+".args", "missing: the name of the program to execute comes first")
	}
	if proc.Cwd == "" || !path.IsAbs(proc.Cwd) {
		return invalid(field+".cwd", "%q is not an absolute path", proc.Cwd)
	}
	for i, s := range proc.Args {
		if strings.ContainsRune(s, 0) {
			return invalid(fmt.Sprintf("%s.args[%d]", field, i), "contains a NUL byte")
		}
	}
	for i, s := range proc.Env {
		if strings.ContainsRune(s, 0) {
			return invalid(fmt.Sprintf("%s.env[%d]", field, i), "contains a NUL byte")
		}
		if !strings.Contains(s, "=") || strings.HasPrefix(s, "=") {
			return invalid(fmt.Sprintf("%s.env[%d]", field, i), "%q is not NAME=value", s)
		}
	}
	if strings.ContainsRune(proc.Cwd, 0) {
		return invalid(field+".cwd", "contains a NUL byte")
	}
	if len(proc.Cwd) >= unix.PathMax {
		return invalid(field+".cwd", "longer than %d bytes", unix.PathMax-1)
	}
	seen := map[string]bool{}
	for i, r := range proc.Rlimits {
		f := fmt.Sprintf("%s.rlimits[%d]", field, i)
		if _, ok := rlimits.get(r.Type); !ok {
			return invalid(f+".type", "%q is not a resource limit of getrlimit(2)", r.Type)
		}
		if seen[r.Type] {
			return invalid(f+".type", "%q appears twice", r.Type)
		}
		seen[r.Type] = true
		if r.Soft > r.Hard {
			return invalid(f, "soft limit %d exceeds hard limit %d", r.Soft, r.Hard)
		}
	}
	if a := proc.OOMScoreAdj; a != nil {
		if err := validateOOMScore(field, *a); err != nil {
			return err
		}
	}
	// setresuid(2): the highest value means "leave as it is" and would be root here.
	if proc.User.UID == ^uint32(0) || proc.User.GID == ^uint32(0) {
		return invalid(field+".user", "uid and gid must be below 4294967295")
	}
	return validateAffinity(field+".execCPUAffinity", proc.ExecCPUAffinity)
}

func validateOOMScore(field string, score int) error {
	if score < -1000 || score > 1000 {
		return invalid(field+".oomScoreAdj", "%d, want -1000 to 1000", score)
	}
	return nil
}
