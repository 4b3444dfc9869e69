package network

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// relay accepts TCP connections on a socket and copies bytes between each and a connection to the
// container. It serves [::1] (see the package comment).
type relay struct {
	l    net.Listener
	done sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool // guarded by mu
	closed bool              // guarded by mu
}

// startRelay takes over the listening socket fd.
func startRelay(fd int, dial func() (net.Conn, error)) (*relay, error) {
	f := os.NewFile(uintptr(fd), "published port")
	l, err := net.FileListener(f) // duplicates fd
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	r := &relay{l: l, conns: map[net.Conn]bool{}}
	r.done.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				// Out of descriptors: give other connections time to end.
				time.Sleep(10 * time.Millisecond)
				continue
			}
			if !r.track(c) {
				c.Close()
				return
			}
			r.done.Go(func() {
				defer r.drop(c)
				r.serve(c, dial)
			})
		}
	})
	return r, nil
}

func (r *relay) track(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.conns[c] = true
	return true
}

func (r *relay) drop(c net.Conn) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
	c.Close()
}

func (r *relay) serve(c net.Conn, dial func() (net.Conn, error)) {
	to, err := dial()
	if err != nil {
		if t, ok := c.(*net.TCPConn); ok {
			t.SetLinger(0) // a reset: what the client would have got from the container
		}
		return
	}
	if !r.track(to) {
		to.Close()
		return
	}
	defer r.drop(to)
	var both sync.WaitGroup
	pipe := func(dst, src net.Conn) {
		// splice(2); an error on either side ends this direction, which is all there is to do about
		// it
		io.Copy(dst, src)
		if t, ok := dst.(*net.TCPConn); ok {
			t.CloseWrite()
		}
	}
	both.Go(func() { pipe(to, c) })
	both.Go(func() { pipe(c, to) })
	both.Wait()
}

func (r *relay) close() error {
	err := r.l.Close()
	r.mu.Lock()
	r.closed = true
	for c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.done.Wait()
	return err
}
