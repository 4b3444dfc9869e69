package server

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/spawn"
	"strake/keeper/logwriter"
	"strake/keeper/wire"
)

// custody is what lets the next keeper go on with the processes of one that was killed: the guard,
// which holds duplicates of their descriptors, and the journal, which says whose they are.
//
// It protects against the death of keeper and engine at once, and nothing else depends on it. So a
// guard that cannot be started, or a journal that cannot be written, is logged and tried again, and
// fails no request. A process whose line is not in the journal is not in the guard either: what a
// new keeper finds in the guard and not in the journal is a start that was never acknowledged, and
// it is killed.
//
// It is guarded by server.mu.
type custody struct {
	loop    *loop
	machine *spawn.Machine
	logf    func(format string, args ...any)
	score   *int // oom_score_adj of the guard; nil: as it comes
	journal *journal
	guard   *guard              // nil: there is none
	closing []int               // numbers that the guard is to close at the end of the turn
	procs   map[string]*process // the server's
	// missing are processes that are not in custody and should be.
	missing map[*process]struct{}
	retryAt time.Time
}

// custodyPause is the time between two attempts to start a guard or to write the journal.
const custodyPause = time.Second

// hold takes a process into custody, before a client is told that it runs.
func (c *custody) hold(p *process) {
	if c.guard == nil {
		c.missing[p] = struct{}{}
		c.renew()
		return
	}
	if !c.send(p) {
		return
	}
	if err := c.journal.started(p.record()); err != nil {
		c.logf("process %q: %v", p.id, err)
		c.dropAll(p)
		c.missing[p] = struct{}{}
	}
}

// send gives a process's descriptors to the guard. On failure the guard is given up.
func (c *custody) send(p *process) bool {
	fds := p.descriptors()
	if p.state == wire.Exited {
		fds[0] = -1
	}
	var held places
	var list, index []int
	for i, fd := range fds {
		if fd < 0 {
			continue
		}
		if i > 0 { // the pidfd is known by its process
			f, err := fileOf(fd, p.isTTY())
			if err != nil {
				c.logf("process %q: %v", p.id, err)
				continue
			}
			held[i].file = f
		}
		list, index = append(list, fd), append(index, i)
	}
	if len(list) == 0 {
		return true
	}
	at, err := c.guard.add(list)
	if err != nil {
		c.missing[p] = struct{}{}
		c.giveUp(err)
		return false
	}
	for k, i := range index {
		held[i].number = at[k]
	}
	p.held = held
	return true
}

// drop lets the guard close one of a process's descriptors, at the end of the turn.
func (c *custody) drop(p *process, i int) {
	if n := p.held[i].number; n != 0 {
		c.closing = append(c.closing, n)
		p.held[i] = place{}
	}
}

func (c *custody) dropAll(p *process) {
	for i := range p.held {
		c.drop(p, i)
	}
	delete(c.missing, p)
}

// flush sends what drop has collected.
func (c *custody) flush() {
	if len(c.closing) == 0 {
		return
	}
	list := c.closing
	c.closing = c.closing[:0]
	if c.guard == nil {
		return
	}
	if err := c.guard.drop(list); err != nil {
		c.giveUp(err)
	}
}

// exited records that a process has ended, before a client is told.
func (c *custody) exited(p *process) {
	r := &record{id: p.id, owner: p.owner, kind: p.kind, exit: &p.exit}
	if err := c.journal.exited(r); err != nil {
		c.logf("process %q: %v", p.id, err) // it is still in memory
	}
	c.drop(p, 0)
	delete(c.missing, p)
	if p.held == (places{}) && p.open() {
		// It has ended before it was seen to run, and left its output to another process.
		c.hold(p)
	}
}

// giveUp replaces a guard that does not do as it is told.
func (c *custody) giveUp(reason error) {
	if c.guard == nil {
		return
	}
	c.logf("the guard, process %d: %v", c.guard.pid, reason)
	c.loop.ignore(c.guard.pidfd)
	c.guard.end()
	c.guard = nil
	c.closing = c.closing[:0]
	for _, p := range c.procs {
		if p.held != (places{}) {
			p.held = places{}
			if p.open() {
				c.missing[p] = struct{}{}
			}
		}
	}
}

