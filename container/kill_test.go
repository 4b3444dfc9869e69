package container

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// withoutPIDs takes the PID namespace out of a configuration.
func withoutPIDs(spec *specs.Spec) *specs.Spec {
	var list []specs.LinuxNamespace
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type != specs.PIDNamespace {
			list = append(list, ns)
		}
	}
	spec.Linux.Namespaces = list
	return spec
}

// eventually waits for a condition at a process boundary.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
		unix.Poll(nil, 5)
	}
}

// TestKillHostPIDs kills containers of the host's PID namespace, whose processes do not end with
// the first one, before and after that one has ended. A process beside the container's group, with
// a name that begins like it, lives on.
func TestKillHostPIDs(t *testing.T) {
	root := rootfs(t)
	group := "/" + name(t)
	beside := config(root, "sleep 100")
	beside.Linux.CgroupsPath = group + "beside"
	_, other, _ := create(t, beside, nil)
	for _, gone := range []bool{false, true} {
		spec := withoutPIDs(config(root, "sleep 100 & sleep 100 & sleep 100"))
		spec.Linux.CgroupsPath = group
		_, c, p := create(t, spec, nil)
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		count := func() int {
			pids, err := c.Pids()
			if err != nil {
				t.Fatal(err)
			}
			return len(pids)
		}
		eventually(t, "three processes or more", func() bool { return count() >= 3 })
		left := count()
		if gone {
			unix.PidfdSendSignal(p.PidFD, unix.SIGKILL, nil, 0)
			p.Wait()
			eventually(t, "the first one has left", func() bool { return count() == left-1 })
		}
		if err := c.Kill(t.Context(), 0, false); gone !=
			errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("signal 0, first process gone: %v: got %v", gone, err)
		}
		if err := c.Kill(t.Context(), unix.SIGKILL, false); err != nil {
			t.Errorf("first process gone: %v: %v", gone, err)
		}
		if n := count(); n > 0 {
			t.Errorf("first process gone: %v: %d processes are left", gone, n)
		}
		if !gone {
			p.Wait()
		}
		err := c.Kill(t.Context(), unix.SIGKILL, false)
		if !errors.Is(err, errdefs.ErrFailedPrecondition) ||
			!strings.Contains(err.Error(), "container not running") {
			t.Errorf("kill of a stopped container: %v", err)
		}
		if err := c.Kill(t.Context(), 0, true); err != nil {
			t.Errorf("kill of all processes of a stopped container: %v", err)
		}
		if err := c.Delete(t.Context(), false); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(other.Pid()) + "/ns"); err != nil {
		t.Error(err)
	}
	if got, err := other.Status(); err != nil || got != specs.StateCreated {
		t.Errorf("the container beside: %s, %v", got, err)
	}
}
