package engine

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
	"strake/container/plan"
	"strake/internal/message"
)

// NewGroups makes the host's control groups the engine's Groups. parent is the group of this
// instance, below which containers have theirs: "/strake", or another name for each engine on a
// machine.
func NewGroups(h *cgroup.Host, parent string) Groups {
	return &hostGroups{host: h, parent: parent, root: sync.OnceValues(func() (int, error) {
		fd, err := unix.Open(h.Root(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("open %q: %w", h.Root(), err)
		}
		return fd, nil
	})}
}

type hostGroups struct {
	host   *cgroup.Host
	parent string
	// root is the directory that hierarchies are mounted in. It stays open: every start passes it
	// on.
	root func() (int, error)
}

// Enforced implements Groups.
func (h *hostGroups) Enforced(res *specs.LinuxResources) (warnings []string) {
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

// Create implements Groups.
func (h *hostGroups) Create(
	ctx context.Context, parent, name string, res *specs.LinuxResources,
) (Cgroup, error) {
	if parent == "" {
		parent = h.parent
	}
	if !path.IsAbs(parent) || path.Clean(parent) != parent {
		return nil, message.New(
			errdefs.ErrInvalidArgument, "cgroup-parent %q: want an absolute, clean path as /group",
			parent,
		)
	}
	// Not Create, which opens every directory of the group for the caller.
	g, err := h.host.Begin(path.Join(parent, name), res, cgroup.CreateOptions{})
	if err != nil {
		return nil, err
	}
	defer g.Close()
	if err := g.Finish(); err != nil {
		return nil, errors.Join(err, g.Remove(context.WithoutCancel(ctx)))
	}
	return h.At(g.Path())
}

// At implements Groups.
func (h *hostGroups) At(p string) (Cgroup, error) {
	if _, err := h.host.At(p); err != nil {
		return nil, err
	}
	return &hostGroup{of: h, path: p}, nil
}

// Sweep implements Groups.
func (h *hostGroups) Sweep(ctx context.Context, keep func(name string) bool) error {
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
			if d.IsDir() && validID(d.Name()) && (keep == nil || !keep(d.Name())) {
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

// hostGroup names a group and opens it for each operation, so that an idle container holds nothing
// open.
type hostGroup struct {
	of   *hostGroups
	path string
}

func (g *hostGroup) with(f func(*cgroup.Group) error) error {
	at, err := g.of.host.At(g.path)
	if err != nil {
		return err
	}
	return f(at)
}

func (g *hostGroup) Path() string { return g.path }

// Entry implements Cgroup.
func (g *hostGroup) Entry() (entry CgroupEntry, release func(), err error) {
	entry.Born, release = -1, func() {}
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

// Hierarchies implements Cgroup.
func (g *hostGroup) Hierarchies() []plan.Hierarchy {
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

func (g *hostGroup) Update(ctx context.Context, res *specs.LinuxResources) error {
	return g.with(func(open *cgroup.Group) error { return open.Update(res) })
}

func (g *hostGroup) Freeze(ctx context.Context) error {
	return g.with(func(open *cgroup.Group) error { return open.Freeze(ctx) })
}

func (g *hostGroup) Thaw(ctx context.Context) error {
	return g.with(func(open *cgroup.Group) error { return open.Thaw(ctx) })
}

func (g *hostGroup) Pids() (pids []int, err error) {
	err = g.with(func(open *cgroup.Group) (err error) {
		pids, err = open.Pids(cgroup.Recursive)
		return err
	})
	return pids, err
}

func (g *hostGroup) OOMKills() (n uint64, err error) {
	err = g.with(func(open *cgroup.Group) error {
		v, err := open.OOMCount()
		n = uint64(v)
		return err
	})
	return n, err
}

// Remove implements Cgroup.
func (g *hostGroup) Remove(ctx context.Context) error {
	return g.with(func(open *cgroup.Group) error { return open.Remove(ctx) })
}

// Stats implements Cgroup.
func (g *hostGroup) Stats() (out Stats, err error) {
	err = g.with(func(open *cgroup.Group) error {
		s, err := open.Stats()
		if err == nil {
			out = groupStats(s)
		}
		return err
	})
	return out, err
}

func groupStats(s *cgroup.Stats) Stats {
	out := Stats{
		CPU: CPUStats{
			TotalNanos: s.CPU.TotalNanos, UserNanos: s.CPU.UserNanos,
			KernelNanos: s.CPU.KernelNanos,
			Periods:     s.CPU.Periods, ThrottledPeriods: s.CPU.ThrottledPeriods,
			ThrottledNanos: s.CPU.ThrottledNanos,
		},
		Memory: MemoryStats{
			Usage: s.Memory.Usage, MaxUsage: s.Memory.MaxUsage, Limit: s.Memory.Limit,
			Failcnt: s.Memory.Failcnt, Stat: s.Memory.Stat,
		},
		Pids:    s.Pids.Current,
		PidsMax: s.Pids.Limit,
	}
	for _, e := range s.IO {
		out.IO = append(
			out.IO,
			IOEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Bytes: e.Bytes, Count: e.Count},
		)
	}
	return out
}
