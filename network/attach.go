package network

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"strake/network/link"
)

// Attach gives a container an interface in a network: the first call for a ContainerID makes its
// network namespace, later ones add to it. Ports are published when it returns. A chosen address
// whose former holder is still being removed is waited for. Errors: errdefs.ErrNotFound for the
// network; ErrAlreadyExists for an endpoint ID, an address, a container of another owner or a
// second attachment to the same network; ErrInvalidArgument; ErrResourceExhausted; a
// *PortInUseError.
func (m *Manager) Attach(ctx context.Context, req Request) (*Attachment, error) {
	if err := m.reg.alive(ctx); err != nil {
		return nil, err
	}
	if err := req.validate(); err != nil {
		return nil, err
	}
	req.Owner = m.cfg.owner(req.Owner)
	n, err := m.find(req.Network)
	if err != nil {
		return nil, err
	}
	ep, err := m.attach(ctx, n, req)
	if err != nil {
		return nil, fmt.Errorf(
			"attach container %q to network %q: %w", req.ContainerID, n.rec.Name, err,
		)
	}
	return ep, nil
}

// attach is Attach with the network at hand.
func (m *Manager) attach(ctx context.Context, n *network, req Request) (*Attachment, error) {
	if n.rec.Internal && len(req.Ports) > 0 {
		return nil, fmt.Errorf(
			"port %d/%s: an internal network publishes no ports: %w", req.Ports[0].ContainerPort,
			protoOf(req.Ports[0].Proto), errdefs.ErrInvalidArgument,
		)
	}
	if err := m.bridges.bringUp(n); err != nil {
		return nil, err
	}
	sb, created, err := m.enter(n, &req)
	if err != nil {
		return nil, err
	}
	if !created {
		return m.attachMore(ctx, sb, n, req)
	}
	defer sb.mu.Unlock()
	if sb.ns == nil {
		if err := m.prepareFor(ctx, sb, n, req); err != nil {
			m.reg.dropSandbox(sb)
			return nil, err
		}
	}
	if len(req.Ports) > 0 || req.requested().any() {
		// The port of the bridge gets a setting, and other hosts learn of the address. Addresses
		// that a user chose are not for the pool.
		sb.recycling = DestroyAfterUse
	}
	ep, err := m.endpoints.register(sb, n, req, *sb.first)
	if err != nil {
		m.reg.dropSandbox(sb)
		return nil, errors.Join(err, m.pool.recycle(sb))
	}
	return ep.attachment(), nil
}

// enter finds the container's sandbox or makes one: a namespace of the pool, or, where the pool has
// none that fits, a place holder that keeps a second Attach of the same container waiting. sb.mu is
// held if it was created here.
func (m *Manager) enter(n *network, req *Request) (sb *sandbox, created bool, err error) {
	m.reg.mu.Lock()
	defer m.reg.mu.Unlock()
	if req.EndpointID == "" {
		req.EndpointID = randomHex(32)
	} else if m.reg.endpoints[req.EndpointID] != nil {
		return nil, false, fmt.Errorf(
			"endpoint %s exists: %w", req.EndpointID, errdefs.ErrAlreadyExists,
		)
	}
	n.used = true
	if sb := m.reg.sandboxes[req.ContainerID]; sb != nil {
		return sb, false, nil
	}
	if len(n.ready) > 0 && !req.requested().any() {
		sb, n.ready = n.ready[0], n.ready[1:]
	} else {
		sb = &sandbox{}
	}
	sb.mu.Lock()
	sb.owner, sb.container, sb.recycling = req.Owner, req.ContainerID, req.Recycling
	m.reg.sandboxes[req.ContainerID] = sb
	m.pool.refill(n)
	return sb, true, nil
}

// prepareFor turns a place holder into a namespace. Precondition: sb.mu is held.
func (m *Manager) prepareFor(ctx context.Context, sb *sandbox, n *network, req Request) error {
	made, err := m.pool.prepare(ctx, n, req.requested(), waitForIt, link.Create)
	if err != nil {
		return err
	}
	sb.ns, sb.cookie, sb.initial = made.ns, made.cookie, made.initial
	sb.first, sb.net = made.first, made.net
	return nil
}

// attachMore adds an interface to a container's namespace.
func (m *Manager) attachMore(
	ctx context.Context, sb *sandbox, n *network, req Request,
) (*Attachment, error) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	switch {
	case sb.gone:
		return nil, fmt.Errorf("container is being released: %w", errdefs.ErrUnavailable)
	case req.Owner != sb.owner:
		return nil, fmt.Errorf(
			"container belongs to owner %q, not %q: %w", sb.owner, req.Owner,
			errdefs.ErrAlreadyExists,
		)
	case sb.ns == nil:
		return nil, fmt.Errorf(
			"network namespace of the container is not known yet: %w", errdefs.ErrUnavailable,
		)
	}
	used := map[string]bool{}
	published := false
	for _, ep := range sb.endpoints {
		if ep.net == n {
			return nil, fmt.Errorf("container is attached already: %w", errdefs.ErrAlreadyExists)
		}
		used[ep.veth.name] = true
		published = published || len(ep.rec.Ports) > 0
	}
	if used[req.Interface] {
		return nil, fmt.Errorf(
			"container has an interface %q: %w", req.Interface, errdefs.ErrAlreadyExists,
		)
	}
	gateways, replaced := sb.gateways(n, req.GatewayPriority)
	if replaced && published {
		// Answers of the published ports would leave through another network than they came.
		return nil, fmt.Errorf(
			"gateway priority %d: the container has ports published in the network that is its "+
				"way out: %w", req.GatewayPriority, errdefs.ErrFailedPrecondition,
		)
	}
	name := ""
	for i := 0; name == "" || used[name]; i++ {
		name = fmt.Sprintf("eth%d", i)
	}
	veth, err := m.ifaces.allocate(ctx, n, req.requested(), name, waitForIt)
	if err != nil {
		return nil, err
	}
	err = link.Enter(sb.ns, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		return m.ifaces.create(n, veth, sb.ns, rt, gateways, ordinal(len(sb.endpoints) == 0))
	})
	sb.recycling = DestroyAfterUse
	var ep *endpoint
	if err == nil {
		ep, err = m.endpoints.register(sb, n, req, *veth)
	}
	if err != nil {
		err = errors.Join(err, m.ifaces.remove(n, veth))
		if replaced {
			err = errors.Join(err, m.reroute(sb))
		}
		return nil, err
	}
	return ep.attachment(), nil
}
