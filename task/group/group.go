// Package group makes control groups of this host for tasks: the task.Groups of one owner over
// container/cgroup.
//
// Each owner of an instance has a parent of its own, below which its tasks' groups are named by the
// tasks' IDs, so that Sweep finds what a killed process left and never touches another owner's.
// Groups below a parent that a user chose (--cgroup-parent) are found by their path alone, which
// their front end derives from its records (Path).
//
// Not for: limits and versions of the kernel's interface (container/cgroup).
//
// Tested with real groups by cmd/straked, and by package test through a program that uses this one.
package group

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/container/launch"
	"strake/container/plan"
	"strake/internal/message"
	"strake/task"
)

// New makes the host's control groups those of one owner. instance is the group of this instance,
// "/strake" or another name for each engine on a machine; the owner's parent is below it.
func New(h *cgroup.Host, instance, owner string) *Groups {
	return &Groups{
		host: h, parent: path.Join(instance, owner),
		root: sync.OnceValues(func() (int, error) {
			fd, err := unix.Open(h.Root(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1, fmt.Errorf("open %q: %w", h.Root(), err)
			}
			return fd, nil
		}),
	}
}

// Remove ends what is left below the group of an instance, whatever its owner, and removes it.
func Remove(ctx context.Context, h *cgroup.Host, instance string) error {
	g, err := h.At(instance)
	if err == nil {
		err = g.Remove(ctx)
	}
	if err != nil {
		return fmt.Errorf("remove control group %q: %w", instance, err)
	}
	return nil
}

// Groups implements task.Groups for one owner. Its methods may be called concurrently.
type Groups struct {
	host   *cgroup.Host
	parent string
	// root is the directory that hierarchies are mounted in. It stays open: every start passes it
	// on.
	root func() (int, error)
	// Delegated says that groups may be given to users of containers: then a process does not enter
	// a group of version 1 by a name, for which one in a user namespace has no permission, but by
	// files that are open already. Set it before use.
	Delegated bool
}

// Enforced implements task.Groups.
func (h *Groups) Enforced(res *specs.LinuxResources) (warnings []string) {
	if h.host.Version() != 2 || res.Memory == nil {
		return nil
	}
	m := *res.Memory
	if m.Swappiness != nil {
		m.Swappiness = nil
		warnings = append(
			warnings,
			"Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
		)
	}
	if m.DisableOOMKiller != nil {
		m.DisableOOMKiller = nil
		warnings = append(
			warnings, "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
		)
	}
	res.Memory = &m
	return warnings
}

// Path implements task.Groups.
func (h *Groups) Path(parent, name string) (string, error) {
	if parent == "" {
		parent = h.parent
	}
	if !path.IsAbs(parent) || path.Clean(parent) != parent {
		return "", message.New(
			errdefs.ErrInvalidArgument,
			"cgroup-parent %q: want an absolute, clean path as /group", parent,
		)
	}
	return path.Join(parent, name), nil
}

// Create implements task.Groups.
func (h *Groups) Create(
	ctx context.Context, parent, name string, res *specs.LinuxResources,
) (task.Group, error) {
	p, err := h.Path(parent, name)
	if err != nil {
		return nil, err
	}
	// Not Create, which opens every directory of the group for the caller.
	g, err := h.host.Begin(p, res, cgroup.CreateOptions{})
	if err != nil {
		return nil, err
	}
	defer g.Close()
	if err := g.Finish(); err != nil {
		return nil, errors.Join(err, g.Remove(context.WithoutCancel(ctx)))
	}
	return h.At(g.Path())
}

// At implements task.Groups.
func (h *Groups) At(p string) (task.Group, error) {
	if _, err := h.host.At(p); err != nil {
		return nil, err
	}
	return &Group{of: h, path: p}, nil
}

// Sweep implements task.Groups.
func (h *Groups) Sweep(ctx context.Context, keep func(name string) bool) error {
	seen := map[string]bool{}
	for _, hier := range h.host.Hierarchies() {
		list, err := os.ReadDir(filepath.Join(hier.Mount, h.parent))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list control groups: %w", err)
		}
		for _, d := range list {
			if d.IsDir() && (keep == nil || !keep(d.Name())) {
				seen[d.Name()] = true
			}
		}
	}
	for name := range seen {
		// Not Open: a group that was being made when the engine died may not be in every hierarchy.
		g, err := h.host.At(path.Join(h.parent, name))
		if err == nil {
			err = g.Remove(ctx)
		}
		if err != nil {
			return fmt.Errorf("remove control group %q: %w", name, err)
		}
	}
	if keep != nil {
		return nil
	}
	own, err := h.host.At(h.parent)
	if err == nil {
		err = own.Remove(ctx)
	}
	if err != nil {
		return fmt.Errorf("remove control group %q: %w", h.parent, err)
	}
	return nil
}

// Group implements task.Group: it names a group and opens it for each operation, so that an idle container holds nothing
// open.
type Group struct {
	of   *Groups
	path string
}

