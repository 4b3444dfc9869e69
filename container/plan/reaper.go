package plan

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/capability"
	"strake/container/program"
)

// reaper is a process that executes nothing and reaps children.
type reaper struct {
	*builder
	proc       *specs.Process
	namespaces *namespaces
}

// name is what ps shows of the reaper; without it that is the name of whichever thread cloned. A
// filter may refuse it later.
func (p *reaper) name() {
	p.Field("init")
	p.Call(
		unix.SYS_PRCTL, program.Num(unix.PR_SET_NAME), p.Str("strake-init").Ptr(), program.Num(0),
		program.Num(0), program.Num(0),
	)
}

// split clones a process that becomes the payload, while this one stays as PID 1: it forwards
// signals, reaps orphans, and ends with the status of the payload (what tini or docker-init are
// for). It is a loop of the program: no second binary, and a few pages of memory.
func (p *reaper) split() {
	p.Field("init")
	// clone(2): profiles that answer ENOSYS to clone3 let this one through.
	child := p.Call(
		unix.SYS_CLONE, program.Num(uint64(unix.SIGCHLD)), program.Num(0), program.Num(0),
		program.Num(0), program.Num(0),
	).Result()
	payload := p.Label()
	p.If(child.Value(), ^uint64(0), program.Equal, program.Num(0), payload)
	p.closeAll()
	next, reap := p.Label(), p.Label()
	sig, _ := p.nextSignal(next)
	p.If(sig.Value(), ^uint64(0), program.Equal, program.Num(uint64(unix.SIGCHLD)), reap)
	p.Call(unix.SYS_KILL, child.Value(), sig.Value()).Ignore(errnos(unix.ESRCH)...)
	p.Goto(next)
	p.Place(reap)
	pid, status := p.reapOne(next)
	p.If(pid.Value(), ^uint64(0), program.Equal, program.Num(0), next)
	p.If(pid.Value(), ^uint64(0), program.NotEqual, child.Value(), reap)
	// wait(2): the low seven bits are the signal, the next byte the exit status. A signal ends with
	// 128 and its number.
	signaled := p.Label()
	p.If(status.Load(0, 4), 0x7f, program.NotEqual, program.Num(0), signaled)
	code := p.Cell()
	p.Set(code, status.Load(0, 4), program.ShiftR, program.Num(8))
	p.Set(code, code.Value(), program.And, program.Num(0xff))
	p.Exit(code.Value())
	p.Place(signaled)
	p.Set(code, status.Load(0, 4), program.And, program.Num(0x7f))
	p.Set(code, code.Value(), program.Add, program.Num(128))
	p.Exit(code.Value())
	p.Place(payload)
	if p.proc.Terminal {
		// The payload leads the foreground process group of the terminal, so that ^C reaches it and
		// not PID 1.
		pgrp := p.Call(unix.SYS_GETPID).Result()
		p.Call(unix.SYS_SETPGID, program.Num(0), program.Num(0))
		p.Call(unix.SYS_IOCTL, program.Num(0), program.Num(unix.TIOCSPGRP), p.CellBuf(pgrp).Ptr())
	}
}

// closeAll closes every descriptor.
func (p *reaper) closeAll() {
	p.Call(unix.SYS_CLOSE_RANGE, program.Num(0), program.Num(uint32(0xffffffff)), program.Num(0))
}

// nextSignal places a label and waits there for a signal, of which all are blocked. info is its
// siginfo_t.
func (p *reaper) nextSignal(place program.Label) (sig program.Cell, info program.Buf) {
	all := p.Bytes(words(^uint64(0)))
	info = p.Room(128)
	p.Place(place)
	return p.Call(
		unix.SYS_RT_SIGTIMEDWAIT, all.Ptr(), info.Ptr(), program.Num(0), program.Num(8),
	).Result(), info
}

// reapOne reaps a child that has ended, and gives its pid and wait status, or 0 if none has; none
// is where it goes on if there are no children.
func (p *reaper) reapOne(none program.Label) (pid program.Cell, status program.Buf) {
	status = p.Room(8)
	return p.Call(
		unix.SYS_WAIT4, program.Num(-1), status.Ptr(), program.Num(unix.WNOHANG), program.Num(0),
	).Ignore(errnos(unix.ECHILD)...).Else(none).Result(), status
}

// siginfoPid is the offset of si_pid in siginfo_t (sigaction(2)).
const siginfoPid = 16

// hold drops groups and capabilities, closes all descriptors, and reaps children until the
// holder is told to end.
func (p *reaper) hold() {
	p.Field("hold")
	p.Call(
		unix.SYS_PRCTL, program.Num(unix.PR_SET_NAME), p.Str("strake-hold").Ptr(),
		program.Num(0), program.Num(0), program.Num(0),
	)
	p.Call(unix.SYS_SETGROUPS, program.Num(0), program.Num(0)).Ignore(errnos(unix.EPERM)...)
	capset(p.builder, capability.Sets{})
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
	if p.namespaces.flags&unix.CLONE_NEWPID != 0 {
		// A sender in a namespace above has no number here (kernel/signal.c, send_signal_locked).
		p.If(info.Load(siginfoPid, 4), ^uint64(0), program.NotEqual, program.Num(0), next)
	}
	p.Exit(program.Num(0))
	p.Place(reap)
	pid, _ := p.reapOne(next)
	p.If(pid.Value(), ^uint64(0), program.Equal, program.Num(0), next)
	p.Goto(reap)
}
