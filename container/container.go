// Package container runs containers from OCI runtime-spec configurations, without a daemon: it is
// what libcontainer is to runc.
//
// A Runtime is a directory of containers. Each container is a subdirectory with its configuration
// and its state; what a container is doing is asked of the kernel. A container is compiled into a
// program (package plan), which a raw child runs (package spawn) in cgroups that hold its limits
// before its first instruction (package cgroup).
//
// Not for: images, networks, logs, restarts: those are the engine's. Not a sandbox for a hostile
// kernel configuration: see docs/THREAT_MODEL.md.
//
// Methods that change a container must not run at the same time for one container; different
// containers are independent, also between processes.
package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/container/ocijson"
	"strake/container/plan"
	"strake/container/program"
	"strake/container/spawn"
	"strake/internal/early"
)

// Runtime is a directory of containers. It may be used by several goroutines at once.
type Runtime struct {
	// Root is the directory, by convention on a tmpfs. It is made if it is missing.
	Root string
	// CgroupRoot is where the host's cgroups are mounted; empty for /sys/fs/cgroup.
	CgroupRoot string
}

// Container is one container of a Runtime. Not for concurrent use.
type Container struct {
	rt   *Runtime
	host *cgroup.Host // once it is known
	dir  string
	rec  record
	spec *specs.Spec
}

// ID is the container's name.
func (c *Container) ID() string { return c.rec.ID }

// Pid is the container's first process in the caller's PID namespace; it may have ended.
func (c *Container) Pid() int { return c.rec.Pid }

// Bundle is the directory that the container was created from.
func (c *Container) Bundle() string { return c.rec.Bundle }

// Created is when the container was created.
func (c *Container) Created() time.Time { return c.rec.Created }

// Spec is the container's configuration. Not to be modified.
func (c *Container) Spec() *specs.Spec { return c.spec }

// Load finds a container. Errors: errdefs.ErrNotFound, errdefs.ErrInvalidArgument for an impossible
// id.
func (r *Runtime) Load(id string) (*Container, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	c, err := load(filepath.Join(r.Root, id), id)
	if err != nil {
		return nil, err
	}
	c.rt = r
	return c, nil
}

