package ocispec

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/capability"
	"strake/lxc/seccomp"
)

// capabilities decides which the container's init has. In a user namespace of its own it has all
// that are not dropped; elsewhere it has none that the caller lacks.
func (m *maker) capabilities() error {
	conf := &m.in.Config.Caps
	last := m.in.Host.LastCap
	if last == 0 {
		last = capability.Last
	}
	if len(conf.Drop) > 0 && len(conf.Keep) > 0 {
		return refuse(
			"lxc.cap.keep", strings.Join(conf.Keep, " "),
			"lxc.cap.drop says what to drop; want one of the two",
		)
	}
	all := capability.All(last)
	if len(conf.Keep) > 0 {
		keep, err := capabilitySet("lxc.cap.keep", conf.Keep, last)
		if err != nil {
			return err
		}
		m.caps = all & keep
	} else {
		drop, err := capabilitySet("lxc.cap.drop", conf.Drop, last)
		if err != nil {
			return err
		}
		m.caps = all &^ drop
	}
	path, user := m.namespace(specs.UserNamespace)
	if mine := m.in.Host.Caps; mine != 0 && (!user || path != "") {
		m.caps &= mine
	}
	return nil
}

func capabilitySet(key string, names []string, last int) (set capability.Set, err error) {
	for _, name := range names {
		if name == "none" && key == "lxc.cap.keep" {
			set = 0
			continue
		}
		n, ok := capability.Lookup("CAP_" + strings.ToUpper(name))
		if !ok {
			n, err = strconv.Atoi(name)
			ok = err == nil && n >= 0 && n <= last
		}
		if !ok {
			return 0, refuse(
				key, name,
				`want names of capabilities(7) in lower case without "cap_", or 0 to %d`, last,
			)
		}
		set |= 1 << n
	}
	return set, nil
}

// processCaps gives root the capabilities, and every other user the right to gain them, which is
// what execve(2) makes of a bounding set (capabilities(7)).
func (m *maker) processCaps() {
	names := m.caps.Names()
	caps := &specs.LinuxCapabilities{Bounding: names}
	if m.spec.Process.User.UID == 0 {
		caps.Effective, caps.Permitted = names, names
	}
	m.spec.Process.Capabilities = caps
}

// labels are those of AppArmor and SELinux.
func (m *maker) labels() error {
	se := &m.in.Config.SELinux
	switch {
	case se.Context != "" && !m.in.Host.SELinux:
		m.warn("lxc.selinux.context", se.Context, "ignored, because this host has no SELinux")
	case se.Context != "":
		m.spec.Process.SelinuxLabel = se.Context
	}
	switch {
	case se.ContextKeyring == "" || m.made.NoNewKeyring || se.ContextKeyring == se.Context:
	case !m.in.Host.SELinux:
		m.warn(
			"lxc.selinux.context.keyring", se.ContextKeyring,
			"ignored, because this host has no SELinux",
		)
	default:
		return refuse(
			"lxc.selinux.context.keyring", se.ContextKeyring,
			"the session keyring has the label of the container's init; want lxc.selinux.context",
		)
	}
	return m.appArmor()
}

// appArmor takes LXC's default profile if the configuration names none, and makes one if the host
// does not have that.
func (m *maker) appArmor() error {
	conf := &m.in.Config.AppArmor
	generated := conf.Profile == "generated" || conf.Profile == "" && m.in.Host.NoLXCProfiles
	if len(conf.Raw) > 0 && !generated {
		m.warn(
			"lxc.apparmor.raw", conf.Raw[0],
			"ignored, because lxc.apparmor.profile is not generated",
		)
	}
	if !m.in.Host.AppArmor {
		if !slices.Contains([]string{"", "unconfined", "unchanged"}, conf.Profile) {
			m.warn(
				"lxc.apparmor.profile", conf.Profile, "ignored, because this host has no AppArmor",
			)
		}
		return nil
	}
	proc := m.spec.Process
	_, cgroups := m.namespace(specs.CgroupNamespace)
	switch {
	case generated:
		name, text, err := m.generateProfile()
		if err != nil {
			return err
		}
		proc.ApparmorProfile, m.made.AppArmorProfile = name, text
	case conf.Profile == "unchanged":
	case conf.Profile != "":
		proc.ApparmorProfile = conf.Profile
	case cgroups:
		proc.ApparmorProfile = "lxc-container-default-cgns"
	default:
		proc.ApparmorProfile = "lxc-container-default"
	}
	return nil
}

// filter translates the seccomp policy.
func (m *maker) filter() error {
	conf := &m.in.Config.Seccomp
	if m.in.Seccomp == nil {
		return nil
	}
	if m.in.Host.Confined && !conf.AllowNesting {
		m.warn(
			"lxc.seccomp.profile", conf.Profile,
			"not installed, because a seccomp filter is in force already; "+
				"lxc.seccomp.allow_nesting installs it all the same",
		)
		return nil
	}
	policy, err := seccomp.Parse(m.in.Seccomp, seccomp.Host{
		Arch: m.in.Host.Arch, Known: m.in.Host.Syscalls,
	})
	if err != nil {
		return refuse("lxc.seccomp.profile", conf.Profile, "%w", err)
	}
	for _, w := range policy.Warnings {
		m.warn("lxc.seccomp.profile", conf.Profile, w)
	}
	filter := policy.Filter
	if policy.Notify {
		socket, ok := strings.CutPrefix(conf.NotifyProxy, "unix:")
		if !ok || !strings.HasPrefix(socket, "/") {
			return refuse(
				"lxc.seccomp.notify.proxy", conf.NotifyProxy,
				"the policy has the action notify; want unix: and the path of the socket of a "+
					"program that answers",
			)
		}
		filter.ListenerPath, filter.ListenerMetadata = socket, conf.NotifyCookie
	}
	m.spec.Linux.Seccomp = filter
	return nil
}
