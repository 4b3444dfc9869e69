package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// upstream plays name servers by address. A script gets what it needs to answer one connection;
// what it returns is sent, nil is silence.
type upstream struct {
	mu      sync.Mutex
	scripts map[string]func(network string, ask *dns.Msg) []*dns.Msg
	asked   []string // address and network of each question, in order
	ids     []uint16
}

// datagrams is one end of a pipe of which each write is a datagram.
type datagrams struct{ net.Conn }

func (d datagrams) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := d.Read(b)
	return n, d.RemoteAddr(), err
}

func (d datagrams) WriteTo(b []byte, _ net.Addr) (int, error) { return d.Write(b) }

func (u *upstream) dial(ctx context.Context, network, address string) (net.Conn, error) {
	u.mu.Lock()
	script := u.scripts[address]
	u.asked = append(u.asked, address+"/"+network)
	u.mu.Unlock()
	if script == nil {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	if network == "udp" {
		near, far = datagrams{near}, datagrams{far}
	}
	go func() {
		defer far.Close()
		c := &dns.Conn{Conn: far, UDPSize: dns.MaxMsgSize - 1}
		ask, err := c.ReadMsg()
		if err != nil {
			return
		}
		u.mu.Lock()
		u.ids = append(u.ids, ask.Id)
		u.mu.Unlock()
		for _, m := range script(network, ask) {
			if m == nil {
				// Silent until the client gives up.
				_, _ = far.Read(make([]byte, 1))
				return
			}
			raw, err := m.Pack()
			if err != nil {
				panic(err)
			}
			if m == garbage {
				raw = []byte{1, 2, 3}
			}
			if _, err := c.Write(raw); err != nil {
				return
			}
		}
		_, _ = far.Read(make([]byte, 1))
	}()
	return near, nil
}

// garbage is sent as three bytes.
var garbage = new(dns.Msg)

// answerWith answers with one address.
func answerWith(address string) func(string, *dns.Msg) []*dns.Msg {
	return func(_ string, ask *dns.Msg) []*dns.Msg { return []*dns.Msg{answerTo(ask, address)} }
}

func answerTo(ask *dns.Msg, address string) *dns.Msg {
	m := new(dns.Msg).SetReply(ask)
	m.Answer = []dns.RR{&dns.A{
		Hdr: dns.RR_Header{
			Name: ask.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60,
		},
		A: net.ParseIP(address),
	}}
	return m
}

func fail(rcode int) func(string, *dns.Msg) []*dns.Msg {
	return func(_ string, ask *dns.Msg) []*dns.Msg {
		return []*dns.Msg{new(dns.Msg).SetRcode(ask, rcode)}
	}
}

func silent(string, *dns.Msg) []*dns.Msg { return []*dns.Msg{nil} }

// altered answers with a reply that is wrong in one point, and then stays silent.
func altered(change func(*dns.Msg)) func(string, *dns.Msg) []*dns.Msg {
	return func(_ string, ask *dns.Msg) []*dns.Msg {
		m := answerTo(ask, "192.0.2.66")
		change(m)
		return []*dns.Msg{m, nil}
	}
}

// newServer is a Server without sockets: its questions come from answer.
func newServer(u *upstream, servers ...string) *Server {
	var list []netip.AddrPort
	for _, s := range servers {
		list = append(list, netip.MustParseAddrPort(s))
	}
	return &Server{
		cfg: Config{
			Directory: testDirectory(), Upstream: func() []netip.AddrPort { return list },
			Dial: u.dial, Logger: slog.New(slog.DiscardHandler),
		},
		slots: make(chan struct{}, maxForwarded), going: make(chan struct{}),
	}
}

// outcome is a reply in one line.
func outcome(m *dns.Msg) string {
	out := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		out = append(out, rr.(*dns.A).A.String())
	}
	if m.Truncated {
		out = append(out, "truncated")
	}
	return strings.Join(out, " ")
}

const client = "10.1.0.2" // the container web of testDirectory

func question(name string) *dns.Msg { return new(dns.Msg).SetQuestion(name, dns.TypeA) }

