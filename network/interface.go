package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/containerd/errdefs"

	"strake/network/ipam"
	"strake/network/link"
)

// addressPatience bounds how long an attachment waits for an address whose former holder is being
// removed. The kernel takes some twenty milliseconds for one interface.
const addressPatience = 5 * time.Second

// interfaces makes and removes the interfaces of containers, with their addresses.
type interfaces struct {
	cfg      *Config
	host     *host
	reg      *registry
	bridges  *bridges
	removals *removals
}

// requested is what a user chose for an interface; zero values are the network's to choose.
type requested struct {
	v4, v6  netip.Addr
	mac     net.HardwareAddr
	name    string // in the container
	sysctls []string
}

func (r requested) any() bool {
	return r.v4.IsValid() || r.v6.IsValid() || r.mac != nil || r.name != "" || len(r.sysctls) > 0
}

// waiting says whether an allocation waits for addresses that are about to be free.
type waiting bool

const (
	atOnce    waiting = false
	waitForIt waiting = true
)

// allocate takes addresses, a bridge port and a name for a new pair, which the container calls name
// unless it has chosen another one.
func (f *interfaces) allocate(
	ctx context.Context, n *network, r requested, name string, wait waiting,
) (*vethPair, error) {
	s, err := f.bridges.freePort(n)
	if err != nil {
		return nil, err
	}
	p := &vethPair{name: cmp.Or(r.name, name), shard: s, mac: r.mac, sysctls: r.sysctls}
	if err := f.takeAddresses(ctx, n, p, r, wait); err != nil {
		f.reg.mu.Lock()
		s.ports--
		f.reg.mu.Unlock()
		return nil, err
	}
	if p.mac == nil {
		p.mac = macOf(p.v4.Addr())
	}
	p.host = f.reg.reserveLinkName(f.cfg.Prefix + "v")
	return p, nil
}

// takeAddresses takes the addresses of a pair. What has them only for a while is removed or waited
// for, at most for addressPatience: pairs in the removal queue, namespaces that wait in the pool,
// namespaces that are being inspected. A job of the workers does not wait: it may be what the
// inspections wait for.
func (f *interfaces) takeAddresses(
	ctx context.Context, n *network, p *vethPair, r requested, wait waiting,
) error {
	ctx, cancel := context.WithTimeout(ctx, addressPatience)
	defer cancel()
	for {
		f.reg.mu.Lock()
		err := n.takeAddresses(p, r)
		f.reg.mu.Unlock()
		exhausted := errdefs.IsResourceExhausted(err)
		if err == nil || wait == atOnce || ctx.Err() != nil ||
			!exhausted && !errdefs.IsAlreadyExists(err) {
			return err
		}
		inTheWay := func(q *vethPair) bool { return exhausted || q.has(r) }
		removed, rerr := f.removals.expedite(n, inTheWay)
		if rerr != nil {
			return errors.Join(err, rerr)
		}
		if removed {
			continue
		}
		f.reg.mu.Lock()
		evicted, inspection := n.evict(inTheWay)
		f.reg.mu.Unlock()
		switch {
		case evicted != nil:
			if err := f.removals.add(evicted, neverUsed, evicted.net, evicted.first); err != nil {
				f.cfg.Logger.Warn(
					"destroy pooled network namespace", "network", n.rec.Name, "error", err,
				)
			}
		case inspection != nil:
			select {
			case <-inspection:
			case <-ctx.Done():
			}
		default:
			return err
		}
	}
}

// takeAddresses takes the addresses for a pair, or none. Precondition: registry.mu is held.
func (n *network) takeAddresses(p *vethPair, r requested) error {
	take := func(a *ipam.Allocator, want netip.Addr) (netip.Addr, error) {
		if want.IsValid() {
			return want, a.Claim(want)
		}
		return a.Take(now())
	}
	v4, err := take(n.alloc4, r.v4)
	if err != nil {
		return err
	}
	p.v4 = netip.PrefixFrom(v4, n.v4.Prefix.Bits())
	if n.alloc6 == nil {
		if !r.v6.IsValid() {
			return nil
		}
		n.alloc4.Restore(v4)
		return fmt.Errorf(
			"IPv6 address %q: network %q has no IPv6: %w", r.v6, n.rec.Name,
			errdefs.ErrInvalidArgument,
		)
	}
	v6, err := take(n.alloc6, r.v6)
	if err != nil {
		n.alloc4.Restore(v4)
		return err
	}
	p.v6 = netip.PrefixFrom(v6, n.v6.Prefix.Bits())
	return nil
}

// evict takes a namespace whose pair matches out of the pool, or names an inspection after which
// such a namespace is in the pool or in the removal queue. Precondition: registry.mu is held.
func (n *network) evict(match func(*vethPair) bool) (*sandbox, <-chan struct{}) {
	for i, sb := range n.ready {
		if match(sb.first) {
			n.ready = append(n.ready[:i:i], n.ready[i+1:]...)
			return sb, nil
		}
	}
	for sb := range n.inspecting {
		if match(sb.first) {
			return nil, sb.inspected
		}
	}
	return nil, nil
}

