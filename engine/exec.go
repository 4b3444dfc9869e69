package engine

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

	oci "strake/container"
	"strake/container/plan"
	"strake/engine/userdb"
	"strake/internal/message"
	"strake/keeper"
)

// execution is a process beside the first one of a container.
type execution struct {
	id   string
	c    *container
	spec ExecSpec

	mu    sync.Mutex
	begun bool            // guarded by mu
	proc  *keeper.Process // guarded by mu; nil before the start and after the end
	code  *int            // guarded by mu
	pid   int             // guarded by mu
	ended chan struct{}   // closed when the exit is recorded
}

// keptExecs is how many ended execs of a container can still be inspected.
const keptExecs = 64

// execTable finds execs by ID. They live in memory only: a new engine ends those that run and
// forgets the rest.
type execTable struct {
	mu sync.Mutex
	m  map[string]*execution // guarded by mu
}

func (e *Engine) findExec(id string) (*execution, error) {
	e.execs.mu.Lock()
	defer e.execs.mu.Unlock()
	if x, ok := e.execs.m[id]; ok {
		return x, nil
	}
	return nil, message.New(errdefs.ErrNotFound, "No such exec instance: %s", id)
}

// forgetExecs drops a container's execs.
func (e *Engine) forgetExecs(c *container) {
	e.execs.mu.Lock()
	defer e.execs.mu.Unlock()
	for id, x := range e.execs.m {
		if x.c == c {
			delete(e.execs.m, id)
		}
	}
}

