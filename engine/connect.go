package engine

import (
	"context"
	"maps"

	"github.com/containerd/errdefs"

	"strake/engine/message"
)

// ConnectNetwork adds a container to a network ("docker network connect"): at once if it runs, else at its next start.
func (e *Engine) ConnectNetwork(ctx context.Context, name, network string, ep EndpointSpec) error {
	return e.changeNetworks(ctx, name, func(c *container, eps map[string]EndpointSpec, sb *sandbox) error {
		if _, ok := eps[network]; ok {
			return message.New(errdefs.ErrConflict, "container %s is already attached to network %s", c.id, network)
		}
		if sb != nil {
			info, err := e.cfg.Network.Connect(ctx, &NetworkRequest{
				ID: c.id, Name: c.spec.Name, Hostname: c.hostname(), Endpoints: map[string]EndpointSpec{network: ep},
			}, network)
			if err != nil {
				return err
			}
			sb.Endpoints[network] = info
		}
		eps[network] = ep
		e.events.publish(Event{Type: "network", Action: "connect", ID: network, Attributes: map[string]string{"container": c.id, "name": network}})
		return nil
	})
}

// DisconnectNetwork takes a container out of a network.
func (e *Engine) DisconnectNetwork(ctx context.Context, name, network string) error {
	return e.changeNetworks(ctx, name, func(c *container, eps map[string]EndpointSpec, sb *sandbox) error {
		if _, ok := eps[network]; !ok {
			return message.New(errdefs.ErrNotFound, "container %s is not connected to network %s", c.id, network)
		}
		if sb != nil {
			if err := e.cfg.Network.Disconnect(ctx, sb.Endpoints[network].EndpointID); err != nil {
				return err
			}
			delete(sb.Endpoints, network)
		}
		delete(eps, network)
		e.events.publish(Event{Type: "network", Action: "disconnect", ID: network, Attributes: map[string]string{"container": c.id, "name": network}})
		return nil
	})
}

// changeNetworks lets f change copies of a container's wishes and, if it runs, of what it has, and keeps them.
func (e *Engine) changeNetworks(ctx context.Context, name string, f func(c *container, eps map[string]EndpointSpec, sb *sandbox) error) error {
	c, err := e.lock(ctx, name)
	if err != nil {
		return err
	}
	defer c.op.leave()
	if !ownNetwork(c.spec.Network) {
		return message.New(errdefs.ErrConflict, "container %s has the network mode %q and cannot be connected to networks", c.id, c.spec.Network)
	}
	eps := maps.Clone(wantedEndpoints(&c.spec))
	r := c.running()
	var sb *sandbox
	if r != nil {
		copied := *r.sandbox
		copied.Endpoints = maps.Clone(copied.Endpoints)
		sb = &copied
	}
	if err := f(c, eps, sb); err != nil {
		return err
	}
	c.mu.Lock()
	s := c.spec
	s.Endpoints = eps
	c.spec = s
	if r != nil {
		r.sandbox = sb
	}
	c.mu.Unlock()
	if err := e.saveSpec(c); err != nil {
		return err
	}
	return e.save(c)
}

// ownNetwork says whether a network mode means networks of one's own.
func ownNetwork(mode string) bool {
	return mode != "host" && mode != "none" && !isContainerMode(mode)
}

// wantedEndpoints are the networks a container is to be in: those it names, or the primary one alone.
func wantedEndpoints(s *Spec) map[string]EndpointSpec {
	if s.Endpoints != nil {
		return s.Endpoints
	}
	return map[string]EndpointSpec{primaryNetwork(s): {}}
}

func primaryNetwork(s *Spec) string {
	if s.Network == "" || s.Network == "default" {
		return "bridge"
	}
	return s.Network
}

func (c *container) hostname() string {
	if c.spec.Hostname != "" {
		return c.spec.Hostname
	}
	return shortID(c.id)
}