// TestForward: what is asked outside, of whom, how long that takes, and what comes of it.
func TestForward(t *testing.T) {
	t.Parallel()
	const a, b = "192.0.2.1:53", "192.0.2.2:53"
	good := answerWith("198.51.100.1")
	truncated := func(network string, ask *dns.Msg) []*dns.Msg {
		m := answerTo(ask, "198.51.100.7")
		if network == "udp" {
			m.Answer, m.Truncated = nil, true
		}
		return []*dns.Msg{m}
	}
	type scripts = map[string]func(string, *dns.Msg) []*dns.Msg
	tests := []struct {
		name    string
		network string
		scripts scripts
		want    string
		took    time.Duration
		asked   string
	}{
		{"answer", "udp", scripts{a: good}, "NOERROR 198.51.100.1", 0, "a"},
		{"answer over a stream", "tcp", scripts{a: good}, "NOERROR 198.51.100.1", 0, "a"},
		{
			"no such name is an answer", "udp", scripts{a: fail(dns.RcodeNameError), b: good},
			"NXDOMAIN", 0, "a",
		},
		{"refused connection", "udp", scripts{b: good}, "NOERROR 198.51.100.1", 0, "a b"},
		{
			"failing server", "udp", scripts{a: fail(dns.RcodeServerFailure), b: good},
			"NOERROR 198.51.100.1", 0, "a b",
		},
		{
			"refusing server", "udp", scripts{a: fail(dns.RcodeRefused), b: good},
			"NOERROR 198.51.100.1", 0, "a b",
		},
		{
			"all fail: the last refusal", "udp",
			scripts{a: fail(dns.RcodeServerFailure), b: fail(dns.RcodeRefused)}, "REFUSED", 0,
			"a b",
		},
		{"no server at all", "udp", nil, "SERVFAIL", 0, "a b"},
		{
			"silent server", "udp", scripts{a: silent, b: good}, "NOERROR 198.51.100.1",
			upstreamTimeout, "a b",
		},
		{
			"silent server over a stream", "tcp", scripts{a: silent, b: good},
			"NOERROR 198.51.100.1", upstreamTimeout, "a b",
		},
		{
			"both silent", "udp", scripts{a: silent, b: silent}, "SERVFAIL", 2 * upstreamTimeout,
			"a b",
		},
		{
			"another identification", "udp",
			scripts{a: altered(func(m *dns.Msg) { m.Id++ }), b: good}, "NOERROR 198.51.100.1",
			upstreamTimeout, "a b",
		},
		{
			"another identification over a stream", "tcp",
			scripts{a: altered(func(m *dns.Msg) { m.Id++ }), b: good}, "NOERROR 198.51.100.1", 0,
			"a b",
		},
		{
			"another question", "udp",
			scripts{a: altered(func(m *dns.Msg) { m.Question[0].Name = "evil.example." }), b: good},
			"NOERROR 198.51.100.1", upstreamTimeout, "a b",
		},
		{
			"another question over a stream", "tcp",
			scripts{a: altered(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }), b: good},
			"NOERROR 198.51.100.1", 0, "a b",
		},
		{
			"no answer but a question", "udp",
			scripts{a: altered(func(m *dns.Msg) { m.Response = false }), b: good},
			"NOERROR 198.51.100.1", upstreamTimeout, "a b",
		},
		{
			"answers without a question", "udp",
			scripts{a: altered(func(m *dns.Msg) { m.Question = nil }), b: good},
			"NOERROR 198.51.100.1", upstreamTimeout, "a b",
		},
		{
			"forged answers before the true one", "udp",
			scripts{a: func(_ string, ask *dns.Msg) []*dns.Msg {
				forged := answerTo(ask, "192.0.2.66")
				forged.Id++
				other := answerTo(ask, "192.0.2.66")
				other.Question[0].Name = "evil.example."
				return []*dns.Msg{forged, garbage, other, answerTo(ask, "198.51.100.1")}
			}},
			"NOERROR 198.51.100.1", 0, "a",
		},
		{
			"a name in other capitals is the same", "udp",
			scripts{a: altered(func(m *dns.Msg) { m.Question[0].Name = "Example.NET." })},
			"NOERROR 192.0.2.66", 0, "a",
		},
		{
			"a refusal without the question", "udp",
			scripts{a: altered(func(m *dns.Msg) {
				m.Rcode, m.Question, m.Answer = dns.RcodeFormatError, nil, nil
			})},
			"FORMERR", 0, "a",
		},
		{
			"truncated answers pass through", "udp", scripts{a: truncated, b: good},
			"NOERROR truncated", 0, "a",
		},
		{
			"and are whole over a stream", "tcp", scripts{a: truncated, b: good},
			"NOERROR 198.51.100.7", 0, "a",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				u := &upstream{scripts: tt.scripts}
				s := newServer(u, a, b)
				begin := time.Now()
				req := question("example.net.")
				got := s.answer(netip.MustParseAddr(client), tt.network, req)
				if outcome(got) != tt.want || got.Id != req.Id {
					t.Errorf("got %q, ID %d; want %q, ID %d", outcome(got), got.Id, tt.want, req.Id)
				}
				if took := time.Since(begin); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				asked := strings.NewReplacer(
					a+"/"+tt.network, "a", b+"/"+tt.network, "b",
				).Replace(strings.Join(u.asked, " "))
				if asked != tt.asked {
					t.Errorf("asked %q, want %q", asked, tt.asked)
				}
				synctest.Wait()
			})
		})
	}
}

