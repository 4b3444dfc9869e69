package ocispec

import (
	"cmp"
	"path"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/capability"
	"strake/lxc/config"
)

const (
	// defaultDevSize is LXC's for the tmpfs on /dev.
	defaultDevSize = 500_000
	// defaultPTYs is how many pseudo-terminals a container has that says nothing.
	defaultPTYs = 1024
	// attachPTYs are more, for lxc-attach: LXC opens a terminal of the host for it when the
	// container's own are used up, of which busybox's configuration allows one.
	attachPTYs = 256
	// ttyGroup owns pseudo-terminals in every distribution (devpts(5), gid=).
	ttyGroup = 5
)

// procSys are the directories of /proc/sys of Linux 6.18, with those of modules. net is not one of
// them: it is the network namespace's.
var procSys = [...]string{
	"abi", "crypto", "debug", "dev", "fs", "fscache", "kernel", "sunrpc", "user", "vm", "xen",
}

// mounts are made in LXC's order (conf.c, lxc_setup): /dev, procfs and sysfs, fstab, entries,
// cgroups, and then the terminals, which nothing covers.
func (m *maker) mounts() error {
	if autodev(m.in.Config) {
		size := m.in.Config.AutoDevTmpfsSize
		if size <= 0 {
			size = defaultDevSize
		}
		m.mount("/dev", "tmpfs", "none", "mode=0755", "size="+strconv.FormatInt(size, 10))
	} else if m.in.Config.Rootfs.Path == "" {
		// The host's /dev is used as it is. A mount of its own keeps the container's set-up from
		// replacing the host's /dev/ptmx.
		m.mount("/dev", "bind", "/dev", "rbind")
	}
	auto, err := m.auto()
	if err != nil {
		return err
	}
	if err := m.procMount(auto["proc"]); err != nil {
		return err
	}
	if err := m.sysMount(auto["sys"]); err != nil {
		return err
	}
	for _, list := range []struct {
		key     string
		entries []config.MountEntry
	}{
		{"lxc.mount.fstab", m.in.FSTab}, {"lxc.mount.entry", m.in.Config.Mount.Entries},
		{"lxc.apparmor.allow_nesting", nestingMounts(m.in.Config)},
	} {
		for i := range list.entries {
			if err := m.entry(list.key, &list.entries[i]); err != nil {
				return err
			}
		}
	}
	if err := m.shmounts(auto["shmounts"]); err != nil {
		return err
	}
	if err := m.cgroupMount(auto["cgroup"]); err != nil {
		return err
	}
	m.terminals()
	return nil
}

func (m *maker) mount(target, kind, source string, options ...string) {
	m.spec.Mounts = append(m.spec.Mounts, specs.Mount{
		Destination: target, Type: kind, Source: source, Options: options,
	})
}

func autodev(conf *config.Config) bool { return conf.AutoDev == nil || *conf.AutoDev }

// auto is the last word of lxc.mount.auto for each kind of mount: a later one replaces an earlier
// one of its kind.
func (m *maker) auto() (map[string]*config.AutoMount, error) {
	last := map[string]*config.AutoMount{}
	for i := range m.in.Config.Mount.Auto {
		a := &m.in.Config.Mount.Auto[i]
		switch a.What {
		case "proc", "sys", "cgroup", "shmounts":
			last[a.What] = a
		case "cgroup2":
			last["cgroup"] = a
		default:
			return nil, refuse(
				"lxc.mount.auto", a.What, "want proc, sys, cgroup, cgroup2 or shmounts",
			)
		}
	}
	return last, nil
}

// procMount makes /proc. With "mixed" the kernel's parameters are read-only, except for those of
// the network if the container may administrate it.
func (m *maker) procMount(a *config.AutoMount) error {
	if a == nil {
		return nil
	}
	m.mount("/proc", "proc", "proc", "nosuid", "nodev", "noexec")
	switch a.Variant {
	case "rw":
		return nil
	case "", "mixed":
	default:
		return refuse("lxc.mount.auto", "proc:"+a.Variant, "want proc, proc:mixed or proc:rw")
	}
	readonly := []string{"/proc/sys"}
	if m.has("CAP_NET_ADMIN") {
		// OCI makes whole trees read-only. Everything beside /proc/sys/net is named instead;
		// directories that the kernel does not have are left out by the library.
		names := slices.Concat(procSys[:], m.in.Host.ProcSys)
		slices.Sort(names)
		readonly = nil
		for _, name := range slices.Compact(names) {
			if name != "net" {
				readonly = append(readonly, "/proc/sys/"+name)
			}
		}
	}
	m.spec.Linux.ReadonlyPaths = append(readonly, "/proc/sysrq-trigger")
	return nil
}

// sysMount makes /sys. With "mixed" it is read-only, except for the network's devices.
func (m *maker) sysMount(a *config.AutoMount) error {
	if a == nil {
		return nil
	}
	const net = "/sys/devices/virtual/net"
	switch a.Variant {
	case "rw":
		m.mount("/sys", "sysfs", "sysfs")
	case "ro":
		m.mount("/sys", "sysfs", "sysfs", "ro")
	case "", "mixed":
		// What is bound on itself has attributes of its own, and stays writable.
		m.mount("/sys", "sysfs", "sysfs", "nosuid", "nodev", "noexec")
		m.mount(net, "bind", path.Join(m.in.Root, net), "bind", "private")
		m.mount("/sys", "bind", "", "remount", "ro")
	default:
		return refuse("lxc.mount.auto", "sys:"+a.Variant, "want sys, sys:mixed, sys:ro or sys:rw")
	}
	return nil
}

