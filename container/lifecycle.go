package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/container/plan"
	"strake/container/spawn"
	"strake/internal/rawfile"
)

func (c *Container) cgroupHost() (_ *cgroup.Host, err error) {
	if c.host == nil {
		c.host, err = cgroup.Detect(c.rt.CgroupRoot)
	}
	return c.host, err
}

// group is the container's cgroup, which may be gone.
func (c *Container) group() (*cgroup.Group, error) {
	host, err := c.cgroupHost()
	if err != nil {
		return nil, err
	}
	path := c.rec.CgroupPath
	if path == "" {
		path = c.cgroupsPath()
	}
	return host.At(path)
}

// need checks that the container is in one of the given states. Errors are of class
// errdefs.ErrFailedPrecondition.
func (c *Container) need(verb string, want ...specs.ContainerState) (specs.ContainerState, error) {
	got, err := c.Status()
	if err != nil {
		return got, err
	}
	for _, w := range want {
		if got == w {
			return got, nil
		}
	}
	return got, fmt.Errorf(
		"cannot %s container %q: it is %s: %w", verb, c.rec.ID, got, errdefs.ErrFailedPrecondition,
	)
}

// Start executes the process of a created container and returns when it runs. A process that cannot
// be executed is a *plan.StepError, and the container is stopped then. If a hook fails the
// container is deleted (runtime-spec runtime.md, Lifecycle, steps 7, 9 and 12).
func (c *Container) Start(ctx context.Context) error {
	if _, err := c.need("start", specs.StateCreated); err != nil {
		return err
	}
	pidfd, err := c.pidfd()
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	if err := startHooks(ctx, c, pidfd); err != nil {
		return errors.Join(err, c.Delete(ctx, true))
	}
	if err := c.release(ctx); err != nil {
		return err
	}
	if err := c.Poststart(ctx); err != nil {
		return errors.Join(err, c.Delete(ctx, true))
	}
	return nil
}

// startHooks runs the startContainer hooks. If one fails the waiting process is killed.
func startHooks(ctx context.Context, c *Container, pidfd int) error {
	if !hasStartHooks(c.spec) {
		return nil
	}
	for i := range c.spec.Hooks.StartContainer {
		h := &c.spec.Hooks.StartContainer[i]
		if err := startHook(ctx, c, h); err != nil {
			unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
			return fmt.Errorf("%s: %w", hookField("startContainer", i, h), err)
		}
	}
	return nil
}

// release lets the waiting process go on and hears how that went.
func (c *Container) release(ctx context.Context) error {
	conn, err := c.connectStart()
	if err != nil {
		return err
	}
	child := spawn.Resume(c.rec.Pid, -1, conn)
	defer child.Release()
	// Of two that start at the same time, the one that removes the socket does it.
	if err := os.Remove(filepath.Join(c.dir, startSocket)); err != nil {
		return fmt.Errorf(
			"cannot start container %q: it has been started: %w", c.rec.ID,
			errdefs.ErrFailedPrecondition,
		)
	}
	err = retry(func() error { return unix.Send(conn, []byte{1}, unix.MSG_NOSIGNAL) })
	if errors.Is(err, unix.EPIPE) {
		return endedEarly(c.rec.ID)
	}
	if err != nil {
		return fmt.Errorf("release container %q: %w", c.rec.ID, err)
	}
	defer context.AfterFunc(ctx, func() { unix.Shutdown(conn, unix.SHUT_RDWR) })()
	for {
		m, err := child.Next()
		var failure *spawn.Failure
		switch {
		case errors.As(err, &failure):
			return c.startFailure(failure)
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("learn how the start of container %q went: %w", c.rec.ID, err)
		case m.Stage == 0:
			c.rt.debug("process %d: executes", c.rec.Pid)
			return nil
		}
		if _, err := c.receive(m, nil); err != nil {
			return err
		}
	}
}

