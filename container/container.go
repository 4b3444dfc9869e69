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
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/container/ocijson"
	"strake/container/program"
	"strake/internal/rawfile"
)

// Runtime is a directory of containers. It may be used by several goroutines at once.
type Runtime struct {
	// Root is the directory, by convention on a tmpfs. It is made if it is missing.
	Root string
	// CgroupRoot is where the host's cgroups are mounted; empty for /sys/fs/cgroup.
	CgroupRoot string
	// Log receives warnings about hooks that fail when it does not matter any more; nil for none.
	Log func(format string, args ...any)
	// Debug receives a line about each step that is taken; nil for none.
	Debug func(format string, args ...any)
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
	raw, err := rawfile.Read(file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
		}
		return nil, nil, err
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
	// PlainTerminal: see plan.Options.
	PlainTerminal bool
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

// Process is a running process of a container. The caller that started it reaps it, with Wait.
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
	spec := complete(opt.Spec, opt.Bundle)
	b := &birth{rt: r, opt: &opt, spec: withEnviron(spec)}
	if opt.Explain != nil {
		return nil, nil, b.explain()
	}
	// Hooks that run right before the process executes find it waiting.
	held := !opt.Hold && hasStartHooks(spec)
	opt.Hold = opt.Hold || held
	defer func() {
		b.done()
		if err != nil {
			b.undo()
		}
		b.help.leave()
	}()
	if err := b.run(ctx); err != nil {
		return nil, nil, err
	}
	if held {
		b.prog.Close() // our copy of the socket, which a process that has ended must refuse
		if err := startHooks(ctx, b.c, b.child.PidFD); err != nil {
			return nil, nil, err
		}
		if err := b.c.release(ctx); err != nil {
			return nil, nil, err
		}
	}
	return b.c, b.p, nil
}

// complete returns spec with what it leaves to the bundle and to the caller: the paths that are
// relative to the bundle made absolute, of the root and of bind mounts' sources (runtime-spec
// config.md, Mounts), and the mappings of a user namespace that has none. Destinations that are
// given by their path on the host become paths from the root on.
func complete(spec *specs.Spec, bundle string) *specs.Spec {
	copied := *spec
	if r := spec.Root; r != nil && r.Path != "" && !filepath.IsAbs(r.Path) {
		root := *r
		root.Path = filepath.Join(bundle, r.Path)
		copied.Root = &root
	}
	change := func(i int) *specs.Mount {
		if &copied.Mounts[0] == &spec.Mounts[0] {
			copied.Mounts = slices.Clone(spec.Mounts)
		}
		return &copied.Mounts[i]
	}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if dest, ok := inRoot(copied.Root, m.Destination); ok {
			change(i).Destination = dest
		}
		if m.Source == "" || filepath.IsAbs(m.Source) || m.Type != "bind" && !bindsFiles(m) {
			continue
		}
		change(i).Source = filepath.Join(bundle, m.Source)
	}
	mapSelf(&copied)
	return &copied
}

// inRoot returns the destination of a mount from the root on, if it is given by its path on the
// host, as runc allows.
func inRoot(root *specs.Root, dest string) (string, bool) {
	if root == nil || root.Path == "" {
		return "", false
	}
	rest, ok := strings.CutPrefix(filepath.Clean(dest), filepath.Clean(root.Path)+"/")
	return "/" + rest, ok
}

// mapSelf maps the caller alone, as root, into a new user namespace for which the configuration has
// no mappings at all, as crun does and "unshare --map-root-user" too.
func mapSelf(spec *specs.Spec) {
	l := spec.Linux
	if l == nil || len(l.UIDMappings)+len(l.GIDMappings) > 0 ||
		namespaceFlags(spec)&unix.CLONE_NEWUSER == 0 || joinsUsers(l) {
		return
	}
	copied := *l
	copied.UIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Geteuid()), Size: 1}}
	copied.GIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Getegid()), Size: 1}}
	spec.Linux = &copied
}

// joinsUsers says whether the user namespace is one that exists.
func joinsUsers(l *specs.Linux) bool {
	return slices.ContainsFunc(l.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.UserNamespace && ns.Path != ""
	})
}
