package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/internal/testneed"
	"strake/network/place"
	"strake/task"
)

// fakeNetwork keeps the places that it gave by the ID of their sandbox.
type fakeNetwork struct {
	mu     sync.Mutex
	places map[string]bool // guarded by mu
	fail   error
}

func (n *fakeNetwork) Attach(_ context.Context, req *place.Request) (*place.Place, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return nil, n.fail
	}
	if n.places[req.ID] {
		return nil, fmt.Errorf("place %q: %w", req.ID, errdefs.ErrAlreadyExists)
	}
	n.places[req.ID] = true
	return &place.Place{
		NetnsPath:  "/proc/self/ns/net",
		Endpoints:  map[string]place.Endpoint{"bridge": {EndpointID: "ep-" + req.ID}},
		Ports:      []place.Bound{{Proto: place.TCP, ContainerPort: 80, HostPort: 8080}},
		Hosts:      []byte("192.0.2.2 " + req.ID + " of " + req.Owner + "\n"),
		ResolvConf: []byte("nameserver 192.0.2.1\n"),
	}, nil
}

func (n *fakeNetwork) Detach(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.places, id)
	return nil
}

func (n *fakeNetwork) HostFiles(_ *place.Request, none bool) (hosts, resolv []byte, err error) {
	return fmt.Appendf(nil, "none=%v\n", none), nil, n.fail
}

func (n *fakeNetwork) ids() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.places))
}

// fakeTasks is an Isolation whose tasks do nothing and have the namespaces of the test.
type fakeTasks struct {
	task.Isolation // what the store does not use

	mu    sync.Mutex
	live  map[string]*fakeTask // guarded by mu
	found map[string]bool      // guarded by mu
	fail  error
}

type fakeTask struct {
	task.Task // what the store does not use
	spec      *task.Spec
	flags     uint64
	done      chan struct{}
	lacks     specs.LinuxNamespaceType
}

func (f *fakeTasks) Start(_ context.Context, spec *task.Spec) (task.Task, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	if f.live[spec.ID] != nil {
		return nil, fmt.Errorf("task %q: %w", spec.ID, errdefs.ErrAlreadyExists)
	}
	t := &fakeTask{spec: spec, done: make(chan struct{})}
	for _, n := range spec.Config.Linux.Namespaces {
		t.flags |= flagOf(n.Type)
	}
	f.live[spec.ID] = t
	return t, nil
}

func (f *fakeTasks) Adopt(
	_ context.Context, rec task.Record, _ func(task.Exit),
) (task.Task, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.live[rec.ID]
	if t == nil || !f.found[rec.ID] || t.spec.Owner != rec.Owner {
		return nil, fmt.Errorf("task %q: %w", rec.ID, errdefs.ErrNotFound)
	}
	delete(f.found, rec.ID)
	return t, nil
}

func (f *fakeTasks) Found(owner string) (out []task.Found) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.found {
		if t := f.live[id]; t != nil && t.spec.Owner == owner {
			out = append(out, task.Found{ID: id, Owner: owner})
		}
	}
	return out
}

func (f *fakeTasks) Abort(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.live, id)
	delete(f.found, id)
	return nil
}

func (f *fakeTasks) ids() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.live))
}

func (t *fakeTask) ID() string            { return t.spec.ID }
func (t *fakeTask) Done() <-chan struct{} { return t.done }
func (t *fakeTask) Record() task.Record {
	return task.Record{ID: t.spec.ID, Owner: t.spec.Owner, Namespaces: t.flags}
}

func (t *fakeTask) Namespace(kind specs.LinuxNamespaceType) (*os.File, error) {
	if kind == t.lacks {
		return nil, fmt.Errorf("namespace %q: %w", kind, errdefs.ErrFailedPrecondition)
	}
	name := map[specs.LinuxNamespaceType]string{
		specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
		specs.PIDNamespace: "pid", specs.UserNamespace: "user",
	}[kind]
	return os.Open("/proc/self/ns/" + name)
}

// rig is what stays while stores come and go.
type rig struct {
	t     *testing.T
	root  string
	run   string
	net   *fakeNetwork
	tasks *fakeTasks
	fault func(step string) error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		t: t, root: t.TempDir(), run: t.TempDir(),
		net:   &fakeNetwork{places: map[string]bool{}},
		tasks: &fakeTasks{live: map[string]*fakeTask{}, found: map[string]bool{}},
	}
	t.Cleanup(func() {
		for _, m := range r.mounts() {
			if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	})
	return r
}

// open opens a store as the next process of the front ends does: it finds the tasks of the last.
func (r *rig) open() *Store {
	r.t.Helper()
	for _, id := range r.tasks.ids() {
		r.tasks.found[id] = true
	}
	s, err := Open(Config{
		Root: r.root, Run: r.run, Network: r.net, Tasks: r.tasks,
		Fault: func(step string) error {
			if r.fault == nil {
				return nil
			}
			return r.fault(step)
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// mounts lists what is mounted below the rig's directories, deepest first.
func (r *rig) mounts() (out []string) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		at := strings.Fields(line)[4]
		if strings.HasPrefix(at, r.root) || strings.HasPrefix(at, r.run) {
			out = append(out, at)
		}
	}
	slices.Reverse(out)
	return out
}

// left lists everything that sandboxes occupy.
func (r *rig) left() (out []string) {
	for _, pattern := range []string{"sandboxes/*", "sandbox/*/*"} {
		for _, root := range []string{r.root, r.run} {
			names, err := filepath.Glob(filepath.Join(root, pattern))
			if err != nil {
				r.t.Fatal(err)
			}
			for _, n := range names {
				out = append(out, strings.TrimPrefix(n, root+"/"))
			}
		}
	}
	for _, id := range r.net.ids() {
		out = append(out, "place "+id)
	}
	for _, id := range r.tasks.ids() {
		out = append(out, "task "+id)
	}
	for range r.mounts() {
		out = append(out, "mount")
	}
	return out
}

func (r *rig) wantLeft(when string, want ...string) {
	r.t.Helper()
	got := r.left()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.t.Errorf("%s: got %q, want %q", when, got, want)
	}
}

func (r *rig) create(s *Store, owner, id string) *Sandbox {
	r.t.Helper()
	sb, err := s.Create(r.t.Context(), podSpec(owner, id))
	if err != nil {
		r.t.Fatal(err)
	}
	return sb
}

// prepare makes an implicit sandbox with a member.
func (r *rig) prepare(s *Store, owner, id, member string, shm int64) (*Sandbox, string) {
	r.t.Helper()
	dir := s.runDir(owner, id)
	sb, err := s.Prepare(r.t.Context(), &Spec{
		ID: id, Owner: owner, Hostname: id, ShmBytes: shm,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := sb.Enter(member); err != nil {
		r.t.Fatal(err)
	}
	return sb, dir
}

// first is a task whose namespaces are held.
func first() *fakeTask {
	return &fakeTask{spec: &task.Spec{ID: "first", Owner: "docker"}, done: make(chan struct{})}
}

func podSpec(owner, id string) Spec {
	return Spec{ID: id, Owner: owner, IPC: true, UTS: true, Hostname: "pod", Domainname: "test"}
}

func needMounts(t *testing.T) {
	t.Helper()
	testneed.Root(t, "mounts shared memory")
}

var errFault = errors.New("fault of the test")
