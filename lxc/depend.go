package lxc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// LXC's files for containers that use the root file system of another: pairs of lines, the lxcpath
// and the name of a container. dependsFile names those that this one uses, dependentsFile those that
// use this one. Before LXC 2 the latter was only a number.
const (
	dependsFile    = "lxc_rdepends"
	dependentsFile = "lxc_snapshots"
)

// owner names a container of any lxcpath.
type owner struct{ path, name string }

func (o owner) dir() string { return filepath.Join(o.path, o.name) }

// readOwners reads one of the files; one that does not exist has nobody. Count is what a file of the
// old form says.
func readOwners(file string) (list []owner, count int, err error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil {
		return nil, n, nil
	}
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		list = append(list, owner{lines[i], lines[i+1]})
	}
	return list, 0, nil
}

// writeOwners replaces one of the files in one step; without content it is removed.
func writeOwners(file string, list []owner, count int) error {
	text := ""
	for _, o := range list {
		text += o.path + "\n" + o.name + "\n"
	}
	if count > 0 {
		text = strconv.Itoa(count) + "\n"
	}
	if text == "" {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// note adds a container to those that use another, or takes it out. What is noted already is not
// noted twice.
func note(used, user owner, add bool) error {
	// The directory is locked for a moment only, and nothing else is while it is.
	dir, err := os.Open(used.dir())
	if errors.Is(err, fs.ErrNotExist) && !add {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %q: %w", used.dir(), err)
	}
	file := filepath.Join(used.dir(), dependentsFile)
	list, count, err := readOwners(file)
	if err != nil {
		return err
	}
	switch known := slices.Contains(list, user); {
	case count > 0 && add:
		count++
	case count > 0:
		count--
	case add && !known:
		list = append(list, user)
	case !add && known:
		list = slices.DeleteFunc(list, func(o owner) bool { return o == user })
	default:
		return nil
	}
	return writeOwners(file, list, count)
}

func ownerOf(c *Container) owner { return owner{c.path.dir, c.name} }

// depend records the containers whose root file systems this one uses.
func depend(c *Container, on []owner) error {
	if err := writeOwners(filepath.Join(c.dir, dependsFile), on, 0); err != nil {
		return err
	}
	for _, used := range on {
		if err := note(used, ownerOf(c), true); err != nil {
			return err
		}
	}
	return nil
}

// undepend takes the container out of the records of those that it uses.
func undepend(c *Container) error {
	on, _, err := readOwners(filepath.Join(c.dir, dependsFile))
	if err != nil {
		return err
	}
	for _, used := range on {
		if err := note(used, ownerOf(c), false); err != nil {
			return err
		}
	}
	return nil
}

// unused is an error if another container uses the root file system of this one. Callers hold the
// lock. A copy that was killed does not count, and is removed.
func unused(c *Container) error {
	list, count, err := readOwners(filepath.Join(c.dir, dependentsFile))
	if err != nil {
		return err
	}
	var names []string
	var killed []*Container
	for _, user := range list {
		x := &Container{path: &Path{dir: user.path}, name: user.name, dir: user.dir()}
		if _, err := os.Stat(filepath.Join(x.dir, partial)); err == nil {
			killed = append(killed, x)
			continue
		}
		names = append(names, user.dir())
	}
	if len(names) > 0 || count > 0 {
		return fmt.Errorf(
			"container %q: its root file system is used by others (%s): %w", c.name,
			strings.Join(names, ", "), errdefs.ErrFailedPrecondition,
		)
	}
	// A copy of this container holds its lock, so these are not being made any more.
	for _, x := range killed {
		if err := x.clearPartial(); err != nil {
			return err
		}
	}
	return nil
}
