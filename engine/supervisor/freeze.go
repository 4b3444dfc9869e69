package supervisor

import (
	"context"
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
	if _, err := e.apply(c, state.Event{Kind: what}); err != nil {
		return err
	}
	if err := e.save(c); err != nil {
		return err
	}
	e.publish(c, action, nil)
	return nil
}
