package lmctfy

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"strake/container/cgroup"
	"strake/lmctfy/name"
	"strake/lmctfy/spec"
)

// Config says where containers are.
type Config struct {
	// CgroupRoot is where hierarchies are mounted; /sys/fs/cgroup if empty.
	CgroupRoot string
	// Base is the control group that is the root container, "/" if empty: the whole machine.
	Base string
	// Fault, if set, is called before each step of Create and Destroy with its name. Tests end the
	// process there.
	Fault func(step string)
}

// Machine is a host with its containers.
type Machine struct {
	base   string // without a slash at its end: "" for the kernel's root
	host   *cgroup.Host
	anchor *tree   // it holds a group of every container
	trees  []*tree // of the resources; on version 2 the anchor alone
	fault  func(step string)
}

// tree is one hierarchy of groups.
type tree struct {
	*cgroup.Host
	controllers []string // of version 1
	anchor      bool
	batch       bool // batch containers have a place of their own
}

// controllersOf are the version 1 controllers that isolate a resource. The first is necessary.
var controllersOf = map[spec.Resource][]string{
	spec.CPU:     {"cpu", "cpuacct", "cpuset"},
	spec.Memory:  {"memory"},
	spec.Device:  {"devices"},
	spec.BlockIO: {"blkio"},
}

// controllers2 are their names on version 2. Devices need none there.
var controllers2 = map[spec.Resource][]string{
	spec.CPU: {"cpu", "cpuset"}, spec.Memory: {"memory"}, spec.BlockIO: {"io"},
}

const (
	// batchPart is the place of batch containers in the version 1 trees of processors.
	batchPart = "batch"
	// leafPart holds the processes of a container on version 2.
	leafPart = ".tasks"
)

// Open reads the layout of the machine. There is nothing to close. Errors: errdefs.ErrUnavailable
// where control groups, or the freezer tree of version 1, are not mounted.
func Open(cfg Config) (*Machine, error) {
	h, err := cgroup.Detect(cfg.CgroupRoot)
	if err != nil {
		return nil, err
	}
	base := path.Clean("/" + cfg.Base)
	m := &Machine{base: strings.TrimSuffix(base, "/"), host: h, fault: cfg.Fault}
	if h.Version() == 2 {
		m.anchor = &tree{Host: h, anchor: true}
		m.trees = []*tree{m.anchor}
		return m, nil
	}
	freezer, ok := h.Only("freezer")
	if !ok {
		return nil, fmt.Errorf(
			"control groups: the tree of the controller freezer, which lists containers, is not "+
				"mounted: %w", errdefs.ErrUnavailable,
		)
	}
	m.anchor = &tree{Host: freezer, anchor: true, controllers: []string{"freezer"}}
	for _, r := range spec.All {
		for _, c := range controllersOf[r] {
			m.addTree(c)
		}
	}
	return m, nil
}

// addTree adds the version 1 tree of a controller, if it is mounted and not known yet.
func (m *Machine) addTree(controller string) {
	only, ok := m.host.Only(controller)
	if !ok {
		return
	}
	list := only.Hierarchies()[0].Controllers
	for _, t := range m.trees {
		if slices.Contains(t.controllers, controller) {
			return
		}
	}
	m.trees = append(m.trees, &tree{
		Host: only, controllers: list,
		batch: slices.Contains(list, "cpu") || slices.Contains(list, "cpuacct"),
	})
}

// of finds the tree that has a version 1 controller, or that of version 2.
func (m *Machine) of(controller string) *tree {
	for _, t := range m.trees {
		if m.host.Version() == 2 || slices.Contains(t.controllers, controller) {
			return t
		}
	}
	return nil
}

// at is the group of a path in a tree.
func (t *tree) at(p string) (*cgroup.Group, error) {
	if p == "" || p == "/" {
		return t.Top(), nil
	}
	return t.At(p)
}

func (t *tree) exists(p string) bool {
	g, err := t.at(p)
	return err == nil && g.Exists()
}

// find looks for the group of a container in a tree of a resource. isolated says whether the
// container has one of its own; otherwise it is that of the nearest container above which has, and
// rest is what remains of the name.
func (m *Machine) find(t *tree, n name.Name) (at string, rest []string, isolated bool) {
	at = m.base
	for i, part := range n.Parts() {
		next := at + "/" + strings.Join(append(slices.Clone(rest), part), ":")
		if i == 0 && t.batch && !t.exists(next) && part != batchPart {
			if batch := at + "/" + batchPart + "/" + part; t.exists(batch) {
				next = batch
			}
		}
		if t.exists(next) {
			at, rest = next, nil
			continue
		}
		rest = append(rest, part)
	}
	return at, rest, len(rest) == 0
}

