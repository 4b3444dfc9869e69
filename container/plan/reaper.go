package plan

import (
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// reaper splits off a process that becomes the payload, while this one stays as PID 1: it forwards
// signals, reaps orphans, and ends with the status of the payload (what tini or docker-init are
// for). It is a loop of the program: no second binary, and a few pages of memory.
func (p *planner) reaper() {
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
	if p.spec.Process.Terminal {
		// The payload leads the foreground process group of the terminal, so that ^C reaches it and
		// not PID 1.
		pgrp := p.Call(unix.SYS_GETPID).Result()
		p.Call(unix.SYS_SETPGID, program.Num(0), program.Num(0))
		p.Call(unix.SYS_IOCTL, program.Num(0), program.Num(unix.TIOCSPGRP), p.CellBuf(pgrp).Ptr())
	}
}

// closeAll closes every descriptor.
func (p *planner) closeAll() {
	p.Call(unix.SYS_CLOSE_RANGE, program.Num(0), program.Num(uint32(0xffffffff)), program.Num(0))
}

// nextSignal places a label and waits there for a signal, of which all are blocked. info is its
// siginfo_t.
func (p *planner) nextSignal(place program.Label) (sig program.Cell, info program.Buf) {
	all := p.Bytes(words(^uint64(0)))
	info = p.Room(128)
	p.Place(place)
	return p.Call(
		unix.SYS_RT_SIGTIMEDWAIT, all.Ptr(), info.Ptr(), program.Num(0), program.Num(8),
	).Result(), info
}

// reapOne reaps a child that has ended, and gives its pid and wait status, or 0 if none has; none
// is where it goes on if there are no children.
func (p *planner) reapOne(none program.Label) (pid program.Cell, status program.Buf) {
	status = p.Room(8)
	return p.Call(
		unix.SYS_WAIT4, program.Num(-1), status.Ptr(), program.Num(unix.WNOHANG), program.Num(0),
	).Ignore(errnos(unix.ECHILD)...).Else(none).Result(), status
}
