package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/network/ipam"
	"strake/network/link"
)

// sandbox is a network namespace: a container's, or one that waits for a container.
//
// # What recycling proves
//
// A namespace costs half a millisecond to make and more to destroy, so one that a container did not
// visibly use goes back to the pool. "Did not use" is proved, not assumed, when the container is
// gone (inspect):
//
//   - no socket is left in it, no TCP connection in TIME_WAIT (/proc/net/sockstat);
//   - its interface never sent a packet, apart from the kernel's own multicast listener reports, so
//     nothing on the network knows its address, no connection tracking entry was ever answered by
//     it, and its counters say nothing about its former holder;
//   - interfaces, addresses, routes and rules are those it was made with; its nftables were never
//     changed (generation number).
//
// What cannot be seen from outside, above all sysctls, is covered by the preconditions of
// RecycleIfClean. Everything else is destroyed.
type sandbox struct {
	owner     string // guarded by Manager.mu until it belongs to a container, then constant
	container string
	recycling Recycling

	mu        sync.Mutex  // one operation on the container's interfaces at a time
	ns        *os.File    // nil after a restart, until Reconcile brings it
	cookie    uint64      // constant
	endpoints []*endpoint // in order of attachment; guarded by mu
	gone      bool        // guarded by mu: released while somebody waited for mu

	// Of a sandbox as it comes from the pool; constant.
	first *wire
	net   *network
	born  fingerprint
}

// wire is a veth pair: our end and the container's.
type wire struct {
	host   string // name of our end
	name   string // of the container's
	index  int    // of the container's, in its namespace; 0 after a restart
	mac    net.HardwareAddr
	v4, v6 netip.Prefix // v6 invalid without IPv6
	shard  *shard       // nil after a restart
}

// sort puts the endpoints in the order of their interfaces.
func (s *sandbox) sort() {
	number := func(ep *endpoint) int {
		i, _ := strconv.Atoi(strings.TrimPrefix(ep.wire.name, "eth"))
		return i
	}
	sort.Slice(s.endpoints, func(i, j int) bool {
		return number(s.endpoints[i]) < number(s.endpoints[j])
	})
}

// wish is what a request asks of a wire.
type wish struct {
	v4, v6 netip.Addr
	mac    net.HardwareAddr
}

func (w wish) any() bool { return w.v4.IsValid() || w.v6.IsValid() || w.mac != nil }

// maker makes a network namespace and runs a function in it: link.Create, or the same on a thread
// that is at hand.
type maker func(func(*os.File) error) (*os.File, error)

// prepare makes a namespace with an interface in the network. Precondition: the network is up.
func (m *Manager) prepare(n *network, w wish, create maker) (*sandbox, error) {
	wr, err := m.allot(n, w, "eth0")
	if err != nil {
		return nil, err
	}
	sb := &sandbox{first: wr, net: n}
	m.cfg.Fault("prepare: namespace")
	sb.ns, err = create(func(ns *os.File) error {
		for k, v := range m.cfg.Sysctls {
			if err := writeSysctl(k, v); err != nil {
				return err
			}
		}
		var err error
		if sb.cookie, err = link.Cookie(); err != nil {
			return err
		}
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		if err := m.plug(n, wr, ns, rt, n.gateways(), firstInterface); err != nil {
			return err
		}
		sb.born, err = inspect(rt, wr.v6.IsValid())
		return err
	})
	if err != nil {
		return nil, errors.Join(
			fmt.Errorf("prepare network namespace: %w", err),
			m.bury(sb, unused, []*network{n}, []wire{*wr}),
		)
	}
	return sb, nil
}

// allot takes addresses, a bridge port and a name for a new pair.
func (m *Manager) allot(n *network, w wish, name string) (*wire, error) {
	s, err := m.place(n)
	if err != nil {
		return nil, err
	}
	wr := &wire{name: name, shard: s, mac: w.mac}
	for {
		var evicted *sandbox
		m.mu.Lock()
		evicted, err = n.takeAddresses(wr, w)
		m.mu.Unlock()
		if evicted == nil {
			break
		}
		if err := m.destroy(evicted); err != nil {
			m.cfg.Logger.Warn(
				"destroy pooled network namespace", "network", n.rec.Name, "error", err,
			)
		}
	}
	if err != nil {
		m.mu.Lock()
		s.ports--
		m.mu.Unlock()
		return nil, err
	}
	if wr.mac == nil {
		wr.mac = macOf(wr.v4.Addr())
	}
	wr.host = m.wireName()
	return wr, nil
}

