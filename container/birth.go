package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/container/launch"
	"strake/container/plan"
	"strake/container/program"
	"strake/container/spawn"
	"strake/internal/early"
	"strake/internal/rawfile"
)

// birth is one container being created.
type birth struct {
	rt    *Runtime
	opt   *CreateOptions
	spec  *specs.Spec
	host  *cgroup.Host
	c     *Container
	p     *Process
	group *cgroup.Group
	entry launch.Entry
	prog  *launch.Launch
	m     *spawn.Machine
	child *spawn.Child
	help  *assistant
	made  bool     // the state directory
	whole []string // plan.Host.Whole
}

// explain prints the program without making anything.
func (b *birth) explain() error {
	host, err := cgroup.Detect(b.rt.CgroupRoot)
	if err != nil {
		return err
	}
	b.host = host
	if err := b.findWhole(); err != nil {
		return err
	}
	b.c = &Container{rt: b.rt, spec: b.spec, rec: record{ID: b.opt.ID}}
	b.entry = launch.Nowhere()
	if host.Version() == 1 {
		if b.entersLate() {
			b.enterLate()
		} else {
			b.entry.Files = make([]int, host.Tasks())
		}
	}
	p, err := b.compile()
	if err != nil {
		return err
	}
	return p.Print(b.opt.Explain)
}

// run makes the container, in the order in which each thing needs the one before it.
func (b *birth) run(ctx context.Context) (err error) {
	if err := b.makeState(); err != nil {
		return err
	}
	b.rt.debug("container %q: state in %s", b.opt.ID, b.c.dir)
	if b.host, err = cgroup.Detect(b.rt.CgroupRoot); err != nil {
		return err
	}
	if b.m, err = spawn.New(); err != nil {
		return err
	}
	if err := b.makeGroup(); err != nil {
		return err
	}
	b.rt.debug("cgroup %s: made, version %d", b.c.rec.CgroupPath, b.host.Version())
	if err := b.prepare(); err != nil {
		return err
	}
	b.rt.debugPlan(b.prog.Plan())
	if err := b.clone(); err != nil {
		return err
	}
	b.rt.debug("process %d: cloned", b.child.Pid)
	return b.follow(ctx)
}

// makeState makes the state directory with the configuration.
func (b *birth) makeState() error {
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
	return rawfile.Replace(b.c.dir, configFile, raw, 0o600)
}

// findWhole looks for the host's procfs and sysfs where the plan needs to know.
func (b *birth) findWhole() error {
	if !b.opt.NoPivot {
		return nil
	}
	raw, err := rawfile.Read("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	root := ""
	if b.spec.Root != nil {
		root = filepath.Clean(b.spec.Root.Path)
	}
	b.whole = wholeMounts(raw, root)
	return nil
}

// prepare compiles the program and opens what it needs.
func (b *birth) prepare() (err error) {
	if err := b.findWhole(); err != nil {
		return err
	}
	if b.prog, err = launch.Init(b.m, b.spec, b.options(), b.entry); err != nil {
		return err
	}
	b.warnings(b.prog.Plan())
	if b.opt.Hold {
		if err := errors.Join(b.saveOptions(), b.listen()); err != nil {
			return err
		}
	}
	if s := b.opt.Stdio; s != nil {
		b.prog.Streams(int(s[0].Fd()), int(s[1].Fd()), int(s[2].Fd()))
	}
	return nil
}

// clone starts the child, and makes the groups that it enters late.
func (b *birth) clone() (err error) {
	req := b.prog.Request()
	if b.opt.breakImage != nil {
		req.Image = b.opt.breakImage(req.Image)
	}
	if b.child, err = b.m.Start(req); err != nil || !b.entry.Late {
		return err
	}
	if err := b.group.Finish(); err != nil {
		return err
	}
	// A child that has failed is not there to continue; follow hears why.
	if err := b.child.Continue(); err != nil && !errors.Is(err, unix.EPIPE) {
		return err
	}
	return nil
}

// entersLate says whether the child enters version 1 groups that are made while it mounts. One that
// acts in another user namespace, or becomes a process other than the one that is cloned, cannot;
// and groups that a mount shows have to exist before it is opened.
func (b *birth) entersLate() bool {
	return b.host.Version() == 1 && !b.foreign() && !b.showsGroups()
}

func (b *birth) enterLate() {
	b.entry.Tasks, b.entry.Late = b.host.TaskPaths(b.c.cgroupsPath()), true
}

// makeGroup makes the container's cgroups with their limits, or only begins to, if the child enters
// them late.
func (b *birth) makeGroup() (err error) {
	b.entry = launch.Nowhere()
	if err := b.host.Vacant(b.c.cgroupsPath()); err != nil {
		return err
	}
	create := b.host.Create
	if b.entersLate() {
		create = b.host.Begin
		b.enterLate()
	}
	b.group, err = create(b.c.cgroupsPath(), resources(b.spec), cgroup.CreateOptions{})
	if err != nil {
		return err
	}
	b.c.host, b.c.rec.CgroupPath = b.host, b.group.Path()
	join := b.group.Join()
	for _, f := range join.Tasks {
		b.entry.Files = append(b.entry.Files, int(f.Fd()))
	}
	if join.CloneInto != nil {
		b.entry.Born = int(join.CloneInto.Fd())
	}
	if b.entry.Late {
		b.entry.Root, err = openCgroups(b.host)
	}
	return err
}

// openCgroups opens the directory that the hierarchies are mounted in.
func openCgroups(h *cgroup.Host) (int, error) {
	fd, err := unix.Open(h.Root(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %q: %w", h.Root(), err)
	}
	return fd, nil
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

// options are what the plan depends on beside the configuration and the groups.
func (b *birth) options() plan.Options {
	opt := plan.Options{
		Host: hostFacts(b.host, b.hierarchies(), b.spec.Process),
		Hold: b.opt.Hold, Reaper: b.opt.Reaper, PreserveFDs: b.opt.PreserveFDs,
		NoPivot: b.opt.NoPivot, NoNewKeyring: b.opt.NoNewKeyring, Hooks: hasCreateHooks(b.spec),
		Assist: true, PlainTerminal: b.opt.PlainTerminal,
	}
	opt.Host.Whole = b.whole
	if b.opt.Stdio != nil {
		opt.Stdio = plan.Pipes
	}
	return opt
}

// compile plans the container without opening anything.
func (b *birth) compile() (*plan.Plan, error) {
	p, err := plan.Init(b.spec, b.entry.Options(b.options()))
	if err == nil {
		b.warnings(p)
	}
	return p, err
}

func (b *birth) warnings(p *plan.Plan) {
	for _, w := range p.Warnings {
		b.warn("%s", w)
	}
}

func (b *birth) warn(format string, args ...any) {
	if b.opt.Log != nil {
		b.opt.Log(format, args...)
	}
}

// listen makes the socket on which a created container waits to be started.
func (b *birth) listen() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	b.prog.Inputs().Own(plan.InputStart, fd)
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return fmt.Errorf("fchmod of a socket: %w", err)
	}
	return atStart(b.c.dir, func(name *unix.SockaddrUnix) error {
		if err := unix.Bind(fd, name); err != nil {
			return fmt.Errorf("bind %q: %w", filepath.Join(b.c.dir, startSocket), err)
		}
		return unix.Listen(fd, 8)
	})
}

// atStart calls f with a name of the socket in a state directory that is short enough for an address
// (unix(7)).
func atStart(stateDir string, f func(name *unix.SockaddrUnix) error) error {
	dir, err := unix.Open(stateDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", stateDir, err)
	}
	defer unix.Close(dir)
	return f(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, startSocket)})
}