// connectStart connects to the process that waits to be started.
func (c *Container) connectStart() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = atStart(c.dir, func(name *unix.SockaddrUnix) error {
		return retry(func() error { return unix.Connect(fd, name) })
	})
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		err = endedEarly(c.rec.ID)
	case err != nil:
		err = fmt.Errorf("connect to container %q: %w", c.rec.ID, err)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func endedEarly(id string) error {
	return fmt.Errorf(
		"container %q has ended before it was started: %w", id, errdefs.ErrFailedPrecondition,
	)
}

// startFailure explains a failure behind the point at which the container was held: the program is
// compiled again to know which operation it was.
func (c *Container) startFailure(f *spawn.Failure) error {
	host, err := c.cgroupHost()
	if err != nil {
		return err
	}
	spec := complete(c.spec, c.rec.Bundle)
	b := &birth{rt: c.rt, opt: &CreateOptions{ID: c.rec.ID}, spec: spec, host: host, c: c}
	raw, err := rawfile.Read(filepath.Join(c.dir, optionsFile))
	if err == nil {
		err = b.restoreOptions(raw)
	}
	if err != nil {
		return fmt.Errorf("process.args: %w", f.Errno)
	}
	p, err := b.compile()
	if err != nil {
		return err
	}
	return plan.Explain(p.Program, f.Index, f.Errno)
}

// Kill sends a signal to the container's first process, or to all of its processes. Errors:
// errdefs.ErrFailedPrecondition if it is not running; all of none is no error.
//
// SIGKILL reaches all processes in any case: where the end of the first one is not the end of the
// others, because the PID namespace is not the container's own, those of its group are killed, also
// when the first one has ended before.
func (c *Container) Kill(ctx context.Context, sig unix.Signal, all bool) error {
	g, err := c.group()
	if err != nil {
		return err
	}
	defer g.Close()
	if all {
		return g.Kill(ctx, sig)
	}
	fd, err := c.pidfd()
	if err == nil {
		defer unix.Close(fd)
	}
	if sig == unix.SIGKILL && !c.ownsPids() {
		if pids, perr := g.Pids(cgroup.Recursive); perr == nil && len(pids) > 0 {
			c.rt.debug("cgroup %s: %d processes killed", g.Path(), len(pids))
			return g.Kill(ctx, sig)
		}
	}
	if err != nil {
		// The words are those by which engines tell this from other errors.
		return fmt.Errorf(
			"cannot kill container %q: container not running: %w", c.rec.ID,
			errdefs.ErrFailedPrecondition,
		)
	}
	if ends(sig) && c.waits() {
		// The first process of a PID namespace ignores what it has no handler for
		// (pid_namespaces(7)), and before it is started the container's has none.
		sig = unix.SIGKILL
	}
	c.rt.debug("process %d: signal %d", c.rec.Pid, int(sig))
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		return fmt.Errorf("send %s to container %q: %w", unix.SignalName(sig), c.rec.ID, err)
	}
	if sig == unix.SIGKILL {
		// On version 1 a frozen process is killed only when it thaws.
		if frozen, err := g.Frozen(); err == nil && frozen {
			return g.Thaw(ctx)
		}
	}
	return nil
}

// ends says whether a signal is one by which programs are asked to end.
func ends(sig unix.Signal) bool {
	switch sig {
	case unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM:
		return true
	}
	return false
}

// waits says whether the container's process is created and not started.
func (c *Container) waits() bool {
	_, err := os.Stat(filepath.Join(c.dir, startSocket))
	return err == nil
}

