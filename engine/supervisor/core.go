package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/engine/record"
	"strake/engine/state"
	"strake/internal/message"
)

// core is what all parts of an Engine share: the containers and their names, their records, events,
// and the work that goes on in the background.
type core struct {
	cfg    *Config
	log    *slog.Logger
	events eventBus
	sync   record.Syncer
	host   hostState

	mu         sync.RWMutex
	containers map[string]*container // guarded by mu; by ID
	// names maps a name whose container is still being made to nil. Guarded by mu.
	names  map[string]*container
	closed bool // guarded by mu

	// background counts goroutines and timers that work on their own: exits, restarts, probes,
	// removals.
	background sync.WaitGroup
	ctx        context.Context // ends with Close; for background work only
	cancel     context.CancelFunc
}

func newCore(cfg *Config) *core {
	k := &core{
		cfg: cfg, log: cfg.Log, containers: map[string]*container{}, names: map[string]*container{},
	}
	k.sync.Pause = time.Second
	k.sync.Report = func(err error) { k.warn("make records durable", err) }
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

// fault lets tests end the process, or a step fail, at a known point.
func (k *core) fault(step string) error {
	if k.cfg.Fault == nil {
		return nil
	}
	return k.cfg.Fault(step)
}

// warn logs a failure that cannot be returned.
func (k *core) warn(what string, err error, args ...any) {
	if err != nil && !errors.Is(err, context.Canceled) {
		k.log.Warn(what, append([]any{"error", err}, args...)...)
	}
}

// notFound is dockerd's sentence.
func notFound(name string) error {
	return message.New(errdefs.ErrNotFound, "No such container: %s", name)
}

// find returns a container by ID, name or unambiguous prefix of an ID.
func (k *core) find(name string) (*container, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if c, ok := k.containers[name]; ok {
		return c, nil
	}
	if c := k.names[strings.TrimPrefix(name, "/")]; c != nil {
		return c, nil
	}
	if name == "" || strings.Trim(name, "0123456789abcdef") != "" {
		return nil, notFound(name)
	}
	var found *container
	for id, c := range k.containers {
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
func (k *core) lock(ctx context.Context, name string) (*container, error) {
	c, err := k.find(name)
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

// reserve takes a name for a container in the making.
func (k *core) reserve(name string, c *container) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return message.New(errdefs.ErrUnavailable, "the engine is shutting down")
	}
	if _, taken := k.names[name]; taken {
		return k.conflict(name)
	}
	k.names[name] = c
	return nil
}

// conflict is dockerd's sentence about a taken name. Callers hold mu.
func (k *core) conflict(name string) error {
	id := ""
	if c := k.names[name]; c != nil {
		id = c.id
	}
	return message.New(
		errdefs.ErrConflict,
		"Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.",
		"/"+name, id,
	)
}

func (k *core) taken(name string) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	_, ok := k.names[name]
	return ok
}

func (k *core) release(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.names, name)
}

// add makes a container known under its ID and its name.
func (k *core) add(c *container) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.containers[c.id] = c
	k.names[c.spec.Name] = c
}

// forget makes a container unknown.
func (k *core) forget(c *container) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.containers, c.id)
	if k.names[c.spec.Name] == c {
		delete(k.names, c.spec.Name)
	}
}

func (k *core) all() []*container {
	k.mu.RLock()
	defer k.mu.RUnlock()
	out := make([]*container, 0, len(k.containers))
	for _, c := range k.containers {
		out = append(out, c)
	}
	return out
}

// publish sends a container's event.
func (k *core) publish(c *container, action string, attributes map[string]string) {
	c.mu.Lock()
	all := make(map[string]string, len(c.spec.Labels)+len(attributes)+2)
	for key, v := range c.spec.Labels {
		all[key] = v
	}
	all["image"], all["name"] = c.spec.Image, c.spec.Name
	c.mu.Unlock()
	for key, v := range attributes {
		all[key] = v
	}
	k.events.publish(
		engine.Event{Type: "container", Action: action, ID: c.id, Attributes: all},
	)
}

// save writes the changing part of a container. Callers hold op.
func (k *core) save(c *container) error {
	c.mu.Lock()
	rec := record.State{
		Version: record.Version, State: c.state, HealthLog: c.probes,
		RemoveVolumes: c.removal != nil && c.removal.volumes,
	}
	if c.run != nil {
		task, sb := c.run.task.Record(), c.run.sandbox.Record()
		rec.Task, rec.Sandbox = &task, &sb
	}
	durable := !c.spec.AutoRemove
	c.mu.Unlock()
	if err := record.WriteState(c.dir, &rec); err != nil {
		return fmt.Errorf("container %s: %w", shortID(c.id), err)
	}
	if durable {
		k.sync.Add(c.dir)
	}
	return nil
}

// saveSpec writes the lasting part. Callers hold op.
func (k *core) saveSpec(c *container) error {
	c.mu.Lock()
	rec := record.Spec{
		Version: record.Version, ID: c.id, Owner: k.cfg.Owner, Created: c.created, Spec: c.spec, Resolved: c.res,
	}
	c.mu.Unlock()
	if err := record.WriteJSON(c.dir, record.SpecFile, &rec); err != nil {
		return fmt.Errorf("container %s: %w", shortID(c.id), err)
	}
	if !rec.Spec.AutoRemove {
		k.sync.Add(c.dir)
	}
	return nil
}

// apply runs an event through the pure function and keeps the result. Callers hold op.
func (k *core) apply(c *container, ev state.Event) ([]state.Action, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ev.Policy, ev.AutoRemove = c.spec.Restart, c.spec.AutoRemove && c.holds == 0
	ev.Health, ev.Delay = state.HasProbe(c.res.Health), c.delay
	if ev.At.IsZero() {
		ev.At = time.Now().UTC()
	}
	next, actions, err := state.Step(c.state, ev)
	if err != nil {
		return nil, err
	}
	c.state = next
	return actions, nil
}

// spawn runs f in the background until Close waits for it. It does nothing once the engine is
// closed.
func (k *core) spawn(f func()) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return false
	}
	k.background.Add(1)
	go func() {
		defer k.background.Done()
		f()
	}()
	return true
}

func (k *core) containerDir(id string) string {
	return filepath.Join(k.cfg.Root, "containers", id)
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

func shortID(id string) string { return id[:min(len(id), 12)] }
