package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"strake/network/firewall"
	"strake/network/link"
)

// Live is a container that lives, as the engine knows.
type Live struct {
	ContainerID string
	// NetNS is a path of its network namespace, for example /proc/PID/ns/net or, for a descriptor
	// that the caller holds, /proc/self/fd/N. It is opened once, during Reconcile. Empty when it is not known: the container keeps its network, but no
	// interface can be added.
	NetNS string
	// Endpoints are the IDs of its attachments; others that are recorded were never acknowledged,
	// and are taken from it. Nil leaves all.
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
	if err := m.alive(ctx); err != nil {
		return err
	}
	owner = m.cfg.owner(owner)
	lives := map[string]Live{}
	for _, l := range live {
		lives[l.ContainerID] = l
	}
	var dead []string
	m.mu.Lock()
	for id, sb := range m.sandboxes {
		if _, ok := lives[id]; !ok && sb.owner == owner {
			dead = append(dead, id)
		}
	}
	first := !m.reconciled
	m.reconciled = true
	m.mu.Unlock()
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
			for _, id := range m.strangers(owner, l) {
				errs = append(errs, m.Detach(ctx, id))
			}
		}
	}
	if first {
		errs = append(errs, m.reconcileInstance())
	} else {
		errs = append(errs, m.visit(0))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reconcile networks of owner %q: %w", owner, err)
	}
	return nil
}

// reconcileInstance is the part of Reconcile that concerns all owners. What is recorded for any of
// them stays.
func (m *Manager) reconcileInstance() error {
	m.mu.Lock()
	spoiled := m.spoiled
	m.spoiled = nil
	m.mu.Unlock()
	var errs []error
	for _, name := range spoiled {
		errs = append(errs, m.store.remove(name))
	}
	errs = append(errs, m.settle(), m.sweep())
	m.mu.Lock()
	active := false
	for _, n := range m.networks {
		active = active || n.filtered
		if n.used {
			m.refill(n)
		}
	}
	m.mu.Unlock()
	if active {
		errs = append(errs, m.filter(firewall.State{}, firewall.State{}, rebuild))
	} else if there, err := m.fw.Exists(); err != nil || there {
		errs = append(errs, err, m.fw.Remove())
	}
	return errors.Join(errs...)
}

// strangers are a live container's attachments that it does not know of.
func (m *Manager) strangers(owner string, l Live) (ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, ep := range m.endpoints {
		if ep.rec.ContainerID == l.ContainerID && ep.sandbox.owner == owner &&
			!slices.Contains(l.Endpoints, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// adopt opens the namespace of a live container, if it is the one that was recorded.
func (m *Manager) adopt(owner string, l Live) error {
	m.mu.Lock()
	sb := m.sandboxes[l.ContainerID]
	if sb == nil {
		// All its interfaces were taken from it; it may get another.
		sb = &sandbox{owner: owner, container: l.ContainerID}
		m.sandboxes[l.ContainerID] = sb
	}
	m.mu.Unlock()
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

// sweep removes interfaces of this instance that nothing knows of.
func (m *Manager) sweep() error {
	links, err := m.rt.Links()
	if err != nil {
		return err
	}
	m.mu.Lock()
	known := map[string]bool{}
	for name := range m.wires {
		known[name] = true
	}
	for _, n := range m.networks {
		for i, s := range n.shards {
			known[s.device] = true
			known[m.shardName(n, "u", i)], known[m.shardName(n, "w", i)] = true, true
		}
		if !n.filtered {
			// Not up yet in this process: its further bridges are counted when it comes up.
			for i := 1; i < maxShards; i++ {
				for _, class := range []string{"s", "u", "w"} {
					known[m.shardName(n, class, i)] = true
				}
			}
		}
	}
	m.mu.Unlock()
	var reqs []link.Request
	for _, l := range links {
		if m.own.MatchString(l.Name) && !known[l.Name] {
			reqs = append(reqs, link.Delete(l.Index))
		}
	}
	return m.deleteAll(reqs)
}

// Teardown removes everything that this instance has on the host, and StateDir, and puts back the
// sysctls that it changed, unless another instance is there, which needs them too. Containers lose
// their network. The Manager is closed afterwards.
func (m *Manager) Teardown(ctx context.Context) error {
	if err := m.alive(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	var containers []string
	for id := range m.sandboxes {
		containers = append(containers, id)
	}
	m.mu.Unlock()
	var errs []error
	for _, id := range containers {
		errs = append(errs, m.Release(ctx, id))
	}
	errs = append(errs, m.settle())
	m.mu.Lock()
	var all []*network
	for _, n := range m.networks {
		all = append(all, n)
	}
	m.mu.Unlock()
	for _, n := range all {
		errs = append(errs, m.discard(n))
	}
	errs = append(errs, m.settle(), m.sweep(), m.fw.Remove())
	siblings, err := m.fw.Siblings(func(name string) bool {
		return name == "strake" || len(name) > 7 && name[:7] == "strake_"
	})
	errs = append(errs, err)
	if len(siblings) == 0 {
		errs = append(errs, m.restoreSysctls())
	}
	errs = append(errs, m.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tear down networks: %w", err)
	}
	return os.RemoveAll(m.cfg.StateDir)
}
