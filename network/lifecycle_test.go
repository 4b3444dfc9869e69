package network

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/network/firewall"
	"strake/network/link"
	"strake/network/place"
)

// inventory is what an instance could leave on the host: interfaces, tables, sysctls.
func (l *lab) inventory() []string {
	l.t.Helper()
	var out []string
	err := link.Enter(l.host, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		links, err := rt.Links()
		if err != nil {
			return err
		}
		for _, i := range links {
			out = append(out, "interface "+i.Name)
		}
		for _, name := range []string{
			"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.uplink.accept_ra",
		} {
			v, err := readSysctl(name)
			if err != nil {
				return err
			}
			out = append(out, name+"="+v)
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	table := firewall.Open("none", l.host)
	defer table.Close()
	names, err := table.Siblings(func(string) bool { return true })
	if err != nil {
		l.t.Fatal(err)
	}
	for _, n := range names {
		out = append(out, "table "+n)
	}
	slices.Sort(out)
	return out
}

// TestTeardown checks that Teardown removes what an instance has made for all its owners, and that
// the host is as it was.
func TestTeardown(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	before := l.inventory()
	m := l.open(nil)
	l.network(m, Spec{Name: "inner", Internal: true, EnableIPv6: true})
	l.network(m, Spec{Name: "not used"})
	port := []place.Port{{ContainerPort: 80, HostPort: 8080}}
	l.attach(m, Request{Owner: "docker", ContainerID: "a", Ports: port})
	l.attach(m, Request{Owner: "cri", ContainerID: "b"})
	l.attach(m, Request{Owner: "cri", ContainerID: "b", Network: "inner"})
	during := l.inventory()
	for _, want := range []string{
		"interface sk0", "table strake_sk", "net.ipv4.ip_forward=1",
		"net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.uplink.accept_ra=2",
	} {
		if !slices.Contains(during, want) {
			t.Errorf("in use: got %v, want %q in it", during, want)
		}
	}
	if err := m.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := l.inventory(); !slices.Equal(after, before) {
		t.Errorf("after: got %v, want %v as before", after, before)
	}
	if _, err := os.Stat(l.stateDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("state: got %v, want it gone", err)
	}
	second := func(_ any, err error) error { return err }
	for name, err := range map[string]error{
		"Attach":         second(m.Attach(t.Context(), Request{})),
		"Release":        m.Release(t.Context(), "a"),
		"Detach":         m.Detach(t.Context(), "a"),
		"Reconcile":      m.Reconcile(t.Context(), "docker", nil),
		"Teardown":       m.Teardown(t.Context()),
		"RemoveNetwork":  m.RemoveNetwork(t.Context(), "inner"),
		"Networks":       second(m.Networks(t.Context())),
		"InspectNetwork": second(m.InspectNetwork(t.Context(), "")),
		"CreateNetwork":  second(m.CreateNetwork(t.Context(), Spec{})),
		"Stats":          second(m.Stats(t.Context(), "a")),
	} {
		if !errdefs.IsUnavailable(err) {
			t.Errorf("%s afterwards: got %v, want it unavailable", name, err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Release(gone, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

// TestTeardownBesideAnother: the sysctls stay while another instance is there.
func TestTeardownBesideAnother(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(nil)
	l.attach(m, Request{ContainerID: "a"})
	other := l.open(func(c *Config) { c.StateDir, c.Prefix = c.StateDir+"2", "sl" })
	l.attach(other, Request{ContainerID: "a"})
	if err := m.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := l.inventory()
	if !slices.Contains(left, "net.ipv4.ip_forward=1") ||
		!slices.Contains(left, "table strake_sl") ||
		!slices.Contains(left, "interface sl0") || slices.Contains(left, "interface sk0") {
		t.Errorf("got %v, want what the other instance needs", left)
	}
	if err := other.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestNetworks: defining, listing, finding and removing, and what is refused.
func TestNetworks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(nil)
	own := l.network(m, Spec{
		Name: "own", Labels: map[string]string{"k": "v"},
		Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.90.0.0/24")}},
		Options: map[string]string{optDevice: "br-own", optICC: "false", optMTU: "1400"},
	})
	if own.Device != "br-own" || own.Subnets[0].Gateway.String() != "10.90.0.1" {
		t.Errorf("got %+v", own)
	}
	create := func(s Spec) error {
		_, err := m.CreateNetwork(t.Context(), s)
		return err
	}
	tests := []struct {
		name string
		spec Spec
		want error
	}{
		{"name that is taken", Spec{Name: "own"}, errdefs.ErrAlreadyExists},
		{"name of the default", Spec{Name: DefaultName}, errdefs.ErrAlreadyExists},
		{"bad name", Spec{Name: "a/b"}, errdefs.ErrInvalidArgument},
		{"space at the end", Spec{Name: "a "}, errdefs.ErrInvalidArgument},
		{"driver", Spec{Name: "x", Driver: "macvlan"}, errdefs.ErrInvalidArgument},
		{
			"option", Spec{Name: "x", Options: map[string]string{"o": "1"}},
			errdefs.ErrInvalidArgument,
		},
		{
			"interface of another network",
			Spec{Name: "x", Options: map[string]string{optDevice: "br-own"}},
			errdefs.ErrAlreadyExists,
		},
		{
			"interface of the host",
			Spec{Name: "x", Options: map[string]string{optDevice: "uplink"}},
			errdefs.ErrAlreadyExists,
		},
		{
			"subnet of another network",
			Spec{Name: "x", Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.90.0.0/16")}}},
			errdefs.ErrFailedPrecondition,
		},
		{
			"range outside",
			Spec{Name: "x", Subnets: []Subnet{{
				Prefix: netip.MustParsePrefix("10.91.0.0/24"),
				Range:  netip.MustParsePrefix("10.92.0.0/24"),
			}}},
			errdefs.ErrInvalidArgument,
		},
	}
	for _, tt := range tests {
		if err := create(tt.spec); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	list, err := m.Networks(t.Context())
	if err != nil || len(list) != 2 || list[0].Name != DefaultName || list[1].ID != own.ID {
		t.Errorf("list: got %+v, %v; want the default one and its like", list, err)
	}
	list[1].Labels["k"] = "changed"
	for _, ref := range []string{"own", own.ID, own.ID[:12]} {
		got, err := m.InspectNetwork(t.Context(), ref)
		if err != nil || got.ID != own.ID || got.Labels["k"] != "v" {
			t.Errorf("inspect %q: got %+v, %v", ref, got, err)
		}
	}
	if _, err := m.InspectNetwork(t.Context(), "none"); !errdefs.IsNotFound(err) {
		t.Errorf("inspect what is not there: got %v", err)
	}
	m.reg.mu.Lock()
	twin := &network{rec: networkRecord{Network: Network{Name: "twin"}}}
	twinID := own.ID[:12] + strings.Repeat("0", 52)
	m.reg.networks[twinID] = twin
	m.reg.mu.Unlock()
	if _, err := m.InspectNetwork(t.Context(), own.ID[:12]); !errdefs.IsInvalidArgument(err) {
		t.Errorf("ambiguous: got %v", err)
	}
	m.reg.mu.Lock()
	delete(m.reg.networks, twinID)
	m.reg.mu.Unlock()

	a := l.attach(m, Request{ContainerID: "a", Name: "alpha", Network: "own"})
	b := l.attach(m, Request{ContainerID: "b", Network: "own"})
	l.serve(b.NetNS, 80, "b")
	// enable_icc=false
	l.unreachable("neighbour in an isolated network", a.NetNS, "tcp", b.IPv4.Addr().String()+":80")
	l.reaches("host", l.host, "tcp", b.IPv4.Addr().String()+":80", "b 10.90.0.1")
	if err := m.RemoveNetwork(t.Context(), "own"); !errdefs.IsFailedPrecondition(err) ||
		!strings.Contains(err.Error(), `"alpha"`) {
		t.Errorf("remove what is in use: got %v", err)
	}
	if err := m.RemoveNetwork(t.Context(), DefaultName); !errdefs.IsPermissionDenied(err) {
		t.Errorf("remove the default: got %v", err)
	}
	for _, id := range []string{"a", "b"} {
		if err := m.Release(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.RemoveNetwork(t.Context(), "own"); err != nil {
		t.Fatal(err)
	}
	if err := m.RemoveNetwork(t.Context(), "own"); !errdefs.IsNotFound(err) {
		t.Errorf("remove twice: got %v", err)
	}
	if slices.Contains(l.inventory(), "interface br-own") {
		t.Error("the bridge is still there")
	}
}

// TestUnfinished: what a crash left of a network that was being made or removed, and records that
// cannot be read, are gone after Open and Reconcile; interfaces with names of the instance that
// belong to nothing as well.
func TestUnfinished(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	cfg := l.config()
	m, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	half := l.network(m, Spec{Name: "half"})
	m.reg.mu.Lock()
	rec := m.reg.networks[half.ID].rec
	m.reg.mu.Unlock()
	rec.Phase = phaseCreating
	if err := m.store.durable(networkFile(half.ID), rec); err != nil {
		t.Fatal(err)
	}
	orphan := endpointRecord{
		Version: recordVersion, ID: strings.Repeat("d", 64), ContainerID: "x", NetworkID: half.ID,
	}
	if err := m.store.quick(endpointFile(orphan.ID), orphan); err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(l.stateDir, "endpoints", "junk")
	if err := os.WriteFile(junk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.host.rt.Do(
		link.AddBridge("skv0000beef", net.HardwareAddr{2, 0, 0, 0, 0, 5}, 0),
		link.AddBridge("skz0000beef", net.HardwareAddr{2, 0, 0, 0, 0, 6}, 0),
	); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}

	m = l.open(nil)
	if _, err := m.InspectNetwork(t.Context(), "half"); !errdefs.IsNotFound(err) {
		t.Errorf("network that was never ready: got %v", err)
	}
	if err := m.Reconcile(t.Context(), "cri", nil); err != nil {
		t.Fatal(err)
	}
	left := l.inventory()
	for _, gone := range []string{
		"interface " + half.Device, "interface skv0000beef", "table strake_sk",
	} {
		if slices.Contains(left, gone) {
			t.Errorf("%s is still there", gone)
		}
	}
	if !slices.Contains(left, "interface skz0000beef") {
		t.Error("an interface of another program is gone")
	}
	for _, file := range []string{junk, filepath.Join(l.stateDir, endpointFile(orphan.ID))} {
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want it gone", file, err)
		}
	}
}

// TestShards: a network goes on in a further bridge when the ports of the first are used up, and
// knows of it after a restart.
func TestShards(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	// The limit that bridge.go tells of.
	if err := l.filterBridged("0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	m := l.open(func(c *Config) { c.PoolSize = -1 })
	l.network(m, Spec{Name: "large"})
	a := l.attach(m, Request{ContainerID: "a", Network: "large"})
	large, err := m.find("large")
	if err != nil {
		t.Fatal(err)
	}
	m.reg.mu.Lock()
	large.shards[0].ports = portsPerShard
	m.reg.mu.Unlock()
	b := l.attach(m, Request{ContainerID: "b", Network: "large"})
	l.serve(b.NetNS, 80, "b")
	web, answer := b.IPv4.Addr().String()+":80", "b "+a.IPv4.Addr().String()
	l.reaches("over the joint", a.NetNS, "tcp", web, answer)
	l.serve(l.outside, 80, "outside")
	l.reaches("way out", b.NetNS, "tcp", outsideAddr4+":80", "outside "+hostAddr4)
	count := func(want ...int) {
		t.Helper()
		m.reg.mu.Lock()
		defer m.reg.mu.Unlock()
		n := m.reg.networks[large.rec.ID]
		var got []int
		for _, s := range n.shards {
			got = append(got, s.ports)
		}
		if !slices.Equal(got, want) {
			t.Errorf("ports of the bridges: got %v, want %v", got, want)
		}
	}
	count(portsPerShard, 1)
	isolated := l.network(m, Spec{Name: "isolated", Options: map[string]string{optICC: "false"}})
	m.reg.mu.Lock()
	m.reg.networks[isolated.ID].shards[0].ports = portsPerShard
	m.reg.mu.Unlock()
	if _, err := m.Attach(
		t.Context(), Request{ContainerID: "c", Network: "isolated"},
	); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("isolated network that is full: got %v, want ENOSPC", err)
	}
	// Files keep the namespaces as processes would.
	var held []*os.File
	for _, at := range []*Attachment{a, b} {
		f, err := os.Open(at.NetNSPath)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, f)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = l.open(func(c *Config) { c.PoolSize = -1 })
	count(1, 1)
	l.reaches("after a restart", held[0], "tcp", web, answer)
	for _, f := range held {
		f.Close()
	}
	if err := m.Reconcile(t.Context(), "docker", nil); err != nil {
		t.Fatal(err)
	}
	count(0, 0)
	if err := m.RemoveNetwork(t.Context(), "large"); err != nil {
		t.Fatal(err)
	}
	for _, name := range l.inventory() {
		for _, class := range []string{"s", "u", "w"} {
			if name == "interface "+m.cfg.shardName(large, class, 1) {
				t.Errorf("%s is still there", name)
			}
		}
	}
}
