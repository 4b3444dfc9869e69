// Package sandbox is what tasks share: network, IPC, UTS and optionally PID and user namespaces,
// the place in the network, the files about it, /dev/shm, sysctls and the parent group. A sandbox
// has an ID, an owner and a life of its own: it does not end when a process in it ends.
//
// There are two kinds. An explicit sandbox (a pod) is made by Create, recorded before Create
// returns, and lives until Remove. An implicit one (a Docker container's) is made by Prepare and
// is part of its container's own record; it costs no process and no file. When another container
// joins an implicit sandbox, Hold gives it a holder and a record, and from then on it lives until
// the last of its members has left.
//
// Namespaces are held by the holder: a task without a process, which is a program of a few pages
// that waits (container/plan, Hold), a child of the keeper like any other task. So they survive
// the engine and, since no member's process holds them, the end of every member. They are joined
// through descriptors (Join), never through the number of a process.
//
// A PID namespace ends with its first process (pid_namespaces(7)): an explicit sandbox whose
// members share one has the holder as that process. The PID namespace of an implicit sandbox
// is its first container's and cannot outlive it.
//
// Lock: Store.mu guards the map, Sandbox.mu the fields of one sandbox. No lock is held while the
// kernel, the network or the keeper work, except Sandbox.op, which admits one change at a time.
//
// Not for: images, root file systems, what the members are.
//
// Tested with a fake network and fake holders, with an error at every step, and with real shared
// memory where the tests run as root; with real holders by package task/host and by the fault tests
// of cmd/straked.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/network/place"
	"strake/task"
)

// Network gives sandboxes a place in the network. Package network/sandboxnet implements it.
type Network interface {
	// Attach makes a namespace with everything that the request asks for. Nothing is left of it if
	// there is an error.
	Attach(ctx context.Context, req *place.Request) (*place.Place, error)
	// Detach undoes Attach. An unknown ID is no error.
	Detach(ctx context.Context, id string) error
	// HostFiles are hosts and resolv.conf for a sandbox with the host's network, or with none.
	HostFiles(req *place.Request, none bool) (hosts, resolvConf []byte, err error)
}

// Mode says which network a sandbox has.
type Mode string

const (
	// OwnNetwork is a namespace with endpoints in networks.
	OwnNetwork Mode = ""
	// HostNetwork is the host's network namespace.
	HostNetwork Mode = "host"
	// NoNetwork is a namespace with a loopback interface alone.
	NoNetwork Mode = "none"
	// SharedNetwork is that of another sandbox, whose files about it the members use too. For
	// implicit sandboxes only.
	SharedNetwork Mode = "shared"
)

// Spec is what a sandbox is made from.
type Spec struct {
	// ID is unique among the sandboxes of a Store; 1 to 128 letters, digits, '_', '.' and '-'.
	ID string `json:"id"`
	// Owner is the front end, as in task.Spec.
	Owner string `json:"owner"`
	// Network says which network it has; with OwnNetwork, Place is what it asks for. Place.ID and
	// Place.Owner are set from ID and Owner.
	Network Mode          `json:"network,omitempty"`
	Place   place.Request `json:"place"`
	// IPC, UTS and PID give an explicit sandbox namespaces of these kinds for its members to
	// share. An implicit one shares those of its first member.
	IPC bool `json:"ipc,omitempty"`
	UTS bool `json:"uts,omitempty"`
	PID bool `json:"pid,omitempty"`
	// UIDMappings and GIDMappings, if any, give it a user namespace.
	UIDMappings []specs.LinuxIDMapping `json:"uidMappings,omitempty"`
	GIDMappings []specs.LinuxIDMapping `json:"gidMappings,omitempty"`
	Hostname    string                 `json:"hostname,omitempty"`
	Domainname  string                 `json:"domainname,omitempty"`
	// Sysctls are of the namespaces that the sandbox makes.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// ShmBytes is the size of a /dev/shm that members share; 0: none.
	ShmBytes int64 `json:"shmBytes,omitempty"`
	// Parent is the control group below which members have theirs; empty for the owner's own.
	Parent string `json:"parent,omitempty"`
	// Labels and Annotations are the front end's.
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Record is a sandbox as it is recorded. It is a value: a change replaces it.
type Record struct {
	ID      string    `json:"id,omitempty"`
	Owner   string    `json:"owner,omitempty"`
	Created time.Time `json:"created,omitzero"`
	// Attached says that it has a place in the network of its own.
	Attached  bool                      `json:"attached,omitempty"`
	NetnsPath string                    `json:"netns,omitempty"`
	Endpoints map[string]place.Endpoint `json:"endpoints,omitempty"`
	Ports     []place.Bound             `json:"ports,omitempty"`
	// Shm is a tmpfs in the host's view; empty: none.
	Shm   string `json:"shm,omitempty"`
	Files Files  `json:"files,omitzero"`
	// Holder is the task that holds the namespaces; nil for an implicit sandbox that is not held.
	Holder *task.Record `json:"holder,omitempty"`
	// Spec is that of an explicit sandbox; nil for an implicit one.
	Spec *Spec `json:"spec,omitempty"`
}

// Files are paths of the files about the network that members mount; empty ones do not exist.
type Files struct {
	Hosts      string `json:"hosts,omitempty"`
	Hostname   string `json:"hostname,omitempty"`
	ResolvConf string `json:"resolvConf,omitempty"`
}

// Sandbox is a live sandbox. Its methods may be called concurrently.
type Sandbox struct {
	store *Store
	op    sync.Mutex // one change at a time: held while the kernel works

	mu      sync.Mutex
	rec     Record          // guarded by mu; replaced, never changed
	holder  task.Task       // guarded by mu; nil: not held
	members map[string]bool // guarded by mu
	gone    bool            // guarded by mu: released
}

// Config describes a Store. Root, Run, Network and Tasks are required.
type Config struct {
	// Root holds the records, below sandboxes/; Run what a reboot ends, below
	// sandbox/: shared memory and the files about the network.
	Root, Run string
	Network   Network
	Tasks     task.Isolation
	Log       *slog.Logger
	// Fault is as in task/host.Config.
	Fault func(step string) error
}

// Store keeps the sandboxes of an instance. Its methods may be called concurrently.
type Store struct {
	cfg Config

	mu   sync.Mutex
	live map[string]*Sandbox // guarded by mu; those with a record of their own
}

// Open opens a store. Recover brings the sandboxes of an owner.
func Open(cfg Config) (*Store, error) {
	if cfg.Network == nil || cfg.Tasks == nil {
		return nil, fmt.Errorf(
			"sandbox: Network and Tasks are required: %w", errdefs.ErrInvalidArgument,
		)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: cfg, live: map[string]*Sandbox{}}
	if err := os.MkdirAll(s.dir(""), 0o711); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	return s, nil
}

func (s *Store) fault(step string) error {
	if s.cfg.Fault == nil {
		return nil
	}
	return s.cfg.Fault(step)
}

// Get returns a sandbox with a record of its own: an explicit one, or an implicit one that is held.
// An unknown ID is errdefs.ErrNotFound.
func (s *Store) Get(id string) (*Sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sb := s.live[id]; sb != nil {
		return sb, nil
	}
	return nil, fmt.Errorf("sandbox %q: %w", id, errdefs.ErrNotFound)
}

// List returns the sandboxes of an owner that have a record of their own, by ID.
func (s *Store) List(owner string) []*Sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*Sandbox
	for _, id := range slices.Sorted(maps.Keys(s.live)) {
		if sb := s.live[id]; sb.Record().Owner == owner {
			out = append(out, sb)
		}
	}
	return out
}

