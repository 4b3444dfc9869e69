package lxc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/lxc/config"
	"strake/lxc/ocispec"
	"strake/task"
)

// StartOptions say how a container is started.
type StartOptions struct {
	// Command runs below a small init in place of the container's own, as lxc-execute does.
	Command []string `json:"command,omitempty"`
	// ConfigFile is read in place of the container's own.
	ConfigFile string `json:"configFile,omitempty"`
	// Define are settings that are put over the configuration, as "KEY=VALUE".
	Define []string `json:"define,omitempty"`
	// Share are namespaces to join, by LXC's word: a container's name or the number of a process.
	Share map[string]string `json:"share,omitempty"`

	// Plain gives the container's first process pipes for its standard streams in place of the
	// console.
	Plain bool `json:"plain,omitempty"`
	// Width and Height are the console's first size in characters. Stdout and Stderr, if any, are
	// pipes that are given what is written from the beginning; what goes to the console is Stdout.
	Width, Height  uint16   `json:"-"`
	Stdout, Stderr *os.File `json:"-"`
}

// Start starts the container and returns when its init executes. The task is valid until the Path
// is closed. One that runs is errdefs.ErrAlreadyExists. Nothing is left if there is an error.
func (c *Container) Start(ctx context.Context, o *StartOptions) (task.Task, error) {
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return c.start(ctx, o)
}

// start is Start for callers that hold the lock.
func (c *Container) start(ctx context.Context, o *StartOptions) (_ task.Task, err error) {
	if err := c.repair(ctx); err != nil {
		return nil, err
	}
	if r, err := c.load(); err != nil {
		return nil, err
	} else if r != nil {
		return nil, fmt.Errorf("container %q is already running: %w", c.name, errdefs.ErrAlreadyExists)
	}
	cfg, err := o.config(c)
	if err != nil {
		return nil, err
	}
	k, err := c.path.open(ctx)
	if err != nil {
		return nil, err
	}
	group, err := k.groups.Path("", c.name)
	if err != nil {
		return nil, err
	}
	l := &starting{
		c: c, k: k, o: o, cfg: cfg,
		rec: &record{
			Task: task.Record{ID: c.name, Owner: Owner, Group: group}, Options: *o,
		},
	}
	defer func() {
		for _, f := range l.ttys {
			f.Close()
		}
		if err == nil {
			return
		}
		undo := context.WithoutCancel(ctx)
		err = errors.Join(err, c.announce(Aborting), c.finish(undo, k, l.rec))
	}()
	if err := c.change(l.rec, Starting); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{
		l.keepConfig, l.prestart, l.terminals, l.network, l.make, l.root, l.profile, l.enter,
		l.execute,
	} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("start container %q: %w", c.name, err)
		}
	}
	return l.task, nil
}

