package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper"
	"strake/volume"
)

// Open starts an engine on its directories: it loads what it once acknowledged, adopts the
// containers that run, learns how the others ended, removes what an interrupted operation left, and
// starts what restart policies want.
func Open(ctx context.Context, cfg Config) (_ *Engine, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for name, path := range map[string]string{"Root": cfg.Root, "Run": cfg.Run} {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return nil, fmt.Errorf(
				"engine: %s %q: want an absolute, clean path: %w", name, path,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	if cfg.Network == nil || cfg.Groups == nil || cfg.Keeper == nil || cfg.Images == nil {
		return nil, fmt.Errorf(
			"engine: Images, Network, Groups and Keeper are required: %w",
			errdefs.ErrInvalidArgument,
		)
	}
	if err := checkRlimits(cfg.Rlimits); err != nil {
		return nil, fmt.Errorf("engine: Rlimits: %w", err)
	}
	if err := cfg.makeDirs(); err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, log: cfg.Log, images: cfg.Images, containers: map[string]*container{},
		names: map[string]*container{},
	}
	e.sync = syncer{
		pause: time.Second, report: func(err error) { e.warn("make records durable", err) },
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	if e.host.fixed, err = readHost(cfg.Rlimits); err != nil {
		return nil, err
	}
	if e.volumes, err = volume.Open(
		volume.Config{
			Root:  filepath.Join(cfg.Root, "volumes"),
			Fault: func(step string) { _ = e.fault(step) },
		},
	); err != nil {
		return nil, err
	}
	if e.keeper, err = cfg.Keeper(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if err := e.recover(ctx); err != nil {
		return nil, err
	}
	e.spawn(e.followKeeper)
	e.spawn(func() { e.warn("remove the data of removed volumes", e.volumes.Sweep()) })
	e.startDue()
	return e, nil
}

// recover makes memory, keeper and host agree.
func (e *Engine) recover(ctx context.Context) error {
	list, states, err := loadRecords(filepath.Join(
		e.cfg.Root, "containers",
	), func(id string, err error) {
		e.log.Error(
			"a container's record cannot be read; it is left alone", "container", id, "error", err,
		)
	})
	if err != nil {
		return err
	}
	for i := range list {
		sr := &list[i]
		st := states[sr.ID]
		c := &container{
			id: sr.ID, dir: e.containerDir(sr.ID), op: newGate(), created: sr.Created,
			spec: sr.Spec, res: sr.Resolved, state: st.State, probes: st.HealthLog,
		}
		if st.State.Status == Removing {
			c.removal = &removal{volumes: st.RemoveVolumes}
		}
		e.containers[c.id] = c
		if other, taken := e.names[c.spec.Name]; taken {
			// A crash in the middle of a rename cannot cause this; a copied directory can.
			e.log.Error(
				"two containers have one name; one of them can be reached by its ID only", "name",
				c.spec.Name, "containers", []string{c.id, other.id},
			)
		} else {
			e.names[c.spec.Name] = c
		}
		for i := range c.res.Mounts {
			if v := c.res.Mounts[i].Volume; v != "" {
				// Volumes of a container whose removal is not finished may be gone already.
				if _, err := e.volumes.Adopt(v, c.id); err != nil &&
					(c.removal == nil && !c.spec.AutoRemove || !errdefs.IsNotFound(err)) {
					e.warn("a container's volume", err, "container", c.id)
				}
			}
		}
	}
	if err := e.volumes.Settle(); err != nil {
		return err
	}
	processes, err := e.connection().List(ctx)
	if err != nil {
		return err
	}
	alive := map[string]*keeper.Process{}
	for _, p := range processes {
		if p.Kind == keeper.KindInit && e.containers[p.ID] != nil {
			alive[p.ID] = p
			continue
		}
		// An exec whose caller is gone with the last engine, or a container that was never
		// recorded.
		if err := e.fault("recover: end a process"); err != nil {
			return err
		}
		e.warn("end a process that nobody knows", e.connection().Abort(ctx, p.ID), "process", p.ID)
		p.Close()
	}
	var ended []func()
	for _, c := range e.all() {
		if f := e.adopt(ctx, c, states[c.id].Sandbox, alive[c.id]); f != nil {
			ended = append(ended, f)
		}
	}
	if err := e.reconcile(ctx); err != nil {
		return err
	}
	for _, f := range ended {
		e.spawn(f)
	}
	return nil
}

// adopt brings one loaded container's state in line with what the keeper says about its process. If
// that has ended it returns what deals with the end, for after reconcile: what a container occupies
// is not given back while it is still being taken stock of.
func (e *Engine) adopt(
	ctx context.Context, c *container, sb *sandbox, p *keeper.Process,
) (ended func()) {
	c.op.enter(context.Background())
	defer c.op.leave()
	lived := c.state.Status == Running || c.state.Status == Paused
	if p != nil && !lived {
		// Either the start was never acknowledged, or the exit was recorded and not yet forgotten.
		e.warn(
			"end a process whose start was interrupted", e.connection().Abort(ctx, p.ID),
			"container", c.id,
		)
		p.Close()
		p = nil
	}
	if !lived {
		return nil
	}
	if sb == nil {
		sb = &sandbox{}
	}
	if p == nil {
		e.lost(ctx, c, sb)
		return nil
	}
	r := &run{proc: p, sandbox: sb, ended: make(chan struct{}), drained: make(chan struct{})}
	g, err := e.cfg.Groups.At(sb.Cgroup)
	if err != nil {
		if p.Exit == nil || !errdefs.IsNotFound(err) {
			e.warn("open the control group of a running container", err, "container", c.id)
		}
		g = missingGroup{err}
	}
	r.cgroup = g
	if p.Exit == nil && err == nil {
		e.resumeFreezer(ctx, c, g)
	}
	if p.StreamsClosed {
		r.markDrained()
	}
	c.mu.Lock()
	c.run = r
	c.state.Pid = p.Pid
	c.mu.Unlock()
	if p.Exit == nil {
		e.scheduleProbe(c, r)
		return nil
	}
	exit := *p.Exit
	return func() { e.exited(c, r, exit) }
}

// resumeFreezer makes the group of a running container what the record says: the last engine may
// have died between the two.
func (e *Engine) resumeFreezer(ctx context.Context, c *container, g Cgroup) {
	set := g.Thaw
	if c.state.Status == Paused {
		set = g.Freeze
	}
	err := set(ctx)
	if errdefs.IsFailedPrecondition(err) && c.state.Status != Paused {
		return // a host without a freezer has nothing frozen
	}
	e.warn("pause or unpause a container as recorded", err, "container", c.id)
}

// lost records that a container ended without anybody having seen how: the machine was restarted,
// or the keeper was killed with it.
func (e *Engine) lost(ctx context.Context, c *container, sb *sandbox) {
	e.warn("release a container that is gone", e.fault("recover: release"), "container", c.id)
	e.warn("release a container that is gone", e.releaseSandbox(ctx, c, sb), "container", c.id)
	acts, err := e.apply(
		c,
		event{
			what: hRecovered, code: 255, reason: "the container was gone when the engine started",
		},
	)
	if err == nil {
		err = e.save(c)
	}
	e.warn("record that a container is gone", err, "container", c.id)
	e.act(c, acts)
}

// reconcile removes what belongs to no container: leftovers of creations, starts and removals that
// were interrupted.
func (e *Engine) reconcile(ctx context.Context) error {
	if err := e.fault("recover: reconcile"); err != nil {
		return err
	}
	running := func(id string) bool { c := e.containers[id]; return c != nil && c.running() != nil }
	e.warn("remove leftover control groups", e.cfg.Groups.Sweep(ctx, running))
	live := map[string]LivePlace{}
	for _, c := range e.all() {
		if r := c.running(); r != nil && r.sandbox.Attached && r.proc.Exit == nil {
			live[c.id] = LivePlace{fmt.Sprintf("/proc/%d/ns/net", r.proc.Pid), r.sandbox.Endpoints}
		}
	}
	e.warn("remove leftovers in the network", e.cfg.Network.Reconcile(ctx, live))
	if err := e.fault("recover: layers"); err != nil {
		return err
	}
	for key := range e.images.RootfsKeys("") {
		if validID(key) && e.containers[key] == nil {
			e.warn("remove a leftover layer", e.images.Release(ctx, key), "container", key)
		}
	}
	shm, err := os.ReadDir(filepath.Join(e.cfg.Run, "shm"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, d := range shm {
		if !running(d.Name()) {
			e.warn(
				"remove leftover shared memory",
				releaseShm(filepath.Join(e.cfg.Run, "shm", d.Name())),
			)
		}
	}
	return nil
}

// startDue finishes removals and starts containers whose policy says so.
func (e *Engine) startDue() {
	for _, c := range e.all() {
		c.mu.Lock()
		st, policy, auto, rm := c.state, c.spec.Restart, c.spec.AutoRemove, c.removal
		lost := c.run == nil && st.Error == "the container was gone when the engine started"
		idle := c.run == nil && st.Status != Created
		c.mu.Unlock()
		switch {
		case rm != nil, auto && idle:
			e.spawn(func() {
				if c.op.enter(e.ctx) != nil {
					return
				}
				defer c.op.leave()
				if c.running() == nil {
					e.warn(
						"finish the removal of a container",
						e.remove(context.WithoutCancel(e.ctx), c, auto || rm != nil && rm.volumes),
						"container", c.id,
					)
				}
			})
		case startAtBoot(policy, st, lost):
			e.spawn(func() {
				if c.op.enter(e.ctx) != nil {
					return
				}
				defer c.op.leave()
				if s := c.status(); s != Running && s != Paused && s != Removing {
					c.mu.Lock()
					c.stopTimer()
					c.mu.Unlock()
					e.warn(
						"start a container by its restart policy", e.start(e.ctx, c, false),
						"container", c.id,
					)
				}
			})
		case st.Status == Restarting:
			// It waited for a start that nobody will give it now.
			c.mu.Lock()
			c.state.Status = Exited
			c.mu.Unlock()
		}
	}
}

// followKeeper hands the keeper's events to those they concern until the engine closes. When the
// keeper dies it connects to a new one.
func (e *Engine) followKeeper() {
	for {
		conn := e.connection()
		ev, err := conn.Next(e.ctx)
		switch {
		case e.ctx.Err() != nil:
			return
		case err != nil:
			e.log.Warn("the connection to the keeper ended", "error", err)
			if err := e.reconnect(conn); err != nil {
				e.log.Error(
					"no keeper can be reached; containers go on without being watched", "error",
					err,
				)
				return
			}
			continue
		}
		switch ev := ev.(type) {
		case *keeper.ExitEvent:
			if ev.Kind == keeper.KindExec {
				e.spawn(func() { e.execEnded(ev.ID, ev.Exit) })
				continue
			}
			e.spawn(func() { e.initEnded(ev.ID, ev.Exit) })
		case *keeper.StreamsClosedEvent:
			if c, err := e.find(ev.ID); err == nil {
				if r := c.running(); r != nil && r.proc.ID == ev.ID {
					r.markDrained()
				}
			}
		case *keeper.LogEvent:
			if ev.Reason != "" {
				e.log.Warn(
					"lines of a log are lost", "container", ev.ID, "lines", ev.Lost, "reason",
					ev.Reason,
				)
			}
		}
	}
}

// initEnded finds the run that an exit belongs to. The start of it may still be being recorded:
// that holds op.
func (e *Engine) initEnded(id string, exit keeper.Exit) {
	c, err := e.find(id)
	if err != nil {
		e.warn("forget an exit", e.connection().Forget(e.ctx, id))
		return
	}
	r := c.running()
	if r == nil {
		if c.op.enter(e.ctx) != nil {
			return
		}
		r = c.running()
		c.op.leave()
	}
	if r == nil {
		if err := e.connection().Forget(e.ctx, id); !errdefs.IsNotFound(err) {
			e.warn("forget an exit", err)
		}
		return
	}
	e.exited(c, r, exit)
}

// reconnect gets a new keeper and hands it the processes of the dead one.
func (e *Engine) reconnect(dead Keeper) error {
	dead.Close()
	var conn Keeper
	var err error
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		if conn, err = e.cfg.Keeper(e.ctx); err == nil {
			break
		}
		e.log.Warn("connect to the keeper", "error", err)
		select {
		case <-e.ctx.Done():
			return e.ctx.Err()
		case <-time.After(pause):
		}
	}
	e.keeperMu.Lock()
	e.keeper = conn
	e.keeperMu.Unlock()
	list, err := conn.List(e.ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, p := range list {
		known[p.ID] = true
		p.Close()
	}
	for _, c := range e.all() {
		r := c.running()
		if r == nil || known[c.id] {
			continue
		}
		p, err := conn.Adopt(e.ctx, r.proc)
		if err != nil {
			e.warn("hand a container to the new keeper", err, "container", c.id)
			exit := keeper.Exit{Unknown: true, Time: time.Now()}
			if unix.PidfdSendSignal(r.proc.PidFD, 0, nil, 0) != nil {
				e.spawn(func() { e.exited(c, r, exit) })
			}
			continue
		}
		p.Close() // what r.proc holds is the same
	}
	e.execs.mu.Lock()
	var orphans []*execution
	for _, x := range e.execs.m {
		orphans = append(orphans, x)
	}
	e.execs.mu.Unlock()
	for _, x := range orphans {
		if p := x.process(); p != nil && !known[x.id] {
			if np, err := conn.Adopt(e.ctx, p); err == nil {
				np.Close()
			} else {
				x.end(137)
			}
		}
	}
	return nil
}
