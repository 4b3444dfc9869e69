package supervisor

import (
	"sync/atomic"
	"testing"

	"strake/engine"
)

// TestKillWhilePausing: a container that is killed in the moment between the freezing of its group
// and the record of that ends: the signal waits for the group to be thawed.
func TestKillWhilePausing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var e *Engine
	var killed atomic.Bool
	done := make(chan error, 1)
	sent := func() bool {
		c, err := e.find("box")
		if err != nil {
			t.Error(err)
			return true
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.run.killed
	}
	e = w.open(func(c *Config) {
		next := c.Fault
		c.Fault = func(step string) error {
			if step == "pause: record" && killed.CompareAndSwap(false, true) {
				go func() { done <- e.Kill(t.Context(), "box", "KILL") }() // it waits for the end
				w.until("the signal", sent)
			}
			return next(step)
		}
	})
	id := w.start(e, w.spec("box", "sleep"))
	if err := e.Pause(t.Context(), "box"); err == nil {
		t.Error("a killed container was paused")
	}
	if !killed.Load() {
		t.Fatal("the pause had no step in which to kill")
	}
	if in := w.untilStatus(e, id, engine.Exited); in.State.ExitCode != 137 {
		t.Errorf("exit code %d, want 137", in.State.ExitCode)
	}
	if err := <-done; err != nil {
		t.Errorf("kill: %v", err)
	}
}
