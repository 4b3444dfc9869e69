package lxc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lxc/config"
)

// snapshotDir is where the snapshots of a container are, in its directory: a container each, with
// the files "ts", its time, and "comment".
const snapshotDir = "snaps"

// Snapshot is a snapshot of a container.
type Snapshot struct {
	Name string
	// Dir is the lxcpath that it is in.
	Dir string
	// Time is when it was made, as LXC writes it, in the time zone of the host; "": unknown.
	Time    string
	Comment string
}

// Snapshots are those of one container. Its methods may be called concurrently.
type Snapshots struct{ c *Container }

// Snapshots are the container's.
func (c *Container) Snapshots() *Snapshots { return &Snapshots{c} }

// path is the directory of the container's snapshots as one of containers.
func (s *Snapshots) path() *Path {
	c := s.c
	return &Path{
		dir: filepath.Join(c.dir, snapshotDir), run: filepath.Join(c.path.run, snapshotDir, c.name),
		instance: c.path.instance, log: c.path.log,
	}
}

// List lists the container's snapshots: snap0, snap1 and so on, in the order of their numbers.
func (s *Snapshots) List() (list []Snapshot, err error) {
	p := s.path()
	entries, err := os.ReadDir(p.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		dir := filepath.Join(p.dir, e.Name())
		if !defined(dir) {
			continue
		}
		ts, err := os.ReadFile(filepath.Join(dir, "ts"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		comment, err := os.ReadFile(filepath.Join(dir, "comment"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		list = append(list, Snapshot{
			Name: e.Name(), Dir: p.dir, Time: string(ts), Comment: string(comment),
		})
	}
	slices.SortFunc(list, func(a, b Snapshot) int {
		return cmp.Or(cmp.Compare(number(a.Name), number(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

// number is that of a snapshot's name; others come last.
func number(name string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "snap"))
	if err != nil {
		return int(^uint(0) >> 1)
	}
	return n
}

// Make makes a snapshot and returns its name: a copy of the root file system, or, of an overlay,
// of its upper layer. One that runs is errdefs.ErrFailedPrecondition.
func (s *Snapshots) Make(ctx context.Context, comment []byte) (string, error) {
	c := s.c
	cfg, err := c.Config()
	if err != nil {
		return "", err
	}
	o, err := overlay(cfg, "")
	if err != nil {
		return "", err
	}
	p := s.path()
	for n := 0; ; n++ {
		name := "snap" + strconv.Itoa(n)
		x, err := p.Container(name)
		if err != nil {
			return "", err
		}
		if x.Defined() {
			continue
		}
		err = c.Copy(ctx, x, &CopyOptions{
			Snapshot: o != nil, KeepMAC: true, KeepName: true, finish: func() error {
				ts := time.Now().Format("2006:01:02 15:04:05")
				err := os.WriteFile(filepath.Join(x.dir, "ts"), []byte(ts), 0o644)
				if err == nil && comment != nil {
					err = os.WriteFile(filepath.Join(x.dir, "comment"), comment, 0o644)
				}
				return err
			},
		})
		if errdefs.IsAlreadyExists(err) {
			continue // Another process has been faster.
		}
		return name, err
	}
}

// named is one that exists.
func (s *Snapshots) named(name string) (*Container, error) {
	c := s.c
	x, err := s.path().Container(name)
	if err != nil {
		return nil, err
	}
	if x.Defined() {
		return x, nil
	}
	err = fmt.Errorf("container %q has no snapshot %q: %w", c.name, name, errdefs.ErrNotFound)
	if list, listErr := s.List(); listErr == nil && len(list) > 0 && len(list) <= 5 {
		var names []string
		for _, x := range list {
			names = append(names, x.Name)
		}
		err = fmt.Errorf("%w (there are: %s)", err, strings.Join(names, ", "))
	}
	return nil, err
}

// Destroy removes a snapshot, or all if the name is "ALL". One that does not exist is
// errdefs.ErrNotFound.
func (s *Snapshots) Destroy(ctx context.Context, name string) error {
	c := s.c
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if name != "ALL" {
		return s.destroy(ctx, name)
	}
	list, err := s.List()
	if err != nil {
		return err
	}
	for _, x := range list {
		if err := s.destroy(ctx, x.Name); err != nil {
			return err
		}
	}
	return nil
}

// destroy is Destroy for callers that hold the lock.
func (s *Snapshots) destroy(ctx context.Context, name string) error {
	x, err := s.named(name)
	if err != nil {
		return err
	}
	if err := x.Destroy(ctx, DestroyOptions{}); err != nil {
		return err
	}
	// The directory, if this was the last.
	os.Remove(x.path.dir)
	return nil
}

// clear removes what killed operations have left of snapshots. Callers hold the lock.
func (s *Snapshots) clear() error {
	p := s.path()
	entries, err := os.ReadDir(p.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		x := &Container{path: p, name: e.Name(), dir: filepath.Join(p.dir, e.Name())}
		if err := x.clearPartial(); err != nil {
			return err
		}
	}
	return nil
}

// Restore makes a container of a snapshot: another one, which must not exist, or, if to is nil, the
// container itself, which must be stopped and gets back the files and the configuration that it had.
func (s *Snapshots) Restore(ctx context.Context, name string, to *Container) error {
	c := s.c
	x, err := s.named(name)
	if err != nil {
		return err
	}
	if to != nil && to.run != c.run {
		cfg, err := x.Config()
		if err != nil {
			return err
		}
		o, err := overlay(cfg, "")
		if err != nil {
			return err
		}
		return x.Copy(ctx, to, &CopyOptions{Snapshot: o != nil})
	}
	unlock, err := lockBoth(ctx, c, x)
	if err != nil {
		return err
	}
	defer unlock()
	if err := stopped(ctx, c); err != nil {
		return err
	}
	if err := unused(c); err != nil {
		return err
	}
	return s.restore(ctx, x)
}

// restore gives the container the files of a snapshot. Until the last of them is copied the container
// is as it was; then the two trees change places in one step. Callers hold the locks.
func (s *Snapshots) restore(ctx context.Context, snap *Container) error {
	c := s.c
	own, err := c.Config()
	if err != nil {
		return err
	}
	cfg, err := snap.Config()
	if err != nil {
		return err
	}
	from, err := layer(cfg)
	if err != nil {
		return err
	}
	to, err := layer(own)
	if err != nil {
		return err
	}
	next := to + ".restore"
	// What a killed restore has left: the new tree, or the old one.
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	if err := copyDir(ctx, from, next); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	err = rewriteFor(cfg, snap, c, own.Rootfs.Path, &CopyOptions{KeepName: true, KeepMAC: true})
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	}
	if err != nil {
		return errors.Join(
			fmt.Errorf("restore container %q: %w", c.name, err), os.RemoveAll(next),
		)
	}
	return errors.Join(writeConfig(filepath.Join(c.dir, "config"), cfg), os.RemoveAll(next))
}

// layer is the directory with the files that are a container's own.
func layer(cfg *config.Config) (string, error) {
	o, err := overlay(cfg, "")
	if err != nil {
		return "", err
	}
	if o != nil {
		return o.Upper, nil
	}
	if cfg.Rootfs.Path == "" {
		return "", fmt.Errorf("it has no root file system: %w", errdefs.ErrFailedPrecondition)
	}
	return rootDir(cfg)
}