// takeAddresses takes the addresses for a wire. When only namespaces that wait in the pool stand in
// the way it returns one of them, taken out of the pool, for the caller to destroy before trying
// again. Precondition: Manager.mu is held.
func (n *network) takeAddresses(wr *wire, w wish) (evicted *sandbox, err error) {
	v4, err := n.takeOne(n.alloc4, w.v4)
	if err != nil {
		return n.evict(w.v4, err), err
	}
	wr.v4 = netip.PrefixFrom(v4, n.v4.Prefix.Bits())
	if n.alloc6 == nil {
		if w.v6.IsValid() {
			n.alloc4.Restore(v4)
			return nil, fmt.Errorf(
				"IPv6 address %q: network %q has no IPv6: %w", w.v6, n.rec.Name,
				errdefs.ErrInvalidArgument,
			)
		}
		return nil, nil
	}
	v6, err := n.takeOne(n.alloc6, w.v6)
	if err != nil {
		n.alloc4.Restore(v4)
		return n.evict(w.v6, err), err
	}
	wr.v6 = netip.PrefixFrom(v6, n.v6.Prefix.Bits())
	return nil, nil
}

func (n *network) takeOne(a *ipam.Allocator, want netip.Addr) (netip.Addr, error) {
	if want.IsValid() {
		return want, a.Claim(want)
	}
	return a.Take(now())
}

// evict takes a namespace out of the pool: the one that holds addr, or any when there is no address
// left.
func (n *network) evict(addr netip.Addr, err error) *sandbox {
	for i, sb := range n.ready {
		if errdefs.IsResourceExhausted(err) ||
			(addr.IsValid() && (sb.first.v4.Addr() == addr || sb.first.v6.Addr() == addr)) {
			n.ready = append(n.ready[:i:i], n.ready[i+1:]...)
			return sb
		}
	}
	return nil
}

// usage says whether anybody may remember an address.
type usage bool

const (
	unused usage = false
	spent  usage = true
)

// unallot gives back what allot took. Precondition: the pair is gone, or goes with its namespace.
func (m *Manager) unallot(n *network, wr *wire, u usage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if wr.shard != nil {
		wr.shard.ports--
	}
	delete(m.wires, wr.host)
	give := func(a *ipam.Allocator, addr netip.Addr) {
		if u == spent {
			a.Release(addr, now())
		} else {
			a.Restore(addr)
		}
	}
	give(n.alloc4, wr.v4.Addr())
	if wr.v6.IsValid() && n.alloc6 != nil {
		give(n.alloc6, wr.v6.Addr())
	}
}

// gateways are the network's ways out.
func (n *network) gateways() []netip.Addr {
	if n.rec.Internal {
		return nil
	}
	out := []netip.Addr{n.v4.Gateway}
	if n.v6.Prefix.IsValid() {
		out = append(out, n.v6.Gateway)
	}
	return out
}

// plug makes the pair and configures the container's end. The calling thread is in ns, and rt is a
// socket of ns.
func (m *Manager) plug(
	n *network, wr *wire, ns *os.File, rt *link.Socket, gateways []netip.Addr, which ordinal,
) error {
	v6 := wr.v6.IsValid()
	// What an interface inherits when it is born (ip-sysctl.rst, conf/default): without IPv6 it
	// sends nothing on its own account; with it, addresses are ours to give, and usable at once.
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
	m.mu.Lock()
	bridge := wr.shard.index
	m.mu.Unlock()
	m.cfg.Fault("plug: veth pair")
	err := m.rt.Do(
		link.AddVeth(
			link.Veth{
				Name: wr.host, Bridge: bridge, MTU: n.opts.mtu, PeerName: wr.name, PeerMAC: wr.mac,
				PeerNS: int(ns.Fd()),
			},
		),
	)
	if err != nil {
		return err
	}
	if n.opts.isolated {
		host, err := m.rt.ByName(wr.host)
		if err != nil {
			return err
		}
		if err := m.rt.Do(link.SetPortFlag(host.Index, link.Isolated)); err != nil {
			return err
		}
	}
	info, err := rt.ByName(wr.name)
	if err != nil {
		return err
	}
	wr.index = info.Index
	reqs := []link.Request{
		link.SetUp(wr.index), link.AddAddress(wr.index, wr.v4),
		link.AddNeighbour(wr.index, ResolverAddr, resolverMAC()),
	}
	if v6 {
		reqs = append(reqs, link.AddAddress(wr.index, wr.v6))
	}
	if which == firstInterface {
		const loopback = 1 // the first interface of every namespace
		reqs = append(reqs, link.SetUp(loopback), resolverRoute(wr.index))
	}
	reqs = append(reqs, defaultRoutes(wr.index, gateways)...)
	m.cfg.Fault("plug: addresses")
	return rt.Do(reqs...)
}

