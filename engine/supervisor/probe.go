package supervisor

import (
	"time"

	"strake/engine"
	"strake/engine/state"
)

// prober runs the health checks of containers.
type prober struct {
	*core
	execs *execs
}

// scheduleProbe arranges the next run of a container's health check. Callers hold op.
func (e *prober) scheduleProbe(c *container, r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run != r || !state.HasProbe(c.res.Health) {
		return
	}
	c.timer = time.AfterFunc(
		state.NextProbe(c.res.Health, c.state, now()), func() { e.spawn(func() { e.probe(c, r) }) },
	)
}

// probe runs a health check once and judges it.
func (e *prober) probe(c *container, r *run) {
	c.mu.Lock()
	h, shell, status, user := c.res.Health, c.res.Shell, c.state.Status, c.res.User
	same := c.run == r
	c.mu.Unlock()
	if !same {
		return
	}
	if status == engine.Running {
		res := engine.HealthResult{Start: now()}
		timeout := state.ProbeTimeout(h)
		code, out, err := e.execs.capture(
			e.ctx, c, engine.ExecSpec{Args: state.ProbeArgs(h, shell), User: user}, timeout,
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
func (e *prober) recordProbe(c *container, r *run, h *engine.HealthConfig, res engine.HealthResult) bool {
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
	c.state.Health, c.state.FailingStreak = state.Judge(h, c.state, res)
	after := c.state.Health
	probes := append(append([]engine.HealthResult(nil), c.probes...), res)
	c.probes = probes[max(0, len(probes)-state.HealthLogEntries):]
	c.mu.Unlock()
	if before != after {
		e.warn("record a container's health", e.save(c), "container", c.id)
		e.publish(c, "health_status: "+after, nil)
	}
	return true
}

// now is the engine's clock for states.
func now() time.Time { return time.Now().UTC() }
