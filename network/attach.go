package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/network/firewall"
	"strake/network/link"
)

// Attach gives a container an interface in a network: the first call for a ContainerID makes its
// network namespace, later ones add to it. Ports are published when it returns. Errors:
// errdefs.ErrNotFound for the network; ErrAlreadyExists for an endpoint ID, an address or a second
// attachment to the same network; ErrInvalidArgument; ErrResourceExhausted; a port that is taken is
// an errdefs.ErrAlreadyExists that says by whom.
func (m *Manager) Attach(ctx context.Context, req Request) (*Attachment, error) {
	if err := m.alive(ctx); err != nil {
		return nil, err
	}
	if err := req.validate(); err != nil {
		return nil, err
	}
	n, err := m.find(req.Network)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Attachment, error) {
		return nil, fmt.Errorf(
			"attach container %q to network %q: %w", req.ContainerID, n.rec.Name, err,
		)
	}
	if n.rec.Internal && len(req.Ports) > 0 {
		return fail(
			fmt.Errorf(
				"port %d/%s: an internal network publishes no ports: %w",
				req.Ports[0].ContainerPort, req.Ports[0].Proto, errdefs.ErrInvalidArgument,
			),
		)
	}
	if err := m.bringUp(n); err != nil {
		return fail(err)
	}
	m.mu.Lock()
	if req.EndpointID == "" {
		req.EndpointID = randomHex(32)
	} else if m.endpoints[req.EndpointID] != nil {
		m.mu.Unlock()
		return fail(fmt.Errorf("endpoint %s exists: %w", req.EndpointID, errdefs.ErrAlreadyExists))
	}
	n.used = true
	sb := m.sandboxes[req.ContainerID]
	if sb != nil {
		m.mu.Unlock()
		return m.attachMore(sb, n, req, fail)
	}
	if len(n.ready) > 0 && !(wish{req.IPv4, req.IPv6, req.MAC}).any() {
		sb, n.ready = n.ready[0], n.ready[1:]
		sb.container, sb.recycling = req.ContainerID, req.Recycling
		sb.owner = m.cfg.owner(req.Owner)
		sb.mu.Lock()
		defer sb.mu.Unlock()
		m.sandboxes[req.ContainerID] = sb
		m.refill(n)
		m.mu.Unlock()
	} else {
		// A place holder keeps a second Attach of the same container waiting.
		sb = &sandbox{
			owner: m.cfg.owner(req.Owner), container: req.ContainerID, recycling: req.Recycling,
		}
		sb.mu.Lock()
		defer sb.mu.Unlock()
		m.sandboxes[req.ContainerID] = sb
		m.refill(n)
		m.mu.Unlock()
		made, err := m.prepare(n, wish{req.IPv4, req.IPv6, req.MAC}, link.Create)
		if err != nil {
			m.forget(sb)
			return fail(err)
		}
		sb.ns, sb.cookie, sb.first, sb.net, sb.born = made.ns, made.cookie, made.first, made.net, made.born
		if (wish{req.IPv4, req.IPv6, req.MAC}).any() {
			// Chosen by a user and so not for the pool.
			sb.recycling = DestroyAfterUse
		}
	}
	if len(req.Ports) > 0 {
		// The port of the bridge gets a setting, and peers learn of the address.
		sb.recycling = DestroyAfterUse
	}
	ep, err := m.enrol(sb, n, req, *sb.first)
	if err != nil {
		m.forget(sb)
		return fail(errors.Join(err, m.launder(sb)))
	}
	return ep.attachment(), nil
}

// forget removes a sandbox from the containers. Precondition: sb.mu is held.
func (m *Manager) forget(sb *sandbox) {
	sb.gone = true
	m.mu.Lock()
	delete(m.sandboxes, sb.container)
	m.mu.Unlock()
}

// launder gives a sandbox of one interface to those who decide whether it is used again.
func (m *Manager) launder(sb *sandbox) error {
	if sb.recycling == RecycleIfClean && m.bg.add(func(t *link.Thread) { m.wash(t, sb) }) {
		return nil
	}
	return m.bury(sb, spent, []*network{sb.net}, []wire{*sb.first})
}

