package server

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"strake/keeper/wire"
)

// maxQueue is how many messages may wait for a client before it is given up.
const maxQueue = 16 << 10

// maxConns bounds the connections; an engine needs one or two.
const maxConns = 64

// conn is a client's connection.
type conn struct {
	s      *server
	fd     int
	events bool
	queue  []queued // messages that the socket has no room for; requests are not read meanwhile
	closed bool
}

type queued struct {
	data []byte
	fds  []int // duplicates
}

// ticket is where an answer goes. The connection may be gone by then; an answer to the zero ticket
// is not sent.
type ticket struct {
	c       *conn
	request uint32
}

func (s *server) accept(uint32) {
	fd, _, err := unix.Accept4(s.cfg.Listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		if err != unix.EAGAIN && err != unix.EINTR && err != unix.ECONNABORTED {
			s.cfg.Logf("accept: %v", err)
		}
		return
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || cred.Uid != 0 && int(cred.Uid) != os.Geteuid() || len(s.conns) >= maxConns {
		s.cfg.Logf(
			"connection refused: credentials %v (%v), %d connections", cred, err, len(s.conns),
		)
		unix.Close(fd)
		return
	}
	s.addConn(&conn{s: s, fd: fd})
}

func (s *server) addConn(c *conn) {
	if err := s.watch(c.fd, unix.EPOLLIN, c.ready); err != nil {
		s.cfg.Logf("connection: %v", err)
		unix.Close(c.fd)
		return
	}
	s.conns[c.fd] = c
}

func (c *conn) close() {
	if c.closed {
		return
	}
	c.closed = true
	c.s.ignore(c.fd)
	unix.Close(c.fd)
	delete(c.s.conns, c.fd)
	delete(c.s.stalled, c)
	for _, q := range c.queue {
		closeAll(q.fds)
	}
	c.queue = nil
}

func (c *conn) ready(events uint32) {
	if len(c.queue) > 0 {
		if events&unix.EPOLLERR != 0 || events&unix.EPOLLHUP != 0 {
			c.close()
			return
		}
		c.flush()
	}
	for range 32 { // then other descriptors have their turn
		if c.closed || len(c.queue) > 0 || !c.receive() {
			return
		}
	}
}

// receive handles one packet and says whether there may be more.
func (c *conn) receive() bool {
	s := c.s
	n, oobn, flags, _, err := unix.Recvmsg(
		c.fd, s.packet, s.oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC,
	)
	switch {
	case err == unix.EINTR:
		return true
	case err == unix.EAGAIN:
		return false
	case err != nil:
		c.close()
		return false
	}
	fds := received(s.oob[:oobn])
	defer func() { closeAll(fds) }()
	if n == 0 {
		c.close()
		return false
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		s.cfg.Logf(
			"connection closed: packet of more than %d bytes or %d descriptors", wire.MaxMessage,
			wire.MaxFDs,
		)
		c.close()
		return false
	}
	request, body, err := wire.Decode(s.packet[:n])
	if err != nil || request == 0 {
		s.cfg.Logf("connection closed: request %d: %v", request, err)
		c.close()
		return false
	}
	s.handle(ticket{c, request}, body, (*descriptors)(&fds))
	return true
}

// received takes the descriptors out of control messages.
func received(oob []byte) []int {
	if len(oob) == 0 {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// descriptors are those that came with a request. What is not taken is closed.
type descriptors []int

func (d *descriptors) take() int {
	fd := (*d)[0]
	*d = (*d)[1:]
	return fd
}

// send sends a message with duplicates of fds. A client that does not read for long is given up.
func (c *conn) send(request uint32, b wire.Body, fds []int) {
	if c.closed {
		return
	}
	data, err := wire.Encode(nil, request, b)
	if err != nil {
		c.s.cfg.Logf("message of type %d: %v", b.Type(), err)
		c.close()
		return
	}
	if len(c.queue) == 0 {
		switch err := transmit(c.fd, data, fds); {
		case err == nil:
			return
		case !transient(err):
			c.close()
			return
		}
	}
	if len(c.queue) >= maxQueue {
		c.s.cfg.Logf("connection closed: %d messages wait for it", len(c.queue))
		c.close()
		return
	}
	q := queued{data: data}
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(q.fds)
			c.s.cfg.Logf("connection closed: duplicate a descriptor: %v", err)
			c.close()
			return
		}
		q.fds = append(q.fds, dup)
	}
	c.queue = append(c.queue, q)
	c.stall()
}

// stall waits for room: for the socket's, or, when there are too many descriptors in flight, which
// nothing tells of, for the next tick.
func (c *conn) stall() {
	c.s.watch(c.fd, unix.EPOLLOUT|unix.EPOLLET, c.ready)
	c.s.stalled[c] = struct{}{}
}

func transmit(fd int, data []byte, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for {
		_, err := unix.SendmsgN(fd, data, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

func transient(err error) bool {
	return err == unix.EAGAIN || err == unix.ENOBUFS || err == unix.ENOMEM ||
		err == unix.ETOOMANYREFS
}

func (c *conn) flush() {
	if c.closed {
		return
	}
	for len(c.queue) > 0 {
		q := c.queue[0]
		if err := transmit(c.fd, q.data, q.fds); err != nil {
			if transient(err) {
				c.s.stalled[c] = struct{}{}
			} else {
				c.close()
			}
			return
		}
		closeAll(q.fds)
		c.queue = c.queue[1:]
	}
	c.queue = nil
	c.s.watch(c.fd, unix.EPOLLIN, c.ready)
}

// finish sends everything that waits, as long as the client takes it within limit.
func (c *conn) finish(limit time.Duration) {
	for deadline := time.Now().Add(limit); !c.closed && len(c.queue) > 0; c.flush() {
		p := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}
		rest := time.Until(deadline)
		if rest <= 0 {
			return
		}
		if _, err := unix.Poll(p, int(rest/time.Millisecond)+1); err != nil && err != unix.EINTR {
			return
		}
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// hello answers the first request of a connection.
func (c *conn) hello(t ticket, m *wire.Hello) {
	s := c.s
	s.reply(
		t, &wire.Welcome{Pid: unix.Getpid(), Started: s.started.UnixNano(), Upgrades: s.upgrades},
	)
	if !m.Events || c.events {
		return
	}
	c.events = true
	for _, p := range s.procs {
		if p.state != wire.Exited {
			continue
		}
		c.send(0, &wire.ExitedEvent{ID: p.id, Owner: p.owner, Kind: p.kind, Exit: p.exit}, nil)
		if p.streamsClosed() {
			c.send(0, &wire.StreamsClosedEvent{ID: p.id}, nil)
		}
	}
}

// list sends every process that has been announced.
func (c *conn) list(t ticket) {
	s := c.s
	for _, p := range s.procs {
		if p.aborted || p.failure != nil {
			continue
		}
		m, fds := p.describe()
		m.More = true
		c.send(t.request, m, fds)
	}
	s.reply(t, &wire.Empty{T: wire.TypeOK})
}