// ExecCreate implements Containers.
func (e *Engine) ExecCreate(
	ctx context.Context, name string, spec ExecSpec,
) (id string, err error) {
	c, err := e.find(name)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state.Status {
	case Running:
	case Paused:
		return "", message.New(
			errdefs.ErrConflict, "Container %s is paused, unpause the container before exec", name,
		)
	case Restarting:
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
	e.execs.mu.Lock()
	if e.execs.m == nil {
		e.execs.m = map[string]*execution{}
	}
	e.execs.m[x.id] = x
	if len(c.execs) > keptExecs {
		// The oldest that has ended goes.
		for i, old := range c.execs {
			if o := e.execs.m[old]; o == nil || o.hasEnded() {
				delete(e.execs.m, old)
				c.execs = slices.Delete(slices.Clone(c.execs), i, i+1)
				break
			}
		}
	}
	e.execs.mu.Unlock()
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
func (e *Engine) ExecStart(
	ctx context.Context, id string, streams Streams, size *[2]uint16, detach bool,
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
		streams = Streams{}
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
		var exe *ExecError
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
	err = e.converse(ctx, out, &streams, x.input, x.ended, func() {
		if x.spec.TTY {
			return
		}
		x.mu.Lock()
		if x.proc != nil {
			x.proc.CloseStdin()
		}
		x.mu.Unlock()
		if err := e.connection().CloseStdin(
			context.WithoutCancel(ctx), id,
		); !errdefs.IsNotFound(err) {
			e.warn("close the input of an exec", err, "exec", id)
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

func (x *execution) process() *keeper.Process {
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
	if x.proc != nil {
		x.proc.Close()
		x.proc = nil
	}
	close(x.ended)
}

// execRun starts the process of an exec in its container.
func (e *Engine) execRun(ctx context.Context, x *execution, out *outlet, size *[2]uint16) error {
	c := x.c
	r := c.running()
	if r == nil {
		return notRunning(c)
	}
	c.mu.Lock()
	spec, res := c.spec, c.res
	c.mu.Unlock()
	if x.spec.Privileged {
		e.cfg.Network.Spoil(c.id)
	}
	cfg, proc, err := e.execSpec(ctx, x, r, &spec, &res)
	if err != nil {
		return err
	}
	entry, release, err := r.cgroup.Entry()
	if err != nil {
		return err
	}
	defer release()
	p, err := plan.Exec(cfg, proc, plan.ExecOptions{
		Options: plan.Options{
			Host: plan.Host{
				LastCap: e.host.fixed.LastCap, Cgroup2: entry.Born >= 0 && len(entry.Tasks) == 0,
				AppArmor: e.host.fixed.AppArmor,
			},
			Stdio: plan.Pipes, TaskPaths: entry.Tasks,
		},
		Flags: namespaceFlags(&spec),
	})
	if err != nil {
		return err
	}
	var inputs oci.Inputs
	defer inputs.Close()
	if err := inputs.Open(nil, p); err != nil {
		return err
	}
	initFD := -1
	if err := r.proc.WithPidFD(func(fd int) (err error) {
		initFD, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	}); err != nil {
		return err
	}
	defer unix.Close(initFD)
	inputs.Add(plan.InputInit, initFD)
	if len(entry.Tasks) > 0 {
		inputs.Add(plan.InputCgroups, entry.Root)
	}
	req := &keeper.StartRequest{
		ID: x.id, Kind: keeper.KindExec, Note: c.id, Image: p.Encode(), Inputs: inputs.Names(),
		CgroupFD: entry.Born,
		Stdio:    keeper.Stdio{Mode: keeper.StdioPipes, Stdin: x.spec.Stdin},
	}
	if x.spec.TTY {
		req.Stdio = keeper.Stdio{Mode: keeper.StdioTTY}
		if size != nil {
			req.Stdio.Width, req.Stdio.Height = size[0], size[1]
		}
	}
	if out != nil {
		req.Attach = []keeper.Attachment{out.attachment}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := e.fault("exec: process"); err != nil {
		return err
	}
	kp, err := e.connection().Start(ctx, req)
	if err != nil {
		return e.startError(p, x.spec.Args[0], err)
	}
	x.proc, x.pid = kp, kp.Pid
	e.warn("exec", e.fault("exec: started"), "exec", x.id)
	return nil
}

// namespaceFlags are the namespaces in which a container differs from the host (CLONE_NEW*).
func namespaceFlags(s *Spec) uint64 {
	flags := uint64(unix.CLONE_NEWNS)
	for _, ns := range []struct {
		mode string
		flag uint64
	}{
		{s.PIDMode, unix.CLONE_NEWPID}, {s.IPCMode, unix.CLONE_NEWIPC},
		{s.UTSMode, unix.CLONE_NEWUTS}, {s.Network, unix.CLONE_NEWNET},
		{s.CgroupMode, unix.CLONE_NEWCGROUP},
	} {
		if ns.mode != "host" {
			flags |= ns.flag
		}
	}
	return flags
}

// execSpec makes the configuration of an exec: the container's confinement with the exec's own
// user, environment and directory.
func (e *Engine) execSpec(
	ctx context.Context, x *execution, r *run, s *Spec, res *resolved,
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
	caps, err := capabilities(&exec, &e.host.fixed)
	if err != nil {
		return nil, nil, err
	}
	umask := umaskOf(s)
	proc := &specs.Process{
		Terminal: x.spec.TTY, Args: x.spec.Args, Env: withHome(mergeEnv(env, x.spec.Env), id.Home),
		Cwd: cwd, NoNewPrivileges: s.NoNewPrivileges,
		Rlimits:      mergeRlimits(s.Rlimits, e.host.fixed.Rlimits),
		Capabilities: processCaps(caps, id.UID),
		User:         specs.User{UID: id.UID, GID: id.GID, AdditionalGids: id.Groups, Umask: &umask},
	}
	if s.OOMScoreAdj != 0 {
		proc.OOMScoreAdj = &s.OOMScoreAdj
	}
	cfg := &specs.Spec{Version: specs.Version, Process: proc, Linux: &specs.Linux{}}
	in := &ociInput{Spec: &exec, Host: &e.host.fixed}
	if err := e.host.confine(in, cfg); err != nil {
		return nil, nil, err
	}
	return cfg, proc, nil
}

// runningIdentity looks the user up in the files of a running container, through the root of its
// first process.
func runningIdentity(r *run, user string, groups []string) (userdb.Identity, error) {
	root, err := os.OpenFile(
		fmt.Sprintf("/proc/%d/root", r.proc.Pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0,
	)
	if err != nil {
		return userdb.Identity{}, fmt.Errorf("root of the container: %w", err)
	}
	defer root.Close()
	// The number may have gone to another process meanwhile, but not if the first one still lives.
	if err := r.proc.Signal(0); err != nil {
		return userdb.Identity{}, message.New(errdefs.ErrConflict, "the container has ended")
	}
	passwd, err := readIn(root, "/etc/passwd")
	if err != nil {
		return userdb.Identity{}, err
	}
	group, err := readIn(root, "/etc/group")
	if err != nil {
		return userdb.Identity{}, err
	}
	return userdb.Lookup(user, groups, passwd, group)
}

// execEnded deals with the exit of an exec.
func (e *Engine) execEnded(id string, exit keeper.Exit) {
	x, err := e.findExec(id)
	if err == nil {
		x.mu.Lock() // a start that is under way has set proc by then
		started := x.proc != nil
		x.mu.Unlock()
		e.log.Debug("an exec has ended", "exec", id, "started", started)
		x.end(exit.Code())
		e.publish(
			x.c, "exec_die", map[string]string{"execID": id, "exitCode": fmt.Sprint(exit.Code())},
		)
	}
	if err := e.connection().Forget(e.ctx, id); !errdefs.IsNotFound(err) {
		e.warn("forget the exit of an exec", err, "exec", id)
	}
}

// ExecInspect implements Containers.
func (e *Engine) ExecInspect(ctx context.Context, id string) (ExecInfo, error) {
	x, err := e.findExec(id)
	if err != nil {
		return ExecInfo{}, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return ExecInfo{
		ID: x.id, ContainerID: x.c.id, Spec: x.spec, Running: x.proc != nil, Pid: x.pid,
		ExitCode: x.code,
	}, nil
}

// ExecResize implements Containers.
func (e *Engine) ExecResize(ctx context.Context, id string, width, height uint16) error {
	x, err := e.findExec(id)
	if err != nil {
		return err
	}
	if x.process() == nil {
		return message.New(errdefs.ErrConflict, "exec %s is not running", id)
	}
	return e.connection().Resize(ctx, id, width, height)
}

// capture is ExecCreate and ExecStart for the engine itself: it runs a command in a container,
// keeps the beginning of its output, and kills it when the time is over.
func (e *Engine) capture(
	ctx context.Context, c *container, spec ExecSpec, timeout time.Duration,
) (code int, output string, err error) {
	id, err := e.ExecCreate(ctx, c.id, spec)
	if err != nil {
		return -1, "", err
	}
	defer func() {
		e.execs.mu.Lock()
		delete(e.execs.m, id)
		e.execs.mu.Unlock()
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
	err = e.ExecStart(tctx, id, Streams{Stdout: &out, Stderr: &out}, nil, false)
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
	if room := healthOutputMax - len(l.b); room > 0 {
		l.b = append(l.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (l *limitedBuffer) String() string { return string(l.b) }
