package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"strake/engine"
	"strake/engine/logattr"
	"strake/engine/ocispec"
	"strake/engine/state"
	"strake/engine/userdb"
	"strake/image"
	"strake/internal/message"
	"strake/network/place"
	"strake/sandbox"
	"strake/task"
)

// Start implements engine.Containers. A container that runs already is errdefs.ErrNotModified.
func (e *Engine) Start(ctx context.Context, name string) error {
	c, err := e.lock(ctx, name)
	if err != nil {
		return err
	}
	defer c.op.leave()
	switch c.status() {
	case engine.Running:
		return message.New(errdefs.ErrNotModified, "container %s is already running", name)
	case engine.Paused:
		return message.New(
			errdefs.ErrConflict, "cannot start a paused container, try unpause instead",
		)
	case engine.Removing, engine.Dead:
		return message.New(
			errdefs.ErrConflict, "container is marked for removal and cannot be started",
		)
	case engine.Restarting:
		c.mu.Lock()
		c.stopTimer()
		c.mu.Unlock()
	}
	return e.start(ctx, c, true)
}

// stopTimer cancels a restart or probe to come. Callers hold mu.
func (c *container) stopTimer() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

// start brings a container that does not run to life. Callers hold op.
func (e *Engine) start(ctx context.Context, c *container, byUser bool) error {
	var acts []state.Action
	var r *run
	err := e.recordLastExit(ctx, c)
	if err == nil {
		r, err = e.launch(ctx, c)
	}
	e.letGo(context.WithoutCancel(ctx), c)
	if err == nil {
		acts, err = e.recordStart(ctx, c, r, byUser)
	}
	if err != nil {
		code := 128
		var exe *engine.ExecError
		if errors.As(err, &exe) {
			code = exe.Code
		}
		acts, aerr := e.apply(c, state.Event{
			Kind: state.StartFailed, Code: code, Reason: err.Error(), ByUser: byUser,
		})
		c.failPending(err)
		c.mu.Lock()
		c.wake(true, false)
		c.mu.Unlock()
		e.warn("record a failed start", e.save(c), "container", c.id)
		e.act(c, acts)
		return errors.Join(err, aerr)
	}
	e.warn("start", e.fault("start: acknowledge"), "container", c.id)
	e.act(c, acts)
	e.publish(c, "start", nil)
	e.scheduleProbe(c, r)
	return nil
}

// recordStart makes a launched process the container's. If it cannot be recorded the process is
// ended, and everything is as before the launch.
func (e *Engine) recordStart(
	ctx context.Context, c *container, r *run, byUser bool,
) (acts []state.Action, err error) {
	c.mu.Lock()
	was := c.state
	c.mu.Unlock()
	started := state.Event{Kind: state.Started, Pid: r.task.Pid(), ByUser: byUser}
	if acts, err = e.apply(c, started); err == nil {
		c.mu.Lock()
		c.run = r
		c.mu.Unlock()
		if err = e.fault("start: write record"); err == nil {
			err = e.save(c)
		}
	}
	if err == nil {
		return acts, nil
	}
	c.mu.Lock()
	c.run, c.state = nil, was
	c.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	err = errors.Join(err, e.cfg.Tasks.Abort(ctx, c.id), e.vacate(ctx, c, r))
	close(r.ended)
	return nil, err
}

// launch makes everything that a container needs to run and starts its process. Nothing is left of
// it if there is an error.
func (e *Engine) launch(ctx context.Context, c *container) (_ *run, err error) {
	l := &launch{e: e, c: c, run: &run{ended: make(chan struct{})}}
	defer func() {
		for _, n := range l.open {
			n.Close()
		}
		if err != nil {
			err = l.back.run(ctx, err)
		}
	}()
	if err := l.prepare(ctx); err != nil {
		return nil, err
	}
	return l.execute(ctx)
}

// launch carries what the steps of a start share.
type launch struct {
	e    *Engine
	c    *container
	run  *run
	back undo
	open []interface{ Close() } // what is needed until the process exists

	in ocispec.Input
	fs *image.Rootfs
}

