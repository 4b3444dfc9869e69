// Package plan compiles an OCI runtime-spec configuration into a program: the flat list of system
// calls that turns a freshly cloned process into the container's first process (Init), or into one
// more process of a running container (Exec), into a process without a root filesystem of its own
// (Process), or into one that holds namespaces for others (Hold).
//
// It is a pure function: no I/O, no clock, no look at the host. What it must know about the host
// comes in Options; what must be opened by a process with the host's view (bind sources, namespaces
// to join) becomes an input of the program with a description of how to open it. The same
// configuration and options give the same program, byte for byte.
//
// Safety is a property of the program. Inside the container's root no path is ever resolved without
// a handle on that root (openat2 with RESOLVE_IN_ROOT, or relative to a descriptor that such a call
// gave); every descriptor but the wanted ones is closed before the first operation; what masks a
// path is an inode that was verified to be what it should be; and the last operations before execve
// verify where the process stands.
//
// Not for: running the program (spawn), cgroups (cgroup), validation of what the kernel validates
// itself.
//
// Tested by golden text of whole programs and of each feature, by properties that every program
// must have, and in real containers by package container.
package plan

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/program"
	"strake/container/seccomp"
)

// Overlay is a root filesystem made of layers, mounted by the container itself so that the host
// never sees the mount.
type Overlay struct {
	// Lower are the read-only directories, topmost first.
	Lower []string
	// Upper and Work are the writable directory and its work directory, on one filesystem. Both
	// empty: read-only.
	Upper, Work string
	// Volatile says that what is written need not survive the machine: fsync(2) in the container
	// costs nothing, and the end of the container does not write back the whole filesystem that
	// Upper is on (overlayfs.rst, Volatile mount). Before the directories are mounted again the
	// caller removes VolatileMark from Work.
	Volatile bool
	// Target is an existing directory on which the overlay is attached in the container's private
	// view of the host.
	Target string
}

// VolatileMark is the directory that a volatile mount leaves below Overlay.Work, by which the
// kernel refuses the next mount.
const VolatileMark = "work/incompat/volatile"

// Hierarchy is one mounted cgroup hierarchy of the host, for containers that mount cgroups.
type Hierarchy struct {
	// Dir is the name of its directory below /sys/fs/cgroup: "memory", "cpu,cpuacct", "systemd".
	Dir string
	// Options are the mount options that select it: "memory", "name=systemd" with "none". Empty for
	// cgroup2.
	Options []string
	// Path is the container's group in it, as a directory of the host.
	Path string
}

// Host is what the plan must know about the machine.
type Host struct {
	// LastCap is the highest capability that the kernel knows (/proc/sys/kernel/cap_last_cap).
	LastCap int
	// Cgroup2 says that /sys/fs/cgroup is one cgroup2 tree. Otherwise Hierarchies are version 1,
	// perhaps with a cgroup2 tree among them.
	Cgroup2     bool
	Hierarchies []Hierarchy
	// AppArmor says that the kernel enforces AppArmor profiles.
	AppArmor bool
	// SELinux says the same of SELinux labels.
	SELinux bool
	// Whole are the places of the host, in the order in which they were mounted, where procfs or
	// sysfs is mounted. Needed with Options.NoPivot only.
	Whole []string
}

// Stdio says where the process's standard streams come from. With process.terminal the terminal is
// used in any case.
type Stdio int

const (
	// Inherit keeps descriptors 0, 1 and 2 of the spawner.
	Inherit Stdio = iota
	// Pipes takes the inputs "stdin", "stdout" and "stderr".
	Pipes
)

// Names of inputs beside program.InputSync and program.InputExe. Those of mounts and namespaces
// carry the description of how to open them.
const (
	InputStdin  = "stdin"
	InputStdout = "stdout"
	InputStderr = "stderr"
	// InputTasks, followed by a number, is a cgroup v1 tasks file.
	InputTasks = "cgroup.tasks/"
	// InputCgroups is the directory that Options.TaskPaths begin at.
	InputCgroups = "cgroups"
	// InputStart is the listening socket (SOCK_SEQPACKET) of a container that is created first and
	// started later. Who starts it connects, writes one byte, and reads what a spawner would read.
	InputStart = "start"
)

