package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
)

// Only is the host with no other hierarchies than those of some version 1 controllers, so that a
// group can be made in these alone, at a path of its own. On a host of version 2, where there is
// one tree, it is the host itself. ok says whether there is any hierarchy.
func (h *Host) Only(controllers ...string) (only *Host, ok bool) {
	if h.version == 2 {
		return h, true
	}
	only = &Host{version: h.version}
	for i := range h.list {
		if slices.ContainsFunc(h.list[i].Controllers, func(c string) bool {
			return slices.Contains(controllers, c)
		}) {
			only.list = append(only.list, h.list[i])
		}
	}
	return only, len(only.list) > 0
}

// Tree is the host with one hierarchy only, by its Name; without any if there is none of that name.
func (h *Host) Tree(name string) *Host {
	only := &Host{version: h.version}
	for i := range h.list {
		if h.list[i].Name == name {
			only.list = append(only.list, h.list[i])
		}
	}
	return only
}

// Controllers are those that groups can have here, by their names in version 1 or in version 2.
func (h *Host) Controllers() []string {
	if h.version == 2 {
		return h.two()
	}
	var list []string
	for i := range h.list {
		list = append(list, h.list[i].Controllers...)
	}
	return list
}

// Top is the root group, which is the machine: it can be read and entered, and neither be ended nor
// removed.
func (h *Host) Top() *Group { return &Group{host: h} }

// Dir is the group's directory in the first hierarchy of its host.
func (g *Group) Dir() string { return g.host.list[0].Mount + g.path }

// Exists says whether the group is in the first hierarchy of its host.
func (g *Group) Exists() bool { return unix.Access(g.Dir(), unix.F_OK) == nil }

// Children are the names of the groups directly below, sorted, in the first hierarchy of the host.
// A group that is gone has none.
func (g *Group) Children() (names []string, err error) {
	entries, err := os.ReadDir(g.Dir())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// File reads a file of the group in the first hierarchy of its host, without the line feed at its
// end. Errors: fs.ErrNotExist if the kernel or the group does not have it.
func (g *Group) File(name string) (string, error) {
	raw, err := rawfile.Read(g.Dir() + "/" + name)
	return strings.TrimSuffix(string(raw), "\n"), err
}

// SetFile writes a file of the group in the first hierarchy of its host. Errors: fs.ErrNotExist if
// the kernel or the group does not have it; otherwise what the kernel says.
func (g *Group) SetFile(name, value string) error {
	return writeFile(g.Dir()+"/"+name, []byte(value))
}

// Of is the path of the group that a process or thread is in, in the first hierarchy of the host,
// and "/" for the root. Errors: fs.ErrNotExist if there is no such process.
func (h *Host) Of(tid int) (string, error) {
	raw, err := rawfile.Read(fmt.Sprintf("/proc/%d/cgroup", tid))
	if errors.Is(err, unix.ESRCH) {
		err = fmt.Errorf("process %d: %w", tid, fs.ErrNotExist)
	}
	if err != nil {
		return "", err
	}
	p, ok := h.list[0].pathIn(string(raw))
	if !ok {
		return "", fmt.Errorf("/proc/%d/cgroup has no hierarchy %q", tid, h.list[0].Name)
	}
	return p, nil
}

// pathIn finds the path of this hierarchy in the text of /proc/PID/cgroup (cgroups(7)).
func (h *Hierarchy) pathIn(text string) (p string, ok bool) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case h.Name == unifiedName:
			ok = f[1] == ""
		case len(h.Controllers) > 0:
			ok = slices.Contains(strings.Split(f[1], ","), h.Controllers[0])
		default:
			ok = f[1] == "name="+h.Name
		}
		if ok {
			return path.Clean("/" + f[2]), true
		}
	}
	return "", false
}

// WeightOf is the cgroup2 weight (1 to 10000) that a group gets for shares of version 1 (2 to
// 262144), for those who read a weight back.
func WeightOf(shares uint64) uint64 { return weightOf(shares) }
