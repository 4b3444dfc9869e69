package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/task"
)

func recoverOwner(t *testing.T, s *Store, owner string) {
	t.Helper()
	if err := s.Recover(t.Context(), owner); err != nil {
		t.Fatalf("recover %s: %v", owner, err)
	}
}

func TestRecoverTouchesItsOwnerOnly(t *testing.T) {
	t.Parallel()
	needMounts(t)
	r := newRig(t)
	s := r.open()
	for _, owner := range []string{"cri", "docker"} {
		spec := podSpec(owner, "pod-"+owner)
		spec.ShmBytes = 1 << 20
		if _, err := s.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		// What a killed process of each leaves: a directory that never appeared, a holder that was
		// never recorded, shared memory of a sandbox that was never recorded.
		if err := os.MkdirAll(s.dir(".half~"+owner), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := r.tasks.Start(t.Context(), &task.Spec{
			ID: HolderID("lost-" + owner), Owner: owner, Config: holderConfig(&Spec{}, ""),
		}); err != nil {
			t.Fatal(err)
		}
		r.prepare(s, owner, "unrecorded-"+owner, "a", 1<<20)
	}
	s = r.open()
	recoverOwner(t, s, "docker")
	if err := s.Sweep("docker", func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	others := []string{
		"sandboxes/pod-cri", "sandboxes/.half~cri", "sandbox/cri/pod-cri", "sandbox/cri/unrecorded-cri",
		"place pod-cri", "place unrecorded-cri", "task hold-pod-cri", "task hold-lost-cri",
		"mount", "mount",
	}
	own := []string{
		"sandboxes/pod-docker", "sandbox/docker/pod-docker", "place pod-docker",
		"place unrecorded-docker", "task hold-pod-docker", "mount",
	}
	r.wantLeft("docker has recovered", append(slices.Clone(others), own...)...)
	if list := s.List("docker"); len(list) != 1 || list[0].ID() != "pod-docker" || !list[0].Held() {
		t.Errorf("list %v", list)
	}
	if list := s.List("cri"); len(list) != 0 {
		t.Errorf("the other owner's list before its recovery %v", list)
	}
	recoverOwner(t, s, "cri")
	if err := s.Sweep("cri", func(id string) bool { return id == "unrecorded-cri" }); err != nil {
		t.Fatal(err)
	}
	others = slices.DeleteFunc(others, func(s string) bool {
		return s == "sandboxes/.half~cri" || s == "task hold-lost-cri"
	})
	r.wantLeft("both have recovered", append(others, own...)...)
}

// A sandbox whose holder is gone, because the machine was restarted, is released.
func TestRecoverWithoutHolder(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(*fakeTasks)
	}{
		{"gone", func(f *fakeTasks) { clear(f.live) }},
		{"ended", func(f *fakeTasks) { close(f.live["hold-pod1"].done) }},
	} {
		r := newRig(t)
		r.create(r.open(), "cri", "pod1")
		tt.end(r.tasks)
		s := r.open()
		recoverOwner(t, s, "cri")
		if _, err := s.Get("pod1"); !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.name == "ended" {
			r.tasks.Abort(t.Context(), "hold-pod1")
		}
		r.wantLeft(tt.name)
	}
}

// A creation that is killed before its holder is recorded is undone.
func TestRecoverInterruptedCreation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open()
	spec := podSpec("cri", "pod1")
	rec := Record{ID: "pod1", Owner: "cri", Spec: &spec}
	if err := s.establish(&rec); err != nil {
		t.Fatal(err)
	}
	r.wantLeft("killed", "sandboxes/pod1")
	recoverOwner(t, r.open(), "cri")
	r.wantLeft("recovered")
}

