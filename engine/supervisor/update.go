package supervisor

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
	"strake/engine/naming"
	"strake/engine/ocispec"
	"strake/internal/message"
)

// Rename implements Containers.
func (e *Engine) Rename(ctx context.Context, name, to string) error {
	to = strings.TrimPrefix(to, "/")
	if to == "" {
		return message.New(errdefs.ErrInvalidArgument, "Neither old nor new names may be empty")
	}
	if err := naming.Check(to); err != nil {
		return err
	}
	c, err := e.lock(ctx, name)
	if err != nil {
		return err
	}
	defer c.op.leave()
	old := c.spec.Name
	if old == to {
		return message.New(
			errdefs.ErrInvalidArgument,
			"Renaming a container with the same name as its current name",
		)
	}
	if err := e.reserve(to, c); err != nil {
		return err
	}
	set := func(n string) {
		c.mu.Lock()
		s := c.spec
		s.Name = n
		c.spec = s
		c.mu.Unlock()
	}
	set(to)
	err = e.fault("rename: record")
	if err == nil {
		err = e.saveSpec(c)
	}
	if err != nil {
		set(old)
		e.release(to)
		return err
	}
	e.release(old)
	e.publish(c, "rename", map[string]string{"oldName": "/" + old})
	return nil
}

// Update implements Containers: limits are merged over the container's and, where it runs, applied
// at once.
func (e *Engine) Update(
	ctx context.Context, name string, res specs.LinuxResources, restart *engine.RestartPolicy,
	front func(json.RawMessage) (json.RawMessage, error),
) (warnings []string, err error) {
	c, err := e.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer c.op.leave()
	c.mu.Lock()
	old, r := c.spec, c.run
	c.mu.Unlock()
	warnings = e.cfg.Groups.Enforced(&res)
	next := old
	next.Resources = ocispec.MergeResources(old.Resources, res)
	if restart != nil {
		next.Restart = *restart
	}
	if front != nil {
		if next.Front, err = front(old.Front); err != nil {
			return nil, err
		}
	}
	if err := checkPolicy(&next); err != nil {
		return nil, err
	}
	if err := e.fault("update: limits"); err != nil {
		return nil, err
	}
	if r != nil {
		applied := res
		applied.BlockIO = ocispec.Lift(old.Resources.BlockIO, res.BlockIO)
		if err := r.task.Update(ctx, &applied); err != nil {
			return nil, message.New(
				errdefs.ErrInvalidArgument, "Cannot update container %s: %w", c.id, err,
			)
		}
	}
	c.mu.Lock()
	c.spec = next
	c.mu.Unlock()
	e.warn("update", e.fault("update: record"), "container", c.id)
	if err := e.saveSpec(c); err != nil {
		c.mu.Lock()
		c.spec = old
		c.mu.Unlock()
		return nil, err
	}
	e.publish(c, "update", nil)
	return warnings, nil
}