// TestIdentification: the identification of a question that is sent on is not the client's.
func TestIdentification(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{scripts: map[string]func(string, *dns.Msg) []*dns.Msg{
			"192.0.2.1:53": answerWith("198.51.100.1"),
		}}
		s := newServer(u, "192.0.2.1:53")
		seen := map[uint16]bool{}
		for range 8 {
			req := question("example.net.")
			req.Id = 4711
			s.answer(netip.MustParseAddr(client), "udp", req)
		}
		for _, id := range u.ids {
			seen[id] = true
		}
		if len(seen) < 4 {
			t.Errorf("identifications of eight questions: got %v, want fresh ones", u.ids)
		}
		synctest.Wait()
	})
}

// TestNotForwarded: what is answered without asking outside.
func TestNotForwarded(t *testing.T) {
	t.Parallel()
	u := &upstream{}
	s := newServer(u, "192.0.2.1:53")
	status := question("web2.")
	status.Opcode = dns.OpcodeStatus
	two := question("web2.")
	two.Question = append(two.Question, two.Question[0])
	tests := []struct {
		name, from string
		req        *dns.Msg
		want       string
	}{
		{"known name", client, question("web2."), "NOERROR 10.1.0.3"},
		{"stranger", "10.9.9.9", question("example.net."), "REFUSED"},
		{"outside from an internal network", "10.3.0.6", question("example.net."), "SERVFAIL"},
		{"other operation", client, status, "NOTIMP"},
		{"two questions", client, two, "NOTIMP"},
	}
	for _, tt := range tests {
		got := s.answer(netip.MustParseAddr(tt.from), "udp", tt.req)
		if outcome(got) != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, outcome(got), tt.want)
		}
	}
	if len(u.asked) > 0 {
		t.Errorf("asked %v, want nothing", u.asked)
	}
}

// TestOwnServers: a container's own servers are asked instead of the host's.
func TestOwnServers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{scripts: map[string]func(string, *dns.Msg) []*dns.Msg{
			"192.0.2.1:53": answerWith("198.51.100.1"), "192.0.2.7:53": answerWith("198.51.100.2"),
		}}
		s := newServer(u, "192.0.2.1:53")
		got := s.answer(netip.MustParseAddr("10.2.0.7"), "udp", question("example.net."))
		if outcome(got) != "NOERROR 198.51.100.2" {
			t.Errorf("got %q", outcome(got))
		}
		synctest.Wait()
	})
}

