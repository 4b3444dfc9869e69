package plan

import (
	"fmt"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/capability"
	"strake/container/program"
)

// The programs in this file keep the host's view of files: they have no root filesystem, and the
// configuration names no mount namespace.

// InputTTY is the terminal of a program that has no devpts of its own: the process's end, which a
// keeper allocates from the host's devpts (keeper.StdioTTY).
const InputTTY = "tty"

// Process compiles a process that is confined by groups, identity, capabilities, limits, a seccomp
// filter and perhaps namespaces, but sees the files of the host. Relative names of programs are
// looked for in the process's PATH there, and the working directory must exist. Its terminal, if it
// wants one, is the input InputTTY.
//
// Errors name the field and are of class errdefs.ErrInvalidArgument; that is also the answer to
// everything that needs a root filesystem, such as mounts.
func Process(spec *specs.Spec, opt Options) (*Plan, error) {
	p := newPlanner(spec, &opt)
	p.hostView = true
	if err := p.validateHostView(); err != nil {
		return nil, err
	}
	if err := validateProcess("process", p.spec.Process); err != nil {
		return nil, err
	}
	p.Keep(3 + opt.PreserveFDs)
	p.namespaces()
	p.Isolate()
	p.cgroups()
	p.oomScore()
	p.enter()
	p.lateCgroups()
	p.hostTerminal()
	if opt.Hooks {
		p.Field("hooks")
		p.Stage(program.StageHooks)
		p.Await()
	}
	p.names()
	p.sysctls()
	p.process(p.spec.Process)
	return p.finish()
}

// holdTitle is what ps shows of a process that holds namespaces.
const holdTitle = "strake: holding the namespaces of a sandbox"

// Hold compiles a process that executes nothing and holds namespaces, new or joined, for others to
// join. It sets host name, domain name and sysctls in them, and then reaps children for ever: in a
// new PID namespace it is PID 1. It ends with status 0 on SIGTERM, which, if it is PID 1, must come
// from outside of its namespace: the processes in a sandbox cannot end the sandbox.
//
// Processes that share its PID namespace reach nothing of the host through it: it has no
// descriptor, no capability, and an empty read-only root in a mount namespace of its own.
//
// Of spec.Process, which may be nil, only OOMScoreAdj is taken. Errors name the field and are of
// class errdefs.ErrInvalidArgument.
func Hold(spec *specs.Spec, opt Options) (*Plan, error) {
	p := newPlanner(spec, &opt)
	p.hostView = true
	if err := p.validateHostView(); err != nil {
		return nil, err
	}
	if err := p.validateHold(); err != nil {
		return nil, err
	}
	p.flags |= unix.CLONE_NEWNS
	p.namespaces()
	p.IsolateAs(holdTitle)
	p.cgroups()
	p.oomScore()
	p.enter()
	p.lateCgroups()
	p.names()
	p.sysctls()
	p.emptyRoot()
	p.holdLoop()
	return p.finish()
}

