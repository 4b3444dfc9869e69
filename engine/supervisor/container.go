package supervisor

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"strake/engine"
	"strake/engine/record"
	"strake/internal/rawfile"
	"strake/sandbox"
	"strake/task"
)

// container is one container in memory.
type container struct {
	id      string
	dir     string
	created time.Time

	// op admits one operation that changes the container at a time: it is held while the kernel
	// works. See the lock order in doc.go.
	op gate

	mu sync.Mutex
	// spec and res are replaced holding op and mu, and may be read holding either. What they refer
	// to is never changed.
	spec     engine.Spec
	res      record.Resolved
	state    engine.State          // guarded by mu
	run      *run                  // guarded by mu; nil unless running or paused
	waiters  map[*waiter]bool      // guarded by mu
	pending  []*pendingAttach      // guarded by mu; attached before the start
	timer    *time.Timer           // guarded by mu; restart or next probe
	delay    time.Duration         // guarded by mu; before the last automatic restart
	probes   []engine.HealthResult // guarded by mu
	execs    []string              // guarded by mu; IDs of execs, oldest first
	retained []*sandbox.Sandbox    // guarded by mu; joined sandboxes kept for the next start
	removal  *removal              // guarded by mu; a removal that has begun
	removed  bool                  // guarded by mu
	holds    int                   // guarded by mu; reasons not to remove itself at the next exit
	// unrecorded is a task whose exit could not be written down, as on a full disk. It is not
	// deleted, so that the next engine learns the status again. Guarded by mu.
	unrecorded task.Task
}

type removal struct{ volumes bool }

// run is one life of a container between start and exit.
type run struct {
	task  task.Task
	group task.Group
	// sandbox is the container's own, joined those of others that it is a member of.
	sandbox *sandbox.Sandbox
	joined  []*sandbox.Sandbox
	// killed says that SIGKILL was sent, so that the container must not stay frozen. Guarded by the
	// container's mu.
	killed bool
	// ended is closed when the exit has been dealt with and everything is released.
	ended chan struct{}
}

// leave takes a container out of the sandboxes of its run; a sandbox that it was the last member of is released.
func (r *run) leave(ctx context.Context, id string) error {
	errs := []error{r.sandbox.Leave(ctx, id)}
	for _, sb := range r.joined {
		errs = append(errs, sb.Leave(ctx, id))
	}
	return errors.Join(errs...)
}

// gate is a lock that can be waited for with a context. The zero value is not ready.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) enter(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g gate) leave() { <-g }

// waiter waits for an exit or the removal.
type waiter struct {
	cond engine.WaitCondition
	ch   chan engine.ExitStatus // capacity 1
}

// exitStatus is how the container ended last. Callers hold mu.
func (c *container) exitStatus() engine.ExitStatus {
	return engine.ExitStatus{Code: c.state.ExitCode, Error: c.state.Error, OOMKilled: c.state.OOMKilled}
}

// wake tells the waiters whose condition holds. An exit meets not-running also if a restart policy
// is about to start the container again, as with dockerd. Callers hold mu.
func (c *container) wake(exited, removed bool) {
	st := c.exitStatus()
	for w := range c.waiters {
		if removed || exited && w.cond != engine.WaitRemoved {
			w.ch <- st
			delete(c.waiters, w)
		}
	}
}

// snapshot copies what is known about the container.
func (c *container) snapshot() engine.Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info()
}

// info is snapshot for those who hold mu.
func (c *container) info() engine.Info {
	in := engine.Info{
		ID: c.id, Created: c.created, Spec: c.spec, State: c.state, ImageID: c.res.ImageID,
		Env: c.res.Env, User: c.res.User, WorkingDir: c.res.Cwd,
		LogPath: c.logPath(),
		ExecIDs: slices.Clone(c.execs), HealthLog: slices.Clone(c.probes),
	}
	if c.res.ImageID != "" {
		in.LayerKey = c.rootfsKey()
	}
	if len(c.res.Args) > 0 {
		in.Path, in.Args = c.res.Args[0], c.res.Args[1:]
	}
	if len(in.Spec.Exposed) == 0 {
		in.Spec.Exposed = c.res.Exposed
	}
	if in.Spec.StopSignal == "" {
		in.Spec.StopSignal = c.res.StopSignal
	}
	in.Spec.Health = c.res.Health
	for i := range c.res.Mounts {
		in.Mounts = append(in.Mounts, mountInfo(&c.res.Mounts[i]))
	}
	if c.run != nil {
		sb := c.run.sandbox.Record()
		in.Networks, in.Ports = maps.Clone(sb.Endpoints), slices.Clone(sb.Ports)
		in.SandboxKey = sb.NetnsPath
		in.HostsPath, in.HostnamePath = sb.Files.Hosts, sb.Files.Hostname
		in.ResolvConfPath = sb.Files.ResolvConf
	}
	return in
}

func mountInfo(m *record.MountPoint) engine.MountInfo {
	mi := engine.MountInfo{
		Type: m.Type, Name: m.Volume, Source: m.Source, Destination: m.Target, RW: !m.ReadOnly,
		Propagation: m.Propagation,
	}
	if m.Type == "volume" {
		mi.Driver = "local"
	}
	return mi
}

// rootfsKey names the container's layer in the image store. Records of engines that had no owner
// have none: there it was the container's ID.
func (c *container) rootfsKey() string {
	if c.res.RootfsKey != "" {
		return c.res.RootfsKey
	}
	return c.id
}

// removeDir removes the container's directory, its record first. As a rule nothing is in it that is
// not named here.
func (c *container) removeDir() error {
	if rawfile.RemoveDir(
		c.dir, record.SpecFile, record.StateFile, c.id+"-json.log",
	) {
		return nil
	}
	return os.RemoveAll(c.dir)
}

func (c *container) path(name string) string { return c.dir + "/" + name }

// logPath is where the keeper writes the log; empty if it does not.
func (c *container) logPath() string {
	if c.spec.Log.Driver == "none" {
		return ""
	}
	return c.path(c.id + "-json.log")
}

// running returns the current life, or nil. A paused container lives.
func (c *container) running() *run {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run
}

func (c *container) status() engine.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Status
}