// A removal that is interrupted leaves a directory that says whose it is.
func TestRecoverInterruptedRemoval(t *testing.T) {
	t.Parallel()
	needMounts(t)
	r := newRig(t)
	s := r.open()
	r.create(s, "cri", "pod1")
	// A mount point cannot be removed, so the removal ends half-way.
	busy := filepath.Join(s.dir("pod1"), "busy")
	if err := os.Mkdir(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("busy", busy, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "pod1"); err == nil {
		t.Error("a directory with a mount in it was removed")
	}
	r.wantLeft("interrupted", "sandboxes/.pod1~cri", "mount")
	if err := unix.Unmount(filepath.Join(s.dir(".pod1~cri"), "busy"), 0); err != nil {
		t.Fatal(err)
	}
	s = r.open()
	recoverOwner(t, s, "docker")
	r.wantLeft("another owner has recovered", "sandboxes/.pod1~cri")
	recoverOwner(t, s, "cri")
	r.wantLeft("recovered")
	r.create(s, "cri", "pod1")
}

func TestRecoverLeavesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, record string }{
		{"no JSON", "{"}, {"empty", ""}, {"wrong types", `{"version":1,"id":7}`},
		{"a later version", `{"version":2,"id":"pod1","owner":"cri"}`},
		{"no version", `{"id":"pod1","owner":"cri"}`},
		{"another's ID", `{"version":1,"id":"pod2","owner":"cri"}`},
		{"a path for an ID", `{"version":1,"id":"../../victim","owner":"cri"}`},
	} {
		r := newRig(t)
		s := r.open()
		victim := filepath.Join(r.root, "..", "victim")
		for _, d := range []string{s.dir("pod1"), victim} {
			if err := os.MkdirAll(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(s.dir("pod1"), recordFile)
		if err := os.WriteFile(path, []byte(tt.record), 0o600); err != nil {
			t.Fatal(err)
		}
		recoverOwner(t, s, "cri")
		got, err := os.ReadFile(path)
		if err != nil || string(got) != tt.record || len(s.List("cri")) != 0 {
			t.Errorf("%s: record %q %v, list %v", tt.name, got, err, s.List("cri"))
		}
		if _, err := os.Stat(victim); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, err := s.Create(t.Context(), podSpec("cri", "pod1")); err == nil {
			t.Errorf("%s: its ID is free", tt.name)
		}
		if got, _ := os.ReadFile(path); string(got) != tt.record {
			t.Errorf("%s: a creation changed it to %q", tt.name, got)
		}
	}
}

// Implicit sandboxes live over a restart of the front end as long as they have members.
func TestSettle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open()
	kept, _ := r.prepare(s, "docker", "kept", "a", 0)
	for _, sb := range []*Sandbox{kept, func() *Sandbox {
		sb, _ := r.prepare(s, "docker", "left", "b", 0)
		return sb
	}()} {
		if err := s.Hold(t.Context(), sb, first()); err != nil {
			t.Fatal(err)
		}
	}
	r.create(s, "docker", "pod")
	s = r.open()
	recoverOwner(t, s, "docker")
	again := s.Restore(kept.Record())
	if got, err := s.Get("kept"); err != nil || got != again || !again.Held() {
		t.Errorf("restored %v, want the one that was recovered: %v", again, err)
	}
	again.Enter("a")
	if err := s.Settle(t.Context(), "cri"); err != nil || len(s.List("docker")) != 3 {
		t.Errorf("settled for another owner: %v, %v", s.List("docker"), err)
	}
	if err := s.Settle(t.Context(), "docker"); err != nil {
		t.Fatal(err)
	}
	r.wantLeft(
		"settled", "sandboxes/kept", "sandboxes/pod", "sandbox/docker/kept", "sandbox/docker/pod",
		"place kept", "place pod", "task hold-kept", "task hold-pod",
	)
	if err := again.Leave(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	r.wantLeft("left", "sandboxes/pod", "sandbox/docker/pod", "place pod", "task hold-pod")
	// One that is not held comes from the container's own record alone.
	sb := s.Restore(Record{ID: "box", Owner: "docker", Attached: true})
	r.net.places["box"] = true
	sb.Enter("a")
	if err := sb.Leave(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	r.wantLeft("left", "sandboxes/pod", "sandbox/docker/pod", "place pod", "task hold-pod")
}

func TestTeardown(t *testing.T) {
	t.Parallel()
	needMounts(t)
	r := newRig(t)
	s := r.open()
	if err := s.Teardown(); err != nil {
		t.Errorf("without shared memory: %v", err)
	}
	r.prepare(s, "docker", "a", "m", 1<<20)
	r.prepare(s, "cri", "b", "m", 1<<20)
	if err := s.Teardown(); err != nil {
		t.Fatal(err)
	}
	r.wantLeft("torn down", "place a", "place b")
}