// Record returns the sandbox's record.
func (sb *Sandbox) Record() Record {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	return sb.rec
}

// ID is the sandbox's ID.
func (sb *Sandbox) ID() string { return sb.Record().ID }

// SetEndpoints records the networks that the sandbox is in. The caller records the change with its
// own record, and by Store.Save.
func (sb *Sandbox) SetEndpoints(endpoints map[string]place.Endpoint) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	sb.rec.Endpoints = endpoints
}

// With is a copy of the record with one endpoint changed; nil takes it away.
func (r Record) With(network string, ep *place.Endpoint) Record {
	r.Endpoints = maps.Clone(r.Endpoints)
	if r.Endpoints == nil {
		r.Endpoints = map[string]place.Endpoint{}
	}
	if ep == nil {
		delete(r.Endpoints, network)
	} else {
		r.Endpoints[network] = *ep
	}
	return r
}

// Held says whether namespaces of the sandbox are held by a holder.
func (sb *Sandbox) Held() bool {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	return sb.holder != nil
}

// Enter adds a member. A sandbox that has been released is errdefs.ErrNotFound.
func (sb *Sandbox) Enter(member string) error {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.gone {
		return fmt.Errorf("sandbox %q: %w", sb.rec.ID, errdefs.ErrNotFound)
	}
	if sb.members == nil {
		sb.members = map[string]bool{}
	}
	sb.members[member] = true
	return nil
}

// Members lists the members by name.
func (sb *Sandbox) Members() []string {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	return slices.Sorted(maps.Keys(sb.members))
}

// Leave takes a member away. An implicit sandbox whose last member leaves is released. It is safe
// to repeat.
func (sb *Sandbox) Leave(ctx context.Context, member string) error {
	sb.mu.Lock()
	delete(sb.members, member)
	last := len(sb.members) == 0 && sb.rec.Spec == nil && !sb.gone
	sb.mu.Unlock()
	if !last {
		return nil
	}
	return sb.release(ctx)
}

// Remove ends an explicit sandbox. One with members is errdefs.ErrFailedPrecondition.
func (s *Store) Remove(ctx context.Context, id string) error {
	sb, err := s.Get(id)
	if err != nil {
		return err
	}
	if m := sb.Members(); len(m) > 0 {
		return fmt.Errorf(
			"remove sandbox %q: it has %d members, among them %s: %w", id, len(m), m[0],
			errdefs.ErrFailedPrecondition,
		)
	}
	return sb.release(ctx)
}

// release gives back what the sandbox occupies; its record goes last, so that a release that is
// interrupted is repeated by Recover.
func (sb *Sandbox) release(ctx context.Context) error {
	sb.op.Lock()
	defer sb.op.Unlock()
	sb.mu.Lock()
	if sb.gone {
		sb.mu.Unlock()
		return nil
	}
	sb.gone = true
	rec, holder := sb.rec, sb.holder
	sb.mu.Unlock()
	s := sb.store
	var errs []error
	if holder != nil {
		errs = append(errs, s.fault("release: holder"), s.cfg.Tasks.Abort(ctx, holder.ID()))
	}
	errs = append(errs, s.fault("release: network"))
	if rec.Attached {
		errs = append(errs, s.cfg.Network.Detach(ctx, rec.ID))
	}
	errs = append(errs, s.fault("release: shared memory"))
	if rec.Shm != "" || rec.Files.Hosts != "" {
		errs = append(errs, removeRunDir(s.runDir(rec.Owner, rec.ID)))
	}
	if rec.Holder != nil || rec.Spec != nil {
		errs = append(errs, s.fault("release: sandbox record"))
		errs = append(errs, s.discard(&rec))
		s.mu.Lock()
		if s.live[rec.ID] == sb {
			delete(s.live, rec.ID)
		}
		s.mu.Unlock()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release sandbox %q: %w", rec.ID, err)
	}
	return nil
}