// attachMore adds an interface to a container's namespace.
func (m *Manager) attachMore(
	sb *sandbox, n *network, req Request, fail func(error) (*Attachment, error),
) (*Attachment, error) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.gone {
		return fail(fmt.Errorf("container is being released: %w", errdefs.ErrUnavailable))
	}
	if owner := m.cfg.owner(req.Owner); owner != sb.owner {
		return fail(
			fmt.Errorf(
				"container belongs to owner %q, not %q: %w", sb.owner, owner,
				errdefs.ErrAlreadyExists,
			),
		)
	}
	if sb.ns == nil {
		return fail(
			fmt.Errorf(
				"network namespace of the container is not known yet: %w", errdefs.ErrUnavailable,
			),
		)
	}
	used := map[string]bool{}
	hasWayOut := false
	for _, ep := range sb.endpoints {
		if ep.net == n {
			return fail(fmt.Errorf("container is attached already: %w", errdefs.ErrAlreadyExists))
		}
		used[ep.wire.name] = true
		hasWayOut = hasWayOut || !ep.net.rec.Internal
	}
	name := ""
	for i := 0; name == "" || used[name]; i++ {
		name = fmt.Sprintf("eth%d", i)
	}
	wr, err := m.allot(n, wish{req.IPv4, req.IPv6, req.MAC}, name)
	if err != nil {
		return fail(err)
	}
	gateways := n.gateways()
	if hasWayOut {
		gateways = nil
	}
	err = link.Enter(sb.ns, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		return m.plug(n, wr, sb.ns, rt, gateways, ordinal(len(sb.endpoints) == 0))
	})
	sb.recycling = DestroyAfterUse
	if err != nil {
		return fail(errors.Join(err, m.unplug(n, wr)))
	}
	ep, err := m.enrol(sb, n, req, *wr)
	if err != nil {
		return fail(errors.Join(err, m.unplug(n, wr)))
	}
	return ep.attachment(), nil
}

// enrol registers an endpoint whose interface is in place: record, ports, names. On failure nothing
// of it stays. Precondition: sb.mu is held.
func (m *Manager) enrol(sb *sandbox, n *network, req Request, wr wire) (*endpoint, error) {
	info, err := m.rt.ByName(wr.host)
	if err != nil {
		return nil, err
	}
	ep := &endpoint{net: n, sandbox: sb, wire: wr, rec: endpointRecord{
		Version: recordVersion, ID: req.EndpointID, Owner: sb.owner, ContainerID: req.ContainerID,
		NetworkID: n.rec.ID, Name: req.Name,
		Names: callable(req), DNS: req.DNS, IPv4: wr.v4, IPv6: wr.v6, MAC: wr.mac.String(),
		Host: wr.host, Interface: wr.name,
		Cookie: sb.cookie, Recycling: req.Recycling, Baseline: Stats{}.of(info.Stats),
	}}
	if ep.rec.Ports, ep.holders, err = m.publish(ep, req.Ports); err != nil {
		return nil, err
	}
	undo := func(err error) (*endpoint, error) {
		return nil, errors.Join(err, m.closeHolders(ep), m.store.remove(endpointFile(ep.rec.ID)))
	}
	m.cfg.Fault("attach: record")
	if err := m.store.quick(endpointFile(ep.rec.ID), ep.rec); err != nil {
		return undo(err)
	}
	m.mu.Lock()
	if m.closed || n.removing {
		m.mu.Unlock()
		return undo(fmt.Errorf("network %q is being removed: %w", n.rec.Name, errdefs.ErrNotFound))
	}
	m.endpoints[ep.rec.ID] = ep
	m.mu.Unlock()
	if len(ep.rec.Ports) > 0 {
		m.cfg.Fault("attach: filter")
		s := firewall.State{Ports: ep.filter(ep.rec.Ports)}
		err := m.hairpin(info.Index)
		if err == nil {
			err = m.filter(firewall.State{}, s, incremental)
		}
		if err == nil {
			// A flow that began before the port was published would go on past the new rule.
			err = m.forgetPublished(s.Ports)
		}
		if err != nil {
			m.mu.Lock()
			delete(m.endpoints, ep.rec.ID)
			m.mu.Unlock()
			return undo(errors.Join(err, m.filter(s, firewall.State{}, incremental)))
		}
	}
	sb.endpoints = append(sb.endpoints, ep)
	m.names.add(ep)
	m.cfg.Fault("attach: done")
	return ep, nil
}

