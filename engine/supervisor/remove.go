package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/engine/record"
	"strake/engine/state"
	"strake/internal/message"
)

// Remove implements Containers.
func (e *Engine) Remove(ctx context.Context, name string, opt engine.RemoveOptions) error {
	for killed := false; ; killed = true {
		c, err := e.lock(ctx, name)
		if killed && errdefs.IsNotFound(err) {
			return nil // it removed itself
		}
		if err != nil {
			return err
		}
		if c.running() == nil {
			defer c.op.leave()
			return e.remove(ctx, c, opt.Volumes || c.spec.AutoRemove)
		}
		status := c.status()
		c.op.leave()
		if !opt.Force {
			hint := "stop the container before removing or force remove"
			if status == engine.Paused {
				hint = "unpause and then " + hint
			}
			return message.New(
				errdefs.ErrConflict, "cannot remove container %q: container is %s: %s", name,
				status, hint,
			)
		}
		// It ends by the usual way; until then its gate stays open for that.
		if err := e.Kill(ctx, c.id, "SIGKILL"); err != nil && !errdefs.IsConflict(err) &&
			!errdefs.IsNotFound(err) {
			return err
		}
		name = c.id
	}
}

// remove takes a container that does not run out of the world. Its record goes last: as long as it
// is there, the removal is repeated by the next engine. Callers hold op.
func (e *Engine) remove(ctx context.Context, c *container, volumes bool) (err error) {
	e.letGo(ctx, c)
	acts, err := e.apply(c, state.Event{Kind: state.RemoveBegun})
	if err != nil {
		return message.New(errdefs.ErrConflict, "cannot remove container %s: %w", c.id, err)
	}
	e.act(c, acts)
	c.mu.Lock()
	c.removal = &removal{volumes: volumes}
	auto := c.spec.AutoRemove
	c.mu.Unlock()
	defer func() {
		if err != nil {
			e.apply(c, state.Event{Kind: state.RemoveFailed, Reason: err.Error()})
			err = errors.Join(fmt.Errorf("remove container %s: %w", c.id, err), e.save(c))
		}
	}()
	if err := e.fault("remove: mark"); err != nil {
		return err
	}
	if err := e.mark(c, auto); err != nil {
		return err
	}
	e.forgetExit(ctx, c)
	if err := e.fault("remove: layer"); err != nil {
		return err
	}
	if c.res.ImageID != "" {
		if err := e.cfg.Images.Release(ctx, c.rootfsKey()); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	if err := e.removeForeignGroup(ctx, c); err != nil {
		return err
	}
	if err := e.fault("remove: volumes"); err != nil {
		return err
	}
	for i := range c.res.Mounts {
		m := &c.res.Mounts[i]
		if m.Volume == "" {
			continue
		}
		e.volumes.Release(m.Volume, c.id)
		if m.Anonymous && volumes {
			switch err := e.volumes.Remove(m.Volume); {
			case err == nil:
				e.events.publish(
					engine.Event{
						Type: "volume", Action: "destroy", ID: m.Volume,
						Attributes: map[string]string{"driver": "local"},
					},
				)
			case errdefs.IsNotFound(err), errdefs.IsAlreadyExists(err):
				// Gone, or another container uses it by its name.
			default:
				return err
			}
		}
	}
	if err := e.fault("remove: record"); err != nil {
		return err
	}
	if err := c.removeDir(); err != nil {
		return err
	}
	e.warn("remove", e.fault("remove: done"), "container", c.id)
	e.forgetExecs(c)
	e.forget(c)
	e.publish(c, "destroy", nil)
	c.mu.Lock()
	c.removed = true
	c.wake(false, true)
	c.mu.Unlock()
	c.failPending(notFound(c.id))
	return nil
}

// mark records that a removal has begun, so that the next engine finishes it. A container that
// removes itself is removed by the next engine anyway. One without volumes needs no new record: the
// end of its old one is enough, for a directory without it, and a layer without a container, are
// swept.
func (e *Engine) mark(c *container, auto bool) error {
	if auto {
		return nil
	}
	for i := range c.res.Mounts {
		if c.res.Mounts[i].Volume != "" {
			return e.save(c)
		}
	}
	if err := os.Remove(c.path(record.SpecFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
