package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
)

// recorder notes what the API asks of its backend, and fails the calls that a test wants to fail.
type recorder struct {
	mu    sync.Mutex
	calls []string
	// failures are the errors of methods, by names such as "engine.Stop"; "*" is for all.
	failures map[string]error
}

// do notes a call and returns its failure.
func (c *recorder) do(method string, args ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var line strings.Builder
	line.WriteString(method)
	for _, a := range args {
		switch a := a.(type) {
		case string:
			fmt.Fprintf(&line, " %q", a)
		default:
			raw, err := json.Marshal(a)
			if err != nil {
				raw = []byte(err.Error())
			}
			line.WriteString(" " + string(raw))
		}
	}
	c.calls = append(c.calls, line.String())
	if len(args) > 0 && args[0] == "nosuch" && strings.HasPrefix(method, "engine.") {
		return missing("container", "nosuch")
	}
	return c.failure(method)
}

// read is do for calls that change nothing and are not noted.
func (c *recorder) read(method string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure(method)
}

func (c *recorder) failure(method string) error {
	if err := c.failures[method]; err != nil {
		return err
	}
	return c.failures["*"]
}

// taken are the calls since the last time.
func (c *recorder) taken() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.calls
	c.calls = nil
	return calls
}

// brief is a JSON object without the fields that are null, "", 0 or false.
func brief(raw json.RawMessage) any {
	var doc any
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return err.Error()
	}
	var strip func(v any) any
	strip = func(v any) any {
		if object, ok := v.(map[string]any); ok {
			for key, value := range object {
				if value == nil || reflect.ValueOf(value).IsZero() {
					delete(object, key)
				} else {
					object[key] = strip(value)
				}
			}
		}
		return v
	}
	return strip(doc)
}

// missing is the error of a name that the backend does not know.
func missing(kind, name string) error {
	return plainError{errdefs.ErrNotFound, "No such " + kind + ": " + name}
}

// fakeEngine has some containers, one in each state, and an exec for each form. Fields of functions
// replace the default behaviour.
type fakeEngine struct {
	*recorder
	list  []engine.Info
	execs map[string]engine.ExecInfo
	past  []engine.Event
	live  chan engine.Event
	specs []engine.Spec // of Create
	front json.RawMessage
	// attach and execStart stand for the processes behind streams.
	attach    func(context.Context, engine.AttachOptions) error
	execStart func(context.Context, engine.Streams) error
	paused    func() // called by Pause
	lines     []engine.LogLine
	status    engine.ExitStatus
	// ctx is that of the last Start, Stop, Restart, Unpause, Remove or Wait.
	ctx context.Context
}

