package supervisor

import (
	"context"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/internal/message"
)

// Wait implements Containers.
func (e *views) Wait(
	ctx context.Context, name string, cond engine.WaitCondition, registered func(),
) (engine.ExitStatus, error) {
	c, err := e.find(name)
	if err != nil {
		return engine.ExitStatus{}, err
	}
	switch cond {
	case engine.WaitNotRunning, engine.WaitNextExit, engine.WaitRemoved:
	case "":
		cond = engine.WaitNotRunning
	default:
		return engine.ExitStatus{}, message.New(
			errdefs.ErrInvalidArgument,
			"invalid condition: %q: want not-running, next-exit or removed", cond,
		)
	}
	w := &waiter{cond: cond, ch: make(chan engine.ExitStatus, 1)}
	c.mu.Lock()
	idle := c.run == nil && c.state.Status != engine.Restarting
	switch {
	case c.removed && cond != engine.WaitRemoved:
		c.mu.Unlock()
		return engine.ExitStatus{}, notFound(name)
	case c.removed, cond == engine.WaitNotRunning && idle:
		w.ch <- c.exitStatus()
	default:
		if c.waiters == nil {
			c.waiters = map[*waiter]bool{}
		}
		c.waiters[w] = true
	}
	c.mu.Unlock()
	if registered != nil {
		registered()
	}
	select {
	case st := <-w.ch:
		return st, nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiters, w)
		c.mu.Unlock()
		return engine.ExitStatus{}, ctx.Err()
	case <-e.ctx.Done():
		return engine.ExitStatus{}, message.New(errdefs.ErrUnavailable, "the engine is shutting down")
	}
}
