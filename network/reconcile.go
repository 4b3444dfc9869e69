package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"strake/network/link"
)

// Live is a container that lives, as its owner knows.
type Live struct {
	ContainerID string
	// NetNS is a path of its network namespace, for example /proc/PID/ns/net or, for a descriptor
	// that the caller holds, /proc/self/fd/N. It is opened once, during Reconcile. Empty when it is
	// not known: the container keeps its network, but no interface can be added.
	NetNS string
	// Endpoints are the IDs of its attachments. Others that are recorded were never acknowledged,
	// and are detached. Nil leaves all.
	Endpoints []string
}

// Reconcile compares what is recorded for one owner with what lives. What belongs to no live
// container of the owner is removed: interfaces, addresses, ports, names, records. For live
// containers, and for those of other owners, nothing changes, whether their owners have reconciled
// or not.
//
// Each owner calls it once after Open, before its first Attach. The first call also does what
// concerns the instance as a whole: it removes interfaces and records that belong to no attachment,
// rebuilds the nftables table and fills the pools.
func (m *Manager) Reconcile(ctx context.Context, owner string, live []Live) error {
	if err := m.reg.alive(ctx); err != nil {
		return err
	}
	owner = m.cfg.owner(owner)
	lives := map[string]Live{}
	for _, l := range live {
		lives[l.ContainerID] = l
	}
	var dead []string
	m.reg.mu.Lock()
	for id, sb := range m.reg.sandboxes {
		if _, ok := lives[id]; !ok && sb.owner == owner {
			dead = append(dead, id)
		}
	}
	first := !m.reconciled
	m.reconciled = true
	m.reg.mu.Unlock()
	var errs []error
	for _, id := range dead {
		errs = append(errs, m.Release(ctx, id))
	}
	for _, l := range live {
		if l.NetNS == "" {
			continue
		}
		if err := m.adopt(owner, l); err != nil {
			m.cfg.Logger.Warn(
				"network namespace of a live container", "container", l.ContainerID, "error", err,
			)
		}
	}
	for _, l := range live {
		if l.Endpoints != nil {
			for _, id := range m.unacknowledged(owner, l) {
				errs = append(errs, m.Detach(ctx, id))
			}
		}
	}
	if first {
		errs = append(errs, m.reconcileInstance())
	} else {
		errs = append(errs, m.removals.flush())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reconcile networks of owner %q: %w", owner, err)
	}
	return nil
}

// reconcileInstance is the part of Reconcile that concerns all owners. What is recorded for any of
// them stays.
func (m *Manager) reconcileInstance() error {
	m.reg.mu.Lock()
	unreadable := m.unreadable
	m.unreadable = nil
	m.reg.mu.Unlock()
	var errs []error
	for _, name := range unreadable {
		errs = append(errs, m.store.remove(name))
	}
	errs = append(errs, m.removals.settle(), m.sweep())
	m.reg.mu.Lock()
	for _, n := range m.reg.networks {
		if n.used {
			m.pool.refill(n)
		}
	}
	m.reg.mu.Unlock()
	return errors.Join(append(errs, m.filter.rebuild())...)
}

// unacknowledged are attachments of a live container that its owner does not know of: the owner
// ended before it could record them.
func (m *Manager) unacknowledged(owner string, l Live) (ids []string) {
	m.reg.mu.Lock()
	defer m.reg.mu.Unlock()
	for id, ep := range m.reg.endpoints {
		if ep.rec.ContainerID == l.ContainerID && ep.sandbox.owner == owner &&
			!slices.Contains(l.Endpoints, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// adopt opens the namespace of a live container, if it is the one that was recorded.
func (m *Manager) adopt(owner string, l Live) error {
	m.reg.mu.Lock()
	sb := m.reg.sandboxes[l.ContainerID]
	if sb == nil {
		// All its interfaces were detached before; another may be attached.
		sb = &sandbox{owner: owner, container: l.ContainerID}
		m.reg.sandboxes[l.ContainerID] = sb
	}
	m.reg.mu.Unlock()
	if sb.owner != owner {
		return fmt.Errorf("it belongs to owner %q", sb.owner)
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.ns != nil {
		return nil
	}
	ns, err := os.Open(l.NetNS)
	if err != nil {
		return err
	}
	var cookie uint64
	err = link.Enter(ns, func() (err error) {
		cookie, err = link.Cookie()
		return err
	})
	if err == nil && sb.cookie != 0 && cookie != sb.cookie {
		err = fmt.Errorf(
			"%s has cookie %d, recorded was %d: it is another namespace", l.NetNS, cookie,
			sb.cookie,
		)
	}
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	sb.ns, sb.cookie = ns, cookie
	return nil
}

// sweep removes interfaces of this instance that belong to no network and no attachment.
func (m *Manager) sweep() error {
	links, err := m.host.rt.Links()
	if err != nil {
		return err
	}
	m.reg.mu.Lock()
	known := map[string]bool{}
	for name := range m.reg.linkNames {
		known[name] = true
	}
	for _, n := range m.reg.networks {
		for i, s := range n.shards {
			known[s.device] = true
			known[m.cfg.shardName(n, "u", i)], known[m.cfg.shardName(n, "w", i)] = true, true
		}
		if !n.filtered {
			// Not up yet in this process: its further bridges are counted when it comes up.
			for i := 1; i < maxShards; i++ {
				for _, class := range []string{"s", "u", "w"} {
					known[m.cfg.shardName(n, class, i)] = true
				}
			}
		}
	}
	m.reg.mu.Unlock()
	var reqs []link.Request
	for _, l := range links {
		if m.host.own.MatchString(l.Name) && !known[l.Name] {
			reqs = append(reqs, link.Delete(l.Index))
		}
	}
	return m.host.deleteAll(reqs)
}
