package network

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/network/link"
	"strake/network/place"
)

// TestOwners: an owner that reconciles with an empty list takes nothing from another owner, whether
// that one has reconciled before, reconciles afterwards, or never does.
func TestOwners(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"docker", "cri"} {
		t.Run("first="+first, func(t *testing.T) {
			t.Parallel()
			testOwners(t, first)
		})
	}
}

func testOwners(t *testing.T, first string) {
	l := newLab(t)
	cfg := l.config()
	m, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	port := func(host uint16) []place.Port {
		return []place.Port{{Proto: place.TCP, ContainerPort: 80, HostPort: host}}
	}
	// One records no owner, as versions before it did.
	unowned := l.attach(m, Request{ContainerID: "old", Ports: port(8001)})
	l.attach(m, Request{Owner: "docker", ContainerID: "web", Ports: port(8002)})
	pod := l.attach(m, Request{Owner: "cri", ContainerID: "pod", Ports: port(8003)})
	// The test holds the namespace as a process would, and the servers in it live on.
	dup, err := os.Open(pod.NetNSPath)
	if err != nil {
		t.Fatal(err)
	}
	defer dup.Close()
	l.serve(dup, 80, "pod")
	forgetOwner(t, l, unowned.EndpointID)
	podHost := m.reg.endpoints[pod.EndpointID].rec.Host
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}

	m = l.open(nil)
	lives := []Live{{
		ContainerID: "pod", NetNS: fmt.Sprintf("/proc/self/fd/%d", dup.Fd()),
		Endpoints: []string{pod.EndpointID},
	}}
	reconcile := func(owner string) {
		t.Helper()
		var list []Live
		if owner == "cri" {
			list = lives
		}
		if err := m.Reconcile(t.Context(), owner, list); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		l.reaches(when, l.outside, "tcp", hostAddr4+":8003", "pod "+outsideAddr4)
		if _, err := m.host.rt.ByName(podHost); err != nil {
			t.Errorf("%s: interface of the other owner: %v", when, err)
		}
		if _, err := os.Stat(filepath.Join(l.stateDir, endpointFile(pod.EndpointID))); err != nil {
			t.Errorf("%s: record of the other owner: %v", when, err)
		}
		other := l.attach(m, Request{Owner: "docker", ContainerID: "new"})
		if other.IPv4 == pod.IPv4 {
			t.Errorf("%s: address %v was given to another container", when, pod.IPv4)
		}
		_, err := m.Attach(t.Context(), Request{ContainerID: "thief", Ports: port(8003)})
		if !errdefs.IsAlreadyExists(err) {
			t.Errorf("%s: the port of the other owner: got %v, want it taken", when, err)
		}
		if err := m.Release(t.Context(), "new"); err != nil {
			t.Error(err)
		}
	}
	reconcile(first)
	if first == "docker" {
		check("before its owner has reconciled")
		if err := m.Reconcile(t.Context(), "docker", lives); err != nil {
			t.Fatal(err)
		}
		if m.reg.sandbox("pod").ns != nil {
			t.Error("an owner has adopted the namespace of another's container")
		}
		reconcile("cri")
	} else {
		// The dead of an owner stay until that owner says so.
		if len(m.reg.endpoints) != 3 {
			t.Errorf("got %d endpoints, want those of docker besides", len(m.reg.endpoints))
		}
		reconcile("docker")
	}
	check("after both have reconciled")
	if len(m.reg.endpoints) != 1 {
		t.Errorf("got %d endpoints, want the live one only", len(m.reg.endpoints))
	}
	// An owner that takes the pod for its own gets nothing of it.
	if err := m.Reconcile(t.Context(), "docker", []Live{
		{ContainerID: "pod", NetNS: "/proc/self/ns/net", Endpoints: []string{}},
	}); err != nil {
		t.Fatal(err)
	}
	check("after another owner has named it")
	if len(m.reg.endpoints) != 1 {
		t.Errorf("got %d endpoints, want the live one", len(m.reg.endpoints))
	}
	// Another network for the pod: its namespace is known by the descriptor's path.
	l.network(m, Spec{Name: "second"})
	second := l.attach(m, Request{Owner: "cri", ContainerID: "pod", Network: "second"})
	if err := link.Enter(dup, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		_, err = rt.ByName(second.Interface)
		return err
	}); err != nil {
		t.Errorf("interface in the adopted namespace: %v", err)
	}
	_, err = m.Attach(t.Context(), Request{Owner: "docker", ContainerID: "pod", Network: "second"})
	if !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), `owner "cri"`) {
		t.Errorf("a container of another owner: got %v", err)
	}
	// Without it among the living its owner takes it away.
	if err := m.Reconcile(t.Context(), "cri", nil); err != nil {
		t.Fatal(err)
	}
	if len(m.reg.endpoints) != 0 {
		t.Errorf("got %d endpoints, want none", len(m.reg.endpoints))
	}
	if _, err := m.host.rt.ByName(podHost); ignoreMissing(err) != nil || err == nil {
		t.Errorf("interface after its owner gave it up: %v", err)
	}
}

// forgetOwner rewrites a record without the field, as versions before it wrote it.
func forgetOwner(t *testing.T, l *lab, endpoint string) {
	t.Helper()
	path := filepath.Join(l.stateDir, endpointFile(endpoint))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rec map[string]any
	if err := json.Unmarshal(data, &rec); err != nil {
		t.Fatal(err)
	}
	if rec["Owner"] != "docker" {
		t.Errorf("recorded owner: got %v, want that of Config.LegacyOwner", rec["Owner"])
	}
	delete(rec, "Owner")
	if data, err = json.Marshal(rec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestBadOwner: an owner is a short name.
func TestBadOwner(t *testing.T) {
	t.Parallel()
	r := Request{ContainerID: "a", Owner: "Not/One"}
	if err := r.validate(); !errdefs.IsInvalidArgument(err) {
		t.Errorf("request: got %v", err)
	}
	cfg := Config{StateDir: t.TempDir(), LegacyOwner: "Not/One"}
	if _, err := cfg.complete(); !errdefs.IsInvalidArgument(err) {
		t.Errorf("config: got %v", err)
	}
}
