package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"strake/network/link"
)

// Detach takes one interface from a container that goes on running ("network disconnect"). Its
// namespace stays, and another network becomes the way out. It is no error when there is no such
// endpoint. A container that has ended is given back by Release instead.
func (m *Manager) Detach(ctx context.Context, endpointID string) error {
	if err := m.reg.alive(ctx); err != nil {
		return err
	}
	ep := m.reg.endpoint(endpointID)
	if ep == nil {
		return nil
	}
	sb := ep.sandbox
	sb.mu.Lock()
	defer sb.mu.Unlock()
	at := slices.Index(sb.endpoints, ep)
	if at < 0 {
		return nil // another caller was faster
	}
	sb.endpoints = slices.Concat(sb.endpoints[:at], sb.endpoints[at+1:])
	sb.recycling = DestroyAfterUse
	if sb.first != nil && sb.first.host == ep.veth.host {
		sb.first = nil
	}
	err := errors.Join(m.endpoints.unregister(ep), m.ifaces.remove(ep.net, &ep.veth))
	switch {
	case len(sb.endpoints) > 0 && sb.ns != nil:
		return errors.Join(err, m.reroute(sb))
	case len(sb.endpoints) == 0 && sb.ns == nil:
		m.reg.dropSandbox(sb)
	}
	return err
}

// reroute makes the container's ways out those that its networks' priorities decide, and the
// interface of its first network the one towards the resolver. The kernel has removed the routes of
// an interface that went. Precondition: sb.mu is held.
func (m *Manager) reroute(sb *sandbox) error {
	return link.Enter(sb.ns, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		var reqs []link.Request
		v4, v6 := sb.wayOut(false), sb.wayOut(true)
		for i, ep := range sb.endpoints {
			info, err := rt.ByName(ep.veth.name)
			if err != nil {
				return err
			}
			if i == 0 {
				reqs = append(reqs, resolverRoute(info.Index))
			}
			for _, gw := range ep.net.gateways() {
				if gw.Is4() && ep == v4 || gw.Is6() && ep == v6 {
					reqs = append(reqs, defaultRoutes(info.Index, []netip.Addr{gw})...)
				}
			}
		}
		var errs []error
		for _, r := range reqs {
			if err := rt.Do(r); err != nil && !errors.Is(err, unix.EEXIST) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	})
}

// Release gives back everything of a container that has ended: interfaces, addresses, ports, names,
// and its namespace, which another container may get if the first Request allowed that. It is no
// error when the container is not known. Precondition: no process of the container is left.
func (m *Manager) Release(ctx context.Context, containerID string) error {
	if err := m.reg.alive(ctx); err != nil {
		return err
	}
	sb := m.reg.sandbox(containerID)
	if sb == nil {
		return nil
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.gone {
		return nil
	}
	var errs []error
	var pairs []removal
	for _, ep := range sb.endpoints {
		errs = append(errs, m.endpoints.unregister(ep))
		pairs = append(pairs, removal{net: ep.net, veth: ep.veth, use: wasUsed})
	}
	sb.endpoints = nil
	m.reg.dropSandbox(sb)
	if sb.ns != nil && sb.first != nil && len(pairs) == 1 {
		errs = append(errs, m.pool.recycle(sb))
	} else {
		errs = append(errs, m.removals.addAll(sb, pairs))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release network of container %q: %w", containerID, err)
	}
	return nil
}

// ForbidRecycling says that the preconditions of RecycleIfUnused no longer hold for a container: a
// process with more rights has entered its namespace. The namespace is destroyed after use. An
// unknown container is no error.
func (m *Manager) ForbidRecycling(containerID string) {
	sb := m.reg.sandbox(containerID)
	if sb == nil {
		return
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	sb.recycling = DestroyAfterUse
}
