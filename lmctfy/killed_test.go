package lmctfy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"strake/container/cgroup"
	"strake/lmctfy/name"
	"strake/lmctfy/spec"
)

// Environment of the test program when it is a command that gets killed.
const (
	killAt   = "STRAKE_LMCTFY_KILL_AT" // the number of the step
	killWhat = "STRAKE_LMCTFY_KILL_WHAT"
	killBase = "STRAKE_LMCTFY_KILL_BASE"
	killRoot = "STRAKE_LMCTFY_KILL_ROOT"
)

func TestMain(m *testing.M) {
	if os.Getenv(killWhat) != "" {
		killed()
	}
	os.Exit(m.Run())
}

// killed runs create or destroy and ends itself before a step.
func killed() {
	at, _ := strconv.Atoi(os.Getenv(killAt))
	n := 0
	m, err := Open(Config{
		Base: os.Getenv(killBase), CgroupRoot: os.Getenv(killRoot),
		Fault: func(string) {
			if n++; n == at {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		},
	})
	if err == nil && os.Getenv(killWhat) == "create" {
		s, _ := spec.Parse([]byte(os.Getenv("STRAKE_LMCTFY_KILL_SPEC")))
		_, _, err = m.Create(context.Background(), "/x", s)
	} else if err == nil {
		err = m.Destroy(context.Background(), "/x", Everything)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// interrupted runs a command that is killed before a step. It says whether the command ended before
// it came there.
func interrupted(t *testing.T, cfg Config, what, text string, step int) (whole bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(
		os.Environ(), killWhat+"="+what, killAt+"="+strconv.Itoa(step), killBase+"="+cfg.Base,
		killRoot+"="+cfg.CgroupRoot, "STRAKE_LMCTFY_KILL_SPEC="+text,
	)
	out, err := cmd.CombinedOutput()
	if err != nil && err.Error() != "signal: killed" {
		t.Fatalf("%s, step %d: %v: %s", what, step, err, out)
	}
	return err == nil
}

// TestKilled kills create and destroy before each of their steps. Whatever command comes next finds
// no container, and nothing that the killed one made is left.
func TestKilled(t *testing.T) {
	t.Parallel()
	next := map[string]func(*testing.T, *Machine){
		"create": func(t *testing.T, m *Machine) { create(t, m, "/x", "") },
		"get": func(t *testing.T, m *Machine) {
			if _, err := m.Get("/x"); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("get: %v", err)
			}
		},
		"list": func(t *testing.T, m *Machine) {
			c, err := m.Get("/")
			if err != nil {
				t.Fatal(err)
			}
			if list, err := c.Children(Recursive); err != nil || len(list) != 0 {
				t.Errorf("list: %q, %v", list, err)
			}
		},
		"destroy": func(t *testing.T, m *Machine) {
			if err := m.Destroy(t.Context(), "/x", Empty); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("destroy: %v", err)
			}
		},
		"another": func(t *testing.T, m *Machine) { create(t, m, "/y", "") },
	}
	const limits = "cpu { scheduling_latency: BEST_EFFORT } memory { limit: 8192000 } owner: 5"
	for version, root := range map[string]string{"version 1": "", "version 2": version2} {
		text := limits
		h, err := cgroup.Detect(root)
		if err != nil || !slices.Contains(h.Controllers(), "memory") {
			text = "owner: 5"
		}
		for _, what := range []string{"create", "destroy"} {
			for after, then := range next {
				t.Run(version+", "+what+", then "+after, func(t *testing.T) {
					t.Parallel()
					killAtEachStep(t, root, text, what, then)
				})
			}
		}
	}
}

func killAtEachStep(t *testing.T, root, text, what string, then func(*testing.T, *Machine)) {
	for step := 1; ; step++ {
		m, cfg := machine(t, root)
		if err := m.root(); err != nil {
			t.Fatal(err)
		}
		if what == "destroy" {
			create(t, m, "/x", text)
			sleeper(t, create(t, m, "/x/y", text))
		}
		if interrupted(t, cfg, what, text, step) {
			if step < 4 {
				t.Errorf("%d steps are too few to be all", step-1)
			}
			return
		}
		if g, _ := m.group("/"); g != nil {
			if raw, _ := mark(g.Dir()); pendingBase(raw) != "x" {
				t.Errorf("step %d: the mark is %q", step, raw)
			}
		}
		then(t, m)
		for _, n := range []name.Name{"/x", "/y"} {
			// The next command may have made it.
			err := m.Destroy(t.Context(), n, Empty)
			if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				t.Error(err)
			}
		}
		left := groups(cfg)
		if len(left) > 0 {
			t.Errorf("step %d of %s: left %q", step, what, left)
		}
	}
}
