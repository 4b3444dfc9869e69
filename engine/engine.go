package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/image"
	"strake/internal/message"
	"strake/volume"
)

// Config describes an engine. Root, Run, Images, Network, Groups and Keeper are required.
type Config struct {
	// Root holds what must survive a reboot: containers and volumes. Run holds what must not:
	// sockets, the directory on which containers attach their root file system in their own view.
	Root, Run string
	// Log receives what cannot be returned as an error; nil discards it.
	Log     *slog.Logger
	Images  *image.Store
	Network Network
	Groups  Groups
	// Keeper connects to the keeper, starting one if none runs.
	Keeper func(ctx context.Context) (Keeper, error)
	// LogDefaults fill what Spec.Log leaves open.
	LogDefaults LogConfig
	// Rlimits are the limits of containers that do not say otherwise. Without one of open files
	// (RLIMIT_NOFILE) that is 1024, and 524288 or the engine's own as the hard one.
	Rlimits []specs.POSIXRlimit
	// DNS, DNSSearch and DNSOptions are the defaults for resolvers of containers.
	DNS, DNSSearch, DNSOptions []string
	// Fault, if not nil, is called before each step of an operation with its name ("start:
	// network"): tests end the process there. An error makes the step fail.
	Fault func(step string) error
}

// Engine implements Containers. Its methods may be called concurrently.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	images  images
	volumes *volume.Store
	events  eventBus
	sync    syncer
	host    hostState
	cache   imageCache
	execs   execTable

	// keeperMu guards the connection, which changes when a keeper dies.
	keeperMu sync.RWMutex
	keeper   Keeper // guarded by keeperMu

	mu         sync.RWMutex
	containers map[string]*container // guarded by mu; by ID
	// guarded by mu; a name whose container is still being made maps to nil
	names  map[string]*container
	closed bool // guarded by mu

	// background counts goroutines and timers that work on their own: exits, restarts, probes,
	// removals.
	background sync.WaitGroup
	ctx        context.Context // ends with Close; for background work only
	cancel     context.CancelFunc
}

var _ Containers = (*Engine)(nil)

// Images is the image store.
func (e *Engine) Images() *image.Store { return e.cfg.Images }

// Volumes is the store of local volumes.
func (e *Engine) Volumes() *volume.Store { return e.volumes }

// fault lets tests end the process, or a step fail, at a known point.
func (e *Engine) fault(step string) error {
	if e.cfg.Fault == nil {
		return nil
	}
	return e.cfg.Fault(step)
}

// notFound is dockerd's sentence.
func notFound(name string) error {
	return message.New(errdefs.ErrNotFound, "No such container: %s", name)
}

// find returns a container by ID, name or unambiguous prefix of an ID.
func (e *Engine) find(name string) (*container, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.findLocked(name)
}

func (e *Engine) findLocked(name string) (*container, error) {
	if c, ok := e.containers[name]; ok {
		return c, nil
	}
	if c := e.names[strings.TrimPrefix(name, "/")]; c != nil {
		return c, nil
	}
	if name == "" || strings.Trim(name, "0123456789abcdef") != "" {
		return nil, notFound(name)
	}
	var found *container
	for id, c := range e.containers {
		if strings.HasPrefix(id, name) {
			if found != nil {
				return nil, message.New(
					errdefs.ErrInvalidArgument, "multiple IDs found with provided prefix: %s", name,
				)
			}
			found = c
		}
	}
	if found == nil {
		return nil, notFound(name)
	}
	return found, nil
}

// lock finds a container and enters its gate. The caller leaves it.
func (e *Engine) lock(ctx context.Context, name string) (*container, error) {
	c, err := e.find(name)
	if err != nil {
		return nil, err
	}
	if err := c.op.enter(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removed {
		c.op.leave()
		return nil, notFound(name)
	}
	return c, nil
}

// newID makes an ID that no container has. A prefix of twelve digits of an ID never reads as a
// decimal number alone, which a host name may not be.
func newID() string {
	var b [32]byte
	for {
		rand.Read(b[:])
		id := hex.EncodeToString(b[:])
		if strings.Trim(id[:12], "0123456789") != "" {
			return id
		}
	}
}

// reserve takes a name for a container in the making.
func (e *Engine) reserve(name string, c *container) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return message.New(errdefs.ErrUnavailable, "the engine is shutting down")
	}
	if _, taken := e.names[name]; taken {
		return e.conflict(name)
	}
	e.names[name] = c
	return nil
}

// conflict is dockerd's sentence about a taken name. Callers hold mu.
func (e *Engine) conflict(name string) error {
	id := ""
	if c := e.names[name]; c != nil {
		id = c.id
	}
	return message.New(
		errdefs.ErrConflict,
		"Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.",
		"/"+name, id,
	)
}

func (e *Engine) taken(name string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	_, ok := e.names[name]
	return ok
}

// Inspect implements Containers.
func (e *Engine) Inspect(ctx context.Context, name string) (Info, error) {
	c, err := e.find(name)
	if err != nil {
		return Info{}, err
	}
	return c.snapshot(), nil
}

