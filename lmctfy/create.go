package lmctfy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/lmctfy/name"
	"strake/lmctfy/spec"
)

// Create makes a container. On an error nothing that it made is left. What the host cannot enforce
// of the specification is returned beside the container. Errors: errdefs.ErrAlreadyExists,
// errdefs.ErrNotFound for the container above, errdefs.ErrInvalidArgument with the field,
// errdefs.ErrFailedPrecondition with the field for what this host lacks,
// errdefs.ErrResourceExhausted if the container above has as many as its children_limit.
func (m *Machine) Create(
	ctx context.Context, n name.Name, s *spec.ContainerSpec,
) (c *Container, notes []Unenforced, err error) {
	if n == name.Root {
		return nil, nil, fmt.Errorf("container %q: %w", n, errdefs.ErrAlreadyExists)
	}
	if n == reserved {
		return nil, nil, fmt.Errorf(
			"container %q: the name is reserved for the groups of batch containers: %w", n,
			errdefs.ErrInvalidArgument,
		)
	}
	if err := spec.Validate(s); err != nil {
		return nil, nil, err
	}
	if err := m.root(); err != nil {
		return nil, nil, err
	}
	release, err := m.lock(ctx, n.Parent())
	if err != nil {
		return nil, nil, err
	}
	defer release()
	if err := m.vacant(n, s); err != nil {
		return nil, nil, err
	}
	if err := m.begin(n, making); err != nil {
		return nil, nil, err
	}
	notes, err = m.make(n, s)
	if err != nil {
		err = errors.Join(err, m.remove(context.WithoutCancel(ctx), n, making))
	}
	m.step("end")
	if endErr := m.end(n); err == nil {
		err = endErr
	}
	if err != nil {
		return nil, nil, err
	}
	return &Container{m: m, name: n}, notes, nil
}

// reserved is the name that no container can have, because its groups on version 1 would be those
// of all batch containers.
const reserved name.Name = "/" + batchPart

// root makes the groups of the root container, if they are not the kernel's.
func (m *Machine) root() error {
	if m.base == "" || m.anchor.exists(m.base) {
		return nil
	}
	for _, t := range append([]*tree{m.anchor}, m.trees...) {
		opt := cgroup.CreateOptions{Controllers: []string{}}
		g, err := t.Create(m.base, nil, opt)
		if err != nil {
			return fmt.Errorf("root container: %w", err)
		}
		g.Close()
	}
	return nil
}

// vacant is an error if there is a container of this name, if its groups are in use, or if there is
// no room for it. The caller holds the lock.
func (m *Machine) vacant(n name.Name, s *spec.ContainerSpec) error {
	if m.anchor.exists(m.path(n)) {
		return fmt.Errorf("container %q: %w", n, errdefs.ErrAlreadyExists)
	}
	for _, t := range m.trees {
		p := m.place(t, n, s)
		if at, _, found := m.find(t, n); found {
			p = at
		}
		if t.exists(p) {
			return fmt.Errorf(
				"container %q: another program has made the group %q in the tree of %s: %w", n, p,
				t.Hierarchies()[0].Name, errdefs.ErrAlreadyExists,
			)
		}
	}
	above, err := m.group(n.Parent())
	if err != nil {
		return err
	}
	record, err := readRecord(above.Dir())
	if err != nil {
		return err
	}
	if record == nil || record.ChildrenLimit == nil {
		return nil
	}
	children, err := m.children(n.Parent())
	if err != nil {
		return err
	}
	if int64(len(children)) >= *record.ChildrenLimit {
		return fmt.Errorf(
			"container %q has %d containers in it, and its children_limit is %d: %w", n.Parent(),
			len(children), *record.ChildrenLimit, errdefs.ErrResourceExhausted,
		)
	}
	return nil
}

// make makes the container's groups: those of the resources first, so that the container exists
// when they do.
func (m *Machine) make(n name.Name, s *spec.ContainerSpec) (notes []Unenforced, err error) {
	places, err := m.places(n, s)
	if err != nil {
		return nil, err
	}
	m.step("begin")
	for _, p := range places {
		if p.tree.batch && n.Top() && batch(s) {
			if err := m.makeBatch(p.tree); err != nil {
				return nil, err
			}
		}
		g, err := p.tree.Create(
			p.path, nil, cgroup.CreateOptions{Controllers: m.controllers(s)},
		)
		if err != nil {
			return nil, err
		}
		g.Close()
		m.step("group " + p.tree.Hierarchies()[0].Name)
	}
	notes, err = m.apply(n, s, nil)
	if err != nil {
		return nil, err
	}
	m.step("limits")
	if err := m.makeAnchor(n); err != nil {
		return nil, err
	}
	m.step("anchor")
	g, err := m.group(n)
	if err != nil {
		return nil, err
	}
	if err := m.delegate(n, places, s); err != nil {
		return nil, err
	}
	if err := writeRecord(g.Dir(), s); err != nil {
		return nil, err
	}
	m.step("record")
	return notes, nil
}

// placed is a group that a container needs in a tree.
type placed struct {
	tree *tree
	path string
}