// place is where a new container's group belongs in a tree of a resource.
func (m *Machine) place(t *tree, n name.Name, s *spec.ContainerSpec) string {
	if n.Top() && t.batch && batch(s) {
		return m.base + "/" + batchPart + "/" + n.Base()
	}
	at, rest, _ := m.find(t, n.Parent())
	return at + "/" + strings.Join(append(rest, n.Base()), ":")
}

// batch says whether a specification is of a batch container.
func batch(s *spec.ContainerSpec) bool {
	l := spec.Latency(s)
	return l == spec.SchedulingLatency_NORMAL || l == spec.SchedulingLatency_BEST_EFFORT
}

// path is the container's group in the anchor.
func (m *Machine) path(n name.Name) string {
	if n == name.Root {
		return m.base
	}
	return m.base + string(n)
}

// group is the container's group in the anchor.
func (m *Machine) group(n name.Name) (*cgroup.Group, error) { return m.anchor.at(m.path(n)) }

// nameOf is the container of a path in a tree, if a container can have such a name.
func (m *Machine) nameOf(t *tree, p string) (name.Name, bool) {
	rest, below := strings.CutPrefix(p+"/", m.base+"/")
	if !below {
		return "", false
	}
	rest = strings.TrimSuffix(rest, "/")
	if t.batch {
		rest = strings.TrimPrefix(rest, batchPart+"/")
	}
	if m.host.Version() == 2 {
		rest = strings.TrimSuffix(strings.TrimSuffix(rest, leafPart), "/")
	}
	if !t.anchor {
		rest = strings.ReplaceAll(rest, ":", "/")
	}
	n, err := name.Resolve("/"+rest, name.Root)
	return n, err == nil
}

// Detect is the container that a process or a thread is in. One that is in a group which is no
// container's, or outside of Config.Base, is in the nearest container above. Errors:
// errdefs.ErrNotFound if there is no such process.
func (m *Machine) Detect(tid int) (name.Name, error) {
	p, err := m.anchor.Of(tid)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("process %d: it does not exist: %w", tid, errdefs.ErrNotFound)
	}
	if err != nil {
		return "", err
	}
	for p != "/" && p != "." {
		if n, ok := m.nameOf(m.anchor, p); ok {
			return n, nil
		}
		p = path.Dir(p)
	}
	return name.Root, nil
}

// Get finds a container. Errors: errdefs.ErrNotFound.
func (m *Machine) Get(n name.Name) (*Container, error) {
	ok, err := m.exists(n)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("container %q: %w", n, errdefs.ErrNotFound)
	}
	return &Container{m: m, name: n}, nil
}

// exists says whether there is a container, after it has completed what a killed command began.
func (m *Machine) exists(n name.Name) (bool, error) {
	if n == name.Root {
		return true, nil
	}
	pending, err := m.settle(n.Parent())
	if err != nil || pending == n.Base() {
		return false, err
	}
	return m.anchor.exists(m.path(n)), nil
}

// Container is a container that existed when Get or Create returned it. It holds nothing open.
type Container struct {
	m    *Machine
	name name.Name
}

// Name is the container's name.
func (c *Container) Name() name.Name { return c.name }

// isolated are the resources that the container isolates: those of its record, or for a group that
// another program made those in whose trees it is.
func (c *Container) isolated() ([]spec.Resource, *spec.ContainerSpec, error) {
	g, err := c.m.group(c.name)
	if err != nil {
		return nil, nil, err
	}
	s, err := readRecord(g.Dir())
	if err != nil {
		return nil, nil, fmt.Errorf("container %q: %w", c.name, err)
	}
	if s != nil {
		return spec.Resources(s), s, nil
	}
	var list []spec.Resource
	if c.m.host.Version() == 2 {
		have, _ := g.File("cgroup.controllers")
		for _, r := range spec.All {
			need := controllers2[r]
			if len(need) > 0 && slices.Contains(strings.Fields(have), need[0]) {
				list = append(list, r)
			}
		}
		return list, nil, nil
	}
	for _, r := range spec.All {
		if len(controllersOf[r]) == 0 {
			continue
		}
		if t := c.m.of(controllersOf[r][0]); t != nil {
			if _, _, ok := c.m.find(t, c.name); ok {
				list = append(list, r)
			}
		}
	}
	return list, nil, nil
}
