// Package cgroup makes control groups and puts limits on them, whatever the host has of version 1
// (Documentation/admin-guide/cgroup-v1), of version 2 (cgroup-v2.rst), or of both at once
// ("hybrid").
//
// What a runtime-spec configuration wants is first turned into a list of writes by a pure function
// (plan, intent*.go); a thin driver makes the directories and carries the writes out before any
// process runs inside. Nothing that was asked for is dropped silently: there is one error, which
// names the field of the configuration, the file, the value and the reason.
//
// Not for: systemd's units; choosing names; hierarchies that are not mounted.
//
// A Host may be used by several goroutines at once, and so may different Groups.
package cgroup

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CreateOptions change how a group is made.
type CreateOptions struct {
	// Controllers are those that the group gets on a host of version 2. If nil it gets all that a
	// container should have; if empty it gets none.
	Controllers []string
}

// Group is one group, in all hierarchies at once.
type Group struct {
	host   *Host
	path   string
	join   Join
	wanted wanted   // what Finish has to do
	made   []string // directories
}

// Join is what a process enters a group by.
type Join struct {
	// CloneInto is a version 2 directory to be born in (CLONE_INTO_CGROUP), or nil.
	CloneInto *os.File
	// Tasks are the version 1 files to which the process itself writes "0". A process that moves
	// itself so does not wait for the lock that moving another takes (kernel/cgroup/cgroup.c,
	// cgroup_procs_write_start).
	Tasks []*os.File
}

// Below joins a relative group to another. Errors: errdefs.ErrInvalidArgument if it leads out.
func Below(parent, sub string) (string, error) {
	if sub == "" || path.IsAbs(sub) && path.Clean(sub) != sub ||
		slices.Contains(strings.Split(sub, "/"), "..") {
		return "", fmt.Errorf(
			"cgroup %q: bad sub cgroup path: want one below the group, without ..: %w", sub,
			errdefs.ErrInvalidArgument,
		)
	}
	return path.Join(parent, sub), nil
}

func checkPath(p string) (string, error) {
	if p == "" || slices.Contains(strings.Split(p, "/"), "..") || strings.ContainsRune(p, 0) ||
		len(p) > unix.PathMax/2 {
		return "", fmt.Errorf(
			"linux.cgroupsPath %q: want a path without ..: %w", p, errdefs.ErrInvalidArgument,
		)
	}
	p = path.Clean("/" + p)
	if p == "/" {
		return "", fmt.Errorf(
			"linux.cgroupsPath %q: the root group is the host's: %w", p, errdefs.ErrInvalidArgument,
		)
	}
	return p, nil
}

// At names a group that may exist, for everything but Join. There is nothing to close. Errors:
// errdefs.ErrInvalidArgument.
func (h *Host) At(p string) (*Group, error) {
	p, err := checkPath(p)
	if err != nil {
		return nil, err
	}
	return &Group{host: h, path: p}, nil
}

// Birthplace opens the version 2 directory that a process is born in (CLONE_INTO_CGROUP), or
// returns nil where there is none. Errors: errdefs.ErrNotFound. The caller closes it.
func (g *Group) Birthplace() (*os.File, error) {
	for i := range g.host.list {
		if g.host.list[i].Name != unifiedName {
			continue
		}
		dir := g.host.list[i].Mount + g.path
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			return nil, fmt.Errorf("cgroup %q: %w", g.path, errdefs.ErrNotFound)
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
		}
		return os.NewFile(uintptr(fd), dir), nil
	}
	return nil, nil
}

// BirthplaceOf opens the version 2 directory that a process is in, if that is one below the group:
// a group with controllers for those below it takes no process itself (cgroup-v2.rst, No Internal
// Process Constraint). Errors: errdefs.ErrNotFound if it is in none. The caller closes it.
func BirthplaceOf(g *Group, pid int) (*os.File, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(raw)) {
		p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if ok && strings.HasPrefix(p, g.path+"/") {
			below := &Group{host: g.host, path: p}
			if dir, err := below.Birthplace(); dir != nil || err != nil {
				return dir, err
			}
		}
	}
	return nil, fmt.Errorf("process %d in a group below %q: %w", pid, g.path, errdefs.ErrNotFound)
}

// Open finds an existing group. Errors: errdefs.ErrNotFound. The caller closes it.
func (h *Host) Open(p string) (_ *Group, err error) {
	if p, err = checkPath(p); err != nil {
		return nil, err
	}
	g := &Group{host: h, path: p}
	for i := range h.list {
		hier := &h.list[i]
		name, flags := hier.Mount+p+"/tasks", unix.O_WRONLY
		if hier.Name == unifiedName {
			name, flags = hier.Mount+p, unix.O_RDONLY|unix.O_DIRECTORY
		}
		// Not os.OpenFile: these files cannot be polled, and trying costs two system calls each.
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			g.Close()
			if err == unix.ENOENT {
				return nil, fmt.Errorf("cgroup %q: %w", p, errdefs.ErrNotFound)
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		f := os.NewFile(uintptr(fd), name)
		if hier.Name == unifiedName {
			g.join.CloneInto = f
		} else {
			g.join.Tasks = append(g.join.Tasks, f)
		}
	}
	return g, nil
}

// Path names the group for Open.
func (g *Group) Path() string { return g.path }

// Paths are the group's directories by the names of hierarchies.
func (g *Group) Paths() map[string]string {
	out := make(map[string]string, len(g.host.list))
	for i := range g.host.list {
		out[g.host.list[i].Name] = g.host.list[i].Mount + g.path
	}
	return out
}

// Join returns what a process enters by. The files are the Group's.
func (g *Group) Join() Join { return g.join }

// Close releases the files. The group stays.
func (g *Group) Close() error {
	for _, f := range g.join.Tasks {
		f.Close()
	}
	if g.join.CloneInto != nil {
		g.join.CloneInto.Close()
	}
	g.join = Join{}
	return nil
}

// Update changes limits. What res leaves out stays as it is.
func (g *Group) Update(res *specs.LinuxResources) error {
	w, err := g.host.want(res, g.now())
	if err != nil {
		return err
	}
	return g.apply(&w, true)
}
