package lmctfy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lmctfy/spec"
)

// TestVersion2 does on a version 2 tree what needs no controller.
func TestVersion2(t *testing.T) {
	t.Parallel()
	m, cfg := machine(t, version2)
	x, y := create(t, m, "/x", "children_limit: 4"), create(t, m, "/x/y", "")
	px, py := sleeper(t, x), sleeper(t, y)
	if got, err := m.Detect(py); err != nil || got != "/x/y" {
		t.Errorf("detect: %q, %v", got, err)
	}
	if got, err := x.Processes(Self); err != nil || fmt.Sprint(got) != fmt.Sprint([]int{px}) {
		t.Errorf("processes %v, %v, want %d", got, err, px)
	}
	if got, err := x.Threads(Recursive); err != nil || len(got) != 2 {
		t.Errorf("threads %v, %v", got, err)
	}
	if got, err := x.Children(Self); err != nil || fmt.Sprint(got) != "[/x/y]" {
		t.Errorf("children %q, %v", got, err)
	}
	if err := y.Enter([]int{px}); err != nil {
		t.Error(err)
	}
	if got, _ := y.Processes(Self); len(got) != 2 {
		t.Errorf("after enter: processes %v", got)
	}
	if err := x.Pause(t.Context()); err != nil {
		t.Error(err)
	}
	if err := y.Resume(t.Context()); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("resume below a paused container: %v", err)
	}
	if err := x.Resume(t.Context()); err != nil {
		t.Error(err)
	}
	if s, _, err := x.Spec(); err != nil || spec.Text(s) != "children_limit: 4\n" {
		t.Errorf("spec %v, %v", s, err)
	}
	if err := y.KillAll(t.Context()); err != nil {
		t.Error(err)
	}
	_, _, err := m.Create(t.Context(), "/z", parsed(t, "memory {}"))
	if slices.Contains(m.host.Controllers(), "memory") {
		if err != nil {
			t.Error(err)
		}
		err = m.Destroy(t.Context(), "/z", Empty)
		if err != nil {
			t.Error(err)
		}
	} else if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.HasPrefix(
		err.Error(), `memory: this host has no control groups of the controller "memory"`,
	) {
		t.Errorf("create without a controller: %v", err)
	}
	if err := m.Destroy(t.Context(), "/x", Everything); err != nil {
		t.Error(err)
	}
	if left := groups(cfg); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// TestVersion2Thread checks that a thread alone cannot enter on version 2.
func TestVersion2Thread(t *testing.T) {
	t.Parallel()
	m, _ := machine(t, version2)
	x := create(t, m, "/x", "")
	tids, _ := filepath.Glob("/proc/self/task/*")
	for _, dir := range tids {
		tid, _ := strconv.Atoi(filepath.Base(dir))
		if tid == os.Getpid() {
			continue
		}
		if err := x.Enter([]int{tid}); !errors.Is(err, errdefs.ErrFailedPrecondition) &&
			!errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("thread %d: %v", tid, err)
		}
	}
}

// controlled is a root container on a version 2 tree that has controllers.
func controlled(t *testing.T) (*Machine, Config) {
	t.Helper()
	m, cfg := machine(t, version2)
	if !slices.Contains(m.host.Controllers(), "memory") {
		t.Skip("version 2 of control groups has no controller memory here")
	}
	return m, cfg
}