// List loads all containers, in the order of their names. Containers that vanish meanwhile are left
// out.
func (r *Runtime) List() ([]*Container, error) {
	entries, err := os.ReadDir(r.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []*Container
	for _, e := range entries {
		if !e.IsDir() || CheckID(e.Name()) != nil {
			continue
		}
		c, err := r.Load(e.Name())
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// ReadConfig reads a configuration. Errors name the file and are of class
// errdefs.ErrInvalidArgument if it is not one.
func ReadConfig(file string) (*specs.Spec, []byte, error) {
	raw, err := readFile(file)
	if err != nil {
		return nil, nil, classify(err)
	}
	spec := new(specs.Spec)
	if err := ocijson.Decode(raw, spec); err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %w", file, err, errdefs.ErrInvalidArgument)
	}
	return spec, raw, nil
}

// CreateOptions say how a container is created.
type CreateOptions struct {
	ID string
	// Bundle is the directory that relative paths of the configuration refer to.
	Bundle string
	Spec   *specs.Spec
	// Raw is the text of Spec, kept with the container; nil to have it encoded.
	Raw []byte
	// Hold creates the container without executing its process: Start does that, perhaps from
	// another process.
	Hold bool
	// PreserveFDs, NoPivot, NoNewKeyring: see plan.Options.
	PreserveFDs           int
	NoPivot, NoNewKeyring bool
	// Terminal is called with the master of the container's terminal, which becomes the callee's.
	Terminal func(master *os.File) error
	// Reaper puts a PID 1 in front of the process.
	Reaper bool
	// Stdio are the process's streams in place of the caller's own; nil to inherit those.
	Stdio *[3]*os.File
	// Explain, if not nil, receives the printed program instead of anything being created.
	Explain io.Writer
	// Log receives warnings.
	Log func(format string, args ...any)

	// breakImage lets tests break a program at a chosen operation.
	breakImage func(*program.Image) *program.Image
}

// Process is a running process of a container. Whoever started it reaps it.
type Process struct {
	Pid   int
	PidFD int
}

// Wait reaps the process. The status is a wait status (wait(2)).
func (p *Process) Wait() (unix.WaitStatus, error) {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(p.Pid, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for process %d: %w", p.Pid, err)
		}
		return ws, nil
	}
}

// Close releases the descriptor.
func (p *Process) Close() { unix.Close(p.PidFD) }

// Create makes a container, and, unless Hold is set, executes its process. On an error nothing of
// it remains. Errors are *plan.StepError where the kernel refused a step, else of the classes of
// errdefs.
func (r *Runtime) Create(
	ctx context.Context, opt CreateOptions,
) (_ *Container, _ *Process, err error) {
	if err := CheckID(opt.ID); err != nil {
		return nil, nil, err
	}
	spec := opt.Spec
	if spec.Root != nil && spec.Root.Path != "" && !filepath.IsAbs(spec.Root.Path) {
		root := *spec.Root
		root.Path = filepath.Join(opt.Bundle, root.Path)
		copied := *spec
		copied.Root = &root
		spec = &copied
	}
	b := &birth{rt: r, opt: &opt, spec: spec}
	if opt.Explain != nil {
		return nil, nil, b.explain()
	}
	defer func() {
		b.done()
		if err != nil {
			b.undo()
		}
	}()
	if err := b.run(ctx); err != nil {
		return nil, nil, err
	}
	return b.c, b.p, nil
}

// birth is one container being created.
type birth struct {
	rt    *Runtime
	opt   *CreateOptions
	spec  *specs.Spec
	host  *cgroup.Host
	c     *Container
	p     *Process
	group *cgroup.Group
	inst  Inputs
	m     *spawn.Machine
	plan  *plan.Plan
	child *spawn.Child
	made  bool     // the state directory
	tasks int      // cgroup v1 hierarchies to enter
	late  []string // or their files, if the groups are made while the child mounts
}

func (b *birth) explain() error {
	host, err := cgroup.Detect(b.rt.CgroupRoot)
	if err != nil {
		return err
	}
	b.host = host
	b.c = &Container{rt: b.rt, spec: b.spec, rec: record{ID: b.opt.ID}}
	tasks := host.Tasks()
	if b.host.Version() == 1 && !b.foreign() && !b.showsGroups() {
		tasks, b.late = 0, b.host.TaskPaths(b.c.cgroupsPath())
	}
	if err := b.compile(tasks, b.hierarchies()); err != nil {
		return err
	}
	return b.plan.Print(b.opt.Explain)
}

func (b *birth) run(ctx context.Context) error {
	raw := b.opt.Raw
	if raw == nil {
		var err error
		if raw, err = json.Marshal(b.opt.Spec); err != nil {
			return err
		}
	}
	b.c = &Container{rt: b.rt, dir: filepath.Join(b.rt.Root, b.opt.ID), spec: b.spec, rec: record{
		Version: stateVersion, OCIVersion: b.spec.Version, ID: b.opt.ID, Bundle: b.opt.Bundle,
		Created:     time.Now().UTC(),
		Annotations: b.spec.Annotations,
	}}
	if b.spec.Root != nil {
		b.c.rec.Rootfs = b.spec.Root.Path
	}
	err := unix.Mkdir(b.c.dir, 0o700)
	if err == unix.ENOENT {
		if err := os.MkdirAll(b.rt.Root, 0o711); err != nil {
			return err
		}
		err = unix.Mkdir(b.c.dir, 0o700)
	}
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("container %q exists already: %w", b.opt.ID, errdefs.ErrAlreadyExists)
		}
		return &fs.PathError{Op: "mkdir", Path: b.c.dir, Err: err}
	}
	b.made = true
	if err := writeFile(b.c.dir, configFile, raw); err != nil {
		return err
	}
	if b.host, err = cgroup.Detect(b.rt.CgroupRoot); err != nil {
		return err
	}
	if b.m, err = spawn.New(); err != nil {
		return err
	}
	if b.host.Version() == 1 && !b.foreign() && !b.showsGroups() {
		b.late = b.host.TaskPaths(b.c.cgroupsPath())
	}
	if err := b.makeGroup(); err != nil {
		return err
	}
	join := b.group.Join()
	b.tasks = len(join.Tasks)
	if err := b.compile(b.tasks, b.hierarchies()); err != nil {
		return err
	}
	for i, f := range join.Tasks {
		b.inst.Add(plan.InputTasks+strconv.Itoa(i), int(f.Fd()))
	}
	if b.late != nil {
		if err := b.inst.openCgroups(b.host); err != nil {
			return err
		}
	}
	if err := b.inst.Open(b.m, b.plan); err != nil {
		return err
	}
	if b.opt.Hold {
		if err := errors.Join(b.saveOptions(), b.fifos()); err != nil {
			return err
		}
	}
	if s := b.opt.Stdio; s != nil {
		b.inst.Add(plan.InputStdin, int(s[0].Fd()))
		b.inst.Add(plan.InputStdout, int(s[1].Fd()))
		b.inst.Add(plan.InputStderr, int(s[2].Fd()))
	}
	img := b.plan.Image()
	if b.opt.breakImage != nil {
		img = b.opt.breakImage(img)
	}
	into := -1
	if join.CloneInto != nil {
		into = int(join.CloneInto.Fd())
	}
	b.child, err = b.m.Start(&spawn.Request{
		Image: img, Input: b.inst.Get, CgroupFD: into,
		UIDMap: idMap(b.plan.UIDMap), GIDMap: idMap(b.plan.GIDMap), TimeOffsets: b.plan.TimeOffsets,
	})
	if err != nil {
		return err
	}
	if b.late != nil {
		if err := b.group.Finish(); err != nil {
			return err
		}
		// A child that has failed is not there to continue; follow hears why.
		if err := b.child.Continue(); err != nil && !errors.Is(err, unix.EPIPE) {
			return err
		}
	}
	return b.follow(ctx)
}

