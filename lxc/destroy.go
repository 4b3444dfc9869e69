package lxc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

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
	if err := c.repair(ctx); err != nil {
		return err
	}
	if r, err := c.load(); err != nil {
		return err
	} else if r != nil {
		return fmt.Errorf("container %q is running: %w", c.name, errdefs.ErrFailedPrecondition)
	}
	snaps, err := os.ReadDir(filepath.Join(c.dir, "snaps"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(snaps) > 0 && !o.Snapshots {
		return fmt.Errorf("container %q has snapshots: %w", c.name, errdefs.ErrFailedPrecondition)
	}
	cfg, err := c.Config()
	if err != nil {
		return err
	}
	if err := c.hooks(ctx, cfg, "destroy", ocispec.Moment{}); err != nil {
		return err
	}
	if err := unmountBelow(c.dir); err != nil {
		return err
	}
	managed := cfg.Rootfs.Managed == nil || *cfg.Rootfs.Managed
	if dir := cfg.Rootfs.Path; managed && dir != "" {
		dir = strings.TrimPrefix(dir, "dir:")
		if filepath.IsAbs(dir) && filepath.Clean(dir) != "/" {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	// The configuration last but for its directory: until then it is a container to be destroyed.
	return os.RemoveAll(c.dir)
}
