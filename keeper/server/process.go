package server

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/container/spawn"
	"strake/keeper/logwriter"
	"strake/keeper/pidfd"
	"strake/keeper/wire"
)

// errDied is why a start fails whose process was killed.
var errDied = errors.New("the process was killed while it was being set up")

// orphanPatience is how long the keeper waits for an adopted process that has ended to be reaped,
// if it may not look at it before. There are inits that reap every two seconds.
const orphanPatience = 10 * time.Second

// process is everything about one process. Its life: starting → (held → starting)* → running →
// exited → forgotten; or starting → failed, and gone when it is reaped.
type process struct {
	s       *server
	id      string
	owner   string
	kind    wire.Kind
	note    string
	state   wire.State
	stage   uint32 // in state held
	hold    bool
	adopted bool
	stdio   wire.Stdio
	logCfg  wire.Log
	started time.Time
	exit    wire.Exit

	pid   int
	ticks uint64       // when it was started, field starttime of proc_pid_stat(5)
	held  places       // where the guard has its descriptors
	pidfd int          // -1: not cloned yet, or reaped long ago
	child *spawn.Child // while its program runs
	// waiter wants to know when the program has ended or waits.
	waiter ticket
	// failure is why the start has failed; what is left is to reap the child.
	failure error
	// doubt: the program has ended without a word, by execve or by a signal, and only the wait
	// status can tell.
	doubt bool
	// aborted: it is forgotten as soon as it ends, and aborters are told.
	aborted  bool
	aborters []ticket
	// released: nothing but what waits for subscribers is left.
	released bool
	// patience is when the status of an adopted process that has ended is given up; zero while it
	// runs.
	patience time.Time

	stdin   int        // -1: none
	streams [2]*stream // nil: none, or ended; a terminal is the first
	log     *logwriter.Writer
	subs    []*subscription
	closed  bool // StreamsClosed has been told

	endCommand []string // what is executed when it has ended (commands)
	ran        bool     // it has been
	kept       []kept   // what a client has given to be held
	// bare: it was found by its number, and the keeper has none of its other descriptors.
	bare bool
}

// stream is output that the keeper reads.
type stream struct {
	p      *process
	index  int
	fd     int
	paused bool
}

func (s *server) newProcess(id string, kind wire.Kind) *process {
	return &process{s: s, id: id, kind: kind, pidfd: -1, stdin: -1}
}

func (p *process) isTTY() bool { return p.stdio.Mode == wire.StdioTTY }

// describe is the process as a client sees it, with the descriptors that go with it. They stay the
// process's.
func (p *process) describe() (*wire.Process, []int) {
	m := &wire.Process{
		ID: p.id, Owner: p.owner, Kind: p.kind, Note: p.note,
		State: p.state, Stage: p.stage, Pid: p.pid, Stdio: p.stdio, Log: p.logCfg,
		Exit: p.exit, StreamsClosed: p.streamsClosed(), Adopted: p.adopted,
		EndCommand: p.endCommand, Bare: p.bare,
	}
	if !p.started.IsZero() {
		m.Started = p.started.UnixNano()
	}
	list := p.descriptors()
	var fds []int
	for i, has := range m.FDs.Flags() {
		if list[i] >= 0 {
			*has = true
			fds = append(fds, list[i])
		}
	}
	m.Kept = keptNames(p.kept)
	for _, k := range p.kept {
		fds = append(fds, k.fd)
	}
	return m, fds
}

func (p *process) answer(t ticket) {
	m, fds := p.describe()
	if t.c != nil {
		t.c.send(t.request, m, fds)
	}
}

// streamsClosed says that there is no output any more, nor ever will be.
func (p *process) streamsClosed() bool {
	return p.streams[0] == nil && p.streams[1] == nil &&
		(p.state == wire.Running || p.state == wire.Exited)
}

// release gives up everything that the process holds in the keeper; the process itself lives on.
func (p *process) release() {
	s := p.s
	if p.child != nil {
		p.drop()
	}
	if p.pidfd >= 0 {
		s.ignore(p.pidfd)
		unix.Close(p.pidfd)
		p.pidfd = -1
	}
	p.closeStdin()
	s.custody.dropAll(p)
	for _, st := range p.streams {
		if st != nil {
			s.ignore(st.fd)
			unix.Close(st.fd)
		}
	}
	p.streams = [2]*stream{}
	closeKept(p.kept)
	p.kept = nil
	p.released = true
	for _, sub := range slices.Clone(p.subs) { // one that has all removes itself
		sub.linger()
	}
	if p.log != nil {
		p.log.Close()
		p.log = nil
	}
	delete(s.pending, p)
}

