package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"strake/network/firewall"
)

// Manager owns the networks of one instance. All methods may be called concurrently.
type Manager struct {
	cfg       *Config
	store     *store
	host      *host
	reg       *registry
	filter    *packetFilter
	bridges   *bridges
	ifaces    *interfaces
	removals  *removals
	pool      *pool
	endpoints *endpoints

	// guarded by reg.mu; files of records that could not be read, for Reconcile to remove
	unreadable []string
	// guarded by reg.mu; the part of Reconcile that concerns all owners has begun
	reconciled bool
}

// Open opens the instance whose records are in cfg.StateDir, or starts a new one. It restores what
// containers recorded there need: their addresses are theirs, the nftables table is replaced by its
// like in one transaction, ports are reserved again, names resolve. The callers of Reconcile say
// which of these containers still live.
//
// A new instance touches nothing but StateDir: networks come up when they are first used.
func Open(config Config) (*Manager, error) {
	complete, err := config.complete()
	if err != nil {
		return nil, err
	}
	cfg := &complete
	st, err := openStore(cfg.StateDir, cfg.RunDir, cfg.Fault)
	if err != nil {
		return nil, err
	}
	h, err := openHost(cfg, st)
	if err != nil {
		return nil, errors.Join(err, st.close())
	}
	jobs, err := startWorkers(2)
	if err != nil {
		jobs.stop()
		return nil, errors.Join(err, h.close(), st.close())
	}
	m := assemble(cfg, st, h, jobs)
	for _, step := range []func() error{
		m.loadNetworks, m.loadEndpoints, m.redefine, m.restore,
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	return m, nil
}

// assemble connects the parts. It does nothing yet.
func assemble(cfg *Config, st *store, h *host, jobs *workers) *Manager {
	reg := newRegistry()
	filter := &packetFilter{
		table: firewall.Open(tableName(cfg.Prefix), cfg.NetNS), wanted: reg.filterState,
		log: cfg.Logger,
	}
	names := newNameServer(cfg, h, reg)
	br := &bridges{cfg: cfg, host: h, reg: reg, filter: filter, names: names}
	queue := &removals{cfg: cfg, host: h, reg: reg, jobs: jobs}
	ifaces := &interfaces{cfg: cfg, host: h, reg: reg, bridges: br, removals: queue}
	return &Manager{
		cfg: cfg, store: st, host: h, reg: reg, filter: filter, bridges: br, ifaces: ifaces,
		removals: queue,
		pool:     &pool{cfg: cfg, host: h, reg: reg, ifaces: ifaces, removals: queue, jobs: jobs},
		endpoints: &endpoints{
			cfg: cfg, host: h, store: st, reg: reg, filter: filter, names: names,
			publisher: &publisher{host: h, reg: reg, dial: names.dial},
		},
	}
}

// Close ends the Manager and leaves the containers' networking as it is, without names. Pooled
// namespaces go.
func (m *Manager) Close() error {
	m.reg.mu.Lock()
	if m.reg.closed {
		m.reg.mu.Unlock()
		return nil
	}
	m.reg.closed = true
	m.reg.mu.Unlock()
	m.removals.close()
	m.pool.jobs.stop()
	var errs []error
	m.reg.mu.Lock()
	for _, n := range m.reg.networks {
		for _, sb := range n.ready {
			errs = append(errs, sb.ns.Close())
		}
		n.ready = nil
	}
	for _, sb := range m.reg.sandboxes {
		if sb.ns != nil {
			errs = append(errs, sb.ns.Close())
			sb.ns = nil
		}
	}
	for _, ep := range m.reg.endpoints {
		errs = append(errs, closeAll(ep.held))
	}
	m.reg.mu.Unlock()
	errs = append(
		errs, m.bridges.names.close(), m.filter.table.Close(), m.store.close(), m.host.close(),
	)
	return errors.Join(errs...)
}

// loadNetworks reads the networks and finishes what a crash left half made or half removed.
func (m *Manager) loadNetworks() error {
	dir := filepath.Join(m.cfg.StateDir, "networks")
	recs, bad, err := loadAll(dir, func(r networkRecord) int { return r.Version })
	if err != nil {
		return err
	}
	for _, name := range bad {
		m.unreadable = append(m.unreadable, filepath.Join("networks", name))
	}
	for id, rec := range recs {
		n, err := m.cfg.newNetwork(rec)
		if err != nil {
			return fmt.Errorf("network state: network %s: %w", id, err)
		}
		if rec.Phase != phaseReady {
			err := errors.Join(m.bridges.takeDown(n), m.store.remove(networkFile(id)))
			if err != nil {
				return err
			}
			continue
		}
		m.reg.networks[id] = n
	}
	return nil
}

// loadEndpoints reads the attachments and claims what they hold.
func (m *Manager) loadEndpoints() error {
	recs, bad, err := loadAll(filepath.Join(m.store.run, endpointDir), func(r endpointRecord) int { return r.Version })
	if err != nil {
		return err
	}
	for _, name := range bad {
		m.unreadable = append(m.unreadable, filepath.Join(endpointDir, name))
	}
	for id, rec := range recs {
		n := m.reg.networks[rec.NetworkID]
		if n == nil {
			m.unreadable = append(m.unreadable, endpointFile(id))
			continue
		}
		if err := n.claim(rec.IPv4.Addr(), rec.IPv6.Addr()); err != nil {
			return fmt.Errorf("network state: endpoint %s: %w", id, err)
		}
		sb := m.reg.sandboxes[rec.ContainerID]
		if sb == nil {
			sb = &sandbox{
				owner: m.cfg.owner(rec.Owner), container: rec.ContainerID, cookie: rec.Cookie,
			}
			m.reg.sandboxes[rec.ContainerID] = sb
		}
		ep := &endpoint{
			rec: rec, net: n, sandbox: sb,
			veth: vethPair{host: rec.Host, name: rec.Interface, v4: rec.IPv4, v6: rec.IPv6},
		}
		sb.endpoints = append(sb.endpoints, ep)
		m.reg.endpoints[id] = ep
		m.reg.linkNames[rec.Host] = true
		n.used = true
	}
	for _, sb := range m.reg.sandboxes {
		sb.sort()
	}
	return nil
}

// restore brings up for containers that may live what ended with the last process.
func (m *Manager) restore() error {
	if len(m.reg.endpoints) == 0 {
		return nil
	}
	for _, n := range m.reg.networks {
		if n.used {
			if err := m.bridges.bringUp(n); err != nil {
				return err
			}
		}
	}
	if err := m.filter.rebuild(); err != nil {
		return err
	}
	for _, ep := range m.reg.endpoints {
		m.endpoints.restore(ep)
	}
	return nil
}

// Teardown removes everything that this instance has on the host, of all owners, and StateDir, and
// puts back the sysctls that it changed, unless another instance is there, which needs them too.
// Containers lose their network. The Manager is closed afterwards.
func (m *Manager) Teardown(ctx context.Context) error {
	if err := m.reg.alive(ctx); err != nil {
		return err
	}
	m.reg.mu.Lock()
	var containers []string
	for id := range m.reg.sandboxes {
		containers = append(containers, id)
	}
	m.reg.mu.Unlock()
	var errs []error
	for _, id := range containers {
		errs = append(errs, m.Release(ctx, id))
	}
	errs = append(errs, m.removals.settle())
	m.reg.mu.Lock()
	var all []*network
	for _, n := range m.reg.networks {
		all = append(all, n)
	}
	m.reg.mu.Unlock()
	for _, n := range all {
		errs = append(errs, m.discard(n))
	}
	errs = append(errs, m.removals.settle(), m.sweep(), m.filter.table.Remove())
	siblings, err := m.filter.table.Siblings(func(name string) bool {
		return name == "strake" || len(name) > 7 && name[:7] == "strake_"
	})
	errs = append(errs, err)
	if len(siblings) == 0 {
		errs = append(errs, m.host.restoreSysctls())
	}
	errs = append(errs, m.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tear down networks: %w", err)
	}
	return errors.Join(
		os.RemoveAll(m.cfg.StateDir), os.RemoveAll(filepath.Join(m.store.run, endpointDir)),
	)
}

func now() time.Time { return time.Now() }
