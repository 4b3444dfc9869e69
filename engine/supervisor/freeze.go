package supervisor

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/engine/state"
	"strake/internal/message"
	"strake/task"
)

// Pause implements Containers.
func (e *Engine) Pause(ctx context.Context, name string) error {
	return e.freeze(ctx, name, state.HasPaused, "pause", func(s engine.Status) error {
		switch s {
		case engine.Running:
			return nil
		case engine.Paused:
			return message.New(errdefs.ErrConflict, "container %s is already paused", name)
		}
		return message.New(errdefs.ErrConflict, "container %s is not running", name)
	}, task.Task.Pause)
}

// Unpause implements Containers.
func (e *Engine) Unpause(ctx context.Context, name string) error {
	return e.freeze(ctx, name, state.HasUnpaused, "unpause", func(s engine.Status) error {
		if s != engine.Paused {
			return message.New(errdefs.ErrConflict, "container %s is not paused", name)
		}
		return nil
	}, task.Task.Resume)
}

func (e *Engine) freeze(
	ctx context.Context, name string, what state.Kind, action string, check func(engine.Status) error,
	do func(task.Task, context.Context) error,
) error {
	c, err := e.lock(ctx, name)
	if err != nil {
		return err
	}
	defer c.op.leave()
	if err := check(c.status()); err != nil {
		return err
	}
	r := c.running()
	if err := e.fault(action + ": freezer"); err != nil {
		return err
	}
	if err := do(r.task, ctx); err != nil {
		return fmt.Errorf("%s container %s: %w", action, c.id, err)
	}
	// An engine that dies here has not said that it is done: the next one makes the group again
	// what the record says.
	e.warn(action, e.fault(action+": record"), "container", c.id)
	c.mu.Lock()
	was := c.state
	c.mu.Unlock()
	if _, err := e.apply(c, state.Event{Kind: what}); err != nil {
		return err
	}
	c.mu.Lock()
	killed := what == state.HasPaused && r.killed
	if killed {
		c.state = was
	}
	c.mu.Unlock()
	if killed {
		// SIGKILL came before or while the group was frozen, and waits for it to be thawed.
		return errors.Join(notRunning(c), r.task.Resume(context.WithoutCancel(ctx)))
	}
	err = e.save(c)
	if err != nil && what == state.HasPaused {
		c.mu.Lock()
		c.state = was
		c.mu.Unlock()
		return errors.Join(err, r.task.Resume(context.WithoutCancel(ctx)))
	}
	// A container that runs on is not frozen again because that cannot be recorded. If this engine
	// dies before the container's next record, the next engine freezes it.
	e.warn(action, err, "container", c.id)
	e.publish(c, action, nil)
	return nil
}
