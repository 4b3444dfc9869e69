// Package plan compiles an OCI runtime-spec configuration into a program: the flat list of system
// calls that turns a freshly cloned process into the container's first process (Init), or into one
// more process of a running container (Exec), into a process without a root filesystem of its own
// (Process), or into one that holds namespaces for others (Hold).
//
// It is a pure function: no I/O, no clock, no look at the host. What it must know about the host
// comes in Options; what must be opened by somebody with the host's view (bind sources, namespaces
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
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// Overlay is a root filesystem made of layers, mounted by the container itself so that the host
// never sees the mount.
type Overlay struct {
	// Lower are the read-only directories, topmost first.
	Lower []string
	// Upper and Work are the writable directory and its work directory, on one filesystem. Both
	// empty: read-only.
	Upper, Work string
	// Target is an existing directory on which the overlay is attached in the container's private
	// view of the host.
	Target string
}

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
	// InputStart and InputStatus are the two FIFOs of a container that is created first and started
	// later, opened for reading and writing.
	InputStart  = "start"
	InputStatus = "status"
)

// Options say how and where a program will be run.
type Options struct {
	Host Host
	// Overlay, if not nil, is used in place of spec.Root.Path.
	Overlay *Overlay
	Stdio   Stdio
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
	// Reaper puts a process in front that only reaps orphans and forwards signals (docker run
	// --init).
	Reaper bool
	// PreserveFDs lets descriptors 3 up to 2+PreserveFDs of the spawner through to the process.
	PreserveFDs int
	// NoPivot uses MS_MOVE and chroot(2) where pivot_root(2) cannot work (the host's root is a
	// ramfs).
	NoPivot bool
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
	// MapRecursive maps the mounts below too.
	MapRecursive bool
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
	// UIDMap and GIDMap are those of a new user namespace.
	UIDMap, GIDMap []specs.LinuxIDMapping
	// TimeOffsets is the text for timens_offsets of a new time namespace, or empty.
	TimeOffsets string
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
	// hostView says that the process sees the files of the host.
	hostView bool
	// tmpfs mounts that this program makes: destination → descriptor
	fresh  map[string]program.Cell
	procFD *program.Cell
	tty    program.Cell // the process's end of its terminal
	err    error
}

type join struct {
	field, input string
	flag         uint64
}

// how is struct open_how (openat2(2)).
type how struct{ flags, mode, resolve uint64 }

// mountAttr is struct mount_attr (mount_setattr(2)) without the user namespace.
type mountAttr struct{ set, clear, propagation uint64 }

