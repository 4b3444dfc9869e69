package server

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"strake/keeper/logwriter"
	"strake/keeper/wire"
)

// ttyTurn is how often a terminal is read before other descriptors have their turn; each read gives
// 4 KiB at most.
const ttyTurn = 16

// drainLimit bounds what is read when a process has ended, in case another one goes on writing:
// more than a pipe or a terminal holds.
const drainLimit = 2 << 20

// addStream begins to read a stream and takes fd over, also when it fails.
func (p *process) addStream(index, fd int) error {
	st := &stream{p: p, index: index, fd: fd}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	if err := st.resume(); err != nil {
		unix.Close(fd)
		return err
	}
	p.streams[index] = st
	return nil
}

// resume watches the stream. A terminal says that it is hung up as long as no process has it open,
// which is not its end: a getty opens it again. So only changes are reported (EPOLLET), and
// everything there is must be read.
func (st *stream) resume() error {
	events := uint32(unix.EPOLLIN)
	if st.p.isTTY() {
		events |= unix.EPOLLET
	}
	st.paused = false
	return st.p.s.watch(st.fd, events, func(uint32) { st.ready() })
}

func (st *stream) ready() {
	if !st.p.isTTY() {
		st.read()
		return
	}
	for range ttyTurn {
		if st.paused || st.fd < 0 || !st.read() {
			return
		}
	}
	st.p.s.rearm(st.fd)
}

// read handles one read and says whether there may be more.
func (st *stream) read() bool {
	s := st.p.s
	buf := s.flight.buffer()
	s.flight.reading(identity{st.p.pid, st.p.ticks}, st.index)
	n, err := unix.Read(st.fd, buf[headroom:])
	if err != nil {
		n = 0
	}
	defer s.flight.landed(n)
	switch {
	case err == unix.EINTR:
		return true
	case err == unix.EAGAIN:
		return false
	case err == unix.EIO && st.p.isTTY() && st.p.state != wire.Exited:
		return false
	case err != nil || n == 0:
		if err != nil && err != unix.EIO {
			s.cfg.Logf("process %q: read its output: %v", st.p.id, err)
		}
		st.end()
		return false
	}
	st.deliver(buf[:headroom+n])
	return true
}

// deliver takes a piece of output, with headroom in front.
func (st *stream) deliver(buf []byte) {
	p := st.p
	if p.log != nil {
		now, stream := time.Now(), logwriter.Stream(st.index)
		p.s.flight.logging(len(buf)-headroom, p.log.Mark(stream), now)
		p.log.Write(stream, buf[headroom:], now)
		p.tellLoss()
	}
	blocked := false
	for _, sub := range slices.Clone(p.subs) { // one that fails removes itself
		if k := sub.sinks[st.index]; k != nil {
			k.deliver(st.index, buf)
			blocked = blocked || k.full()
		}
	}
	if blocked && !st.paused {
		st.paused = true
		p.s.ignore(st.fd)
	}
}

func (p *process) tellLoss() {
	if l, ok := p.log.TakeLoss(); ok {
		e := &wire.LogEvent{ID: p.id, Lost: l.Lines}
		if l.Reason != nil {
			e.Reason = limit(l.Reason.Error())
			p.s.cfg.Logf("process %q: log: %v", p.id, l.Reason)
		}
		p.s.broadcast(e)
	}
}

// unblock resumes what no subscriber holds back any more.
func (p *process) unblock() {
	for _, st := range p.streams {
		if st == nil || !st.paused || slices.ContainsFunc(p.subs, func(sub *subscription) bool {
			k := sub.sinks[st.index]
			return k != nil && k.full()
		}) {
			continue
		}
		if err := st.resume(); err != nil {
			p.s.cfg.Logf("process %q: %v", p.id, err)
			st.end()
		}
	}
}

// drain reads what a process has written before it ended.
func (st *stream) drain() {
	for got := 0; got < drainLimit && !st.paused && st.fd >= 0; got += outputSize {
		if !st.read() {
			return
		}
	}
	st.p.s.rearm(st.fd)
}