// cgroupMount makes /sys/fs/cgroup, if it is not left to the container's init. LXC leaves it to a
// container on version 1 that has a cgroup namespace and CAP_SYS_ADMIN and so can mount it, and
// mounts it on version 2, because not every init does (cgfsng.c, cgfsng_mount).
//
// In a cgroup namespace the container sees its own group only, and all of it is its own: "mixed" is
// "rw" then, and "full" makes no difference. Without one it is given its own group, too.
func (m *maker) cgroupMount(a *config.AutoMount) error {
	if a == nil {
		return nil
	}
	two := a.What == "cgroup2"
	word := a.What
	if a.Full {
		word = "cgroup-full"
	}
	if a.Variant != "" {
		word += ":" + a.Variant
	}
	if !slices.Contains([]string{"", "mixed", "ro", "rw"}, a.Variant) {
		return refuse("lxc.mount.auto", word, "want the variant mixed, ro or rw")
	}
	v2 := m.in.Host.CgroupVersion == 2
	if two && !v2 {
		return refuse(
			"lxc.mount.auto", word,
			"this host has version 1 cgroups; want cgroup, cgroup:mixed, cgroup:ro or cgroup:rw",
		)
	}
	_, private := m.namespace(specs.CgroupNamespace)
	if private && !a.Force && !v2 && m.has("CAP_SYS_ADMIN") {
		return nil
	}
	const place = "/sys/fs/cgroup"
	readonly := a.Variant == "ro"
	if a.Full && !private {
		switch {
		case readonly:
			m.mount(
				place, "bind", place, "rbind", "ro", "rro", "nosuid", "nodev", "noexec", "rslave",
			)
		case a.Variant == "rw", a.Variant == "" && m.has("CAP_SYS_ADMIN"):
			m.mount(place, "bind", place, "rbind", "nosuid", "nodev", "noexec", "rslave")
		default:
			return refuse(
				"lxc.mount.auto", word,
				"a tree of which the container may write its own group only needs a cgroup "+
					"namespace; want ro or rw",
			)
		}
		return nil
	}
	options := []string{"nosuid", "nodev", "noexec"}
	if readonly {
		options = append(options, "ro")
	}
	m.mount(place, "cgroup", "cgroup", options...)
	return nil
}

// shmounts makes a directory of the host in which later mounts of the host show.
func (m *maker) shmounts(a *config.AutoMount) error {
	if a == nil {
		return nil
	}
	target := cmp.Or(a.ContainerPath, "/dev/.lxc-mounts")
	if !path.IsAbs(a.HostPath) || !path.IsAbs(target) {
		return refuse(
			"lxc.mount.auto", "shmounts:"+a.HostPath,
			"want shmounts:HOST or shmounts:HOST:CONTAINER with absolute paths",
		)
	}
	m.mount(path.Clean(target), "bind", a.HostPath, "bind", "rslave")
	return nil
}

// terminals make /dev/pts, and the terminals that lxc-console connects to. LXC puts those that
// lxc.tty.dir asks for into that directory, with links in /dev; OCI has no word for links, so each
// terminal is mounted under both names.
func (m *maker) terminals() {
	conf := m.in.Config
	ptys := conf.PTYMax
	if ptys <= 0 {
		ptys = defaultPTYs
	}
	options := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	ids := m.spec.Linux.GIDMappings
	if _, mapped := hostID(ids, ttyGroup); mapped || len(ids) == 0 {
		options = append(options, "gid="+strconv.Itoa(ttyGroup))
	}
	m.mount(
		"/dev/pts", "devpts", "devpts",
		append(options, "max="+strconv.Itoa(ptys+conf.TTY.Max+attachPTYs))...,
	)
	if conf.Console.Path != "" && conf.Console.Path != "none" {
		m.mount("/dev/console", "bind", conf.Console.Path, "bind", "private")
	}
	if m.made.Init || conf.Rootfs.Path == "" {
		return
	}
	for i, tty := range m.in.TTYs {
		name := "tty" + strconv.Itoa(i+1)
		if conf.TTY.Dir != "" {
			m.mount(path.Join("/dev", conf.TTY.Dir, name), "bind", tty, "bind", "private")
		}
		m.mount("/dev/"+name, "bind", tty, "bind", "private")
		m.ttys = append(m.ttys, name)
	}
}

// nestingMounts are whole procfs and sysfs mounts. Without one the kernel does not let a container
// in this one mount its own (mount_too_revealing, fs/namespace.c); AppArmor keeps others away.
func nestingMounts(conf *config.Config) []config.MountEntry {
	if !conf.AppArmor.AllowNesting {
		return nil
	}
	return []config.MountEntry{
		{Source: "proc", Target: "dev/.lxc/proc", Type: "proc", Create: "dir", Optional: true},
		{Source: "sys", Target: "dev/.lxc/sys", Type: "sysfs", Create: "dir", Optional: true},
	}
}

// has says whether the container's init keeps a capability.
func (m *maker) has(name string) bool {
	n, _ := capability.Lookup(name)
	return m.caps.Has(n)
}
