package engine

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"strake/keeper"
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
	spec    Spec
	res     resolved
	state   State            // guarded by mu
	run     *run             // guarded by mu; nil unless running or paused
	waiters map[*waiter]bool // guarded by mu
	pending []*pendingAttach // guarded by mu; attached before the start
	timer   *time.Timer      // guarded by mu; restart or next probe
	delay   time.Duration    // guarded by mu; before the last automatic restart
	probes  []HealthResult   // guarded by mu
	execs   []string         // guarded by mu; IDs of execs, oldest first
	removal *removal         // guarded by mu; a removal that has begun
	removed bool             // guarded by mu
	holds   int              // guarded by mu; reasons not to remove itself at the next exit
}

type removal struct{ volumes bool }

// run is one life of a container between start and exit.
type run struct {
	proc    *keeper.Process
	sandbox *sandbox
	// ended is closed when the exit has been dealt with and everything is released.
	ended chan struct{}
	// drained is closed when all output has been written to the log.
	drained     chan struct{}
	drainedOnce sync.Once
	cgroup      Cgroup
	// inputMu guards proc's input against being closed while it is duplicated.
	inputMu sync.Mutex
}

// input opens the process's standard input for writing.
func (r *run) input() (*os.File, error) {
	r.inputMu.Lock()
	defer r.inputMu.Unlock()
	return r.proc.Input()
}

func (r *run) closeInput() {
	r.inputMu.Lock()
	defer r.inputMu.Unlock()
	r.proc.CloseStdin()
}

func (r *run) markDrained() { r.drainedOnce.Do(func() { close(r.drained) }) }

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
	cond WaitCondition
	ch   chan ExitStatus // capacity 1
}

// exitStatus is how the container ended last. Callers hold mu.
func (c *container) exitStatus() ExitStatus {
	return ExitStatus{Code: c.state.ExitCode, Error: c.state.Error, OOMKilled: c.state.OOMKilled}
}

// wake tells the waiters whose condition holds. Callers hold mu.
func (c *container) wake(exited, removed bool) {
	st := c.exitStatus()
	for w := range c.waiters {
		if removed || exited &&
			(w.cond == WaitNextExit || w.cond == WaitNotRunning && c.state.Status != Restarting) {
			w.ch <- st
			delete(c.waiters, w)
		}
	}
}

// snapshot copies what is known about the container.
func (c *container) snapshot() Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info()
}

// info is snapshot for those who hold mu.
func (c *container) info() Info {
	in := Info{
		ID: c.id, Created: c.created, Spec: c.spec, State: c.state, ImageID: c.res.ImageID,
		Env: c.res.Env, User: c.res.User, WorkingDir: c.res.Cwd,
		LogPath: c.logPath(), ResolvConfPath: c.path(resolvFile),
		HostnamePath: c.path(hostnameFile), HostsPath: c.path(hostsFile),
		ExecIDs: slices.Clone(c.execs), HealthLog: slices.Clone(c.probes),
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
		in.Mounts = append(in.Mounts, c.res.Mounts[i].info())
	}
	if c.run != nil && c.run.sandbox != nil {
		sb := c.run.sandbox
		in.Networks, in.Ports, in.SandboxKey = maps.Clone(
			sb.Endpoints,
		), slices.Clone(sb.Ports), sb.NetnsPath
	}
	return in
}

func (m *mountPoint) info() MountInfo {
	mi := MountInfo{
		Type: m.Type, Name: m.Volume, Source: m.Source, Destination: m.Target, RW: !m.ReadOnly,
		Propagation: m.Propagation,
	}
	if m.Type == "volume" {
		mi.Driver = "local"
	}
	return mi
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

func (c *container) status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Status
}