// prepare does what does not need a process: the sandbox, the control group, the user's numbers and
// the mount sources, side by side.
func (l *launch) prepare(ctx context.Context) (err error) {
	c, e, spec := l.c, l.e, &l.c.spec
	if c.res.Args[0] == "" { // a command that no file has; its creation is no error
		return notExecuted("", 127, "executable file not found in $PATH")
	}
	l.in = ocispec.Input{
		ID: c.id, Spec: spec, Args: c.res.Args, Env: c.res.Env, Cwd: c.res.Cwd,
		Host: e.host.facts(spec),
	}
	if l.fs, err = e.layersOf(ctx, c); err != nil {
		return err
	}
	if err := l.join(ctx); err != nil {
		return err
	}
	var identity userdb.Identity
	work, gctx := errgroup.WithContext(ctx)
	made := make(chan *sandbox.Sandbox, 1)
	makeSandbox := func() error {
		sb, err := l.ownSandbox(gctx)
		made <- sb
		return err
	}
	// Side by side is sooner for one start; where others keep the processors busy it only costs
	// the wake-ups of threads.
	var serr error
	if e.launching.Add(1) == 1 {
		work.Go(makeSandbox)
	} else {
		serr = makeSandbox()
	}
	defer e.launching.Add(-1)
	var group task.Group
	if err = serr; err == nil {
		group, err = l.makeGroup(ctx)
	}
	if err == nil {
		l.run.group = group
		l.in.CgroupPath = group.Path()
		l.back.add(func(ctx context.Context) error { return group.Remove(ctx) })
		identity, err = e.identity(ctx, c, c.res.User, spec.GroupAdd, l.fs)
	}
	if err == nil {
		err = l.sources()
	}
	// A failure here does not stop the sandbox half-way: it is waited for and then undone.
	werr := work.Wait()
	if sb := <-made; sb != nil {
		l.run.sandbox = sb
		l.back.add(func(ctx context.Context) error { return sb.Leave(ctx, c.id) })
	}
	if err = errors.Join(err, werr); err != nil {
		return err
	}
	l.in.Identity = identity
	return l.describeSandbox()
}

// ownSandbox is the container's own sandbox: a new one, or the one of its last life if other
// containers hold that.
func (l *launch) ownSandbox(ctx context.Context) (*sandbox.Sandbox, error) {
	e, c := l.e, l.c
	if err := e.fault("start: network"); err != nil {
		return nil, err
	}
	if sb, err := e.cfg.Sandboxes.Get(c.id); err == nil && sb.Enter(c.id) == nil {
		return sb, nil
	}
	sb, err := e.cfg.Sandboxes.Prepare(ctx, e.sandboxSpec(c))
	if err != nil {
		return nil, err
	}
	return sb, sb.Enter(c.id)
}

// sandboxSpec is what a container asks of its own sandbox.
func (e *Engine) sandboxSpec(c *container) *sandbox.Spec {
	spec := &c.spec
	s := &sandbox.Spec{
		ID: c.id, Owner: e.cfg.Owner, Hostname: c.hostname(), Domainname: spec.Domainname,
		Place: place.Request{
			Name: spec.Name, Hostname: c.hostname(), Domainname: spec.Domainname,
			Primary: primaryNetwork(spec), Ports: spec.Ports, PublishAll: spec.PublishAll,
			Exposed: c.res.Exposed, DNS: spec.DNS, DNSSearch: spec.DNSSearch,
			DNSOptions: spec.DNSOptions, ExtraHosts: spec.ExtraHosts,
		},
	}
	fill := func(list *[]string, defaults []string) {
		if len(*list) == 0 {
			*list = defaults
		}
	}
	fill(&s.Place.DNS, e.cfg.DNS)
	fill(&s.Place.DNSSearch, e.cfg.DNSSearch)
	fill(&s.Place.DNSOptions, e.cfg.DNSOptions)
	switch {
	case spec.Network == "host":
		s.Network = sandbox.HostNetwork
	case spec.Network == "none":
		s.Network = sandbox.NoNetwork
	case isContainerMode(spec.Network):
		s.Network = sandbox.SharedNetwork
	default:
		s.Place.Endpoints, s.Place.Recycle = wantedEndpoints(spec), recyclable(spec)
	}
	if spec.IPCMode == "shareable" {
		if s.ShmBytes = spec.ShmSizeBytes; s.ShmBytes <= 0 {
			s.ShmBytes = 64 << 20
		}
	}
	return s
}

// describeSandbox tells the configuration what the container's own sandbox has.
func (l *launch) describeSandbox() error {
	sb, spec := l.run.sandbox, &l.c.spec
	rec := sb.Record()
	if !isContainerMode(spec.Network) {
		l.in.HostsPath, l.in.HostnamePath = rec.Files.Hosts, rec.Files.Hostname
		l.in.ResolvPath = rec.Files.ResolvConf
		if rec.Attached {
			l.in.NetPath = rec.NetnsPath
		}
	}
	if spec.IPCMode == "shareable" {
		l.in.ShmPath = rec.Shm
	}
	if !sb.Held() {
		return nil
	}
	// Other containers are in it: what they share with this one they share again.
	n, err := sb.Join(specs.NetworkNamespace, specs.UTSNamespace, specs.IPCNamespace)
	if err != nil {
		return err
	}
	l.open = append(l.open, n)
	if !isContainerMode(spec.Network) && spec.Network != "host" {
		l.in.NetPath = n.Path(specs.NetworkNamespace)
	}
	if spec.UTSMode == "" || spec.UTSMode == "private" {
		l.in.UTSPath = n.Path(specs.UTSNamespace)
	}
	if spec.IPCMode == "shareable" {
		l.in.IPCPath = n.Path(specs.IPCNamespace)
	}
	return nil
}

