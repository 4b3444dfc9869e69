package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/network/place"
	"strake/sandbox"
	"strake/task"
	"strake/task/group"
)

// podOwner is the owner of a front end that the fault tests put beside Docker's: explicit sandboxes
// with tasks that share all their namespaces, as CRI has them.
const podOwner = "pods"

// pods is that front end. What it acknowledges survives its death: a task is recorded in a file of
// its own, with its specification, before the request is answered.
type pods struct {
	sys    *system
	fault  func(string) error
	dir    string // records
	root   string // the tasks' root file system, a plain directory
	groups *group.Groups

	mu    sync.Mutex
	tasks map[string]*podTask // guarded by mu
}

type podTask struct {
	task task.Task
	rec  podRecord
}

type podRecord struct {
	Task    task.Record
	Sandbox string
}

// podServices is settings.services of the fault tests' straked.
func podServices(sys *system, s *settings) ([]service, error) {
	p := &pods{
		sys: sys, fault: s.fault, dir: filepath.Join(s.DataRoot, "pods"),
		root: filepath.Join(filepath.Dir(s.DataRoot), "podroot"), groups: sys.groups(s, podOwner),
		tasks: map[string]*podTask{},
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	if err := p.recover(context.Background()); err != nil {
		return nil, fmt.Errorf("pods: recover: %w", err)
	}
	path := filepath.Join(filepath.Dir(s.DataRoot), "p.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(p.serve)}
	return []service{{
		name: podOwner, listeners: []net.Listener{l}, serve: server.Serve, close: server.Shutdown,
	}}, nil
}

// recover adopts what is recorded and ends what is not, of this owner.
func (p *pods) recover(ctx context.Context) error {
	if err := p.sys.sandboxes.Recover(ctx, podOwner); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(p.dir, "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		var rec podRecord
		raw, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(raw, &rec)
		}
		if err != nil {
			return err
		}
		t, err := p.sys.tasks.Adopt(ctx, rec.Task, nil)
		if err != nil {
			if err := os.Remove(file); err != nil {
				return err
			}
			continue
		}
		sb, err := p.sys.sandboxes.Get(rec.Sandbox)
		if err != nil {
			return err
		}
		if err := sb.Enter(rec.Task.ID); err != nil {
			return err
		}
		p.tasks[rec.Task.ID] = &podTask{t, rec}
	}
	for _, f := range p.sys.tasks.Found(podOwner) {
		if err := p.sys.tasks.Abort(ctx, f.ID); err != nil {
			return err
		}
	}
	if err := p.groups.Sweep(ctx, func(name string) bool { return p.tasks[name] != nil }); err != nil {
		return err
	}
	none := func(string) bool { return false }
	if err := p.sys.sandboxes.Sweep(podOwner, none); err != nil {
		return err
	}
	live, done, err := p.sys.sandboxes.Live(podOwner)
	if err != nil {
		return err
	}
	defer done()
	return p.sys.net.Reconcile(ctx, podOwner, live)
}

func (p *pods) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var err error
	switch r.Method + " " + r.URL.Path {
	case "POST /sandbox":
		err = p.createSandbox(r.Context(), q.Get("id"))
	case "DELETE /sandbox":
		err = p.sys.sandboxes.Remove(r.Context(), q.Get("id"))
	case "POST /task":
		err = p.start(r.Context(), q.Get("id"), q.Get("sandbox"), q.Get("script"))
	case "DELETE /task":
		err = p.end(r.Context(), q.Get("id"))
	case "GET /state":
		json.NewEncoder(w).Encode(p.state())
	default:
		err = errdefs.ErrInvalidArgument
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

func (p *pods) createSandbox(ctx context.Context, id string) error {
	_, err := p.sys.sandboxes.Create(ctx, sandbox.Spec{
		ID: id, Owner: podOwner, IPC: true, UTS: true, PID: true, Hostname: id,
		ShmBytes: 1 << 20,
		Place: place.Request{
			Name: id, Hostname: id, Endpoints: map[string]place.EndpointSpec{"bridge": {}},
		},
	})
	return err
}

// start starts a task in a sandbox, all of whose namespaces it shares.
func (p *pods) start(ctx context.Context, id, in, script string) (err error) {
	sb, err := p.sys.sandboxes.Get(in)
	if err != nil {
		return err
	}
	var undo []func() error
	defer func() {
		for i := len(undo) - 1; err != nil && i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
	}()
	late := context.WithoutCancel(ctx)
	if err := sb.Enter(id); err != nil {
		return err
	}
	undo = append(undo, func() error { return sb.Leave(late, id) })
	kinds := []specs.LinuxNamespaceType{
		specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.PIDNamespace,
	}
	ns, err := sb.Join(kinds...)
	if err != nil {
		return err
	}
	defer ns.Close()
	g, err := p.groups.Create(ctx, "", id, nil)
	if err != nil {
		return err
	}
	undo = append(undo, func() error { return g.Remove(late) })
	cfg := &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: p.root},
		Process: &specs.Process{
			Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{
				Destination: "/dev/shm", Type: "bind", Source: sb.Record().Shm,
				Options: []string{"rbind"},
			},
		},
		Linux: &specs.Linux{
			CgroupsPath: g.Path(),
			Namespaces:  []specs.LinuxNamespace{{Type: specs.MountNamespace}},
		},
	}
	for _, k := range kinds {
		cfg.Linux.Namespaces = append(
			cfg.Linux.Namespaces, specs.LinuxNamespace{Type: k, Path: ns.Path(k)},
		)
	}
	t, err := p.sys.tasks.Start(ctx, &task.Spec{ID: id, Owner: podOwner, Config: cfg, Group: g})
	if err != nil {
		return err
	}
	undo = append(undo, func() error { return p.sys.tasks.Abort(late, id) })
	return p.record(id, &podTask{t, podRecord{t.Record(), in}})
}