// TestVersion2Limits reads from the kernel what specifications become, in a container that has
// processes and containers with controllers inside of it.
func TestVersion2Limits(t *testing.T) {
	t.Parallel()
	m, cfg := controlled(t)
	file := func(group, file string) string {
		raw, err := os.ReadFile(filepath.Join(version2, cfg.Base, group, file))
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(raw))
	}
	x := create(t, m, "/x", "cpu { limit: 2000 max_limit: 500 mask { data: 1 } } "+
		"memory { limit: 40960000 reservation: 4096000 }")
	pid := sleeper(t, x)
	y := create(t, m, "/x/y", "cpu { scheduling_latency: BEST_EFFORT } "+
		"memory { limit: 8192000 max_limit: 16384000 }")
	create(t, m, "/x/z", "cpu { scheduling_latency: NORMAL } device { restrictions_set { "+
		"restrictions { permission: DENY type: DEVICE_ALL } } }")
	for _, c := range []struct{ group, file, want string }{
		{"x", "cpu.max", "125000 250000"}, {"x", "cpuset.cpus", "0"},
		{"x", "memory.max", "40960000"}, {"x", "memory.low", "4096000"},
		{"x/y", "cpu.idle", "1"}, {"x/y", "memory.high", "8192000"},
		{"x/y", "memory.max", "16384000"}, {"x/z", "cpu.weight", "1"},
		{"x/.tasks", "cgroup.procs", fmt.Sprint(pid)},
		{"x/.tasks", "cgroup.controllers", file("x", "cgroup.subtree_control")},
	} {
		if got := file(c.group, c.file); got != c.want {
			t.Errorf("%s/%s: got %q, want %q", c.group, c.file, got, c.want)
		}
	}
	s, notes, err := x.Spec()
	const want = "cpu {\n  limit: 2000\n  max_limit: 500\n  mask {\n    data: 1\n  }\n}\n" +
		"memory {\n  eviction_priority: 5000\n  limit: 40960000\n  reservation: 4096000\n}\n"
	if got := spec.Text(s); err != nil || got != want || len(notes) > 0 {
		t.Errorf("spec: %v, %v: got %s\nwant %s", err, notes, got, want)
	}
	if s, _, err := y.Spec(); err != nil || s.Memory.GetLimit() != 8192000 ||
		s.Memory.GetMaxLimit() != 16384000 {
		t.Errorf("spec of the container inside: %v, %v", s, err)
	}
	if _, err := x.Update(
		t.Context(), parsed(t, "cpu { limit: 1000 } memory { limit: 81920000 }"), spec.Replace,
	); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, want string }{
		{"cpu.max", "max 250000"}, {"cpu.weight", "100"},
		{"cpuset.cpus", file(".", "cpuset.cpus.effective")},
		{"memory.max", "81920000"}, {"memory.low", "0"},
	} {
		if got := file("x", c.file); got != c.want {
			t.Errorf("after the update, %s: got %q, want %q", c.file, got, c.want)
		}
	}
	stats, err := x.Stats(Full)
	if err != nil || stats.Memory.GetUsage() == 0 || stats.Memory.GetEffectiveLimit() != 81920000 ||
		stats.Cpu.GetUsage().GetTotal() == 0 || stats.Memory.HierarchicalData.GetRss() == 0 {
		t.Errorf("stats %v, %v", stats, err)
	}
	if err := m.Destroy(t.Context(), "/x", Everything); err != nil {
		t.Error(err)
	}
	if left := groups(cfg); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// TestVersion2Unnamed checks that a container without memory in its specification has no group of
// memory.
func TestVersion2Unnamed(t *testing.T) {
	t.Parallel()
	m, cfg := controlled(t)
	create(t, m, "/x", "cpu {}")
	raw, err := os.ReadFile(filepath.Join(version2, cfg.Base, "x", "cgroup.controllers"))
	if got := string(raw); err != nil || !strings.Contains(got, "cpu") ||
		strings.Contains(got, "memory") {
		t.Errorf("controllers %q, %v", got, err)
	}
}

// TestVersion2Events waits for the kernel's end of a process, and for a threshold.
func TestVersion2Events(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*spec.EventSpec{
		"oom": {Oom: new(spec.EventSpec_Oom)},
		"threshold": {
			MemoryThreshold: &spec.EventSpec_MemoryThreshold{Usage: ptr(int64(4 << 20))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, _ := controlled(t)
			x := create(t, m, "/x", "memory { limit: 8388608 swap_limit: 8388608 }")
			done := make(chan error, 1)
			go func() { done <- x.Wait(t.Context(), e) }()
			for end := time.Now().Add(30 * time.Second); ; {
				// sh keeps 32 MiB in a variable.
				pid, err := x.Run([]string{
					"sh", "-c", "x=$(dd if=/dev/zero bs=1M count=32 | tr '\\0' x)",
				}, os.Environ())
				if err != nil {
					t.Fatal(err)
				}
				var ws unix.WaitStatus
				unix.Wait4(pid, &ws, 0, nil)
				select {
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
					return
				default:
				}
				if time.Now().After(end) {
					t.Fatal("the event does not happen")
				}
			}
		})
	}
}

// TestWaitRefuses names what cannot be waited for.
func TestWaitRefuses(t *testing.T) {
	t.Parallel()
	m, _ := machine(t, version2)
	x := create(t, m, "/x", "")
	for _, e := range []*spec.EventSpec{
		{}, {ContainerEmpty: new(spec.EventSpec_ContainerEmpty)},
		{Oom: new(spec.EventSpec_Oom), MemoryThreshold: new(spec.EventSpec_MemoryThreshold)},
		{Oom: new(spec.EventSpec_Oom)},
	} {
		if err := x.Wait(t.Context(), e); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%v: got %v", e, err)
		}
	}
}