func (g *Group) with(f func(*cgroup.Group) error) error {
	at, err := g.of.host.At(g.path)
	if err != nil {
		return err
	}
	return f(at)
}

func (g *Group) Path() string { return g.path }

// Entry implements task.Group.
func (g *Group) Entry() (entry launch.Entry, release func(), err error) {
	entry.Born, release = -1, func() {}
	if g.of.Delegated {
		return g.files()
	}
	if entry.Tasks = g.of.host.TaskPaths(g.path); len(entry.Tasks) > 0 {
		if entry.Root, err = g.of.root(); err != nil {
			return entry, nil, err
		}
	}
	at, err := g.of.host.At(g.path)
	if err != nil {
		return entry, nil, err
	}
	dir, err := at.Birthplace()
	if err != nil {
		return entry, nil, err
	}
	if dir != nil {
		entry.Born, release = int(dir.Fd()), func() { dir.Close() }
	}
	return entry, release, nil
}

// EntryBy implements task.Group.
func (g *Group) EntryBy(pid int) (entry launch.Entry, release func(), err error) {
	at, err := g.of.host.At(g.path)
	if err != nil {
		return entry, nil, err
	}
	if g.of.host.Version() != 2 {
		return entry, nil, fmt.Errorf("version 1 of control groups: %w", errdefs.ErrNotFound)
	}
	dir, err := cgroup.BirthplaceOf(at, pid)
	if err != nil {
		return entry, nil, err
	}
	return launch.Entry{Born: int(dir.Fd()), Root: -1}, func() { dir.Close() }, nil
}

// files is Entry by files that are open.
func (g *Group) files() (entry launch.Entry, release func(), err error) {
	open, err := g.of.host.Open(g.path)
	if err != nil {
		return entry, nil, err
	}
	join := open.Join()
	entry.Born = -1
	if join.CloneInto != nil {
		entry.Born = int(join.CloneInto.Fd())
	}
	for _, f := range join.Tasks {
		entry.Files = append(entry.Files, int(f.Fd()))
	}
	return entry, func() { open.Close() }, nil
}

// Hierarchies implements task.Group.
func (g *Group) Hierarchies() []plan.Hierarchy {
	var out []plan.Hierarchy
	g.with(func(open *cgroup.Group) error {
		paths := open.Paths()
		for _, h := range g.of.host.Hierarchies() {
			out = append(
				out,
				plan.Hierarchy{
					Dir: filepath.Base(h.Mount), Options: h.Options, Path: paths[h.Name],
				},
			)
		}
		return nil
	})
	return out
}

func (g *Group) Update(ctx context.Context, res *specs.LinuxResources) error {
	return g.with(func(open *cgroup.Group) error { return open.Update(res) })
}

func (g *Group) Freeze(ctx context.Context) error {
	return g.with(func(open *cgroup.Group) error { return open.Freeze(ctx) })
}

func (g *Group) Thaw(ctx context.Context) error {
	return g.with(func(open *cgroup.Group) error { return open.Thaw(ctx) })
}

func (g *Group) Pids() (pids []int, err error) {
	err = g.with(func(open *cgroup.Group) (err error) {
		pids, err = open.Pids(cgroup.Recursive)
		return err
	})
	return pids, err
}

func (g *Group) OOMKills() (n uint64, err error) {
	err = g.with(func(open *cgroup.Group) error {
		v, err := open.OOMCount()
		n = uint64(v)
		return err
	})
	return n, err
}

// Remove implements task.Group.
func (g *Group) Remove(ctx context.Context) error {
	return g.with(func(open *cgroup.Group) error { return open.Remove(ctx) })
}

// Stats implements task.Group.
func (g *Group) Stats() (out task.Stats, err error) {
	err = g.with(func(open *cgroup.Group) error {
		s, err := open.Stats()
		if err == nil {
			out = groupStats(s)
		}
		return err
	})
	return out, err
}

func groupStats(s *cgroup.Stats) task.Stats {
	out := task.Stats{
		CPU: task.CPUStats{
			TotalNanos: s.CPU.TotalNanos, UserNanos: s.CPU.UserNanos,
			KernelNanos: s.CPU.KernelNanos,
			Periods:     s.CPU.Periods, ThrottledPeriods: s.CPU.ThrottledPeriods,
			ThrottledNanos: s.CPU.ThrottledNanos,
		},
		Memory: task.MemoryStats{
			Usage: s.Memory.Usage, MaxUsage: s.Memory.MaxUsage, Limit: s.Memory.Limit,
			Failcnt: s.Memory.Failcnt, Stat: s.Memory.Stat,
		},
		Pids:    s.Pids.Current,
		PidsMax: s.Pids.Limit,
	}
	for _, e := range s.IO {
		out.IO = append(
			out.IO,
			task.IOEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Bytes: e.Bytes, Count: e.Count},
		)
	}
	return out
}
