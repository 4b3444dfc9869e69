package network

import (
	"context"
	"maps"
	"net/netip"
	"sort"
	"sync"

	"strake/network/firewall"
	"strake/network/ipam"
)

// network is one network and its pool. Fields are guarded by registry.mu unless they say otherwise.
type network struct {
	rec  networkRecord // constant after loading, except Phase
	opts options       // constant
	v4   Subnet        // constant
	v6   Subnet        // constant; Prefix invalid without IPv6

	alloc4, alloc6 *ipam.Allocator

	used       bool // a container has been attached: keep some namespaces ready
	filtered   bool // the nftables table has to know it
	removing   bool
	ready      []*sandbox        // wait for a container, oldest first
	inspecting map[*sandbox]bool // released, and perhaps ready soon
	filling    int               // being prepared
	shards     []*shard          // its bridges

	setup sync.Mutex
	up    bool // guarded by setup: the kernel has all of it
}

func (c *Config) newNetwork(rec networkRecord) (*network, error) {
	n := &network{rec: rec, inspecting: map[*sandbox]bool{}}
	var err error
	if n.opts, err = parseOptions(rec.Options); err != nil {
		return nil, err
	}
	for _, s := range rec.Subnets {
		if s.Prefix.Addr().Is4() {
			n.v4 = s
		} else {
			n.v6 = s
		}
	}
	allocator := func(s Subnet) (*ipam.Allocator, error) {
		reserved := []netip.Addr{s.Gateway}
		for _, a := range s.Reserved {
			if a != s.Gateway {
				reserved = append(reserved, a)
			}
		}
		return ipam.New(s.Prefix, s.Range, c.AddressDelay, reserved...)
	}
	if n.alloc4, err = allocator(n.v4); err == nil && n.v6.Prefix.IsValid() {
		n.alloc6, err = allocator(n.v6)
	}
	n.shards = []*shard{{device: rec.Device}}
	return n, err
}

// claim takes addresses that a record says are held.
func (n *network) claim(v4, v6 netip.Addr) error {
	if err := n.alloc4.Claim(v4); err != nil {
		return err
	}
	if v6.IsValid() && n.alloc6 != nil {
		return n.alloc6.Claim(v6)
	}
	return nil
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

// filter is what the nftables table has to know of the network. Precondition: registry.mu is held.
func (n *network) filter() firewall.Network {
	f := firewall.Network{Internal: n.rec.Internal, Masquerade: n.opts.masquerade}
	for _, s := range n.shards {
		f.Bridges = append(f.Bridges, s.device)
	}
	for _, s := range n.rec.Subnets {
		f.Subnets = append(f.Subnets, s.Prefix)
	}
	return f
}

// view is a copy for callers.
func (n *network) view() Network {
	v := n.rec.Network
	v.Labels, v.Options = maps.Clone(v.Labels), maps.Clone(v.Options)
	v.Subnets = append([]Subnet(nil), v.Subnets...)
	for i, s := range v.Subnets {
		v.Subnets[i].Reserved = maps.Clone(s.Reserved)
	}
	return v
}

// Networks lists the networks, the default one first, the others by name.
func (m *Manager) Networks(ctx context.Context) ([]Network, error) {
	if err := m.reg.alive(ctx); err != nil {
		return nil, err
	}
	if _, err := m.defaultNetwork(); err != nil {
		return nil, err
	}
	m.reg.mu.Lock()
	defer m.reg.mu.Unlock()
	var out []Network
	for _, n := range m.reg.networks {
		if !n.removing {
			out = append(out, n.view())
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if (out[i].Name == DefaultName) != (out[j].Name == DefaultName) {
			return out[i].Name == DefaultName
		}
		return out[i].Name < out[j].Name
	})
	return out, nil
}

// InspectNetwork returns one network, by name, ID or the beginning of an ID, with its endpoints.
// The error is an errdefs.ErrNotFound when there is none, and an errdefs.ErrInvalidArgument when
// several IDs begin so.
func (m *Manager) InspectNetwork(ctx context.Context, ref string) (Network, error) {
	if err := m.reg.alive(ctx); err != nil {
		return Network{}, err
	}
	n, err := m.find(ref)
	if err != nil {
		return Network{}, err
	}
	m.reg.mu.Lock()
	defer m.reg.mu.Unlock()
	v := n.view()
	for _, ep := range m.reg.endpoints {
		if ep.net != n {
			continue
		}
		v.Endpoints = append(v.Endpoints, Endpoint{
			ID: ep.rec.ID, ContainerID: ep.rec.ContainerID, Name: ep.rec.Name,
			IPv4: ep.rec.IPv4, IPv6: ep.rec.IPv6, MAC: ep.rec.MAC,
		})
	}
	sort.Slice(v.Endpoints, func(i, j int) bool { return v.Endpoints[i].ID < v.Endpoints[j].ID })
	return v, nil
}

// find resolves a reference to a network; the default one is defined on the way.
func (m *Manager) find(ref string) (*network, error) {
	if ref == DefaultName || ref == "" {
		return m.defaultNetwork()
	}
	return m.reg.find(ref)
}
