package lmctfy

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestHold puts a policy's limits in place of a specification's, and gives those back.
func TestHold(t *testing.T) {
	t.Parallel()
	m, cfg := machine(t, "")
	c := create(t, m, "/x", "cpu { limit: 2000 max_limit: 500 } memory { limit: 8192000 }")
	file := func(name string) string {
		raw, err := os.ReadFile("/sys/fs/cgroup/cpu" + cfg.Base + "/x/" + name)
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(raw))
	}
	for _, step := range []struct {
		hold          Hold
		quota, shares string
	}{
		{Hold{CPUMilli: 100}, "25000", "2048"},
		{Hold{CPUMilli: 900}, "125000", "2048"}, // no more than the specification allows
		{Hold{CPUWeight: 1}, "125000", "2"},
		{Hold{}, "125000", "2048"},
	} {
		if err := c.Hold(t.Context(), step.hold); err != nil {
			t.Fatal(err)
		}
		if quota, shares := file("cpu.cfs_quota_us"), file("cpu.shares"); quota != step.quota ||
			shares != step.shares {
			t.Errorf("%+v: quota %s, shares %s, want %s, %s",
				step.hold, quota, shares, step.quota, step.shares)
		}
		if s, err := c.Recorded(); err != nil || s.Cpu.GetMaxLimit() != 500 {
			t.Errorf("%+v: recorded %v, %v", step.hold, s, err)
		}
	}
	root, err := m.Get("/")
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Hold(t.Context(), Hold{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("the root: %v", err)
	}
	first, err := c.Number()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Destroy(t.Context(), "/x", Empty); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Number(); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("number of a container that is gone: %v", err)
	}
	again := create(t, m, "/x", "")
	if second, err := again.Number(); err != nil || second <= first {
		t.Errorf("numbers %d, then %d, %v", first, second, err)
	}
}
