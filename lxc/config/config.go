// Package config reads LXC's configuration files (lxc.container.conf(5), lxc.system.conf(5)): every
// key of LXC 4 to 7, the spellings from before LXC 2.1, and lxc.include of files and directories. A
// line that is not understood is an error that names the file, the line, the key and what is
// allowed; LXC itself would go on without it.
//
// A Config is both the lines, so that it can be written as LXC writes it, and what they mean: a key
// is set by its line alone, so a Config never means anything that its lines do not say.
//
// It differs from LXC, beside what LXC lets pass, in this: no value always means the default, where
// LXC turns lxc.autodev off and refuses lxc.mount.fstab; lxc.keyring.session has the meaning of the
// manual page, which LXC reverses; to clear lxc.cap.drop does not clear lxc.cap.keep; an IPv4
// address without a prefix length has that of its class, where LXC always takes 8.
//
// Not for: what the settings become in the kernel (package lxc/ocispec), finding containers
// (package lxc).
//
// Tested by tables of every key and of wrong lines with their errors, golden files of ten
// configurations, random changes, and fuzzing.
package config

import "net/netip"

// Config is one container's configuration. The zero value says nothing: every default is LXC's, and
// is written at the field. It is not safe for concurrent use while it is changed.
type Config struct {
	// lines are all settings in order, as they were written.
	lines []line

	Arch string // lxc.arch, as uname(2) or Debian spells it; "": the host's
	Uts  struct{ Name string }

	Rootfs Rootfs
	IDMap  []IDMap
	// Nets are lxc.net.N in the order of N, which need not be dense.
	Nets []Net

	Mount struct {
		Auto    []AutoMount
		Entries []MountEntry
		// FSTab is a file of entries, in the format of fstab(5).
		FSTab string
	}

	// Cgroup are lxc.cgroup.FILE, for version 1, Cgroup2 lxc.cgroup2.FILE: files of the container's
	// group and what is written to them, in order.
	Cgroup, Cgroup2 []Setting
	CgroupDir       CgroupDir
	CgroupRelative  bool

	// Caps are capabilities in lower case without "cap_". Keep with the one word "none" keeps none.
	// LXC refuses a configuration with both.
	Caps struct{ Drop, Keep []string }

	AppArmor struct {
		// Profile is a name, "unconfined", "unchanged" or "generated"; "": the default.
		Profile         string
		AllowIncomplete bool
		AllowNesting    bool
		Raw             []string // lines of a generated profile
	}
	SELinux struct{ Context, ContextKeyring string }
	Seccomp struct {
		Profile      string // a file, see package lxc/ocispec
		AllowNesting bool
		NotifyProxy  string
		NotifyCookie string
	}
	NoNewPrivs     bool
	KeyringSession *bool // nil: true
	SchedCore      bool

	Start struct {
		Auto  bool
		Delay int // seconds
		Order int
	}
	Groups []string // lxc.group

	TTY struct {
		Max int
		Dir string
	}
	PTYMax  int // 0: 1024
	Console Console

	AutoDev          *bool // nil: true
	AutoDevTmpfsSize int64 // bytes; 0: 500,000

	// Environment is for the container and its hooks, Runtime for the container alone, Hooks for
	// the hooks alone: "NAME=VALUE", or "NAME" for the value of the caller.
	Environment        []string
	EnvironmentRuntime []string
	EnvironmentHooks   []string

	Init struct {
		Cmd      string // words by white space and quotes; "": /sbin/init
		Cwd      string
		UID, GID int
		Groups   []int
	}
	ExecuteCmd string

	// Signal are numbers; 0: LXC's default, see lxc.container.conf(5).
	Signal struct{ Halt, Reboot, Stop int }

	// Hooks are programs with their arguments as they were written, by name ("pre-start").
	Hooks       map[string][]string
	HookVersion int

	Log struct {
		Level  string // "": ERROR
		File   string
		Syslog string
	}

	Prlimit []Prlimit
	Sysctl  []Setting // "net.ipv4.ip_forward"
	Proc    []Setting // "oom_score_adj": files of /proc/PID of the container's init

	Namespace struct {
		// Clone and Keep are the words that LXC uses: user, pid, uts, mnt, ipc, net, cgroup, time.
		Clone, Keep []string
		// Share says by word where the namespace comes from: a container's name, the number of a
		// process or a path.
		Share map[string]string
	}
	TimeOffset struct{ Boot, Monotonic string } // with their units

	MonitorUnshare bool
	// MonitorSignalPdeath is the signal that the container's init gets when its monitor ends. nil:
	// SIGKILL; 0: none.
	MonitorSignalPdeath *int
	Ephemeral           bool

	// entries are the values of lxc.mount.entry as they were written, beside Mount.Entries.
	entries []string
	// backend is lxc.rootfs.backend, from before LXC 2.1: the TYPE of a root file system whose path
	// has none.
	backend string
}

