package userland

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// ping sends echo requests (ping(8): -c, -i, -W, -s, -q, -4, -6) over an unprivileged ICMP socket
// (icmp(7), ping_group_range) or, where that is not allowed, a raw one. Status 1 when nothing
// answered.
func ping(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"c:i:W:s:qw:46", "count=c interval=i timeout=W size=s quiet=q deadline=w",
	)
	if !ok {
		return status
	}
	if len(names) != 1 {
		return c.usagef("%d hosts given, want 1", len(names))
	}
	p := &pinger{
		c: c, size: 56, count: -1, interval: time.Second, wait: 10 * time.Second, quiet: o.has('q'),
		host: names[0],
	}
	for _, s := range o.seen {
		var err error
		switch s.name {
		case 'c':
			if p.count, err = parseCount(s.value); err == nil && p.count == 0 {
				err = errors.New("0 is not allowed")
			}
		case 's':
			if p.size, err = parseCount(s.value); err == nil && p.size > 65507-8 {
				err = fmt.Errorf("%d is larger than 65499", p.size)
			}
		case 'i':
			if p.interval, err = parseSeconds(s.value); err == nil &&
				p.interval < 2*time.Millisecond {
				err = errors.New("less than 0.002 s")
			}
		case 'W':
			p.wait, err = parseSeconds(s.value)
		case 'w':
			p.deadline, err = parseSeconds(s.value)
		}
		if err != nil {
			return c.usagef("option -%c: %v", s.name, err)
		}
	}
	network := "ip"
	if k := o.last("46"); k != 0 {
		network += string(k)
	}
	ips, err := net.DefaultResolver.LookupIP(ctx, network, names[0])
	if err != nil {
		return c.errorf("%v", lookupReason(names[0], err))
	}
	p.to = ips[0]
	if err := p.open(); err != nil {
		return c.errorf(
			"%s: %s (unprivileged ICMP is not allowed to this group, raw sockets need CAP_NET_RAW)",
			names[0], reason(err),
		)
	}
	defer p.conn.Close()
	// An interrupt ends the loop, so that the figures appear.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	return p.run(ctx)
}

// lookupReason is what the resolver said, without what was asked.
func lookupReason(host string, err error) error {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return fmt.Errorf("%s: %s", host, dns.Err)
	}
	return fmt.Errorf("%s: %s", host, reason(err))
}

type pinger struct {
	c                        *Call
	host                     string
	to                       net.IP
	conn                     *icmp.PacketConn
	raw                      bool
	id                       int
	size, count              int64
	interval, wait, deadline time.Duration
	quiet                    bool

	sent, received   int64
	least, most, sum time.Duration
}

func (p *pinger) v4() bool { return p.to.To4() != nil }

func (p *pinger) open() (err error) {
	kinds := []string{"udp6", "ip6:ipv6-icmp"}
	any := "::"
	if p.v4() {
		kinds, any = []string{"udp4", "ip4:icmp"}, "0.0.0.0"
	}
	if p.conn, err = icmp.ListenPacket(kinds[0], any); err == nil {
		// The kernel chooses the identifier and shows it as the port.
		if a, ok := p.conn.LocalAddr().(*net.UDPAddr); ok {
			p.id = a.Port
		}
		return nil
	}
	p.raw = true
	p.id = os.Getpid() & 0xffff
	var rawErr error
	if p.conn, rawErr = icmp.ListenPacket(kinds[1], any); rawErr != nil {
		return rawErr
	}
	return nil
}

func (p *pinger) addr() net.Addr {
	if p.raw {
		return &net.IPAddr{IP: p.to}
	}
	return &net.UDPAddr{IP: p.to}
}

func (p *pinger) send(seq int, at time.Time) error {
	body := make([]byte, max(p.size, 8))
	binary.BigEndian.PutUint64(body, uint64(at.UnixNano()))
	m := icmp.Message{
		Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: p.id, Seq: seq & 0xffff, Data: body[:p.size]},
	}
	if !p.v4() {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	_, err = p.conn.WriteTo(b, p.addr())
	return err
}

type pong struct {
	seq, size int
	from      string
	at        time.Time
	fault     string
}

// listen passes on answers until the socket closes.
func (p *pinger) listen(out chan<- pong) {
	defer close(out)
	buf := make([]byte, 64<<10)
	protocol := 58
	if p.v4() {
		protocol = 1
	}
	for {
		n, from, err := p.conn.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
				continue
			}
			out <- pong{fault: reason(err)}
			return
		}
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil {
			continue
		}
		echo, ok := m.Body.(*icmp.Echo)
		if !ok || m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply || p.raw &&
			echo.ID != p.id {
			continue
		}
		host, _, err := net.SplitHostPort(from.String())
		if err != nil {
			host = from.String()
		}
		out <- pong{seq: echo.Seq, size: n, from: host, at: time.Now()}
	}
}

func (p *pinger) run(ctx context.Context) int {
	fmt.Fprintf(p.c.Stdout, "PING %s (%s): %d data bytes\n", p.host, p.to, p.size)
	answers := make(chan pong)
	go p.listen(answers)
	defer func() {
		p.conn.Close()
		for range answers { // until the listener is gone
		}
	}()
	pending := map[int]time.Time{}
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	var last, over <-chan time.Time
	if p.deadline > 0 {
		over = time.After(p.deadline)
	}
	send := func() bool {
		now := time.Now()
		if err := p.send(int(p.sent), now); err != nil {
			p.c.errorf("%s: %s", p.host, reason(err))
			return false
		}
		pending[int(p.sent)&0xffff] = now
		p.sent++
		if p.sent == p.count {
			tick.Stop()
			last = time.After(p.wait)
		}
		return true
	}
	going := send()
	for going {
		select {
		case <-ctx.Done():
			going = false
		case <-over:
			going = false
		case <-last:
			going = false
		case <-tick.C:
			going = send()
		case a, open := <-answers:
			if !open || a.fault != "" {
				p.c.errorf("%s: %s", p.host, a.fault)
				going = false
				break
			}
			sent, known := pending[a.seq]
			if !known {
				break // a duplicate, or not ours
			}
			delete(pending, a.seq)
			p.note(a, a.at.Sub(sent))
			going = p.count < 0 || p.received < p.count
		}
	}
	return p.report()
}

func (p *pinger) note(a pong, took time.Duration) {
	p.received++
	if p.received == 1 || took < p.least {
		p.least = took
	}
	p.most = max(p.most, took)
	p.sum += took
	if !p.quiet {
		fmt.Fprintf(
			p.c.Stdout, "%d bytes from %s: seq=%d time=%.3f ms\n", a.size, a.from, a.seq, ms(took),
		)
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (p *pinger) report() int {
	lost := int64(0)
	if p.sent > 0 {
		lost = (p.sent - p.received) * 100 / p.sent
	}
	fmt.Fprintf(
		p.c.Stdout,
		"\n--- %s ping statistics ---\n%d packets transmitted, %d packets received, %d%% packet "+
			"loss\n",
		p.host, p.sent, p.received, lost,
	)
	if p.received == 0 {
		return exitFault
	}
	fmt.Fprintf(
		p.c.Stdout, "round-trip min/avg/max = %.3f/%.3f/%.3f ms\n", ms(p.least),
		ms(p.sum/time.Duration(p.received)), ms(p.most),
	)
	return exitOK
}
