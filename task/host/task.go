package host

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/launch"
	"strake/container/leader"
	"strake/container/plan"
	"strake/keeper"
	"strake/task"
)

// hostTask implements task.Task.
type hostTask struct {
	*process
	rec   task.Record
	group task.Group // nil: none
}

// Start implements task.Isolation.
func (h *Host) Start(ctx context.Context, s *task.Spec) (task.Task, error) {
	if s.Config == nil {
		return nil, fmt.Errorf("start %q: no configuration: %w", s.ID, errdefs.ErrInvalidArgument)
	}
	p := newProcess(h, s.ID, s.Owner, s.Exited)
	t := &hostTask{process: p, group: s.Group, rec: task.Record{
		ID: s.ID, Owner: s.Owner, Namespaces: namespaceFlags(s.Config),
	}}
	entry, release, err := enter(s.Group)
	if err != nil {
		return nil, err
	}
	defer release()
	if s.Group != nil {
		t.rec.Group = s.Group.Path()
	}
	held, err := h.hooks(s)
	if err != nil {
		return nil, err
	}
	err = h.start(ctx, p, &preparation{
		make: func() (*launch.Launch, *keeper.StartRequest, error) {
			l, err := h.prepare(s, entry)
			if err != nil {
				return nil, nil, err
			}
			req := request(s, l)
			req.Hold = held != nil
			return l, req, nil
		},
		held: held,
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// request is what a keeper is asked for to start a task.
func request(s *task.Spec, l *launch.Launch) *keeper.StartRequest {
	uid, gid := l.IDMaps()
	req := &keeper.StartRequest{
		ID: s.ID, Owner: s.Owner, Kind: keeper.KindInit, Image: l.Encode(),
		Inputs: l.Inputs().Names(), CgroupFD: l.Born(), UIDMap: uid, GIDMap: gid,
		TimeOffsets: l.TimeOffsets(), Log: logConfig(s.Log), EndCommand: s.EndCommand,
	}
	switch {
	case s.Config.Process == nil:
		req.Kind = keeper.KindHold
	case s.Config.Process.Terminal:
		req.Stdio = keeper.Stdio{Mode: keeper.StdioTTY, Width: s.Width, Height: s.Height}
	default:
		req.Stdio = keeper.Stdio{Mode: keeper.StdioPipes, Stdin: s.Stdin}
	}
	for _, o := range s.Outputs {
		req.Attach = append(req.Attach, attachment(o))
	}
	for _, k := range s.Keep {
		req.Keep = append(req.Keep, keeper.Kept(k))
	}
	return req
}

// prepare compiles a configuration by what it has: a process, a root.
func (h *Host) prepare(s *task.Spec, entry launch.Entry) (*launch.Launch, error) {
	opt := plan.Options{
		Host: plan.Host{
			LastCap: h.cfg.Kernel.LastCap, Cgroup2: entry.Version2(),
			AppArmor: h.cfg.Kernel.AppArmor, SELinux: h.cfg.Kernel.SELinux,
		},
		Stdio: plan.Pipes, Overlay: s.Overlay, Reaper: s.Init, Hooks: hasHooks(s.Config),
	}
	filter, err := h.filters.get(s.Config)
	if err != nil {
		return nil, err
	}
	opt.Filter = filter
	if s.Group != nil {
		opt.Host.Hierarchies = s.Group.Hierarchies()
	}
	if s.Overlay != nil && s.Overlay.Target == "" {
		o := *s.Overlay
		o.Target = h.cfg.OverlayTarget
		opt.Overlay = &o
	}
	cfg := *s.Config
	switch cfg.Process = sized(cfg.Process, s.Width, s.Height); {
	case cfg.Process == nil:
		return launch.Hold(&cfg, opt, entry)
	case s.Overlay == nil && (cfg.Root == nil || cfg.Root.Path == ""):
		return launch.Process(&cfg, opt, entry)
	}
	return launch.Init(nil, &cfg, opt, entry)
}

// sized returns the process with the size of its terminal, if that is known: the program sets it
// before it executes, the keeper sets it when it hears of the terminal, which may be later.
func sized(proc *specs.Process, width, height uint16) *specs.Process {
	if proc == nil || !proc.Terminal || width == 0 || height == 0 {
		return proc
	}
	copied := *proc
	copied.ConsoleSize = &specs.Box{Width: uint(width), Height: uint(height)}
	return &copied
}

// enter opens what a process enters a group by.
func enter(g task.Group) (launch.Entry, func(), error) {
	if g == nil {
		return launch.Nowhere(), func() {}, nil
	}
	return g.Entry()
}

// explain says in the words of the configuration why a program failed.
func explain(l *launch.Launch, err error) error {
	err = l.Explain(err)
	var se *plan.StepError
	if !errors.As(err, &se) {
		return err
	}
	out := &task.StartError{Code: 128, Exec: se.IsExec(), Errno: se.Errno, Err: err}
	switch {
	case out.Exec:
		out.Code = se.ExitCode()
	case se.Errno == unix.ENOENT:
		out.Code = 127
	case se.Errno == unix.EACCES:
		out.Code = 126
	}
	return out
}

func logConfig(l task.Log) keeper.LogConfig {
	out := keeper.LogConfig{Path: l.Path, MaxBytes: l.MaxBytes, MaxFiles: l.MaxFiles}
	switch l.Format {
	case task.NoLog:
		return keeper.LogConfig{Driver: keeper.LogNone}
	case task.CRI:
		out.Driver = keeper.LogCRI
	default:
		out.Driver, out.Attributes = keeper.LogJSONFile, l.Attributes
	}
	return out
}

// namespaceFlags are the CLONE_NEW* of the namespaces that a configuration names.
func namespaceFlags(c *specs.Spec) (flags uint64) {
	if c.Linux == nil {
		return 0
	}
	for _, ns := range c.Linux.Namespaces {
		switch ns.Type {
		case specs.MountNamespace:
			flags |= unix.CLONE_NEWNS
		case specs.PIDNamespace:
			flags |= unix.CLONE_NEWPID
		case specs.IPCNamespace:
			flags |= unix.CLONE_NEWIPC
		case specs.UTSNamespace:
			flags |= unix.CLONE_NEWUTS
		case specs.NetworkNamespace:
			flags |= unix.CLONE_NEWNET
		case specs.CgroupNamespace:
			flags |= unix.CLONE_NEWCGROUP
		case specs.UserNamespace:
			flags |= unix.CLONE_NEWUSER
		case specs.TimeNamespace:
			flags |= unix.CLONE_NEWTIME
		}
	}
	return flags
}

// Record implements task.Task.
func (t *hostTask) Record() task.Record { return t.rec }

// Exec implements task.Task.
func (t *hostTask) Exec(ctx context.Context, x *task.Exec) (task.Process, error) {
	kp, err := t.current()
	if err != nil {
		return nil, err
	}
	entry, release, err := enter(t.group)
	if err != nil {
		return nil, err
	}
	defer release()
	opt := plan.ExecOptions{
		Options: plan.Options{
			Host: plan.Host{
				LastCap: t.h.cfg.Kernel.LastCap, Cgroup2: entry.Version2(),
				AppArmor: t.h.cfg.Kernel.AppArmor, SELinux: t.h.cfg.Kernel.SELinux,
			},
			Stdio: plan.Pipes,
		},
		Flags: t.rec.Namespaces,
	}
	p := newProcess(t.h, x.ID, t.owner, x.Exited)
	err = t.execIn(ctx, kp, p, x, opt, entry)
	if errors.Is(err, unix.EBUSY) && t.group != nil {
		// The first process has given controllers to groups below the task's.
		if below, done, found := t.group.EntryBy(kp.Pid); found == nil {
			defer done()
			err = t.execIn(ctx, kp, p, x, opt, below)
		}
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// execIn starts an exec in a group.
func (t *hostTask) execIn(
	ctx context.Context, kp *keeper.Process, p *process, x *task.Exec, opt plan.ExecOptions,
	entry launch.Entry,
) error {
	return kp.WithPidFD(func(fd int) error {
		// As a rule the first process can be joined by its pidfd, and that is found out by doing it.
		joint := leader.At(fd)
		for try := 1; ; try++ {
			err := t.execBy(ctx, p, x, opt, joint, entry)
			joint.Close()
			if err == nil || !leader.Lost(err) || try == joinTries {
				return err
			}
			first := leader.Process{Pid: kp.Pid, PidFD: fd}
			if joint, err = first.Join(opt.Flags); err != nil {
				return err
			}
		}
	})
}

// joinTries is how often an exec looks for a thread of the first process that it can join.
const joinTries = 5

// execBy starts an exec that joins the task's namespaces by joint.
func (t *hostTask) execBy(
	ctx context.Context, p *process, x *task.Exec, opt plan.ExecOptions, joint *leader.Joint,
	entry launch.Entry,
) error {
	filter, err := t.h.filters.get(x.Config)
	if err != nil {
		return err
	}
	opt.Filter = filter
	return t.h.start(ctx, p, &preparation{make: func() (*launch.Launch, *keeper.StartRequest, error) {
		proc := sized(x.Process, x.Width, x.Height)
		l, err := launch.Exec(x.Config, proc, opt, joint, entry)
		if err != nil {
			return nil, nil, err
		}
		req := &keeper.StartRequest{
			ID: x.ID, Owner: t.owner, Kind: keeper.KindExec, Note: t.id, Image: l.Encode(),
			Inputs: l.Inputs().Names(), CgroupFD: l.Born(),
			Stdio: keeper.Stdio{Mode: keeper.StdioPipes, Stdin: x.Stdin},
		}
		if x.Process.Terminal {
			req.Stdio = keeper.Stdio{Mode: keeper.StdioTTY, Width: x.Width, Height: x.Height}
		}
		for _, o := range x.Outputs {
			req.Attach = append(req.Attach, attachment(o))
		}
		return l, req, nil
	}})
}

// needGroup returns the group, or errdefs.ErrFailedPrecondition.
func (t *hostTask) needGroup() (task.Group, error) {
	if t.group == nil {
		return nil, fmt.Errorf(
			"task %q has no control group: %w", t.id, errdefs.ErrFailedPrecondition,
		)
	}
	return t.group, nil
}

// Pause implements task.Task.
func (t *hostTask) Pause(ctx context.Context) error {
	g, err := t.needGroup()
	if err != nil {
		return err
	}
	return g.Freeze(ctx)
}

// Resume implements task.Task.
func (t *hostTask) Resume(ctx context.Context) error {
	g, err := t.needGroup()
	if err != nil {
		return err
	}
	return g.Thaw(ctx)
}

// Update implements task.Task.
func (t *hostTask) Update(ctx context.Context, res *specs.LinuxResources) error {
	g, err := t.needGroup()
	if err != nil {
		return err
	}
	return g.Update(ctx, res)
}

// Pids implements task.Task.
func (t *hostTask) Pids() ([]int, error) {
	g, err := t.needGroup()
	if err != nil {
		return nil, err
	}
	return g.Pids()
}

// OOMKills implements task.Task.
func (t *hostTask) OOMKills() (uint64, error) {
	g, err := t.needGroup()
	if err != nil {
		return 0, err
	}
	return g.OOMKills()
}

// Stats implements task.Task.
func (t *hostTask) Stats(ctx context.Context) (task.Stats, error) {
	g, err := t.needGroup()
	if err != nil {
		return task.Stats{}, err
	}
	s, err := g.Stats()
	if err != nil {
		return task.Stats{}, err
	}
	s.Time = time.Now().UTC()
	if t.rec.Namespaces&unix.CLONE_NEWNET != 0 {
		if s.Networks, err = t.networkStats(); err != nil {
			return task.Stats{}, err
		}
	}
	return s, nil
}

// networkStats reads the interface counters of the task's namespace (proc_pid_net(5), dev).
func (t *hostTask) networkStats() (map[string]task.NetworkStats, error) {
	f, err := t.open("net/dev", unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("network statistics of task %q: %w", t.id, err)
	}
	return parseNetDev(raw)
}

// parseNetDev reads /proc/PID/net/dev. The loopback interface is left out.
func parseNetDev(raw []byte) (map[string]task.NetworkStats, error) {
	out := map[string]task.NetworkStats{}
	for sc := bufio.NewScanner(bytes.NewReader(raw)); sc.Scan(); {
		name, rest, ok := strings.Cut(sc.Text(), ":")
		name = strings.TrimSpace(name)
		f := strings.Fields(rest)
		if !ok || len(f) < 16 || name == "lo" {
			continue
		}
		var v [16]uint64
		for i := range v {
			var err error
			if v[i], err = strconv.ParseUint(f[i], 10, 64); err != nil {
				return nil, fmt.Errorf("net/dev, interface %s: %w", name, err)
			}
		}
		out[name] = task.NetworkStats{
			RxBytes: v[0], RxPackets: v[1], RxErrors: v[2], RxDropped: v[3],
			TxBytes: v[8], TxPackets: v[9], TxErrors: v[10], TxDropped: v[11],
		}
	}
	return out, nil
}

// open opens a file of the task's first process below /proc, of whichever of its threads has it.
func (t *hostTask) open(name string, flags int) (f *os.File, err error) {
	kp, err := t.current()
	if err != nil {
		return nil, err
	}
	err = kp.WithPidFD(func(fd int) (err error) {
		f, err = leader.Process{Pid: kp.Pid, PidFD: fd}.OpenFile(name, flags)
		return err
	})
	if errdefs.IsNotFound(err) {
		err = fmt.Errorf("task %q has ended: %w", t.id, errdefs.ErrFailedPrecondition)
	}
	return f, err
}

// ReadFile implements task.Task: below the root of the first process, and never outside of it
// (openat2(2), RESOLVE_IN_ROOT).
func (t *hostTask) ReadFile(name string, limit int) ([]byte, error) {
	root, err := t.open("root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readIn(root, name, limit)
}

// Namespace implements task.Task.
func (t *hostTask) Namespace(kind specs.LinuxNamespaceType) (*os.File, error) {
	name := map[specs.LinuxNamespaceType]string{
		specs.NetworkNamespace: "net", specs.MountNamespace: "mnt", specs.PIDNamespace: "pid",
		specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.UserNamespace: "user",
		specs.CgroupNamespace: "cgroup", specs.TimeNamespace: "time",
	}[kind]
	if name == "" {
		return nil, fmt.Errorf("namespace %q: %w", kind, errdefs.ErrInvalidArgument)
	}
	return t.open("ns/"+name, unix.O_RDONLY)
}

// ReopenLog implements task.Task.
func (t *hostTask) ReopenLog(ctx context.Context) error {
	return t.h.ask(ctx, func(k Keeper) error { return k.ReopenLog(ctx, t.id) })
}
