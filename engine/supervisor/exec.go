package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/engine"
	"strake/engine/ocispec"
	"strake/engine/record"
	"strake/engine/state"
	"strake/engine/userdb"
	"strake/internal/message"
	"strake/task"
)

// execution is a process beside the first one of a container.
type execution struct {
	id   string
	c    *container
	spec engine.ExecSpec

	mu    sync.Mutex
	begun bool          // guarded by mu
	proc  task.Process  // guarded by mu; nil before the start and after the end
	code  *int          // guarded by mu
	pid   int           // guarded by mu
	ended chan struct{} // closed when the exit is recorded
}

// keptExecs is how many ended execs of a container can still be inspected.
const keptExecs = 64

// execs are the execs of all containers. They live in memory only: a new engine ends those that run
// and forgets the rest.
type execs struct {
	*core
	tableMu sync.Mutex
	table   map[string]*execution // guarded by tableMu; by ID
}

func (e *execs) findExec(id string) (*execution, error) {
	e.tableMu.Lock()
	defer e.tableMu.Unlock()
	if x, ok := e.table[id]; ok {
		return x, nil
	}
	return nil, message.New(errdefs.ErrNotFound, "No such exec instance: %s", id)
}

// forgetExecs drops a container's execs.
func (e *execs) forgetExecs(c *container) {
	e.tableMu.Lock()
	defer e.tableMu.Unlock()
	for id, x := range e.table {
		if x.c == c {
			delete(e.table, id)
		}
	}
}

// ExecCreate implements Containers.
func (e *execs) ExecCreate(
	ctx context.Context, name string, spec engine.ExecSpec,
) (id string, err error) {
	c, err := e.find(name)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state.Status {
	case engine.Running:
	case engine.Paused:
		return "", message.New(
			errdefs.ErrConflict, "Container %s is paused, unpause the container before exec", name,
		)
	case engine.Restarting:
		return "", message.New(
			errdefs.ErrConflict, "Container %s is restarting, wait until the container is running",
			name,
		)
	default:
		return "", notRunning(c)
	}
	if len(spec.Args) == 0 {
		return "", message.New(errdefs.ErrInvalidArgument, "No exec command specified")
	}
	if strings.ContainsRune(strings.Join(spec.Args, "")+strings.Join(spec.Env, ""), 0) {
		return "", message.New(
			errdefs.ErrInvalidArgument, "the exec command or its environment contains a NUL byte",
		)
	}
	if spec.WorkingDir != "" && !path.IsAbs(spec.WorkingDir) {
		return "", message.New(
			errdefs.ErrInvalidArgument, "exec: working directory %q is not absolute",
			spec.WorkingDir,
		)
	}
	x := &execution{id: newID(), c: c, spec: spec, ended: make(chan struct{})}
	c.execs = append(c.execs, x.id)
	e.tableMu.Lock()
	e.table[x.id] = x
	if len(c.execs) > keptExecs {
		// The oldest that has ended goes.
		for i, old := range c.execs {
			if o := e.table[old]; o == nil || o.hasEnded() {
				delete(e.table, old)
				c.execs = slices.Delete(slices.Clone(c.execs), i, i+1)
				break
			}
		}
	}
	e.tableMu.Unlock()
	return x.id, nil
}

func (x *execution) hasEnded() bool {
	select {
	case <-x.ended:
		return true
	default:
		return false
	}
}

