package lmctfy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lmctfy/name"
)

// Extent says how much Destroy removes.
type Extent int

const (
	// Empty containers only.
	Empty Extent = iota
	// Everything: processes are ended, containers inside are removed too.
	Everything
)

// Destroy removes a container. Errors: errdefs.ErrNotFound; errdefs.ErrFailedPrecondition if a
// container above is paused, so that processes cannot end, or if with Empty there are processes,
// threads or containers in it, or another program has made it; errdefs.ErrInvalidArgument for the
// root.
func (m *Machine) Destroy(ctx context.Context, n name.Name, extent Extent) error {
	if n == name.Root {
		return fmt.Errorf("container %q is the machine: %w", n, errdefs.ErrInvalidArgument)
	}
	if _, err := m.Get(n); err != nil {
		return err
	}
	release, err := m.lock(ctx, n.Parent())
	if err != nil {
		return err
	}
	defer release()
	c, err := m.Get(n)
	if err != nil {
		return err
	}
	if extent == Empty {
		if err := c.removable(); err != nil {
			return err
		}
	}
	if err := c.killable(); err != nil {
		return err
	}
	if err := m.begin(n, removing); err != nil {
		return err
	}
	m.step("begin")
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	// After an error, too, the mark goes: what is left can be seen, and destroyed again.
	err = m.remove(ctx, n, removing)
	m.step("end")
	return errors.Join(err, m.end(n))
}

// killPatience is how long processes may take to end. Those that wait for a device do not.
const killPatience = 30 * time.Second

// killable is an error if there are threads in the container, or below it, that do not end because
// a container above is paused.
func (c *Container) killable() error {
	tids, err := c.Threads(Recursive)
	if err != nil || len(tids) == 0 {
		return err
	}
	if err := (&Container{m: c.m, name: c.name.Parent()}).running(); err != nil {
		return fmt.Errorf("container %q: its processes cannot end: %w", c.name, err)
	}
	return nil
}

// removable is an error if there is something in the container.
func (c *Container) removable() error {
	refuse := func(what string) error {
		return fmt.Errorf(
			"container %q: %s; -f destroys it all the same: %w", c.name, what,
			errdefs.ErrFailedPrecondition,
		)
	}
	g, err := c.m.group(c.name)
	if err != nil {
		return err
	}
	record, err := readRecord(g.Dir())
	if err != nil {
		return err
	}
	if record == nil {
		return refuse("another program has made it")
	}
	children, err := c.Children(Self)
	if err != nil {
		return err
	}
	if len(children) > 0 {
		return refuse(fmt.Sprintf("number of containers in it: %d", len(children)))
	}
	tids, err := c.Threads(Self)
	if err != nil {
		return err
	}
	if len(tids) > 0 {
		return refuse(fmt.Sprintf("number of threads in it: %d", len(tids)))
	}
	return nil
}

// remove ends what is in a container and removes its groups and those of the containers inside, the
// innermost first, the one that says that it exists last. What is missing already is no error. kind
// says what is being done to the container: of one that another program has made, and that is
// removed, groups in all trees of the machine are removed. The caller holds the lock.
func (m *Machine) remove(ctx context.Context, n name.Name, kind string) error {
	g, err := m.group(n)
	if err != nil {
		return err
	}
	// The anchor is where a paused process can be made to go on, without which it does not end.
	if err := g.Kill(ctx, unix.SIGKILL); err != nil {
		return fmt.Errorf("container %q: %w", n, err)
	}
	m.step("kill")
	all, err := m.below(n)
	if err != nil {
		return err
	}
	for _, one := range slices.Backward(append([]name.Name{n}, all...)) {
		if err := m.removeGroups(ctx, one, kind); err != nil {
			return fmt.Errorf("container %q: %w", n, err)
		}
	}
	if n.Top() {
		m.removeBatch()
	}
	if err := g.Remove(ctx); err != nil {
		return fmt.Errorf("container %q: %w", n, err)
	}
	m.step("anchor")
	return nil
}

// removeGroups removes one container's groups but for the one in the anchor.
func (m *Machine) removeGroups(ctx context.Context, n name.Name, kind string) error {
	for _, t := range m.trees {
		p, _, isolated := m.find(t, n)
		if t.anchor || !isolated {
			continue
		}
		g, err := t.at(p)
		if err == nil {
			err = g.Remove(ctx)
		}
		if err != nil {
			return err
		}
		m.step("group " + t.Hierarchies()[0].Name)
	}
	g, err := m.group(n)
	if err != nil || kind == making || m.host.Version() == 2 {
		return err
	}
	record, err := readRecord(g.Dir())
	if errors.Is(err, errdefs.ErrDataLoss) {
		err = nil // it is ours, whatever it says
	} else if err == nil && record == nil {
		err = m.removeElsewhere(ctx, n)
	}
	return err
}

// removeElsewhere removes the group of another program's container in the trees that are of no
// resource.
func (m *Machine) removeElsewhere(ctx context.Context, n name.Name) error {
	for _, h := range m.host.Hierarchies() {
		if slices.Contains(h.Controllers, "freezer") {
			continue
		}
		only := m.host.Tree(h.Name)
		g, err := only.At(m.path(n))
		if err == nil {
			err = g.Remove(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
