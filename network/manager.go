package network

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"strake/network/firewall"
	"strake/network/link"
)

// Manager owns the networks of one instance. All methods may be called concurrently.
type Manager struct {
	cfg   Config
	own   *regexp.Regexp // names of our interfaces
	store *store
	rt    *link.Socket // in the host's namespace
	fw    *firewall.Table
	names *names
	bg    *background
	yard  graveyard
	ipv6  bool // constant: the host has IPv6

	// fwMu makes reading the wanted state and writing it to the kernel one step.
	fwMu sync.Mutex

	mu        sync.Mutex
	host      hostRecord           // guarded by mu
	networks  map[string]*network  // guarded by mu; by ID
	endpoints map[string]*endpoint // guarded by mu; by ID
	sandboxes map[string]*sandbox  // guarded by mu; by container ID
	// guarded by mu; names of our ends of pairs that are meant to exist
	wires map[string]bool
	// guarded by mu; records that could not be read, for Reconcile to remove
	spoiled []string
	// guarded by mu; the part of Reconcile that concerns all owners has run
	reconciled bool
	closed     bool // guarded by mu
}

// endpoint is a container's attachment to a network.
type endpoint struct {
	rec     endpointRecord
	net     *network
	sandbox *sandbox
	wire    wire
	holders []*holder
}

// Open opens the instance whose records are in cfg.StateDir, or starts a new one. It restores what
// containers recorded there need: their addresses are theirs, the nftables table is replaced by its
// like in one transaction, ports are held again, names resolve. Whether these containers still live
// is for Reconcile to say.
//
// A new instance touches nothing but StateDir: networks come up when they are first used.
func Open(cfg Config) (*Manager, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	st, err := openStore(cfg.StateDir, cfg.Fault)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		cfg: cfg, own: ownInterface(cfg.Prefix), store: st,
		fw:       firewall.Open(tableName(cfg.Prefix), cfg.NetNS),
		networks: map[string]*network{}, endpoints: map[string]*endpoint{},
		sandboxes: map[string]*sandbox{}, wires: map[string]bool{},
	}
	m.names = newNames(cfg)
	if m.bg, err = newBackground(2); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	err = link.Enter(cfg.NetNS, func() error {
		m.rt, err = link.Open()
		return err
	})
	if err == nil {
		m.ipv6, err = hasIPv6(cfg.NetNS)
	}
	if err == nil {
		err = m.loadHost()
	}
	if err == nil {
		err = m.loadNetworks()
	}
	if err == nil {
		err = m.loadEndpoints()
	}
	if err == nil {
		err = m.redefine()
	}
	if err == nil {
		err = m.revive()
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Close ends the Manager and leaves the containers' networking as it is, without names. Pooled
// namespaces go.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	m.yard.close()
	m.bg.stop()
	var errs []error
	m.mu.Lock()
	for _, n := range m.networks {
		for _, sb := range n.ready {
			errs = append(errs, sb.ns.Close())
		}
		n.ready = nil
	}
	for _, sb := range m.sandboxes {
		if sb.ns != nil {
			errs = append(errs, sb.ns.Close())
			sb.ns = nil
		}
	}
	for _, ep := range m.endpoints {
		for _, h := range ep.holders {
			errs = append(errs, h.Close())
		}
	}
	m.mu.Unlock()
	errs = append(errs, m.names.close(), m.fw.Close(), m.store.close())
	if m.rt != nil {
		errs = append(errs, m.rt.Close())
	}
	return errors.Join(errs...)
}