// remove releases the process and frees its ID.
func (p *process) remove() {
	p.release()
	p.s.commands.forget(p)
	delete(p.s.procs, p.id)
	for _, t := range p.aborters {
		p.s.reply(t, &wire.Empty{T: wire.TypeOK})
	}
	p.aborters = nil
}

func (p *process) closeStdin() {
	if p.stdin >= 0 {
		unix.Close(p.stdin)
		p.stdin = -1
		p.s.custody.drop(&p.held[1])
	}
}

// signal sends a signal to a process that is not reaped.
func (p *process) signal(sig syscall.Signal) error {
	if p.pidfd < 0 || p.state == wire.Exited {
		return fmt.Errorf("process %q has ended: %w", p.id, errdefs.ErrFailedPrecondition)
	}
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return fmt.Errorf("process %q has ended: %w", p.id, errdefs.ErrFailedPrecondition)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("signal %d: there is no such signal: %w", sig, errdefs.ErrInvalidArgument)
	case err != nil:
		return fmt.Errorf("signal %d to process %q: %w", sig, p.id, err)
	}
	return nil
}

// watchChild begins to listen to a child whose program runs.
func (p *process) watchChild() error {
	if err := p.s.watch(p.child.SyncFD(), unix.EPOLLIN, func(uint32) { p.hear() }); err != nil {
		return err
	}
	return p.watchExit()
}

func (p *process) watchExit() error {
	return p.s.watch(p.pidfd, unix.EPOLLIN, func(uint32) { p.ended() })
}

// hear handles what the child has said, and does not wait for more.
func (p *process) hear() {
	for p.child != nil && (p.failure == nil || p.child.Forking()) && p.state != wire.Held &&
		readable(p.child.SyncFD()) {
		old := p.child.PidFD
		msg, err := p.child.Next()
		if werr := p.follow(old); err == nil {
			err = werr
		}
		switch {
		case p.failure != nil:
			p.drop()
		case err != nil:
			if msg.FD >= 0 {
				unix.Close(msg.FD)
			}
			p.fail(err)
		case msg.Stage == program.StageForked:
		case msg.Stage == program.StageTTY:
			if err := p.addTTY(msg.FD); err != nil {
				p.fail(err)
			}
		case msg.Stage == 0:
			p.executed()
		case p.hold:
			p.state, p.stage = wire.Held, msg.Stage
			// Nothing is listened to: a message or an end that comes now is of no use before
			// Continue, and the exit is watched in any case.
			p.s.ignore(p.child.SyncFD())
			p.answer(p.waiter)
			p.waiter = ticket{}
		default:
			if err := p.child.Continue(); err != nil {
				p.fail(err)
			}
		}
	}
}

// follow takes over who the child is after a message: its program may have gone on in another
// process (program.Builder.Fork), and spawn has closed the descriptor of the first one then, old.
func (p *process) follow(old int) error {
	if p.child.PidFD != old {
		delete(p.s.watchers, old)
		p.pid, p.pidfd = p.child.Pid, p.child.PidFD
		if p.failure != nil || p.aborted {
			unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
		}
	}
	if _, watched := p.s.watchers[p.pidfd]; watched {
		return nil
	}
	return p.watchExit()
}

// drop ends the conversation with the child.
func (p *process) drop() {
	p.s.ignore(p.child.SyncFD())
	p.child.Release()
	p.child = nil
}

func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1
}

// goOn continues a held child.
func (p *process) goOn(t ticket) {
	p.state, p.stage, p.waiter = wire.Starting, 0, t
	if err := p.child.Continue(); err != nil {
		// It has died, which is told when it is reaped.
		p.s.cfg.Logf("process %q: %v", p.id, err)
	}
	if err := p.s.watch(p.child.SyncFD(), unix.EPOLLIN, func(uint32) { p.hear() }); err != nil {
		p.fail(err)
	}
}

// fail ends a start. The waiter is answered when the child is reaped and nothing is left. A child
// that may have cloned another one is listened to until that is known: nobody else would reap it.
func (p *process) fail(err error) {
	if p.failure != nil {
		return
	}
	p.failure = err
	unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	if !p.child.Forking() {
		p.drop()
	}
}

// executed is the end of the program: in a container's process, or by death.
func (p *process) executed() {
	st, err := readStat(p.pid)
	alive := st.goesOn()
	switch {
	case err != nil:
		p.fail(err)
		return
	case p.isTTY() && p.streams[0] == nil && alive:
		p.fail(
			fmt.Errorf(
				"the program has neither asked for the input \"tty\" nor sent a terminal: %w",
				errdefs.ErrFailedPrecondition,
			),
		)
		return
	}
	p.drop()
	p.ticks = st.ticks
	if !alive {
		p.doubt = true
		return
	}
	p.setRunning()
	p.s.custody.hold(p)
	p.announce()
}