// end is the end of a stream.
func (st *stream) end() {
	p := st.p
	p.s.ignore(st.fd)
	unix.Close(st.fd)
	st.fd = -1
	p.streams[st.index] = nil
	if p.isTTY() {
		p.s.custody.dropLater(&p.held[4])
	} else {
		p.s.custody.dropLater(&p.held[2+st.index])
	}
	if p.log != nil {
		p.log.Flush(logwriter.Stream(st.index), time.Now())
		p.tellLoss()
	}
	for _, sub := range slices.Clone(p.subs) {
		if k := sub.sinks[st.index]; k != nil {
			k.end()
		}
	}
	p.tellClosed()
}

// subscribe adds a subscription with descriptors that are taken over, also when it fails.
func (p *process) subscribe(a *wire.Attachment, fds *descriptors) (*subscription, error) {
	p.s.lastSub++
	sub := &subscription{id: p.s.lastSub, framed: a.Framed, overflow: a.Overflow}
	for i, wanted := range [2]bool{a.Stdout, a.Stderr} {
		if !wanted {
			continue
		}
		if a.Same && sub.sinks[0] != nil {
			sub.sinks[i] = sub.sinks[0]
			continue
		}
		k, err := newSink(fds.take())
		if err != nil {
			sub.drop()
			return nil, err
		}
		k.p, k.sub = p, sub
		sub.sinks[i] = k
		if err := p.s.watch(k.fd, 0, k.ready); err != nil {
			sub.drop()
			return nil, err
		}
	}
	p.subs = append(p.subs, sub)
	return sub, nil
}

// begin lets a subscription have output, once the streams that there will be are known: wanted says
// which. What was read before and is not in the log comes first, if pending.
func (p *process) begin(sub *subscription, pending bool, open [2]bool) {
	for i, k := range sub.sinks {
		if k != nil && open[i] {
			k.feeds++
		}
	}
	for i, k := range sub.sinks {
		if k == nil {
			continue
		}
		if pending && p.log != nil {
			if text := p.log.Pending(logwriter.Stream(i)); len(text) > 0 && k.fd >= 0 {
				k.deliver(i, append(make([]byte, headroom), text...))
			}
		}
	}
	for i, k := range sub.sinks {
		if k != nil && k.feeds == 0 && k.fd >= 0 && (i == 0 || k != sub.sinks[0]) &&
			k.waiting() == 0 {
			k.finish()
		}
	}
}

// drop closes a subscription's descriptors without another word.
func (sub *subscription) drop() {
	for i, k := range sub.sinks {
		if k == nil || i == 1 && k == sub.sinks[0] || k.fd < 0 {
			continue
		}
		k.p.s.ignore(k.fd)
		unix.Close(k.fd)
		if k.spill >= 0 {
			unix.Close(k.spill)
		}
		k.fd, k.spill, k.mem = -1, -1, nil
	}
}

// linger ends a subscription's streams; what waits is still delivered. The loop that watches the
// sinks keeps them, until a sink has delivered everything or its reader has gone.
func (sub *subscription) linger() {
	for i, k := range sub.sinks {
		if k == nil || i == 1 && k == sub.sinks[0] || k.fd < 0 {
			continue
		}
		if k.feeds = 0; k.waiting() == 0 {
			k.finish()
		}
	}
}

// sinkEnded removes a subscription when all of it has ended, and tells if that was before the
// streams did.
func (p *process) sinkEnded(sub *subscription) {
	var lost uint64
	failed := false
	for i, k := range sub.sinks {
		switch {
		case k == nil || i == 1 && k == sub.sinks[0]:
		case k.fd >= 0:
			return
		default:
			failed = failed || k.failed
			lost += k.lost
		}
	}
	i := slices.Index(p.subs, sub)
	if i < 0 {
		return
	}
	p.subs = slices.Delete(p.subs, i, i+1)
	if failed && !p.released {
		p.s.broadcast(&wire.DetachedEvent{ID: p.id, Subscription: sub.id, Lost: lost})
	}
}