// makeGroup makes the container's cgroups with their limits, or only begins to, if the child enters
// them late.
func (b *birth) makeGroup() (err error) {
	create := b.host.Create
	if b.late != nil {
		create = b.host.Begin
	}
	b.group, err = create(b.c.cgroupsPath(), resources(b.spec), cgroup.CreateOptions{})
	if err == nil {
		b.c.host, b.c.rec.CgroupPath = b.host, b.group.Path()
	}
	return err
}

// showsGroups says whether a mount is of the groups themselves, as without a cgroup namespace it
// is: they have to exist before it is opened.
func (b *birth) showsGroups() bool {
	if b.spec.Linux == nil {
		return false
	}
	for _, ns := range b.spec.Linux.Namespaces {
		if ns.Type == specs.CgroupNamespace && ns.Path == "" {
			return false
		}
	}
	return slices.ContainsFunc(b.spec.Mounts, func(m specs.Mount) bool {
		return m.Type == "cgroup" || m.Type == "cgroup2"
	})
}

// foreign says whether the child acts in another user namespace or becomes a process other than the
// one that is cloned.
func (b *birth) foreign() bool {
	if b.c.twoStages() {
		return true
	}
	return namespaceFlags(b.spec)&unix.CLONE_NEWUSER != 0
}

// compile plans the container.
func (b *birth) compile(tasks int, hier []plan.Hierarchy) (err error) {
	opt := plan.Options{
		Host:  hostFacts(b.host, hier, b.spec.Process),
		Tasks: tasks, TaskPaths: b.late, Hold: b.opt.Hold, Reaper: b.opt.Reaper,
		PreserveFDs: b.opt.PreserveFDs,
		NoPivot:     b.opt.NoPivot, NoNewKeyring: b.opt.NoNewKeyring, Hooks: hasCreateHooks(b.spec),
	}
	if b.opt.Stdio != nil {
		opt.Stdio = plan.Pipes
	}
	if b.plan, err = plan.Init(b.spec, opt); err != nil {
		return err
	}
	for _, w := range b.plan.Warnings {
		b.warn("%s", w)
	}
	return nil
}

func (b *birth) warn(format string, args ...any) {
	if b.opt.Log != nil {
		b.opt.Log(format, args...)
	}
}

// fifos makes the two FIFOs on which a created container waits and reports.
func (b *birth) fifos() error {
	for _, f := range []struct{ name, input string }{
		{startFIFO, plan.InputStart}, {statusFIFO, plan.InputStatus},
	} {
		path := filepath.Join(b.c.dir, f.name)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return fmt.Errorf("mkfifo %q: %w", path, err)
		}
		flags := unix.O_RDWR
		if f.name == statusFIFO {
			// Its reader learns of execve by the end of file, so the child must be the only writer
			// and not a reader. Opening for writing needs a reader for a moment.
			r, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open %q: %w", path, err)
			}
			defer unix.Close(r)
			flags = unix.O_WRONLY
		}
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %q: %w", path, err)
		}
		b.inst.own(f.input, fd)
	}
	return nil
}

