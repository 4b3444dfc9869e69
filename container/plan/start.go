package plan

import (
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// start is the point at which a container that is created first and started later waits.
type start struct {
	*builder
	opt *Options
	// connection is the one to who starts a process that was held.
	connection program.Cell
}

// await reports that all is ready and, for a container that is created first and started later,
// waits for the byte that starts it. From then on a failure is reported to who has sent that. The
// end of that connection by execve is the good news.
//
// A process that is added to the container meanwhile may look at this one, which has opened files
// of procfs and directories of the host while nothing was masked yet. So all that is open while it
// waits is what its process will have, a socket and a signalfd, neither of which can be opened
// through procfs.
//
// A signal that asks for an end (SIGHUP, SIGINT, SIGQUIT, SIGTERM) ends the process while it waits,
// with the status that a shell shows for it: the kernel would not, if this is PID 1 of a namespace
// (pid_namespaces(7)).
func (p *start) await() {
	if !p.opt.Hold {
		return
	}
	p.Field("start")
	listener, sync := p.Input(InputStart), p.Input(program.InputSync)
	p.closeAllBut(listener, sync)
	p.Stage(program.StageReady)
	p.Call(unix.SYS_CLOSE, sync)
	conn := p.Cell()
	again, started := p.awaitConnection(listener), p.Label()
	p.Call(
		unix.SYS_ACCEPT4, listener, program.Num(0), program.Num(0),
		program.Num(unix.SOCK_CLOEXEC),
	).To(conn)
	n := p.Call(
		unix.SYS_READ, conn.Value(), p.Room(8).Ptr(), program.Num(1),
	).Ignore(errnos(unix.ECONNRESET)...).Result()
	p.If(n.Value(), ^uint64(0), program.Equal, program.Num(1), started)
	p.Call(unix.SYS_CLOSE, conn.Value()) // another one was first, or has gone
	p.Goto(again)
	p.Place(started)
	p.Call(unix.SYS_CLOSE, listener)
	p.Report(conn.Value())
	p.connection = conn
}

// channel is the socket to the spawner, or to who starts a process that was held.
func (p *start) channel() program.Arg {
	if p.opt.Hold {
		return p.connection.Value()
	}
	return p.Input(program.InputSync)
}

// awaitConnection waits for a connection to listener or for the end, and returns its beginning. All
// signals are blocked.
func (p *start) awaitConnection(listener program.Arg) program.Label {
	end := uint64(
		1<<(unix.SIGHUP-1) | 1<<(unix.SIGINT-1) | 1<<(unix.SIGQUIT-1) | 1<<(unix.SIGTERM-1),
	)
	signals := p.Call(
		unix.SYS_SIGNALFD4, program.Num(-1), p.Bytes(words(end)).Ptr(), program.Num(8),
		program.Num(unix.SFD_CLOEXEC),
	).Result()
	polled := p.Room(16) // two of struct pollfd (poll(2))
	const wanted = uint64(unix.POLLIN) << 32
	p.Set(p.CellIn(polled, 0), listener, program.Or, program.Num(wanted))
	p.Set(p.CellIn(polled, 8), signals.Value(), program.Or, program.Num(wanted))
	again, connected := p.Here(), p.Label()
	p.Call(
		unix.SYS_PPOLL, polled.Ptr(), program.Num(2), program.Num(0), program.Num(0),
		program.Num(0),
	)
	p.If(polled.Load(14, 2), ^uint64(0), program.Equal, program.Num(0), connected)
	info := p.Room(128) // struct signalfd_siginfo
	p.Call(unix.SYS_READ, signals.Value(), info.Ptr(), program.Num(128))
	status := p.Cell()
	p.Set(status, info.Load(0, 4), program.Add, program.Num(128))
	p.Exit(status.Value())
	p.Place(connected)
	return again
}

// closeAllBut closes all descriptors that the process will not have, but for two.
func (p *start) closeAllBut(one, other program.Arg) {
	low, high := p.Cell(), p.Cell()
	p.Set(low, one, program.Move, program.Num(0))
	p.Set(high, other, program.Move, program.Num(0))
	ordered := p.Label()
	p.If(other, ^uint64(0), program.AtLeast, one, ordered)
	p.Set(low, other, program.Move, program.Num(0))
	p.Set(high, one, program.Move, program.Num(0))
	p.Place(ordered)
	first, last := p.Cell(), p.Cell()
	closeRange := func(first, last program.Arg) {
		// A range without any is refused.
		p.Call(unix.SYS_CLOSE_RANGE, first, last, program.Num(0)).Ignore(errnos(unix.EINVAL)...)
	}
	p.Set(last, low.Value(), program.Sub, program.Num(1))
	closeRange(program.Num(3+p.opt.PreserveFDs), last.Value())
	p.Set(first, low.Value(), program.Add, program.Num(1))
	p.Set(last, high.Value(), program.Sub, program.Num(1))
	closeRange(first.Value(), last.Value())
	p.Set(first, high.Value(), program.Add, program.Num(1))
	closeRange(first.Value(), program.Num(uint32(0xffffffff)))
}
