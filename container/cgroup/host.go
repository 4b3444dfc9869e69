package cgroup

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
)

// Hierarchy is one mounted tree of groups.
type Hierarchy struct {
	// Name is its first controller, or the name of a tree without one: "memory", "systemd",
	// unifiedName for version 2.
	Name string
	// Controllers are the version 1 controllers attached to it.
	Controllers []string
	// Mount is where it is mounted.
	Mount string
	// Options select it for mount(2); empty for version 2.
	Options []string
}

// Host is the layout of a machine's hierarchies.
type Host struct {
	version int
	list    []Hierarchy
}

// unifiedName is the Name of the version 2 tree.
const unifiedName = "unified"

// Detect reads the layout. root is where hierarchies are mounted, /sys/fs/cgroup if empty. Errors:
// errdefs.ErrUnavailable where there is nothing that this package can use.
func Detect(root string) (*Host, error) {
	if root == "" {
		root = "/sys/fs/cgroup"
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, fmt.Errorf("control groups at %q: %w: %w", root, err, errdefs.ErrUnavailable)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return &Host{
			version: 2, list: []Hierarchy{{Name: unifiedName, Mount: path.Clean(root)}},
		}, nil
	}
	self, err := rawfile.Read("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	if list, complete := locate(self, path.Clean(root), filesystem); complete {
		return &Host{version: 1, list: list}, nil
	}
	raw, err := rawfile.Read("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	h := &Host{version: 1, list: parseMounts(raw, root)}
	if len(h.list) == 0 {
		return nil, fmt.Errorf(
			"control groups: nothing is mounted below %q: %w", root, errdefs.ErrUnavailable,
		)
	}
	return h, nil
}

// parseMounts finds the hierarchies in the text of mountinfo (proc_pid_mountinfo(5)). Of several
// mounts of one the first below root counts.
func parseMounts(raw []byte, root string) (list []Hierarchy) {
	seen := map[string]bool{}
	for line := range bytes.Lines(raw) {
		before, after, ok := bytes.Cut(line, []byte(" - "))
		if !ok || !bytes.HasPrefix(after, []byte("cgroup")) {
			continue
		}
		f, g := strings.Fields(string(before)), strings.Fields(string(after))
		if len(f) < 5 || len(g) < 3 || f[3] != "/" || path.Dir(f[4]) != path.Clean(root) {
			continue
		}
		h := Hierarchy{Mount: f[4]}
		switch g[0] {
		case "cgroup2":
			h.Name = unifiedName
		case "cgroup":
			for _, opt := range strings.Split(g[2], ",") {
				name, named := strings.CutPrefix(opt, "name=")
				switch {
				case named:
					h.Name, h.Options = name, []string{"none", opt}
				case slices.Contains(controllers, opt):
					h.Controllers = append(h.Controllers, opt)
				}
			}
			if len(h.Controllers) > 0 {
				h.Name, h.Options = h.Controllers[0], h.Controllers
			}
		}
		if h.Name != "" && !seen[h.Name] {
			seen[h.Name] = true
			list = append(list, h)
		}
	}
	return list
}

// controllers are those of version 1.
var controllers = []string{
	"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb",
	"net_cls", "net_prio", "perf_event", "rdma", "misc",
}

// Version is the version that holds the controllers: 1 also for a host that has both.
func (h *Host) Version() int { return h.version }

// Tasks is how many version 1 hierarchies a process has to enter: len(Join.Tasks) of every group.
func (h *Host) Tasks() (n int) {
	for i := range h.list {
		if h.list[i].Name != unifiedName {
			n++
		}
	}
	return n
}

// Hierarchies lists the hierarchies. Not to be modified.
func (h *Host) Hierarchies() []Hierarchy { return h.list }

// mount finds where a controller is.
func (h *Host) mount(controller string) (string, bool) {
	for i := range h.list {
		if slices.Contains(h.list[i].Controllers, controller) {
			return h.list[i].Mount, true
		}
	}
	return "", false
}

// TaskPaths are the version 1 files that a process enters the group by, below the directory that
// hierarchies are mounted in.
func (h *Host) TaskPaths(p string) (list []string) {
	for i := range h.list {
		if h.list[i].Name != unifiedName {
			list = append(list, path.Base(h.list[i].Mount)+path.Clean("/"+p)+"/tasks")
		}
	}
	return list
}

// Sub names groups below p by controller, with "" for all hierarchies: what is below one controller's
// is below that of all others in its hierarchy. It returns the group of the version 2 tree and, as
// TaskPaths does, the files of version 1. Errors: errdefs.ErrInvalidArgument for a controller that
// the host does not have and for a path that is not below p, errdefs.ErrNotFound for a group that
// does not exist.
func (h *Host) Sub(p string, sub map[string]string) (unified string, tasks []string, err error) {
	groups, named := make([]string, len(h.list)), make([]string, len(h.list))
	for i := range groups {
		groups[i] = p
	}
	for _, name := range slices.Sorted(maps.Keys(sub)) {
		group, err := Below(p, sub[name])
		if err != nil {
			return "", nil, err
		}
		found := name == ""
		for i := range h.list {
			switch {
			case name == "":
			case !h.list[i].has(name):
				continue
			case named[i] != "" && group != groups[i]:
				return "", nil, fmt.Errorf(
					"controllers %s and %s are of one hierarchy, and cannot be in two groups: %w",
					named[i], name, errdefs.ErrInvalidArgument,
				)
			}
			found, groups[i], named[i] = true, group, name
		}
		if !found {
			return "", nil, fmt.Errorf(
				"unknown controller %s: %w", name, errdefs.ErrInvalidArgument,
			)
		}
	}
	unified = p
	for i := range h.list {
		dir := h.list[i].Mount + path.Clean("/"+groups[i])
		if err := unix.Access(dir, unix.F_OK); err != nil {
			return "", nil, fmt.Errorf(
				"cannot join: adding pid to %q: %w: %w", dir, err, errdefs.ErrNotFound,
			)
		}
		if h.list[i].Name == unifiedName {
			unified = groups[i]
			continue
		}
		tasks = append(tasks, path.Base(h.list[i].Mount)+path.Clean("/"+groups[i])+"/tasks")
	}
	return unified, tasks, nil
}

// has says whether a controller, or a name as "name=systemd", is of this version 1 hierarchy.
func (h *Hierarchy) has(name string) bool {
	return slices.Contains(h.Controllers, name) ||
		len(h.Controllers) == 0 && name == "name="+h.Name
}

// Root is the directory that hierarchies are mounted in.
func (h *Host) Root() string { return path.Dir(h.list[0].Mount) }

// locate finds the hierarchies that /proc/self/cgroup lists (cgroups(7)) at the places that every
// distribution gives them: the controllers with commas, or one of them, or what follows "name=",
// and "unified". probe is the type of a filesystem (statfs(2)). It says whether all of version 1
// were found. The table of mounts would tell as well, but grows with every container.
func locate(
	self []byte, root string, probe func(path string) int64,
) (list []Hierarchy, complete bool) {
	var two []Hierarchy
	for line := range bytes.Lines(self) {
		f := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(f) != 3 {
			continue
		}
		names := strings.Split(f[1], ",")
		if f[1] == "" {
			if dir := path.Join(root, unifiedName); probe(dir) == unix.CGROUP2_SUPER_MAGIC {
				two = []Hierarchy{{Name: unifiedName, Mount: dir}}
			}
			continue
		}
		h := Hierarchy{Name: names[0], Controllers: names, Options: names}
		places := names
		if name, named := strings.CutPrefix(f[1], "name="); named {
			h = Hierarchy{Name: name, Options: []string{"none", f[1]}}
			places = []string{name}
		} else if len(names) > 1 {
			places = append([]string{f[1]}, names...)
		}
		for _, p := range places {
			if dir := path.Join(root, p); probe(dir) == unix.CGROUP_SUPER_MAGIC {
				h.Mount = dir
				break
			}
		}
		if h.Mount == "" {
			return nil, false
		}
		list = append(list, h)
	}
	return append(list, two...), len(list) > 0
}

// filesystem is the type of the filesystem at a path, or 0.
func filesystem(path string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0
	}
	return int64(st.Type)
}
