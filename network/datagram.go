package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	// maxSessions bounds the senders that a datagram relay serves at once. Datagrams of further
	// senders are dropped.
	maxSessions = 1024
	// sessionIdle is how long a sender's answers find back after its last datagram; connection
	// tracking of established UDP has about as much (nf_conntrack_udp_timeout_stream).
	sessionIdle = 2 * time.Minute
)

// datagramRelay does for UDP what relay does for TCP: datagrams to [::1] go to the container from a
// socket of their sender's own, answers go back.
type datagramRelay struct {
	pc   net.PacketConn
	dial func() (net.Conn, error)
	done sync.WaitGroup

	mu       sync.Mutex
	sessions map[netip.AddrPort]net.Conn // guarded by mu; nil once closed
}

// startDatagramRelay takes over the bound socket fd.
func startDatagramRelay(fd int, dial func() (net.Conn, error)) (*datagramRelay, error) {
	f := os.NewFile(uintptr(fd), "published port")
	pc, err := net.FilePacketConn(f) // duplicates fd
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	r := &datagramRelay{pc: pc, dial: dial, sessions: map[netip.AddrPort]net.Conn{}}
	r.done.Go(r.receive)
	return r, nil
}

func (r *datagramRelay) receive() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := r.pc.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an answer that could not be delivered is reported here (udp(7))
		}
		if c := r.session(from.(*net.UDPAddr).AddrPort()); c != nil {
			// A datagram that cannot be sent is dropped. The container's refusal does not reach the
			// sender, as through a router that drops it.
			_ = c.SetDeadline(time.Now().Add(sessionIdle))
			_, _ = c.Write(buf[:n])
		}
	}
}

// session finds or makes the socket of a sender; nil when there cannot be one.
func (r *datagramRelay) session(from netip.AddrPort) net.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.sessions[from]; c != nil {
		return c
	}
	if r.sessions == nil || len(r.sessions) >= maxSessions {
		return nil
	}
	c, err := r.dial()
	if err != nil {
		return nil
	}
	r.sessions[from] = c
	r.done.Go(func() { r.answer(from, c) })
	return c
}

// answer carries the container's datagrams back until the session has been idle for long enough.
func (r *datagramRelay) answer(from netip.AddrPort, c net.Conn) {
	defer func() {
		r.mu.Lock()
		delete(r.sessions, from)
		r.mu.Unlock()
		c.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			return // no program listens in the container; the sender's next datagram tries again
		}
		_ = c.SetDeadline(time.Now().Add(sessionIdle))
		_, _ = r.pc.WriteTo(buf[:n], net.UDPAddrFromAddrPort(from))
	}
}

func (r *datagramRelay) close() error {
	r.mu.Lock()
	sessions := r.sessions
	r.sessions = nil
	for _, c := range sessions {
		c.Close()
	}
	r.mu.Unlock()
	err := r.pc.Close()
	r.done.Wait()
	return err
}
