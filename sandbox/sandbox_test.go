package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/network/place"
)

func TestOpenNeedsItsNeighbours(t *testing.T) {
	t.Parallel()
	if _, err := Open(Config{Root: t.TempDir()}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v, want an invalid argument", err)
	}
}

func TestCreateRemove(t *testing.T) {
	t.Parallel()
	needMounts(t)
	r := newRig(t)
	s := r.open()
	spec := podSpec("cri", "pod1")
	spec.ShmBytes = 1 << 20
	spec.PID = true
	spec.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"}
	sb, err := s.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	shm := filepath.Join(r.run, "sandbox/cri/pod1/shm")
	r.wantLeft(
		"created", "sandboxes/pod1", "sandbox/cri/pod1", "place pod1", "task hold-pod1", "mount",
	)
	rec := sb.Record()
	if !rec.Attached || rec.Shm != shm || rec.Holder == nil || !sb.Held() || sb.ID() != "pod1" {
		t.Errorf("record %+v", rec)
	}
	for path, want := range map[string]string{
		rec.Files.Hosts: "192.0.2.2 pod1 of cri\n", rec.Files.Hostname: "pod.test\n",
		rec.Files.ResolvConf: "nameserver 192.0.2.1\n",
	} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: got %q %v, want %q", path, got, err, want)
		}
	}
	cfg := r.tasks.live["hold-pod1"].spec.Config
	if cfg.Process != nil || cfg.Hostname != "pod" || cfg.Linux.Sysctl["net.ipv4.ip_forward"] != "1" {
		t.Errorf("the holder's configuration %+v", cfg)
	}
	if n := cfg.Linux.Namespaces; len(n) != 4 || n[0].Path != "/proc/self/ns/net" ||
		n[1].Path+n[2].Path+n[3].Path != "" {
		t.Errorf("the holder's namespaces %+v", n)
	}
	if _, err := s.Create(t.Context(), spec); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a second one: %v", err)
	}
	sb.Enter("a")
	if err := s.Remove(t.Context(), "pod1"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("remove with a member: %v", err)
	}
	// An explicit sandbox does not end with its last member.
	if err := sb.Leave(t.Context(), "a"); err != nil || len(r.left()) != 5 {
		t.Errorf("after the last member: %v, left %q", err, r.left())
	}
	if err := s.Remove(t.Context(), "pod1"); err != nil {
		t.Fatal(err)
	}
	r.wantLeft("removed")
	if err := s.Remove(t.Context(), "pod1"); !errdefs.IsNotFound(err) {
		t.Errorf("remove again: %v", err)
	}
	if err := sb.Enter("b"); !errdefs.IsNotFound(err) {
		t.Errorf("enter a removed sandbox: %v", err)
	}
}

func TestCreateRefusesIDs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open()
	for _, id := range []string{
		"", ".", "..", ".a~cri", "a/b", "../a", "a b", "a\x00", strings.Repeat("a", 129), "é",
	} {
		if _, err := s.Create(t.Context(), podSpec("cri", id)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %v, want an invalid argument", id, err)
		}
	}
	for _, owner := range []string{
		"", "CRI", "a/b", "..", "a~b", "1a", strings.Repeat("a", 33),
	} {
		if _, err := s.Create(t.Context(), podSpec(owner, "a")); !errdefs.IsInvalidArgument(err) {
			t.Errorf("owner %q: got %v, want an invalid argument", owner, err)
		}
	}
	r.wantLeft("refused")
	r.create(s, "cri", strings.Repeat("a", 128))
}

// Each step of a creation fails once, and leaves nothing; the ID is free afterwards.
func TestCreateFailsAtEveryStep(t *testing.T) {
	t.Parallel()
	needMounts(t)
	var steps []string
	r := newRig(t)
	r.fault = func(step string) error { steps = append(steps, step); return nil }
	spec := podSpec("cri", "pod1")
	spec.ShmBytes = 1 << 20
	s := r.open()
	if _, err := s.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "pod1"); err != nil {
		t.Fatal(err)
	}
	steps = slices.DeleteFunc(
		steps, func(s string) bool { return strings.HasPrefix(s, "release") },
	)
	for _, want := range []string{
		"create: sandbox record", "create: sandbox network", "start: shared memory",
		"start: files", "hold: process", "hold: record",
	} {
		if !slices.Contains(steps, want) {
			t.Errorf("no step %q in %q", want, steps)
		}
	}
	try := func(name string) {
		t.Helper()
		if _, err := s.Create(t.Context(), spec); !errors.Is(err, errFault) {
			t.Errorf("%s: got %v, want the fault", name, err)
		}
		r.wantLeft(name)
		if _, err := s.Get("pod1"); !errdefs.IsNotFound(err) {
			t.Errorf("%s: the sandbox is known: %v", name, err)
		}
	}
	for _, at := range steps {
		r.fault = func(step string) error {
			if step == at {
				return errFault
			}
			return nil
		}
		try(at)
	}
	r.fault = nil
	r.net.fail = errFault
	try("network")
	spec.Network = HostNetwork
	try("files of the host's network")
	r.net.fail, spec.Network = nil, OwnNetwork
	r.tasks.fail = errFault
	try("holder")
	r.tasks.fail = nil
	if _, err := s.Create(t.Context(), spec); err != nil {
		t.Errorf("after the faults: %v", err)
	}
}

