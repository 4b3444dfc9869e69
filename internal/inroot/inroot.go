// Package inroot makes paths below a root directory that it has a handle of, through the links of a
// tree that is not trusted.
//
// Promises: what a link says is followed as by a process whose root directory it is, and nothing
// above the root is reached, also if the tree changes meanwhile: each step is one name below a
// handle of a directory, and no link is followed by the kernel.
//
// Not for: opening what is there; openat2(2) with RESOLVE_IN_ROOT does that.
//
// Tested with links that lead up, out, around and nowhere.
package inroot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links a path may lead through (path_resolution(7)).
const maxLinks = 40

// Make makes a directory or an empty file at a path below a root directory, with what is missing
// above it; directories have mode 0755, files 0644. What is there already is left as it is. Links
// are followed, and what they lead to is made. as calls the function that makes one thing, with
// other credentials if needed; nil: it is called. The root is a descriptor, O_PATH suffices, that
// stays the caller's. Errors are those of the system calls.
func Make(root int, name string, directory bool, as func(func() error) error) error {
	if as == nil {
		as = func(f func() error) error { return f() }
	}
	w := &walk{dirs: []int{root}, as: as}
	defer w.top()
	return w.make(name, directory)
}

// make is Make from the root on.
func (w *walk) make(name string, directory bool) error {
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			w.up()
			continue
		}
		more := slices.ContainsFunc(rest, func(s string) bool { return s != "" && s != "." })
		link, err := w.enter(part, directory || more)
		if err != nil {
			return err
		}
		if link == "" {
			continue
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%q: %w", name, unix.ELOOP)
		}
		if link[0] == '/' {
			w.top()
		}
		rest = append(strings.Split(link, "/"), rest...)
	}
	return nil
}

// walk is a place below a root directory: handles of the directories that lead to it, the root
// first, which is not the walk's.
type walk struct {
	dirs []int
	as   func(func() error) error
}

func (w *walk) up() {
	if n := len(w.dirs); n > 1 {
		unix.Close(w.dirs[n-1])
		w.dirs = w.dirs[:n-1]
	}
}

func (w *walk) top() {
	for len(w.dirs) > 1 {
		w.up()
	}
}

// enter goes on to a name in the present directory, which is made if it is missing. Of a link it
// returns what it says, and stays.
func (w *walk) enter(name string, directory bool) (link string, err error) {
	here := w.dirs[len(w.dirs)-1]
	fd, err := unix.Openat(here, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		err = w.as(func() error {
			if directory {
				return unix.Mkdirat(here, name, 0o755)
			}
			// mknod(2) makes an empty regular file and never follows a link.
			return unix.Mknodat(here, name, unix.S_IFREG|0o644, 0)
		})
		if err != nil && err != unix.EEXIST {
			return "", fmt.Errorf("make %q: %w", name, err)
		}
		fd, err = unix.Openat(here, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return "", fmt.Errorf("open %q: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return "", fmt.Errorf("fstat %q: %w", name, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		defer unix.Close(fd)
		return ReadLink(fd)
	case unix.S_IFDIR:
		w.dirs = append(w.dirs, fd)
		return "", nil
	}
	unix.Close(fd)
	if directory {
		return "", fmt.Errorf("%q: %w", name, unix.ENOTDIR)
	}
	return "", nil
}

// ReadLink reads the link that a descriptor refers to.
func ReadLink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", fmt.Errorf("readlink: %w", err)
	}
	if n == 0 || n == len(buf) {
		return "", errors.New("readlink: no text, or more than a path can have")
	}
	return string(buf[:n]), nil
}
