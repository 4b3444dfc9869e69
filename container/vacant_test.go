package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/cgroup"
)

// TestOccupiedGroup: a group that has processes, also below it, and one that is frozen, also above
// the one that is asked for, are refused, and what is in them is left alone.
func TestOccupiedGroup(t *testing.T) {
	root := rootfs(t)
	top := "/" + name(t)
	host, err := cgroup.Detect("")
	if err != nil {
		t.Fatal(err)
	}
	group := func(p string) *cgroup.Group {
		g, err := host.Create(p, nil, cgroup.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	in := func(p string) *specs.Spec {
		s := config(root, "sleep 100")
		s.Linux.CgroupsPath = p
		return s
	}
	upper := group(top)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		upper.Thaw(ctx)
		if err := upper.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	refused := func(p, want string) {
		t.Helper()
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		rt := &Runtime{Root: filepath.Join(t.TempDir(), "state")}
		_, _, err = rt.Create(ctx, CreateOptions{
			ID: name(t), Bundle: "/", Spec: in(p), Stdio: &[3]*os.File{null, null, null},
		})
		if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), want) {
			t.Errorf("create in %s: %v; want %q", p, err, want)
		}
	}
	group(top + "/a").Close() // empty: may be used
	_, c, _ := create(t, in(top+"/a"), nil)
	refused(top+"/a", "container's cgroup is not empty: \""+top+"/a\" has 1 processes")
	refused(top, "container's cgroup is not empty")
	if got, err := c.Status(); err != nil || got != specs.StateCreated {
		t.Errorf("the first container: %s, %v", got, err)
	}
	if err := c.Delete(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := upper.Freeze(t.Context()); err != nil {
		t.Skipf("needs a freezer: %v", err)
	}
	refused(top, "container's cgroup unexpectedly frozen")
	refused(top+"/b/c", "container's cgroup unexpectedly frozen")
	if err := upper.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, func() *specs.Spec {
		s := config(root, "true")
		s.Linux.CgroupsPath = top + "/b/c"
		return s
	}()); err != nil {
		t.Errorf("thawed: %v", err)
	}
}
