package network

import (
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

// names is the resolver's place in the networks: a namespace of its own with a leg in each. Both
// end with the process; the next one makes them anew under the same addresses.
type names struct {
	cfg Config
	dir *resolver.Directory

	mu       sync.Mutex
	ns       *os.File         // guarded by mu; nil until the first network comes up
	server   *resolver.Server // guarded by mu
	upstream []netip.AddrPort // guarded by mu; what ResolvConf said when it was
	read     time.Time        // guarded by mu; last looked at
	changed  time.Time        // guarded by mu; modification time of ResolvConf then
}

func newNames(cfg Config) *names {
	return &names{cfg: cfg, dir: resolver.NewDirectory()}
}

// add makes a container's names known.
func (s *names) add(ep *endpoint) {
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

func (s *names) drop(ep *endpoint) { s.dir.Remove(ep.rec.ID) }

// start makes the namespace and serves in it. Precondition: s.mu is held.
func (s *names) start() error {
	if s.ns != nil {
		return nil
	}
	var pc net.PacketConn
	var l net.Listener
	ns, err := link.Create(func(*os.File) error {
		for _, set := range [][2]string{
			// A question whose source address is not one of the network it comes from is an attempt
			// to ask for somebody else.
			{"net.ipv4.conf.all.rp_filter", "1"}, {"net.ipv4.conf.default.rp_filter", "1"},
			{"net.ipv4.ip_forward", "0"}, {"net.ipv6.conf.all.disable_ipv6", "1"},
			{"net.ipv6.conf.default.disable_ipv6", "1"},
		} {
			if err := writeSysctl(set[0], set[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		const loopback = 1
		if err := rt.Do(
			link.SetUp(loopback), link.AddAddress(loopback, netip.PrefixFrom(ResolverAddr, 32)),
		); err != nil {
			return err
		}
		at := netip.AddrPortFrom(ResolverAddr, 53).String()
		if pc, err = net.ListenPacket("udp4", at); err != nil {
			return err
		}
		if l, err = net.Listen("tcp4", at); err != nil {
			return errors.Join(err, pc.Close())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("start name server: %w", err)
	}
	s.ns = ns
	s.server = resolver.Serve(
		resolver.Config{Directory: s.dir, Upstream: s.servers, Dial: s.dial, Logger: s.cfg.Logger},
		pc, l,
	)
	return nil
}

// dial connects from the host's namespace.
func (s *names) dial(network, address string) (c net.Conn, err error) {
	err = link.Enter(s.cfg.NetNS, func() error {
		c, err = net.DialTimeout(network, address, 5*time.Second)
		return err
	})
	return c, err
}

// servers are the host's name servers now. The file is looked at once a second at most.
func (s *names) servers() []netip.AddrPort {
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

// join gives the resolver a leg in a network that is coming up. Legs of a former process are
// removed: they hang on a namespace that is dying.
func (s *names) join(m *Manager, n *network) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.start(); err != nil {
		return err
	}
	old, err := m.legs(n)
	if err != nil {
		return err
	}
	for _, l := range old {
		if err := gone(m.rt.Do(link.Delete(l.Index))); err != nil {
			return err
		}
	}
	m.mu.Lock()
	bridge := n.shards[0].index
	name := m.cfg.Prefix + "r" + randomHex(4)
	for m.wires[name] {
		name = m.cfg.Prefix + "r" + randomHex(4)
	}
	m.wires[name] = true
	m.mu.Unlock()
	return link.Enter(s.ns, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		if err := m.rt.Do(
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

// leave takes the resolver's leg out of a network.
func (s *names) leave(m *Manager, n *network) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	legs, err := m.legs(n)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range legs {
		errs = append(errs, gone(m.rt.Do(link.Delete(l.Index))))
		m.mu.Lock()
		delete(m.wires, l.Name)
		m.mu.Unlock()
	}
	return errors.Join(errs...)
}

// legs are the resolver's ports of the network's first bridge.
func (m *Manager) legs(n *network) ([]link.Info, error) {
	links, err := m.rt.Links()
	if err != nil {
		return nil, err
	}
	pattern := regexp.MustCompile(`^` + m.cfg.Prefix + `r[0-9a-f]{8}$`)
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

func (s *names) close() error {
	s.mu.Lock()
	ns, server := s.ns, s.server
	s.ns, s.server = nil, nil
	s.mu.Unlock()
	if ns == nil {
		return nil
	}
	return errors.Join(server.Close(), ns.Close())
}