// ordinal says whether an interface is the container's first.
type ordinal bool

const (
	firstInterface   ordinal = true
	furtherInterface ordinal = false
)

func resolverRoute(index int) link.Request {
	return link.AddRoute(link.Route{Dst: netip.PrefixFrom(ResolverAddr, 32), Index: index})
}

func defaultRoutes(index int, gateways []netip.Addr) []link.Request {
	var out []link.Request
	for _, gw := range gateways {
		zero := netip.IPv4Unspecified()
		if gw.Is6() {
			zero = netip.IPv6Unspecified()
		}
		out = append(
			out, link.AddRoute(link.Route{Dst: netip.PrefixFrom(zero, 0), Via: gw, Index: index}),
		)
	}
	return out
}

// destroy ends a namespace of the pool.
func (m *Manager) destroy(sb *sandbox) error {
	return m.bury(sb, unused, []*network{sb.net}, []wire{*sb.first})
}

// fingerprint is what a namespace looks like from inside.
type fingerprint struct {
	sockets    string // /proc/net/sockstat: who is left
	topology   uint64 // links, addresses, routes, rules
	generation uint32 // of its nftables
	// multicast listener reports sent, the only packets a kernel sends on its own here
	reports uint64
}

// inspect takes the fingerprint of the calling thread's namespace; rt is a socket of it.
func inspect(rt *link.Socket, v6 bool) (fingerprint, error) {
	var f fingerprint
	stat, err := os.ReadFile("/proc/thread-self/net/sockstat")
	if err != nil {
		return f, fmt.Errorf("inspect network namespace: %w", err)
	}
	f.sockets = sockets(string(stat))
	if f.topology, err = rt.Topology(); err != nil {
		return f, fmt.Errorf("inspect network namespace: %w", err)
	}
	if f.generation, err = generation(); err != nil {
		return f, fmt.Errorf("inspect network namespace: %w", err)
	}
	if !v6 {
		return f, nil // its interface has none, and the kernel sends nothing
	}
	snmp, err := os.ReadFile("/proc/thread-self/net/snmp6")
	if err != nil {
		return f, fmt.Errorf("inspect network namespace: %w", err)
	}
	f.reports = counter(string(snmp), "Icmp6OutMLDv2Reports") + counter(
		string(snmp), "Icmp6OutGroupMembResponses",
	) + counter(string(snmp), "Icmp6OutGroupMembReductions")
	return f, nil
}

// sockets keeps of sockstat what is per namespace: sockets in use, and TCP connections in
// TIME_WAIT.
func sockets(stat string) string {
	var used, tw string
	for line := range strings.Lines(stat) {
		f := strings.Fields(line)
		if len(f) >= 3 && f[0] == "sockets:" {
			used = f[2]
		}
		for i := 1; i+1 < len(f); i += 2 {
			if f[0] == "TCP:" && f[i] == "tw" {
				tw = f[i+1]
			}
		}
	}
	return used + " used, " + tw + " waiting"
}

func counter(snmp, name string) uint64 {
	for line := range strings.Lines(snmp) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			v, _ := strconv.ParseUint(strings.TrimSpace(rest), 10, 64)
			return v
		}
	}
	return 0
}

