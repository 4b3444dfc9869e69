package supervisor

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
	"strake/engine/record"
	"strake/engine/state"
	"strake/network/place"
	"strake/sandbox"
	"strake/task"
)

// recovery makes memory, tasks and host agree when an engine starts, for what belongs to its owner.
type recovery struct{ *Engine }

// load brings the recorded containers into memory and returns what their records say about the
// life that the last engine saw.
func (e recovery) load() (map[string]record.State, error) {
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

func (e recovery) adoptVolumes(c *container) {
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
func (e recovery) recover(ctx context.Context) error {
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
func (e recovery) adopt(
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

// restoreRun makes the run of a container that was running from its record.
func (e recovery) restoreRun(c *container, st *record.State) *run {
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

// resumeFreezer makes the group of a running container what the record says: the last engine may
// have died between the two.
func (e recovery) resumeFreezer(ctx context.Context, c *container, t task.Task) {
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
func (e recovery) lost(ctx context.Context, c *container, r *run) {
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
func (e recovery) reconcile(ctx context.Context) error {
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
	return e.cfg.Sandboxes.Sweep(e.cfg.Owner, running)
}

// sweepLayers releases the layers that no container has: of this owner, and for the default owner
// those of engines that had none.
func (e recovery) sweepLayers(ctx context.Context) {
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
func (e recovery) sweepForeignParents(ctx context.Context) {
	for _, c := range e.all() {
		if c.running() == nil {
			e.warn("remove a leftover control group", e.removeForeignGroup(ctx, c), "container", c.id)
		}
	}
}

// reconcileNetwork tells the network which sandboxes live.
func (e recovery) reconcileNetwork(ctx context.Context) error {
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
func (e recovery) startDue() {
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
func (e recovery) finishRemoval(c *container, volumes bool) {
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
func (e recovery) startAtBoot(c *container) {
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