// Options say how and where a program will be run.
type Options struct {
	Host Host
	// Overlay, if not nil, is used in place of spec.Root.Path.
	Overlay *Overlay
	Stdio   Stdio
	// PlainTerminal lets newlines of the terminal's output through without carriage returns.
	PlainTerminal bool
	// Tasks is the number of cgroup v1 tasks files to enter: inputs InputTasks+"0" and so on.
	Tasks int
	// TaskPaths, in place of Tasks, are cgroup v1 tasks files below InputCgroups, which the child
	// opens itself. Those of a new container exist when the child is continued for the first time:
	// so the spawner makes the groups while the child mounts. Such a container is in the spawner's
	// own user namespace.
	TaskPaths []string
	// Grouped says that the files of TaskPaths exist from the start: the child enters them before
	// anything else, and is not continued.
	Grouped bool
	// Hold makes the process wait on InputStart before it executes, for create and start as
	// separate commands.
	Hold bool
	// Hooks makes the process stop at program.StageHooks until it is continued.
	Hooks bool
	// Assist says that the spawner does what Plan.Assists name. Without it a configuration that
	// needs that is refused, or the kernel refuses the step.
	Assist bool
	// Reaper puts a process in front that only reaps orphans and forwards signals (docker run
	// --init).
	Reaper bool
	// PreserveFDs lets descriptors 3 up to 2+PreserveFDs of the spawner through to the process.
	PreserveFDs int
	// NoPivot uses MS_MOVE and chroot(2) where pivot_root(2) cannot work (the host's root is a
	// ramfs).
	NoPivot bool
	// Filter is the compiled form of linux.seccomp, if the caller has it already; nil compiles it.
	Filter *seccomp.Filter
	// NoNewKeyring keeps the caller's session keyring.
	NoNewKeyring bool
}

// Tree tells the spawner to open a mount source: open_tree(2) with OPEN_TREE_CLONE on Path in the
// host's view. Its descriptor is the input Name.
type Tree struct {
	Name      string
	Field     string
	Path      string
	Recursive bool
	// UIDMap and GIDMap, if any, are applied to the tree as an id-mapped mount (mount_setattr(2)).
	UIDMap, GIDMap []specs.LinuxIDMapping
	// UserNamespace, in place of them, is the file of a user namespace whose mappings are applied.
	UserNamespace string
	// MapRecursive maps the mounts below too.
	MapRecursive bool
	// Node, if set, is the device node that the tree is to be. A spawner that may not make one
	// opens Path.
	Node *Node
}

// Node is a device node (mknod(2)) with the IDs of its owner outside of the container.
type Node struct {
	Mode, UID, GID uint32
	Dev            uint64
}

// Namespace tells the spawner to open a namespace to join.
type Namespace struct {
	Name  string
	Field string
	Path  string
	// Type is its CLONE_NEW* flag; the file must be a namespace of this type.
	Type uint64
	// ChangedBy is the field of the configuration that changes something in it, such as "hostname",
	// or empty. The spawner refuses to open its own namespace for a program that would change it.
	ChangedBy string
}

// Plan is a program together with what it needs opened.
type Plan struct {
	*program.Program
	Trees      []Tree
	Namespaces []Namespace
	// Assists are what the program may ask of its spawner, if Options.Assist is set.
	Assists []Assist
	// UIDMap and GIDMap are those of a new user namespace.
	UIDMap, GIDMap []specs.LinuxIDMapping
	// TimeOffsets is the text for timens_offsets of a new time namespace, or empty.
	TimeOffsets string
	// Filter is the seccomp filter that the program installs, or nil.
	Filter *seccomp.Filter
	// Warnings are things asked for that this host ignores.
	Warnings []string
}

