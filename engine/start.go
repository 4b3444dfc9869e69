package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	oci "strake/container"
	"strake/container/plan"
	"strake/container/spawn"
	"strake/engine/userdb"
	"strake/image"
	"strake/internal/message"
	"strake/keeper"
)

// sandbox is what a running container occupies on the host. An engine that dies in the middle of a
// start has recorded nothing of it; the next one finds it all by enumeration (reconcile).
type sandbox struct {
	Cgroup string `json:"cgroup,omitempty"`
	// Attached says that the container has a place in the network of its own.
	Attached  bool                    `json:"attached,omitempty"`
	NetnsPath string                  `json:"netns,omitempty"`
	Endpoints map[string]EndpointInfo `json:"endpoints,omitempty"`
	Ports     []BoundPort             `json:"ports,omitempty"`
	// Shm is a tmpfs mounted in the host's view for containers that share it.
	Shm string `json:"shm,omitempty"`
}

// Start implements Containers. A container that runs already is errdefs.ErrNotModified.
func (e *Engine) Start(ctx context.Context, name string) error {
	c, err := e.lock(ctx, name)
	if err != nil {
		return err
	}
	defer c.op.leave()
	switch c.status() {
	case Running:
		return message.New(errdefs.ErrNotModified, "container %s is already running", name)
	case Paused:
		return message.New(
			errdefs.ErrConflict, "cannot start a paused container, try unpause instead",
		)
	case Removing, Dead:
		return message.New(
			errdefs.ErrConflict, "container is marked for removal and cannot be started",
		)
	case Restarting:
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
	var acts []action
	r, err := e.launch(ctx, c)
	if err == nil {
		acts, err = e.recordStart(ctx, c, r, byUser)
	}
	if err != nil {
		code := 128
		var exe *ExecError
		if errors.As(err, &exe) {
			code = exe.Code
		}
		acts, aerr := e.apply(
			c, event{what: hStartFailed, code: code, reason: err.Error(), byUser: byUser},
		)
		e.failPending(c, err)
		c.mu.Lock()
		c.wake(true, false)
		c.mu.Unlock()
		err = errors.Join(err, aerr, e.save(c))
		e.act(c, acts)
		return err
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
) (acts []action, err error) {
	c.mu.Lock()
	was := c.state
	c.mu.Unlock()
	if acts, err = e.apply(c, event{what: hStarted, pid: r.proc.Pid, byUser: byUser}); err == nil {
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
	err = errors.Join(err, e.connection().Abort(ctx, c.id), e.releaseSandbox(ctx, c, r.sandbox))
	r.markDrained()
	r.proc.Close()
	close(r.ended)
	return nil, err
}

// launch makes everything that a container needs to run and starts its process. Nothing is left of
// it if there is an error.
func (e *Engine) launch(ctx context.Context, c *container) (_ *run, err error) {
	l := &launch{e: e, c: c, sb: &sandbox{}}
	defer func() {
		if err != nil {
			err = l.back.run(ctx, err)
		}
		l.inputs.Close()
	}()
	if err := l.prepare(ctx); err != nil {
		return nil, err
	}
	return l.execute(ctx)
}

// launch carries what the steps of a start share.
type launch struct {
	e      *Engine
	c      *container
	sb     *sandbox
	back   undo
	inputs oci.Inputs

	in      ociInput
	fs      *image.Rootfs
	group   Cgroup
	place   *NetworkPlace
	cfg     *specs.Spec
	plan    *plan.Plan
	network NetworkRequest
}

// prepare does what does not need a process: the network, the control group, the user's numbers and
// the mount sources, side by side.
func (l *launch) prepare(ctx context.Context) (err error) {
	c, e, spec := l.c, l.e, &l.c.spec
	l.in = ociInput{
		ID: c.id, Spec: spec, Args: c.res.Args, Env: c.res.Env, Cwd: c.res.Cwd,
		Host:      e.host.facts(spec),
		HostsPath: c.path(hostsFile), HostnamePath: c.path(hostnameFile),
		ResolvPath: c.path(resolvFile),
	}
	if l.fs, err = e.layersOf(ctx, c); err != nil {
		return err
	}
	if err := l.joined(); err != nil {
		return err
	}
	var identity userdb.Identity
	work, gctx := errgroup.WithContext(ctx)
	attached := make(chan func(context.Context) error, 1)
	work.Go(func() error {
		undo, err := l.attach(gctx)
		attached <- undo
		return err
	})
	group, err := l.makeGroup(ctx)
	if err == nil {
		l.group = group
		l.sb.Cgroup = group.Path()
		l.in.CgroupPath = group.Path()
		l.back.add(func(ctx context.Context) error { return group.Remove(ctx) })
		identity, err = e.identity(ctx, c, c.res.User, spec.GroupAdd, l.fs)
	}
	if err == nil {
		err = l.sources(ctx)
	}
	// A failure here does not stop the attachment half-way: it is waited for and then undone.
	werr := work.Wait()
	if undo := <-attached; undo != nil {
		l.back.add(undo)
	}
	if err = errors.Join(err, werr); err != nil {
		return err
	}
	l.in.Identity = identity
	return l.files()
}

// joined resolves "container:ID" to paths of namespaces of the other container.
func (l *launch) joined() error {
	spec := &l.c.spec
	for _, j := range []struct {
		mode, file string
		path       *string
	}{
		{spec.PIDMode, "pid", &l.in.PIDPath}, {spec.IPCMode, "ipc", &l.in.IPCPath},
		{spec.UTSMode, "uts", &l.in.UTSPath},
	} {
		name, ok := strings.CutPrefix(j.mode, "container:")
		if !ok {
			continue
		}
		other, r, err := l.e.livingPeer(name)
		if err != nil {
			return err
		}
		*j.path = fmt.Sprintf("/proc/%d/ns/%s", r.proc.Pid, j.file)
		if j.file == "ipc" {
			if l.in.ShmPath = r.sandbox.Shm; l.in.ShmPath == "" {
				return message.New(
					errdefs.ErrFailedPrecondition,
					"cannot join IPC of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
					other.id,
				)
			}
		}
	}
	return nil
}

// livingPeer finds a running container whose namespaces another one shares.
func (e *Engine) livingPeer(name string) (*container, *run, error) {
	other, err := e.find(name)
	if err != nil {
		return nil, nil, err
	}
	r := other.running()
	if r == nil {
		return nil, nil, message.New(
			errdefs.ErrConflict,
			"cannot join namespace of a non running container: container %s is %s", other.id,
			other.status(),
		)
	}
	return other, r, nil
}

// attach gets the container its place in the network and returns what takes it back.
func (l *launch) attach(ctx context.Context) (func(context.Context) error, error) {
	e, c, spec := l.e, l.c, &l.c.spec
	if err := e.fault("start: network"); err != nil {
		return nil, err
	}
	l.network = NetworkRequest{
		ID: c.id, Name: spec.Name, Hostname: c.hostname(), Domainname: spec.Domainname,
		Primary: primaryNetwork(spec), Ports: spec.Ports, PublishAll: spec.PublishAll,
		Exposed: c.res.Exposed, DNS: spec.DNS, DNSSearch: spec.DNSSearch,
		DNSOptions: spec.DNSOptions, ExtraHosts: spec.ExtraHosts,
	}
	req := &l.network
	fill := func(list *[]string, defaults []string) {
		if len(*list) == 0 {
			*list = defaults
		}
	}
	fill(&req.DNS, e.cfg.DNS)
	fill(&req.DNSSearch, e.cfg.DNSSearch)
	fill(&req.DNSOptions, e.cfg.DNSOptions)
	switch {
	case spec.Network == "host":
		hosts, resolv, err := e.cfg.Network.HostFiles(req, false)
		l.place = &NetworkPlace{Hosts: hosts, ResolvConf: resolv}
		return nil, err
	case spec.Network == "none":
		hosts, resolv, err := e.cfg.Network.HostFiles(req, true)
		l.place = &NetworkPlace{Hosts: hosts, ResolvConf: resolv}
		return nil, err
	case isContainerMode(spec.Network):
		other, r, err := e.livingPeer(strings.TrimPrefix(spec.Network, "container:"))
		if err != nil {
			return nil, err
		}
		// The files are the other's own, so that both see what changes in them.
		l.in.HostsPath, l.in.HostnamePath, l.in.ResolvPath = other.path(hostsFile), other.path(
			hostnameFile,
		), other.path(resolvFile)
		l.in.NetPath = fmt.Sprintf("/proc/%d/ns/net", r.proc.Pid)
		if !recyclable(spec) {
			e.cfg.Network.Spoil(other.id)
		}
		return nil, nil
	}
	req.Endpoints = wantedEndpoints(spec)
	req.Recycle = recyclable(spec)
	place, err := e.cfg.Network.Attach(ctx, req)
	if err != nil {
		return nil, err
	}
	l.place = place
	l.in.NetPath = place.NetnsPath
	l.sb.Attached, l.sb.NetnsPath, l.sb.Endpoints, l.sb.Ports = true, place.NetnsPath, place.Endpoints, place.Ports
	return func(ctx context.Context) error { return e.cfg.Network.Detach(ctx, c.id) }, nil
}

func isContainerMode(mode string) bool { return strings.HasPrefix(mode, "container:") }

// recyclable says that nothing in the container can change its network namespace:
// network.RecycleIfUnused has the conditions.
func recyclable(s *Spec) bool {
	caps, err := capabilities(s, &hostFacts{LastCap: unix.CAP_LAST_CAP})
	return err == nil && !slices.Contains(caps, "CAP_NET_ADMIN") &&
		!slices.Contains(caps, "CAP_SYS_ADMIN") &&
		!s.SystemPathsOpen && s.ReadonlyPaths == nil && len(s.Sysctls) == 0
}

func (l *launch) makeGroup(ctx context.Context) (Cgroup, error) {
	if err := l.e.fault("start: cgroup"); err != nil {
		return nil, err
	}
	probe := specs.Spec{Linux: &specs.Linux{}}
	if err := devices(&l.in, &probe); err != nil {
		return nil, err
	}
	return l.e.cfg.Groups.Create(ctx, l.c.spec.CgroupParent, l.c.id, probe.Linux.Resources)
}

// sources resolves where mounts come from and makes what is missing and may be made.
func (l *launch) sources(ctx context.Context) error {
	c := l.c
	if err := l.e.fault("start: mounts"); err != nil {
		return err
	}
	for i := range c.res.Mounts {
		m := &c.res.Mounts[i]
		b := boundMount{Mount: m.Mount, HostPath: m.Source}
		if m.Type == "bind" {
			_, err := os.Stat(m.Source)
			switch {
			case err == nil:
			case errors.Is(err, os.ErrNotExist) && m.CreateSource:
				// Made for the user, who asked for it with -v; it stays as it does with dockerd.
				if err := os.MkdirAll(m.Source, 0o755); err != nil {
					return message.New(
						errdefs.ErrInvalidArgument,
						"error while creating mount source path '%s': %w", m.Source, err,
					)
				}
			case errors.Is(err, os.ErrNotExist):
				return message.New(
					errdefs.ErrInvalidArgument,
					"invalid mount config for type \"bind\": bind source path does not exist: %s",
					m.Source,
				)
			default:
				return message.New(
					errdefs.ErrInvalidArgument,
					"invalid mount config for type \"bind\": stat %s: %w", m.Source, err,
				)
			}
		}
		l.in.Mounts = append(l.in.Mounts, b)
	}
	if c.spec.IPCMode == "shareable" {
		return l.shareableShm()
	}
	return nil
}

// shareableShm mounts a /dev/shm that other containers can join. It is the one mount that the host
// sees.
func (l *launch) shareableShm() error {
	dir := filepath.Join(l.e.cfg.Run, "shm", l.c.id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("shared memory: %w", err)
	}
	size := l.c.spec.ShmSizeBytes
	if size <= 0 {
		size = 64 << 20
	}
	l.back.add(func(context.Context) error { return releaseShm(dir) })
	if err := l.e.fault("start: shared memory"); err != nil {
		return err
	}
	if err := unix.Mount(
		"shm", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV,
		fmt.Sprintf("mode=1777,size=%d", size),
	); err != nil {
		return fmt.Errorf("mount shared memory: %w", err)
	}
	l.sb.Shm, l.in.ShmPath = dir, dir
	return nil
}

func releaseShm(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if rerr := os.Remove(dir); !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// files writes hosts, hostname and resolv.conf.
func (l *launch) files() error {
	c := l.c
	if err := l.e.fault("start: files"); err != nil {
		return err
	}
	if l.place == nil {
		return nil // they are another container's
	}
	name := l.network.Hostname
	if c.spec.Domainname != "" {
		name += "." + c.spec.Domainname
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{hostsFile, l.place.Hosts}, {hostnameFile, []byte(name + "\n")},
		{resolvFile, l.place.ResolvConf},
	} {
		// In place, not renamed: a container that runs has the file itself mounted.
		if err := os.WriteFile(c.path(f.name), f.data, 0o644); err != nil {
			return fmt.Errorf("container %s: %w", shortID(c.id), err)
		}
	}
	return nil
}

// execute compiles the configuration and has the keeper run it.
func (l *launch) execute(ctx context.Context) (*run, error) {
	e, c := l.e, l.c
	var err error
	if l.cfg, err = e.host.ociSpec(&l.in); err != nil {
		return nil, err
	}
	entry, release, err := l.group.Entry()
	if err != nil {
		return nil, err
	}
	defer release()
	opt := plan.Options{
		Host: plan.Host{
			LastCap: l.in.Host.LastCap, Cgroup2: entry.Born >= 0 && len(entry.Tasks) == 0,
			Hierarchies: l.group.Hierarchies(), AppArmor: l.in.Host.AppArmor,
		},
		Stdio: plan.Pipes, TaskPaths: entry.Tasks, Grouped: true, Reaper: c.spec.Init,
	}
	if l.fs != nil {
		opt.Overlay = &plan.Overlay{
			Lower: l.fs.Lower, Upper: l.fs.Upper, Work: l.fs.Work,
			Target: filepath.Join(e.cfg.Run, "rootfs"),
		}
	} else {
		l.cfg.Root.Path = c.spec.RootFS
	}
	if l.plan, err = plan.Init(l.cfg, opt); err != nil {
		return nil, err
	}
	if err := l.inputs.Open(nil, l.plan); err != nil {
		return nil, err
	}
	if len(entry.Tasks) > 0 {
		l.inputs.Add(plan.InputCgroups, entry.Root)
	}
	req := &keeper.StartRequest{
		ID: c.id, Kind: keeper.KindInit, Image: l.plan.Encode(), Inputs: l.inputs.Names(),
		CgroupFD: entry.Born, TimeOffsets: l.plan.TimeOffsets,
		Stdio: keeper.Stdio{Mode: keeper.StdioPipes, Stdin: c.spec.OpenStdin},
		Log: keeper.LogConfig{
			Driver: keeper.LogJSONFile, Path: c.logPath(), MaxBytes: c.spec.Log.MaxBytes,
			MaxFiles: c.spec.Log.MaxFiles,
		},
	}
	if c.spec.TTY {
		req.Stdio = keeper.Stdio{Mode: keeper.StdioTTY}
	}
	if c.spec.Log.Driver == "none" {
		req.Log = keeper.LogConfig{Driver: keeper.LogNone}
	}
	pending := e.takePending(c)
	for _, p := range pending {
		if p.out != nil {
			req.Attach = append(req.Attach, p.attachment)
		}
		if p.width > 0 {
			req.Stdio.Width, req.Stdio.Height = p.width, p.height
		}
	}
	if err := e.fault("start: process"); err != nil {
		e.returnPending(c, pending)
		return nil, err
	}
	proc, err := e.connection().Start(ctx, req)
	if err != nil {
		e.returnPending(c, pending)
		return nil, e.startError(l.plan, c.res.Args[0], err)
	}
	r := &run{
		proc: proc, sandbox: l.sb, cgroup: l.group, ended: make(chan struct{}),
		drained: make(chan struct{}),
	}
	if err := e.fault("start: record"); err != nil {
		proc.Close()
		return nil, errors.Join(err, e.connection().Abort(context.WithoutCancel(ctx), c.id))
	}
	for _, p := range pending {
		p.started(r)
	}
	return r, nil
}

// startError says in words why a program failed. Clients tell the exit status from the words that
// dockerd uses.
func (e *Engine) startError(p *plan.Plan, command string, err error) error {
	var f *spawn.Failure
	if !errors.As(err, &f) {
		return err
	}
	err = plan.Explain(p.Program, f.Index, f.Errno)
	var se *plan.StepError
	if !errors.As(err, &se) || !se.IsExec() {
		code := 128
		switch se := new(plan.StepError); {
		case !errors.As(err, &se):
		case se.Errno == unix.ENOENT:
			code = 127
		case se.Errno == unix.EACCES:
			code = 126
		}
		return &ExecError{
			Code: code,
			Err:  message.New(errdefs.ErrInternal, "failed to create task for container: %w", err),
		}
	}
	why := err.Error()
	switch {
	case se.ExitCode() == 127 && strings.Contains(command, "/"):
		why = fmt.Sprintf("stat %s: no such file or directory", command)
	case se.ExitCode() == 127:
		why = "executable file not found in $PATH"
	case se.Errno == unix.EACCES:
		why = "permission denied"
	}
	return &ExecError{
		Code: se.ExitCode(),
		Err: message.New(
			errdefs.ErrInvalidArgument, "failed to create task for container: exec: %q: %s",
			command, why,
		),
	}
}

// releaseSandbox gives back what a run occupied. It is safe to repeat.
func (e *Engine) releaseSandbox(ctx context.Context, c *container, sb *sandbox) error {
	if sb == nil {
		return nil
	}
	errs := []error{e.fault("release: cgroup")}
	if sb.Cgroup != "" {
		g, err := e.cfg.Groups.At(sb.Cgroup)
		if err == nil {
			err = g.Remove(ctx)
		}
		if !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, e.fault("release: network"))
	if sb.Attached {
		errs = append(errs, e.cfg.Network.Detach(ctx, c.id))
	}
	errs = append(errs, e.fault("release: shared memory"))
	if sb.Shm != "" {
		errs = append(errs, releaseShm(sb.Shm))
	}
	return errors.Join(errs...)
}