// makeGroup makes the control group.
func (l *launch) makeGroup(ctx context.Context) (task.Group, error) {
	if err := l.e.fault("start: cgroup"); err != nil {
		return nil, err
	}
	probe := specs.Spec{Linux: &specs.Linux{}}
	if err := ocispec.Devices(&l.in, &probe); err != nil {
		return nil, err
	}
	return l.e.cfg.Groups.Create(ctx, l.c.spec.CgroupParent, l.c.id, probe.Linux.Resources)
}

// execute generates the configuration and starts the task.
func (l *launch) execute(ctx context.Context) (*run, error) {
	e, c := l.e, l.c
	cfg, err := e.host.ociSpec(&l.in)
	if err != nil {
		return nil, err
	}
	s := &task.Spec{
		ID: c.id, Owner: e.cfg.Owner, Config: cfg, Group: l.run.group, Init: c.spec.Init,
		Stdin: c.spec.OpenStdin,
		Log: task.Log{
			Format: task.JSONFile, Path: c.logPath(), MaxBytes: c.spec.Log.MaxBytes,
			MaxFiles: c.spec.Log.MaxFiles,
		},
		Exited: func(exit task.Exit) { e.exited(c, l.run, exit) },
	}
	if s.Log.Attributes, err = logattr.Text(
		c.res.LogAttributes, c.spec.Log.Tag, &logattr.Container{
			FullID: c.id, Name: c.spec.Name, ImageFullID: c.res.ImageID, ImageName: c.spec.Image,
		},
	); err != nil {
		return nil, err
	}
	if l.fs != nil {
		if s.Overlay, err = c.overlay(l.fs); err != nil {
			return nil, err
		}
	} else {
		cfg.Root.Path = c.spec.RootFS
	}
	if c.spec.Log.Driver == "none" {
		s.Log = task.Log{}
	}
	if size := c.spec.ConsoleSize; size != nil && c.spec.TTY {
		s.Width, s.Height = size.Width, size.Height
	}
	pending := c.takePending()
	for _, p := range pending {
		if p.out != nil {
			s.Outputs = append(s.Outputs, p.out.output)
		}
		if p.width > 0 {
			s.Width, s.Height = p.width, p.height
		}
	}
	if l.run.task, err = l.startTask(ctx, s); err != nil {
		c.returnPending(pending)
		return nil, startError(c.res.Args[0], err)
	}
	if err := e.fault("start: record"); err != nil {
		c.returnPending(pending)
		return nil, errors.Join(err, e.cfg.Tasks.Abort(context.WithoutCancel(ctx), c.id))
	}
	for _, p := range pending {
		p.started(l.run)
	}
	return l.run, nil
}

// startError says in words why a program failed. Clients tell the exit status from the words that
// dockerd uses.
func startError(command string, err error) error {
	var se *task.StartError
	if !errors.As(err, &se) {
		return err
	}
	if !se.Exec {
		return &engine.ExecError{
			Code: se.Code,
			Err:  message.New(errdefs.ErrInternal, "failed to create task for container: %w", err),
		}
	}
	why := se.Error()
	switch {
	case se.Code == 127 && strings.Contains(command, "/"):
		why = fmt.Sprintf("stat %s: no such file or directory", command)
	case se.Code == 127:
		why = "executable file not found in $PATH"
	case se.Errno == unix.EACCES:
		why = "permission denied"
	}
	return notExecuted(command, se.Code, why)
}

// notExecuted is the error of a program that could not be executed, with the exit status of a
// shell.
func notExecuted(command string, code int, why string) *engine.ExecError {
	return &engine.ExecError{
		Code: code,
		Err: message.New(
			errdefs.ErrInvalidArgument, "failed to create task for container: exec: %q: %s",
			command, why,
		),
	}
}

// vacate gives back what a run occupied. It is safe to repeat.
func (e *Engine) vacate(ctx context.Context, c *container, r *run) error {
	errs := []error{e.fault("release: cgroup")}
	if err := r.group.Remove(ctx); !errdefs.IsNotFound(err) {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, r.leave(ctx, c.id))...)
}

func isContainerMode(mode string) bool { return strings.HasPrefix(mode, "container:") }

// recyclable says that nothing in the container can change its network namespace:
// network.RecycleIfClean has the conditions.
func recyclable(s *engine.Spec) bool {
	caps, err := ocispec.Capabilities(s, &ocispec.Host{LastCap: unix.CAP_LAST_CAP})
	return err == nil && !slices.Contains(caps, "CAP_NET_ADMIN") &&
		!slices.Contains(caps, "CAP_SYS_ADMIN") &&
		!s.SystemPathsOpen && s.ReadonlyPaths == nil && len(s.Sysctls) == 0
}
