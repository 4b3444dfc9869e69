package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/spawn"
	"strake/internal/early"
	"strake/keeper/logwriter"
	"strake/keeper/wire"
)

// handle carries a request out. It is answered now or, with the ticket, later.
func (s *server) handle(t ticket, b wire.Body, fds *descriptors) {
	early.Tend()
	var err error
	switch m := b.(type) {
	case *wire.Hello:
		t.c.hello(t, m)
		return
	case *wire.Start:
		if err = s.start(t, m, fds); err == nil {
			return
		}
	case *wire.Adopt:
		if err = s.adopt(t, m, fds); err == nil {
			return
		}
	case *wire.Attach:
		if err = s.attach(t, m, fds); err == nil {
			return
		}
	case *wire.Shutdown:
		if err = s.shutdown(t, m.Force); err == nil {
			return
		}
	case *wire.Simple:
		var later bool
		if later, err = s.simple(t, m); later {
			return
		}
	case *wire.Empty:
		switch m.T {
		case wire.TypeList:
			t.c.list(t)
			return
		case wire.TypeUpgrade:
			if err = s.requestUpgrade(t, fds); err == nil {
				return
			}
		default:
			err = notARequest(b)
		}
	case *wire.Detach:
		err = s.detach(m)
	case *wire.Signal:
		err = s.with(m.ID, func(p *process) error { return p.signal(syscall.Signal(m.Signal)) })
	case *wire.Resize:
		err = s.with(m.ID, func(p *process) error { return p.resize(m.Width, m.Height) })
	default:
		err = notARequest(b)
	}
	if err != nil {
		s.replyError(t, err)
		return
	}
	s.reply(t, &wire.Empty{T: wire.TypeOK})
}

func notARequest(b wire.Body) error {
	return invalid("a message of type %d is no request", b.Type())
}

func (s *server) reply(t ticket, b wire.Body) {
	if t.c != nil {
		t.c.send(t.request, b, nil)
	}
}

func (s *server) replyError(t ticket, err error) { s.reply(t, errorBody(err)) }

// limit cuts a text to what a message may hold.
func limit(text string) string { return text[:min(len(text), 4096)] }

// exhausted says that the host has not got what was asked for.
func exhausted(errno syscall.Errno) bool {
	switch errno {
	case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN, unix.ENOSPC:
		return true
	}
	return false
}

// errorBody translates an error for the wire.
func errorBody(err error) *wire.Error {
	if remote, ok := err.(*remoteFailure); ok {
		return remote.body
	}
	m := &wire.Error{Text: limit(err.Error())}
	var failure *spawn.Failure
	var errno syscall.Errno
	if errors.As(err, &errno) {
		m.Errno = uint32(errno)
	}
	switch {
	case errors.Is(err, errDied):
		m.Class = wire.ClassDied
	case errors.As(err, &failure):
		m.Class, m.Index = wire.ClassFailure, uint32(failure.Index)
	case errdefs.IsInvalidArgument(err):
		m.Class = wire.ClassInvalidArgument
	case errdefs.IsNotFound(err):
		m.Class = wire.ClassNotFound
	case errdefs.IsAlreadyExists(err):
		m.Class = wire.ClassAlreadyExists
	case errdefs.IsFailedPrecondition(err):
		m.Class = wire.ClassFailedPrecondition
	case errdefs.IsUnavailable(err):
		m.Class = wire.ClassUnavailable
	case exhausted(errno):
		m.Class = wire.ClassResourceExhausted
	case errno == unix.EPERM || errno == unix.EACCES:
		m.Class = wire.ClassPermissionDenied
	}
	return m
}

func (s *server) find(id string) (*process, error) {
	if p := s.procs[id]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("process %.140q: %w", id, errdefs.ErrNotFound)
}

func (s *server) with(id string, do func(p *process) error) error {
	p, err := s.find(id)
	if err != nil {
		return err
	}
	return do(p)
}