// follow accompanies the child until its process executes or waits to be started.
func (b *birth) follow(ctx context.Context) error {
	defer context.AfterFunc(ctx, b.child.Interrupt)()
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
	help := b.assistant()
	defer help.close()
	for {
		m, err := b.child.Next()
		if err != nil {
			return b.prog.Explain(err)
		}
		if taken, err := help.take(ctx, m); err != nil {
			return err
		} else if taken {
			continue
		}
		if taken, err := b.c.receive(m, b.opt.Terminal); err != nil {
			return err
		} else if taken {
			continue
		}
		if err := record(); err != nil {
			return err
		}
		b.rt.debug("process %d: %s", b.child.Pid, stageText(m.Stage))
		switch m.Stage {
		case program.StageHooks:
			if err := b.c.createHooks(ctx, b.m, b.child); err != nil {
				return err
			}
			if err := b.child.Continue(); err != nil {
				return err
			}
		case program.StageReady: // it closes this channel before it waits
		case 0:
			b.p = &Process{Pid: b.child.Pid, PidFD: b.child.PidFD}
			return nil
		}
	}
}

// assistant is what helps the child.
func (b *birth) assistant() *assistant {
	b.help = &assistant{m: b.m, plan: b.prog.Plan(), child: b.child, first: -1}
	if b.spec.Linux != nil {
		b.help.devices = b.spec.Linux.NetDevices
	}
	return b.help
}

// receive takes over a descriptor that a child has sent, if it has: a terminal's master or a
// seccomp listener.
func (c *Container) receive(m spawn.Message, terminal func(*os.File) error) (bool, error) {
	switch m.Stage {
	case program.StageTTY:
		master := os.NewFile(uintptr(m.FD), "/dev/ptmx")
		if terminal == nil {
			master.Close()
			return true, fmt.Errorf(
				"process.terminal: CreateOptions.Terminal is not set: %w",
				errdefs.ErrInvalidArgument,
			)
		}
		return true, terminal(master)
	case program.StageSeccomp:
		return true, sendListener(c, m.FD)
	}
	return false, nil
}

// done releases what only the creation needed.
func (b *birth) done() {
	if b.prog != nil {
		b.prog.Close()
	}
	if b.entry.Root > 0 {
		unix.Close(b.entry.Root)
	}
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
	if b.help != nil {
		if err := b.help.giveBack(); err != nil {
			b.warn("linux.netDevices: %v", err)
		}
	}
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