// watch begins to listen for the death of the guard.
func (c *custody) watch(died func(events uint32)) {
	if c.guard == nil {
		return
	}
	if err := c.loop.watch(c.guard.pidfd, unix.EPOLLIN, died); err != nil {
		c.giveUp(err)
	}
}

// renew takes what is missing into custody, with a new guard if there is none.
func (c *custody) renew() {
	now := time.Now()
	if len(c.missing) == 0 || now.Before(c.retryAt) {
		return
	}
	c.retryAt = now.Add(custodyPause)
	if c.guard == nil {
		g, err := startGuard(c.machine, c.score)
		if err != nil {
			c.logf("start a guard: %v", err)
			return
		}
		c.guard = g
		c.watch(c.guardDied)
	}
	var list []*process
	for p := range c.missing {
		delete(c.missing, p)
		if c.guard == nil || !c.send(p) {
			return
		}
		list = append(list, p)
	}
	// One write for all, with the guard: places in an earlier one mean nothing.
	c.journal.guard = c.guard.identity
	before := make(map[*process]*record, len(list))
	for _, p := range list {
		r := p.record()
		if before[p] = c.journal.records[p.id]; before[p] != nil {
			r.exit = before[p].exit
		}
		c.journal.records[p.id] = r
	}
	if err := c.journal.rewrite(); err != nil {
		c.logf("%v", err)
		for _, p := range list {
			c.dropAll(p)
			c.missing[p] = struct{}{}
			c.journal.records[p.id] = before[p]
			if before[p] == nil {
				delete(c.journal.records, p.id)
			}
		}
	}
}

// guardDied is called when the guard has ended. Nobody but the keeper ends it, so it was killed;
// everything is handed over to a new one.
func (c *custody) guardDied(uint32) {
	c.guard.reap()
	c.giveUp(errors.New("it has ended; everything is handed over to a new one"))
}

// shutdown ends the guard. Precondition: no process runs.
func (c *custody) shutdown() {
	if c.guard != nil {
		c.loop.ignore(c.guard.pidfd)
		c.guard.end()
		c.guard = nil
	}
}

// close gives up what this process has of guard and journal; they are for the next keeper.
func (c *custody) close() {
	if c.guard != nil {
		c.guard.abandon()
	}
	if c.journal != nil {
		c.journal.close()
	}
}

// descriptors lists what the keeper holds of the process, in the order of wire.Descriptors; -1 for
// none.
func (p *process) descriptors() [5]int {
	list := [5]int{p.pidfd, p.stdin, -1, -1, -1}
	for i, st := range p.streams {
		switch {
		case st == nil:
		case p.isTTY():
			list[4] = st.fd
		default:
			list[2+i] = st.fd
		}
	}
	return list
}

// open says that the process has not ended, or that there is still output of it.
func (p *process) open() bool {
	return p.state == wire.Running || p.state == wire.Exited &&
		(p.streams[0] != nil || p.streams[1] != nil)
}

func (p *process) record() *record {
	return &record{id: p.id, owner: p.owner, kind: p.kind, start: &startRecord{
		note: p.note, process: identity{p.pid, p.ticks}, started: p.started.UnixNano(),
		stdio: p.stdio, log: p.logCfg, held: p.held,
	}}
}

// recovery goes on with what another keeper has left.
type recovery struct {
	s *server
	*custody
	taken map[int]bool // numbers of the guard that a process of the journal has
}

// recover takes processes over from the guard of a keeper that was killed. Those that cannot be are
// left to the engine's Adopt, as if there had been no guard.
func (s *server) recover() {
	r := &recovery{s: s, custody: &s.custody, taken: make(map[int]bool)}
	if id := r.journal.guard; id.pid != 0 {
		g, err := findGuard(id)
		if err != nil {
			r.logf("processes of the last keeper: %v", err)
		}
		r.guard = g
		r.watch(r.guardDied)
	}
	for id, rec := range r.journal.records {
		p, err := r.process(rec)
		if err != nil {
			r.logf("process %q of the last keeper: %v", id, err)
			delete(r.journal.records, id)
			r.journal.stale = true
			continue
		}
		s.procs[id] = p
	}
	if r.guard != nil {
		r.clean()
	}
	r.flush()
}

