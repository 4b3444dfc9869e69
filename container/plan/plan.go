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
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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
	// Node, if set, is the device node that the tree is to be. A spawner that may not make one opens
	// Path.
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

// planner carries what the parts of one plan share.
type planner struct {
	program.Builder
	spec  *specs.Spec
	opt   *Options
	out   Plan
	late  []func() // code out of the line, emitted behind the execve
	root  program.Cell
	empty program.Buf
	statx program.Buf
	hows  map[how]program.Buf
	attrs map[mountAttr]program.Buf

	flags   uint64 // namespaces to create
	joins   []join
	grouped bool // the cgroups are entered
	userns  bool // in a user namespace other than the spawner's
	exec    bool // one more process of a container
	// executable is ExecOptions.Executable.
	executable string
	// hostView says that the process sees the files of the host.
	hostView bool
	// tmpfs mounts that this program makes: destination → descriptor
	fresh map[string]program.Cell
	// readonly are mounts that become read-only when everything is made.
	readonly []readonly
	procFD   *program.Cell
	tty      program.Cell // the process's end of its terminal
	// starter is the connection to who starts a process that was held.
	starter program.Cell
	err     error
}

type join struct {
	field, input string
	flag         uint64
}

// Init compiles the start of a container. Errors name the field of the configuration and are of
// class errdefs.ErrInvalidArgument.
func Init(spec *specs.Spec, opt Options) (*Plan, error) {
	p := newPlanner(spec, &opt)
	if err := p.validate(); err != nil {
		return nil, err
	}
	p.Keep(3 + opt.PreserveFDs)
	p.namespaces()
	if p.opt.Reaper && spec.Process != nil {
		// It stays in front of the payload, for as long as that lives.
		p.IsolateAs("strake-init\x00--\x00" + strings.Join(spec.Process.Args, "\x00"))
	} else {
		p.Isolate()
	}
	p.cgroups()
	p.oomScore()
	p.enter()
	p.loopback()
	p.rootfs()
	p.netDevices()
	p.mounts()
	p.devices()
	p.lateCgroups()
	p.terminal()
	p.cwdDir()
	if opt.Hooks {
		p.Field("hooks")
		p.Stage(program.StageHooks)
		p.Await()
	}
	p.names()
	p.sysctls()
	// Masks come from the host's view, which pivot gives up.
	p.systemPaths()
	p.pivot()
	p.rootAttributes()
	p.process(spec.Process)
	return p.finish()
}

func newPlanner(spec *specs.Spec, opt *Options) *planner {
	p := &planner{
		spec: spec, opt: opt, hows: make(map[how]program.Buf, 8),
		attrs: make(map[mountAttr]program.Buf, 8), fresh: make(map[string]program.Cell, 2),
	}
	p.empty = p.Str("")
	p.statx = p.Room(256)
	return p
}

func (p *planner) finish() (*Plan, error) {
	// What is emitted late may itself have something to emit late.
	for len(p.late) > 0 {
		f := p.late[0]
		p.late = p.late[1:]
		f()
	}
	if p.err != nil {
		return nil, p.err
	}
	prog, err := p.Build()
	if err != nil {
		return nil, err
	}
	p.out.Program = prog
	return &p.out, nil
}

func invalid(field, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", field, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

// fail keeps the first error.
func (p *planner) fail(field, format string, args ...any) {
	if p.err == nil {
		p.err = invalid(field, format, args...)
	}
}

// outOfLine emits code behind the end of the program, reached by a jump only, so that the straight
// line is what usually happens.
func (p *planner) outOfLine(field string, f func()) {
	p.late = append(p.late, func() {
		p.Field(field)
		f()
	})
}

func words(v ...uint64) []byte {
	b := make([]byte, 0, 8*len(v))
	for _, x := range v {
		b = append(
			b, byte(x), byte(x>>8), byte(x>>16), byte(x>>24), byte(x>>32), byte(x>>40), byte(x>>48),
			byte(x>>56),
		)
	}
	return b
}

const (
	resolveInRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	atFDCWD       = ^uint64(99) // AT_FDCWD, -100
)

func errnos(list ...unix.Errno) []uint16 {
	out := make([]uint16, len(list))
	for i, x := range list {
		out[i] = uint16(x)
	}
	return out
}
