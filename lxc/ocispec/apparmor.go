package ocispec

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The rules of a generated AppArmor profile (apparmor.d(5)). What only the host's root may do is
// not repeated for containers whose root is another user of the host.
const (
	profileAllowed = `  capability,
  dbus,
  file,
  network,
  umount,
  unix,
  pivot_root,

  # Processes outside may signal and look at those inside; these reach each other only.
  signal (receive),
  signal peer=@{profile_name},
  ptrace (readby, tracedby),
  ptrace peer=@{profile_name},

  # File systems that belong to the container.
  mount fstype=(tmpfs, mqueue, hugetlbfs, fuse, fuse.*, devpts),
  mount fstype=proc -> /proc/,
  mount fstype=sysfs -> /sys/,
  mount fstype=(cgroup, cgroup2) -> /sys/fs/cgroup/{,**},
  mount options=(rw, make-slave),
  mount options=(rw, make-rslave),
  mount options=(rw, make-shared),
  mount options=(rw, make-rshared),
  mount options=(rw, make-private),
  mount options=(rw, make-rprivate),
`
	profileDenied = `
  # The host's kernel.
  deny @{PROC}/kcore rwklx,
  deny @{PROC}/sysrq-trigger rwklx,
  deny @{PROC}/acpi/** rwklx,
  deny @{PROC}/bus/** wklx,
  deny /sys/firmware/** wklx,
  deny /sys/kernel/debug/{,**} rwklx,
  deny /sys/kernel/security/{,**} wklx,
`
	profilePrivileged = `
  # Parameters that all containers share.
  deny @{PROC}/sys/{abi,debug,dev,fs,user,vm}/** wklx,
  deny @{PROC}/sys/kernel/[^dhms]* wklx,
  deny /sys/{block,bus,dev,module,power}/** wklx,

  # A bind mount of these under another name would escape the rules above.
  mount options=(rw, bind) /[^dps]{,*/,**},
  mount options=(rw, rbind) /[^dps]{,*/,**},
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
	b.WriteString(profileDenied)
	if _, user := m.namespace(specs.UserNamespace); user {
		b.WriteString(profileUnprivileged)
	} else {
		b.WriteString(profilePrivileged)
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