// config is the configuration that a start of a container uses.
func (o *StartOptions) config(c *Container) (*config.Config, error) {
	var cfg *config.Config
	var err error
	if o.ConfigFile != "" {
		cfg, err = config.Load(o.ConfigFile)
	} else {
		cfg, err = c.Config()
	}
	if err != nil {
		return nil, err
	}
	for _, d := range o.Define {
		key, value, ok := strings.Cut(d, "=")
		if !ok {
			return nil, fmt.Errorf("define %q: want KEY=VALUE: %w", d, errdefs.ErrInvalidArgument)
		}
		if err := cfg.Set(strings.TrimSpace(key), strings.TrimSpace(value)); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// starting is one start under way.
type starting struct {
	c     *Container
	k     *kernel
	o     *StartOptions
	cfg   *config.Config
	rec   *record
	in    ocispec.Input
	made  *ocispec.Made
	ttys  []*os.File // masters of the container's terminals
	group task.Group
	task  task.Task
}

// keepConfig keeps what the container was started with, for hooks and for who asks while it runs.
func (l *starting) keepConfig(context.Context) error {
	f, err := os.OpenFile(
		filepath.Join(l.c.run, "config"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600,
	)
	if err != nil {
		return err
	}
	return errors.Join(l.cfg.WriteExpanded(f), f.Close())
}

func (l *starting) prestart(ctx context.Context) error {
	for _, kind := range []string{"pre-start", "pre-mount"} {
		if err := l.c.hooks(ctx, l.cfg, kind, ocispec.Moment{}); err != nil {
			return err
		}
	}
	return nil
}

// terminals opens what becomes the container's /dev/tty1 and so on.
func (l *starting) terminals(context.Context) error {
	for range l.cfg.TTY.Max {
		master, slave, err := openPTY()
		if err != nil {
			return err
		}
		l.ttys = append(l.ttys, master)
		if uid, gid := l.rootID(); uid+gid > 0 {
			if err := os.Chown(slave, uid, gid); err != nil {
				return err
			}
		}
		l.in.TTYs = append(l.in.TTYs, slave)
	}
	return nil
}

// openPTY opens a terminal of the host's devpts (pty(7)).
func openPTY() (master *os.File, slave string, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, "", err
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		master.Close()
		return nil, "", fmt.Errorf("terminal: %w", err)
	}
	return master, "/dev/pts/" + strconv.Itoa(n), nil
}

// make says what the container is in OCI's terms.
func (l *starting) make(context.Context) (err error) {
	in := &l.in
	in.Name, in.Config, in.Command = l.c.name, l.cfg, l.o.Command
	in.ConfigFile, in.LXCPath = filepath.Join(l.c.dir, "config"), l.c.path.dir
	in.Environ = os.Environ()
	in.Exists = exists
	in.CgroupsPath = l.rec.Task.Group
	in.Host = ocispec.Host{
		Arch: runtime.GOARCH, CgroupVersion: l.k.cgroups.Version(), LastCap: lastCap(),
		AppArmor: exists("/sys/kernel/security/apparmor/profiles"),
		SELinux:  exists("/sys/fs/selinux/enforce"),
	}
	if in.Host.AppArmor && l.cfg.AppArmor.Profile == "" {
		in.Host.NoLXCProfiles = !lxcProfiles()
	}
	if in.Host.Caps, err = ownCapabilities(); err != nil {
		return err
	}
	if in.Root, err = rootDir(l.cfg); err != nil {
		return err
	}
	if file := l.cfg.Seccomp.Profile; file != "" && file != "none" {
		if in.Seccomp, err = os.ReadFile(file); err != nil {
			return fmt.Errorf("lxc.seccomp.profile: %w", err)
		}
	}
	if file := l.cfg.Mount.FSTab; file != "" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("lxc.mount.fstab: %w", err)
		}
		defer f.Close()
		if in.FSTab, err = config.ParseFSTab(file, f); err != nil {
			return err
		}
	}
	if l.made, err = ocispec.Make(in); err != nil {
		return err
	}
	if file := l.cfg.Console.Path; file != "" && file != "none" {
		return fmt.Errorf(
			"lxc.console.path %q: want none, or nothing for a console of its own: %w", file,
			errdefs.ErrInvalidArgument,
		)
	}
	for key, set := range map[string]bool{
		"lxc.console.logfile": l.cfg.Console.LogFile != "",
		"lxc.console.buffer":  l.cfg.Console.BufferSize > 0,
		"lxc.cgroup.dir":      l.cfg.CgroupDir != (config.CgroupDir{}),
		"lxc.cgroup.relative": l.cfg.CgroupRelative,
		"lxc.monitor":         l.cfg.MonitorUnshare || l.cfg.MonitorSignalPdeath != nil,
	} {
		if set {
			l.c.path.log.Warn("a setting has no effect", "container", l.c.name, "key", key)
		}
	}
	startHooks(l.made.Spec)
	for _, w := range l.made.Warnings {
		l.c.path.log.Warn(w, "container", l.c.name)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// rootDir is the directory of a root file system that is one.
func rootDir(cfg *config.Config) (string, error) {
	kind, rest, ok := strings.Cut(cfg.Rootfs.Path, ":")
	switch {
	case cfg.Rootfs.Path == "":
		return "/", nil
	case !ok || filepath.IsAbs(cfg.Rootfs.Path):
		rest = cfg.Rootfs.Path
	case kind == "overlay" || kind == "overlayfs":
		return "", nil
	case kind != "dir":
		return "", fmt.Errorf(
			"lxc.rootfs.path %q: want a directory, dir:DIR or overlay:LOWER:UPPER: %w",
			cfg.Rootfs.Path, errdefs.ErrInvalidArgument,
		)
	}
	st, err := os.Stat(rest)
	if err != nil {
		return "", fmt.Errorf("lxc.rootfs.path: %w", err)
	}
	if !st.IsDir() {
		return "", fmt.Errorf(
			"lxc.rootfs.path %q: want a directory: %w", rest, errdefs.ErrInvalidArgument,
		)
	}
	return filepath.EvalSymlinks(rest)
}

// enter makes the container's control group.
func (l *starting) enter(ctx context.Context) error {
	var res *specs.LinuxResources
	if l.made.Spec.Linux != nil {
		res = l.made.Spec.Linux.Resources
	}
	g, err := l.k.groups.Create(ctx, "", l.c.name, res)
	if err != nil {
		return err
	}
	l.group = g
	at, err := l.k.cgroups.At(g.Path())
	if err != nil {
		return err
	}
	for _, s := range l.made.Group {
		if err := writeGroup(at, l.k.cgroups.Hierarchies(), s); err != nil {
			return err
		}
	}
	return l.delegate(at.Paths())
}

// writeGroup writes a file of a group by the kernel's name for it.
func writeGroup(g *cgroup.Group, list []cgroup.Hierarchy, s config.Setting) error {
	dir, err := groupDir(g, list, s.Name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, s.Name), []byte(s.Value), 0); err != nil {
		return fmt.Errorf("write %q to %s: %w", s.Value, s.Name, err)
	}
	return nil
}

// groupDir is the directory of a group that has a file, by the controller that the file's name
// begins with.
func groupDir(g *cgroup.Group, list []cgroup.Hierarchy, file string) (string, error) {
	controller, _, _ := strings.Cut(file, ".")
	paths := g.Paths()
	for _, h := range list {
		if slices.Contains(h.Controllers, controller) || len(h.Options) == 0 {
			if dir := paths[h.Name]; dir != "" {
				if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
					return dir, nil
				}
			}
		}
	}
	return "", fmt.Errorf(
		"%s: this host's control groups have no such file: %w", file, errdefs.ErrNotFound,
	)
}

