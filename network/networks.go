package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sort"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/network/firewall"
	"strake/network/ipam"
	"strake/network/link"
)

// network is one network and its pool. Fields are guarded by Manager.mu unless they say otherwise.
type network struct {
	rec  networkRecord // constant after loading, except Phase
	opts options       // constant
	v4   Subnet        // constant
	v6   Subnet        // constant; Prefix invalid without IPv6

	alloc4, alloc6 *ipam.Allocator

	used     bool // somebody has been attached: keep some namespaces ready
	filtered bool // the nftables table has to know it
	removing bool
	ready    []*sandbox // wait for a container, oldest first
	filling  int        // being prepared
	shards   []*shard   // its bridges

	setup sync.Mutex
	up    bool // guarded by setup: the kernel has all of it
}

func (m *Manager) newNetwork(rec networkRecord) (*network, error) {
	n := &network{rec: rec}
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
		return ipam.New(s.Prefix, s.Range, m.cfg.AddressDelay, reserved...)
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

// view is what others get to see.
func (n *network) view() Network {
	v := n.rec.Network
	v.Labels, v.Options = maps.Clone(v.Labels), maps.Clone(v.Options)
	v.Subnets = append([]Subnet(nil), v.Subnets...)
	return v
}

// Networks lists the networks, the default one first, the others by name.
func (m *Manager) Networks(ctx context.Context) ([]Network, error) {
	if err := m.alive(ctx); err != nil {
		return nil, err
	}
	if _, err := m.defaultNetwork(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Network
	for _, n := range m.networks {
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
	if err := m.alive(ctx); err != nil {
		return Network{}, err
	}
	n, err := m.find(ref)
	if err != nil {
		return Network{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	v := n.view()
	for _, ep := range m.endpoints {
		if ep.net == n {
			v.Endpoints = append(
				v.Endpoints,
				Endpoint{
					ep.rec.ID, ep.rec.ContainerID, ep.rec.Name, ep.rec.IPv4, ep.rec.IPv6,
					ep.rec.MAC,
				},
			)
		}
	}
	sort.Slice(v.Endpoints, func(i, j int) bool { return v.Endpoints[i].ID < v.Endpoints[j].ID })
	return v, nil
}

// find resolves a reference to a network; the default one is defined on the way.
func (m *Manager) find(ref string) (*network, error) {
	if ref == DefaultName || ref == "" {
		return m.defaultNetwork()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var byPrefix []*network
	for id, n := range m.networks {
		switch {
		case n.removing:
		case n.rec.Name == ref || id == ref:
			return n, nil
		case strings.HasPrefix(id, ref):
			byPrefix = append(byPrefix, n)
		}
	}
	switch len(byPrefix) {
	case 1:
		return byPrefix[0], nil
	case 0:
		return nil, fmt.Errorf("network %s not found: %w", ref, errdefs.ErrNotFound)
	}
	return nil, fmt.Errorf(
		"network ID prefix %q is ambiguous: %d networks begin so: %w", ref, len(byPrefix),
		errdefs.ErrInvalidArgument,
	)
}

// defaultNetwork returns the default network, and defines it when it is first asked for. Its
// interfaces come later, with the first container.
func (m *Manager) defaultNetwork() (*network, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.networks {
		if n.rec.Default {
			return n, nil
		}
	}
	return m.define(m.defaultSpec(), m.cfg.Prefix+"0", phaseReady)
}

// defaultSpec is the default network as it is wanted on this host.
func (m *Manager) defaultSpec() Spec {
	s := Spec{Name: DefaultName, EnableIPv6: m.cfg.DefaultIPv6 && m.ipv6}
	for _, sub := range m.cfg.DefaultSubnets {
		if m.ipv6 || sub.Prefix.Addr().Is4() {
			s.Subnets = append(s.Subnets, sub)
		}
	}
	return s
}

// redefine drops the default network's record if it is not what is wanted now, so that the next use
// defines it anew. Containers that live keep the network that they have.
func (m *Manager) redefine() error {
	want := m.defaultSpec()
	for _, n := range m.networks {
		if !n.rec.Default || n.fits(want) {
			continue
		}
		if n.used {
			m.cfg.Logger.Warn(
				"the default network is in use and stays as it is until a start finds no container in it",
				"subnets", n.rec.Subnets,
			)
			return nil
		}
		if err := errors.Join(m.takeDown(n), m.store.remove(networkFile(n.rec.ID))); err != nil {
			return fmt.Errorf("redefine the default network: %w", err)
		}
		delete(m.networks, n.rec.ID)
	}
	return nil
}

// fits says whether the network is what a wish would become.
func (n *network) fits(want Spec) bool {
	if n.v6.Prefix.IsValid() != want.EnableIPv6 {
		return false
	}
	for _, s := range want.Subnets {
		have := n.v4
		if s.Prefix.Addr().Is6() {
			have = n.v6
		}
		if have.Prefix != s.Prefix || s.Gateway.IsValid() && have.Gateway != s.Gateway {
			return false
		}
	}
	return true
}

// CreateNetwork makes a network and brings it up. Errors: errdefs.ErrAlreadyExists for a name that
// is taken, ErrInvalidArgument, ErrResourceExhausted when the pools are used up,
// ErrFailedPrecondition when a chosen subnet overlaps another network.
func (m *Manager) CreateNetwork(ctx context.Context, spec Spec) (Network, error) {
	if err := m.alive(ctx); err != nil {
		return Network{}, err
	}
	if _, err := m.defaultNetwork(); err != nil {
		return Network{}, err
	}
	m.mu.Lock()
	n, err := m.define(spec, "", phaseCreating)
	m.mu.Unlock()
	if err != nil {
		return Network{}, fmt.Errorf("create network %q: %w", spec.Name, err)
	}
	err = m.bringUp(n)
	if err == nil {
		m.cfg.Fault("create: confirm record")
		m.mu.Lock()
		n.rec.Phase = phaseReady
		rec := n.rec
		m.mu.Unlock()
		err = m.store.durable(networkFile(rec.ID), rec)
	}
	if err != nil {
		return Network{}, errors.Join(
			fmt.Errorf("create network %q: %w", spec.Name, err), m.discard(n),
		)
	}
	m.warnOfBlockers()
	m.mu.Lock()
	defer m.mu.Unlock()
	return n.view(), nil
}

// define checks a wish, completes it, and records it. Precondition: m.mu is held.
func (m *Manager) define(spec Spec, device string, p phase) (*network, error) {
	if !namePattern.MatchString(spec.Name) {
		return nil, fmt.Errorf(
			"name %q: want a letter or digit, then up to 127 letters, digits, '_', '.' and '-': %w",
			spec.Name, errdefs.ErrInvalidArgument,
		)
	}
	if spec.Driver != "" && spec.Driver != "bridge" {
		return nil, fmt.Errorf(
			"driver %q: want bridge: %w", spec.Driver, errdefs.ErrInvalidArgument,
		)
	}
	opts, err := parseOptions(spec.Options)
	if err != nil {
		return nil, err
	}
	rec := networkRecord{Version: recordVersion, Phase: p, Default: device != ""}
	for {
		rec.ID = randomHex(32)
		rec.Device = device
		if device == "" {
			rec.Device = m.cfg.Prefix + "-" + rec.ID[:8]
		}
		if opts.device != "" {
			rec.Device = opts.device
		}
		if _, taken := m.networks[rec.ID]; !taken {
			break
		}
	}
	var taken []netip.Prefix
	for _, n := range m.networks {
		if n.rec.Name == spec.Name {
			return nil, fmt.Errorf(
				"network with name %s already exists: %w", spec.Name, errdefs.ErrAlreadyExists,
			)
		}
		if n.rec.Device == rec.Device {
			return nil, fmt.Errorf(
				"interface %q already belongs to network %q: %w", rec.Device, n.rec.Name,
				errdefs.ErrAlreadyExists,
			)
		}
		for _, s := range n.rec.Subnets {
			taken = append(taken, s.Prefix)
		}
	}
	if opts.device != "" {
		if _, err := m.rt.ByName(opts.device); err == nil {
			return nil, fmt.Errorf(
				"network option %q: interface %q exists already: %w", optDevice, opts.device,
				errdefs.ErrAlreadyExists,
			)
		} else if !errors.Is(err, unix.ENODEV) {
			return nil, err
		}
	}
	if rec.Subnets, err = m.subnets(spec, taken); err != nil {
		return nil, err
	}
	rec.Name, rec.Driver, rec.Created = spec.Name, "bridge", now().UTC()
	rec.Internal, rec.EnableIPv6 = spec.Internal, spec.EnableIPv6 || len(rec.Subnets) > 1
	rec.Labels, rec.Options = maps.Clone(spec.Labels), maps.Clone(spec.Options)
	n, err := m.newNetwork(rec)
	if err != nil {
		return nil, err
	}
	m.cfg.Fault("create: write record")
	if err := m.store.durable(networkFile(rec.ID), rec); err != nil {
		return nil, err
	}
	m.networks[rec.ID] = n
	return n, nil
}

// subnets completes the subnets of a wish. Precondition: m.mu is held.
func (m *Manager) subnets(spec Spec, taken []netip.Prefix) ([]Subnet, error) {
	var v4, v6 *Subnet
	for _, s := range spec.Subnets {
		if !s.Prefix.IsValid() {
			return nil, fmt.Errorf("subnet: not a prefix: %w", errdefs.ErrInvalidArgument)
		}
		place, limit := &v4, 30
		if s.Prefix.Addr().Is6() {
			place, limit = &v6, 126
		}
		if *place != nil {
			return nil, fmt.Errorf(
				"subnet %q: second of its family, want at most one of IPv4 and one of IPv6: %w",
				s.Prefix, errdefs.ErrInvalidArgument,
			)
		}
		if s.Prefix.Bits() > limit || s.Prefix.Bits() == 0 {
			return nil, fmt.Errorf(
				"subnet %q: want a prefix length of 1 to %d: %w", s.Prefix, limit,
				errdefs.ErrInvalidArgument,
			)
		}
		if s.Prefix != s.Prefix.Masked() {
			return nil, fmt.Errorf(
				"subnet %q: address bits are set behind the prefix, want %q: %w", s.Prefix,
				s.Prefix.Masked(), errdefs.ErrInvalidArgument,
			)
		}
		if a := s.Prefix.Addr(); a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
			return nil, fmt.Errorf(
				"subnet %q: loopback, multicast and link-local addresses cannot be used: %w",
				s.Prefix, errdefs.ErrInvalidArgument,
			)
		}
		for _, t := range taken {
			if t.Overlaps(s.Prefix) {
				return nil, fmt.Errorf(
					"subnet %q overlaps %q of another network: %w", s.Prefix, t,
					errdefs.ErrFailedPrecondition,
				)
			}
		}
		if s.Gateway.IsValid() && !s.Prefix.Contains(s.Gateway) {
			return nil, fmt.Errorf(
				"gateway %q: not inside subnet %q: %w", s.Gateway, s.Prefix,
				errdefs.ErrInvalidArgument,
			)
		}
		*place = &s
	}
	fromPool := func(blocks []ipam.Block) (*Subnet, error) {
		hosts, err := m.rt.Prefixes(m.ownIndexes())
		if err != nil {
			return nil, err
		}
		p, err := ipam.NextSubnet(blocks, append(hosts, taken...))
		return &Subnet{Prefix: p}, err
	}
	var err error
	if v4 == nil {
		if v4, err = fromPool(m.cfg.Pools); err != nil {
			return nil, err
		}
	}
	if v6 == nil && spec.EnableIPv6 {
		base := m.host.PoolV6
		if m.cfg.PoolV6.IsValid() {
			base = m.cfg.PoolV6.Masked()
		}
		if v6, err = fromPool([]ipam.Block{{Base: base, Bits: 64}}); err != nil {
			return nil, err
		}
	}
	var out []Subnet
	for _, s := range []*Subnet{v4, v6} {
		if s == nil {
			continue
		}
		if !s.Gateway.IsValid() {
			s.Gateway = ipam.FirstHost(s.Prefix)
		}
		out = append(out, *s)
	}
	return out, nil
}

// ownIndexes says of an interface's index whether it is ours.
func (m *Manager) ownIndexes() func(int) bool {
	links, err := m.rt.Links()
	ours := map[int]bool{}
	for _, l := range links {
		ours[l.Index] = err == nil && m.own.MatchString(l.Name)
	}
	return func(i int) bool { return ours[i] }
}

// bringUp makes what the network needs in the kernel, as far as it is not there.
func (m *Manager) bringUp(n *network) error {
	n.setup.Lock()
	defer n.setup.Unlock()
	if n.up {
		return nil
	}
	if err := m.forward(n.v6.Prefix.IsValid()); err != nil {
		return fmt.Errorf("bring up network %q: %w", n.rec.Name, err)
	}
	if err := m.rediscover(n); err != nil {
		return fmt.Errorf("bring up network %q: %w", n.rec.Name, err)
	}
	for i := range n.shards {
		if err := m.bringUpShard(n, i); err != nil {
			return fmt.Errorf("bring up network %q: %w", n.rec.Name, err)
		}
	}
	m.mu.Lock()
	n.filtered = true
	m.mu.Unlock()
	m.cfg.Fault("bring up: filter")
	if err := m.filter(
		firewall.State{}, firewall.State{Networks: []firewall.Network{n.filter()}}, incremental,
	); err != nil {
		return fmt.Errorf("bring up network %q: %w", n.rec.Name, err)
	}
	m.cfg.Fault("bring up: resolver")
	if err := m.names.join(m, n); err != nil {
		return fmt.Errorf("bring up network %q: %w", n.rec.Name, err)
	}
	n.up = true
	return nil
}

// bridgeAddresses are the addresses of the bridge itself.
func (n *network) bridgeAddresses() []netip.Prefix {
	out := []netip.Prefix{netip.PrefixFrom(n.v4.Gateway, n.v4.Prefix.Bits())}
	if n.v6.Prefix.IsValid() {
		out = append(out, netip.PrefixFrom(n.v6.Gateway, n.v6.Prefix.Bits()))
	}
	return out
}

// RemoveNetwork removes a network. Errors: errdefs.ErrNotFound; ErrFailedPrecondition while
// containers are attached; ErrPermissionDenied for the default network.
func (m *Manager) RemoveNetwork(ctx context.Context, ref string) error {
	if err := m.alive(ctx); err != nil {
		return err
	}
	n, err := m.find(ref)
	if err != nil {
		return err
	}
	m.mu.Lock()
	if n.rec.Default {
		err = fmt.Errorf(
			"%s is a pre-defined network and cannot be removed: %w", n.rec.Name,
			errdefs.ErrPermissionDenied,
		)
	}
	var names []string
	for _, ep := range m.endpoints {
		if ep.net == n {
			names = append(names, fmt.Sprintf("%q", ep.rec.Name))
		}
	}
	if len(names) > 0 {
		sort.Strings(names)
		err = fmt.Errorf(
			"network %s has active endpoints: %s: %w", n.rec.Name, strings.Join(names, ", "),
			errdefs.ErrFailedPrecondition,
		)
	}
	if err == nil && n.removing {
		err = fmt.Errorf("network %s not found: %w", ref, errdefs.ErrNotFound)
	}
	if err == nil {
		n.removing = true
		n.rec.Phase = phaseRemoving
	}
	rec := n.rec
	m.mu.Unlock()
	if err != nil {
		return err
	}
	m.cfg.Fault("remove: write record")
	if err := m.store.durable(networkFile(rec.ID), rec); err != nil {
		m.mu.Lock()
		n.removing, n.rec.Phase = false, phaseReady
		m.mu.Unlock()
		return fmt.Errorf("remove network %q: %w", rec.Name, err)
	}
	if err := m.discard(n); err != nil {
		return fmt.Errorf("remove network %q: %w", rec.Name, err)
	}
	return nil
}

// discard removes everything of a network that nobody is attached to: pool, filter, bridges,
// record.
func (m *Manager) discard(n *network) error {
	m.mu.Lock()
	n.removing = true
	ready := n.ready
	n.ready = nil
	was := n.filter()
	filtered := n.filtered
	n.filtered = false
	m.mu.Unlock()
	var errs []error
	for _, sb := range ready {
		errs = append(errs, m.destroy(sb))
	}
	// A namespace that is being prepared in the background finds the network gone and destroys
	// itself; its pair goes with the bridge's ports.
	n.setup.Lock()
	defer n.setup.Unlock()
	n.up = false
	m.cfg.Fault("discard: filter")
	if filtered {
		errs = append(
			errs,
			m.filter(
				firewall.State{Networks: []firewall.Network{was}}, firewall.State{}, incremental,
			),
		)
	}
	errs = append(errs, m.names.leave(m, n))
	m.cfg.Fault("discard: bridges")
	errs = append(errs, m.takeDown(n))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	m.cfg.Fault("discard: record")
	if err := m.store.remove(networkFile(n.rec.ID)); err != nil {
		return err
	}
	m.mu.Lock()
	delete(m.networks, n.rec.ID)
	m.mu.Unlock()
	return nil
}

// takeDown removes a network's bridges and what hangs on them.
func (m *Manager) takeDown(n *network) error {
	links, err := m.rt.Links()
	if err != nil {
		return err
	}
	root := 0
	for _, l := range links {
		if l.Name == n.rec.Device && l.Kind == "bridge" {
			root = l.Index
		}
	}
	var bridges []link.Info
	for _, l := range links {
		if l.Index == root || (l.Kind == "bridge" && m.isShardOf(n, l.Name)) {
			bridges = append(bridges, l)
		}
	}
	var ports, rest []link.Request
	for _, b := range bridges {
		for _, l := range links {
			if l.Master == b.Index && m.own.MatchString(l.Name) {
				ports = append(ports, link.Delete(l.Index))
			}
		}
		rest = append(rest, link.Delete(b.Index))
	}
	return errors.Join(m.deleteAll(ports), m.deleteAll(rest))
}

// gone is no error when the interface had gone already.
func gone(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// warnOfBlockers tells once per cause that a table of others keeps containers from the outside.
func (m *Manager) warnOfBlockers() {
	blockers, err := m.fw.Blockers()
	if err != nil {
		m.cfg.Logger.Warn("cannot look for packet filters of others", "error", err)
	}
	for _, b := range blockers {
		m.cfg.Logger.Warn("a packet filter of another program drops forwarded packets by policy; unless it has rules for our bridges, containers reach no other host",
			"chain", b, "bridges", m.cfg.Prefix+"*")
	}
}
