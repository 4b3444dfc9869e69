// Package launch compiles a configuration and opens what its program needs: everything between an
// OCI runtime-spec configuration and a spawner. Two spawners run what it makes: the library's own
// (package spawn, in the calling process) and the keeper, which receives the encoded program and
// the descriptors over a socket.
//
// It promises that a Launch is complete: every descriptor that its program asks for is open, except
// for those that the spawner adds (streams, a socket). On an error nothing stays open. What the kernel
// refuses later is explained in the words of the configuration (Launch.Explain).
//
// Not for: making control groups, state directories, pipes or terminals; following the child to its
// execve; hooks in the host's namespaces.
//
// Tested by opening and spawning programs of every kind here, and by package container, all of
// whose processes are launched by it.
package launch

import (
	"errors"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/leader"
	"strake/container/plan"
	"strake/container/spawn"
)

// Entry says how a process gets into its control groups. All descriptors stay the caller's.
type Entry struct {
	// Born is a cgroup2 directory to be born in (CLONE_INTO_CGROUP, clone3(2)), or -1.
	Born int
	// Tasks are version 1 "tasks" files below the directory Root, in which the process enters
	// itself (plan.Options.TaskPaths).
	Tasks []string
	Root  int
	// Late says that the files of Tasks are made while the child runs, and exist when it is
	// continued for the first time. For Init only.
	Late bool
	// Files are open version 1 "tasks" files, in place of Tasks, for a child that cannot open them
	// itself: one in a user namespace has no permission.
	Files []int
}

// Nowhere is the Entry of a process that stays in its spawner's groups.
func Nowhere() Entry { return Entry{Born: -1, Root: -1} }

// Version2 says that the entry is into a group of version 2 alone.
func (e Entry) Version2() bool { return e.Born >= 0 && len(e.Tasks)+len(e.Files) == 0 }

// Options returns opt with the fields that say how the program enters its groups.
func (e Entry) Options(opt plan.Options) plan.Options {
	opt.Tasks, opt.TaskPaths, opt.Grouped = len(e.Files), e.Tasks, !e.Late
	return opt
}

// Launch is a compiled program with everything that it needs opened. Not for concurrent use.
type Launch struct {
	plan   *plan.Plan
	inputs Inputs
	born   int
	image  *[]byte // what Encode has returned
}

// Init prepares the first process of a container. opt need not say how to enter groups: entry does.
// m makes the user namespaces of id-mapped mounts; if it is nil, Init makes a Machine when a mount
// needs one. Errors are those of plan.Init and Inputs.Open.
func Init(
	m *spawn.Machine, spec *specs.Spec, opt plan.Options, entry Entry,
) (*Launch, error) {
	p, err := plan.Init(spec, entry.Options(opt))
	if err != nil {
		return nil, err
	}
	return open(m, p, entry)
}

// Process prepares a process without a root filesystem of its own (plan.Process). Its terminal, if
// it has one, is added by the spawner as plan.InputTTY.
func Process(spec *specs.Spec, opt plan.Options, entry Entry) (*Launch, error) {
	p, err := plan.Process(spec, entry.Options(opt))
	if err != nil {
		return nil, err
	}
	return open(nil, p, entry)
}

// Hold prepares a process that holds namespaces for others to join (plan.Hold). Once its program
// has ended it is set up, and lives until it gets a SIGTERM.
func Hold(spec *specs.Spec, opt plan.Options, entry Entry) (*Launch, error) {
	p, err := plan.Hold(spec, entry.Options(opt))
	if err != nil {
		return nil, err
	}
	return open(nil, p, entry)
}

// Exec prepares one more process of a running container, whose namespaces are joined by init, which
// stays the caller's. Each of opt.Flags has a file there, if it has files. The groups of entry
// exist. Errors are those of plan.Exec.
//
// If the program fails with leader.Lost, another leader.Joint may do.
func Exec(
	spec *specs.Spec, proc *specs.Process, opt plan.ExecOptions, init *leader.Joint, entry Entry,
) (*Launch, error) {
	opt.Options, opt.Separate = entry.Options(opt.Options), init.FD < 0
	p, err := plan.Exec(spec, proc, opt)
	if err != nil {
		return nil, err
	}
	l, err := open(nil, p, entry)
	if err != nil {
		return nil, err
	}
	if init.FD >= 0 {
		l.inputs.Add(plan.InputInit, init.FD)
	}
	for flag, fd := range init.Files {
		l.inputs.Add(plan.InitInput(flag), fd)
	}
	return l, nil
}

