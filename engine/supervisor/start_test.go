package supervisor

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"strake/engine"
	"strake/engine/state"
	"strake/task"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func worldTaskSpec(owner, id string, args []string) *task.Spec {
	return &task.Spec{
		ID: id, Owner: owner, Config: &specs.Spec{Process: &specs.Process{Args: args}},
	}
}

// A start that fails leaves nothing and takes its steps back, the last one first.
func TestStartFailsAtEveryStep(t *testing.T) {
	t.Parallel()
	undone := []string{"detach", "remove group"}
	for _, tt := range []struct {
		at   string
		undo []string // what is called after the failure, in order
	}{
		{"step start: network", []string{"remove group"}},
		{"attach", []string{"remove group"}},
		{"step start: files", []string{"detach", "remove group"}},
		{"step start: cgroup", []string{"detach"}},
		{"group", []string{"detach"}},
		{"step start: mounts", undone},
		{"start", undone},
		{"step start: record", append([]string{"abort"}, undone...)},
		{"step start: write record", []string{"abort", "remove group", "detach"}},
	} {
		t.Run(strings.ReplaceAll(tt.at, ": ", "_"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			e := w.open()
			id := w.create(e, w.spec("box", "sleep"))
			before := w.inspect(e, id)
			w.failAt(tt.at)
			if err := e.Start(t.Context(), id); !errors.Is(err, unix.EIO) {
				t.Fatalf("got %v, want the failure", err)
			}
			var undo []string
			for _, c := range w.called() {
				if c == "detach" || c == "remove group" || c == "abort" {
					undo = append(undo, c)
				}
			}
			if !slices.Equal(undo, tt.undo) {
				t.Errorf("took back %q, want %q; calls %q", undo, tt.undo, w.called())
			}
			w.wantLeft("failed")
			after := w.inspect(e, id).State
			if after.Error == "" || after.ExitCode != 128 {
				t.Errorf("the failure is not in the state: %+v", after)
			}
			after.Error, after.ExitCode = "", 0
			if after != before.State {
				t.Errorf("state %+v, want %+v", after, before.State)
			}
			w.failAt("")
			e = w.reopen(e)
			if err := e.Start(t.Context(), id); err != nil {
				t.Fatalf("after the failure: %v", err)
			}
			w.wantLeft("started", "place "+id, "group /own/"+id, "task "+id)
		})
	}
}

// What a container occupies is given back when it ends, whatever ends it.
func TestEndReleases(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	id := w.start(e, w.spec("box", "exit 3"))
	if in := w.untilStatus(e, id, engine.Exited); in.State.ExitCode != 3 {
		t.Errorf("state %+v", in.State)
	}
	w.until("the exit is forgotten", func() bool {
		return len(w.tasks.Found(DefaultOwner)) == 0 && len(w.net.all()) == 0
	})
	w.until("the end has been dealt with", func() bool {
		c, _ := e.lock(t.Context(), id)
		c.op.leave()
		return c.running() == nil
	})
	w.wantLeft("ended")
}

// A container that shares the network of one that has ended keeps that sandbox while it is
// restarted, over an engine's end too, and gives it back at its own end.
func TestRestartKeepsJoinedSandbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	first := w.start(e, w.spec("first", "sleep"))
	spec := w.spec("second", "sleep")
	spec.Network, spec.Restart.Name = "container:"+first, state.PolicyOnFailure
	second := w.start(e, spec)
	if err := e.Stop(t.Context(), first, "", nil); err != nil {
		t.Fatal(err)
	}
	shared := []string{"place " + first, "task hold-" + first}
	running := append([]string{"task " + second, "group /own/" + second}, shared...)
	w.wantLeft("the first has ended", running...)
	w.failAt("")
	restart := func(times int) {
		t.Helper()
		if err := e.Kill(t.Context(), second, "SIGUSR1"); err != nil {
			t.Fatal(err)
		}
		w.until("the second runs again", func() bool {
			st := w.inspect(e, second).State
			if st.Status == engine.Exited {
				t.Fatalf("it was not restarted: %+v", st)
			}
			return st.Status == engine.Running && st.RestartCount == times
		})
	}
	restart(1)
	w.wantLeft("restarted", running...)
	e = w.reopen(e)
	w.wantLeft("reopened", running...)
	restart(2)
	for _, c := range w.called() {
		if c == "attach" || c == "detach" {
			t.Errorf("the network was called: %s", c)
		}
	}
	e = w.reopen(e)
	if err := e.Stop(t.Context(), second, "", nil); err != nil {
		t.Fatal(err)
	}
	w.wantLeft("both have ended")
}
