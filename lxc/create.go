package lxc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"strake/lxc/config"
	"strake/lxc/template"
)

// CreateOptions say how a container is made.
type CreateOptions struct {
	// Template is a name ("busybox", "debian", "oci", "local", "download", "none" or "" for no
	// template), or the path of a program as LXC's templates are.
	Template string
	Args     []string // the template's own
	// ConfigFile is what the container's configuration begins with; "": nothing.
	ConfigFile string
	// Backing is "dir", "overlay" or "best"; "": dir.
	Backing string
	// RootDir is the root file system; "": rootfs in the container's directory.
	RootDir string
	// Output receives what the template says.
	Output *os.File
}

// partial is a file in the directory of a container that is being made: one that was killed there is
// removed by the next that makes a container of the name, and is not listed.
const partial = "partial"

// Create makes a container. One that exists is errdefs.ErrAlreadyExists. Nothing is left if there
// is an error.
func (c *Container) Create(ctx context.Context, o *CreateOptions) (err error) {
	switch o.Backing {
	case "", "dir", "best":
	default:
		return fmt.Errorf(
			"backing store %q: want dir or best: %w", o.Backing, errdefs.ErrInvalidArgument,
		)
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.clearPartial(); err != nil {
		return err
	}
	if c.Defined() {
		return fmt.Errorf(
			"container %q already exists in %s: %w", c.name, c.path.dir, errdefs.ErrAlreadyExists,
		)
	}
	base, err := baseConfig(o.ConfigFile)
	if err != nil {
		return err
	}
	made, err := template.Find(o.Template)
	if err != nil {
		return err
	}
	root := o.RootDir
	if root == "" {
		root = filepath.Join(c.dir, "rootfs")
	}
	if root, err = filepath.Abs(root); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o770); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.clearPartial())
		}
	}()
	if err := os.WriteFile(filepath.Join(c.dir, partial), []byte(root), 0o600); err != nil {
		return err
	}
	if err := base.Set("lxc.rootfs.path", "dir:"+root); err != nil {
		return err
	}
	if len(base.Uts.Name) == 0 {
		if err := base.Set("lxc.uts.name", c.name); err != nil {
			return err
		}
	}
	if err := writeConfig(filepath.Join(c.dir, "config"), base); err != nil {
		return err
	}
	if made != nil {
		if err := os.MkdirAll(root, 0o755); err != nil {
			return err
		}
		if err := made(ctx, &template.Target{
			Name: c.name, Dir: c.dir, Root: root, Args: o.Args, Output: o.Output,
		}); err != nil {
			return fmt.Errorf("create container %q: %w", c.name, err)
		}
		if err := shiftTree(root, base); err != nil {
			return fmt.Errorf("create container %q: %w", c.name, err)
		}
	}
	// What a template has written is read as every start will read it.
	if _, err := c.Config(); err != nil {
		return err
	}
	return os.Remove(filepath.Join(c.dir, partial))
}

// clearPartial removes what a killed Create has left.
func (c *Container) clearPartial() error {
	root, err := os.ReadFile(filepath.Join(c.dir, partial))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := unmountBelow(c.dir); err != nil {
		return err
	}
	if err := undepend(c); err != nil {
		return err
	}
	// A root file system elsewhere was the caller's directory.
	if inside := strings.HasPrefix(string(root), c.dir+"/"); !inside {
		if entries, err := os.ReadDir(string(root)); err == nil && len(entries) == 0 {
			os.Remove(string(root))
		}
	}
	return os.RemoveAll(c.dir)
}

// baseConfig is what a new container's configuration begins with.
func baseConfig(file string) (*config.Config, error) {
	if file == "" {
		return &config.Config{}, nil
	}
	cfg, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	return cfg, completeAddresses(cfg)
}

// completeAddresses gives the interfaces whose hardware address the configuration leaves open one
// for good: lxc.net.N.hwaddr = 00:16:3e:xx:xx:xx.
func completeAddresses(cfg *config.Config) error {
	var failed error
	err := cfg.Rewrite(func(key, value string) string {
		if !strings.HasPrefix(key, "lxc.net.") || !strings.HasSuffix(key, ".hwaddr") {
			return value
		}
		address, err := config.CompleteHWAddr(value, rand.Reader)
		if err != nil {
			failed = err
			return value
		}
		return address
	})
	return errors.Join(err, failed)
}

// writeConfig replaces a configuration file in one step.
func writeConfig(name string, cfg *config.Config) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if err := errors.Join(cfg.Write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), name)
}
