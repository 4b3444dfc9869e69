package sandboxnet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/network"
	"strake/network/link"
	"strake/network/place"
)

// consumer is what an engine needs of the network: the shape of its interface in the types of
// package place.
type consumer interface {
	Attach(ctx context.Context, req *place.Request) (*place.Place, error)
	Detach(ctx context.Context, id string) error
	Reconcile(ctx context.Context, owner string, live map[string]place.Live) error
	Spoil(id string)
	Connect(ctx context.Context, req *place.Request, network string) (place.Endpoint, error)
	Disconnect(ctx context.Context, endpointID string) error
	HostFiles(req *place.Request, none bool) (hosts, resolvConf []byte, err error)
}

// rig is a host in a network namespace of its own.
type rig struct {
	t    *testing.T
	host *os.File
	dir  string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	host, err := link.Create(func(*os.File) error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		return rt.Do(link.SetUp(1))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	r := &rig{t, host, t.TempDir()}
	r.write("hosts", "127.0.0.1\tlocalhost\n192.0.2.9\tprinter\n")
	r.write("resolv.conf", "nameserver 192.0.2.53\nsearch example.net\n")
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// open starts a Manager that the test closes, and returns what closes it before.
func (r *rig) open() (*network.Manager, consumer, func()) {
	r.t.Helper()
	m, err := network.Open(network.Config{
		StateDir: r.path("state"), Prefix: "sn", NetNS: r.host, PoolSize: -1,
		ResolvConf: r.path("resolv.conf"),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	end := func() {
		if err := m.Close(); err != nil {
			r.t.Error(err)
		}
	}
	r.t.Cleanup(end)
	return m, New(m, r.path("hosts"), r.path("resolv.conf")), end
}

func (r *rig) networks(m *network.Manager, specs ...network.Spec) {
	r.t.Helper()
	for _, s := range specs {
		if _, err := m.CreateNetwork(r.t.Context(), s); err != nil {
			r.t.Fatal(err)
		}
	}
}

// listening says whether a port of the host is reserved.
func (r *rig) listening(port uint16) bool {
	err := link.Enter(r.host, func() error {
		l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err == nil {
			l.Close()
		}
		return err
	})
	return err != nil
}

func endpointSpecs(names ...string) map[string]place.EndpointSpec {
	out := map[string]place.EndpointSpec{}
	for _, n := range names {
		out[n] = place.EndpointSpec{}
	}
	return out
}

func TestAttach(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m, n, _ := r.open()
	r.networks(m, network.Spec{Name: "back"})
	req := &place.Request{
		Owner: "docker", ID: "0123456789abcdef", Name: "web", Hostname: "webhost",
		Domainname: "example.org", Primary: "bridge",
		Endpoints: map[string]place.EndpointSpec{
			"back": {}, "bridge": {Aliases: []string{"www"}, MAC: "02:00:00:00:00:07"},
		},
		Ports:      []place.Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8080}},
		ExtraHosts: []string{"gw:host-gateway"},
	}
	at, err := n.Attach(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	ep, back := at.Endpoints["bridge"], at.Endpoints["back"]
	if !back.IPv4.IsValid() || len(at.Endpoints) != 2 {
		t.Errorf("endpoints: got %+v", at.Endpoints)
	}
	if ep.MAC != "02:00:00:00:00:07" || !slices.Equal(ep.Aliases, []string{"www"}) ||
		!slices.Equal(ep.DNSNames, []string{"web", "www", "0123456789ab", "webhost"}) {
		t.Errorf("endpoint: got %+v", ep)
	}
	want := place.Bound{
		Proto: "tcp", ContainerPort: 80, HostIP: netip.IPv4Unspecified(), HostPort: 8080,
	}
	if len(at.Ports) != 1 || at.Ports[0] != want || !r.listening(8080) {
		t.Errorf("ports: got %+v, want %+v and its host port reserved", at.Ports, want)
	}
	const names = "\twebhost.example.org webhost\n"
	for _, line := range []string{
		ep.GatewayIPv4.String() + "\tgw\n", ep.IPv4.Addr().String() + names,
		back.IPv4.Addr().String() + names,
	} {
		if !strings.Contains(string(at.Hosts), line) {
			t.Errorf("hosts: got %q, want %q in it", at.Hosts, line)
		}
	}
	if got, want := string(at.ResolvConf),
		"nameserver 169.254.53.53\nsearch example.net\noptions ndots:0\n"; got != want {
		t.Errorf("resolv.conf: got %q, want %q", got, want)
	}
	if _, err := os.Stat(at.NetnsPath); err != nil {
		t.Error(err)
	}

	_, err = n.Attach(t.Context(), &place.Request{
		ID: "b", Name: "b", Endpoints: endpointSpecs("back", "bridge"), Primary: "bridge",
		Ports: req.Ports,
	})
	sentence := "driver failed programming external connectivity on endpoint b: port is already allocated: "
	if !errdefs.IsConflict(err) || !strings.HasPrefix(err.Error(), sentence) ||
		!strings.Contains(err.Error(), `container "web"`) {
		t.Errorf("a port that is taken: got %v", err)
	}
	// Nothing is left of it: the same ID can be attached.
	ranged := []place.Port{{ContainerPort: 80, HostPort: 8080, HostPortEnd: 8082}}
	b, err := n.Attach(t.Context(), &place.Request{
		ID: "b", Name: "b", Endpoints: endpointSpecs("bridge"), Ports: ranged,
	})
	if err != nil || len(b.Ports) != 1 || b.Ports[0].HostPort != 8081 {
		t.Errorf("range of host ports: got %+v, %v; want the first free one", b, err)
	}
	_, err = n.Attach(t.Context(), &place.Request{
		ID: "c", Endpoints: endpointSpecs("bridge", "missing"),
		Ports: []place.Port{{ContainerPort: 80, HostPort: 8090}},
	})
	if !errdefs.IsNotFound(err) || r.listening(8090) {
		t.Errorf("a network that is missing: got %v", err)
	}
	if w, err := m.InspectNetwork(t.Context(), "bridge"); err != nil || len(w.Endpoints) != 2 {
		t.Errorf("endpoints after a failure: got %+v, %v; want two", w.Endpoints, err)
	}
	for _, id := range []string{"0123456789abcdef", "b", "unknown"} {
		if err := n.Detach(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if r.listening(8080) || r.listening(8081) {
		t.Error("host ports are reserved after Detach")
	}
}

// TestPublishBesideInternal: ports are published through the network that has a way out, also where
// an internal one comes first.
func TestPublishBesideInternal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m, n, _ := r.open()
	r.networks(
		m, network.Spec{Name: "a-inner", Internal: true}, network.Spec{Name: "b-outer"},
		network.Spec{Name: "c-outer"},
	)
	ports := []place.Port{{ContainerPort: 80, HostPort: 8080}}
	for i, primary := range []string{"", "a-inner", "b-outer"} {
		id := fmt.Sprint("c", i)
		at, err := n.Attach(t.Context(), &place.Request{
			ID: id, Endpoints: endpointSpecs("a-inner", "b-outer", "c-outer"), Primary: primary,
			Ports: ports, ExtraHosts: []string{"gw:host-gateway"},
		})
		if err != nil {
			t.Fatalf("primary %q: %v", primary, err)
		}
		gw := at.Endpoints["b-outer"].GatewayIPv4
		if len(at.Ports) != 1 || !strings.Contains(string(at.Hosts), gw.String()+"\tgw\n") {
			t.Errorf("primary %q: ports %+v, hosts %q", primary, at.Ports, at.Hosts)
		}
		// The way out is that of the network that publishes.
		ns, err := os.Open(at.NetnsPath)
		if err != nil {
			t.Fatal(err)
		}
		if err := link.Enter(ns, func() error {
			table, err := os.ReadFile("/proc/thread-self/net/route")
			gw4 := gw.As4()
			slices.Reverse(gw4[:])
			if want := fmt.Sprintf("00000000\t%X", gw4); !strings.Contains(string(table), want) {
				t.Errorf("routes: got %q, want %q in it", table, want)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		if err := errors.Join(ns.Close(), n.Detach(t.Context(), id)); err != nil {
			t.Error(err)
		}
	}
	_, err := n.Attach(t.Context(), &place.Request{
		ID: "inner", Endpoints: endpointSpecs("a-inner"), Ports: ports,
	})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "publishes no ports") {
		t.Errorf("internal network alone: got %v", err)
	}
}

func TestConnectAndReconcile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m, n, end := r.open()
	r.networks(m, network.Spec{Name: "back"}, network.Spec{Name: "late"})
	req := &place.Request{
		Owner: "cri", ID: "pod", Name: "pod", Endpoints: endpointSpecs("bridge"), Recycle: true,
	}
	at, err := n.Attach(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Attach(t.Context(), &place.Request{
		Owner: "docker", ID: "gone", Endpoints: endpointSpecs("bridge"),
	}); err != nil {
		t.Fatal(err)
	}
	n.Spoil("pod")
	n.Spoil("unknown")
	more := &place.Request{Owner: "cri", ID: "pod", Name: "pod", Endpoints: endpointSpecs("back")}
	back, err := n.Connect(t.Context(), more, "back")
	if err != nil || !back.IPv4.IsValid() {
		t.Fatalf("connect: got %+v, %v", back, err)
	}
	bad := &place.Request{
		ID: "pod", Endpoints: map[string]place.EndpointSpec{"back": {MAC: "no"}},
	}
	if _, err := n.Connect(t.Context(), bad, "back"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("MAC address: got %v", err)
	}
	if err := n.Disconnect(t.Context(), back.EndpointID); err != nil {
		t.Fatal(err)
	}
	// Connected, and not recorded by its owner before that one ended.
	if _, err := n.Connect(t.Context(), more, "late"); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(at.NetnsPath)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	end()

	m, n, _ = r.open()
	if err := n.Reconcile(t.Context(), "docker", nil); err != nil {
		t.Fatal(err)
	}
	err = n.Reconcile(t.Context(), "cri", map[string]place.Live{
		"pod": {
			NetnsPath: fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), Endpoints: at.Endpoints,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w, err := m.InspectNetwork(t.Context(), "bridge")
	if err != nil || len(w.Endpoints) != 1 || w.Endpoints[0].ContainerID != "pod" {
		t.Errorf("endpoints of the first network: got %+v, %v; want the pod's", w.Endpoints, err)
	}
	if w, err = m.InspectNetwork(t.Context(), "late"); err != nil || len(w.Endpoints) != 0 {
		t.Errorf("endpoints that were never recorded: got %+v, %v; want none", w.Endpoints, err)
	}
}

func TestHostFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := &rig{t: t, dir: dir}
	r.write("hosts", "192.0.2.9\tprinter\n")
	r.write("resolv.conf", "nameserver 192.0.2.53\n")
	n := New(nil, r.path("hosts"), r.path("resolv.conf"))
	req := &place.Request{ExtraHosts: []string{"db:10.0.0.1", "gw:host-gateway"}}
	hosts, resolv, err := n.HostFiles(req, false)
	if want := "192.0.2.9\tprinter\n10.0.0.1\tdb\n127.0.0.1\tgw\n"; err != nil ||
		string(hosts) != want {
		t.Errorf("hosts: got %q, %v; want %q", hosts, err, want)
	}
	if want := "nameserver 192.0.2.53\n"; string(resolv) != want {
		t.Errorf("resolv.conf: got %q, want %q", resolv, want)
	}
	req.DNS = []string{"192.0.2.54"}
	hosts, resolv, err = n.HostFiles(req, true)
	if err != nil || strings.Contains(string(hosts), "printer") ||
		!strings.Contains(string(hosts), "10.0.0.1\tdb\n") {
		t.Errorf("hosts without a network: got %q, %v", hosts, err)
	}
	if want := "nameserver 192.0.2.54\n"; string(resolv) != want {
		t.Errorf("resolv.conf: got %q, want %q", resolv, want)
	}
	n = New(nil, r.path("missing"), r.path("missing"))
	if hosts, _, err = n.HostFiles(&place.Request{}, false); err != nil || len(hosts) != 0 {
		t.Errorf("without files: got %q, %v; want none", hosts, err)
	}
	n = New(nil, dir, r.path("resolv.conf"))
	if _, _, err = n.HostFiles(&place.Request{}, false); errors.Is(err, fs.ErrNotExist) ||
		err == nil {
		t.Errorf("a directory in the place of the file: got %v", err)
	}
}