func newFakeEngine(r *recorder, now time.Time) *fakeEngine {
	e := &fakeEngine{recorder: r, execs: map[string]engine.ExecInfo{}}
	ago := func(d time.Duration) time.Time { return now.Add(-d).UTC() }
	for i, st := range []engine.State{
		{
			Status: engine.Running, Pid: 77, StartedAt: ago(5 * time.Minute), Health: "unhealthy",
			FailingStreak: 2,
		},
		{Status: engine.Created},
		{Status: engine.Paused, StartedAt: ago(time.Hour)},
		{Status: engine.Exited, ExitCode: 3, FinishedAt: ago(3 * time.Second)},
		{Status: engine.Restarting, ExitCode: 1, FinishedAt: ago(time.Second)},
		{Status: engine.Dead},
		{Status: engine.Removing},
	} {
		name := string(st.Status)
		e.list = append(e.list, engine.Info{
			ID: strings.Repeat(string(rune('1'+i)), 64), Created: ago(24 * time.Hour),
			ImageID: imageID, Path: "httpd", Args: []string{"-v"}, State: st,
			Spec: engine.Spec{Name: name, Image: "one", Labels: map[string]string{"state": name}},
		})
	}
	web := &e.list[0]
	web.Created = ago(time.Hour)
	web.Spec.Exposed = []string{"80/tcp", "81/udp"}
	web.Ports = []engine.BoundPort{{
		Proto: "tcp", ContainerPort: 80, HostIP: netip.IPv4Unspecified(), HostPort: 8080,
	}}
	web.Mounts = []engine.MountInfo{{Type: "volume", Name: "data", Destination: "/data", RW: true}}
	web.HealthLog = []engine.HealthResult{{Start: then, End: then, ExitCode: 1, Output: "no"}}
	web.Networks = map[string]engine.EndpointInfo{"net": {
		NetworkID: strings.Repeat("d", 64), IPv4: netip.MustParsePrefix("172.18.5.2/16"),
		MAC: "02:42:ac:12:05:02",
	}}
	tty := *web
	tty.ID, tty.Spec.Name, tty.Spec.TTY = strings.Repeat("a", 64), "tty", true
	tty.Networks, tty.Ports, tty.Mounts, tty.HealthLog = nil, nil, nil, nil
	e.list = append(e.list, tty)
	for i := range e.list {
		e.list[i].LayerKey = "docker/" + e.list[i].ID
	}
	zero := 0
	for _, x := range []engine.ExecInfo{
		{ID: "plain", Spec: engine.ExecSpec{Args: []string{"ls", "-l"}, Stdin: true}},
		{ID: "terminal", Spec: engine.ExecSpec{Args: []string{"sh"}, TTY: true, Stdin: true}},
		{ID: "running", Spec: engine.ExecSpec{Args: []string{"top"}}, Running: true, Pid: 99},
		{ID: "ended", ExitCode: &zero},
		{ID: "keys", Spec: engine.ExecSpec{Args: []string{"sh"}, DetachKeys: "ctrl-?"}},
	} {
		x.ContainerID = web.ID
		e.execs[x.ID] = x
	}
	return e
}

func (e *fakeEngine) Inspect(_ context.Context, name string) (engine.Info, error) {
	if err := e.read("engine.Inspect"); err != nil {
		return engine.Info{}, err
	}
	for _, info := range e.list {
		if info.ID == name || info.Spec.Name == name {
			return info, nil
		}
	}
	return engine.Info{}, missing("container", name)
}

func (e *fakeEngine) List(context.Context) ([]engine.Info, error) {
	return append([]engine.Info(nil), e.list...), e.read("engine.List")
}

func (e *fakeEngine) Create(_ context.Context, s engine.Spec) (string, []string, error) {
	e.specs = append(e.specs, s)
	if err := e.do("engine.Create", s.Name, s.Image); err != nil {
		return "", nil, err
	}
	return "new", nil, nil
}

func (e *fakeEngine) Start(ctx context.Context, name string) error {
	e.ctx = ctx
	return e.do("engine.Start", name)
}

func (e *fakeEngine) Stop(ctx context.Context, name, signal string, timeout *int) error {
	e.ctx = ctx
	return e.do("engine.Stop", name, signal, timeout)
}

func (e *fakeEngine) Kill(_ context.Context, name, signal string) error {
	return e.do("engine.Kill", name, signal)
}

func (e *fakeEngine) Restart(ctx context.Context, name, signal string, timeout *int) error {
	e.ctx = ctx
	return e.do("engine.Restart", name, signal, timeout)
}

func (e *fakeEngine) Pause(_ context.Context, name string) error {
	if e.paused != nil {
		e.paused()
	}
	return e.do("engine.Pause", name)
}

func (e *fakeEngine) Unpause(ctx context.Context, name string) error {
	e.ctx = ctx
	return e.do("engine.Unpause", name)
}

func (e *fakeEngine) Remove(ctx context.Context, name string, opt engine.RemoveOptions) error {
	e.ctx = ctx
	return e.do("engine.Remove", name, opt)
}

func (e *fakeEngine) Rename(_ context.Context, name, to string) error {
	return e.do("engine.Rename", name, to)
}

