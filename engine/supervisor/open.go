package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
	"strake/engine/ocispec"
	"strake/engine/record"
	"strake/engine/state"
	"strake/network/place"
	"strake/sandbox"
	"strake/task"
	"strake/volume"
)

// validate names the first field that is wrong.
func (cfg *Config) validate() error {
	for name, path := range map[string]string{"Root": cfg.Root, "Run": cfg.Run} {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return fmt.Errorf(
				"engine: %s %q: want an absolute, clean path: %w", name, path,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	if cfg.Network == nil || cfg.Groups == nil || cfg.Tasks == nil || cfg.Images == nil ||
		cfg.Sandboxes == nil {
		return fmt.Errorf(
			"engine: Images, Network, Groups, Tasks and Sandboxes are required: %w",
			errdefs.ErrInvalidArgument,
		)
	}
	if err := ocispec.CheckRlimits(cfg.Rlimits); err != nil {
		return fmt.Errorf("engine: Rlimits: %w", err)
	}
	return nil
}

// Open starts an engine on its directories: it loads what it once acknowledged, adopts the
// containers that run, learns how the others ended, removes what an interrupted operation left, and
// starts what restart policies want.
func Open(ctx context.Context, cfg Config) (_ *Engine, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Owner == "" {
		cfg.Owner = DefaultOwner
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := cfg.makeDirs(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg}
	e.core = newCore(&e.cfg)
	e.layers = &layers{core: e.core, images: cfg.Images}
	e.execs = &execs{core: e.core, table: map[string]*execution{}}
	e.streams = &streams{core: e.core}
	if e.host.fixed, err = readHost(cfg.Rlimits); err != nil {
		return nil, err
	}
	e.volumes, err = volume.Open(volume.Config{
		Root:  filepath.Join(cfg.Root, "volumes"),
		Fault: func(step string) { _ = e.fault(step) },
	})
	if err != nil {
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
	e.spawn(func() { e.warn("remove the data of removed volumes", e.volumes.Sweep()) })
	e.startDue()
	return e, nil
}

// load brings the recorded containers into memory and returns what their records say about the
// life that the last engine saw.
func (e *Engine) load() (map[string]record.State, error) {
	dir := filepath.Join(e.cfg.Root, "containers")
	list, states, err := record.Load(dir, func(id string, err error) {
		e.log.Error(
			"a container's record cannot be read; it is left alone", "container", id, "error", err,
		)
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		sr := &list[i]
		if sr.Owner != "" && sr.Owner != e.cfg.Owner {
			e.log.Error(
				"a container belongs to another owner; it is left alone", "container", sr.ID,
				"owner", sr.Owner,
			)
			continue
		}
		st := states[sr.ID]
		c := &container{
			id: sr.ID, dir: e.containerDir(sr.ID), op: newGate(), created: sr.Created,
			spec: sr.Spec, res: sr.Resolved, state: st.State, probes: st.HealthLog,
		}
		if st.State.Status == engine.Removing {
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
		e.adoptVolumes(c)
	}
	return states, e.volumes.Settle()
}

func (e *Engine) adoptVolumes(c *container) {
	for i := range c.res.Mounts {
		v := c.res.Mounts[i].Volume
		if v == "" {
			continue
		}
		// Volumes of a container whose removal is not finished may be gone already.
		if _, err := e.volumes.Adopt(v, c.id); err != nil &&
			(c.removal == nil && !c.spec.AutoRemove || !errdefs.IsNotFound(err)) {
			e.warn("a container's volume", err, "container", c.id)
		}
	}
}

// recover makes memory, tasks and host agree, for what belongs to this engine's owner.
func (e *Engine) recover(ctx context.Context) error {
	states, err := e.load()
	if err != nil {
		return err
	}
	if err := e.cfg.Sandboxes.Recover(ctx, e.cfg.Owner); err != nil {
		e.warn("recover sandboxes", err)
	}
	alive := map[string]bool{}
	for _, f := range e.cfg.Tasks.Found(e.cfg.Owner) {
		if !f.Exec && e.containers[f.ID] != nil {
			alive[f.ID] = true
			continue
		}
		// An exec whose caller is gone with the last engine, or a container that was never
		// recorded.
		if err := e.fault("recover: end a process"); err != nil {
			return err
		}
		e.warn("end a process without a container", e.cfg.Tasks.Abort(ctx, f.ID), "process", f.ID)
	}
	// The ends of processes are dealt with after reconcile: what a container occupies is not given
	// back while it is still being taken stock of.
	settled := make(chan struct{})
	for _, c := range e.all() {
		e.adopt(ctx, c, states[c.id], alive[c.id], settled)
	}
	err = e.reconcile(ctx)
	close(settled)
	return err
}

// adopt brings one loaded container's state in line with its task.
func (e *Engine) adopt(
	ctx context.Context, c *container, st record.State, found bool, settled <-chan struct{},
) {
	c.op.enter(context.Background())
	defer c.op.leave()
	lived := c.state.Status == engine.Running || c.state.Status == engine.Paused
	if found && !lived {
		// Either the start was never acknowledged, or the exit was recorded and not yet forgotten.
		e.warn(
			"end a process whose start was interrupted", e.cfg.Tasks.Abort(ctx, c.id),
			"container", c.id,
		)
	}
	if !lived {
		return
	}
	r := e.restoreRun(c, &st)
	if !found {
		e.lost(ctx, c, r)
		return
	}
	rec := task.Record{ID: c.id, Owner: e.cfg.Owner}
	if st.Task != nil {
		rec = *st.Task
	}
	t, err := e.cfg.Tasks.Adopt(ctx, rec, func(exit task.Exit) {
		<-settled
		e.exited(c, r, exit)
	})
	if err != nil {
		e.warn("adopt a running container", err, "container", c.id)
		e.lost(ctx, c, r)
		return
	}
	r.task = t
	c.mu.Lock()
	c.run = r
	c.state.Pid = t.Pid()
	c.mu.Unlock()
	if !ended(t) {
		e.resumeFreezer(ctx, c, t)
		e.scheduleProbe(c, r)
	}
}

func ended(p task.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// restoreRun makes the run of a container that was running from its record.
func (e *Engine) restoreRun(c *container, st *record.State) *run {
	r := &run{ended: make(chan struct{}), group: e.groupOf(c, st)}
	rec := sandbox.Record{ID: c.id, Owner: e.cfg.Owner}
	if st.Sandbox != nil {
		rec = *st.Sandbox
	}
	r.sandbox = e.cfg.Sandboxes.Restore(rec)
	e.warn("a container's sandbox", r.sandbox.Enter(c.id), "container", c.id)
	for _, mode := range []string{c.spec.Network, c.spec.IPCMode, c.spec.UTSMode} {
		id, ok := strings.CutPrefix(mode, "container:")
		if !ok {
			continue
		}
		if sb, err := e.cfg.Sandboxes.Get(id); err == nil && sb.Enter(c.id) == nil {
			r.joined = append(r.joined, sb)
		}
	}
	return r
}

// groupOf names the group of a container, which is where its record, or its configuration, says.
func (e *Engine) groupOf(c *container, st *record.State) task.Group {
	var path string
	var err error
	if st.Task != nil {
		path = st.Task.Group
	}
	if path == "" {
		path, err = e.cfg.Groups.Path(c.spec.CgroupParent, c.id)
	}
	var g task.Group
	if err == nil {
		g, err = e.cfg.Groups.At(path)
	}
	if err != nil {
		e.warn("the control group of a container", err, "container", c.id)
		return task.NoGroup{Err: err}
	}
	return g
}

// resumeFreezer makes the group of a running container what the record says: the last engine may
// have died between the two.
func (e *Engine) resumeFreezer(ctx context.Context, c *container, t task.Task) {
	set := t.Resume
	if c.state.Status == engine.Paused {
		set = t.Pause
	}
	err := set(ctx)
	if errdefs.IsFailedPrecondition(err) && c.state.Status != engine.Paused {
		return // a host without a freezer has nothing frozen
	}
	e.warn("pause or unpause a container as recorded", err, "container", c.id)
}

// lost records that a container ended and how is not known: the machine was restarted, or the
// keeper and its guard were killed with the engine.
func (e *Engine) lost(ctx context.Context, c *container, r *run) {
	e.warn("release a container that is gone", e.fault("recover: release"), "container", c.id)
	e.warn("release a container that is gone", e.vacate(ctx, c, r), "container", c.id)
	acts, err := e.apply(c, state.Event{
		Kind: state.Recovered, Code: 255, Reason: "the container was gone when the engine started",
	})
	if err == nil {
		err = e.save(c)
	}
	e.warn("record that a container is gone", err, "container", c.id)
	e.act(c, acts)
}

// reconcile removes what belongs to no container of this owner: leftovers of creations, starts and
// removals that were interrupted.
func (e *Engine) reconcile(ctx context.Context) error {
	if err := e.fault("recover: reconcile"); err != nil {
		return err
	}
	running := func(id string) bool {
		c := e.containers[id]
		return c != nil && c.running() != nil
	}
	e.warn("release sandboxes without members", e.cfg.Sandboxes.Settle(ctx, e.cfg.Owner))
	e.warn("remove leftover control groups", e.cfg.Groups.Sweep(ctx, running))
	e.sweepForeignParents(ctx)
	if err := e.reconcileNetwork(ctx); err != nil {
		e.warn("remove leftovers in the network", err)
	}
	if err := e.fault("recover: layers"); err != nil {
		return err
	}
	e.sweepLayers(ctx)
	return e.cfg.Sandboxes.SweepShm(e.cfg.Owner, running)
}

// sweepLayers releases the layers that no container has: of this owner, and for the default owner
// those of engines that had none.
func (e *Engine) sweepLayers(ctx context.Context) {
	used := map[string]bool{}
	for _, c := range e.all() {
		used[c.rootfsKey()] = true
	}
	release := func(key string) {
		if !used[key] {
			e.warn("remove a leftover layer", e.cfg.Images.Release(ctx, key), "layer", key)
		}
	}
	for key := range e.cfg.Images.RootfsKeys(e.cfg.Owner) {
		release(key)
	}
	if e.cfg.Owner != DefaultOwner {
		return
	}
	for key := range e.cfg.Images.RootfsKeys("") {
		if record.ValidID(key) {
			release(key)
		}
	}
}

// sweepForeignParents removes the groups that an interrupted start left below a parent that a user
// chose: where they would be, the container's configuration says.
func (e *Engine) sweepForeignParents(ctx context.Context) {
	for _, c := range e.all() {
		if c.running() == nil {
			e.warn("remove a leftover control group", e.removeForeignGroup(ctx, c), "container", c.id)
		}
	}
}

// removeForeignGroup removes a container's group if its parent is not this engine's own.
func (e *Engine) removeForeignGroup(ctx context.Context, c *container) error {
	if c.spec.CgroupParent == "" {
		return nil
	}
	return e.groupOf(c, &record.State{}).Remove(ctx)
}

// reconcileNetwork tells the network which sandboxes live.
func (e *Engine) reconcileNetwork(ctx context.Context) error {
	live, release, err := e.cfg.Sandboxes.Live(e.cfg.Owner)
	if err != nil {
		return err
	}
	defer release()
	for _, c := range e.all() {
		r := c.running()
		if r == nil || ended(r.task) {
			continue
		}
		rec := r.sandbox.Record()
		if _, held := live[rec.ID]; held || !rec.Attached {
			continue
		}
		l := place.Live{Endpoints: rec.Endpoints}
		if f, err := r.task.Namespace(specs.NetworkNamespace); err == nil {
			defer f.Close()
			l.NetnsPath = sandbox.SelfPath(f)
		} else {
			e.warn("the network namespace of a running container", err, "container", c.id)
		}
		live[rec.ID] = l
	}
	return e.cfg.Network.Reconcile(ctx, e.cfg.Owner, live)
}

// startDue finishes removals and starts containers whose policy says so.
func (e *Engine) startDue() {
	for _, c := range e.all() {
		c.mu.Lock()
		st, policy, auto, rm := c.state, c.spec.Restart, c.spec.AutoRemove, c.removal
		idle := c.run == nil && st.Status != engine.Created
		c.mu.Unlock()
		switch {
		case rm != nil, auto && idle:
			e.spawn(func() { e.finishRemoval(c, auto || rm != nil && rm.volumes) })
		case state.StartAtBoot(policy, st):
			e.spawn(func() { e.startAtBoot(c) })
		case st.Status == engine.Restarting:
			// It waited for a start that does not come now.
			c.mu.Lock()
			c.state.Status = engine.Exited
			c.mu.Unlock()
		}
	}
}

// finishRemoval removes a container whose removal the last engine had begun.
func (e *Engine) finishRemoval(c *container, volumes bool) {
	if c.op.enter(e.ctx) != nil {
		return
	}
	defer c.op.leave()
	if c.running() == nil {
		err := e.remove(context.WithoutCancel(e.ctx), c, volumes)
		e.warn("finish the removal of a container", err, "container", c.id)
	}
}

// startAtBoot starts a container by its restart policy.
func (e *Engine) startAtBoot(c *container) {
	if c.op.enter(e.ctx) != nil {
		return
	}
	defer c.op.leave()
	switch c.status() {
	case engine.Running, engine.Paused, engine.Removing:
		return
	}
	c.mu.Lock()
	c.stopTimer()
	c.mu.Unlock()
	err := e.start(e.ctx, c, false)
	e.warn("start a container by its restart policy", err, "container", c.id)
}
