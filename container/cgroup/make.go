package cgroup

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
)

// Create makes a group with limits. On an error nothing that it made is left. Errors name the field
// of the configuration.
func (h *Host) Create(p string, res *specs.LinuxResources, opt CreateOptions) (*Group, error) {
	g, err := h.Begin(p, res, opt)
	if err != nil {
		return nil, err
	}
	if err := g.Finish(); err != nil {
		g.abandon()
		return nil, err
	}
	g.Close()
	return h.Open(g.path)
}

// Vacant is an error if a process that enters a group would be in other company, or would not run:
// if the group exists and has processes, also in groups below, or if it, or the group in which it
// is going to be made, is frozen. Errors are of class errdefs.ErrFailedPrecondition.
func (h *Host) Vacant(p string) error {
	p, err := checkPath(p)
	if err != nil {
		return err
	}
	g := &Group{host: h, path: p}
	mount := strings.TrimSuffix(g.anchor(), p)
	// As a rule there is no group yet, and this one call says so.
	for unix.Access(mount+g.path, unix.F_OK) != nil {
		if g.path = path.Dir(g.path); g.path == "/" {
			return nil
		}
	}
	if frozen, err := g.Frozen(); err == nil && frozen {
		return fmt.Errorf(
			"linux.cgroupsPath: container's cgroup unexpectedly frozen: %q: %w", g.path,
			errdefs.ErrFailedPrecondition,
		)
	}
	if g.path != p {
		return nil
	}
	pids, err := g.Pids(Recursive)
	if err == nil && len(pids) > 0 {
		return fmt.Errorf(
			"linux.cgroupsPath: container's cgroup is not empty: %q has %d processes: %w", p,
			len(pids), errdefs.ErrFailedPrecondition,
		)
	}
	return nil
}

// Begin makes that part of a group which a process has to be born in (Join.CloneInto); Finish makes
// the rest, the limits too. Between the two the caller may start a process that waits. On an error
// nothing that it made is left.
func (h *Host) Begin(p string, res *specs.LinuxResources, opt CreateOptions) (*Group, error) {
	p, err := checkPath(p)
	if err != nil {
		return nil, err
	}
	g := &Group{host: h, path: p}
	if g.wanted, err = h.want(res, current{fresh: true}); err != nil {
		return nil, err
	}
	for i := range h.list {
		if h.list[i].Name != unifiedName {
			continue
		}
		if err := g.makeIn(&h.list[i]); err != nil {
			g.abandon()
			return nil, err
		}
		if h.version == 2 {
			// Here a process is born into all of its limits.
			err := g.equip(g.wanted.writes, opt.Controllers)
			if err == nil {
				err = g.apply(&g.wanted, false)
			}
			if err != nil {
				g.abandon()
				return nil, err
			}
		}
		if g.join.CloneInto, err = g.Birthplace(); err != nil {
			g.abandon()
			return nil, err
		}
	}
	return g, nil
}

// Finish makes what Begin has left, without opening it for Join. After an error the caller ends
// what it has started in the group, and calls Remove.
func (g *Group) Finish() error {
	if g.host.version == 2 {
		return nil
	}
	for i := range g.host.list {
		if g.host.list[i].Name == unifiedName {
			continue
		}
		if err := g.makeIn(&g.host.list[i]); err != nil {
			return err
		}
	}
	return g.apply(&g.wanted, false)
}

// makeIn makes the group's directory in one hierarchy.
func (g *Group) makeIn(h *Hierarchy) error {
	dirs, err := makeDirs(h.Mount, g.path)
	g.made = append(g.made, dirs...)
	if err != nil {
		return fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	if slices.Contains(h.Controllers, "cpuset") {
		return inheritCpuset(h.Mount, g.path)
	}
	return nil
}

// abandon removes what was made, after an error.
func (g *Group) abandon() {
	for _, dir := range slices.Backward(g.made) {
		unix.Rmdir(dir)
	}
	g.made = nil
	g.Close()
}

// makeDirs makes a directory and what is missing above it.
func makeDirs(root, p string) (made []string, err error) {
	dir := root + p
	err = unix.Mkdir(dir, 0o755)
	if err == unix.ENOENT {
		if made, err = makeDirs(root, path.Dir(p)); err != nil {
			return made, err
		}
		// Groups below this one, which is ours, begin with its processors and memory nodes. Other
		// controllers do not mind.
		if _, err := os.Stat(root + path.Dir(p) + "/cgroup.controllers"); err != nil {
			writeFile(root+path.Dir(p)+"/cgroup.clone_children", []byte("1"))
		}
		err = unix.Mkdir(dir, 0o755)
	}
	switch err {
	case nil:
		return append(made, dir), nil
	case unix.EEXIST:
		return made, nil
	}
	return made, &fs.PathError{Op: "mkdir", Path: dir, Err: err}
}

// inheritCpuset fills in processors and memory nodes from above: a group without any cannot be
// entered (cpusets.rst). The kernel has done that itself where a group above was made by makeDirs.
func inheritCpuset(mount, p string) error {
	mems, err := rawfile.Read(mount + p + "/cpuset.mems")
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(mems)) > 0 {
		return nil // they come last
	}
	above := path.Dir(p)
	if above != "/" {
		if err := inheritCpuset(mount, above); err != nil {
			return err
		}
	}
	for _, name := range []string{"/cpuset.cpus", "/cpuset.mems"} {
		value, err := rawfile.Read(mount + path.Join(above, name))
		if err != nil {
			return err
		}
		if err := writeFile(mount+p+name, bytes.TrimSpace(value)); err != nil {
			return err
		}
	}
	return nil
}

// Remove kills what is in the group, removes groups that were made below it, and then itself. A
// missing group is no error. Errors: errdefs.ErrInvalidArgument for the root group.
func (g *Group) Remove(ctx context.Context) error {
	if g.path == "" {
		return fmt.Errorf("remove the root group: %w", errdefs.ErrInvalidArgument)
	}
	g.Close()
	for i := range g.host.list {
		if err := g.removeTree(ctx, g.host.list[i].Mount+g.path); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) removeTree(ctx context.Context, dir string) error {
	for wait := 20 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY && err != unix.ENOTEMPTY {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		// Either groups below, or a process that is still on its way out.
		entries, rerr := os.ReadDir(dir)
		if rerr == nil {
			for _, e := range entries {
				if e.IsDir() {
					if err := g.removeTree(ctx, filepath.Join(dir, e.Name())); err != nil {
						return err
					}
				}
			}
		}
		if wait > time.Millisecond {
			if err := g.Kill(ctx, unix.SIGKILL); err != nil {
				return err
			}
		}
		if perr := pause(ctx, wait); perr != nil {
			return fmt.Errorf("rmdir %q: %w: %w", dir, err, perr)
		}
	}
}