// places are the groups that the resources of a specification need.
func (m *Machine) places(n name.Name, s *spec.ContainerSpec) (list []placed, err error) {
	if m.host.Version() == 2 {
		have := m.host.Controllers()
		for _, r := range spec.Resources(s) {
			if need := controllers2[r]; len(need) > 0 && !slices.Contains(have, need[0]) {
				return nil, missing(r, need[0])
			}
		}
		return []placed{{m.anchor, m.path(n)}}, nil
	}
	for _, r := range spec.Resources(s) {
		for i, c := range controllersOf[r] {
			t := m.of(c)
			if t == nil && i == 0 {
				return nil, missing(r, c)
			}
			if t == nil || slices.ContainsFunc(list, func(p placed) bool { return p.tree == t }) {
				continue
			}
			list = append(list, placed{t, m.place(t, n, s)})
		}
	}
	if s.GetCpu().GetMask() != nil && m.of("cpuset") == nil {
		return nil, missing("cpu.mask", "cpuset")
	}
	return list, nil
}

// controllers are those of version 2 that the resources of a specification need.
func (m *Machine) controllers(s *spec.ContainerSpec) []string {
	list := []string{}
	for _, r := range spec.Resources(s) {
		list = append(list, controllers2[r]...)
	}
	return list
}

// makeAnchor makes the group that says that the container exists, and on version 2 the one that
// holds its processes.
func (m *Machine) makeAnchor(n name.Name) error {
	p := m.path(n)
	if m.host.Version() == 2 {
		p += "/" + leafPart
	}
	g, err := m.anchor.Create(p, nil, cgroup.CreateOptions{Controllers: []string{}})
	if err != nil {
		return err
	}
	return g.Close()
}

// makeBatch makes the group above those of batch containers.
func (m *Machine) makeBatch(t *tree) error {
	res := &specs.LinuxResources{}
	if slices.Contains(t.controllers, "cpu") {
		res.CPU = &specs.LinuxCPU{Shares: ptr(uint64(minShares))}
	}
	g, err := t.Create(m.base+"/"+batchPart, res, cgroup.CreateOptions{})
	if err != nil {
		return err
	}
	return g.Close()
}

// apply puts a specification on the groups of its resources.
func (m *Machine) apply(n name.Name, s, old *spec.ContainerSpec) ([]Unenforced, error) {
	group := func(controller string) (*cgroup.Group, error) {
		t := m.of(controller)
		if t == nil {
			return nil, missing("cgroup", controller)
		}
		p, _, isolated := m.find(t, n)
		if !isolated {
			return nil, fmt.Errorf(
				"container %q has no group of its own in the tree of %s: %w", n, controller,
				errdefs.ErrFailedPrecondition,
			)
		}
		return t.at(p)
	}
	w := wanted(s, old, features{
		version: m.host.Version(),
		has: func(controller, file string) bool {
			g, err := group(controller)
			return err == nil && unix.Access(g.Dir()+"/"+file, unix.F_OK) == nil
		},
		above: m.processorsAbove(n),
	})
	for _, controller := range []string{"cpu", "cpuset", "memory", "devices", "blkio"} {
		res := w.resources[controller]
		if res == nil {
			continue
		}
		g, err := group(controller)
		if err == nil {
			err = g.Update(res)
		}
		if err != nil {
			return nil, renamed(err)
		}
	}
	for _, f := range w.files {
		g, err := group(f.controller)
		if err == nil {
			err = g.SetFile(f.file, f.value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", f.field, f.value, err)
		}
	}
	return w.unenforced, nil
}

// processorsAbove are the processors that a container without a mask has, those of the group above,
// or "" if it has these. On version 2 a group with processes cannot go back to naming none (6.1,
// kernel/cgroup/cpuset.c, validate_change).
func (m *Machine) processorsAbove(n name.Name) string {
	t := m.of("cpuset")
	if t == nil {
		return ""
	}
	p, _, _ := m.find(t, n)
	g, err := t.at(p)
	if err != nil {
		return ""
	}
	above, err := t.at(path.Dir(p))
	if err != nil {
		return ""
	}
	file := "cpuset.cpus"
	if m.host.Version() == 2 {
		file = "cpuset.cpus.effective"
	}
	list, _ := above.File(file)
	if now, err := g.File("cpuset.cpus"); err != nil || now == "" || now == list {
		return ""
	}
	return list
}

// delegated are the files of a group that the owner of a container may write (cgroup-v2.rst,
// "Model of Delegation").
var delegated = []string{
	"", "/cgroup.procs", "/tasks", "/cgroup.threads", "/cgroup.subtree_control",
}

// delegate gives the container's groups to the owner that the specification names.
func (m *Machine) delegate(n name.Name, places []placed, s *spec.ContainerSpec) error {
	if s.Owner == nil && s.OwnerGroup == nil {
		return nil
	}
	uid, gid := -1, -1
	if s.Owner != nil {
		uid = int(*s.Owner)
	}
	if s.OwnerGroup != nil {
		gid = int(*s.OwnerGroup)
	}
	list := append([]placed{{m.anchor, m.path(n)}}, places...)
	if m.host.Version() == 2 {
		list = append(list, placed{m.anchor, m.path(n) + "/" + leafPart})
	}
	for _, p := range list {
		g, err := p.tree.at(p.path)
		if err != nil {
			return err
		}
		for _, file := range delegated {
			err := os.Lchown(g.Dir()+file, uid, gid)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("owner: %w", err)
			}
		}
	}
	return nil
}