// Init compiles the start of a container. Errors name the field of the configuration and are of
// class errdefs.ErrInvalidArgument.
func Init(spec *specs.Spec, opt Options) (*Plan, error) {
	p := newPlanner(spec, &opt)
	if err := p.validate(); err != nil {
		return nil, err
	}
	p.Keep(3 + opt.PreserveFDs)
	p.namespaces()
	p.Isolate()
	p.cgroups()
	p.oomScore()
	p.enter()
	p.rootfs()
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

func (p *planner) how(h how) program.Buf {
	if b, ok := p.hows[h]; ok {
		return b
	}
	b := p.Bytes(words(h.flags, h.mode, h.resolve))
	p.Note(b, program.OpenHowText(h.flags, h.resolve))
	p.hows[h] = b
	return b
}

func (p *planner) attr(a mountAttr) program.Buf {
	if b, ok := p.attrs[a]; ok {
		return b
	}
	b := p.Bytes(words(a.set, a.clear, a.propagation, 0))
	p.Note(b, program.MountAttrText(a.set, a.clear, a.propagation))
	p.attrs[a] = b
	return b
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

// open opens a path below the directory dir (usually the root of the container) without leaving it.
func (p *planner) open(dir program.Arg, name string, flags, resolve uint64) program.CallRef {
	return p.Call(
		unix.SYS_OPENAT2, dir, p.Str(relative(name)).Ptr(),
		p.how(how{flags: flags | unix.O_CLOEXEC, resolve: resolve}).Ptr(), program.Num(24),
	)
}

// relative turns an absolute path into one for an openat-like call on the root.
func relative(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

// stat fills the shared statx buffer from a descriptor.
func (p *planner) stat(fd program.Arg) {
	p.Call(
		unix.SYS_STATX, fd, p.empty.Ptr(), program.Num(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW),
		program.Num(unix.STATX_TYPE|unix.STATX_MODE), p.statx.Ptr(),
	)
}

// Offsets in struct statx.
const (
	statxMode      = 28
	statxRdevMajor = 128
	statxRdevMinor = 132
)

// ifType jumps to l if the last stat saw a file whose type compares to want.
func (p *planner) ifType(cond program.Cond, want uint64, l program.Label) {
	p.If(p.statx.Load(statxMode, 2), unix.S_IFMT, cond, program.Num(want), l)
}

// entry is what a missing target is made as.
type entry int

const (
	aDirectory entry = iota
	aFile
	likeSource // a directory or a file, as the descriptor given as source is
	mustExist
)

// target returns a descriptor of a path in the container, made if it is missing. Symbolic links on
// the way are followed inside of the root, unless resolve forbids them.
func (p *planner) target(
	field, name string, kind entry, source program.Arg, resolve uint64,
) program.Cell {
	if dir, ok := p.fresh[path.Dir(path.Clean("/"+name))]; ok && kind == aDirectory {
		// A tmpfs that this program has just made: nobody else has put anything there.
		base := p.Str(path.Base(name)).Ptr()
		p.Call(unix.SYS_MKDIRAT, dir.Value(), base, program.Num(0o755)).Ignore(
			errnos(unix.EEXIST)...,
		)
		return p.Call(
			unix.SYS_OPENAT, dir.Value(), base,
			program.Num(unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC),
		).Result()
	}
	fd := p.Cell()
	ok := p.Label()
	call := p.open(p.root.Value(), name, unix.O_PATH, resolve).To(fd)
	if kind != mustExist {
		missing := p.Label()
		call.Ignore(errnos(unix.ENOENT)...).Else(missing)
		p.outOfLine(field, func() {
			p.Place(missing)
			p.make(name, kind, source, resolve)
			p.open(p.root.Value(), name, unix.O_PATH, resolve).To(fd)
			p.Goto(ok)
		})
	}
	p.Place(ok)
	return fd
}

// make creates a path, one component after the other, each below a descriptor of its parent.
func (p *planner) make(name string, kind entry, source program.Arg, resolve uint64) {
	parts := strings.Split(relative(name), "/")
	parent := p.Cell()
	p.open(p.root.Value(), ".", unix.O_PATH|unix.O_DIRECTORY, resolve).To(parent)
	for i, part := range parts {
		if i == len(parts)-1 && kind != aDirectory {
			p.makeLast(parent, part, kind, source)
			return
		}
		prefix := strings.Join(parts[:i+1], "/")
		there, missing := p.Label(), p.Label()
		next := p.Cell()
		p.open(p.root.Value(), prefix, unix.O_PATH|unix.O_DIRECTORY, resolve).To(next).Ignore(
			errnos(unix.ENOENT)...,
		).Else(missing)
		p.Goto(there)
		p.Place(missing)
		p.Call(unix.SYS_MKDIRAT, parent.Value(), p.Str(part).Ptr(), program.Num(0o755)).Ignore(
			errnos(unix.EEXIST)...,
		)
		p.open(p.root.Value(), prefix, unix.O_PATH|unix.O_DIRECTORY, resolve).To(next)
		p.Place(there)
		parent = next
	}
}

func (p *planner) makeLast(parent program.Cell, name string, kind entry, source program.Arg) {
	done := p.Label()
	if kind == likeSource {
		file := p.Label()
		p.stat(source)
		p.ifType(program.NotEqual, unix.S_IFDIR, file)
		p.Call(unix.SYS_MKDIRAT, parent.Value(), p.Str(name).Ptr(), program.Num(0o755)).Ignore(
			errnos(unix.EEXIST)...,
		)
		p.Goto(done)
		p.Place(file)
	}
	// mknod(2) makes an empty regular file and never follows a link.
	p.Call(
		unix.SYS_MKNODAT, parent.Value(), p.Str(name).Ptr(), program.Num(unix.S_IFREG|0o644),
		program.Num(0),
	).Ignore(errnos(unix.EEXIST)...)
	p.Place(done)
}

// attach puts a mount on a target.
func (p *planner) attach(mnt, target program.Arg) {
	p.Call(
		unix.SYS_MOVE_MOUNT, mnt, p.empty.Ptr(), target, p.empty.Ptr(),
		program.Num(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH),
	)
}

// setattr changes the attributes of a mount given by a descriptor.
func (p *planner) setattr(fd program.Arg, a mountAttr, recursive bool) program.CallRef {
	flags := uint64(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return p.Call(
		unix.SYS_MOUNT_SETATTR, fd, p.empty.Ptr(), program.Num(flags), p.attr(a).Ptr(),
		program.Num(32),
	)
}

// cloneTree makes a detached copy of the mount (from the inode on) that fd refers to.
func (p *planner) cloneTree(fd program.Arg, recursive bool) program.Cell {
	flags := uint64(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return p.Call(unix.SYS_OPEN_TREE, fd, p.empty.Ptr(), program.Num(flags)).Result()
}

// tree declares a mount source that the spawner opens.
func (p *planner) tree(t Tree) program.Arg {
	p.out.Trees = append(p.out.Trees, t)
	return p.Input(t.Name)
}
