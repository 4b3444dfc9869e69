// Package lxc runs system containers as LXC does: directories below an lxcpath, each with LXC's
// configuration file and a root file system, in which a whole distribution boots.
//
// It is daemonless: each operation is carried out by the process that calls it, over tasks whose
// parent is a keeper of the lxcpath's own. No other process lives as long as a container. What has
// to be done when a container ends (network, hooks, groups, a reboot) is done by a command that the
// keeper executes then (Container.End), and, if that was killed, by the next operation on the
// container: every operation first repairs what an interrupted one has left.
//
// A running container has a record below the directory for what a reboot of the host ends. Each
// step of a start that leaves something in the kernel is found again by names that follow from the
// container's: its group, its network namespace, the host's ends of its interfaces.
//
// Not for: configuration files (lxc/config), what they mean (lxc/ocispec), flags and output
// (lxc/cli).
//
// Tested by package test, with the programs; here are tests of copies of trees, and of the records of
// which container uses which.
package lxc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"strake/lxc/config"
)

const (
	// DefaultDir is LXC's own lxcpath.
	DefaultDir = "/var/lib/lxc"
	// DefaultRun is where what a reboot ends is kept, below a directory for each lxcpath.
	DefaultRun = "/run/strake-lxc"
	// Owner is the owner of the tasks.
	Owner = "lxc"
)

// Options are how a Path is opened. The zero value is right for the host's own containers.
type Options struct {
	Run string // "": DefaultRun
	// End is the command that calls Container.End for a container of this Path, by its name. The
	// keeper executes it when the container has ended. Without it only the next operation on the
	// container does what follows.
	End func(dir, name string) []string
	Log *slog.Logger
}

// Path is a directory of containers. Its methods may be called concurrently, also by several
// processes.
type Path struct {
	dir, run, instance string
	end                func(dir, name string) []string
	log                *slog.Logger

	mu     sync.Mutex
	kernel *kernel // guarded by mu; nil until it is needed
}

// Open opens a directory of containers, which need not exist.
func Open(dir string, o Options) (*Path, error) {
	if dir == "" {
		dir = DefaultDir
	}
	if o.Run == "" {
		o.Run = DefaultRun
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p := &Path{dir: dir, end: o.End, log: o.Log, instance: "/strake-lxc"}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	tag := "default"
	if dir != DefaultDir || o.Run != DefaultRun {
		sum := sha256.Sum256([]byte(dir + "\x00" + o.Run))
		tag = hex.EncodeToString(sum[:])[:10]
		p.instance += "-" + tag
	}
	p.run = filepath.Join(o.Run, tag)
	return p, nil
}

// Dir is the directory.
func (p *Path) Dir() string { return p.dir }

// Close ends the connection to the keeper, if there is one. Containers are not affected.
func (p *Path) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kernel == nil {
		return nil
	}
	k := p.kernel
	p.kernel = nil
	return k.tasks.Close()
}

// name is what a container may be called: a directory's name that is an ID of tasks too.
var name = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$`)
})

// Container names a container, which need not exist. A name that cannot be one is
// errdefs.ErrInvalidArgument.
func (p *Path) Container(called string) (*Container, error) {
	if !name().MatchString(called) {
		return nil, fmt.Errorf(
			"name %q: want 1 to 100 letters, digits, '_', '.' and '-', the first no '.' or '-': %w",
			called, errdefs.ErrInvalidArgument,
		)
	}
	return &Container{
		path: p, name: called, dir: filepath.Join(p.dir, called), run: filepath.Join(p.run, "c", called),
	}, nil
}

// List names the containers that are defined, and those that run without being defined any more, in
// order.
func (p *Path) List() (names []string, err error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if name().MatchString(e.Name()) {
			if defined(filepath.Join(p.dir, e.Name())) {
				names = append(names, e.Name())
			}
		}
	}
	active, err := p.Active()
	if err != nil {
		return nil, err
	}
	names = append(names, active...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Active names the containers that have a record of a run, in order.
func (p *Path) Active() (names []string, err error) {
	entries, err := os.ReadDir(filepath.Join(p.run, "c"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(p.run, "c", e.Name(), "record")); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Container is one container by name. It holds nothing open. Its methods may be called
// concurrently.
type Container struct {
	path           *Path
	name, dir, run string
}

// Name is the container's name.
func (c *Container) Name() string { return c.name }

// Dir is where its configuration is.
func (c *Container) Dir() string { return c.dir }

// Defined says whether it has a configuration, and is not one that is being made.
func (c *Container) Defined() bool { return defined(c.dir) }

func defined(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "config")); err != nil {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, partial))
	return err != nil
}

// Config reads the container's configuration file. Without one the error is errdefs.ErrNotFound.
func (c *Container) Config() (*config.Config, error) {
	cfg, err := config.Load(filepath.Join(c.dir, "config"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf(
			"container %q is not defined in %s: %w", c.name, c.path.dir, errdefs.ErrNotFound,
		)
	}
	return cfg, err
}

// Exists is an error, of class errdefs.ErrNotFound, if the container is neither defined nor active.
func (c *Container) Exists(ctx context.Context) error {
	if c.Defined() {
		return nil
	}
	active, err := c.path.Active()
	if err != nil || slices.Contains(active, c.name) {
		return err
	}
	err = fmt.Errorf("container %q does not exist in %s: %w", c.name, c.path.dir, errdefs.ErrNotFound)
	names, listErr := c.path.List()
	if listErr == nil && len(names) > 0 && len(names) <= 5 {
		err = fmt.Errorf("%w (there are: %s)", err, strings.Join(names, ", "))
	}
	return err
}
