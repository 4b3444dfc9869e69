package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/engine"
	"strake/network/place"
	"strake/sandbox"
	"strake/task"
	"strake/task/tasktest"
)

// world is a machine of fakes on which engines come and go. Its processes interpret the scripts of
// tasktest. It needs neither root nor images: containers run from an empty directory.
type world struct {
	t       *testing.T
	root    string
	machine *tasktest.Machine
	net     *worldNetwork
	groups  *worldGroups
	tasks   *worldTasks
	logged  *lockedBuffer

	mu    sync.Mutex
	calls []string // guarded by mu; what the engine asked of its neighbours
	fail  string   // guarded by mu; the call or step that fails
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, root: t.TempDir(), machine: tasktest.NewMachine(), logged: &lockedBuffer{}}
	w.net = &worldNetwork{w: w, places: map[string]*place.Place{}}
	w.groups = &worldGroups{w: w, paths: map[string]bool{}}
	if err := os.Mkdir(w.path("rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.root, name) }

// call notes a call and fails if the test wants that.
func (w *world) call(format string, args ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	what := fmt.Sprintf(format, args...)
	w.calls = append(w.calls, what)
	if w.fail != "" && what == w.fail {
		return fmt.Errorf("%s: %w", what, unix.EIO)
	}
	return nil
}

// failAt makes one call or step fail from now on, and forgets the calls so far.
func (w *world) failAt(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail, w.calls = what, nil
}

func (w *world) called() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls)
}

// open opens an engine as a new process does.
func (w *world) open(change ...func(*Config)) *Engine {
	w.t.Helper()
	w.tasks = &worldTasks{Fake: tasktest.NewFake(w.machine), w: w}
	log := slog.New(slog.NewTextHandler(w.logged, nil))
	sandboxes, err := sandbox.Open(sandbox.Config{
		Root: w.path("data"), Run: w.path("run"), Network: w.net, Tasks: w.tasks, Log: log,
		Fault: func(step string) error { return w.call("step %s", step) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := Config{
		Root: w.path("data"), Run: w.path("run"), Images: worldImages{}, Network: w.net,
		Groups: w.groups, Tasks: w.tasks, Sandboxes: sandboxes, Log: log,
		Fault: func(step string) error { return w.call("step %s", step) },
	}
	for _, f := range change {
		f(&cfg)
	}
	e, err := Open(context.Background(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { e.Close() })
	return e
}

// reopen ends an engine and opens the next one on the same directories and the same machine.
func (w *world) reopen(e *Engine, change ...func(*Config)) *Engine {
	w.t.Helper()
	w.shut(e)
	return w.open(change...)
}

func (w *world) shut(e *Engine) {
	w.t.Helper()
	if err := e.Close(); err != nil {
		w.t.Fatal(err)
	}
	e.cfg.Tasks.(*worldTasks).Close()
}

// reboot ends the engine and the machine: no process is left.
func (w *world) reboot(e *Engine) *Engine {
	w.t.Helper()
	w.shut(e)
	w.machine = tasktest.NewMachine()
	w.net.clear()
	w.groups.clear()
	return w.open()
}

// spec is a container that runs a script until a signal ends it.
func (w *world) spec(name, script string) engine.Spec {
	return engine.Spec{
		Name: name, RootFS: w.path("rootfs"), Entrypoint: []string{"/bin/sh", "-c", script},
	}
}

func (w *world) create(e *Engine, spec engine.Spec) string {
	w.t.Helper()
	id, _, err := e.Create(w.t.Context(), spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) start(e *Engine, spec engine.Spec) string {
	w.t.Helper()
	id := w.create(e, spec)
	if err := e.Start(w.t.Context(), id); err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) inspect(e *Engine, name string) engine.Info {
	w.t.Helper()
	in, err := e.Inspect(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return in
}

// until polls what goes on in the background.
func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			w.t.Fatalf("timed out: %s; log:\n%s", what, w.logged)
		}
	}
}

func (w *world) untilStatus(e *Engine, name string, want engine.Status) engine.Info {
	w.t.Helper()
	w.until(fmt.Sprintf("%s is %s", name, want), func() bool {
		return w.inspect(e, name).State.Status == want
	})
	return w.inspect(e, name)
}

// wantLeft compares what exists beside records: places, groups and processes.
func (w *world) wantLeft(when string, want ...string) {
	w.t.Helper()
	var got []string
	for id := range w.net.all() {
		got = append(got, "place "+id)
	}
	for p := range w.groups.all() {
		got = append(got, "group "+p)
	}
	for _, owner := range []string{DefaultOwner, "cri"} {
		for _, f := range tasktest.NewFake(w.machine).Found(owner) {
			got = append(got, "task "+f.ID)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: got %q, want %q", when, got, want)
	}
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// worldImages has no images.
type worldImages struct{ Images }

func (worldImages) RootfsKeys(string) map[string]digest.Digest { return nil }

// worldNetwork gives every endpoint an address of its own, and never the same twice.
type worldNetwork struct {
	w *world

	mu        sync.Mutex
	next      byte                    // guarded by mu
	places    map[string]*place.Place // guarded by mu; by sandbox
	reconcile map[string]place.Live   // guarded by mu; what the last Reconcile was told
}

func (n *worldNetwork) clear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.places)
}

func (n *worldNetwork) all() map[string]*place.Place {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.places)
}

func (n *worldNetwork) told() map[string]place.Live {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reconcile
}

// endpoint needs mu.
func (n *worldNetwork) endpoint(network string) place.Endpoint {
	n.next++
	return place.Endpoint{
		NetworkID: network, EndpointID: fmt.Sprintf("ep%d", n.next),
		IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, n.next}), 24),
	}
}

