package engine

import (
	"context"
	"time"

	"github.com/containerd/errdefs"

	"strake/internal/message"
	"strake/keeper/logfile"
)

// Logs implements Containers. Following ends when the container has ended and everything it wrote
// is delivered.
func (e *Engine) Logs(
	ctx context.Context, name string, opt LogOptions, emit func(LogLine) error,
) error {
	c, err := e.find(name)
	if err != nil {
		return err
	}
	if !opt.Stdout && !opt.Stderr {
		return message.New(
			errdefs.ErrInvalidArgument, "Bad parameters: you must choose at least one stream",
		)
	}
	c.mu.Lock()
	path, r := c.logPath(), c.run
	c.mu.Unlock()
	if path == "" {
		return message.New(
			errdefs.ErrFailedPrecondition, "configured logging driver does not support reading",
		)
	}
	o := logfile.Options{
		Stdout: opt.Stdout, Stderr: opt.Stderr, Since: opt.Since, Until: opt.Until, Tail: opt.Tail,
		Follow: opt.Follow && r != nil,
	}
	if o.Follow {
		done := make(chan struct{})
		o.Done = done
		fctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			defer close(done)
			select {
			case <-r.ended: // by then the keeper has written everything
			case <-fctx.Done():
			}
		}()
	}
	return logfile.Read(ctx, path, o, func(l logfile.Line) error {
		return emit(LogLine{Stream: l.Stream, Time: l.Time, Line: []byte(l.Text)})
	})
}

// scheduleProbe arranges the next run of a container's health check. Callers hold op.
func (e *Engine) scheduleProbe(c *container, r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run != r || !c.res.Health.enabled() {
		return
	}
	c.timer = time.AfterFunc(
		nextProbe(c.res.Health, c.state, now()), func() { e.spawn(func() { e.probe(c, r) }) },
	)
}

// probe runs a health check once and judges it.
func (e *Engine) probe(c *container, r *run) {
	c.mu.Lock()
	h, shell, status, user := c.res.Health, c.res.Shell, c.state.Status, c.res.User
	same := c.run == r
	c.mu.Unlock()
	if !same {
		return
	}
	if status == Running {
		res := HealthResult{Start: now()}
		timeout := probeTimeout(h)
		code, out, err := e.capture(
			e.ctx, c, ExecSpec{Args: probeArgs(h, shell), User: user}, timeout,
		)
		res.End, res.ExitCode, res.Output = now(), code, out
		switch {
		case e.ctx.Err() != nil:
			return
		case err != nil && res.End.Sub(res.Start) >= timeout:
			res.ExitCode, res.Output = -1, "Health check exceeded timeout ("+timeout.String()+"): "+out
		case err != nil:
			res.ExitCode, res.Output = -1, err.Error()
		}
		if !e.recordProbe(c, r, h, res) {
			return
		}
	}
	e.scheduleProbe(c, r)
}

// recordProbe stores a result; false if the container has ended meanwhile.
func (e *Engine) recordProbe(c *container, r *run, h *HealthConfig, res HealthResult) bool {
	if c.op.enter(e.ctx) != nil {
		return false
	}
	defer c.op.leave()
	c.mu.Lock()
	if c.run != r {
		c.mu.Unlock()
		return false
	}
	before := c.state.Health
	c.state.Health, c.state.FailingStreak = judge(h, c.state, res)
	after := c.state.Health
	probes := append(append([]HealthResult(nil), c.probes...), res)
	c.probes = probes[max(0, len(probes)-healthLogEntries):]
	c.mu.Unlock()
	if before != after {
		e.warn("record a container's health", e.save(c), "container", c.id)
		e.publish(c, "health_status: "+after, nil)
	}
	return true
}

// now is the engine's clock for states.
func now() time.Time { return time.Now().UTC() }
