package server

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/spawn"
	"strake/internal/early"
	"strake/keeper/logwriter"
	"strake/keeper/wire"
)

// stateVersion is the version of what a keeper hands to its successor. A successor takes over from
// its own version and refuses any other.
const stateVersion = 2

// maxState bounds the state in bytes.
const maxState = 1 << 30

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
		err := s.ask(u.exe, state)
		unix.Close(state)
		s.mu.Lock()
		defer s.mu.Unlock()
		u.checking, u.checked, u.err = false, true, err
		s.poke()
	}()
	return nil
}

func (s *server) ask(exe, state int) error {
	// Two descriptors beside the standard ones, at known numbers: what is executed, so that it can
	// be found, and the state.
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	files := make([]*os.File, 2)
	for i, fd := range []int{exe, state} {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("upgrade: %w", err)
		}
		files[i] = os.NewFile(uintptr(dup), "")
		defer files[i].Close()
	}
	cmd := exec.CommandContext(ctx, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), exe))
	cmd.Args = append(slices.Clone(s.cfg.Successor), "--check", "4")
	cmd.Env, cmd.ExtraFiles = s.cfg.Environ, files
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

// save writes the state to a memory file and lists the descriptors that it names.
func (s *server) save() (state int, kept []int, err error) {
	c := newStateCoder(wire.NewEncoder(nil))
	s.code(c)
	if err := c.Finish(); err != nil {
		return -1, nil, err
	}
	fd, err := unix.MemfdCreate("strake-keeper-state", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, nil, fmt.Errorf("memfd_create for the state: %w", err)
	}
	if err := writeAll(fd, c.Bytes()); err != nil {
		unix.Close(fd)
		return -1, nil, fmt.Errorf("write the state: %w", err)
	}
	return fd, c.fds, nil
}

func readState(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if st.Size > maxState {
		return nil, invalid("state of %d bytes", st.Size)
	}
	b := make([]byte, st.Size)
	for done := 0; done < len(b); {
		n, err := unix.Pread(fd, b[done:], int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return nil, fmt.Errorf("state: %d of %d bytes: %w", done, len(b), err)
		}
		done += n
	}
	return b, nil
}

// Check says whether this program could take over the state in a descriptor.
func Check(fd int) error {
	b, err := readState(fd)
	if err != nil {
		return err
	}
	s := &server{procs: make(map[string]*process), conns: make(map[int]*conn)}
	c := newStateCoder(wire.NewDecoder(b))
	s.code(c)
	return c.Finish()
}

