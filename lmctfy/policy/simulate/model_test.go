package simulate

import (
	"slices"
	"testing"
	"time"

	"strake/lmctfy/policy"
)

// newModel makes a machine with two CPUs and 1 GiB.
func newModel(all map[string]*process) *model {
	return &model{
		machine: policy.Machine{Amount: policy.Amount{CPUMilli: 2000, MemoryBytes: 1 << 30}},
		all:     all, step: time.Second,
	}
}

// using is a container that has and wants an amount.
func using(class policy.Class, priority int, cpu, memory int64) *process {
	return &process{
		spec:   policy.Container{Class: class, EvictionPriority: priority},
		load:   Load{CPUMilli: cpu, MemoryBytes: memory},
		memory: float64(memory),
	}
}

func TestKernelKillsTheLargestOrByPriority(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		priorities bool
		want       []string
	}{{false, []string{"/web"}}, {true, []string{"/low"}}} {
		m := newModel(map[string]*process{
			"/web":  using(policy.Premier, 0, 0, 600*mib),
			"/low":  using(policy.Normal, 1, 0, 200*mib),
			"/high": using(policy.Normal, 2, 0, 400*mib),
		})
		m.priorities = tt.priorities
		if got := m.advance(); !slices.Equal(got, tt.want) {
			t.Errorf("priorities %v: killed %s, want %s", tt.priorities, got, tt.want)
		}
	}
}

func TestHoldOfAContainerIsSharedByThoseBelow(t *testing.T) {
	t.Parallel()
	m := newModel(map[string]*process{
		"/job":   using(policy.Normal, 0, 0, 0),
		"/job/a": using(policy.Normal, 0, 900, 90*mib),
		"/job/b": using(policy.Normal, 0, 300, 30*mib),
		"/other": using(policy.Normal, 0, 500, 30*mib),
	})
	for _, p := range m.all {
		p.load.CachePercent = 100
	}
	m.all["/job"].hold = policy.Hold{CPUMilli: 400, MemoryHighBytes: 40 * mib, CPUWeight: 1}
	m.advance()
	for name, want := range map[string]policy.Amount{
		"/job/a": {CPUMilli: 300, MemoryBytes: 30 * mib},
		"/job/b": {CPUMilli: 100, MemoryBytes: 10 * mib},
		"/other": {CPUMilli: 500, MemoryBytes: 30 * mib},
	} {
		p := m.all[name]
		if got := (policy.Amount{CPUMilli: int64(p.cpu), MemoryBytes: int64(p.memory)}); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	if a, other := m.weight("/job/a"), m.weight("/other"); a >= other/50 {
		t.Errorf("weights %v below a held container, %v elsewhere", a, other)
	}
}

func TestCPUIsSharedByWeights(t *testing.T) {
	t.Parallel()
	m := newModel(map[string]*process{
		"/a": using(policy.Premier, 0, 5000, 0), "/b": using(policy.Normal, 0, 5000, 0),
		"/small": using(policy.Normal, 0, 200, 0), "/capped": using(policy.Normal, 0, 5000, 0),
	})
	m.all["/a"].spec.CPULimitMilli, m.all["/b"].spec.CPULimitMilli = 2000, 1000
	m.all["/capped"].spec.CPUMaxMilli = 300
	m.advance()
	for name, want := range map[string]float64{
		"/small": 200, "/capped": 300, "/a": 1000, "/b": 500,
	} {
		if got := m.all[name].cpu; got < want-1e-6 || got > want+1e-6 {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if p := m.all["/b"].stall.CPU.Some; p.Avg10 == 0 || p.Total != 900*time.Millisecond {
		t.Errorf("nine tenths of what /b wants are missing: got %+v", p)
	}
}