// follow accompanies the child until its process executes or waits to be started.
func (b *birth) follow(ctx context.Context) error {
	defer context.AfterFunc(
		ctx, func() { unix.PidfdSendSignal(b.child.PidFD, unix.SIGKILL, nil, 0) },
	)()
	recorded := false
	record := func() error {
		if recorded && b.c.rec.Pid == b.child.Pid {
			return nil
		}
		recorded = true
		_, start, err := procStat(b.child.Pid)
		if err != nil {
			return err
		}
		b.c.rec.Pid, b.c.rec.PidStart = b.child.Pid, start
		b.c.rec.Flags = namespaceFlags(b.spec)
		return b.c.save()
	}
	// While the child mounts, there is time to write down that it exists, and to be a process like
	// others again.
	early.Undo()
	if !b.c.twoStages() {
		if err := record(); err != nil {
			return err
		}
	}
	for {
		m, err := b.child.Next()
		if err != nil {
			return b.failure(err)
		}
		switch m.Stage {
		case program.StageTTY:
			master := os.NewFile(uintptr(m.FD), "/dev/ptmx")
			if b.opt.Terminal == nil {
				master.Close()
				return fmt.Errorf(
					"process.terminal: nobody takes the terminal: %w", errdefs.ErrInvalidArgument,
				)
			}
			if err := b.opt.Terminal(master); err != nil {
				return err
			}
			continue
		case program.StageSeccomp:
			if err := sendListener(b.c, m.FD); err != nil {
				return err
			}
			continue
		}
		if err := record(); err != nil {
			return err
		}
		switch m.Stage {
		case program.StageHooks:
			if err := b.c.createHooks(ctx, b.m, b.child); err != nil {
				return err
			}
			if err := b.child.Continue(); err != nil {
				return err
			}
		case program.StageReady:
			b.p = &Process{Pid: b.child.Pid, PidFD: b.child.PidFD}
			return nil
		case 0:
			b.p = &Process{Pid: b.child.Pid, PidFD: b.child.PidFD}
			return nil
		}
	}
}

// failure turns what the child reported into an error in the words of the configuration.
func (b *birth) failure(err error) error {
	var f *spawn.Failure
	if errors.As(err, &f) {
		return plan.Explain(b.plan.Program, f.Index, f.Errno)
	}
	return err
}

// done releases what only the creation needed.
func (b *birth) done() {
	b.inst.Close()
	if b.child != nil {
		b.child.Release()
	}
	if b.m != nil {
		b.m.Close()
	}
	if b.group != nil {
		b.group.Close()
	}
}

// undo removes what was made.
func (b *birth) undo() {
	if b.child != nil {
		b.child.Kill()
	}
	if b.host != nil && b.c != nil && b.c.rec.CgroupPath != "" {
		if g, err := b.host.At(b.c.rec.CgroupPath); err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if err := g.Remove(ctx); err != nil {
				b.warn("remove cgroup %q: %v", b.c.rec.CgroupPath, err)
			}
			g.Close()
		}
	}
	if b.made {
		if removeState(b.c.dir) != nil {
			os.RemoveAll(b.c.dir)
		}
	}
}

// optionsFile holds those options of a held container's creation that its program depends on.
const optionsFile = "options.json"

type savedOptions struct {
	Tasks        int  `json:"tasks"`
	Late         bool `json:"late,omitempty"`
	PreserveFDs  int  `json:"preserveFDs,omitempty"`
	NoPivot      bool `json:"noPivot,omitempty"`
	NoNewKeyring bool `json:"noNewKeyring,omitempty"`
	Reaper       bool `json:"reaper,omitempty"`
	Pipes        bool `json:"pipes,omitempty"`
}

func (b *birth) saveOptions() error {
	raw, err := json.Marshal(savedOptions{
		Tasks: b.tasks, Late: b.late != nil, PreserveFDs: b.opt.PreserveFDs, NoPivot: b.opt.NoPivot,
		NoNewKeyring: b.opt.NoNewKeyring,
		Reaper:       b.opt.Reaper, Pipes: b.opt.Stdio != nil,
	})
	if err != nil {
		return err
	}
	return writeFile(b.c.dir, optionsFile, raw)
}

func (b *birth) restoreOptions(raw []byte) error {
	var s savedOptions
	if err := ocijson.Decode(raw, &s); err != nil {
		return err
	}
	b.tasks = s.Tasks
	if s.Late {
		b.late = b.host.TaskPaths(b.c.cgroupsPath())
	}
	b.opt.Hold, b.opt.PreserveFDs, b.opt.NoPivot, b.opt.NoNewKeyring, b.opt.Reaper = true, s.PreserveFDs, s.NoPivot, s.NoNewKeyring, s.Reaper
	if s.Pipes {
		b.opt.Stdio = new([3]*os.File)
	}
	return nil
}
