package server

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/early"
	"strake/keeper/wire"
)

// checkTime is how long a successor may think about whether it can take over.
const checkTime = 20 * time.Second

// upgrade is one that has been asked for. While it is there, nothing is started.
type upgrade struct {
	t        ticket
	exe      int
	checking bool
	checked  bool
	err      error // what the check has found
}

func (s *server) requestUpgrade(t ticket, fds *descriptors) error {
	switch {
	case len(s.cfg.Successor) == 0:
		return fmt.Errorf("this keeper cannot be upgraded: %w", errdefs.ErrFailedPrecondition)
	case s.upgrade != nil || s.stopping:
		return fmt.Errorf("the keeper is going down or being replaced: %w", errdefs.ErrUnavailable)
	case len(*fds) != 1:
		return invalid("upgrade: %d descriptors, want the executable", len(*fds))
	}
	s.upgrade = &upgrade{t: t, exe: fds.take()}
	return nil
}

// advanceUpgrade takes the next step: ask the successor, then become it. Precondition: nothing is
// being cloned.
func (s *server) advanceUpgrade() {
	s.custody.flush()
	u := s.upgrade
	var err error
	switch {
	case u.checking:
		return
	case !u.checked:
		if err = s.check(u); err == nil {
			return
		}
	case u.err != nil:
		err = u.err
	default:
		err = s.replace(u)
	}
	s.cfg.Logf("upgrade: %v", err)
	s.replyError(u.t, err)
	unix.Close(u.exe)
	s.upgrade = nil
}

// check asks the successor, with the present state, whether it could take over. It runs beside the
// loop.
func (s *server) check(u *upgrade) error {
	state, _, err := s.save()
	if err != nil {
		return err
	}
	u.checking = true
	go func() {
		err := u.ask(s.cfg.Successor, s.cfg.Environ, state)
		unix.Close(state)
		s.mu.Lock()
		defer s.mu.Unlock()
		u.checking, u.checked, u.err = false, true, err
		s.poke()
	}()
	return nil
}

// ask executes the successor with the state, to say whether it can take over.
func (u *upgrade) ask(command, environ []string, state int) error {
	// Two descriptors beside the standard ones, at known numbers: what is executed, so that it can
	// be found, and the state.
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	files := make([]*os.File, 2)
	for i, fd := range []int{u.exe, state} {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("upgrade: %w", err)
		}
		files[i] = os.NewFile(uintptr(dup), "")
		defer files[i].Close()
	}
	cmd := exec.CommandContext(ctx, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), u.exe))
	cmd.Args = append(slices.Clone(command), "--check", "4")
	cmd.Env, cmd.ExtraFiles = environ, files
	if err := cmd.Run(); err != nil {
		return fmt.Errorf(
			"the successor cannot take over: %w: %w", err, errdefs.ErrFailedPrecondition,
		)
	}
	return nil
}

// replace becomes the successor. It returns only if that fails, and then nothing has changed.
func (s *server) replace(u *upgrade) error {
	state, kept, err := s.save()
	if err != nil {
		return err
	}
	defer unix.Close(state)
	kept = append(kept, state)
	keep := func(flags int) error {
		for _, fd := range kept {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags); err != nil {
				return fmt.Errorf("upgrade: descriptor %d: %w", fd, err)
			}
		}
		return nil
	}
	if err = keep(0); err == nil {
		args := append(slices.Clone(s.cfg.Successor), "--resume", strconv.Itoa(state))
		unlock := early.Lock()
		err = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", u.exe), args, s.cfg.Environ)
		unlock()
		err = fmt.Errorf("upgrade: execve: %w", err)
	}
	if rerr := keep(unix.FD_CLOEXEC); rerr != nil {
		s.cfg.Logf("%v", rerr)
	}
	return err
}

// resume takes over what the state names.
func (s *server) resume(fd int) error {
	b, err := readState(fd)
	unix.Close(fd)
	if err != nil {
		return err
	}
	c := &stateCoder{Coder: wire.NewDecoder(b), s: s}
	s.upgrade = &upgrade{}
	c.server()
	if err := c.Finish(); err != nil {
		return err
	}
	s.custody.lock = s.lock
	if s.flight, err = newFlight(s.custody.output); err != nil {
		return err
	}
	t := s.upgrade.t
	s.upgrade = nil
	s.upgrades++
	for _, fd := range c.fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return fmt.Errorf("descriptor %d of the state: %w", fd, err)
		}
	}
	for _, k := range s.conns {
		if len(k.queue) > 0 {
			k.stall()
		} else if err := s.watch(k.fd, unix.EPOLLIN, k.ready); err != nil {
			return err
		}
	}
	s.custody.watch(s.custody.guardDied)
	for _, p := range s.procs {
		if p.open() && !p.inGuard() {
			s.custody.missing[p] = struct{}{}
		}
		if err := p.rewatch(); err != nil {
			return fmt.Errorf("process %q: %w", p.id, err)
		}
	}
	if err := s.commands.resume(); err != nil {
		return err
	}
	s.reply(t, &wire.Empty{T: wire.TypeOK})
	return nil
}

// rewatch registers everything that the process wants to know of.
func (p *process) rewatch() error {
	if p.child != nil && p.state != wire.Held {
		if err := p.s.watch(p.child.SyncFD(), unix.EPOLLIN, func(uint32) { p.hear() }); err != nil {
			return err
		}
	}
	if p.pidfd >= 0 && p.state != wire.Exited {
		if err := p.watchExit(); err != nil {
			return err
		}
	}
	for _, st := range p.streams {
		if st != nil && !st.paused {
			if err := st.resume(); err != nil {
				return err
			}
		}
	}
	for _, sub := range p.subs {
		for i, k := range sub.sinks {
			if k == nil || k.fd < 0 || i == 1 && k == sub.sinks[0] {
				continue
			}
			events := uint32(0)
			if k.waiting() > 0 {
				events = unix.EPOLLOUT
			}
			if err := p.s.watch(k.fd, events, k.ready); err != nil {
				return err
			}
		}
	}
	return nil
}
