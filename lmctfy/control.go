package lmctfy

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"strake/lmctfy/name"
	"strake/lmctfy/spec"
)

// notRoot is the error for what cannot be done to the whole machine.
func (c *Container) notRoot(what string) error {
	if c.name == name.Root {
		return fmt.Errorf(
			"container %q is the machine, which cannot be %s: %w", c.name, what,
			errdefs.ErrInvalidArgument,
		)
	}
	return nil
}

// KillAll ends all processes that have a thread in the container, not those of containers inside,
// and waits until they are gone or ctx ends. Errors: errdefs.ErrInvalidArgument for the root,
// errdefs.ErrFailedPrecondition if a container above is paused, where no process ends.
func (c *Container) KillAll(ctx context.Context) error {
	if err := c.notRoot("killed"); err != nil {
		return err
	}
	if err := c.killable(); err != nil {
		return err
	}
	groups, err := c.own()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	for _, g := range groups {
		if err := g.KillDirect(ctx); err != nil {
			return fmt.Errorf("container %q: %w", c.name, err)
		}
	}
	return nil
}

// Pause stops all processes of the container and of those inside, until Resume. A process that
// enters stops too. Errors: errdefs.ErrInvalidArgument for the root.
func (c *Container) Pause(ctx context.Context) error {
	if err := c.notRoot("paused"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	g, err := c.m.group(c.name)
	if err == nil {
		err = g.Freeze(ctx)
	}
	if err != nil {
		return fmt.Errorf("container %q: pause: %w", c.name, err)
	}
	return nil
}

// Resume undoes Pause. A container in a paused one stays paused. Errors: errdefs.ErrInvalidArgument
// for the root, errdefs.ErrFailedPrecondition if the container above is paused.
func (c *Container) Resume(ctx context.Context) error {
	if err := c.notRoot("resumed"); err != nil {
		return err
	}
	if err := (&Container{m: c.m, name: c.name.Parent()}).running(); err != nil {
		return fmt.Errorf("container %q: %w", c.name, err)
	}
	g, err := c.m.group(c.name)
	if err == nil {
		err = g.Thaw(ctx)
	}
	if err != nil {
		return fmt.Errorf("container %q: resume: %w", c.name, err)
	}
	return nil
}

// running is an error if the container, or one above it, is paused.
func (c *Container) running() error {
	for n := c.name; n != name.Root; n = n.Parent() {
		g, err := c.m.group(n)
		if err != nil {
			return err
		}
		if frozen, err := g.Frozen(); err == nil && frozen {
			return fmt.Errorf("container %q is paused: %w", n, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// Update changes the limits of the container. Fields that change does not set keep their values
// with spec.Diff, and get their defaults with spec.Replace. What the host cannot enforce is
// returned. Errors: those of spec.CheckUpdate and spec.Validate; errdefs.ErrFailedPrecondition and
// errdefs.ErrInvalidArgument with what the kernel refused, after which the limits before that one
// are changed. Errors: errdefs.ErrInvalidArgument for the root.
func (c *Container) Update(
	ctx context.Context, change *spec.ContainerSpec, policy spec.Policy,
) ([]Unenforced, error) {
	if err := c.notRoot("limited"); err != nil {
		return nil, err
	}
	release, err := c.m.lock(ctx, c.name.Parent())
	if err != nil {
		return nil, err
	}
	defer release()
	if _, err := c.m.Get(c.name); err != nil {
		return nil, err
	}
	isolated, record, err := c.isolated()
	if err != nil {
		return nil, err
	}
	old := record
	if old == nil {
		if old, _, err = c.Spec(); err != nil {
			return nil, err
		}
	}
	if err := spec.CheckUpdate(isolated, old, change, policy); err != nil {
		return nil, fmt.Errorf("container %q: %w", c.name, err)
	}
	merged := spec.Merge(old, change, policy)
	if err := spec.Validate(merged); err != nil {
		return nil, err
	}
	// Resources that the change does not name stay as they are in the kernel.
	part := spec.Only(merged, spec.Resources(change))
	notes, err := c.m.apply(c.name, part, old)
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", c.name, err)
	}
	if record == nil {
		return notes, nil // another program's container is not ours to describe
	}
	g, err := c.m.group(c.name)
	if err != nil {
		return nil, err
	}
	return notes, writeRecord(g.Dir(), merged)
}

// has says whether a list of resources has one.
func has(list []spec.Resource, r spec.Resource) bool { return slices.Contains(list, r) }
