// Package supervisor implements engine.Containers on one host: it turns specifications into running
// containers and keeps what it acknowledged across its own death. It knows no wire protocol.
//
// What happens is decided by pure functions (packages engine/state and engine/ocispec) and carried
// out by thin drivers. Promises:
//
//   - A create, start or removal completes or leaves nothing behind: no process, mount, cgroup,
//     address, rule or file, also when the engine is killed in the middle. What a killed engine
//     left is removed by the next Open.
//   - Containers outlive the engine. The next one adopts the running ones, learns of every exit
//     from their tasks, and applies restart policies.
//   - An Engine has an owner and touches what belongs to that owner only: processes, groups, root
//     file systems, sandboxes.
//   - Reads (List, Inspect, Wait) take memory only. An idle container has no goroutine.
//   - The root file system of a container is never mounted in the host's view.
//
// Locks, in order: container.op (held while the kernel works; an operation never holds those of two
// containers), then core.mu (the maps), then container.mu (the fields). The last two are held for
// moments and never while anything blocks. Volumes, sandboxes, tasks, events and the syncer have
// locks of their own below these.
//
// Not for: HTTP or gRPC (api/...), image formats (image), packets (network), processes (task).
//
// Tested with fakes of the network, groups and tasks, on which engines are opened one after another
// and every step of a start fails once, and with real containers where the tests run as root. The
// fault tests of cmd/straked kill the engine at each step.
package supervisor

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
	"strake/internal/rawfile"
	"strake/sandbox"
	"strake/task"
	"strake/volume"
)

// Config describes an engine. Root, Run, Images, Network, Groups, Tasks and Sandboxes are required.
type Config struct {
	// Owner names the front end whose containers these are; empty means "docker".
	Owner string
	// Root holds what must survive a reboot: containers and volumes. Run holds what must not.
	Root, Run string
	// Log receives what cannot be returned as an error; nil discards it.
	Log       *slog.Logger
	Images    Images
	Network   Network
	Groups    task.Groups
	Tasks     task.Isolation
	Sandboxes *sandbox.Store
	// LogDefaults fill what Spec.Log leaves open.
	LogDefaults engine.LogConfig
	// Rlimits are the limits of containers that do not say otherwise. Without one of open files
	// (RLIMIT_NOFILE) that is 1024, and 524288 or the engine's own as the hard one.
	Rlimits []specs.POSIXRlimit
	// DNS, DNSSearch and DNSOptions are the defaults for resolvers of containers.
	DNS, DNSSearch, DNSOptions []string
	// Fault, if not nil, is called before each step of an operation with its name ("start:
	// network"): tests end the process there. An error makes the step fail.
	Fault func(step string) error
}

// DefaultOwner is the owner of an Engine whose configuration names none.
const DefaultOwner = "docker"

// Engine implements engine.Containers. Its methods may be called concurrently.
type Engine struct {
	*core
	*execs
	*streams
	*layers
	*views
	*prober
	cfg       Config
	volumes   *volume.Store
	launching atomic.Int32 // starts that prepare
}

var _ engine.Containers = (*Engine)(nil)

// Volumes is the store of local volumes.
func (e *Engine) Volumes() *volume.Store { return e.volumes }

// Close ends the engine. Containers go on; the next engine adopts them. The tasks' Isolation is
// closed after it, by the caller.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.background.Wait()
	e.sync.Close()
	for _, c := range e.all() {
		c.mu.Lock()
		c.stopTimer()
		c.mu.Unlock()
	}
	return nil
}

// makeDirs makes the engine's directories.
func (cfg *Config) makeDirs() error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{
		{cfg.Root, 0o711}, {filepath.Join(cfg.Root, "containers"), 0o710}, {cfg.Run, 0o711},
	} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return fmt.Errorf("make the engine's directories: %w", err)
		}
	}
	if err := rawfile.Spread(filepath.Join(cfg.Root, "containers")); err != nil {
		return fmt.Errorf("make the engine's directories: %w", err)
	}
	return makeMountPoints(cfg.Root)
}