// execute starts the container's init.
func (l *starting) execute(ctx context.Context) error {
	spec := &task.Spec{
		ID: l.c.name, Owner: Owner, Config: l.made.Spec, Group: l.group, Init: l.made.Init,
		Stdin: true, Width: l.o.Width, Height: l.o.Height,
	}
	for i, f := range l.ttys {
		spec.Keep = append(spec.Keep, task.Kept{Name: "tty" + strconv.Itoa(i+1), File: f})
	}
	if l.c.path.end != nil {
		spec.EndCommand = l.c.path.end(l.c.path.dir, l.c.name)
	}
	if l.o.Plain {
		l.made.Spec.Process.Terminal = false
	}
	if l.o.Stdout != nil || l.o.Stderr != nil {
		spec.Outputs = []task.Output{{Stdout: l.o.Stdout, Stderr: l.o.Stderr, Block: true}}
	}
	raw, err := json.Marshal(l.made.Spec)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.c.run, "spec"), raw, 0o600); err != nil {
		return err
	}
	if spec.Overlay, err = overlay(l.cfg, filepath.Join(l.c.path.run, "rootfs")); err != nil {
		return err
	}
	if l.task, err = l.k.start(ctx, spec); err != nil {
		return err
	}
	l.rec.Task = l.task.Record()
	l.rec.Pid, l.rec.Started = l.task.Pid(), time.Now()
	l.rec.Birth = birth(l.rec.Pid)
	if err := l.schedCore(); err != nil {
		return err
	}
	if err := l.lateNetwork(ctx); err != nil {
		return err
	}
	for _, s := range l.made.Proc {
		name := filepath.Join("/proc", strconv.Itoa(l.rec.Pid), s.Name)
		if err := os.WriteFile(name, []byte(s.Value), 0); err != nil {
			return fmt.Errorf("lxc.proc.%s: %w", s.Name, err)
		}
	}
	if err := l.c.change(l.rec, Running); err != nil {
		return err
	}
	return l.c.hooks(ctx, l.cfg, "start-host", ocispec.Moment{PID: l.rec.Pid})
}