// ExecStart implements Containers. With detach it returns when the process executes, else when it
// has ended and its output is delivered.
func (e *execs) ExecStart(
	ctx context.Context, id string, streams engine.Streams, size *[2]uint16, detach bool,
) error {
	x, err := e.findExec(id)
	if err != nil {
		return err
	}
	x.mu.Lock()
	if x.begun {
		x.mu.Unlock()
		return message.New(errdefs.ErrConflict, "exec %s has already run", id)
	}
	x.begun = true
	x.mu.Unlock()
	var out *outlet
	if detach {
		streams = engine.Streams{}
	} else if out, err = newOutlet(&streams, x.spec.TTY); err != nil {
		return err
	}
	defer out.close()
	if !x.spec.Stdin {
		streams.Stdin = nil
	}
	e.publish(x.c, "exec_create: "+strings.Join(x.spec.Args, " "), map[string]string{"execID": id})
	e.publish(x.c, "exec_start: "+strings.Join(x.spec.Args, " "), map[string]string{"execID": id})
	if err := e.execRun(ctx, x, out, size); err != nil {
		code := 126
		var exe *engine.ExecError
		if errors.As(err, &exe) {
			code = exe.Code
		}
		x.end(code)
		return err
	}
	out.handedOver()
	if detach {
		return nil
	}
	err = converse(ctx, out, &streams, x.input, x.ended, func() {
		if p := x.process(); p != nil && !x.spec.TTY {
			if err := p.CloseInput(context.WithoutCancel(ctx)); !errdefs.IsNotFound(err) {
				e.warn("close the input of an exec", err, "exec", id)
			}
		}
	})
	if errors.Is(err, errDetached) {
		e.publish(x.c, "exec_detach", map[string]string{"execID": id})
		return nil
	}
	if err != nil {
		return err
	}
	select {
	case <-x.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *execution) process() task.Process {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.proc
}

func (x *execution) input() (*os.File, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.proc != nil {
		return x.proc.Input()
	}
	return nil, message.New(errdefs.ErrFailedPrecondition, "the process has ended")
}

// end records the exit.
func (x *execution) end(code int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.hasEnded() {
		return
	}
	x.code = &code
	x.proc = nil
	close(x.ended)
}

// execRun starts the process of an exec in its container.
func (e *execs) execRun(ctx context.Context, x *execution, out *outlet, size *[2]uint16) error {
	c := x.c
	r := c.running()
	if r == nil {
		return notRunning(c)
	}
	c.mu.Lock()
	spec, res := c.spec, c.res
	c.mu.Unlock()
	if x.spec.Privileged {
		e.cfg.Network.Spoil(r.sandbox.ID())
	}
	cfg, proc, err := e.execSpec(x, r, &spec, &res)
	if err != nil {
		return err
	}
	req := &task.Exec{
		ID: x.id, Process: proc, Config: cfg, Stdin: x.spec.Stdin,
		Exited: func(exit task.Exit) { e.execEnded(x, exit) },
	}
	if s := x.spec.ConsoleSize; x.spec.TTY && s != nil {
		req.Width, req.Height = s.Width, s.Height
	}
	if x.spec.TTY && size != nil {
		req.Width, req.Height = size[0], size[1]
	}
	if out != nil {
		req.Outputs = []task.Output{out.output}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := e.fault("exec: process"); err != nil {
		return err
	}
	p, err := r.task.Exec(ctx, req)
	if err != nil {
		return startError(x.spec.Args[0], err)
	}
	x.proc, x.pid = p, p.Pid()
	e.warn("exec", e.fault("exec: started"), "exec", x.id)
	return nil
}

// execSpec makes the configuration of an exec: the container's confinement with the exec's own
// user, environment and directory.
func (e *execs) execSpec(
	x *execution, r *run, s *engine.Spec, res *record.Resolved,
) (*specs.Spec, *specs.Process, error) {
	user, groups := x.spec.User, s.GroupAdd
	if user == "" {
		user = res.User
	} else {
		groups = nil
	}
	id, err := runningIdentity(r, user, groups)
	if err != nil {
		return nil, nil, err
	}
	env := slices.Clone(res.Env)
	if x.spec.TTY && !s.TTY {
		env = append(env, "TERM=xterm")
	}
	cwd := x.spec.WorkingDir
	if cwd == "" {
		cwd = res.Cwd
	}
	exec := *s
	exec.TTY, exec.Privileged = x.spec.TTY, s.Privileged || x.spec.Privileged
	if x.spec.Privileged && !s.Privileged && s.Seccomp == "" {
		exec.Privileged = false
		exec.CapAdd, exec.CapDrop = []string{"ALL"}, nil
	}
	caps, err := ocispec.Capabilities(&exec, &e.host.fixed)
	if err != nil {
		return nil, nil, err
	}
	umask := ocispec.Umask(s)
	proc := &specs.Process{
		Terminal: x.spec.TTY, Args: x.spec.Args, Env: ocispec.WithHome(ocispec.MergeEnv(env, x.spec.Env), id.Home),
		Cwd: cwd, NoNewPrivileges: s.NoNewPrivileges,
		Rlimits:      ocispec.MergeRlimits(s.Rlimits, e.host.fixed.Rlimits),
		Capabilities: ocispec.ProcessCaps(caps, id.UID),
		User:         specs.User{UID: id.UID, GID: id.GID, AdditionalGids: id.Groups, Umask: &umask},
	}
	if s.OOMScoreAdj != 0 {
		proc.OOMScoreAdj = &s.OOMScoreAdj
	}
	cfg := &specs.Spec{Version: specs.Version, Process: proc, Linux: &specs.Linux{}}
	in := &ocispec.Input{Spec: &exec, Host: &e.host.fixed}
	if err := e.host.confine(in, cfg); err != nil {
		return nil, nil, err
	}
	return cfg, proc, nil
}

// runningIdentity looks the user up in the files of a running container, as it sees them.
func runningIdentity(r *run, user string, groups []string) (userdb.Identity, error) {
	passwd, err := r.task.ReadFile("/etc/passwd", userdb.MaxFile)
	if err == nil {
		var group []byte
		if group, err = r.task.ReadFile("/etc/group", userdb.MaxFile); err == nil {
			return userdb.Lookup(user, groups, passwd, group)
		}
	}
	if errdefs.IsFailedPrecondition(err) {
		err = message.New(errdefs.ErrConflict, "the container has ended")
	}
	return userdb.Identity{}, err
}

// execEnded deals with the exit of an exec.
func (e *execs) execEnded(x *execution, exit task.Exit) {
	x.mu.Lock() // a start that is under way has set proc by then
	p := x.proc
	x.mu.Unlock()
	x.end(exit.Code)
	e.publish(
		x.c, "exec_die", map[string]string{"execID": x.id, "exitCode": fmt.Sprint(exit.Code)},
	)
	if p != nil {
		e.warn("forget the exit of an exec", p.Delete(context.WithoutCancel(e.ctx)), "exec", x.id)
	}
}

// ExecInspect implements Containers.
func (e *execs) ExecInspect(ctx context.Context, id string) (engine.ExecInfo, error) {
	x, err := e.findExec(id)
	if err != nil {
		return engine.ExecInfo{}, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return engine.ExecInfo{
		ID: x.id, ContainerID: x.c.id, Spec: x.spec, Running: x.proc != nil, Pid: x.pid,
		ExitCode: x.code,
	}, nil
}

// ExecResize implements Containers.
func (e *execs) ExecResize(ctx context.Context, id string, width, height uint16) error {
	x, err := e.findExec(id)
	if err != nil {
		return err
	}
	p := x.process()
	if p == nil {
		return message.New(errdefs.ErrConflict, "exec %s is not running", id)
	}
	return p.Resize(ctx, width, height)
}

// capture is ExecCreate and ExecStart for the engine itself: it runs a command in a container,
// keeps the beginning of its output, and kills it when the time is over.
func (e *execs) capture(
	ctx context.Context, c *container, spec engine.ExecSpec, timeout time.Duration,
) (code int, output string, err error) {
	id, err := e.ExecCreate(ctx, c.id, spec)
	if err != nil {
		return -1, "", err
	}
	defer func() {
		e.tableMu.Lock()
		delete(e.table, id)
		e.tableMu.Unlock()
		c.mu.Lock()
		c.execs = slices.DeleteFunc(slices.Clone(c.execs), func(x string) bool { return x == id })
		c.mu.Unlock()
	}()
	x, err := e.findExec(id)
	if err != nil {
		return -1, "", err
	}
	var out limitedBuffer
	tctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = e.ExecStart(tctx, id, engine.Streams{Stdout: &out, Stderr: &out}, nil, false)
	if tctx.Err() != nil {
		if p := x.process(); p != nil {
			p.Signal(unix.SIGKILL)
			<-x.ended
		}
	}
	if err != nil {
		return -1, out.String(), err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return *x.code, out.String(), nil
}

// limitedBuffer keeps the first bytes of what is written to it.
type limitedBuffer struct{ b []byte }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if room := state.HealthOutputMax - len(l.b); room > 0 {
		l.b = append(l.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (l *limitedBuffer) String() string { return string(l.b) }