func (e *fakeEngine) Update(
	_ context.Context, name string, res specs.LinuxResources, restart *engine.RestartPolicy,
	front func(json.RawMessage) (json.RawMessage, error),
) ([]string, error) {
	if err := e.do("engine.Update", name, res, restart); err != nil {
		return nil, err
	}
	f, err := front(e.front)
	if err != nil {
		return nil, err
	}
	e.do("engine.Update.front", brief(f))
	return nil, nil
}

func (e *fakeEngine) Wait(
	ctx context.Context, name string, cond engine.WaitCondition, registered func(),
) (engine.ExitStatus, error) {
	e.ctx = ctx
	if err := e.do("engine.Wait", name, cond); err != nil {
		return engine.ExitStatus{}, err
	}
	registered()
	return e.status, e.read("engine.Wait.after")
}

func (e *fakeEngine) Usage(context.Context, string) (rw, root int64, err error) {
	return 10, 1000, e.read("engine.Usage")
}

func (e *fakeEngine) Changes(_ context.Context, name string) ([]engine.Change, error) {
	if name == "nosuch" {
		return nil, missing("container", name)
	}
	return []engine.Change{{Path: "/etc", Kind: 0}, {Path: "/etc/new", Kind: 1}},
		e.read("engine.Changes")
}

func (e *fakeEngine) Attach(ctx context.Context, name string, opt engine.AttachOptions) error {
	if err := e.do(
		"engine.Attach", name, "logs", opt.Logs, "stream", opt.Stream, "keys", opt.DetachKeys,
	); err != nil {
		return err
	}
	return e.attach(ctx, opt)
}

func (e *fakeEngine) Resize(_ context.Context, name string, width, height uint16) error {
	return e.do("engine.Resize", name, width, height)
}

func (e *fakeEngine) Logs(
	_ context.Context, name string, opt engine.LogOptions, emit func(engine.LogLine) error,
) error {
	if err := e.do("engine.Logs", name, opt); err != nil {
		return err
	}
	for _, l := range e.lines {
		if err := emit(l); err != nil {
			return err
		}
	}
	return e.read("engine.Logs.after")
}

func (e *fakeEngine) Stats(_ context.Context, name string) (engine.Stats, error) {
	if err := e.do("engine.Stats", name); err != nil {
		return engine.Stats{}, err
	}
	return engine.Stats{Time: time.Now(), Pids: 1}, nil
}

func (e *fakeEngine) Top(context.Context, string) ([]engine.Process, error) {
	clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	return []engine.Process{
		{
			UID: 1000, RUID: 7, GID: 5, PID: 42, PPID: 1, PGID: 42, SID: 41, TPGID: 40,
			StartedAt: clock, TTY: "pts/0", Command: "sh -c x", Name: "sh", State: "Ss+",
			VirtualBytes: 8 << 20, ResidentBytes: 150 << 20, Threads: 2, Priority: 20, Processor: 1,
		},
		{
			PID: 43, PPID: 42, StartedAt: clock, Command: "top", CPUTime: 97262 * time.Second,
			Name: "top", State: "R", CPUPercent: 3, TPGID: -1,
		},
		{PID: 44, PPID: 42, StartedAt: clock, Command: "[gone]", Name: "gone", State: "Z"},
	}, e.read("engine.Top")
}

func (e *fakeEngine) ExecCreate(
	_ context.Context, name string, spec engine.ExecSpec,
) (string, error) {
	return "exec", e.do("engine.ExecCreate", name, spec)
}

func (e *fakeEngine) ExecStart(
	ctx context.Context, id string, streams engine.Streams, size *[2]uint16, detach bool,
) error {
	if err := e.do("engine.ExecStart", id, size, detach); err != nil {
		return err
	}
	if detach {
		return nil
	}
	return e.execStart(ctx, streams)
}