// TestTooMany: what is outside at the same time is bounded, and there is room again afterwards.
func TestTooMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{scripts: map[string]func(string, *dns.Msg) []*dns.Msg{
			"192.0.2.1:53": silent,
		}}
		s := newServer(u, "192.0.2.1:53")
		var all sync.WaitGroup
		for range maxForwarded {
			all.Go(func() {
				s.answer(netip.MustParseAddr(client), "udp", question("example.net."))
			})
		}
		synctest.Wait()
		begin := time.Now()
		got := s.answer(netip.MustParseAddr(client), "udp", question("example.net."))
		if outcome(got) != "SERVFAIL" || time.Since(begin) != 0 || len(u.asked) != maxForwarded {
			t.Errorf("got %q after %v, %d asked", outcome(got), time.Since(begin), len(u.asked))
		}
		all.Wait()
		u.mu.Lock()
		u.scripts["192.0.2.1:53"] = answerWith("198.51.100.1")
		u.mu.Unlock()
		got = s.answer(netip.MustParseAddr(client), "udp", question("example.net."))
		if outcome(got) != "NOERROR 198.51.100.1" {
			t.Errorf("afterwards: got %q", outcome(got))
		}
		synctest.Wait()
	})
}

// TestClose: a question that waits for a silent server does not keep Close waiting.
func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{scripts: map[string]func(string, *dns.Msg) []*dns.Msg{
			"192.0.2.1:53": silent, "192.0.2.2:53": silent,
		}}
		s := newServer(u, "192.0.2.1:53", "192.0.2.2:53")
		begin := time.Now()
		done := make(chan *dns.Msg)
		go func() {
			done <- s.answer(netip.MustParseAddr(client), "udp", question("example.net."))
		}()
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if got := outcome(<-done); got != "SERVFAIL" || time.Since(begin) != 0 {
			t.Errorf("got %q after %v, want a failure at once", got, time.Since(begin))
		}
		if len(u.asked) != 1 {
			t.Errorf("asked %v, want the second server left alone", u.asked)
		}
		synctest.Wait()
	})
}

// TestSockets: over the loopback device, by datagram and by stream. An answer that is too long for
// a datagram is marked, and whole over a stream.
func TestSockets(t *testing.T) {
	t.Parallel()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := NewDirectory()
	d.Add(Entry{
		ID: "me", Container: "me", Network: "N", NetworkName: "n", Names: []string{"me"},
		Addrs: addrs("127.0.0.1"),
	})
	for i := range 60 {
		d.Add(Entry{
			ID: fmt.Sprint(i), Container: fmt.Sprint(i), Network: "N", NetworkName: "n",
			Names: []string{"many"}, Addrs: addrs(fmt.Sprintf("10.0.0.%d", i+1)),
		})
	}
	s := Serve(Config{
		Directory: d, Upstream: func() []netip.AddrPort { return nil },
		Dial: new(net.Dialer).DialContext, Logger: slog.New(slog.DiscardHandler),
	}, pc, l)
	tests := []struct {
		network, name string
		size          uint16 // EDNS; 0 for none
		answers       int
		truncated     bool
	}{
		{"udp", "me.", 0, 1, false},
		{"tcp", "me.", 0, 1, false},
		{"udp", "many.", 0, 0, true},
		{"udp", "many.", 4096, 60, false},
		{"tcp", "many.", 0, 60, false},
	}
	for _, tt := range tests {
		at := pc.LocalAddr().String()
		if tt.network == "tcp" {
			at = l.Addr().String()
		}
		req := question(tt.name)
		if tt.size > 0 {
			req.SetEdns0(tt.size, false)
		}
		c := &dns.Client{Net: tt.network, Timeout: 10 * time.Second}
		got, _, err := c.Exchange(req, at)
		if err != nil {
			t.Errorf("%s %s: %v", tt.network, tt.name, err)
			continue
		}
		if got.Truncated != tt.truncated || tt.answers > 0 && len(got.Answer) != tt.answers ||
			got.Rcode != dns.RcodeSuccess {
			t.Errorf(
				"%s %s: got %d answers, truncated %v; want %d, %v", tt.network, tt.name,
				len(got.Answer), got.Truncated, tt.answers, tt.truncated,
			)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if c, err := net.Dial("tcp4", l.Addr().String()); err == nil {
		c.Close()
		t.Error("the stream socket is open after Close")
	}
}
