package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sort"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// defaultNetwork returns the default network, and defines it when it is first asked for. Its
// interfaces come later, with the first container.
func (m *Manager) defaultNetwork() (*network, error) {
	m.reg.mu.Lock()
	defer m.reg.mu.Unlock()
	for _, n := range m.reg.networks {
		if n.rec.Default {
			return n, nil
		}
	}
	return m.define(m.defaultSpec(), m.cfg.Prefix+"0", phaseReady)
}

// defaultSpec is the default network as it is wanted on this host.
func (m *Manager) defaultSpec() Spec {
	s := Spec{Name: DefaultName, EnableIPv6: m.cfg.DefaultIPv6 && m.host.ipv6}
	for _, sub := range m.cfg.DefaultSubnets {
		if m.host.ipv6 || sub.Prefix.Addr().Is4() {
			s.Subnets = append(s.Subnets, sub)
		}
	}
	return s
}

// redefine drops the default network's record if it is not what is wanted now, so that the next use
// defines it anew. Containers that live keep the network that they have.
func (m *Manager) redefine() error {
	want := m.defaultSpec()
	for _, n := range m.reg.networks {
		if !n.rec.Default || n.fits(want) {
			continue
		}
		if n.used {
			m.cfg.Logger.Warn(
				"the default network is in use and stays as it is until a start finds no container in it",
				"subnets", n.rec.Subnets,
			)
			return nil
		}
		if err := errors.Join(
			m.bridges.takeDown(n), m.store.remove(networkFile(n.rec.ID)),
		); err != nil {
			return fmt.Errorf("redefine the default network: %w", err)
		}
		delete(m.reg.networks, n.rec.ID)
	}
	return nil
}

// fits says whether the network is what define would make of a Spec.
func (n *network) fits(want Spec) bool {
	if n.v6.Prefix.IsValid() != want.EnableIPv6 {
		return false
	}
	for _, s := range want.Subnets {
		have := n.v4
		if s.Prefix.Addr().Is6() {
			have = n.v6
		}
		if have.Prefix != s.Prefix || s.Gateway.IsValid() && have.Gateway != s.Gateway {
			return false
		}
	}
	return true
}

// CreateNetwork makes a network and brings it up. Errors: errdefs.ErrAlreadyExists for a name that
// is taken, ErrInvalidArgument, ErrResourceExhausted when the pools are used up,
// ErrFailedPrecondition when a chosen subnet overlaps another network.
func (m *Manager) CreateNetwork(ctx context.Context, spec Spec) (Network, error) {
	if err := m.reg.alive(ctx); err != nil {
		return Network{}, err
	}
	if _, err := m.defaultNetwork(); err != nil {
		return Network{}, err
	}
	m.reg.mu.Lock()
	n, err := m.define(spec, "", phaseCreating)
	m.reg.mu.Unlock()
	if err != nil {
		return Network{}, fmt.Errorf("create network %q: %w", spec.Name, err)
	}
	err = m.bridges.bringUp(n)
	if err == nil {
		m.cfg.Fault("create: confirm record")
		m.reg.mu.Lock()
		n.rec.Phase = phaseReady
		rec := n.rec
		m.reg.mu.Unlock()
		err = m.store.durable(networkFile(rec.ID), rec)
	}
	if err != nil {
		return Network{}, errors.Join(
			fmt.Errorf("create network %q: %w", spec.Name, err), m.discard(n),
		)
	}
	m.filter.warnOfBlockers(m.cfg.Prefix)
	m.reg.mu.Lock()
	defer m.reg.mu.Unlock()
	return n.view(), nil
}

// define checks a Spec, completes it, and records the network. device is the bridge's name if the
// network is the default one, and empty otherwise. Precondition: registry.mu is held.
func (m *Manager) define(spec Spec, device string, p phase) (*network, error) {
	if !networkPattern.MatchString(spec.Name) {
		return nil, fmt.Errorf(
			"name %q: want a letter or digit, then up to 127 letters, digits, '_', '.', '-' and "+
				"spaces, the last no space: %w",
			spec.Name, errdefs.ErrInvalidArgument,
		)
	}
	if spec.Driver != "" && spec.Driver != "bridge" {
		return nil, fmt.Errorf(
			"driver %q: want bridge: %w", spec.Driver, errdefs.ErrInvalidArgument,
		)
	}
	opts, err := parseOptions(spec.Options)
	if err != nil {
		return nil, err
	}
	rec := networkRecord{Version: recordVersion, Phase: p, Default: device != ""}
	rec.Name, rec.Driver, rec.Created = spec.Name, "bridge", now().UTC()
	rec.ID, rec.Device = m.newID(), device
	if device == "" {
		rec.Device = m.cfg.Prefix + "-" + rec.ID[:8]
	}
	if opts.device != "" {
		rec.Device = opts.device
	}
	taken, err := m.conflicts(rec.Name, rec.Device)
	if err != nil {
		return nil, err
	}
	if opts.device != "" {
		if err := m.host.unusedDevice(opts.device); err != nil {
			return nil, err
		}
	}
	if rec.Subnets, err = m.host.subnets(spec, taken); err != nil {
		return nil, err
	}
	rec.Internal, rec.EnableIPv6 = spec.Internal, spec.EnableIPv6 || len(rec.Subnets) > 1
	rec.Labels, rec.Options = maps.Clone(spec.Labels), maps.Clone(spec.Options)
	n, err := m.cfg.newNetwork(rec)
	if err != nil {
		return nil, err
	}
	m.cfg.Fault("create: write record")
	if err := m.store.durable(networkFile(rec.ID), rec); err != nil {
		return nil, err
	}
	m.reg.networks[rec.ID] = n
	return n, nil
}

