package container

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/container/launch"
	"strake/container/plan"
	"strake/container/spawn"
	"strake/internal/early"
)

// ExecOptions say how a process is added to a container.
type ExecOptions struct {
	Process *specs.Process
	// Cgroup is a group below the container's own; empty for that one.
	Cgroup      string
	PreserveFDs int
	// IgnorePaused lets the process be started in a frozen container, where it will not run until
	// that thaws.
	IgnorePaused bool
	// Terminal and Stdio: see CreateOptions.
	Terminal func(master *os.File) error
	Stdio    *[3]*os.File
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
			"cannot exec in container %q: it is paused: %w", c.rec.ID,
			errdefs.ErrFailedPrecondition,
		)
	}
	init, err := c.pidfd()
	if err != nil {
		return nil, err
	}
	defer unix.Close(init)
	host, err := c.cgroupHost()
	if err != nil {
		return nil, err
	}
	path := c.rec.CgroupPath
	if opt.Cgroup != "" {
		if path, err = cgroup.Below(path, opt.Cgroup); err != nil {
			return nil, err
		}
	}
	group, err := host.At(path)
	if err != nil {
		return nil, err
	}
	entry := launch.Nowhere()
	born, err := group.Birthplace()
	if err != nil {
		return nil, err
	}
	if born != nil {
		defer born.Close()
		entry.Born = int(born.Fd())
	}
	if host.Version() == 1 {
		entry.Tasks = host.TaskPaths(path)
		if entry.Root, err = openCgroups(host); err != nil {
			return nil, err
		}
		defer unix.Close(entry.Root)
	}
	po := plan.ExecOptions{
		Flags: c.joinable(),
		Options: plan.Options{
			Host: hostFacts(host, nil, opt.Process), PreserveFDs: opt.PreserveFDs,
		},
	}
	if opt.Stdio != nil {
		po.Stdio = plan.Pipes
	}
	l, err := launch.Exec(c.spec, opt.Process, po, init, entry)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if s := opt.Stdio; s != nil {
		l.Streams(int(s[0].Fd()), int(s[1].Fd()), int(s[2].Fd()))
	}
	m, err := spawn.New()
	if err != nil {
		return nil, err
	}
	defer m.Close()
	child, err := m.Start(l.Request())
	if err != nil {
		return nil, err
	}
	defer child.Release()
	defer context.AfterFunc(
		ctx, func() { unix.PidfdSendSignal(child.PidFD, unix.SIGKILL, nil, 0) },
	)()
	if err := c.followExec(child, l, &opt); err != nil {
		child.Kill()
		return nil, err
	}
	return &Process{Pid: child.Pid, PidFD: child.PidFD}, nil
}

// followExec accompanies the child until its process executes.
func (c *Container) followExec(child *spawn.Child, l *launch.Launch, opt *ExecOptions) error {
	early.Undo()
	for {
		m, err := child.Next()
		if err != nil {
			return l.Explain(err)
		}
		if m.Stage == 0 {
			return nil
		}
		if _, err := c.receive(m, opt.Terminal); err != nil {
			return err
		}
	}
}

// joinable are the namespaces of the container that a process joins. Joining one that one is in
// already does no harm, but for one's own user namespace, where it is an error (setns(2)).
func (c *Container) joinable() uint64 {
	flags := c.rec.Flags
	if flags&unix.CLONE_NEWUSER == 0 {
		return flags
	}
	theirs, err := os.Readlink("/proc/" + strconv.Itoa(c.rec.Pid) + "/ns/user")
	if err != nil {
		return flags
	}
	if ours, err := os.Readlink("/proc/self/ns/user"); err == nil && ours == theirs {
		flags &^= unix.CLONE_NEWUSER
	}
	return flags
}
