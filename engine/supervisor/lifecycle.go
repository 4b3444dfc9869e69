package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/engine"
	"strake/engine/naming"
	"strake/engine/ocispec"
	"strake/engine/state"
	"strake/internal/message"
	"strake/task"
)

// defaultStopTimeout is what dockerd waits before SIGKILL.
const defaultStopTimeout = 10 * time.Second

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
			// Whoever waits for it to stop running has waited long enough.
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
	if !removing {
		e.warn("record an exit", e.save(c), "container", c.id)
	}
	e.warn("forget an exit", e.fault("exit: forget"), "container", c.id)
	e.warn("forget an exit", r.task.Delete(ctx), "container", c.id)
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

// Wait implements Containers.
func (e *Engine) Wait(
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

// parseSignal reads "SIGTERM", "TERM", "15", "SIGRTMIN+3".
func parseSignal(s string) (syscall.Signal, error) {
	var n int
	if _, err := fmt.Sscanf(s, "%d", &n); err == nil && fmt.Sprint(n) == s && n > 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	for _, rt := range []struct {
		prefix    string
		base, dir int
	}{{"SIGRTMIN", 34, 1}, {"SIGRTMAX", 64, -1}} {
		rest, ok := strings.CutPrefix(name, rt.prefix)
		if !ok {
			continue
		}
		k := 0
		if rest != "" {
			var sign rune
			if _, err := fmt.Sscanf(rest, "%c%d", &sign, &k); err != nil ||
				(sign == '+') != (rt.dir == 1) || k < 0 || k > 30 {
				break
			}
		}
		return syscall.Signal(rt.base + rt.dir*k), nil
	}
	return 0, message.New(errdefs.ErrInvalidArgument, "Invalid signal: %s", s)
}

// notRunning is dockerd's sentence.
func notRunning(c *container) error {
	return message.New(errdefs.ErrConflict, "container %s is not running", c.id)
}

// Kill implements Containers.
func (e *Engine) Kill(ctx context.Context, name string, signal string) error {
	c, err := e.find(name)
	if err != nil {
		return err
	}
	if signal == "" {
		signal = "SIGKILL"
	}
	sig, err := parseSignal(signal)
	if err != nil {
		return err
	}
	r := c.running()
	if r == nil {
		return message.New(
			errdefs.ErrConflict, "cannot kill container: %s: %w", name, notRunning(c),
		)
	}
	c.mu.Lock()
	stop, perr := parseSignal(c.res.StopSignal)
	if sig == syscall.SIGKILL || perr == nil && sig == stop {
		c.state.StoppedByUser = true // as dockerd: who sends these means it
	}
	paused := c.state.Status == engine.Paused
	c.mu.Unlock()
	if err := e.signal(r, sig); err != nil {
		return message.New(errdefs.ErrConflict, "cannot kill container: %s: %w", name, err)
	}
	if paused && sig == syscall.SIGKILL {
		// A group of cgroup v1 that is frozen does not even die.
		e.warn("thaw a killed container", r.task.Resume(ctx), "container", c.id)
	}
	e.publish(c, "kill", map[string]string{"signal": fmt.Sprint(int(sig))})
	if sig == syscall.SIGKILL {
		select {
		case <-r.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (e *Engine) signal(r *run, sig syscall.Signal) error {
	err := r.task.Signal(sig)
	if errdefs.IsFailedPrecondition(err) {
		return nil // it is ending; that it has ended will be told
	}
	return err
}

// Stop implements Containers. A container that does not run is errdefs.ErrNotModified.
func (e *Engine) Stop(ctx context.Context, name string, signal string, timeout *int) error {
	c, err := e.find(name)
	if err != nil {
		return err
	}
	return e.stop(ctx, c, signal, timeout)
}

func (e *Engine) stop(ctx context.Context, c *container, signal string, timeout *int) error {
	c.mu.Lock()
	sigName := signal
	if sigName == "" {
		sigName = c.res.StopSignal
	}
	wait := defaultStopTimeout
	if timeout == nil {
		timeout = c.spec.StopTimeout
	}
	if timeout != nil {
		wait = time.Duration(*timeout) * time.Second
	}
	status, r := c.state.Status, c.run
	if r != nil {
		c.state.StoppedByUser = true
	}
	c.mu.Unlock()
	sig, err := parseSignal(sigName)
	if err != nil {
		return err
	}
	if status == engine.Restarting {
		done, err := e.cancelRestart(ctx, c)
		if done || err != nil {
			return err
		}
		r = c.running() // it has started meanwhile
	}
	if r == nil {
		return message.New(errdefs.ErrNotModified, "container %s is already stopped", c.id)
	}
	if status == engine.Paused {
		if err := e.Unpause(ctx, c.id); err != nil && !errdefs.IsConflict(err) {
			return err
		}
	}
	if err := e.signal(r, sig); err != nil {
		return fmt.Errorf("stop container %s: %w", c.id, err)
	}
	e.publish(c, "kill", map[string]string{"signal": fmt.Sprint(int(sig))})
	if !waitEnded(ctx, r, wait) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.signal(r, syscall.SIGKILL); err != nil {
			return fmt.Errorf("stop container %s: %w", c.id, err)
		}
		e.publish(c, "kill", map[string]string{"signal": fmt.Sprint(int(syscall.SIGKILL))})
		select {
		case <-r.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.publish(c, "stop", nil)
	return nil
}

// cancelRestart ends a container's waiting for its next start; done says that it was waiting.
func (e *Engine) cancelRestart(ctx context.Context, c *container) (done bool, err error) {
	if err := c.op.enter(ctx); err != nil {
		return false, err
	}
	defer c.op.leave()
	if c.status() != engine.Restarting {
		return false, nil
	}
	e.letGo(ctx, c)
	acts, err := e.apply(c, state.Event{Kind: state.StopAsked})
	e.act(c, acts)
	return true, errors.Join(err, e.save(c))
}

// waitEnded waits for the end of a run; negative: without limit.
func waitEnded(ctx context.Context, r *run, d time.Duration) bool {
	var late <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-r.ended:
		return true
	case <-late:
	case <-ctx.Done():
	}
	return false
}

// Restart implements Containers.
func (e *Engine) Restart(ctx context.Context, name string, signal string, timeout *int) error {
	c, err := e.find(name)
	if err != nil {
		return err
	}
	// What removes itself when it ends is not removed by a restart.
	hold := func(n int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.holds += n
	}
	hold(1)
	defer func() {
		hold(-1)
		e.letGo(context.WithoutCancel(ctx), c)
	}()
	if err := e.stop(ctx, c, signal, timeout); err != nil && !errdefs.IsNotModified(err) {
		return err
	}
	if err := e.Start(ctx, c.id); err != nil && !errdefs.IsNotModified(err) {
		return err
	}
	e.publish(c, "restart", nil)
	return nil
}

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

// Remove implements Containers.
func (e *Engine) Remove(ctx context.Context, name string, opt engine.RemoveOptions) error {
	for killed := false; ; killed = true {
		c, err := e.lock(ctx, name)
		if killed && errdefs.IsNotFound(err) {
			return nil // it removed itself
		}
		if err != nil {
			return err
		}
		if c.running() == nil {
			defer c.op.leave()
			return e.remove(ctx, c, opt.Volumes || c.spec.AutoRemove)
		}
		status := c.status()
		c.op.leave()
		if !opt.Force {
			hint := "stop the container before removing or force remove"
			if status == engine.Paused {
				hint = "unpause and then " + hint
			}
			return message.New(
				errdefs.ErrConflict, "cannot remove container %q: container is %s: %s", name,
				status, hint,
			)
		}
		// It ends by the usual way; until then its gate stays open for that.
		if err := e.Kill(ctx, c.id, "SIGKILL"); err != nil && !errdefs.IsConflict(err) &&
			!errdefs.IsNotFound(err) {
			return err
		}
		name = c.id
	}
}

// remove takes a container that does not run out of the world. Its record goes last: as long as it
// is there, the removal is repeated by the next engine. Callers hold op.
func (e *Engine) remove(ctx context.Context, c *container, volumes bool) (err error) {
	e.letGo(ctx, c)
	acts, err := e.apply(c, state.Event{Kind: state.RemoveBegun})
	if err != nil {
		return message.New(errdefs.ErrConflict, "cannot remove container %s: %w", c.id, err)
	}
	e.act(c, acts)
	c.mu.Lock()
	c.removal = &removal{volumes: volumes}
	auto := c.spec.AutoRemove
	c.mu.Unlock()
	defer func() {
		if err != nil {
			e.apply(c, state.Event{Kind: state.RemoveFailed, Reason: err.Error()})
			err = errors.Join(fmt.Errorf("remove container %s: %w", c.id, err), e.save(c))
		}
	}()
	if err := e.fault("remove: mark"); err != nil {
		return err
	}
	// What removes itself is removed by the next engine without being told.
	if !auto {
		if err := e.save(c); err != nil {
			return err
		}
	}
	if err := e.fault("remove: layer"); err != nil {
		return err
	}
	if c.res.ImageID != "" {
		if err := e.cfg.Images.Release(ctx, c.rootfsKey()); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	if err := e.removeForeignGroup(ctx, c); err != nil {
		return err
	}
	if err := e.fault("remove: volumes"); err != nil {
		return err
	}
	for i := range c.res.Mounts {
		m := &c.res.Mounts[i]
		if m.Volume == "" {
			continue
		}
		e.volumes.Release(m.Volume, c.id)
		if m.Anonymous && volumes {
			switch err := e.volumes.Remove(m.Volume); {
			case err == nil:
				e.events.publish(
					engine.Event{
						Type: "volume", Action: "destroy", ID: m.Volume,
						Attributes: map[string]string{"driver": "local"},
					},
				)
			case errdefs.IsNotFound(err), errdefs.IsAlreadyExists(err):
				// Gone, or another container uses it by its name.
			default:
				return err
			}
		}
	}
	if err := e.fault("remove: record"); err != nil {
		return err
	}
	if err := c.removeDir(); err != nil {
		return err
	}
	e.warn("remove", e.fault("remove: done"), "container", c.id)
	e.forgetExecs(c)
	e.forget(c)
	e.publish(c, "destroy", nil)
	c.mu.Lock()
	c.removed = true
	c.wake(false, true)
	c.mu.Unlock()
	c.failPending(notFound(c.id))
	return nil
}

// Rename implements Containers.
func (e *Engine) Rename(ctx context.Context, name, to string) error {
	to = strings.TrimPrefix(to, "/")
	if to == "" {
		return message.New(errdefs.ErrInvalidArgument, "Neither old nor new names may be empty")
	}
	if err := naming.Check(to); err != nil {
		return err
	}
	c, err := e.lock(ctx, name)
	if err != nil {
		return err
	}
	defer c.op.leave()
	old := c.spec.Name
	if old == to {
		return message.New(
			errdefs.ErrInvalidArgument,
			"Renaming a container with the same name as its current name",
		)
	}
	if err := e.reserve(to, c); err != nil {
		return err
	}
	set := func(n string) {
		c.mu.Lock()
		s := c.spec
		s.Name = n
		c.spec = s
		c.mu.Unlock()
	}
	set(to)
	err = e.fault("rename: record")
	if err == nil {
		err = e.saveSpec(c)
	}
	if err != nil {
		set(old)
		e.release(to)
		return err
	}
	e.release(old)
	e.publish(c, "rename", map[string]string{"oldName": "/" + old})
	return nil
}

// Update implements Containers: limits are merged over the container's and, where it runs, applied
// at once.
func (e *Engine) Update(
	ctx context.Context, name string, res specs.LinuxResources, restart *engine.RestartPolicy,
	front func(json.RawMessage) (json.RawMessage, error),
) (warnings []string, err error) {
	c, err := e.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer c.op.leave()
	c.mu.Lock()
	old, r := c.spec, c.run
	c.mu.Unlock()
	warnings = e.cfg.Groups.Enforced(&res)
	next := old
	next.Resources = ocispec.MergeResources(old.Resources, res)
	if restart != nil {
		next.Restart = *restart
	}
	if front != nil {
		if next.Front, err = front(old.Front); err != nil {
			return nil, err
		}
	}
	if err := checkPolicy(&next); err != nil {
		return nil, err
	}
	if err := e.fault("update: limits"); err != nil {
		return nil, err
	}
	if r != nil {
		applied := res
		applied.BlockIO = ocispec.Lift(old.Resources.BlockIO, res.BlockIO)
		if err := r.task.Update(ctx, &applied); err != nil {
			return nil, message.New(
				errdefs.ErrInvalidArgument, "Cannot update container %s: %w", c.id, err,
			)
		}
	}
	c.mu.Lock()
	c.spec = next
	c.mu.Unlock()
	e.warn("update", e.fault("update: record"), "container", c.id)
	if err := e.saveSpec(c); err != nil {
		c.mu.Lock()
		c.spec = old
		c.mu.Unlock()
		return nil, err
	}
	e.publish(c, "update", nil)
	return warnings, nil
}
