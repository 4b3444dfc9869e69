package supervisor

import (
	"context"
	"errors"
	"maps"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/engine/ocispec"
	"strake/internal/message"
	"strake/network/place"
	"strake/sandbox"
)

// ConnectNetwork implements Containers.
func (e *Engine) ConnectNetwork(ctx context.Context, name, network string, ep engine.EndpointSpec) error {
	c, err := e.lockConnectable(ctx, name)
	if err != nil {
		return err
	}
	defer c.op.leave()
	eps, was := maps.Clone(wantedEndpoints(&c.spec)), c.networks()
	if _, ok := eps[network]; ok {
		return message.New(
			errdefs.ErrConflict, "endpoint with name %s already exists in network %s", c.spec.Name,
			network,
		)
	}
	eps[network] = ep
	now := networksOf{eps, nil}
	if was.sandbox != nil {
		if err := e.fault("connect: attach"); err != nil {
			return err
		}
		info, err := e.cfg.Network.Connect(ctx, &place.Request{
			ID: c.id, Name: c.spec.Name, Hostname: c.hostname(),
			Endpoints: map[string]engine.EndpointSpec{network: ep},
		}, network)
		if err != nil {
			return err
		}
		now.sandbox = with(was.sandbox, network, &info)
	}
	// What is attached and not recorded when the engine dies, the next one detaches.
	if err := e.saveNetworks(c, now, was, "connect: record"); err != nil {
		if now.sandbox != nil {
			err = errors.Join(
				err,
				e.cfg.Network.Disconnect(
					context.WithoutCancel(ctx), now.sandbox.Endpoints[network].EndpointID,
				),
			)
		}
		return err
	}
	e.events.publish(
		engine.Event{
			Type: "network", Action: "connect", ID: network,
			Attributes: map[string]string{"container": c.id, "name": network},
		},
	)
	return nil
}

// DisconnectNetwork implements Containers.
func (e *Engine) DisconnectNetwork(ctx context.Context, name, network string) error {
	c, err := e.lockConnectable(ctx, name)
	if err != nil {
		return err
	}
	defer c.op.leave()
	eps, was := maps.Clone(wantedEndpoints(&c.spec)), c.networks()
	if _, ok := eps[network]; !ok {
		return message.New(
			errdefs.ErrNotFound, "container %s is not connected to network %s", c.id, network,
		)
	}
	delete(eps, network)
	now := networksOf{eps, nil}
	if was.sandbox != nil {
		now.sandbox = with(was.sandbox, network, nil)
	}
	// Recorded first: what is not on record any more when the engine dies, the next one detaches.
	if err := e.saveNetworks(c, now, was, "disconnect: record"); err != nil {
		return err
	}
	if was.sandbox != nil {
		err := e.fault("disconnect: detach")
		if err == nil {
			err = e.cfg.Network.Disconnect(ctx, was.sandbox.Endpoints[network].EndpointID)
		}
		if err != nil {
			return errors.Join(err, e.saveNetworks(c, was, now, "disconnect: undo"))
		}
	}
	e.events.publish(
		engine.Event{
			Type: "network", Action: "disconnect", ID: network,
			Attributes: map[string]string{"container": c.id, "name": network},
		},
	)
	return nil
}

// lockConnectable enters the gate of a container that has networks of its own.
func (e *Engine) lockConnectable(ctx context.Context, name string) (*container, error) {
	c, err := e.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	if !ownNetwork(c.spec.Network) {
		c.op.leave()
		return nil, message.New(
			errdefs.ErrConflict,
			"container %s has the network mode %q and cannot be connected to or disconnected from networks",
			c.id, c.spec.Network,
		)
	}
	return c, nil
}

// networksOf are the networks that a container asks for and, while it runs, the ones that it is in.
type networksOf struct {
	wishes  map[string]engine.EndpointSpec
	sandbox *sandbox.Record // nil if it does not run
}

func (c *container) networks() networksOf {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := networksOf{wishes: c.spec.Endpoints}
	if c.run != nil {
		rec := c.run.sandbox.Record()
		n.sandbox = &rec
	}
	return n
}

// with is a copy of a record with one endpoint changed; nil takes it away.
func with(rec *sandbox.Record, network string, ep *engine.EndpointInfo) *sandbox.Record {
	out := rec.With(network, ep)
	return &out
}

// saveNetworks records a container's networks, or, if that fails, leaves them as they were. Callers
// hold op.
func (e *Engine) saveNetworks(c *container, now, was networksOf, step string) error {
	set := func(n networksOf) {
		c.mu.Lock()
		defer c.mu.Unlock()
		s := c.spec
		s.Endpoints = n.wishes
		c.spec = s
		if c.run != nil && n.sandbox != nil {
			c.run.sandbox.SetEndpoints(n.sandbox.Endpoints)
		}
	}
	set(now)
	err := e.fault(step)
	if err == nil {
		err = e.saveSpec(c)
	}
	if err == nil && now.sandbox != nil {
		err = e.saveSandbox(c)
	}
	if err != nil {
		set(was)
		return errors.Join(err, e.saveSpec(c))
	}
	return nil
}

// ownNetwork says whether a network mode means networks of one's own.
func ownNetwork(mode string) bool {
	return mode != "host" && mode != "none" && !isContainerMode(mode)
}

// wantedEndpoints are the networks a container is to be in: those it names, or the primary one
// alone.
func wantedEndpoints(s *engine.Spec) map[string]engine.EndpointSpec {
	if s.Endpoints != nil {
		return s.Endpoints
	}
	return map[string]engine.EndpointSpec{primaryNetwork(s): {}}
}

func primaryNetwork(s *engine.Spec) string {
	if s.Network == "" || s.Network == "default" {
		return "bridge"
	}
	return s.Network
}

func (c *container) hostname() string {
	if c.spec.Hostname != "" {
		return c.spec.Hostname
	}
	return ocispec.ShortID(c.id)
}

// saveSandbox records a change of a running container's sandbox: in the container's own record, and
// in the sandbox's if it has one.
func (e *Engine) saveSandbox(c *container) error {
	if err := e.save(c); err != nil {
		return err
	}
	if r := c.running(); r != nil {
		return e.cfg.Sandboxes.Save(r.sandbox)
	}
	return nil
}