func (n *worldNetwork) Attach(_ context.Context, req *place.Request) (*place.Place, error) {
	if err := n.w.call("attach"); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := &place.Place{Endpoints: map[string]place.Endpoint{}, Hosts: []byte(req.ID + "\n")}
	for name := range req.Endpoints {
		p.Endpoints[name] = n.endpoint(name)
	}
	for _, port := range req.Ports {
		n.next++
		p.Ports = append(p.Ports, place.Bound{
			Proto: place.TCP, ContainerPort: port.ContainerPort, HostPort: 40000 + uint16(n.next),
		})
	}
	n.places[req.ID] = p
	return p, nil
}

func (n *worldNetwork) Detach(_ context.Context, id string) error {
	err := n.w.call("detach")
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.places, id)
	return err
}

func (n *worldNetwork) Reconcile(
	_ context.Context, _ string, live map[string]place.Live,
) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reconcile = maps.Clone(live)
	maps.DeleteFunc(n.places, func(id string, _ *place.Place) bool {
		_, ok := live[id]
		return !ok
	})
	return nil
}

func (n *worldNetwork) Spoil(string) {}

func (n *worldNetwork) Connect(
	_ context.Context, req *place.Request, network string,
) (place.Endpoint, error) {
	if err := n.w.call("connect"); err != nil {
		return place.Endpoint{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.endpoint(network), nil
}

func (n *worldNetwork) Disconnect(context.Context, string) error { return n.w.call("disconnect") }

func (n *worldNetwork) HostFiles(*place.Request, bool) ([]byte, []byte, error) {
	return nil, nil, nil
}

// worldGroups are names alone.
type worldGroups struct {
	w *world

	mu    sync.Mutex
	paths map[string]bool // guarded by mu
}

func (g *worldGroups) clear() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.paths)
}

func (g *worldGroups) all() map[string]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.paths)
}

func (g *worldGroups) Enforced(*specs.LinuxResources) []string { return nil }

func (g *worldGroups) Path(parent, name string) (string, error) {
	if parent == "" {
		parent = "/own"
	}
	return path.Join(parent, name), nil
}

func (g *worldGroups) Create(
	_ context.Context, parent, name string, _ *specs.LinuxResources,
) (task.Group, error) {
	if err := g.w.call("group"); err != nil {
		return nil, err
	}
	p, _ := g.Path(parent, name)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paths[p] = true
	return g.At(p)
}

func (g *worldGroups) At(p string) (task.Group, error) {
	return worldGroup{path: p, of: g}, nil
}

func (g *worldGroups) Sweep(_ context.Context, keep func(name string) bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.paths, func(p string, _ bool) bool {
		return path.Dir(p) == "/own" && !keep(path.Base(p))
	})
	return nil
}

type worldGroup struct {
	task.NoGroup
	path string
	of   *worldGroups
}

func (g worldGroup) Path() string { return g.path }

func (g worldGroup) Remove(context.Context) error {
	err := g.of.w.call("remove group")
	g.of.mu.Lock()
	defer g.of.mu.Unlock()
	delete(g.of.paths, g.path)
	return err
}

// worldTasks gives a Fake what holders of namespaces need.
type worldTasks struct {
	*tasktest.Fake
	w   *world
	log task.Log // of the container that was started last
	// mounted are the files that the mounts of that container come from, by their places.
	mounted map[string]string
}

func (f *worldTasks) Start(ctx context.Context, s *task.Spec) (task.Task, error) {
	if s.Config.Process == nil { // a holder
		hold, cfg := *s, *s.Config
		cfg.Process = &specs.Process{Args: []string{"/bin/sh", "-c", "sleep"}}
		hold.Config = &cfg
		s = &hold
	} else if err := f.w.call("start"); err != nil {
		return nil, err
	}
	mounted := map[string]string{}
	for _, m := range s.Config.Mounts {
		mounted[m.Destination], _ = filepath.EvalSymlinks(m.Source)
	}
	f.w.mu.Lock()
	f.log, f.mounted = s.Log, mounted // tests that look at them start one container at a time
	f.w.mu.Unlock()
	t, err := f.Fake.Start(ctx, s)
	if err != nil {
		return nil, err
	}
	return worldTask{t}, nil
}

func (f *worldTasks) Adopt(
	ctx context.Context, rec task.Record, exited func(task.Exit),
) (task.Task, error) {
	t, err := f.Fake.Adopt(ctx, rec, exited)
	if err != nil {
		return nil, err
	}
	return worldTask{t}, nil
}

func (f *worldTasks) Abort(ctx context.Context, id string) error {
	if !strings.HasPrefix(id, "hold-") {
		f.w.call("abort")
	}
	return f.Fake.Abort(ctx, id)
}

type worldTask struct{ task.Task }

func (t worldTask) Record() task.Record {
	rec := t.Task.Record()
	rec.Namespaces = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	return rec
}

func (t worldTask) Namespace(kind specs.LinuxNamespaceType) (*os.File, error) {
	return os.Open("/proc/self/ns/" + map[specs.LinuxNamespaceType]string{
		specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
	}[kind])
}
