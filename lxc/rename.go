package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// renamed is the configuration under the new name in the directory of a container that is renamed.
const renamed = "config.renamed"

// Rename gives the container another name in its Path, and the host name with it. One that runs, has
// snapshots or is used by others is errdefs.ErrFailedPrecondition; a name that is taken is
// errdefs.ErrAlreadyExists. A rename that was killed is completed by the next with the same names.
func (c *Container) Rename(ctx context.Context, to *Container) error {
	unlock, err := lockBoth(ctx, c, to)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(to.dir, renamed)); err == nil && !c.Defined() {
		return finishRename(ctx, c, to)
	}
	if err := to.clearPartial(); err != nil {
		return err
	}
	if to.Defined() {
		return fmt.Errorf(
			"container %q already exists in %s: %w", to.name, to.path.dir, errdefs.ErrAlreadyExists,
		)
	}
	if err := stopped(ctx, c); err != nil {
		return err
	}
	cfg, err := c.Config()
	if err != nil {
		return err
	}
	snaps, err := c.Snapshots().List()
	if err != nil {
		return err
	}
	if len(snaps) > 0 {
		return fmt.Errorf("container %q has snapshots: %w", c.name, errdefs.ErrFailedPrecondition)
	}
	if err := unused(c); err != nil {
		return err
	}
	if err := cfg.Rewrite(func(key, value string) string {
		if key == "lxc.uts.name" {
			return to.name
		}
		return strings.ReplaceAll(value, c.dir+"/", to.dir+"/")
	}); err != nil {
		return err
	}
	if cfg.Uts.Name != to.name {
		if err := cfg.Set("lxc.uts.name", to.name); err != nil {
			return err
		}
	}
	if err := writeConfig(filepath.Join(c.dir, renamed), cfg); err != nil {
		return err
	}
	if err := os.Rename(c.dir, to.dir); err != nil {
		return errors.Join(err, os.Remove(filepath.Join(c.dir, renamed)))
	}
	return finishRename(ctx, c, to)
}

// finishRename does what follows the renaming of the directory. It is safe to repeat.
func finishRename(ctx context.Context, c, to *Container) error {
	used, _, err := readOwners(filepath.Join(to.dir, dependsFile))
	if err != nil {
		return err
	}
	for _, x := range used {
		if err := errors.Join(note(x, ownerOf(to), true), note(x, ownerOf(c), false)); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(to.dir, renamed), filepath.Join(to.dir, "config")); err != nil {
		return err
	}
	cfg, err := to.Config()
	if err != nil {
		return err
	}
	k := &copying{from: c, to: to, o: &CopyOptions{}, cfg: cfg, root: cfg.Rootfs.Path, kind: "dir"}
	// Hooks of the kind clone are for copies.
	delete(cfg.Hooks, "clone")
	o, err := overlay(cfg, "")
	switch {
	case err != nil:
		return err
	case o != nil:
		k.kind = "overlay"
	case k.root != "":
		if k.target, err = rootDir(cfg); err != nil {
			return err
		}
	}
	return k.adapt(ctx)
}