// validateHostView refuses what needs a root filesystem, and what Init would refuse.
func (p *planner) validateHostView() error {
	s := p.spec
	if s.Linux == nil {
		s2 := *s
		s2.Linux = &specs.Linux{}
		p.spec = &s2
		s = p.spec
	}
	const why = "needs a root filesystem, which this process does not have"
	l := s.Linux
	for _, c := range []struct {
		field string
		set   bool
	}{
		{"root.path", s.Root != nil && s.Root.Path != ""},
		{"root.readonly", s.Root != nil && s.Root.Readonly},
		{"root (overlay)", p.opt.Overlay != nil},
		{"linux.rootfsPropagation", l.RootfsPropagation != ""},
		{"linux.maskedPaths", len(l.MaskedPaths) > 0},
		{"linux.readonlyPaths", len(l.ReadonlyPaths) > 0},
		{"linux.devices", len(l.Devices) > 0},
		{"linux.mountLabel", l.MountLabel != ""},
	} {
		if c.set {
			return invalid(c.field, why)
		}
	}
	if len(s.Mounts) > 0 {
		return invalid(fmt.Sprintf("mounts[0] (%s)", path.Clean("/"+s.Mounts[0].Destination)), why)
	}
	for i, ns := range l.Namespaces {
		if ns.Type == specs.MountNamespace {
			return invalid(fmt.Sprintf("linux.namespaces[%d] (mount)", i), why)
		}
	}
	for _, check := range []func() error{
		p.validateNamespaces, p.validateNames, p.validateLinux,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// validateHold refuses what only a process that executes could have.
func (p *planner) validateHold() error {
	const why = "is of a process that is executed, and a holder of namespaces executes nothing"
	if len(p.spec.Linux.Namespaces) == 0 {
		return invalid("linux.namespaces", "missing: there is nothing to hold")
	}
	var proc specs.Process
	if p.spec.Process != nil {
		proc = *p.spec.Process
	}
	if a := proc.OOMScoreAdj; a != nil {
		if err := validateOOMScore("process", *a); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		field string
		set   bool
	}{
		{"process.args", len(proc.Args) > 0},
		{"process.env", len(proc.Env) > 0},
		{"process.cwd", proc.Cwd != ""},
		{"process.terminal", proc.Terminal},
		{"process.user", proc.User.UID != 0 || proc.User.GID != 0 ||
			len(proc.User.AdditionalGids) > 0 || proc.User.Umask != nil},
		{"process.capabilities", proc.Capabilities != nil},
		{"process.rlimits", len(proc.Rlimits) > 0},
		{"process.noNewPrivileges", proc.NoNewPrivileges},
		{"process.apparmorProfile", proc.ApparmorProfile != ""},
		{"process.selinuxLabel", proc.SelinuxLabel != ""},
		{"process.scheduler", proc.Scheduler != nil},
		{"process.ioPriority", proc.IOPriority != nil},
		{"process.execCPUAffinity", proc.ExecCPUAffinity != nil},
		{"linux.seccomp", p.spec.Linux.Seccomp != nil},
		{"linux.personality", p.spec.Linux.Personality != nil},
		{"options.Hold", p.opt.Hold},
		{"options.Hooks", p.opt.Hooks},
		{"options.Reaper", p.opt.Reaper},
		{"options.PreserveFDs", p.opt.PreserveFDs != 0},
	} {
		if c.set {
			return invalid(c.field, why)
		}
	}
	return nil
}

// hostTerminal takes the terminal that the spawner has allocated.
func (p *planner) hostTerminal() {
	proc := p.spec.Process
	if !proc.Terminal {
		return
	}
	p.tty = p.Cell()
	p.Field("process.terminal")
	p.Set(p.tty, p.Input(InputTTY), program.Move, program.Num(0))
	p.prepareTerminal(proc)
}

// emptyRoot changes to a root in which there is nothing, in the mount namespace that the process
// was born in.
func (p *planner) emptyRoot() {
	p.Field("root (empty)")
	// What is mounted and unmounted here does not reach the host.
	p.Call(
		unix.SYS_MOUNT, program.Num(0), p.Str("/").Ptr(), program.Num(0),
		program.Num(unix.MS_REC|unix.MS_PRIVATE), program.Num(0),
	)
	p.root = p.emptyMount()
	// The mount point may be any directory that every host has: it disappears with the host's root.
	p.Call(
		unix.SYS_MOVE_MOUNT, p.root.Value(), p.empty.Ptr(), program.Num(atFDCWD),
		p.Str("/proc").Ptr(), program.Num(unix.MOVE_MOUNT_F_EMPTY_PATH),
	)
	p.pivot()
}

// siginfoPid is the offset of si_pid in siginfo_t (sigaction(2)).
const siginfoPid = 16

// holdLoop drops groups and capabilities, closes all descriptors, and reaps children until the
// holder is told to end.
func (p *planner) holdLoop() {
	p.Field("hold")
	p.Call(
		unix.SYS_PRCTL, program.Num(unix.PR_SET_NAME), p.Str("strake-hold").Ptr(),
		program.Num(0), program.Num(0), program.Num(0),
	)
	p.Call(unix.SYS_SETGROUPS, program.Num(0), program.Num(0)).Ignore(errnos(unix.EPERM)...)
	p.capset(capability.Sets{})
	p.Call(
		unix.SYS_PRCTL, program.Num(unix.PR_SET_DUMPABLE), program.Num(0), program.Num(0),
		program.Num(0), program.Num(0),
	)
	// The channel to the spawner is among them; its end says that the set-up is complete.
	p.closeAll()
	next, reap := p.Label(), p.Label()
	sig, info := p.nextSignal(next)
	p.If(sig.Value(), ^uint64(0), program.Equal, program.Num(uint64(unix.SIGCHLD)), reap)
	p.If(sig.Value(), ^uint64(0), program.NotEqual, program.Num(uint64(unix.SIGTERM)), next)
	if p.flags&unix.CLONE_NEWPID != 0 {
		// A sender in a namespace above has no number here (kernel/signal.c, send_signal_locked).
		p.If(info.Load(siginfoPid, 4), ^uint64(0), program.NotEqual, program.Num(0), next)
	}
	p.Exit(program.Num(0))
	p.Place(reap)
	pid, _ := p.reapOne(next)
	p.If(pid.Value(), ^uint64(0), program.Equal, program.Num(0), next)
	p.Goto(reap)
}