// simple carries out a request about one process, and says whether it is answered later.
func (s *server) simple(t ticket, m *wire.Simple) (later bool, err error) {
	if m.T == wire.TypeAbort {
		return s.abort(t, m.ID), nil
	}
	p, err := s.find(m.ID)
	if err != nil {
		return false, err
	}
	switch m.T {
	case wire.TypeContinue:
		if p.state != wire.Held {
			return false, fmt.Errorf(
				"process %q is not held: %w", p.id, errdefs.ErrFailedPrecondition,
			)
		}
		p.goOn(t)
		return true, nil
	case wire.TypeCloseStdin:
		if p.isTTY() {
			return false, fmt.Errorf(
				"process %q has a terminal, whose input is not closed: %w", p.id,
				errdefs.ErrFailedPrecondition,
			)
		}
		p.closeStdin()
		// The client is to see the end of the input, not to wait for it.
		s.custody.flush()
	case wire.TypeForget:
		if p.state != wire.Exited {
			return false, fmt.Errorf(
				"process %q has not ended: %w", p.id, errdefs.ErrFailedPrecondition,
			)
		}
		return false, s.forget(p)
	case wire.TypeReopenLog:
		if p.log == nil {
			return false, fmt.Errorf(
				"process %q has no open log: %w", p.id, errdefs.ErrFailedPrecondition,
			)
		}
		return false, p.log.Reopen()
	default:
		return false, notARequest(m)
	}
	return false, nil
}

func (s *server) forget(p *process) error {
	if err := s.custody.journal.forget(p.id); err != nil {
		return err
	}
	p.remove()
	return nil
}

// abort kills and forgets, and says whether that takes time.
func (s *server) abort(t ticket, id string) (later bool) {
	p := s.procs[id]
	if p == nil {
		return false
	}
	if p.state == wire.Exited {
		if err := s.forget(p); err != nil {
			s.cfg.Logf("process %q: %v", id, err)
			p.remove()
		}
		return false
	}
	p.aborted = true
	p.aborters = append(p.aborters, t)
	if p.pidfd >= 0 && p.failure == nil {
		unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	}
	return true
}

func (s *server) attach(t ticket, m *wire.Attach, fds *descriptors) error {
	p, err := s.find(m.ID)
	if err != nil {
		return err
	}
	a := &m.Attachment
	if !a.Stdout && !a.Stderr || a.Same && !(a.Stdout && a.Stderr) || len(*fds) != a.FDs() {
		return invalid(
			"attachment: stdout %t, stderr %t, same %t, %d descriptors", a.Stdout, a.Stderr, a.Same,
			len(*fds),
		)
	}
	if p.failure != nil || p.aborted {
		return fmt.Errorf("process %q is being ended: %w", p.id, errdefs.ErrFailedPrecondition)
	}
	sub, err := p.subscribe(a, fds)
	if err != nil {
		return err
	}
	answer := &wire.Attached{Subscription: sub.id}
	if p.log != nil {
		answer.LogRotations, answer.LogOffset = p.log.Position()
	}
	// The answer goes first: an end of the subscription that is seen at once must not come before
	// its number.
	s.reply(t, answer)
	open := [2]bool{p.streams[0] != nil, p.streams[1] != nil}
	if p.isTTY() && (p.state == wire.Starting || p.state == wire.Held) {
		open[0] = true // the terminal is still to come
	}
	p.begin(sub, a.Pending, open)
	return nil
}

func (s *server) detach(m *wire.Detach) error {
	return s.with(m.ID, func(p *process) error {
		i := slices.IndexFunc(p.subs, func(sub *subscription) bool {
			return sub.id == m.Subscription
		})
		if i >= 0 {
			p.subs[i].drop()
			p.subs = slices.Delete(p.subs, i, i+1)
			p.unblock()
		}
		return nil
	})
}

func (p *process) resize(width, height uint16) error {
	if !p.isTTY() || p.streams[0] == nil {
		return fmt.Errorf("process %q has no terminal: %w", p.id, errdefs.ErrFailedPrecondition)
	}
	if err := setSize(p.streams[0].fd, width, height); err != nil {
		return err
	}
	p.stdio.Width, p.stdio.Height = width, height
	return nil
}

// adopt takes over a process that another keeper has started.
func (s *server) adopt(t ticket, m *wire.Adopt, fds *descriptors) error {
	d, others := &m.Process.FDs, 0
	for _, has := range d.Flags() {
		if *has {
			others++
		}
	}
	p := s.procs[m.Process.ID]
	switch {
	case p == nil || !p.adopted || p.pid != m.Process.Pid || p.aborted:
		return s.adoptNew(t, m, fds, others)
	case !p.bare || p.state != wire.Running:
		return p.adoptAgain(t, m, fds, others+len(m.Process.Kept))
	}
	// What it lacks comes now.
	delete(s.procs, p.id)
	if err := s.adoptNew(t, m, fds, others); err != nil {
		s.procs[p.id] = p
		return err
	}
	p.release()
	return nil
}

