package supervisor

import (
	"testing"
	"time"

	"strake/engine"
	"strake/engine/state"
)

// TestWaitRestartPolicy: each exit answers those who wait for the container, also if a restart
// policy starts it again, as with dockerd. Only its removal answers those who wait for that.
func TestWaitRestartPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	spec := w.spec("box", "sleep")
	spec.Restart.Name = state.PolicyAlways
	id := w.start(e, spec)
	wait := func(cond engine.WaitCondition) <-chan int {
		code := make(chan int, 1)
		registered := make(chan struct{})
		go func() {
			st, err := e.Wait(t.Context(), id, cond, func() { close(registered) })
			if err != nil {
				t.Errorf("wait %s: %v", cond, err)
			}
			code <- st.Code
		}()
		<-registered
		return code
	}
	answer := func(cond engine.WaitCondition, code <-chan int, want int) {
		t.Helper()
		select {
		case got := <-code:
			if got != want {
				t.Errorf("wait %s: status %d, want %d", cond, got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("wait %s is not answered", cond)
		}
	}
	removed := wait(engine.WaitRemoved)
	for _, kill := range []struct {
		signal string
		code   int
	}{{"SIGUSR1", 138}, {"SIGUSR2", 140}} {
		idle, next := wait(engine.WaitNotRunning), wait(engine.WaitNextExit)
		if err := e.Kill(t.Context(), id, kill.signal); err != nil {
			t.Fatal(err)
		}
		answer(engine.WaitNotRunning, idle, kill.code)
		answer(engine.WaitNextExit, next, kill.code)
		w.untilStatus(e, id, engine.Running)
	}
	select {
	case <-removed:
		t.Error("wait removed was answered by an exit")
	default:
	}
	if err := e.Remove(t.Context(), id, engine.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	answer(engine.WaitRemoved, removed, 137)
}
