package lxc

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"strake/lxc/config"
	"strake/lxc/ocispec"
)

// DestroyOptions say how a container is destroyed.
type DestroyOptions struct {
	Force     bool // stop it first
	Snapshots bool // its snapshots too
}

// Destroy removes a container with its root file system. One that runs is
// errdefs.ErrFailedPrecondition, unless it is to be stopped first; so is one that has snapshots,
// unless they are to be destroyed too.
func (c *Container) Destroy(ctx context.Context, o DestroyOptions) error {
	if o.Force {
		if err := c.Stop(ctx, StopOptions{Kill: true}); err != nil &&
			!errdefs.IsFailedPrecondition(err) {
			return err
		}
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := stopped(ctx, c); err != nil {
		return err
	}
	snaps, err := c.Snapshots().List()
	if err != nil {
		return err
	}
	if len(snaps) > 0 && !o.Snapshots {
		return fmt.Errorf("container %q has snapshots: %w", c.name, errdefs.ErrFailedPrecondition)
	}
	cfg, err := c.Config()
	if o.Force && errdefs.IsNotFound(err) {
		return nil // An ephemeral one, which its end has destroyed.
	}
	if err != nil {
		return err
	}
	if err := unused(c); err != nil {
		return err
	}
	for _, s := range snaps {
		if err := c.Snapshots().destroy(ctx, s.Name); err != nil {
			return err
		}
	}
	if err := c.Snapshots().clear(); err != nil {
		return err
	}
	return remove(ctx, c, cfg)
}

// remove removes the container with its root file system. It is safe to repeat. Callers hold the
// lock.
func remove(ctx context.Context, c *Container, cfg *config.Config) error {
	if err := c.hooks(ctx, cfg, "destroy", ocispec.Moment{}); err != nil {
		return err
	}
	if err := unmountBelow(c.dir); err != nil {
		return err
	}
	managed := cfg.Rootfs.Managed == nil || *cfg.Rootfs.Managed
	if dir := cfg.Rootfs.Path; managed && dir != "" {
		dir = strings.TrimPrefix(dir, "dir:")
		if o, err := overlay(cfg, ""); err == nil && o != nil {
			// What is below the changes is another container's.
			dir = o.Upper
		}
		if filepath.IsAbs(dir) && filepath.Clean(dir) != "/" {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	if err := undepend(c); err != nil {
		return err
	}
	// The configuration last but for its directory: until then it is a container to be destroyed.
	return os.RemoveAll(c.dir)
}

// removeEphemeral removes a container that has ended and is not to be kept. Callers hold the lock.
func removeEphemeral(ctx context.Context, c *Container) error {
	cfg, err := c.Config()
	if err != nil {
		return err
	}
	if err := unused(c); err != nil {
		c.path.log.Warn("an ephemeral container is kept", "container", c.name, "error", err)
		return nil
	}
	return remove(ctx, c, cfg)
}
