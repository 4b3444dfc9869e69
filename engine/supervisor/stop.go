package supervisor

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/engine/state"
	"strake/internal/message"
)

// defaultStopTimeout is what dockerd waits before SIGKILL.
const defaultStopTimeout = 10 * time.Second

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
	c.mu.Unlock()
	send := e.signal
	if sig == syscall.SIGKILL {
		send = func(r *run, _ syscall.Signal) error { return c.kill(ctx, e, r) }
	}
	if err := send(r, sig); err != nil {
		return message.New(errdefs.ErrConflict, "cannot kill container: %s: %w", name, err)
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

// kill sends SIGKILL and sees to it that the container is not frozen then: a frozen group of cgroup
// v1 does not even die. A pause that is under way thaws the group itself, by killed.
func (c *container) kill(ctx context.Context, e *Engine, r *run) error {
	c.mu.Lock()
	r.killed = true
	paused := c.state.Status == engine.Paused
	c.mu.Unlock()
	if err := e.signal(r, syscall.SIGKILL); err != nil {
		return err
	}
	if paused {
		e.warn("thaw a killed container", r.task.Resume(ctx), "container", c.id)
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
		if err := c.kill(ctx, e, r); err != nil {
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
