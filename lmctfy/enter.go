package lmctfy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
)

// Enter moves threads into the container. An error leaves the thread that it is about where it was,
// and those before it in the container. Errors: errdefs.ErrNotFound for a thread or a container
// that is gone, errdefs.ErrFailedPrecondition if the kernel does not take the thread.
func (c *Container) Enter(tids []int) error {
	for _, tid := range tids {
		if _, err := c.move(tid, (*cgroup.Group).EnterThread); err != nil {
			return fmt.Errorf("container %q: %w", c.name, err)
		}
	}
	return nil
}

// move moves one task into the container's groups. In the trees of resources that no container
// above isolates either, a task stays where it is, unless it is in the group of another container.
// back moves the task to where it was; an error has done so.
func (c *Container) move(
	id int, enter func(*cgroup.Group, int) error,
) (back func() error, err error) {
	var from []*cgroup.Group
	back = func() (err error) {
		for _, g := range slices.Backward(from) {
			err = errors.Join(err, enter(g, id))
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, back())
		}
	}()
	trees := c.m.trees
	if !trees[0].anchor {
		trees = append([]*tree{c.m.anchor}, trees...)
	}
	for _, t := range trees {
		now, err := t.Of(id)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("task %d: it does not exist: %w", id, errdefs.ErrNotFound)
		}
		if err != nil {
			return back, err
		}
		target, elsewhere, err := c.target(t)
		if err != nil {
			return back, err
		}
		if p := "/" + strings.TrimPrefix(target.Path(), "/"); p == now ||
			elsewhere && !c.m.contains(t, now) {
			continue
		}
		g, err := t.at(now)
		if err == nil {
			err = enter(target, id)
		}
		if err != nil {
			return back, err
		}
		from = append(from, g)
	}
	return back, nil
}

// target is the group that the container's tasks have in a tree. elsewhere says that neither the
// container nor one above it isolates the resource.
func (c *Container) target(t *tree) (g *cgroup.Group, elsewhere bool, err error) {
	if t.anchor {
		own, err := c.own()
		if err != nil {
			return nil, false, err
		}
		return own[len(own)-1], false, nil
	}
	p, _, _ := c.m.find(t, c.name)
	g, err = t.at(p)
	return g, p == c.m.base, err
}

// contains says whether a path in the tree of a resource is the group of a container.
func (m *Machine) contains(t *tree, p string) bool {
	n, ok := m.nameOf(t, p)
	return ok && m.path(n) != m.base && m.anchor.exists(m.path(n))
}

// Command finds the program of a command, whose first word is looked for in PATH. Errors:
// errdefs.ErrNotFound, errdefs.ErrPermissionDenied, and errdefs.ErrInvalidArgument for no command.
func Command(argv []string) (file string, err error) {
	if len(argv) == 0 || argv[0] == "" {
		return "", fmt.Errorf("the command is empty: %w", errdefs.ErrInvalidArgument)
	}
	file, err = exec.LookPath(argv[0])
	switch {
	case err == nil, errors.Is(err, exec.ErrDot):
		return file, nil
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("command %q: %w", argv[0], errdefs.ErrPermissionDenied)
	}
	return "", fmt.Errorf("command %q: %w", argv[0], errdefs.ErrNotFound)
}

// Exec moves this process into the container and replaces it by a command, which begins when the
// container is resumed if that is paused. It returns only with an error, after which the process is
// where it was unless the kernel did not execute the command.
func (c *Container) Exec(argv, env []string) error {
	file, err := Command(argv)
	if err != nil {
		return err
	}
	if _, err := c.move(os.Getpid(), (*cgroup.Group).EnterProcess); err != nil {
		return fmt.Errorf("container %q: %w", c.name, err)
	}
	return fmt.Errorf("execute %q: %w", file, syscall.Exec(file, argv, env))
}

// Run starts a command in the container, in a session of its own and with /dev/null as its first
// three descriptors, and returns its process. Nothing waits for it: a caller that stays is its
// parent. Errors: those of Command and Enter; errdefs.ErrFailedPrecondition if the container is
// paused, where the command could not begin.
func (c *Container) Run(argv, env []string) (pid int, err error) {
	file, err := Command(argv)
	if err == nil {
		err = c.running()
	}
	if err != nil {
		return 0, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	attr := &os.ProcAttr{
		Env: env, Files: []*os.File{null, null, null}, Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if c.m.host.Version() == 2 {
		g, _, err := c.target(c.m.anchor)
		if err != nil {
			return 0, err
		}
		dir, err := os.Open(g.Dir())
		if err != nil {
			return 0, fmt.Errorf("container %q: %w", c.name, err)
		}
		defer dir.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
		return start(file, argv, attr)
	}
	type result struct {
		pid int
		err error
	}
	done := make(chan result)
	go func() {
		// A child is in the groups of the thread that makes it. The thread goes back, because who
		// kills what is in the container would kill this process. If that fails it ends with the
		// goroutine, since it is never unlocked.
		runtime.LockOSThread()
		var r result
		back, err := c.move(unix.Gettid(), (*cgroup.Group).EnterThread)
		if r.err = err; err == nil {
			r.pid, r.err = start(file, argv, attr)
			back()
		}
		done <- r
	}()
	r := <-done
	if r.err != nil {
		return 0, fmt.Errorf("container %q: %w", c.name, r.err)
	}
	return r.pid, nil
}

func start(file string, argv []string, attr *os.ProcAttr) (int, error) {
	p, err := os.StartProcess(file, argv, attr)
	if err != nil {
		return 0, err
	}
	pid := p.Pid
	return pid, p.Release()
}
