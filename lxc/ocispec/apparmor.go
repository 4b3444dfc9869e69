package ocispec

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The rules of a generated AppArmor profile (apparmor.d(5)).
const (
	profileAllowed = `  capability,
  dbus,
  file,
  network,
  pivot_root,
  umount,
  unix,

  # Processes outside may signal and look at those inside; these reach each other only.
  signal (receive),
  signal peer=@{profile_name},
  ptrace (readby, tracedby),
  ptrace peer=@{profile_name},

  # File systems that belong to the container.
  mount fstype=tmpfs,
  mount fstype=mqueue,
  mount fstype=hugetlbfs,
  mount fstype=devpts,
  mount fstype=fuse,
  mount fstype=fuse.*,
  mount fstype=proc -> /proc/,
  mount fstype=sysfs -> /sys/,
  mount fstype=cgroup -> /sys/fs/cgroup/{,**},
  mount fstype=cgroup2 -> /sys/fs/cgroup/{,**},
  mount options=(rw, make-slave) -> /{,**},
  mount options=(rw, make-rslave) -> /{,**},
  mount options=(rw, make-shared) -> /{,**},
  mount options=(rw, make-rshared) -> /{,**},
  mount options=(rw, make-private) -> /{,**},
  mount options=(rw, make-rprivate) -> /{,**},

  # The host's kernel.
  deny @{PROC}/kcore rwklx,
  deny @{PROC}/sysrq-trigger rwklx,
  deny @{PROC}/acpi/** rwklx,
  deny @{PROC}/bus/** wklx,
  deny /sys/firmware/** wklx,
  deny /sys/kernel/debug/{,**} rwklx,
  deny /sys/kernel/security/{,**} wklx,
`
	profileUnprivileged = `
  # The root of the container's user namespace has no rights outside of it.
  mount options=(rw, bind),
  mount options=(rw, rbind),
  mount options=(ro, remount, bind),
  mount fstype=binfmt_misc,
`
	profileNesting = `
  # Containers in this container.
  mount,
  signal,
  ptrace,
  deny /dev/.lxc/proc/** rw,
  deny /dev/.lxc/sys/** rw,
`
)

// generateProfile makes the profile for lxc.apparmor.profile = generated: its name and its text,
// which the caller loads before the container starts and removes when it has ended.
func (m *maker) generateProfile() (name, text string, err error) {
	conf := &m.in.Config.AppArmor
	if m.in.Name == "" || strings.ContainsAny(m.in.Name, "\"\n\\{}[]*?/ ") {
		return "", "", refuse(
			"lxc.apparmor.profile", conf.Profile,
			"the container's name %q cannot be that of a profile", m.in.Name,
		)
	}
	name = "lxc-" + m.in.Name
	var b strings.Builder
	b.WriteString("#include <tunables/global>\n")
	b.WriteString("profile \"" + name + "\" flags=(attach_disconnected,mediate_deleted) {\n")
	b.WriteString(profileAllowed)
	if _, user := m.namespace(specs.UserNamespace); user {
		b.WriteString(profileUnprivileged)
	} else {
		privilegedRules(&b)
	}
	if conf.AllowNesting {
		b.WriteString(profileNesting)
	}
	if len(conf.Raw) > 0 {
		b.WriteString("\n  # lxc.apparmor.raw\n")
	}
	for _, line := range conf.Raw {
		b.WriteString("  " + strings.TrimRight(line, "\n") + "\n")
	}
	b.WriteString("}\n")
	return name, b.String(), nil
}

// privilegedRules keep the host's root in a container from what all containers share. Mounts of it
// under other names would escape the rules, so its directories cannot be bound.
func privilegedRules(b *strings.Builder) {
	b.WriteString("\n  # What all containers share is read-only.\n")
	for _, dir := range []struct {
		path string
		own  []string
	}{
		{"@{PROC}/sys/", []string{"kernel", "net"}},
		{"@{PROC}/sys/kernel/", []string{"domainname", "hostname", "msg*", "sem", "shm*"}},
		{"/sys/", []string{"class", "devices", "fs"}},
		{"/sys/fs/", []string{"cgroup"}}, {"/sys/class/", []string{"net"}},
		{"/sys/devices/", []string{"virtual"}}, {"/sys/devices/virtual/", []string{"net"}},
	} {
		for _, pattern := range besides(dir.path, dir.own) {
			b.WriteString("  deny " + pattern + " wklx,\n")
		}
	}
	b.WriteString("\n  # Any directory but these may be bound elsewhere.\n")
	for _, pattern := range besides("/", []string{"dev", "proc", "sys"}) {
		b.WriteString("  mount options=(rw, bind) " + pattern + ",\n")
		b.WriteString("  mount options=(rw, rbind) " + pattern + ",\n")
	}
}

// besides are patterns for everything in a directory but some names, of which those that end in *
// are the beginnings of names. AppArmor cannot say "not", except for one character: so there is a
// pattern for each character at which a path can begin to differ.
func besides(dir string, names []string) (patterns []string) {
	var starts []string
	for _, name := range names {
		for i := range len(strings.TrimSuffix(name, "*")) {
			starts = append(starts, name[:i])
		}
		if !strings.HasSuffix(name, "*") {
			starts = append(starts, name)
		}
	}
	slices.Sort(starts)
	for _, start := range slices.Compact(starts) {
		var next []byte
		for _, name := range names {
			if len(name) > len(start) && strings.HasPrefix(name, start) {
				next = append(next, name[len(start)])
			}
		}
		slices.Sort(next)
		next = slices.Compact(next)
		switch {
		case len(next) == 0:
			patterns = append(patterns, dir+start+"?*{,/**}")
			continue
		case start == "":
			patterns = append(patterns, dir+"[^"+string(next)+"]*{,/**}")
			continue
		case !slices.Contains(names, start):
			patterns = append(patterns, dir+start+"{,/**}")
		}
		patterns = append(patterns, dir+start+"[^"+string(next)+"]*{,/**}")
	}
	return patterns
}
