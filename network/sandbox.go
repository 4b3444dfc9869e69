package network

import (
	"net"
	"net/netip"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
)

// sandbox is a network namespace: a container's, or one that waits for a container in a pool.
//
// # What recycling proves
//
// A namespace costs half a millisecond to make and more to destroy, so one that a container did not
// visibly use goes back to the pool. "Did not use" is proved, not assumed, when the container is
// gone (fingerprint.go):
//
//   - no socket is left in it, no TCP connection in TIME_WAIT (/proc/net/sockstat);
//   - its interface never sent a packet, apart from the kernel's own multicast listener reports, so
//     nothing on the network knows its address, no connection tracking entry was ever answered by
//     it, and its counters say nothing about its former holder;
//   - interfaces, addresses, routes and rules are those it was made with; its nftables were never
//     changed (generation number).
//
// What cannot be seen from outside, above all sysctls, is covered by the preconditions of
// RecycleIfUnused. Every other namespace is destroyed.
type sandbox struct {
	// Set when a container gets the namespace, constant afterwards.
	owner     string
	container string

	mu        sync.Mutex  // one operation on the container's interfaces at a time
	recycling Recycling   // guarded by mu
	ns        *os.File    // guarded by mu; nil after a restart, until Reconcile brings it
	cookie    uint64      // of ns; constant
	endpoints []*endpoint // guarded by mu; in order of attachment
	gone      bool        // guarded by mu: released while another operation waited for mu

	// Of a sandbox as it comes from the pool; constant, except that Detach of the first interface
	// clears first.
	first   *vethPair
	net     *network
	initial fingerprint
	// inspected is closed when the inspection of a released namespace has ended.
	inspected chan struct{}
}

// vethPair is a pair of interfaces: the host's end is a port of a bridge, the other one is the
// container's.
type vethPair struct {
	host   string // name of the host's end
	name   string // of the container's
	index  int    // of the container's, in its namespace; 0 after a restart
	mac    net.HardwareAddr
	v4, v6 netip.Prefix // v6 invalid without IPv6
	shard  *shard       // nil after a restart
	// sysctls are settings of the container's interface, before it is made.
	sysctls []string
}

// has says whether the pair has one of the valid addresses of r.
func (p *vethPair) has(r requested) bool {
	return r.v4.IsValid() && p.v4.Addr() == r.v4 || r.v6.IsValid() && p.v6.Addr() == r.v6
}

// sort puts the endpoints in the order of their interfaces.
func (s *sandbox) sort() {
	number := func(ep *endpoint) int {
		if i, err := strconv.Atoi(strings.TrimPrefix(ep.veth.name, "eth")); err == nil {
			return i
		}
		return ep.rec.Place // a name that the container has chosen
	}
	sort.SliceStable(s.endpoints, func(i, j int) bool {
		return number(s.endpoints[i]) < number(s.endpoints[j])
	})
}

// gateways are those of a network's gateways that become the container's if the network joins it
// with a priority: for each family, if no network is the way out or the one that is has a lower
// priority. replaced says whether another network is the way out for one of them. Precondition: mu
// is held.
func (s *sandbox) gateways(n *network, priority int) (out []netip.Addr, replaced bool) {
	for _, gw := range n.gateways() {
		way := s.wayOut(gw.Is6())
		if way == nil || priority > way.rec.GatewayPriority {
			out = append(out, gw)
			replaced = replaced || way != nil
		}
	}
	return out, replaced
}

// wayOut is the endpoint through which packets of a family leave the container, or nil. Precondition:
// mu is held.
func (s *sandbox) wayOut(v6 bool) (way *endpoint) {
	for _, ep := range s.endpoints {
		for _, gw := range ep.net.gateways() {
			if gw.Is6() == v6 &&
				(way == nil || ep.rec.GatewayPriority > way.rec.GatewayPriority) {
				way = ep
			}
		}
	}
	return way
}