// process makes a process of a record. Its descriptors come from the guard.
func (r *recovery) process(rec *record) (*process, error) {
	p := r.s.newProcess(rec.id, rec.kind)
	p.owner = rec.owner
	if s := rec.start; s != nil {
		p.note, p.stdio, p.logCfg, p.adopted = s.note, s.stdio, s.log, true
		p.pid, p.ticks, p.started = s.process.pid, s.process.ticks, time.Unix(0, s.started)
	}
	if rec.exit != nil {
		p.state, p.exit = wire.Exited, *rec.exit
	} else {
		p.state = wire.Running
		if err := r.pidfd(p, rec.start); err != nil {
			return nil, err
		}
	}
	if rec.start != nil && r.guard != nil {
		r.streams(p, rec.start)
	}
	p.closed = p.streamsClosed()
	if p.state == wire.Running {
		if err := p.watchExit(); err != nil {
			p.release()
			return nil, err
		}
	}
	return p, nil
}

// pidfd takes the process's descriptor out of the guard.
func (r *recovery) pidfd(p *process, s *startRecord) error {
	if r.guard == nil || s == nil || r.taken[s.held[0].number] {
		return fmt.Errorf("it is not in the guard: %w", errdefs.ErrNotFound)
	}
	fd, err := r.guard.get(s.held[0].number)
	if err != nil {
		return err
	}
	pid, err := pidOf(fd)
	// A process that was reaped has no number any more.
	if err == nil && pid != p.pid && pid != -1 {
		err = fmt.Errorf("the guard has process %d: %w", pid, errdefs.ErrNotFound)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	p.pidfd = fd
	r.claim(p, s, 0)
	return nil
}

func (r *recovery) claim(p *process, s *startRecord, i int) {
	p.held[i] = s.held[i]
	r.taken[s.held[i].number] = true
}

// streams takes over those of the process's pipes, or the terminal, that are not closed by now: what
// the guard has at their numbers is still the same file.
func (r *recovery) streams(p *process, s *startRecord) {
	tty := s.stdio.Mode == wire.StdioTTY
	for i := 1; i < len(s.held); i++ {
		at := s.held[i]
		if at.number == 0 || r.taken[at.number] || tty != (i == 4) {
			continue
		}
		fd, err := r.guard.get(at.number)
		if err != nil {
			continue
		}
		if f, err := fileOf(fd, tty); err != nil || f != at.file {
			unix.Close(fd)
			continue
		}
		if i == 1 {
			p.stdin = fd
		} else if err := p.addStream((i-2)%2, fd); err != nil {
			r.logf("process %q: %v", p.id, err)
			continue
		}
		r.claim(p, s, i)
	}
	if s.log.Driver == wire.LogNone || p.streams[0] == nil && p.streams[1] == nil {
		return
	}
	var err error
	if p.log, err = logwriter.Open(logConfig(&s.log), &r.s.scratch); err != nil {
		// The output is read all the same, or the process would block.
		r.logf("process %q: its output is not logged any more: %v", p.id, err)
	}
}

// clean ends what is in the guard and not in the journal: starts that no client was told of, and
// what the last keeper had no time to drop.
func (r *recovery) clean() {
	for _, n := range r.guard.used.list() {
		if n == guardFeed || n == guardOwn || r.taken[n] {
			continue
		}
		r.closing = append(r.closing, n)
		fd, err := r.guard.get(n)
		if err != nil {
			continue
		}
		if pid, err := pidOf(fd); err == nil && pid > 0 {
			r.logf("process %d is ended: its start was never acknowledged", pid)
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
}

// pidOf is the process of a pidfd: its number in the PID namespace of /proc, -1 if it was reaped
// (proc_pid_fdinfo(5)). It is an error for any other descriptor.
func pidOf(fd int) (int, error) {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, fmt.Errorf("no pidfd: %w", errdefs.ErrInvalidArgument)
}

// code codes the custody for a successor. Places are coded with the processes.
func (c *custody) code(st *stateCoder) {
	g := c.guard
	has := g != nil
	wire.Bool(st.Coder, &has)
	if !has {
		return
	}
	if st.Decoding() {
		g = &guard{}
	}
	wire.Int(st.Coder, &g.pid)
	wire.Uint(st.Coder, &g.ticks)
	st.fd(&g.pidfd)
	st.fd(&g.feed)
	wire.List(st.Coder, &g.used.words, anyLength, func(w *uint64) { wire.Uint(st.Coder, w) })
	if st.Decoding() {
		c.guard = g
	}
}
