package lxc

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/task"
)

// AttachOptions say what runs in a running container.
type AttachOptions struct {
	// Command and its arguments; nil: the login shell of the user.
	Command []string
	// Env is the environment. Container=lxc is added.
	Env []string
	Cwd string // "", or where the container has no such directory: /
	// UID and GID are the user's; nil: 0, and the groups of the container's init.
	UID, GID *uint32
	// Elevated keeps the privileges that the container's init does not have: capabilities,
	// no_new_privs and the seccomp filter.
	Elevated      bool
	Terminal      bool
	Width, Height uint16
	Stdin         bool
	Stdout        *os.File // a pipe or stream socket; of a terminal all output
	Stderr        *os.File
}

// Attach starts a process in a running container. The caller calls Delete on it when it has ended.
func (c *Container) Attach(ctx context.Context, o *AttachOptions) (task.Process, error) {
	t, err := c.Task(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(c.run, "spec"))
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(raw, spec); err != nil {
		return nil, fmt.Errorf("specification of container %q: %w", c.name, err)
	}
	p := *spec.Process
	p.Args, p.Env, p.Cwd, p.Terminal = o.Command, o.Env, o.Cwd, o.Terminal
	if !slices.ContainsFunc(p.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		p.Env = append(slices.Clone(p.Env), defaultPath)
	}
	p.User = specs.User{}
	if pid := t.Pid(); !hasDir(pid, p.Cwd) {
		p.Cwd = "/"
	}
	if o.UID != nil {
		p.User.UID = *o.UID
	}
	if o.GID != nil {
		p.User.GID = *o.GID
	}
	if o.Elevated {
		if p.Capabilities, err = allCapabilities(); err != nil {
			return nil, err
		}
		p.NoNewPrivileges, p.ApparmorProfile = false, ""
		spec.Linux.Seccomp = nil
	}
	if len(p.Args) == 0 {
		if p.Args, err = loginShell(t, p.User.UID); err != nil {
			return nil, err
		}
	}
	x := &task.Exec{
		ID: c.name + ".attach." + strconv.Itoa(os.Getpid()) + "." +
			strconv.FormatInt(time.Now().UnixNano(), 36),
		Process: &p, Config: spec, Stdin: o.Stdin, Width: o.Width, Height: o.Height,
	}
	if o.Stdout != nil || o.Stderr != nil {
		x.Outputs = []task.Output{{Stdout: o.Stdout, Stderr: o.Stderr, Block: true}}
	}
	return t.Exec(ctx, x)
}

// hasDir says whether a directory is there for a process, by its root.
func hasDir(pid int, dir string) bool {
	if !filepath.IsAbs(dir) {
		return false
	}
	root, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, dir, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// defaultPath is where commands are looked for when nobody says.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// loginShell is the shell of a user by the container's own passwd(5).
func loginShell(t task.Task, uid uint32) ([]string, error) {
	const maxPasswd = 1 << 20
	raw, err := t.ReadFile("/etc/passwd", maxPasswd)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) == 7 && f[2] == strconv.FormatUint(uint64(uid), 10) && f[6] != "" {
			return []string{f[6]}, nil
		}
	}
	return []string{"/bin/sh"}, nil
}

// Task is the container's task. One that does not run is errdefs.ErrFailedPrecondition.
func (c *Container) Task(ctx context.Context) (task.Task, error) {
	r, err := c.running()
	if err != nil {
		return nil, err
	}
	k, err := c.path.open(ctx)
	if err != nil {
		return nil, err
	}
	t, err := k.task(ctx, r.Task)
	if err == nil && t == nil {
		err = fmt.Errorf("container %q is not running: %w", c.name, errdefs.ErrFailedPrecondition)
	}
	return t, err
}

// Freeze stops all processes of the container, or lets them go on.
func (c *Container) Freeze(ctx context.Context, freeze bool) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := c.running()
	if err != nil {
		return err
	}
	t, err := c.Task(ctx)
	if err != nil {
		return err
	}
	first, last, do := Freezing, Frozen, t.Pause
	if !freeze {
		first, last, do = Thawed, Running, t.Resume
	}
	if err := c.announce(first); err != nil {
		return err
	}
	if err := do(ctx); err != nil {
		return err
	}
	return c.change(r, last)
}