func (p *process) setRunning() {
	p.state, p.stage, p.started = wire.Running, 0, time.Now()
}

// announce answers the client that waits for the process to run.
func (p *process) announce() {
	p.answer(p.waiter)
	p.waiter = ticket{}
	p.tellClosed()
}

// ended is called when the process is dead.
func (p *process) ended() {
	p.hear()
	if p.child != nil && p.child.Forking() {
		// The program goes on in another process, or that was killed: the channel will tell.
		p.s.ignore(p.pidfd)
		return
	}
	if p.adopted {
		p.askStatus()
		return
	}
	if p.child != nil && p.failure == nil && p.state == wire.Starting && readable(p.pidfd) {
		// Another child that was cloned at the same moment may hold the end of the channel for as
		// long as it takes to give up its inheritance. What this process did before it died can be
		// asked while it is not reaped.
		p.executed()
	}
	status, answer, err := pidfd.Exit(p.pidfd, p.pid)
	if err != nil {
		p.s.cfg.Logf("process %q: %v", p.id, err)
	}
	if err == nil && answer == pidfd.Running {
		return
	}
	p.s.ignore(p.pidfd)
	if p.failure == nil && (p.doubt || p.child != nil && p.state == wire.Starting) {
		// A PID 1 reaper that is no execve's result ends normally with its process's status.
		if status.Signaled() || p.child != nil {
			p.failure = errDied
		} else {
			p.setRunning()
			p.announce()
		}
	}
	if p.failure != nil {
		p.s.replyError(p.waiter, p.failure)
		p.remove()
		return
	}
	p.finish(
		wire.Exit{
			Status: uint32(status), Time: time.Now().UnixNano(),
			Unknown: err != nil || answer != pidfd.Known,
		},
	)
}

// askStatus looks for the status of an adopted process that has ended.
func (p *process) askStatus() {
	status, answer, err := pidfd.Exit(p.pidfd, p.pid)
	now := time.Now()
	switch {
	case err != nil:
		p.s.cfg.Logf("process %q: %v", p.id, err)
	case answer == pidfd.Running:
		return
	case answer == pidfd.Known:
		p.finish(wire.Exit{Status: uint32(status), Time: now.UnixNano()})
		return
	case answer == pidfd.Lost:
		p.finish(wire.Exit{Time: now.UnixNano(), Unknown: true})
		return
	}
	// Its parent has the status and has not asked for it yet; afterwards the kernel may tell.
	if p.patience.IsZero() {
		p.patience = now.Add(orphanPatience)
		p.s.ignore(p.pidfd) // it stays readable
		p.s.pending[p] = struct{}{}
	}
	if now.After(p.patience) {
		p.finish(wire.Exit{Time: now.UnixNano(), Unknown: true})
	}
}

// finish records and tells that a process has ended.
func (p *process) finish(e wire.Exit) {
	if p.state == wire.Exited {
		return
	}
	s := p.s
	delete(s.pending, p)
	s.ignore(p.pidfd)
	if p.child != nil { // it was held
		p.drop()
	}
	p.state, p.stage, p.exit = wire.Exited, 0, e
	p.closeStdin()
	for i, st := range p.streams {
		if st == nil {
			continue
		}
		st.drain()
		// Another process may have the pipe still, if only a child that was cloned at the same
		// moment and has not yet given up its inheritance. The beginning of a line is complete for
		// this process, and clients read the log as soon as they learn of its end.
		if p.log != nil {
			p.log.Flush(logwriter.Stream(i), time.Now())
			p.tellLoss()
		}
	}
	if p.aborted {
		if err := s.custody.journal.forget(p.id); err != nil {
			s.cfg.Logf("process %q: %v", p.id, err)
		}
		p.remove()
		return
	}
	s.custody.exited(p)
	s.broadcast(&wire.ExitedEvent{ID: p.id, Owner: p.owner, Kind: p.kind, Exit: e})
	p.tellClosed()
	s.commands.add(p)
}

// tellClosed tells, once and not before the process has been announced, that its output has ended.
func (p *process) tellClosed() {
	if p.closed || !p.streamsClosed() {
		return
	}
	p.closed = true
	if p.log != nil {
		p.log.Close()
		p.log = nil
	}
	p.s.broadcast(&wire.StreamsClosedEvent{ID: p.id})
}
