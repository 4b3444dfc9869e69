package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"regexp"
	"sync"
	"time"

	"strake/network/link"
	"strake/network/resolver"
)

// nameServer runs the resolver in a namespace of its own with an interface in every network.
// Namespace and interfaces end with the process; the next one makes them anew under the same
// addresses.
type nameServer struct {
	cfg  *Config
	host *host
	reg  *registry
	dir  *resolver.Directory

	mu       sync.Mutex
	ns       *os.File         // guarded by mu; nil until the first network comes up
	server   *resolver.Server // guarded by mu
	upstream []netip.AddrPort // guarded by mu; what ResolvConf said at the time read
	read     time.Time        // guarded by mu
	changed  time.Time        // guarded by mu; modification time of ResolvConf then
}

func newNameServer(cfg *Config, h *host, reg *registry) *nameServer {
	return &nameServer{cfg: cfg, host: h, reg: reg, dir: resolver.NewDirectory()}
}

// add makes a container's names known.
func (s *nameServer) add(ep *endpoint) {
	e := resolver.Entry{
		ID: ep.rec.ID, Container: ep.rec.ContainerID, Network: ep.rec.NetworkID,
		NetworkName: ep.net.rec.Name, Internal: ep.net.rec.Internal,
		Names: ep.rec.Names, Addrs: []netip.Addr{ep.rec.IPv4.Addr()},
	}
	if ep.rec.IPv6.IsValid() {
		e.Addrs = append(e.Addrs, ep.rec.IPv6.Addr())
	}
	for _, a := range ep.rec.DNS {
		e.Servers = append(e.Servers, netip.AddrPortFrom(a, 53))
	}
	s.dir.Add(e)
}

func (s *nameServer) drop(ep *endpoint) { s.dir.Remove(ep.rec.ID) }

// start makes the namespace and serves in it. Precondition: s.mu is held.
func (s *nameServer) start() error {
	if s.ns != nil {
		return nil
	}
	var pc net.PacketConn
	var l net.Listener
	ns, err := link.Create(func(*os.File) (err error) {
		pc, l, err = listenForNames()
		return err
	})
	if err != nil {
		if pc != nil {
			err = errors.Join(err, pc.Close(), l.Close())
		}
		return fmt.Errorf("start name server: %w", err)
	}
	s.ns = ns
	s.server = resolver.Serve(
		resolver.Config{Directory: s.dir, Upstream: s.servers, Dial: s.dial, Logger: s.cfg.Logger},
		pc, l,
	)
	return nil
}

// listenForNames configures the calling thread's namespace, which is new, and opens the sockets of
// the resolver in it.
func listenForNames() (net.PacketConn, net.Listener, error) {
	for _, set := range [][2]string{
		// A question whose source address is not one of the network it comes from is an attempt to
		// ask in another container's name.
		{"net.ipv4.conf.all.rp_filter", "1"}, {"net.ipv4.conf.default.rp_filter", "1"},
		{"net.ipv4.ip_forward", "0"}, {"net.ipv6.conf.all.disable_ipv6", "1"},
		{"net.ipv6.conf.default.disable_ipv6", "1"},
	} {
		if err := writeSysctl(set[0], set[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
	}
	rt, err := link.Open()
	if err != nil {
		return nil, nil, err
	}
	defer rt.Close()
	const loopback = 1
	if err := rt.Do(
		link.SetUp(loopback), link.AddAddress(loopback, netip.PrefixFrom(ResolverAddr, 32)),
	); err != nil {
		return nil, nil, err
	}
	at := netip.AddrPortFrom(ResolverAddr, 53).String()
	pc, err := net.ListenPacket("udp4", at)
	if err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp4", at)
	if err != nil {
		return nil, nil, errors.Join(err, pc.Close())
	}
	return pc, l, nil
}

// dial connects from the host's namespace.
func (s *nameServer) dial(
	ctx context.Context, network, address string,
) (c net.Conn, err error) {
	err = s.host.enter(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// servers are the host's name servers now. The file is looked at once a second at most.
func (s *nameServer) servers() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := now()
	if t.Sub(s.read) < time.Second {
		return s.upstream
	}
	s.read = t
	info, err := os.Stat(s.cfg.ResolvConf)
	if err != nil || info.ModTime().Equal(s.changed) {
		return s.upstream
	}
	data, err := os.ReadFile(s.cfg.ResolvConf)
	if err != nil {
		return s.upstream
	}
	s.changed, s.upstream = info.ModTime(), nil
	for _, a := range parseResolvConf(data).servers {
		s.upstream = append(s.upstream, netip.AddrPortFrom(a, 53))
	}
	return s.upstream
}

// join gives the resolver an interface in a network that is coming up. Those of a former process
// are removed: they lead into a namespace that is ending. Precondition: n.setup is held.
func (s *nameServer) join(n *network) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.start(); err != nil {
		return err
	}
	old, err := s.interfaces(n)
	if err != nil {
		return err
	}
	for _, l := range old {
		if err := ignoreMissing(s.host.rt.Do(link.Delete(l.Index))); err != nil {
			return err
		}
	}
	name := s.reg.reserveLinkName(s.cfg.Prefix + "r")
	s.reg.mu.Lock()
	bridge := n.shards[0].index
	s.reg.mu.Unlock()
	return link.Enter(s.ns, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		if err := s.host.rt.Do(
			link.AddVeth(
				link.Veth{
					Name: name, Bridge: bridge, MTU: n.opts.mtu, PeerName: name,
					PeerMAC: resolverMAC(), PeerNS: int(s.ns.Fd()),
				},
			),
		); err != nil {
			return err
		}
		info, err := rt.ByName(name)
		if err != nil {
			return err
		}
		return rt.Do(
			link.SetUp(info.Index), link.AddRoute(link.Route{Dst: n.v4.Prefix, Index: info.Index}),
		)
	})
}

// leave removes the resolver's interface from a network. Precondition: n.setup is held.
func (s *nameServer) leave(n *network) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	links, err := s.interfaces(n)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		errs = append(errs, ignoreMissing(s.host.rt.Do(link.Delete(l.Index))))
		s.reg.releaseLinkName(l.Name)
	}
	return errors.Join(errs...)
}

// interfaces are the resolver's ports of the network's first bridge.
func (s *nameServer) interfaces(n *network) ([]link.Info, error) {
	links, err := s.host.rt.Links()
	if err != nil {
		return nil, err
	}
	pattern := regexp.MustCompile(`^` + s.cfg.Prefix + `r[0-9a-f]{8}$`)
	root := 0
	for _, l := range links {
		if l.Name == n.rec.Device {
			root = l.Index
		}
	}
	var out []link.Info
	for _, l := range links {
		if root != 0 && l.Master == root && pattern.MatchString(l.Name) {
			out = append(out, l)
		}
	}
	return out, nil
}

func (s *nameServer) close() error {
	s.mu.Lock()
	ns, server := s.ns, s.server
	s.ns, s.server = nil, nil
	s.mu.Unlock()
	if ns == nil {
		return nil
	}
	return errors.Join(server.Close(), ns.Close())
}