// adoptNew takes over a process that is not known. others is the number of its descriptors without
// kept ones.
func (s *server) adoptNew(t ticket, m *wire.Adopt, fds *descriptors, others int) error {
	d := &m.Process.FDs
	if err := s.admit(
		&admission{
			m.Process.ID, m.Process.Owner, &m.Process.Log, m.Process.EndCommand, m.Process.Kept,
			m.Attach, others,
		}, fds,
	); err != nil {
		return err
	}
	tty := m.Process.Stdio.Mode == wire.StdioTTY
	if !d.PidFD || d.TTY && !tty || (d.Stdin || d.Stdout || d.Stderr) &&
		m.Process.Stdio.Mode != wire.StdioPipes {
		return invalid("adopt: descriptors %+v for stdio mode %d", *d, m.Process.Stdio.Mode)
	}
	p := s.newProcess(m.Process.ID, m.Process.Kind)
	p.owner = m.Process.Owner
	p.note, p.stdio, p.logCfg = m.Process.Note, m.Process.Stdio, m.Process.Log
	p.endCommand = m.Process.EndCommand
	p.pid, p.adopted = m.Process.Pid, true
	p.state, p.started = wire.Running, time.Unix(0, m.Process.Started)
	if err := p.takeOver(m, fds); err != nil {
		p.release()
		return err
	}
	s.procs[p.id] = p
	if st, err := readStat(p.pid); err == nil {
		p.ticks = st.ticks
	}
	s.custody.hold(p)
	p.answer(t)
	p.tellClosed()
	return nil
}

// adoptAgain answers a request to adopt what the keeper has already. The first skip descriptors are
// duplicates of its own.
func (p *process) adoptAgain(t ticket, m *wire.Adopt, fds *descriptors, skip int) error {
	if len(*fds) < skip {
		return invalid("%d descriptors came with the request, want %d", len(*fds), skip)
	}
	closeAll((*fds)[:skip])
	*fds = (*fds)[skip:]
	want := 0
	for i := range m.Attach {
		want += m.Attach[i].FDs()
	}
	if len(*fds) != want {
		return invalid("%d descriptors came for subscriptions, want %d", len(*fds), want)
	}
	if err := p.subscribeAll(
		m.Attach, fds, [2]bool{p.streams[0] != nil, p.streams[1] != nil},
	); err != nil {
		return err
	}
	p.answer(t)
	return nil
}

func (p *process) takeOver(m *wire.Adopt, fds *descriptors) error {
	p.pidfd = fds.take()
	if err := unix.PidfdSendSignal(p.pidfd, 0, nil, 0); errors.Is(err, unix.EBADF) {
		return invalid("adopt: the first descriptor is no pidfd")
	}
	if m.Process.FDs.Stdin {
		p.stdin = fds.take()
	}
	if p.logCfg.Driver != wire.LogNone {
		log, err := logwriter.Open(logConfig(&p.logCfg), &p.s.scratch)
		if err != nil {
			return err
		}
		p.log = log
	}
	d := &m.Process.FDs
	for _, out := range []struct {
		has   bool
		index int
	}{{d.Stdout, 0}, {d.Stderr, 1}, {d.TTY, 0}} {
		if out.has {
			if err := p.addStream(out.index, fds.take()); err != nil {
				return fmt.Errorf("adopt: watch a stream: %w", err)
			}
		}
	}
	var err error
	if p.kept, err = takeKept(m.Process.Kept, fds); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	if err := p.subscribeAll(
		m.Attach, fds, [2]bool{p.streams[0] != nil, p.streams[1] != nil},
	); err != nil {
		return err
	}
	return p.watchExit()
}

// shutdown ends the keeper, at once or when the last process is gone.
func (s *server) shutdown(t ticket, force bool) error {
	live := s.live()
	switch {
	case !force && len(live) == 0 && s.commands.pending():
		return fmt.Errorf("end commands run: %w", errdefs.ErrFailedPrecondition)
	case len(live) == 0:
		s.askers = append(s.askers, t)
		s.stop = errStop
	case !force:
		slices.Sort(live)
		return fmt.Errorf(
			"%d processes run, among them %s: %w", len(live),
			strings.Join(live[:min(3, len(live))], ", "), errdefs.ErrFailedPrecondition,
		)
	default:
		s.askers = append(s.askers, t)
		s.stopping = true
		for _, p := range s.procs {
			p.killForShutdown()
		}
	}
	return nil
}

// live lists the processes that have not ended.
func (s *server) live() []string {
	var ids []string
	for _, p := range s.procs {
		if p.state != wire.Exited {
			ids = append(ids, p.id)
		}
	}
	return ids
}

func (p *process) killForShutdown() {
	if p.state != wire.Exited && p.pidfd >= 0 {
		unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	}
}
