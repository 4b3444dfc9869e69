package container

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/container/launch"
	"strake/container/leader"
	"strake/container/plan"
	"strake/container/spawn"
	"strake/internal/early"
)

// ExecOptions say how a process is added to a container.
type ExecOptions struct {
	Process *specs.Process
	// Cgroups are groups below the container's own by controller, with "" for all controllers; nil
	// for the container's own.
	Cgroups     map[string]string
	PreserveFDs int
	// IgnorePaused lets the process be started in a frozen container, where it will not run until
	// that thaws.
	IgnorePaused bool
	// Terminal, PlainTerminal and Stdio: see CreateOptions.
	Terminal      func(master *os.File) error
	PlainTerminal bool
	Stdio         *[3]*os.File
	// Log receives warnings.
	Log func(format string, args ...any)

	// executable is the program of a hook, whatever the first argument says.
	executable string
}

// Exec executes one more process in a running container. Errors: *plan.StepError,
// errdefs.ErrFailedPrecondition if the container is not running.
func (c *Container) Exec(ctx context.Context, opt ExecOptions) (_ *Process, err error) {
	status, err := c.need("exec in", specs.StateRunning, specs.StateCreated, StatePaused)
	if err != nil {
		return nil, err
	}
	if status == StatePaused && !opt.IgnorePaused {
		return nil, fmt.Errorf(
			"cannot exec in a paused container: %q: %w", c.rec.ID,
			errdefs.ErrFailedPrecondition,
		)
	}
	init, err := c.pidfd()
	if err != nil {
		return nil, err
	}
	defer unix.Close(init)
	if opt.Process != nil {
		proc := *opt.Process
		proc.Env = environ(proc.Env, func() string { return c.home(init, proc.User.UID) })
		opt.Process = &proc
	}
	e := &execution{c: c, opt: &opt, entry: launch.Nowhere()}
	defer e.close()
	if err := e.enter(); err != nil {
		return nil, err
	}
	flags := c.joinable(init)
	if e.m, err = spawn.New(); err != nil {
		return nil, err
	}
	defer e.m.Close()
	// As a rule the first process can be joined by its pidfd, and that is found out by doing it.
	joint := leader.At(init)
	for try := 1; ; try++ {
		p, err := e.run(ctx, joint, flags)
		joint.Close()
		if err == nil || !leader.Lost(err) || try == joinTries {
			return p, err
		}
		if joint, err = c.process(init).Join(flags); err != nil {
			return nil, fmt.Errorf("exec in container %q: %w", c.rec.ID, err)
		}
	}
}

// home is the home directory of a user in the running container.
func (c *Container) home(init int, uid uint32) string {
	root, err := c.process(init).OpenRoot()
	if err != nil {
		return "/"
	}
	defer root.Close()
	return homeOf(openBelow(int(root.Fd()), "etc/passwd"), uid)
}

// joinTries bounds how often the thread by which a container is joined may have ended meanwhile.
const joinTries = 20

// execution is one process being added to a container.
type execution struct {
	c     *Container
	opt   *ExecOptions
	host  *cgroup.Host
	entry launch.Entry
	born  *os.File
	m     *spawn.Machine
}

// enter finds the groups that the process enters.
func (e *execution) enter() (err error) {
	if e.host, err = e.c.cgroupHost(); err != nil {
		return err
	}
	path, tasks := e.c.rec.CgroupPath, []string(nil)
	if len(e.opt.Cgroups) > 0 {
		if path, tasks, err = e.host.Sub(path, e.opt.Cgroups); err != nil {
			return err
		}
	} else if e.host.Version() == 1 {
		tasks = e.host.TaskPaths(path)
	}
	group, err := e.host.At(path)
	if err != nil {
		return err
	}
	if e.born, err = group.Birthplace(); err != nil {
		return err
	}
	if e.born != nil {
		e.entry.Born = int(e.born.Fd())
	}
	if e.host.Version() == 1 {
		e.entry.Tasks = tasks
		e.entry.Root, err = openCgroups(e.host)
	}
	return err
}

func (e *execution) close() {
	if e.born != nil {
		e.born.Close()
	}
	if e.entry.Root >= 0 {
		unix.Close(e.entry.Root)
	}
}

// run starts the process and accompanies it until it executes.
func (e *execution) run(ctx context.Context, init *leader.Joint, flags uint64) (*Process, error) {
	opt := plan.ExecOptions{
		Flags: flags, Executable: e.opt.executable,
		Options: plan.Options{
			Host: hostFacts(e.host, nil, e.opt.Process), PreserveFDs: e.opt.PreserveFDs,
			PlainTerminal: e.opt.PlainTerminal,
		},
	}
	if e.opt.Stdio != nil {
		opt.Stdio = plan.Pipes
	}
	l, err := launch.Exec(e.c.spec, e.opt.Process, opt, init, e.entry)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if e.opt.Log != nil {
		for _, w := range l.Plan().Warnings {
			e.opt.Log("%s", w)
		}
		e.opt.Log = nil // once, however often this is tried
	}
	if s := e.opt.Stdio; s != nil {
		l.Streams(int(s[0].Fd()), int(s[1].Fd()), int(s[2].Fd()))
	}
	e.c.rt.debugPlan(l.Plan())
	child, err := e.m.Start(l.Request())
	if err != nil {
		return nil, err
	}
	e.c.rt.debug("process %d: cloned, joins container %q", child.Pid, e.c.rec.ID)
	defer child.Release()
	defer context.AfterFunc(ctx, child.Interrupt)()
	if err := e.follow(child, l); err != nil {
		child.Kill()
		return nil, err
	}
	return &Process{Pid: child.Pid, PidFD: child.PidFD}, nil
}

func (e *execution) follow(child *spawn.Child, l *launch.Launch) error {
	early.Undo()
	for {
		m, err := child.Next()
		if err != nil {
			return l.Explain(err)
		}
		e.c.rt.debug("process %d: %s", child.Pid, stageText(m.Stage))
		if m.Stage == 0 {
			return nil
		}
		if _, err := e.c.receive(m, e.opt.Terminal); err != nil {
			return err
		}
	}
}

// joinable are the namespaces of the container that a process joins. Joining one that one is in
// already does no harm, but for one's own user namespace, where it is an error (setns(2)).
func (c *Container) joinable(init int) uint64 {
	flags := c.rec.Flags
	if flags&unix.CLONE_NEWUSER == 0 {
		return flags
	}
	theirs, err := c.process(init).Readlink("ns/user")
	if err != nil {
		return flags
	}
	if ours, err := os.Readlink("/proc/self/ns/user"); err == nil && ours == theirs {
		flags &^= unix.CLONE_NEWUSER
	}
	return flags
}