// generation asks for the number of changes that the nftables of the calling thread's namespace
// have seen (NFT_MSG_GETGEN).
func generation() (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	msg := binary.NativeEndian.AppendUint32(nil, unix.NLMSG_HDRLEN+4)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLM_F_REQUEST)
	msg = append(msg, make([]byte, 8+4)...)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return 0, err
	}
	// nlmsghdr, nfgenmsg, then NFTA_GEN_ID first: a 32-bit number in network byte order.
	const at = unix.NLMSG_HDRLEN + 4
	if n < at+8 || binary.NativeEndian.Uint16(buf[4:]) == unix.NLMSG_ERROR ||
		binary.NativeEndian.Uint16(buf[at+2:]) != unix.NFTA_GEN_ID {
		return 0, fmt.Errorf("nftables generation: unexpected answer: %w", unix.EBADMSG)
	}
	return binary.BigEndian.Uint32(buf[at+4:]), nil
}

// clean says why a namespace may not go back to the pool; empty when it may. sent is how many
// packets its interface sent in its life.
func clean(born, died fingerprint, sent uint64) string {
	switch {
	case died.sockets != born.sockets:
		return "sockets left: " + died.sockets
	case died.topology != born.topology:
		return "interfaces, addresses, routes or rules changed"
	case died.generation != born.generation:
		return "nftables changed"
	case sent != died.reports:
		return fmt.Sprintf("%d packets sent", sent-min(sent, died.reports))
	}
	return ""
}

// wash looks at a released namespace and gives it back to the pool, or destroys it. The container
// is gone.
func (m *Manager) wash(t *link.Thread, sb *sandbox) {
	why := m.dirt(t, sb)
	m.mu.Lock()
	if why == "" && !sb.net.removing && !m.closed && len(sb.net.ready) < m.cfg.MaxPooled {
		sb.net.ready = append(
			sb.net.ready,
			&sandbox{ns: sb.ns, cookie: sb.cookie, first: sb.first, net: sb.net, born: sb.born},
		)
		m.mu.Unlock()
		return
	}
	m.mu.Unlock()
	if err := m.bury(sb, spent, []*network{sb.net}, []wire{*sb.first}); err != nil {
		m.cfg.Logger.Warn("destroy network namespace", "network", sb.net.rec.Name, "error", err)
	}
}

// dirt says why a namespace cannot be used again.
func (m *Manager) dirt(t *link.Thread, sb *sandbox) string {
	var died fingerprint
	err := t.Enter(sb.ns, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		died, err = inspect(rt, sb.first.v6.IsValid())
		return err
	})
	if err != nil {
		return err.Error()
	}
	// After the fingerprint: both counts only grow, so when they are equal there was no packet but
	// the reports.
	host, err := m.rt.ByName(sb.first.host)
	if err != nil {
		return err.Error()
	}
	return clean(sb.born, died, host.Stats.RxPackets)
}

// unplug removes a pair of a container that goes on, forgets the connections of its addresses, and
// gives the addresses back.
func (m *Manager) unplug(n *network, wr *wire) error {
	err := gone(m.rt.Do(link.DeleteName(wr.host)))
	err = errors.Join(err, m.forgetFlows(wr.v4.Addr(), wr.v6.Addr()))
	m.unallot(n, wr, spent)
	return err
}

// stock says how many namespaces should wait for containers of a network. Precondition: m.mu is
// held.
func (m *Manager) stock(n *network) int {
	switch {
	case !n.used || n.removing || m.closed:
		return 0
	case n.rec.Default:
		return m.cfg.PoolSize
	}
	return (m.cfg.PoolSize + 3) / 4
}

// refill queues the preparation of namespaces until the pool is as full as it should be.
// Precondition: m.mu is held.
func (m *Manager) refill(n *network) {
	for len(n.ready)+n.filling < m.stock(n) {
		if !m.bg.add(func(t *link.Thread) { m.fill(t, n) }) {
			return
		}
		n.filling++
	}
}

func (m *Manager) fill(t *link.Thread, n *network) {
	m.mu.Lock()
	wanted := len(n.ready) < m.stock(n)
	m.mu.Unlock()
	var sb *sandbox
	var err error
	if wanted {
		sb, err = m.prepare(n, wish{}, t.Create)
	}
	m.mu.Lock()
	n.filling--
	keep := sb != nil && !n.removing && !m.closed
	if keep {
		n.ready = append(n.ready, sb)
	}
	m.mu.Unlock()
	if sb != nil && !keep {
		err = m.destroy(sb)
	}
	// An Attach that finds the pool empty prepares for itself and has somebody to tell.
	if err != nil && !errdefs.IsResourceExhausted(err) {
		m.cfg.Logger.Warn("prepare network namespace", "network", n.rec.Name, "error", err)
	}
}