// List implements Containers. What the copies refer to (slices and maps of Spec) is shared and must
// not be changed.
func (e *Engine) List(ctx context.Context) ([]Info, error) {
	e.mu.RLock()
	all := make([]*container, 0, len(e.containers))
	for _, c := range e.containers {
		all = append(all, c)
	}
	e.mu.RUnlock()
	slices.SortFunc(all, func(a, b *container) int {
		return cmp.Or(b.created.Compare(a.created), strings.Compare(a.id, b.id))
	})
	out := make([]Info, len(all))
	for i, c := range all {
		out[i] = c.snapshot()
	}
	return out, nil
}

// ImageUsers names the containers that stand on an image: image.Config.InUse.
func (e *Engine) ImageUsers(id digest.Digest) []image.Use {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []image.Use
	for _, c := range e.containers {
		c.mu.Lock()
		if c.res.ImageID == id.String() {
			out = append(out, image.Use{Container: c.id, Running: c.run != nil})
		}
		c.mu.Unlock()
	}
	return out
}

// publish sends a container's event.
func (e *Engine) publish(c *container, action string, attributes map[string]string) {
	c.mu.Lock()
	all := make(map[string]string, len(c.spec.Labels)+len(attributes)+2)
	for k, v := range c.spec.Labels {
		all[k] = v
	}
	all["image"], all["name"] = c.spec.Image, c.spec.Name
	c.mu.Unlock()
	for k, v := range attributes {
		all[k] = v
	}
	e.events.publish(Event{Type: "container", Action: action, ID: c.id, Attributes: all})
}

// save writes the changing part of a container. Callers hold op.
func (e *Engine) save(c *container) error {
	c.mu.Lock()
	rec := stateRecord{
		Version: recordVersion, State: c.state, HealthLog: c.probes,
		RemoveVolumes: c.removal != nil && c.removal.volumes,
	}
	if c.run != nil {
		rec.Sandbox = c.run.sandbox
	}
	durable := !c.spec.AutoRemove
	c.mu.Unlock()
	if err := writeJSON(c.dir, stateFile, &rec); err != nil {
		return fmt.Errorf("container %s: %w", shortID(c.id), err)
	}
	if durable {
		e.sync.add(c.dir)
	}
	return nil
}

// saveSpec writes the lasting part. Callers hold op.
func (e *Engine) saveSpec(c *container) error {
	c.mu.Lock()
	rec := specRecord{
		Version: recordVersion, ID: c.id, Created: c.created, Spec: c.spec, Resolved: c.res,
	}
	c.mu.Unlock()
	if err := writeJSON(c.dir, specFile, &rec); err != nil {
		return fmt.Errorf("container %s: %w", shortID(c.id), err)
	}
	if !rec.Spec.AutoRemove {
		e.sync.add(c.dir)
	}
	return nil
}

// apply runs a happening through the pure function and keeps the result. Callers hold op.
func (e *Engine) apply(c *container, ev event) ([]action, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ev.policy, ev.autoRemove, ev.health, ev.delay = c.spec.Restart, c.spec.AutoRemove &&
		c.holds == 0, c.res.Health.enabled(), c.delay
	if ev.at.IsZero() {
		ev.at = time.Now().UTC()
	}
	next, actions, err := step(c.state, ev)
	if err != nil {
		return nil, err
	}
	c.state = next
	return actions, nil
}

// spawn runs f in the background until Close waits for it. It does nothing once the engine is
// closed.
func (e *Engine) spawn(f func()) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return false
	}
	e.background.Add(1)
	go func() {
		defer e.background.Done()
		f()
	}()
	return true
}

// Close ends the engine. Containers go on; the next engine adopts them.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	err := e.connection().Close()
	e.background.Wait()
	e.sync.close()
	for _, c := range e.all() {
		c.mu.Lock()
		if c.timer != nil {
			c.timer.Stop()
		}
		if c.run != nil {
			c.run.proc.Close()
		}
		c.mu.Unlock()
	}
	return err
}

func (e *Engine) all() []*container {
	e.mu.RLock()
	defer e.mu.RUnlock()
	out := make([]*container, 0, len(e.containers))
	for _, c := range e.containers {
		out = append(out, c)
	}
	return out
}

func (e *Engine) connection() Keeper {
	e.keeperMu.RLock()
	defer e.keeperMu.RUnlock()
	return e.keeper
}

func (e *Engine) containerDir(id string) string {
	return filepath.Join(e.cfg.Root, "containers", id)
}

// warn logs a failure that nobody can be told.
func (e *Engine) warn(what string, err error, args ...any) {
	if err != nil && !errors.Is(err, context.Canceled) {
		e.log.Warn(what, append([]any{"error", err}, args...)...)
	}
}

// makeDirs makes the engine's directories.
func (cfg *Config) makeDirs() error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{
		{cfg.Root, 0o711}, {filepath.Join(cfg.Root, "containers"), 0o710}, {cfg.Run, 0o711},
		{filepath.Join(cfg.Run, "rootfs"), 0o700},
	} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return fmt.Errorf("make the engine's directories: %w", err)
		}
	}
	return nil
}
