package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"strake/engine"
	"strake/engine/record"
)

// obstruct makes it impossible to write a container's state, as a full disk does, until it is
// called again.
func obstruct(t *testing.T, e *Engine, id string) (restore func()) {
	t.Helper()
	path := filepath.Join(e.containerDir(id), record.StateFile)
	if err := os.Rename(path, path+".kept"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".kept", path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExitThatCannotBeRecorded ends containers while their state cannot be written. The exit is
// acknowledged, and nothing forgets it: the next engine knows it, the next start records it first.
func TestExitThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	ctx := t.Context()
	ids := map[string]string{}
	restores := map[string]func(){}
	for _, name := range []string{"reopened", "started", "removed"} {
		ids[name] = w.start(e, w.spec(name, "sleep"))
		restores[name] = obstruct(t, e, ids[name])
		if err := e.Kill(ctx, name, "KILL"); err != nil {
			t.Fatal(err)
		}
		if in := w.untilStatus(e, name, engine.Exited); in.State.ExitCode != 137 {
			t.Errorf("%s: exit code %d", name, in.State.ExitCode)
		}
	}
	if err := e.Start(ctx, "started"); err == nil {
		t.Error("a start that cannot be recorded succeeded")
	}
	if err := e.Remove(ctx, "removed", engine.RemoveOptions{}); err != nil {
		t.Errorf("remove: %v", err)
	}
	restores["started"]()
	if err := e.Start(ctx, "started"); err != nil {
		t.Errorf("start again: %v", err)
	}
	restores["reopened"]()
	e = w.reopen(e)
	if in := w.untilStatus(e, "reopened", engine.Exited); in.State.ExitCode != 137 {
		t.Errorf(
			"after a restart of the engine: exit code %d, %q", in.State.ExitCode, in.State.Error,
		)
	}
	if in := w.inspect(e, "started"); in.State.Status != engine.Running {
		t.Errorf("the one that was started again is %s", in.State.Status)
	}
	for _, name := range []string{"reopened", "started"} {
		if err := e.Remove(ctx, name, engine.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	}
	w.wantLeft("after the removals")
}

// TestPauseThatCannotBeRecorded leaves a container running when its pause cannot be recorded, and
// lets one run on when its end cannot.
func TestPauseThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	ctx := t.Context()
	id := w.start(e, w.spec("box", "sleep"))
	restore := obstruct(t, e, id)
	if err := e.Pause(ctx, id); err == nil {
		t.Error("the pause succeeded")
	}
	if in := w.inspect(e, id); in.State.Status != engine.Running {
		t.Errorf("after the pause: %s", in.State.Status)
	}
	restore()
	if err := e.Pause(ctx, id); err != nil {
		t.Fatal(err)
	}
	restore = obstruct(t, e, id)
	defer restore()
	if err := e.Unpause(ctx, id); err != nil {
		t.Errorf("unpause: %v", err)
	}
	if in := w.inspect(e, id); in.State.Status != engine.Running {
		t.Errorf("after unpause: %s", in.State.Status)
	}
}
