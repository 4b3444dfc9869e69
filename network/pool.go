package network

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	"strake/network/link"
)

// pool prepares network namespaces before containers need them, and takes back those that
// containers did not use.
type pool struct {
	cfg      *Config
	host     *host
	reg      *registry
	ifaces   *interfaces
	removals *removals
	jobs     *workers
}

// namespaceMaker makes a network namespace and runs a function in it: link.Create, or the same on a
// thread that is at hand.
type namespaceMaker func(func(*os.File) error) (*os.File, error)

// prepare makes a namespace with an interface in the network. Precondition: the network is up.
func (p *pool) prepare(
	ctx context.Context, n *network, r requested, wait waiting, create namespaceMaker,
) (*sandbox, error) {
	veth, err := p.ifaces.allocate(ctx, n, r, "eth0", wait)
	if err != nil {
		return nil, err
	}
	sb := &sandbox{first: veth, net: n}
	p.cfg.Fault("prepare: namespace")
	sb.ns, err = create(func(ns *os.File) error {
		for k, v := range p.cfg.Sysctls {
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
		if err := p.ifaces.create(n, veth, ns, rt, n.gateways(), firstInterface); err != nil {
			return err
		}
		sb.initial, err = inspect(rt, veth.v6.IsValid())
		return err
	})
	if err != nil {
		return nil, errors.Join(
			fmt.Errorf("prepare network namespace: %w", err),
			p.removals.add(sb, neverUsed, n, veth),
		)
	}
	return sb, nil
}

// recycle takes a released namespace with a single interface. It is inspected in the background if
// it may be used again, and queued for removal otherwise. Precondition: sb.mu is held.
func (p *pool) recycle(sb *sandbox) error {
	if sb.recycling == RecycleIfUnused {
		sb.inspected = make(chan struct{})
		p.reg.mu.Lock()
		sb.net.inspecting[sb] = true
		p.reg.mu.Unlock()
		if p.jobs.add(func(t *link.Thread) { p.reuse(t, sb) }) {
			return nil
		}
		p.endInspection(sb)
	}
	return p.removals.add(sb, wasUsed, sb.net, sb.first)
}

// endInspection lets go on what waits for the inspection of a namespace.
func (p *pool) endInspection(sb *sandbox) {
	p.reg.mu.Lock()
	delete(sb.net.inspecting, sb)
	p.reg.mu.Unlock()
	close(sb.inspected)
}

// reuse inspects a released namespace and gives it back to the pool, or queues it for removal. The
// container is gone.
func (p *pool) reuse(t *link.Thread, sb *sandbox) {
	defer p.endInspection(sb)
	why := p.whyNot(t, sb)
	p.reg.mu.Lock()
	if why == "" && !sb.net.removing && !p.reg.closed && len(sb.net.ready) < p.cfg.MaxPooled {
		sb.net.ready = append(sb.net.ready, &sandbox{
			ns: sb.ns, cookie: sb.cookie, first: sb.first, net: sb.net, initial: sb.initial,
		})
		p.reg.mu.Unlock()
		return
	}
	p.reg.mu.Unlock()
	p.cfg.Logger.Debug(
		"a network namespace is not used again", "network", sb.net.rec.Name, "reason", why,
	)
	if err := p.removals.add(sb, wasUsed, sb.net, sb.first); err != nil {
		p.cfg.Logger.Warn("destroy network namespace", "network", sb.net.rec.Name, "error", err)
	}
}

// whyNot says why a released namespace cannot be used again; empty when it can.
func (p *pool) whyNot(t *link.Thread, sb *sandbox) string {
	var final fingerprint
	err := t.Enter(sb.ns, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		final, err = inspect(rt, sb.first.v6.IsValid())
		return err
	})
	if err != nil {
		return err.Error()
	}
	// After the fingerprint: both counts only grow, so when they are equal there was no packet but
	// the reports.
	port, err := p.host.rt.ByName(sb.first.host)
	if err != nil {
		return err.Error()
	}
	return difference(sb.initial, final, port.Stats.RxPackets)
}

// stock says how many namespaces should wait for containers of a network. Precondition: registry.mu
// is held.
func (p *pool) stock(n *network) int {
	switch {
	case !n.used || n.removing || p.reg.closed:
		return 0
	case n.rec.Default:
		return p.cfg.PoolSize
	}
	return (p.cfg.PoolSize + 3) / 4
}

// refill queues the preparation of namespaces until the pool is as full as it should be.
// Precondition: registry.mu is held.
func (p *pool) refill(n *network) {
	for len(n.ready)+n.filling < p.stock(n) {
		if !p.jobs.add(func(t *link.Thread) { p.fill(t, n) }) {
			return
		}
		n.filling++
	}
}

func (p *pool) fill(t *link.Thread, n *network) {
	p.reg.mu.Lock()
	wanted := len(n.ready) < p.stock(n)
	p.reg.mu.Unlock()
	var sb *sandbox
	var err error
	if wanted {
		sb, err = p.prepare(context.Background(), n, requested{}, atOnce, t.Create)
	}
	p.reg.mu.Lock()
	n.filling--
	keep := sb != nil && !n.removing && !p.reg.closed
	if keep {
		n.ready = append(n.ready, sb)
	}
	p.reg.mu.Unlock()
	if sb != nil && !keep {
		err = p.removals.add(sb, neverUsed, n, sb.first)
	}
	// An Attach that finds the pool empty prepares a namespace itself and returns the error.
	if err != nil && !errdefs.IsResourceExhausted(err) {
		p.cfg.Logger.Warn("prepare network namespace", "network", n.rec.Name, "error", err)
	}
}

// drain takes all waiting namespaces out of a network's pool and queues them for removal.
func (p *pool) drain(n *network) error {
	p.reg.mu.Lock()
	ready := n.ready
	n.ready = nil
	p.reg.mu.Unlock()
	var errs []error
	for _, sb := range ready {
		errs = append(errs, p.removals.add(sb, neverUsed, n, sb.first))
	}
	return errors.Join(errs...)
}
