package resolver

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Limits of what is asked outside.
const (
	// upstreamTimeout is how long one server may take; clients give up after about five seconds
	// (resolv.conf(5), timeout).
	upstreamTimeout = 2 * time.Second
	// maxForwarded questions are outside at the same time; more are answered "server failure".
	maxForwarded = 1024
)

// Config is what a Server works with.
type Config struct {
	Directory *Directory
	// Upstream returns the host's name servers, in order of preference. It is called for every
	// question that is sent on.
	Upstream func() []netip.AddrPort
	// Dial connects to a server, from where the host's name servers can be reached. network is
	// "udp" or "tcp".
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Logger *slog.Logger
}

// Server serves questions on sockets that its caller made.
type Server struct {
	cfg     Config
	slots   chan struct{}
	servers []*dns.Server
	done    sync.WaitGroup
	// going is closed by Close, so that no question waits on.
	going chan struct{}
	once  sync.Once
}

// Serve starts to serve on a datagram and a stream socket, which now belong to the Server.
func Serve(cfg Config, pc net.PacketConn, l net.Listener) *Server {
	s := &Server{cfg: cfg, slots: make(chan struct{}, maxForwarded), going: make(chan struct{})}
	s.servers = []*dns.Server{
		{PacketConn: pc, Handler: s, UDPSize: dns.MinMsgSize * 8}, {Listener: l, Handler: s},
	}
	for _, srv := range s.servers {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		s.done.Go(func() {
			if err := srv.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
				cfg.Logger.Warn("name server", "error", err)
			}
		})
		<-started
	}
	return s
}

// Close stops serving and waits for the questions under way. Only the first call does anything.
func (s *Server) Close() error {
	var errs []error
	s.once.Do(func() {
		close(s.going)
		for _, srv := range s.servers {
			errs = append(errs, srv.ShutdownContext(context.Background()))
		}
		s.done.Wait()
	})
	return errors.Join(errs...)
}

// ServeDNS answers one question (dns.Handler).
func (s *Server) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	var from netip.Addr
	if ap, err := netip.ParseAddrPort(w.RemoteAddr().String()); err == nil {
		from = ap.Addr()
	}
	reply := s.answer(from, w.LocalAddr().Network(), req)
	if reply == nil {
		return
	}
	if w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if opt := req.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		reply.Truncate(size)
	}
	// The client may be gone; the error has no one to go to.
	_ = w.WriteMsg(reply)
}

// answer makes the reply to a question that came over network ("udp" or "tcp").
func (s *Server) answer(from netip.Addr, network string, req *dns.Msg) *dns.Msg {
	reply := new(dns.Msg)
	if req.Opcode != dns.OpcodeQuery || len(req.Question) != 1 {
		return reply.SetRcode(req, dns.RcodeNotImplemented)
	}
	v := s.cfg.Directory.Ask(from, req.Question[0])
	if v.Forward {
		return s.forward(network, req, v.Servers)
	}
	reply.SetRcode(req, v.Rcode)
	reply.RecursionAvailable = true
	reply.Answer = v.Answer
	// Clients take the first; over several containers of one name that spreads them.
	rand.Shuffle(len(reply.Answer), func(i, j int) {
		reply.Answer[i], reply.Answer[j] = reply.Answer[j], reply.Answer[i]
	})
	return reply
}

// forward asks one server after the other.
func (s *Server) forward(network string, req *dns.Msg, servers []netip.AddrPort) *dns.Msg {
	failure := new(dns.Msg).SetRcode(req, dns.RcodeServerFailure)
	failure.RecursionAvailable = true
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return failure
	}
	if len(servers) == 0 {
		servers = s.cfg.Upstream()
	}
	for _, server := range servers {
		select {
		case <-s.going:
			return failure
		default:
		}
		reply, err := s.exchange(network, server, req)
		if err != nil {
			s.cfg.Logger.Debug(
				"name server does not answer", "server", server.String(), "error", err,
			)
			continue
		}
		if reply.Rcode == dns.RcodeServerFailure || reply.Rcode == dns.RcodeRefused {
			failure = reply
			continue
		}
		return reply
	}
	return failure
}

// exchange asks one server and waits for its answer at most for upstreamTimeout.
func (s *Server) exchange(network string, server netip.AddrPort, req *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(context.Background(), upstreamTimeout)
	defer cancel()
	answered := make(chan struct{})
	defer close(answered)
	go func() {
		select {
		case <-s.going:
			cancel()
		case <-answered:
		}
	}()
	conn, err := s.cfg.Dial(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// Ends what waits for the connection, at the time-out and at Close.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// The identification is our own: the client's choice must not help anybody to guess it.
	ask := req.Copy()
	ask.Id = dns.Id()
	c := &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize - 1}
	if err := c.WriteMsg(ask); err != nil {
		return nil, err
	}
	for {
		reply, err := c.ReadMsg()
		unreadable := reply != nil || errors.Is(err, dns.ErrShortRead)
		if err != nil && (network != "udp" || !unreadable) {
			return nil, errors.Join(err, ctx.Err())
		}
		if err == nil && answers(reply, ask) {
			reply.Id = req.Id
			return reply, nil
		}
		if network != "udp" {
			return nil, errors.New("the answer is not one to the question")
		}
		// A datagram that another program may have sent in the server's name. The server's own may
		// follow.
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// answers says whether a message is an answer to a question (RFC 5452, 9.1). A server that could
// not read the question may leave it out of its refusal (RFC 1035, 4.1.1).
func answers(reply, ask *dns.Msg) bool {
	if !reply.Response || reply.Id != ask.Id || reply.Opcode != ask.Opcode {
		return false
	}
	if len(reply.Question) == 0 {
		return reply.Rcode != dns.RcodeSuccess && len(reply.Answer) == 0
	}
	if len(reply.Question) != 1 {
		return false
	}
	got, want := reply.Question[0], ask.Question[0]
	return got.Qtype == want.Qtype && got.Qclass == want.Qclass &&
		strings.EqualFold(got.Name, want.Name)
}