// Init compiles the start of a container. Errors name the field of the configuration and are of
// class errdefs.ErrInvalidArgument.
func Init(spec *specs.Spec, opt Options) (*Plan, error) {
	spec = withRoot(withLinux(spec))
	if err := validate(spec, &opt); err != nil {
		return nil, err
	}
	p := newPlanner(spec, &opt)
	p.Keep(3 + opt.PreserveFDs)
	p.namespaces.decide()
	if opt.Reaper {
		// It stays in front of the payload, for as long as that lives.
		p.IsolateAs("strake-init\x00--\x00" + strings.Join(spec.Process.Args, "\x00"))
	} else {
		p.Isolate()
	}
	p.enter()
	p.namespaces.loopback()
	p.root.mount()
	p.namespaces.netDevices(p.root.dir, p.cgroups.waits())
	p.mounts.mount()
	p.devices.make()
	p.cgroups.enterLate()
	if spec.Process.Terminal {
		p.stdio.allocate(p.root.dir.Value())
		p.devices.console(p.stdio.tty)
	}
	p.targets.workingDirectory(spec.Process.Cwd)
	if opt.Hooks {
		p.hooks()
	}
	p.namespaces.names()
	p.procfs.sysctls()
	// Masks come from the host's view, which pivot gives up.
	p.systemPaths.protect()
	p.root.pivot()
	p.mounts.makeReadonly()
	p.root.attributes()
	p.process.execute()
	return p.finish()
}

// planner is the parts of one plan, each of which emits what its subject needs. The order in which
// they do is that of the calls in Init, Process, Hold, Exec and HookProcess.
//
// What a part reads of another one was set by an earlier call: namespaces.decide says which
// namespaces are new and joined, cgroups.enter and enterLate that the groups are entered,
// root.mount where the root is, and mounts.mount which tmpfs are fresh and which procfs is the
// container's.
type planner struct {
	files
	namespaces  namespaces
	cgroups     cgroups
	procfs      procfs
	root        rootfs
	targets     targets
	mounts      mounts
	devices     devices
	systemPaths systemPaths
	stdio       stdio
	process     process
}

// newPlanner gives each part of a plan what it needs. spec.Linux is not nil.
func newPlanner(spec *specs.Spec, opt *Options) *planner {
	p := new(planner)
	b, f := &p.builder, &p.files
	linux, proc := spec.Linux, spec.Process
	p.empty = p.Str("")
	p.statx = p.Room(256)

	p.namespaces = namespaces{builder: b, spec: spec}
	p.cgroups = cgroups{files: f, opt: opt, namespaces: &p.namespaces}
	p.procfs = procfs{files: f, linux: linux}
	p.root = rootfs{files: f, spec: spec, opt: opt, namespaces: &p.namespaces}
	p.targets = targets{files: f, opt: opt, root: &p.root, cgroups: &p.cgroups}
	p.mounts = mounts{
		files: f, spec: spec, opt: opt, namespaces: &p.namespaces, cgroups: &p.cgroups,
		procfs: &p.procfs, root: &p.root, targets: &p.targets,
	}
	p.devices = devices{files: f, spec: spec, namespaces: &p.namespaces, targets: &p.targets}
	p.systemPaths = systemPaths{files: f, linux: linux, root: &p.root}
	p.stdio = stdio{files: f, opt: opt, proc: proc}
	p.process = process{
		builder: b, opt: opt, proc: proc, namespaces: &p.namespaces, stdio: &p.stdio,
		labels:     labels{files: f, opt: opt, proc: proc, procfs: &p.procfs},
		scheduling: scheduling{builder: b, proc: proc, linux: linux},
		identity:   identity{builder: b, opt: opt, proc: proc, namespaces: &p.namespaces},
		command:    command{files: f, opt: opt, proc: proc},
		filter:     filter{builder: b, opt: opt, linux: linux},
		start:      start{builder: b, opt: opt},
		reaper:     reaper{builder: b, proc: proc, namespaces: &p.namespaces},
	}
	return p
}

// enter puts the process in its groups, its namespaces and a session.
func (p *planner) enter() {
	p.cgroups.enter()
	p.process.oomScore()
	p.namespaces.enter()
	p.cgroups.unshare()
	p.process.setsid()
	p.process.keyring()
}
