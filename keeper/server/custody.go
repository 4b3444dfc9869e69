package server

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"strake/container/spawn"
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
	output  int                 // descriptor of the memory that output passes through
	lock    int                 // descriptor of the state directory's lock
	guard   *guard              // nil: there is none
	closing []int               // numbers that the guard is to close
	urgent  bool                // at the end of the turn, not some time
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
	for i := range p.kept {
		k := &p.kept[i]
		f, err := keptFile(k.fd)
		if err != nil {
			c.logf("process %q: %s: %v", p.id, k.name, err)
			continue
		}
		k.at = place{file: f}
		list, index = append(list, k.fd), append(index, len(held)+i)
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
		if i < len(held) {
			held[i].number = at[k]
		} else {
			p.kept[i-len(held)].at.number = at[k]
		}
	}
	p.held = held
	return true
}

// inGuard says that the guard has descriptors of the process.
func (p *process) inGuard() bool {
	return p.held != (places{}) ||
		slices.ContainsFunc(p.kept, func(k kept) bool { return k.at.number != 0 })
}

// dropLater lets the guard close one of a process's descriptors some time: what has ended is ended
// whether the guard has it or not, and a message for many costs as much as a message for one.
func (c *custody) dropLater(at *place) {
	if at.number != 0 {
		c.closing = append(c.closing, at.number)
		c.urgent = c.urgent || len(c.closing) >= guardBatch
		*at = place{}
	}
}

// drop lets the guard close one of a process's descriptors at the end of the turn, so that the
// process, or one that it has left its streams to, notices that it is closed.
func (c *custody) drop(at *place) {
	c.urgent = c.urgent || at.number != 0
	c.dropLater(at)
}

func (c *custody) dropAll(p *process) {
	c.dropLater(&p.held[0])
	for i := 1; i < len(p.held); i++ {
		c.drop(&p.held[i])
	}
	for i := range p.kept {
		c.drop(&p.kept[i].at)
	}
	delete(c.missing, p)
}

// flush sends what drop and dropLater have collected.
func (c *custody) flush() {
	c.urgent = false
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
	if len(p.endCommand) > 0 {
		// The next keeper needs the command, also of a process that no guard has.
		r.start = p.record().start
	}
	if err := c.journal.exited(r); err != nil {
		c.logf("process %q: %v", p.id, err) // it is still in memory
	}
	c.dropLater(&p.held[0])
	delete(c.missing, p)
	if len(p.kept) > 0 && !p.inGuard() { // it has ended before it could be given to a guard
		c.missing[p] = struct{}{}
		c.renew()
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
		if p.inGuard() {
			p.held = places{}
			for i := range p.kept {
				p.kept[i].at = place{}
			}
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
		g, err := startGuard(c.machine, c.output, c.lock, c.score)
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
			r.continues(before[p])
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

// guardDied is called when the guard has ended without having been told to. Everything is handed
// over to a new one.
func (c *custody) guardDied(uint32) {
	c.giveUp(errors.New("it has ended; everything is handed over to a new one"))
}

// shutdown ends the guard. Precondition: no process runs.
func (c *custody) shutdown() {
	if c.guard == nil {
		return
	}
	c.loop.ignore(c.guard.pidfd)
	c.guard.end()
	c.guard = nil
	c.journal.guard = identity{}
	if err := c.journal.rewrite(); err != nil {
		c.logf("%v", err)
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

// open says that the process has not ended, or that there is still something to be held for it.
func (p *process) open() bool {
	return p.state == wire.Running || p.state == wire.Exited &&
		(p.streams[0] != nil || p.streams[1] != nil || len(p.kept) > 0)
}

func (p *process) record() *record {
	r := &record{id: p.id, owner: p.owner, kind: p.kind, start: &startRecord{
		note: p.note, process: identity{p.pid, p.ticks}, started: p.started.UnixNano(),
		stdio: p.stdio, log: p.logCfg, held: p.held, endCommand: p.endCommand,
	}}
	for _, k := range p.kept {
		if k.at.number != 0 {
			r.start.kept = append(r.start.kept, keptPlace{k.name, k.at})
		}
	}
	return r
}