// resume takes over what the state names.
func (s *server) resume(fd int) error {
	b, err := readState(fd)
	unix.Close(fd)
	if err != nil {
		return err
	}
	c := newStateCoder(wire.NewDecoder(b))
	s.upgrade = &upgrade{}
	s.code(c)
	if err := c.Finish(); err != nil {
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
		if p.open() && p.held == (places{}) {
			s.custody.missing[p] = struct{}{}
		}
		if err := p.rewatch(); err != nil {
			return fmt.Errorf("process %q: %w", p.id, err)
		}
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

// stateCoder codes the server. Descriptors keep their numbers; it collects them.
type stateCoder struct {
	*wire.Coder
	fds []int
}

func newStateCoder(c *wire.Coder) *stateCoder { return &stateCoder{Coder: c} }

func (c *stateCoder) fd(fd *int) {
	wire.Int(c.Coder, fd)
	if *fd >= 0 {
		c.fds = append(c.fds, *fd)
	}
}

// Lists in the state are as long as they are; the decoder bounds them by the bytes that there are.
const anyLength = maxState

func (s *server) code(c *stateCoder) {
	version := uint32(stateVersion)
	wire.Uint(c.Coder, &version)
	if c.Decoding() && version != stateVersion {
		c.Fail("state of version %d, want %d", version, stateVersion)
		return
	}
	started := s.started.UnixNano()
	wire.Int(c.Coder, &started)
	s.started = time.Unix(0, started)
	wire.Uint(c.Coder, &s.upgrades)
	wire.Uint(c.Coder, &s.lastSub)
	c.fd(&s.cfg.Listener)
	c.fd(&s.lock)
	conns := slices.Collect(maps.Values(s.conns))
	wire.List(c.Coder, &conns, anyLength, func(k **conn) { s.codeConn(c, k) })
	procs := slices.Collect(maps.Values(s.procs))
	wire.List(c.Coder, &procs, anyLength, func(p **process) { s.codeProcess(c, p) })
	s.custody.code(c)
	if s.upgrade == nil {
		s.upgrade = &upgrade{}
	}
	s.codeTicket(c, &s.upgrade.t)
}

func (s *server) codeConn(c *stateCoder, k **conn) {
	if c.Decoding() {
		*k = &conn{s: s}
	}
	c.fd(&(*k).fd)
	wire.Bool(c.Coder, &(*k).events)
	wire.List(c.Coder, &(*k).queue, anyLength, func(q *queued) {
		wire.Text(c.Coder, &q.data, wire.MaxMessage)
		wire.List(c.Coder, &q.fds, wire.MaxFDs, func(fd *int) { c.fd(fd) })
	})
	if c.Decoding() {
		s.conns[(*k).fd] = *k
	}
}

// codeTicket codes who waits by the descriptor of the connection.
func (s *server) codeTicket(c *stateCoder, t *ticket) {
	fd := -1
	if t.c != nil && !t.c.closed {
		fd = t.c.fd
	}
	wire.Int(c.Coder, &fd)
	wire.Uint(c.Coder, &t.request)
	if c.Decoding() {
		t.c = s.conns[fd]
	}
}

func (s *server) codeProcess(c *stateCoder, pp **process) {
	if c.Decoding() {
		*pp = s.newProcess("", 0)
	}
	p := *pp
	m, _ := p.describe()
	m.Code(c.Coder)
	if c.Decoding() {
		p.owner = m.Owner
		p.id, p.kind, p.note, p.state, p.stage, p.pid = m.ID, m.Kind, m.Note, m.State, m.Stage, m.Pid
		p.stdio, p.logCfg, p.exit, p.adopted = m.Stdio, m.Log, m.Exit, m.Adopted
		if m.Started != 0 {
			p.started = time.Unix(0, m.Started)
		}
		s.procs[p.id] = p
	}
	for _, b := range []*bool{&p.hold, &p.doubt, &p.aborted, &p.closed} {
		wire.Bool(c.Coder, b)
	}
	c.fd(&p.pidfd)
	c.fd(&p.stdin)
	wire.Uint(c.Coder, &p.ticks)
	for i := range p.held {
		at := &p.held[i]
		wire.Int(c.Coder, &at.number)
		wire.Uint(c.Coder, &at.file.dev)
		wire.Uint(c.Coder, &at.file.ino)
		wire.Int(c.Coder, &at.file.tty)
	}
	s.codeTicket(c, &p.waiter)
	wire.List(c.Coder, &p.aborters, anyLength, func(t *ticket) { s.codeTicket(c, t) })
	p.codeFailure(c)
	p.codeChild(c)
	for i := range p.streams {
		p.codeStream(c, i)
	}
	p.codeLog(c)
	wire.List(c.Coder, &p.subs, anyLength, func(sub **subscription) { p.codeSubscription(c, sub) })
}

// remoteFailure is a failure that another program has seen, in the form in which it is answered.
type remoteFailure struct{ body *wire.Error }

func (e *remoteFailure) Error() string { return e.body.Text }

func (p *process) codeFailure(c *stateCoder) {
	has := p.failure != nil
	wire.Bool(c.Coder, &has)
	if !has {
		return
	}
	body := &wire.Error{}
	if !c.Decoding() {
		body = errorBody(p.failure)
	}
	body.Code(c.Coder)
	if c.Decoding() {
		p.failure = &remoteFailure{body}
	}
}

func (p *process) codeChild(c *stateCoder) {
	fd := -1
	if p.child != nil {
		fd = p.child.SyncFD()
	}
	c.fd(&fd)
	if c.Decoding() && fd >= 0 {
		p.child = spawn.Resume(p.pid, p.pidfd, fd)
	}
}

func (p *process) codeStream(c *stateCoder, i int) {
	st := p.streams[i]
	if st == nil {
		st = &stream{p: p, index: i, fd: -1}
	}
	c.fd(&st.fd)
	wire.Bool(c.Coder, &st.paused)
	if st.fd >= 0 {
		p.streams[i] = st
	}
}

func (p *process) codeLog(c *stateCoder) {
	st := logwriter.State{FD: -1}
	if p.log != nil {
		st = p.log.State()
	}
	c.fd(&st.FD)
	wire.Uint(c.Coder, &st.Rotations)
	wire.Uint(c.Coder, &st.Lost)
	for i := range st.Pending {
		wire.Text(c.Coder, &st.Pending[i], anyLength)
	}
	if c.Decoding() && st.FD >= 0 {
		p.log = logwriter.Resume(logConfig(&p.logCfg), &p.s.scratch, st)
	}
}

func (p *process) codeSubscription(c *stateCoder, sub **subscription) {
	if c.Decoding() {
		*sub = &subscription{}
	}
	u := *sub
	wire.Uint(c.Coder, &u.id)
	wire.Bool(c.Coder, &u.framed)
	wire.Enum(c.Coder, &u.overflow, wire.OverflowBlock)
	same := u.sinks[0] != nil && u.sinks[0] == u.sinks[1]
	wire.Bool(c.Coder, &same)
	for i := range u.sinks {
		if i == 1 && same {
			u.sinks[1] = u.sinks[0]
			break
		}
		has := u.sinks[i] != nil
		wire.Bool(c.Coder, &has)
		if !has {
			continue
		}
		if c.Decoding() {
			u.sinks[i] = &sink{p: p, sub: u}
		}
		k := u.sinks[i]
		c.fd(&k.fd)
		wire.Bool(c.Coder, &k.socket)
		wire.Int(c.Coder, &k.feeds)
		wire.Text(c.Coder, &k.mem, anyLength)
		c.fd(&k.spill)
		wire.Int(c.Coder, &k.from)
		wire.Int(c.Coder, &k.to)
		wire.Bool(c.Coder, &k.failed)
		wire.Uint(c.Coder, &k.lost)
	}
}
