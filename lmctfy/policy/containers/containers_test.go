package containers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/container/cgroup"
	"strake/internal/testneed"
	"strake/lmctfy"
	"strake/lmctfy/name"
	"strake/lmctfy/policy"
	"strake/lmctfy/spec"
)

// world is a machine below a group of the test's own.
type world struct {
	t    *testing.T
	m    *lmctfy.Machine
	c    *Containers
	base string
	host *cgroup.Host
}

func newWorld(t *testing.T) *world {
	t.Helper()
	testneed.Root(t, "it makes control groups")
	h, err := cgroup.Detect("")
	if err != nil {
		t.Skip(err)
	}
	w := &world{t: t, host: h, base: fmt.Sprintf("/strake-lmctfy-policy-%d", os.Getpid())}
	t.Cleanup(func() {
		g, err := h.At(w.base)
		if err == nil {
			err = g.Remove(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	cfg := lmctfy.Config{Base: w.base}
	if err := lmctfy.Init(t.Context(), cfg, &spec.InitSpec{}); err != nil {
		t.Fatal(err)
	}
	if w.m, err = lmctfy.Open(cfg); err != nil {
		t.Fatal(err)
	}
	w.c = New(w.m)
	return w
}

func (w *world) create(n, text string) *lmctfy.Container {
	w.t.Helper()
	s, err := spec.Parse([]byte(text))
	if err != nil {
		w.t.Fatal(err)
	}
	c, _, err := w.m.Create(w.t.Context(), name.Name(n), s)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// file reads a file of a container's group, wherever its class has placed it.
func (w *world) file(controller, container, one, two string) string {
	w.t.Helper()
	patterns := []string{filepath.Join("/sys/fs/cgroup", controller, w.base, "batch", container, one),
		filepath.Join("/sys/fs/cgroup", controller, w.base, container, one)}
	if w.host.Version() == 2 {
		patterns = []string{filepath.Join("/sys/fs/cgroup", w.base, container, two)}
	}
	for _, p := range patterns {
		if raw, err := os.ReadFile(p); err == nil {
			return strings.TrimSpace(string(raw))
		}
	}
	w.t.Fatalf("no file of %q in %q", container, patterns)
	return ""
}

// TestHoldsAreTakenBack throttles a batch container and lowers its weight, and gives both back: what
// its specification says does not change meanwhile.
func TestHoldsAreTakenBack(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	const text = "cpu { scheduling_latency: NORMAL limit: 2000 max_limit: 1500 } " +
		"memory { limit: 67108864 reservation: 1048576 eviction_priority: 77 }"
	made := w.create("/batch1", text)
	w.create("/serve", "cpu { scheduling_latency: PREMIER }")
	// A group of another program is not the policy's.
	other, err := w.host.Create(w.base+"/other", nil, cgroup.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	list, err := w.c.List(ctx)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v; want two containers", list, err)
	}
	got := list[0]
	if got.Name != "/batch1" || got.Class != policy.Normal || got.CPULimitMilli != 2000 ||
		got.CPUMaxMilli != 1500 || got.MemoryLimitBytes != 64<<20 ||
		got.MemoryReservationBytes != 1<<20 || got.EvictionPriority != 77 {
		t.Errorf("%+v", got)
	}
	if list[1].Class != policy.Premier || !list[1].Started.After(list[0].Started) {
		t.Errorf("%+v after %+v", list[1], list[0])
	}
	quota := func() string { return w.file("cpu", "batch1", "cpu.cfs_quota_us", "cpu.max") }
	weight := func() string { return w.file("cpu", "batch1", "cpu.shares", "cpu.weight") }
	before, beforeWeight := quota(), weight()
	if err := w.c.Throttle(ctx, "/batch1", policy.Hold{CPUMilli: 100}); err != nil {
		t.Fatal(err)
	}
	if now := quota(); now == before || !strings.HasPrefix(now, "25000") {
		t.Errorf("throttled to %q, before %q; want a tenth of 250000", now, before)
	}
	if err := w.c.SetWeight(ctx, "/batch1", policy.Hold{CPUWeight: 1}); err != nil {
		t.Fatal(err)
	}
	if now := quota(); !strings.HasPrefix(now, "25000") {
		t.Errorf("a lower weight has changed the quota to %q", now)
	}
	if now := weight(); w.host.Version() == 1 && now == beforeWeight {
		t.Errorf("the weight is %q still", now)
	}
	kept, err := made.Recorded()
	if err != nil || kept.Cpu.GetMaxLimit() != 1500 {
		t.Errorf("what is kept: %v, %v", kept, err)
	}
	if err := w.c.Unthrottle(ctx, "/batch1"); err != nil {
		t.Fatal(err)
	}
	if now := quota(); now != before {
		t.Errorf("given back: %q, want %q", now, before)
	}
	if err := w.c.SetWeight(ctx, "/batch1", policy.Hold{}); err != nil {
		t.Fatal(err)
	}
	if now := weight(); now != beforeWeight {
		t.Errorf("weight given back: %q, want %q", now, beforeWeight)
	}
	// A quota of the specification that is smaller stays.
	if err := w.c.Throttle(ctx, "/batch1", policy.Hold{CPUMilli: 1900}); err != nil {
		t.Fatal(err)
	}
	if now := quota(); now != before {
		t.Errorf("held to more than its own quota: %q, want %q", now, before)
	}
}

// TestEvict ends a container with its process, and finds one that is gone gone.
func TestEvict(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	c := w.create("/victim", "cpu { limit: 100 } memory { limit: 67108864 }")
	if _, err := c.Run([]string{"sleep", "1000"}, os.Environ()); err != nil {
		t.Fatal(err)
	}
	sample, err := w.c.Observe(ctx, "/victim")
	if err != nil || sample.MemoryBytes < 0 {
		t.Errorf("%+v, %v", sample, err)
	}
	if err := w.c.Evict(ctx, "/victim"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.m.Get("/victim"); !errdefs.IsNotFound(err) {
		t.Errorf("after its eviction: %v", err)
	}
	for what, err := range map[string]error{
		"evict": w.c.Evict(ctx, "/victim"), "throttle": w.c.Throttle(ctx, "/victim", policy.Hold{}),
	} {
		if !errdefs.IsNotFound(err) {
			t.Errorf("%s what is gone: %v, want %v", what, err, errdefs.ErrNotFound)
		}
	}
	if _, err := w.c.Observe(ctx, "/victim"); !errdefs.IsNotFound(err) {
		t.Errorf("observe what is gone: %v", err)
	}
}
