package resolver

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
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
	// Dial connects to a server, from where the host's name servers can be reached.
	Dial   func(network, address string) (net.Conn, error)
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

// Close stops serving and waits for the questions under way.
func (s *Server) Close() error {
	s.once.Do(func() { close(s.going) })
	var errs []error
	for _, srv := range s.servers {
		errs = append(errs, srv.ShutdownContext(context.Background()))
	}
	s.done.Wait()
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
	// The client may be gone; there is nobody to tell.
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

func (s *Server) exchange(network string, server netip.AddrPort, req *dns.Msg) (*dns.Msg, error) {
	conn, err := s.cfg.Dial(network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-s.going:
			conn.Close()
		case <-stop:
		}
	}()
	// The identification is our own: the client's choice must not help anybody to guess it.
	ask := req.Copy()
	ask.Id = dns.Id()
	client := &dns.Client{Net: network, Timeout: upstreamTimeout, UDPSize: dns.MaxMsgSize - 1}
	reply, _, err := client.ExchangeWithConn(
		ask, &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize - 1},
	)
	if err != nil {
		return nil, err
	}
	reply.Id = req.Id
	return reply, nil
}
