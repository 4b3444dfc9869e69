package lmctfy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"strake/container/cgroup"
	"strake/lmctfy/name"
)

// Scope says which containers a list is about.
type Scope int

const (
	// Self is the container itself: its own processes, the containers directly in it.
	Self Scope = iota
	// Recursive is everything below too. Such a list is no snapshot.
	Recursive
)

// Children are the names of the containers in a container, sorted.
func (c *Container) Children(scope Scope) ([]name.Name, error) {
	if _, err := c.m.settle(c.name); err != nil {
		return nil, err
	}
	if scope == Recursive {
		list, err := c.m.below(c.name)
		slices.Sort(list)
		return list, err
	}
	return c.m.children(c.name)
}

// children are the containers directly in n, sorted.
func (m *Machine) children(n name.Name) (list []name.Name, err error) {
	g, err := m.group(n)
	if err != nil {
		return nil, err
	}
	pending, err := mark(g.Dir())
	if err != nil {
		return nil, err
	}
	names, err := g.Children()
	for _, base := range names {
		child, err := name.Resolve("/"+base, name.Root)
		if err != nil || base == pendingBase(pending) {
			continue // no container's name, or one that is being made or removed
		}
		list = append(list, n.Child(child.Base()))
	}
	slices.Sort(list)
	return list, err
}

// below are the containers in n and in those, each before those in it. Containers that are being
// made or removed count.
func (m *Machine) below(n name.Name) (list []name.Name, err error) {
	g, err := m.group(n)
	if err != nil {
		return nil, err
	}
	names, err := g.Children()
	if err != nil {
		return nil, err
	}
	for _, base := range names {
		child, err := name.Resolve("/"+base, name.Root)
		if err != nil {
			continue
		}
		inside, err := m.below(n.Child(child.Base()))
		if err != nil {
			return nil, err
		}
		list = append(append(list, n.Child(child.Base())), inside...)
	}
	return list, nil
}

// Processes are the processes that have a thread in the container, sorted, by their numbers in the
// caller's PID namespace.
func (c *Container) Processes(scope Scope) ([]int, error) {
	return c.tasks(scope, (*cgroup.Group).Pids)
}

// Threads are the threads in the container, sorted. Some may be of processes whose other threads
// are elsewhere.
func (c *Container) Threads(scope Scope) ([]int, error) {
	return c.tasks(scope, (*cgroup.Group).Threads)
}

func (c *Container) tasks(
	scope Scope, list func(*cgroup.Group, cgroup.Scope) ([]int, error),
) (ids []int, err error) {
	groups, err := c.own()
	if err != nil {
		return nil, err
	}
	s := cgroup.Direct
	if scope == Recursive {
		s, groups = cgroup.Recursive, groups[:1]
	}
	for _, g := range groups {
		some, err := list(g, s)
		if err != nil {
			return nil, err
		}
		ids = append(ids, some...)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// own are the groups of the anchor that hold the container's own processes: the container's group,
// and on version 2 the one inside of it.
func (c *Container) own() (list []*cgroup.Group, err error) {
	g, err := c.m.group(c.name)
	if err != nil {
		return nil, err
	}
	list = []*cgroup.Group{g}
	if c.m.host.Version() == 2 {
		leaf, err := c.m.anchor.at(c.m.path(c.name) + "/" + leafPart)
		if err != nil {
			return nil, err
		}
		if leaf.Exists() {
			list = append(list, leaf)
		}
	}
	return list, nil
}

// removeBatch removes the groups above those of batch containers if they are empty. The caller
// holds the lock of the root.
func (m *Machine) removeBatch() {
	for _, t := range m.trees {
		if !t.batch {
			continue
		}
		dir := filepath.Join(t.Hierarchies()[0].Mount, m.base, batchPart)
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // batch containers are left
		}
	}
}