// hairpin lets a container reach itself through a published port where bridged packets go through
// the packet filter (br_netfilter): there the kernel sends the translated packet back over the
// bridge instead of routing it. The container then hears its own broadcasts, so it is set only
// there.
func (m *Manager) hairpin(index int) error {
	var filtered bool
	err := link.Enter(m.cfg.NetNS, func() error {
		for _, name := range []string{
			"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables",
		} {
			v, err := readSysctl(name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			filtered = filtered || v == "1"
		}
		return nil
	})
	if err != nil || !filtered {
		return err
	}
	return m.rt.Do(link.SetPortFlag(index, link.Hairpin))
}

// callable is everything that other containers can call a container.
func callable(req Request) []string {
	var out []string
	seen := map[string]bool{"": true}
	for _, n := range append(
		[]string{req.Name, req.Hostname, req.ContainerID[:min(12, len(req.ContainerID))]},
		req.Aliases...,
	) {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

// filter is the table's view of ports of the endpoint.
func (ep *endpoint) filter(ports []PortBinding) []firewall.Port {
	var out []firewall.Port
	for _, p := range ports {
		to := ep.rec.IPv4.Addr()
		if p.HostIP.Is6() {
			to = ep.rec.IPv6.Addr()
		}
		if to.IsValid() {
			out = append(
				out,
				firewall.Port{
					Proto: p.Proto, HostAddr: p.HostIP, HostPort: p.HostPort,
					To: netip.AddrPortFrom(to, p.ContainerPort),
				},
			)
		}
	}
	return out
}

func (ep *endpoint) attachment() *Attachment {
	a := &Attachment{
		EndpointID: ep.rec.ID, NetworkID: ep.rec.NetworkID, NetNS: ep.sandbox.ns,
		NetNSPath: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ep.sandbox.ns.Fd()),
		Interface: ep.wire.name, IPv4: ep.wire.v4, IPv6: ep.wire.v6,
		MAC:   append(net.HardwareAddr(nil), ep.wire.mac...),
		Ports: append([]PortBinding(nil), ep.rec.Ports...),
	}
	for _, gw := range ep.net.gateways() {
		if gw.Is4() {
			a.Gateway4 = gw
		} else {
			a.Gateway6 = gw
		}
	}
	return a
}

// Detach takes one interface from a container that goes on running ("network disconnect"). Its
// namespace stays, and another network becomes the way out. It is no error when there is no such
// endpoint. When the container has ended, Release is what is meant.
func (m *Manager) Detach(ctx context.Context, endpointID string) error {
	if err := m.alive(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	ep := m.endpoints[endpointID]
	m.mu.Unlock()
	if ep == nil {
		return nil
	}
	sb := ep.sandbox
	sb.mu.Lock()
	defer sb.mu.Unlock()
	at := -1
	for i, e := range sb.endpoints {
		if e == ep {
			at = i
		}
	}
	if at < 0 {
		return nil // somebody else was faster
	}
	sb.endpoints = append(sb.endpoints[:at:at], sb.endpoints[at+1:]...)
	sb.recycling = DestroyAfterUse
	if sb.first != nil && sb.first.host == ep.wire.host {
		sb.first = nil
	}
	err := m.strike(ep)
	wr := ep.wire
	err = errors.Join(err, m.unplug(ep.net, &wr))
	if len(sb.endpoints) == 0 || sb.ns == nil {
		if len(sb.endpoints) == 0 && sb.ns == nil {
			m.forget(sb)
		}
		return err
	}
	return errors.Join(err, m.reroute(sb))
}

// reroute makes the first network that has a way out the container's default, and its interface the
// one towards the resolver.
func (m *Manager) reroute(sb *sandbox) error {
	return link.Enter(sb.ns, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		var reqs []link.Request
		for i, ep := range sb.endpoints {
			info, err := rt.ByName(ep.wire.name)
			if err != nil {
				return err
			}
			if i == 0 {
				reqs = append(reqs, resolverRoute(info.Index))
			}
			if gws := ep.net.gateways(); len(gws) > 0 {
				reqs = append(reqs, defaultRoutes(info.Index, gws)...)
				break
			}
		}
		var errs []error
		for _, r := range reqs {
			// The kernel removed the routes of the interface that went; those of others are there
			// already.
			if err := rt.Do(r); err != nil && !errors.Is(err, unix.EEXIST) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
}

// strike undoes enrol: ports, names, record. The interface stays. Precondition: ep.sandbox.mu is
// held, or nobody else knows ep.
func (m *Manager) strike(ep *endpoint) error {
	m.names.drop(ep)
	m.mu.Lock()
	delete(m.endpoints, ep.rec.ID)
	m.mu.Unlock()
	var errs []error
	if len(ep.rec.Ports) > 0 {
		s := firewall.State{Ports: ep.filter(ep.rec.Ports)}
		m.cfg.Fault("detach: filter")
		errs = append(errs, m.filter(s, firewall.State{}, incremental), m.forgetPublished(s.Ports))
	}
	errs = append(errs, m.closeHolders(ep))
	m.cfg.Fault("detach: record")
	errs = append(errs, m.store.remove(endpointFile(ep.rec.ID)))
	return errors.Join(errs...)
}

// Release gives back everything of a container that has ended: interfaces, addresses, ports, names,
// and its namespace, which another container may get if the first Request allowed that.
// Preconditions: none of its processes is left. It is no error when the container is not known.
func (m *Manager) Release(ctx context.Context, containerID string) error {
	if err := m.alive(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	sb := m.sandboxes[containerID]
	m.mu.Unlock()
	if sb == nil {
		return nil
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.gone {
		return nil
	}
	var (
		errs  []error
		nets  []*network
		wires []wire
	)
	for _, ep := range sb.endpoints {
		errs = append(errs, m.strike(ep))
		nets, wires = append(nets, ep.net), append(wires, ep.wire)
	}
	sb.endpoints = nil
	m.forget(sb)
	if sb.ns != nil && sb.first != nil && len(wires) == 1 {
		errs = append(errs, m.launder(sb))
	} else {
		errs = append(errs, m.bury(sb, spent, nets, wires))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release network of container %q: %w", containerID, err)
	}
	return nil
}