// Rootfs is the root file system.
type Rootfs struct {
	// Path is a directory, a block device or image, or "TYPE:" and what that type wants:
	// dir:, overlay:LOWER:UPPER, overlayfs:…, loop:, nbd:, btrfs:, lvm:, zfs:, rbd:. "": the
	// container has the host's.
	Path    string
	Mount   string // where it is mounted; "": LXC's default
	Options string // mount options, idmap= among them
	Managed *bool  // nil: true
}

// IDMap is one line of lxc.idmap.
type IDMap struct {
	Kind                   byte // 'u', 'g' or 'b' for both
	Container, Host, Count uint32
}

// Net is one network interface, lxc.net.N.
type Net struct {
	Index int
	Type  string // veth, macvlan, ipvlan, vlan, phys, none, empty
	Link  string
	Up    bool // flags
	// L2Proxy answers ARP and NDP for the container's addresses on Link.
	L2Proxy bool
	MTU     int
	Name    string
	HWAddr  string // as written; 'x' stands for a random digit
	IPv4    []Address
	IPv6    []Address
	// Gateways; Auto takes the address of Link, Dev makes a route without an address.
	IPv4Gateway, IPv6Gateway Gateway
	ScriptUp, ScriptDown     string

	MACVLANMode                string // private, vepa, bridge, passthru; "": private
	IPVLANMode, IPVLANIsolated string
	VLANID                     int
	VethMode                   string // bridge, router; "": bridge
	VethPair                   string // the host's end
	VethRxQueues, VethTxQueues int
	VethIPv4Routes             []netip.Prefix
	VethIPv6Routes             []netip.Prefix
	VethVLANID                 string // a number or "none"
	VethVLANTagged             []int
}

// Address is an address of an interface. Broadcast is not valid if none was given.
type Address struct {
	Prefix    netip.Prefix
	Broadcast netip.Addr
}

// Gateway is where a container's default route leads to. The zero value is none.
type Gateway struct {
	Addr      netip.Addr
	Auto, Dev bool
}

// AutoMount is one word of lxc.mount.auto: "proc", "sys", "cgroup" or "cgroup2" with its variant
// ("mixed", "ro", "rw", …; "": the default of that mount). Force is the suffix of cgroup:…:force;
// Full is cgroup-full. Config.Mount.Auto has at most one of each in this order, where cgroup and
// cgroup2 are one, and then "shmounts", a directory for mounts that come later: HostPath is its
// place on the host, ContainerPath that in the container ("": /dev/.lxc-mounts).
type AutoMount struct {
	What, Variant string
	Full, Force   bool

	HostPath, ContainerPath string
}

// MountEntry is a line of fstab(5). Create, Optional and Relative are LXC's own options, and not in
// Options: create=dir, create=file, optional, relative.
type MountEntry struct {
	Source, Target, Type string
	Options              []string
	Create               string // "dir", "file" or ""
	Optional, Relative   bool
}

// Setting is a file and what is written to it.
type Setting struct{ Name, Value string }

// CgroupDir are the names of groups. Dir is for container and monitor, unless they have their own.
type CgroupDir struct{ Dir, Container, ContainerInner, Monitor, MonitorPivot string }

// Console is lxc.console.
type Console struct {
	Path       string // a terminal to use; "none": no console; "": one is made
	LogFile    string
	BufferSize int64 // bytes of output kept in memory; 0: none
	Size       int64 // bytes of the log at which it is emptied, or rotated; 0: never
	Rotate     bool
}

// Prlimit is one line of lxc.prlimit: a name of getrlimit(2) in lower case without "rlimit_".
// Unlimited is ^uint64(0).
type Prlimit struct {
	Name       string
	Soft, Hard uint64
}

// line is one line of a file: a setting, or a comment or an empty line, which has no key.
type line struct {
	// text is the line as it was written, without its end.
	text string
	// key is the current spelling, with the interface's number where the file has the old one.
	key, value string
	// include are the lines that lxc.include brought; they are not written.
	include []line
}