// A creation never removes a directory that it has not made.
func TestCreateLeavesOthersDirectory(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create(r.open(), "cri", "pod1")
	s := r.open()
	if err := s.Recover(t.Context(), "docker"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), podSpec("docker", "pod1")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("got %v, want already exists", err)
	}
	r.wantLeft(
		"refused", "sandboxes/pod1", "sandbox/cri/pod1", "place pod1", "task hold-pod1",
	)
	if err := s.Recover(t.Context(), "cri"); err != nil {
		t.Fatal(err)
	}
	if sb, err := s.Get("pod1"); err != nil || !sb.Held() || sb.Record().Owner != "cri" {
		t.Errorf("the other owner's sandbox: %v", err)
	}
}

func TestNetworkModes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode   Mode
		places int
		hosts  string
	}{
		{OwnNetwork, 1, "192.0.2.2 box of docker\n"}, {HostNetwork, 0, "none=false\n"},
		{NoNetwork, 0, "none=true\n"}, {SharedNetwork, 0, ""},
	} {
		r := newRig(t)
		s := r.open()
		sb, err := s.Prepare(t.Context(), &Spec{ID: "box", Owner: "docker", Network: tt.mode})
		if err != nil {
			t.Fatal(err)
		}
		hosts, _ := os.ReadFile(filepath.Join(s.runDir("docker", "box"), "hosts"))
		if n := len(r.net.ids()); n != tt.places || string(hosts) != tt.hosts {
			t.Errorf("%q: %d places, hosts %q", tt.mode, n, hosts)
		}
		if sb.Record().Attached != (tt.places > 0) {
			t.Errorf("%q: record %+v", tt.mode, sb.Record())
		}
	}
}

func TestPrepareFailsAtEveryStep(t *testing.T) {
	t.Parallel()
	needMounts(t)
	r := newRig(t)
	s := r.open()
	for _, at := range []string{"start: shared memory", "start: files"} {
		r.fault = func(step string) error {
			if step == at {
				return errFault
			}
			return nil
		}
		spec := &Spec{ID: "box", Owner: "docker", ShmBytes: 1 << 20}
		if _, err := s.Prepare(t.Context(), spec); err == nil {
			t.Errorf("%q: no error", at)
		}
		r.wantLeft(at)
	}
}