// addressUse says whether other hosts or containers may remember an address.
type addressUse bool

const (
	neverUsed addressUse = false
	wasUsed   addressUse = true
)

// free gives back what allocate took. Precondition: the pair is gone, or goes with its namespace.
func (r *registry) free(n *network, p *vethPair, use addressUse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.shard != nil {
		p.shard.ports--
	}
	delete(r.linkNames, p.host)
	give := func(a *ipam.Allocator, addr netip.Addr) {
		if use == wasUsed {
			a.Release(addr, now())
		} else {
			a.Restore(addr)
		}
	}
	give(n.alloc4, p.v4.Addr())
	if p.v6.IsValid() && n.alloc6 != nil {
		give(n.alloc6, p.v6.Addr())
	}
}

// ordinal says whether an interface is the container's first.
type ordinal bool

const (
	firstInterface   ordinal = true
	furtherInterface ordinal = false
)

// create makes the pair and configures the container's end. The calling thread is in ns, and rt is
// a socket of ns.
func (f *interfaces) create(
	n *network, p *vethPair, ns *os.File, rt *link.Socket, gateways []netip.Addr, which ordinal,
) error {
	v6 := p.v6.IsValid()
	if err := inheritedSettings(v6); err != nil {
		return err
	}
	f.reg.mu.Lock()
	bridge := p.shard.index
	f.reg.mu.Unlock()
	f.cfg.Fault("interface: veth pair")
	err := f.host.rt.Do(
		link.AddVeth(
			link.Veth{
				Name: p.host, Bridge: bridge, MTU: n.opts.mtu, PeerName: p.name, PeerMAC: p.mac,
				PeerNS: int(ns.Fd()),
			},
		),
	)
	if err != nil {
		return err
	}
	if n.opts.isolated {
		port, err := f.host.rt.ByName(p.host)
		if err != nil {
			return err
		}
		if err := f.host.rt.Do(link.SetPortFlag(port.Index, link.Isolated)); err != nil {
			return err
		}
	}
	info, err := rt.ByName(p.name)
	if err != nil {
		return err
	}
	p.index = info.Index
	reqs := []link.Request{
		link.SetUp(p.index), link.AddAddress(p.index, p.v4),
		link.AddNeighbour(p.index, ResolverAddr, resolverMAC()),
	}
	if v6 {
		reqs = append(reqs, link.AddAddress(p.index, p.v6))
	}
	if which == firstInterface {
		const loopback = 1 // the first interface of every namespace
		reqs = append(reqs, link.SetUp(loopback), resolverRoute(p.index))
	}
	reqs = append(reqs, defaultRoutes(p.index, gateways)...)
	f.cfg.Fault("interface: addresses")
	if err := rt.Do(reqs...); err != nil {
		return err
	}
	for _, s := range p.sysctls {
		name, value, err := interfaceSysctl(s, p.name)
		if err == nil {
			err = writeSysctl(name, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inheritedSettings are what an interface of the calling thread's namespace inherits when it is
// made (ip-sysctl.rst, conf/default): without IPv6 it sends nothing on its own account; with it,
// addresses are ours to give, and usable at once.
func inheritedSettings(v6 bool) error {
	settings := [][2]string{{"disable_ipv6", "1"}}
	if v6 {
		settings = [][2]string{{"disable_ipv6", "0"}, {"accept_dad", "0"}, {"accept_ra", "0"}}
	}
	for _, s := range settings {
		if err := writeSysctl("net.ipv6.conf.default."+s[0], s[1]); err != nil &&
			(v6 || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}

func resolverRoute(index int) link.Request {
	return link.AddRoute(link.Route{Dst: netip.PrefixFrom(ResolverAddr, 32), Index: index})
}

// defaultRoutes are the ways out through an interface, in the place of others.
func defaultRoutes(index int, gateways []netip.Addr) []link.Request {
	var out []link.Request
	for _, gw := range gateways {
		zero := netip.IPv4Unspecified()
		if gw.Is6() {
			zero = netip.IPv6Unspecified()
		}
		out = append(
			out,
			link.ReplaceRoute(
				link.Route{Dst: netip.PrefixFrom(zero, 0), Via: gw, Index: index},
			),
		)
	}
	return out
}

// remove deletes a pair of a container that goes on, forgets the connections of its addresses, and
// gives the addresses back.
func (f *interfaces) remove(n *network, p *vethPair) error {
	err := ignoreMissing(f.host.rt.Do(link.DeleteName(p.host)))
	err = errors.Join(err, f.host.forgetFlows(p.v4.Addr(), p.v6.Addr()))
	f.reg.free(n, p, wasUsed)
	return err
}
