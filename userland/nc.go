package userland

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// nc connects standard input and output to a TCP or UDP peer, or waits for one (nc(1): -l, -p, -k,
// -u, -w, -z, -v, -s, -4, -6, -n). When standard input ends, the sending side is shut down and what
// the peer still sends is shown.
func nc(ctx context.Context, c *Call) int {
	o, words, status, ok := c.options(
		"lp:kuw:zvs:46n",
		"listen=l local-port=p keep-open=k udp=u wait=w zero=z verbose=v source=s",
	)
	if !ok {
		return status
	}
	n := &netcat{c: c, verbose: o.has('v'), network: "tcp"}
	if o.has('u') {
		n.network = "udp"
	}
	if k := o.last("46"); k != 0 {
		n.network += string(k)
	}
	if o.has('w') {
		d, err := parseSeconds(o.value('w', ""))
		if err != nil {
			return c.usagef("option -w: %v", err)
		}
		n.wait = d
	}
	if o.has('l') {
		port := o.value('p', "")
		host := o.value('s', "")
		switch {
		case len(words) == 1 && port == "":
			port = words[0]
		case len(words) == 2 && port == "":
			host, port = words[0], words[1]
		case len(words) > 0:
			return c.usagef("extra operand %q", words[len(words)-1])
		}
		if err := portNumber(port); err != nil {
			return c.usagef("%v", err)
		}
		if err := n.listen(ctx, net.JoinHostPort(host, port), o.has('k')); err != nil {
			return c.errorf("%v", netReason(err))
		}
		return exitOK
	}
	if len(words) != 2 {
		return c.usagef("a host and a port are needed")
	}
	if err := portNumber(words[1]); err != nil {
		return c.usagef("%v", err)
	}
	if err := n.connect(ctx, net.JoinHostPort(words[0], words[1]), o); err != nil {
		return c.errorf("%v", netReason(err))
	}
	return exitOK
}

func portNumber(s string) error {
	if n, err := strconv.Atoi(s); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("port %q is no number from 0 to 65535", s)
	}
	return nil
}

type netcat struct {
	c       *Call
	network string
	wait    time.Duration // without any byte; 0: for ever
	verbose bool
}

func (n *netcat) say(format string, args ...any) {
	if n.verbose {
		n.c.errorf(format, args...)
	}
}

func (n *netcat) connect(ctx context.Context, addr string, o options) error {
	d := net.Dialer{Timeout: n.wait}
	if o.has('s') || o.has('p') {
		local := net.JoinHostPort(o.value('s', ""), o.value('p', "0"))
		var err error
		if n.network[:3] == "udp" {
			d.LocalAddr, err = net.ResolveUDPAddr(n.network, local)
		} else {
			d.LocalAddr, err = net.ResolveTCPAddr(n.network, local)
		}
		if err != nil {
			return err
		}
	}
	conn, err := d.DialContext(ctx, n.network, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	n.say("%s: open", conn.RemoteAddr())
	if o.has('z') {
		return nil
	}
	return n.relay(ctx, conn)
}

func (n *netcat) listen(ctx context.Context, addr string, again bool) error {
	if n.network[:3] == "udp" {
		return n.listenUDP(ctx, addr)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, n.network, addr)
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	n.say("%s: listening", l.Addr())
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		if !again {
			l.Close()
		}
		n.say("%s: connected", conn.RemoteAddr())
		err = n.relay(ctx, conn)
		conn.Close()
		if !again {
			return err
		}
		if err != nil {
			n.say("%v", netReason(err))
		}
	}
}

// listenUDP takes the first sender as the peer.
func (n *netcat) listenUDP(ctx context.Context, addr string) error {
	a, err := net.ResolveUDPAddr(n.network, addr)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP(n.network, a)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	n.say("%s: listening", conn.LocalAddr())
	buf := make([]byte, 64<<10)
	k, peer, err := conn.ReadFromUDP(buf)
	if err != nil {
		return err
	}
	if _, err := n.c.Stdout.Write(buf[:k]); err != nil {
		return err
	}
	return n.relay(ctx, udpPeer{conn, peer})
}

// udpPeer is an unconnected socket that talks to one peer.
type udpPeer struct {
	*net.UDPConn
	peer *net.UDPAddr
}

func (u udpPeer) Write(p []byte) (int, error) { return u.WriteToUDP(p, u.peer) }

// relay ends when the peer has sent everything and standard input has nothing ready. The goroutine
// that reads standard input cannot be interrupted and ends with the process, or with the pipe
// behind it: it holds nothing else.
func (n *netcat) relay(ctx context.Context, conn net.Conn) error {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	timed := net.Conn(conn)
	if n.wait > 0 {
		timed = timedConn{conn, n.wait, func() bool { return false }}
	}
	sent := make(chan error, 1)
	var given atomic.Int64 // bytes that standard input gave
	go func() {
		_, err := io.Copy(conn, countingReader{n.c.Stdin, &given})
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			err = errors.Join(err, half.CloseWrite())
		} else if n.wait == 0 {
			conn.SetReadDeadline(time.Now()) // UDP has no end: without -w, ours is everybody's
		}
		sent <- err
	}()
	_, err := io.Copy(n.c.Stdout, timed)
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		err = nil
	}
	// The peer has said everything but may still listen: what standard input has is sent before
	// this ends, but not what it may have one day.
	for before := int64(-1); ; before = given.Load() {
		if err != nil || ctx.Err() != nil || before == given.Load() {
			return err
		}
		select {
		case serr := <-sent:
			// A peer that closed first makes writing fail; what counts is what was received.
			if n.network[:3] == "udp" {
				err = serr
			}
			return err
		case <-time.After(inputIdle):
		}
	}
}

// inputIdle is how long standard input may give nothing before a connection whose peer has finished
// is closed.
const inputIdle = 100 * time.Millisecond

type countingReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// nslookup asks for a host's addresses, or an address's names (nslookup(1)), the configured name
// servers or the one given.
func nslookup(ctx context.Context, c *Call) int {
	_, words, status, ok := c.options("", "")
	if !ok {
		return status
	}
	if len(words) < 1 || len(words) > 2 {
		return c.usagef("a name and perhaps a server are needed")
	}
	res := &net.Resolver{PreferGo: true}
	server := "as configured"
	if len(words) == 2 {
		server = words[1]
		if _, _, err := net.SplitHostPort(server); err != nil {
			server = net.JoinHostPort(server, "53")
		}
		res.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, server)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	fmt.Fprintf(c.Stdout, "Server:  %s\n\n", server)
	if net.ParseIP(words[0]) != nil {
		names, err := res.LookupAddr(ctx, words[0])
		if err != nil {
			return c.errorf("%v", lookupReason(words[0], err))
		}
		for _, n := range names {
			fmt.Fprintf(c.Stdout, "%s  name = %s\n", words[0], n)
		}
		return exitOK
	}
	ips, err := res.LookupIP(ctx, "ip", words[0])
	if err != nil {
		return c.errorf("%v", lookupReason(words[0], err))
	}
	for _, a := range ips {
		fmt.Fprintf(c.Stdout, "Name:    %s\nAddress: %s\n", words[0], a)
	}
	return exitOK
}
