package server

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"strake/container/spawn"
	"strake/keeper/logwriter"
	"strake/keeper/wire"
)

// stateVersion is the version of what a keeper hands to its successor. A successor takes over from
// its own version and refuses any other.
const stateVersion = 2

// maxState bounds the state in bytes.
const maxState = 1 << 30

// save writes the state to a memory file and lists the descriptors that it names.
func (s *server) save() (state int, kept []int, err error) {
	c := &stateCoder{Coder: wire.NewEncoder(nil), s: s}
	c.server()
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
	c := &stateCoder{Coder: wire.NewDecoder(b), s: s}
	c.server()
	return c.Finish()
}

// stateCoder codes the server. Descriptors keep their numbers; it collects them.
type stateCoder struct {
	*wire.Coder
	s   *server
	fds []int
}

func (c *stateCoder) fd(fd *int) {
	wire.Int(c.Coder, fd)
	if *fd >= 0 {
		c.fds = append(c.fds, *fd)
	}
}

// Lists in the state are as long as they are; the decoder bounds them by the bytes that there are.
const anyLength = maxState

// server codes everything.
func (c *stateCoder) server() {
	s := c.s
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
	wire.List(c.Coder, &conns, anyLength, c.conn)
	procs := slices.Collect(maps.Values(s.procs))
	wire.List(c.Coder, &procs, anyLength, c.process)
	c.custody(&s.custody)
	output := -1
	if s.flight != nil {
		output = s.flight.fd
	}
	c.fd(&output)
	s.custody.output = output
	if s.upgrade == nil {
		s.upgrade = &upgrade{}
	}
	c.ticket(&s.upgrade.t)
	if c.More(len(s.commands.running) > 0) {
		wire.List(c.Coder, &s.commands.running, anyLength, c.command)
	}
}

// command codes an end command that runs. Those in the queue are known by their processes.
func (c *stateCoder) command(to **command) {
	if c.Decoding() {
		*to = &command{}
	}
	k := *to
	has := k.p != nil
	wire.Text(c.Coder, &k.id, anyLength)
	wire.Text(c.Coder, &k.path, anyLength)
	wire.Bool(c.Coder, &has)
	wire.Int(c.Coder, &k.pid)
	wire.Uint(c.Coder, &k.ticks)
	c.fd(&k.pidfd)
	sync := -1
	if k.child != nil {
		sync = k.child.SyncFD()
	}
	c.fd(&sync)
	if !c.Decoding() {
		return
	}
	if has {
		k.p = c.s.procs[k.id]
	}
	if sync >= 0 {
		k.child = spawn.Resume(k.pid, k.pidfd, sync)
	}
}

func (c *stateCoder) conn(k **conn) {
	if c.Decoding() {
		*k = &conn{s: c.s}
	}
	c.fd(&(*k).fd)
	wire.Bool(c.Coder, &(*k).events)
	wire.List(c.Coder, &(*k).queue, anyLength, func(q *queued) {
		wire.Text(c.Coder, &q.data, wire.MaxMessage)
		wire.List(c.Coder, &q.fds, wire.MaxFDs, func(fd *int) { c.fd(fd) })
	})
	if c.Decoding() {
		c.s.conns[(*k).fd] = *k
	}
}

// ticket codes who waits by the descriptor of the connection.
func (c *stateCoder) ticket(t *ticket) {
	fd := -1
	if t.c != nil && !t.c.closed {
		fd = t.c.fd
	}
	wire.Int(c.Coder, &fd)
	wire.Uint(c.Coder, &t.request)
	if c.Decoding() {
		t.c = c.s.conns[fd]
	}
}

func (c *stateCoder) process(pp **process) {
	if c.Decoding() {
		*pp = c.s.newProcess("", 0)
	}
	p := *pp
	m, _ := p.describe()
	m.Code(c.Coder)
	if c.Decoding() {
		p.owner = m.Owner
		p.id, p.kind, p.note, p.pid = m.ID, m.Kind, m.Note, m.Pid
		p.state, p.stage, p.endCommand = m.State, m.Stage, m.EndCommand
		p.bare = m.Bare
		p.stdio, p.logCfg, p.exit, p.adopted = m.Stdio, m.Log, m.Exit, m.Adopted
		if m.Started != 0 {
			p.started = time.Unix(0, m.Started)
		}
		c.s.procs[p.id] = p
	}
	for _, b := range []*bool{&p.hold, &p.doubt, &p.aborted} {
		wire.Bool(c.Coder, b)
	}
	wire.Flags(c.Coder, &p.closed, &p.ran)
	c.fd(&p.pidfd)
	c.fd(&p.stdin)
	wire.Uint(c.Coder, &p.ticks)
	for i := range p.held {
		c.place(&p.held[i])
	}
	if c.Decoding() {
		for _, name := range m.Kept {
			p.kept = append(p.kept, kept{name: name})
		}
	}
	for i := range p.kept {
		c.fd(&p.kept[i].fd)
		c.place(&p.kept[i].at)
	}
	c.ticket(&p.waiter)
	wire.List(c.Coder, &p.aborters, anyLength, func(t *ticket) { c.ticket(t) })
	c.failure(p)
	c.child(p)
	for i := range p.streams {
		c.stream(p, i)
	}
	c.log(p)
	wire.List(c.Coder, &p.subs, anyLength, func(sub **subscription) { c.subscription(p, sub) })
}

func (c *stateCoder) place(at *place) {
	wire.Int(c.Coder, &at.number)
	wire.Uint(c.Coder, &at.file.dev)
	wire.Uint(c.Coder, &at.file.ino)
	wire.Int(c.Coder, &at.file.tty)
}

// remoteFailure is a failure that another program has seen, in the form in which it is answered.
type remoteFailure struct{ body *wire.Error }

func (e *remoteFailure) Error() string { return e.body.Text }

func (c *stateCoder) failure(p *process) {
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

func (c *stateCoder) child(p *process) {
	fd := -1
	if p.child != nil {
		fd = p.child.SyncFD()
	}
	c.fd(&fd)
	if c.Decoding() && fd >= 0 {
		p.child = spawn.Resume(p.pid, p.pidfd, fd)
	}
}

func (c *stateCoder) stream(p *process, i int) {
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

func (c *stateCoder) log(p *process) {
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

func (c *stateCoder) subscription(p *process, sub **subscription) {
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

// custody codes the guard. Places are coded with the processes.
func (c *stateCoder) custody(to *custody) {
	g := to.guard
	has := g != nil
	wire.Bool(c.Coder, &has)
	if !has {
		return
	}
	if c.Decoding() {
		g = &guard{}
	}
	wire.Int(c.Coder, &g.pid)
	wire.Uint(c.Coder, &g.ticks)
	c.fd(&g.pidfd)
	c.fd(&g.feed)
	wire.List(c.Coder, &g.used.words, anyLength, func(w *uint64) { wire.Uint(c.Coder, w) })
	if c.Decoding() {
		to.guard = g
	}
}