// Pause freezes all processes of the container.
func (c *Container) Pause(ctx context.Context) error {
	if _, err := c.need("pause", specs.StateRunning, specs.StateCreated); err != nil {
		return err
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	defer g.Close()
	return g.Freeze(ctx)
}

// Resume thaws them.
func (c *Container) Resume(ctx context.Context) error {
	if _, err := c.need("resume", StatePaused); err != nil {
		return err
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	defer g.Close()
	return g.Thaw(ctx)
}

// Update changes limits of a container that has processes.
func (c *Container) Update(res *specs.LinuxResources) error {
	if _, err := c.need("update", specs.StateRunning, specs.StateCreated, StatePaused); err != nil {
		return err
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	defer g.Close()
	return g.Update(res)
}

// Pids lists the container's processes in the caller's PID namespace.
func (c *Container) Pids() ([]int, error) {
	g, err := c.group()
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return g.Pids(cgroup.Recursive)
}

// Stats reads the container's use of resources.
func (c *Container) Stats() (*cgroup.Stats, error) {
	g, err := c.group()
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return g.Stats()
}

// Delete removes a stopped container with its cgroup. With force it is killed first, whatever it
// does. Errors: errdefs.ErrFailedPrecondition if it runs.
func (c *Container) Delete(ctx context.Context, force bool) error {
	if !force {
		if status, err := c.Status(); err != nil {
			return err
		} else if !deletable(status) {
			return fmt.Errorf(
				"cannot delete container %q: it is %s, not stopped: %w", c.rec.ID, status,
				errdefs.ErrFailedPrecondition,
			)
		}
	}
	g, err := c.group()
	if err == nil {
		defer g.Close()
		if err := c.endAll(ctx, g); err != nil {
			return err
		}
		if err := g.Remove(ctx); err != nil {
			return err
		}
		c.rt.debug("cgroup %s: removed", g.Path())
	} else if !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	if c.spec != nil && c.spec.Hooks != nil {
		c.poststop(ctx)
	}
	if removeState(c.dir) == nil {
		return nil
	}
	return os.RemoveAll(c.dir)
}

// deletable says whether Delete takes a container without force. One that is being created is
// deletable because its creator may have been killed.
func deletable(status specs.ContainerState) bool {
	switch status {
	case specs.StateStopped, specs.StateCreated, specs.StateCreating:
		return true
	}
	return false
}

// poststop runs all poststop hooks. That one fails is a warning (runtime-spec runtime.md,
// Lifecycle): the container is gone.
func (c *Container) poststop(ctx context.Context) {
	state := c.ociState(specs.StateStopped, 0)
	for i := range c.spec.Hooks.Poststop {
		h := &c.spec.Hooks.Poststop[i]
		err := runHook(ctx, c.rec.Bundle, hookField("poststop", i, h), h, state)
		if err != nil && c.rt.Log != nil {
			c.rt.Log("%v", err)
		}
	}
}

// endAll kills what is left of the container.
func (c *Container) endAll(ctx context.Context, g *cgroup.Group) error {
	fd, err := c.pidfd()
	if err == nil {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		unix.Close(fd)
	} else if c.ownsPids() {
		return nil // its processes ended with the first one (pid_namespaces(7))
	}
	return g.Kill(ctx, unix.SIGKILL)
}

// ownsPids says whether the container has a PID namespace that was made for it.
func (c *Container) ownsPids() bool {
	if c.spec == nil || c.spec.Linux == nil {
		return false
	}
	for _, ns := range c.spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			return ns.Path == ""
		}
	}
	return false
}

// Poststart runs the poststart hooks of a container that was created without Hold. If one fails the
// container's process is killed, as runc does.
func (c *Container) Poststart(ctx context.Context) error {
	if c.spec.Hooks == nil {
		return nil
	}
	err := runHooks(
		ctx, c.rec.Bundle, "poststart", c.spec.Hooks.Poststart,
		c.ociState(specs.StateRunning, c.rec.Pid),
	)
	if err == nil {
		return nil
	}
	if fd, perr := c.pidfd(); perr == nil {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		unix.Close(fd)
	}
	return err
}

// OOMCount is how often the kernel ended a process of the container for want of memory.
func (c *Container) OOMCount() (int, error) {
	g, err := c.group()
	if err != nil {
		return 0, err
	}
	defer g.Close()
	return g.OOMCount()
}