func (e *fakeEngine) ExecInspect(_ context.Context, id string) (engine.ExecInfo, error) {
	if err := e.read("engine.ExecInspect"); err != nil {
		return engine.ExecInfo{}, err
	}
	x, ok := e.execs[id]
	if !ok {
		return x, missing("exec instance", id)
	}
	return x, nil
}

func (e *fakeEngine) ExecResize(_ context.Context, id string, width, height uint16) error {
	return e.do("engine.ExecResize", id, width, height)
}

func (e *fakeEngine) ConnectNetwork(
	_ context.Context, name, network string, ep engine.EndpointSpec,
) error {
	return e.do("engine.ConnectNetwork", name, network, ep)
}

func (e *fakeEngine) DisconnectNetwork(_ context.Context, name, network string) error {
	return e.do("engine.DisconnectNetwork", name, network)
}

func (e *fakeEngine) Events(
	q engine.EventQuery,
) ([]engine.Event, <-chan engine.Event, func()) {
	e.do("engine.Events", q.Since.UTC(), q.Until.UTC())
	var past []engine.Event
	for _, one := range e.past {
		if q.Match(one) {
			past = append(past, one)
		}
	}
	return past, e.live, func() { e.do("engine.Events.cancel") }
}

func (e *fakeEngine) PublishEvent(ev engine.Event) {
	e.do("engine.PublishEvent", ev.Type, ev.Action, ev.ID, ev.Attributes)
}

// classes are the errors that the API tells apart, by the names that the scripts call them.
var classes = map[string]error{
	"not found": errdefs.ErrNotFound, "invalid": errdefs.ErrInvalidArgument,
	"out of range": errdefs.ErrOutOfRange, "conflict": errdefs.ErrConflict,
	"exists": errdefs.ErrAlreadyExists, "precondition": errdefs.ErrFailedPrecondition,
	"unauthenticated": errdefs.ErrUnauthenticated, "denied": errdefs.ErrPermissionDenied,
	"not implemented": errdefs.ErrNotImplemented, "unavailable": errdefs.ErrUnavailable,
	"not modified": errdefs.ErrNotModified, "internal": errors.New("disk full"),
	"126":         &engine.ExecError{Code: 126, Err: errors.New("exec: permission denied")},
	"127":         &engine.ExecError{Code: 127, Err: errors.New("exec: no such file")},
	"not started": engine.ErrNotStarted, "canceled": context.Canceled,
	"end of file": io.ErrUnexpectedEOF,
}

// fakeBackend is a backend of fakes that share a recorder.
type fakeBackend struct {
	*recorder
	engine *fakeEngine
	images *fakeImages
	b      Backend
	h      http.Handler
}

// testHost is a host of four processors and one disk.
var testHost = host{
	cpus: 4, cgroups: "2",
	blockDevice: func(path string) (major, minor int64, err error) {
		if path != "/dev/disk" {
			return 0, 0, invalid("device %q: no such file or directory", path)
		}
		return 8, 16, nil
	},
	memoryBytes: 1 << 30,
	userName: func(id int) string {
		return map[int]string{0: "root", 7: "longer-than-that"}[id]
	},
	groupName: func(id int) string { return map[int]string{0: "wheel"}[id] },
}

func newFake(now time.Time) *fakeBackend {
	r := &recorder{failures: map[string]error{}}
	f := &fakeBackend{recorder: r, engine: newFakeEngine(r, now), images: newFakeImages(r)}
	f.b = Backend{
		Engine: f.engine, Images: f.images, Networks: fakeNetworks{recorder: r},
		Volumes: fakeVolumes{r}, Version: "1", Name: "host", Root: "/data",
		Insecure: []string{"10.0.0.0/8", "registry.test"},
		Builtin:  Builtin{"product/base:latest", f.images.loadBuiltin},
	}
	f.h = http.HandlerFunc(newServer(f.b, testHost).serve)
	return f
}