// loadHost reads or makes host.json.
func (m *Manager) loadHost() error {
	rec, err := load[hostRecord](filepath.Join(m.cfg.StateDir, "host.json"))
	if err == nil && rec.Version == recordVersion {
		if rec.Prefix != m.cfg.Prefix {
			return fmt.Errorf(
				"network: Prefix %q: the state in %q is that of %q: %w", m.cfg.Prefix,
				m.cfg.StateDir, rec.Prefix, errdefs.ErrInvalidArgument,
			)
		}
		m.host = rec
		return nil
	}
	if err == nil {
		return fmt.Errorf(
			"network state: host.json has version %d, want %d: %w", rec.Version, recordVersion,
			errdefs.ErrFailedPrecondition,
		)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// RFC 4193, 3.2.1: fd00::/8 and forty random bits.
	ula := [16]byte{0xfd}
	rand.Read(ula[1:6])
	m.host = hostRecord{
		Version: recordVersion, Prefix: m.cfg.Prefix,
		PoolV6: netip.PrefixFrom(netip.AddrFrom16(ula), 48),
	}
	return m.store.durable("host.json", m.host)
}

// loadNetworks reads the networks and finishes what a crash left half made or half removed.
func (m *Manager) loadNetworks() error {
	recs, bad, err := loadAll(filepath.Join(m.cfg.StateDir, "networks"), func(r networkRecord) int {
		return r.Version
	})
	if err != nil {
		return err
	}
	for _, name := range bad {
		m.spoiled = append(m.spoiled, filepath.Join("networks", name))
	}
	for id, rec := range recs {
		n, err := m.newNetwork(rec)
		if err != nil {
			return fmt.Errorf("network state: network %s: %w", id, err)
		}
		if rec.Phase != phaseReady {
			if err := errors.Join(m.takeDown(n), m.store.remove(networkFile(id))); err != nil {
				return err
			}
			continue
		}
		m.networks[id] = n
	}
	return nil
}

// loadEndpoints reads the attachments and claims what they hold.
func (m *Manager) loadEndpoints() error {
	recs, bad, err := loadAll(filepath.Join(
		m.cfg.StateDir, "endpoints",
	), func(r endpointRecord) int {
		return r.Version
	})
	if err != nil {
		return err
	}
	for _, name := range bad {
		m.spoiled = append(m.spoiled, filepath.Join("endpoints", name))
	}
	for id, rec := range recs {
		n := m.networks[rec.NetworkID]
		if n == nil {
			m.spoiled = append(m.spoiled, endpointFile(id))
			continue
		}
		if err := n.claim(rec.IPv4.Addr(), rec.IPv6.Addr()); err != nil {
			return fmt.Errorf("network state: endpoint %s: %w", id, err)
		}
		sb := m.sandboxes[rec.ContainerID]
		if sb == nil {
			sb = &sandbox{
				owner: m.cfg.owner(rec.Owner), container: rec.ContainerID, cookie: rec.Cookie,
			}
			m.sandboxes[rec.ContainerID] = sb
		}
		ep := &endpoint{
			rec: rec, net: n, sandbox: sb,
			wire: wire{host: rec.Host, name: rec.Interface, v4: rec.IPv4, v6: rec.IPv6},
		}
		sb.endpoints = append(sb.endpoints, ep)
		m.endpoints[id] = ep
		m.wires[rec.Host] = true
		n.used = true
	}
	for _, sb := range m.sandboxes {
		sb.sort()
	}
	return nil
}

// revive brings up for containers that may live what ended with the last process.
func (m *Manager) revive() error {
	if len(m.endpoints) == 0 {
		return nil
	}
	for _, n := range m.networks {
		if n.used {
			if err := m.bringUp(n); err != nil {
				return err
			}
		}
	}
	if err := m.filter(firewall.State{}, firewall.State{}, rebuild); err != nil {
		return err
	}
	for _, ep := range m.endpoints {
		for _, p := range ep.rec.Ports {
			h, err := m.hold(p, ep.target)
			if err != nil {
				// While nobody held it, another program took the port. Packets still go to the
				// container: the rule stands before any socket.
				m.cfg.Logger.Warn(
					"published port is taken", "port", p.String(), "container", ep.rec.Name,
					"error", err,
				)
				continue
			}
			ep.holders = append(ep.holders, h)
			if h := m.holdLocalhost(ep, p); h != nil {
				ep.holders = append(ep.holders, h)
			}
		}
		m.names.add(ep)
	}
	return nil
}

type thoroughness bool

const (
	incremental thoroughness = false
	rebuild     thoroughness = true
)

// filter carries a change of the wanted state into the kernel: of is no longer wanted, to is.
// Precondition: the maps already say so.
func (m *Manager) filter(of, to firewall.State, how thoroughness) error {
	m.fwMu.Lock()
	defer m.fwMu.Unlock()
	if how == incremental {
		if err := m.fw.Update(of, to); !errors.Is(err, firewall.ErrAbsent) {
			return err
		}
	}
	return m.fw.Replace(m.wanted())
}

// wanted is the state that the table has to express.
func (m *Manager) wanted() firewall.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	var s firewall.State
	for _, n := range m.networks {
		if n.filtered {
			s.Networks = append(s.Networks, n.filter())
		}
	}
	for _, ep := range m.endpoints {
		s.Ports = append(s.Ports, ep.filter(ep.rec.Ports)...)
	}
	return s
}

// alive is the error of a closed Manager or a finished context.
func (m *Manager) alive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("network manager is closed: %w", errdefs.ErrUnavailable)
	}
	return nil
}

func now() time.Time { return time.Now() }