// newID draws an ID of a network, such that the bridge's name derived from it is free.
// Precondition: registry.mu is held.
func (m *Manager) newID() string {
draw:
	for {
		id := randomHex(32)
		for other := range m.reg.networks {
			if other[:8] == id[:8] {
				continue draw
			}
		}
		return id
	}
}

// conflicts returns the subnets of all networks, or the error for a name or an interface that one
// of them has. Precondition: registry.mu is held.
func (m *Manager) conflicts(name, device string) (taken []netip.Prefix, err error) {
	for _, n := range m.reg.networks {
		if n.rec.Name == name {
			return nil, fmt.Errorf(
				"network with name %s already exists: %w", name, errdefs.ErrAlreadyExists,
			)
		}
		if n.rec.Device == device {
			return nil, fmt.Errorf(
				"interface %q already belongs to network %q: %w", device, n.rec.Name,
				errdefs.ErrAlreadyExists,
			)
		}
		for _, s := range n.rec.Subnets {
			taken = append(taken, s.Prefix)
		}
	}
	return taken, nil
}

// unusedDevice returns an error when the host has an interface of the name.
func (h *host) unusedDevice(name string) error {
	_, err := h.rt.ByName(name)
	if err == nil {
		return fmt.Errorf(
			"network option %q: interface %q exists already: %w", optDevice, name,
			errdefs.ErrAlreadyExists,
		)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// RemoveNetwork removes a network. Errors: errdefs.ErrNotFound; ErrFailedPrecondition while
// containers are attached; ErrPermissionDenied for the default network.
func (m *Manager) RemoveNetwork(ctx context.Context, ref string) error {
	if err := m.reg.alive(ctx); err != nil {
		return err
	}
	n, err := m.find(ref)
	if err != nil {
		return err
	}
	rec, err := m.beginRemoval(n, ref)
	if err != nil {
		return err
	}
	m.cfg.Fault("remove: write record")
	if err := m.store.durable(networkFile(rec.ID), rec); err != nil {
		m.reg.mu.Lock()
		n.removing, n.rec.Phase = false, phaseReady
		m.reg.mu.Unlock()
		return fmt.Errorf("remove network %q: %w", rec.Name, err)
	}
	if err := m.discard(n); err != nil {
		return fmt.Errorf("remove network %q: %w", rec.Name, err)
	}
	return nil
}

// beginRemoval marks a network as being removed, or says why it cannot be removed.
func (m *Manager) beginRemoval(n *network, ref string) (networkRecord, error) {
	m.reg.mu.Lock()
	defer m.reg.mu.Unlock()
	if n.removing {
		return n.rec, fmt.Errorf("network %s not found: %w", ref, errdefs.ErrNotFound)
	}
	var names []string
	for _, ep := range m.reg.endpoints {
		if ep.net == n {
			names = append(names, fmt.Sprintf("%q", ep.rec.Name))
		}
	}
	if len(names) > 0 {
		sort.Strings(names)
		return n.rec, fmt.Errorf(
			"network %s has active endpoints: %s: %w", n.rec.Name, strings.Join(names, ", "),
			errdefs.ErrFailedPrecondition,
		)
	}
	if n.rec.Default {
		return n.rec, fmt.Errorf(
			"%s is a pre-defined network and cannot be removed: %w", n.rec.Name,
			errdefs.ErrPermissionDenied,
		)
	}
	n.removing = true
	n.rec.Phase = phaseRemoving
	return n.rec, nil
}

// discard removes everything of a network that no container is attached to: pool, filter, bridges,
// record.
func (m *Manager) discard(n *network) error {
	m.reg.mu.Lock()
	n.removing = true
	m.reg.mu.Unlock()
	if err := errors.Join(m.pool.drain(n), m.bridges.discard(n)); err != nil {
		return err
	}
	m.cfg.Fault("discard: record")
	if err := m.store.remove(networkFile(n.rec.ID)); err != nil {
		return err
	}
	m.reg.mu.Lock()
	defer m.reg.mu.Unlock()
	delete(m.reg.networks, n.rec.ID)
	return nil
}