func (p *pods) record(id string, t *podTask) error {
	if err := p.fault("pod: record"); err != nil {
		return err
	}
	raw, err := json.Marshal(t.rec)
	if err != nil {
		return err
	}
	tmp := filepath.Join(p.dir, id+".new")
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(p.dir, id+".json")); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks[id] = t
	return nil
}

// end kills a task and releases what it occupied, its record last.
func (p *pods) end(ctx context.Context, id string) error {
	p.mu.Lock()
	t := p.tasks[id]
	p.mu.Unlock()
	if t == nil {
		return errdefs.ErrNotFound
	}
	if err := t.task.Signal(unix.SIGKILL); err != nil && !errdefs.IsFailedPrecondition(err) {
		return err
	}
	if _, err := task.Wait(ctx, t.task); err != nil {
		return err
	}
	if err := p.fault("pod: end"); err != nil {
		return err
	}
	g, err := p.groups.At(t.rec.Task.Group)
	if err == nil {
		err = g.Remove(ctx)
	}
	if err != nil {
		return err
	}
	if err := t.task.Delete(ctx); err != nil {
		return err
	}
	if err := p.fault("pod: forget"); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(p.dir, id+".json")); err != nil {
		return err
	}
	p.mu.Lock()
	delete(p.tasks, id)
	p.mu.Unlock()
	sb, err := p.sys.sandboxes.Get(t.rec.Sandbox)
	if err != nil {
		return err
	}
	return sb.Leave(ctx, id)
}

// podState is what the tests compare.
type podState struct {
	Sandboxes map[string]string // by ID: its holder's process and its address
	Tasks     map[string]int    // by ID: the process; -1 if it has ended
}

func (p *pods) state() podState {
	out := podState{Sandboxes: map[string]string{}, Tasks: map[string]int{}}
	for _, sb := range p.sys.sandboxes.List(podOwner) {
		rec := sb.Record()
		n, err := sb.Join(specs.NetworkNamespace)
		where := fmt.Sprint(err)
		if err == nil {
			var st unix.Stat_t
			unix.Stat(n.Path(specs.NetworkNamespace), &st)
			where = fmt.Sprintf("namespace %d, %s", st.Ino, rec.Endpoints["bridge"].IPv4)
			n.Close()
		}
		out.Sandboxes[rec.ID] = where
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, t := range p.tasks {
		out.Tasks[id] = t.task.Pid()
		if ended(t.task) {
			out.Tasks[id] = -1
		}
	}
	return out
}

func ended(p task.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// pod sends a request to the front end of pods.
func (r *faultRig) pod(method, path string) ([]byte, error) {
	return r.send(r.pods, method, path, nil)
}

func podRequest(method, path string) func(r *faultRig) error {
	return func(r *faultRig) error {
		_, err := r.pod(method, path)
		return err
	}
}

func (r *faultRig) podState() podState {
	r.t.Helper()
	raw, err := r.pod("GET", "/state")
	if err != nil {
		r.t.Fatalf("%v\n%s", err, r.log())
	}
	var s podState
	if err := json.Unmarshal(raw, &s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// podLoop is a script that runs until it is killed.
const podLoop = "while+true%3B+do+sleep+1000%3B+done"

// startTask is the request that starts a task of the victim pod.
func startTask(id string) func(r *faultRig) error {
	return podRequest("POST", "/task?id="+id+"&sandbox=victim-pod&script="+podLoop)
}

// podCases are the operations of the front end of pods.
func podCases() []faultCase {
	sandbox := podRequest("POST", "/sandbox?id=victim-pod")
	two := must(sandbox, startTask("one"), startTask("two"))
	// What the other task is does not change, whatever happens to the first.
	var other int
	remember := func(r *faultRig) { two(r); other = r.podState().Tasks["two"] }
	goesOn := func(r *faultRig) error {
		if now := r.podState().Tasks["two"]; now != other || now <= 0 {
			return fmt.Errorf("the other task of the sandbox is process %d, was %d", now, other)
		}
		return nil
	}
	again := func(r *faultRig) error {
		return errors.Join(podRequest("DELETE", "/task?id=one")(r), startTask("one")(r))
	}
	return []faultCase{
		{name: "create sandbox", run: sandbox},
		{name: "start in a sandbox", setup: must(sandbox, startTask("two")), run: startTask("one")},
		{
			name: "the first of a sandbox ends and starts again", setup: remember, run: again,
			always: goesOn,
		},
		{name: "remove sandbox", setup: must(sandbox), run: podRequest("DELETE", "/sandbox?id=victim-pod")},
	}
}

// cleanPods removes what a case may rightly have left. Whatever exists has to be whole: a sandbox
// can be entered, a task ended, and both removed.
func (r *faultRig) cleanPods() error {
	state := r.podState()
	if _, there := state.Sandboxes["victim-pod"]; there {
		if _, running := state.Tasks["probe"]; !running {
			if err := startTask("probe")(r); err != nil {
				return fmt.Errorf("the sandbox that is left cannot be entered: %w", err)
			}
		}
	}
	for id := range r.podState().Tasks {
		if strings.HasPrefix(id, "anchor") {
			continue
		}
		if _, err := r.pod("DELETE", "/task?id="+id); err != nil {
			return err
		}
	}
	if _, there := state.Sandboxes["victim-pod"]; there {
		_, err := r.pod("DELETE", "/sandbox?id=victim-pod")
		return err
	}
	return nil
}
