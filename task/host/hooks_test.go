package host

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/keeper"
	"strake/task"
)

// dyingHeld is the connection to a keeper that is killed when a process waits for its hooks.
type dyingHeld struct{ dying }

func (d dyingHeld) Continue(context.Context, string) (*keeper.Process, error) {
	d.kill()
	return nil, keeper.ErrClosed
}

// TestHooks: createContainer hooks run in the task's namespaces before it executes, with the state on
// their input. One that fails leaves nothing of the task, and a keeper that dies meanwhile has them
// run again by the next one.
func TestHooks(t *testing.T) {
	b := newBench(t)
	held := false
	h, err := Open(t.Context(), Config{Connect: func(ctx context.Context) (Keeper, error) {
		k, err := b.connect(ctx)
		if held && err == nil {
			held, k = false, dyingHeld{dying{k}}
		}
		return k, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	said := b.path("said")
	seen := func() string {
		t.Helper()
		raw, err := os.ReadFile(said)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	config := func(script string) *specs.Spec {
		c := b.config(scripted("sleep"))
		c.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{
			Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"},
		}}}
		return c
	}
	const report = "cat; echo; readlink /proc/self/ns/mnt; "
	tk, err := h.Start(t.Context(), &task.Spec{
		ID: "hooked", Owner: "test", Config: config("{ " + report + "} >>" + said),
	})
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	if got := seen(); !strings.Contains(got, `"id":"hooked","status":"creating"`) ||
		!strings.Contains(got, "mnt:[") || strings.Contains(got, own) {
		t.Errorf("the hook has said %q; this is %s", got, own)
	}
	if err := h.Abort(t.Context(), tk.ID()); err != nil {
		t.Error(err)
	}
	if _, err := h.Start(t.Context(), &task.Spec{
		ID: "hooked", Owner: "test", Config: config("echo no reason; exit 3"),
	}); err == nil || !strings.Contains(err.Error(), "hooks.createContainer[0] (/bin/sh)") ||
		!strings.Contains(err.Error(), "no reason") {
		t.Errorf("a hook that fails: %v", err)
	}
	if found := h.Found("test"); len(found) > 0 {
		t.Errorf("left: %+v", found)
	}
	refused := config("true")
	refused.Hooks.Poststop = refused.Hooks.CreateContainer
	if _, err := h.Start(t.Context(), &task.Spec{
		ID: "hooked", Owner: "test", Config: refused,
	}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "hooks.poststop") {
		t.Errorf("hooks of another kind: %v", err)
	}
	h.Close()
	held = true
	if err := os.Remove(said); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), Config{Connect: func(ctx context.Context) (Keeper, error) {
		k, err := b.connect(ctx)
		if held && err == nil {
			held, k = false, dyingHeld{dying{k}}
		}
		return k, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	tk, err = again.Start(t.Context(), &task.Spec{
		ID: "hooked", Owner: "test", Config: config("echo ran >>" + said),
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := seen(); got != "ran\nran\n" {
		t.Errorf("with two keepers: %q", got)
	}
	if err := again.Abort(t.Context(), tk.ID()); err != nil {
		t.Error(err)
	}
}