func TestLastMemberReleases(t *testing.T) {
	t.Parallel()
	needMounts(t)
	r := newRig(t)
	s := r.open()
	sb, _ := r.prepare(s, "docker", "box", "a", 1<<20)
	sb.Enter("b")
	if got := sb.Members(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("members %q", got)
	}
	occupied := []string{"place box", "sandbox/docker/box", "mount"}
	r.wantLeft("prepared", occupied...)
	for range 2 { // repeating it does nothing
		if err := sb.Leave(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	r.wantLeft("one member left", occupied...)
	for range 2 {
		if err := sb.Leave(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
	}
	r.wantLeft("no member left")
	if err := sb.Enter("c"); !errdefs.IsNotFound(err) {
		t.Errorf("enter after the release: %v", err)
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open()
	sb, dir := r.prepare(s, "docker", "box", "a", 0)
	if _, err := sb.Join(specs.NetworkNamespace); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("join what is not held: %v", err)
	}
	if err := s.Save(sb); err != nil {
		t.Error(err)
	}
	if _, err := s.Get("box"); !errdefs.IsNotFound(err) {
		t.Errorf("an implicit sandbox is listed: %v", err)
	}
	sb.Enter("b")
	for range 2 {
		if err := s.Hold(t.Context(), sb, first()); err != nil {
			t.Fatal(err)
		}
	}
	held := []string{
		"place box", "sandbox/docker/box", "sandboxes/box", "task hold-box",
	}
	r.wantLeft("held", held...)
	if got, err := s.Get("box"); err != nil || got != sb {
		t.Errorf("the held sandbox: %v %v", got, err)
	}
	f := sb.Record().Files
	if f.Hosts != filepath.Join(dir, "hosts") {
		t.Errorf("hosts is %s", f.Hosts)
	}
	if err := sb.Leave(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	r.wantLeft("the first member has left", held...)
	if got, _ := os.ReadFile(f.Hosts); len(got) == 0 {
		t.Errorf("hosts after the first member: %q", got)
	}
	n, err := sb.Join(specs.NetworkNamespace, specs.IPCNamespace, specs.PIDNamespace)
	if err != nil {
		t.Fatal(err)
	}
	if n.Path(specs.PIDNamespace) != "" {
		t.Error("an implicit sandbox has a PID namespace")
	}
	if _, err := os.Stat(n.Path(specs.IPCNamespace)); err != nil {
		t.Error(err)
	}
	n.Close()
	if n.Path(specs.IPCNamespace) != "" {
		t.Error("a closed set of namespaces has paths")
	}
	if err := sb.Leave(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	r.wantLeft("the last member has left")
	if _, err := s.Get("box"); !errdefs.IsNotFound(err) {
		t.Errorf("a released sandbox: %v", err)
	}
}

func TestHoldFailsAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spoil func(r *rig, f *fakeTask)
	}{
		{"hold: process", nil}, {"hold: record", nil},
		{"namespace", func(_ *rig, f *fakeTask) { f.lacks = specs.IPCNamespace }},
		{"holder", func(r *rig, _ *fakeTask) { r.tasks.fail = errFault }},
	} {
		r := newRig(t)
		s := r.open()
		sb, dir := r.prepare(s, "docker", "box", "a", 0)
		r.fault = func(step string) error {
			if step == tt.name {
				return errFault
			}
			return nil
		}
		task := first()
		if tt.spoil != nil {
			tt.spoil(r, task)
		}
		if err := s.Hold(t.Context(), sb, task); err == nil || sb.Held() {
			t.Errorf("%s: error %v, held %v", tt.name, err, sb.Held())
		}
		r.wantLeft(tt.name, "place box", "sandbox/docker/box")
		if got := sb.Record().Files.Hosts; got != filepath.Join(dir, "hosts") {
			t.Errorf("%s: hosts is %s", tt.name, got)
		}
		if err := sb.Leave(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		r.wantLeft(tt.name + ", released")
	}
}

func TestEndpointsAreSaved(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open()
	sb := r.create(s, "cri", "pod1")
	before := sb.Record()
	next := before.With("second", &place.Endpoint{EndpointID: "two"})
	if len(before.Endpoints) != 1 || len(next.Endpoints) != 2 {
		t.Errorf("With changed its receiver: %v, %v", before.Endpoints, next.Endpoints)
	}
	if got := (Record{}).With("a", &place.Endpoint{}).With("a", nil).Endpoints; len(got) != 0 {
		t.Errorf("an endpoint that was taken away: %v", got)
	}
	sb.SetEndpoints(next.Endpoints)
	if err := s.Save(sb); err != nil {
		t.Fatal(err)
	}
	s = r.open()
	if err := s.Recover(t.Context(), "cri"); err != nil {
		t.Fatal(err)
	}
	sb, err := s.Get("pod1")
	if err != nil || sb.Record().Endpoints["second"].EndpointID != "two" {
		t.Errorf("recovered %v, %v", sb, err)
	}
	live, release, err := s.Live("cri")
	if err != nil {
		t.Fatal(err)
	}
	l := live["pod1"]
	if _, err := os.Stat(l.NetnsPath); err != nil || len(l.Endpoints) != 2 || len(live) != 1 {
		t.Errorf("live %+v, %v", live, err)
	}
	release()
	if live, release, err := s.Live("docker"); err != nil || len(live) != 0 {
		t.Errorf("another owner's: %+v, %v", live, err)
	} else {
		release()
	}
}

func TestReleaseReportsAndGoesOn(t *testing.T) {
	t.Parallel()
	for _, at := range []string{
		"release: holder", "release: network", "release: shared memory", "release: sandbox record",
	} {
		r := newRig(t)
		s := r.open()
		r.create(s, "cri", "pod1")
		r.fault = func(step string) error {
			if step == at {
				return errFault
			}
			return nil
		}
		if err := s.Remove(t.Context(), "pod1"); !errors.Is(err, errFault) {
			t.Errorf("%s: got %v, want the fault", at, err)
		}
		r.wantLeft(at)
	}
}
