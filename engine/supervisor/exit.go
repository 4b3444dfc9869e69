package supervisor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"strake/engine"
	"strake/engine/state"
	"strake/task"
)

// act carries out what a step asked for. Callers hold op.
func (e *Engine) act(c *container, acts []state.Action) {
	for _, a := range acts {
		switch a.Do {
		case state.DoRestart:
			c.mu.Lock()
			c.delay = a.Delay
			c.stopTimer()
			c.timer = time.AfterFunc(a.Delay, func() { e.spawn(func() { e.restartDue(c) }) })
			c.mu.Unlock()
		case state.DoCancelRestart:
			c.mu.Lock()
			c.stopTimer()
			// Callers of Wait that wait for it to stop running are answered.
			c.wake(true, false)
			c.mu.Unlock()
		case state.DoRemove:
			if err := e.remove(context.WithoutCancel(e.ctx), c, true); err != nil {
				e.warn("remove a container that ended", err, "container", c.id)
			}
		}
	}
}

// restartDue starts a container again after its pause.
func (e *Engine) restartDue(c *container) {
	if c.op.enter(e.ctx) != nil {
		return
	}
	defer c.op.leave()
	if c.status() != engine.Restarting {
		return
	}
	if err := e.start(e.ctx, c, false); err != nil {
		e.warn("restart", err, "container", c.id)
	}
}

// exited deals with the end of a container's process: everything it occupied is released, then the
// new state is recorded, and only then is the exit acknowledged to its task.
func (e *Engine) exited(c *container, r *run, exit task.Exit) {
	ctx := context.WithoutCancel(e.ctx)
	if c.op.enter(ctx) != nil {
		return
	}
	defer c.op.leave()
	c.mu.Lock()
	if c.run != r {
		c.mu.Unlock()
		return // dealt with
	}
	c.stopTimer()
	c.mu.Unlock()
	oom := false
	if exit.Code == 128+int(unix.SIGKILL) || c.spec.Resources.Memory != nil {
		if n, err := r.task.OOMKills(); err == nil && n > 0 {
			oom = true
		}
	}
	e.retain(c, r, exit)
	e.warn("release a container that ended", e.vacate(ctx, c, r), "container", c.id)
	ev := state.Event{
		Kind: state.HasExited, Code: exit.Code, OOM: oom, Finished: exit.Time,
	}
	if exit.Unknown {
		ev.Reason = "the keeper died, and how the process ended could not be learned"
	}
	acts, err := e.apply(c, ev)
	if err != nil {
		e.warn("record an exit", err, "container", c.id)
		return
	}
	c.mu.Lock()
	c.run = nil
	c.execs = nil
	c.mu.Unlock()
	e.warn("record an exit", e.fault("exit: record"), "container", c.id)
	removing := slices.ContainsFunc(
		acts, func(a state.Action) bool { return a.Do == state.DoRemove },
	)
	var unsaved error
	if !removing {
		unsaved = e.save(c)
		e.warn("record an exit", unsaved, "container", c.id)
	}
	if unsaved == nil {
		e.warn("forget an exit", e.fault("exit: forget"), "container", c.id)
		e.warn("forget an exit", r.task.Delete(ctx), "container", c.id)
	} else {
		c.mu.Lock()
		c.unrecorded = r.task
		c.mu.Unlock()
	}
	if oom {
		e.publish(c, "oom", nil)
	}
	e.publish(c, "die", map[string]string{
		"exitCode":     fmt.Sprint(exit.Code),
		"execDuration": fmt.Sprint(int(time.Since(r.task.Started()).Seconds())),
	})
	c.mu.Lock()
	c.wake(true, false)
	c.mu.Unlock()
	close(r.ended)
	e.act(c, acts)
}

// forgetExit deletes the task of a container whose exit could not be recorded at the time. Callers
// hold op, and the exit is recorded now or does not matter any more.
func (k *core) forgetExit(ctx context.Context, c *container) {
	c.mu.Lock()
	t := c.unrecorded
	c.unrecorded = nil
	c.mu.Unlock()
	if t != nil {
		k.warn("forget an exit", t.Delete(ctx), "container", c.id)
	}
}

// recordLastExit writes down the exit before this start if that could not be done at the time.
func (k *core) recordLastExit(ctx context.Context, c *container) error {
	c.mu.Lock()
	late := c.unrecorded != nil
	c.mu.Unlock()
	if !late {
		return nil
	}
	if err := k.save(c); err != nil {
		return err
	}
	k.forgetExit(ctx, c)
	return nil
}