// Hook prepares a hook that runs in the namespaces flags (CLONE_NEW*) of the process initPidFD, in
// the directory dir there and in the spawner's groups. Errors are those of plan.HookProcess.
func Hook(h *specs.Hook, dir string, flags uint64, initPidFD int) (*Launch, error) {
	p, err := plan.HookProcess(h, dir, flags)
	if err != nil {
		return nil, err
	}
	l := &Launch{plan: p, born: -1}
	l.inputs.Add(plan.InputInit, initPidFD)
	return l, nil
}

// open opens what the plan names.
func open(m *spawn.Machine, p *plan.Plan, entry Entry) (*Launch, error) {
	l := &Launch{plan: p, born: entry.Born}
	if err := l.inputs.Open(m, p); err != nil {
		return nil, err
	}
	l.inputs.enter(&entry)
	return l, nil
}

// Plan is the compiled program. Not to be modified.
func (l *Launch) Plan() *plan.Plan { return l.plan }

// Inputs are the descriptors of the program. A spawner adds its own to them, and a keeper is sent
// Inputs.Names.
func (l *Launch) Inputs() *Inputs { return &l.inputs }

// Streams supplies standard input, output and error, for programs with plan.Options.Stdio Pipes.
// The descriptors stay the caller's.
func (l *Launch) Streams(stdin, stdout, stderr int) {
	l.inputs.Add(plan.InputStdin, stdin)
	l.inputs.Add(plan.InputStdout, stdout)
	l.inputs.Add(plan.InputStderr, stderr)
}

// Encode returns the program as it travels to a keeper (program.Program.Encode), valid until Close.
func (l *Launch) Encode() []byte {
	if l.image == nil {
		if l.image, _ = images.Get().(*[]byte); l.image == nil {
			l.image = new([]byte)
		}
		*l.image = l.plan.AppendTo((*l.image)[:0])
	}
	return *l.image
}

// images are encoded programs that were sent.
var images sync.Pool

// Born is the cgroup2 directory to be born in, or -1.
func (l *Launch) Born() int { return l.born }

// IDMaps returns the mappings of a new user namespace; both are empty if there is none.
func (l *Launch) IDMaps() (uid, gid []spawn.IDMap) {
	return idMaps(l.plan.UIDMap), idMaps(l.plan.GIDMap)
}

// TimeOffsets is the text of a new time namespace's timens_offsets (time_namespaces(7)), or empty.
func (l *Launch) TimeOffsets() string { return l.plan.TimeOffsets }

// Request returns what a spawner in this process needs. It refers to l, which must stay open until
// the child is cloned.
func (l *Launch) Request() *spawn.Request {
	uid, gid := l.IDMaps()
	return &spawn.Request{
		Image: l.plan.Image(), Input: l.inputs.Get, CgroupFD: l.born,
		UIDMap: uid, GIDMap: gid, TimeOffsets: l.plan.TimeOffsets,
	}
}

// Explain turns the failure of an operation (*spawn.Failure) into a *plan.StepError, which names
// the field of the configuration that asked for it. Other errors, and nil, are returned as they
// are.
func (l *Launch) Explain(err error) error {
	var f *spawn.Failure
	if errors.As(err, &f) {
		return plan.Explain(l.plan.Program, f.Index, f.Errno)
	}
	return err
}

// Close closes the descriptors that were opened for the program, and those given to Inputs.Own, and
// releases the program. A child that was cloned has copies. It may be called twice.
func (l *Launch) Close() {
	l.inputs.Close()
	l.plan.Release()
	if l.image != nil {
		images.Put(l.image)
		l.image = nil
	}
}
