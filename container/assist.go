package container

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/launch"
	"strake/container/plan"
	"strake/container/program"
	"strake/container/spawn"
)

// assistant does what a program asks of its spawner while it waits (plan.Assist). It works on
// descriptors that the child has opened in the container's view of its files, and leaves the
// directories that they refer to neither through links nor through "..".
type assistant struct {
	m     *spawn.Machine
	plan  *plan.Plan
	child *spawn.Child
	first int // the descriptor of the first message, or -1
}

// take handles a message, if it is of an assist.
func (a *assistant) take(ctx context.Context, m spawn.Message) (bool, error) {
	if m.Stage < program.StageAssist {
		return false, nil
	}
	n := int(m.Stage - program.StageAssist)
	if n >= len(a.plan.Assists) || m.FD < 0 {
		return true, fmt.Errorf("request %d of the child is not in its program", n)
	}
	if a.first < 0 {
		a.first = m.FD
		return true, nil
	}
	w := &a.plan.Assists[n]
	first := a.first
	a.first = -1
	defer unix.Close(first)
	defer unix.Close(m.FD)
	if err := a.assist(ctx, w, first, m.FD); err != nil {
		if w.Kind == plan.MapTree {
			return true, err // it names the field
		}
		return true, fmt.Errorf("%s: %w", w.Field, err)
	}
	for range w.Continue {
		if err := a.child.Continue(); err != nil {
			return true, err
		}
	}
	return true, nil
}

func (a *assistant) close() {
	if a.first >= 0 {
		unix.Close(a.first)
		a.first = -1
	}
}

func (a *assistant) assist(ctx context.Context, w *plan.Assist, first, second int) error {
	switch w.Kind {
	case plan.MakeTarget:
		var st unix.Stat_t
		if err := unix.Fstat(second, &st); err != nil {
			return fmt.Errorf("fstat: %w", err)
		}
		walk := &rootWalk{
			dirs: []int{first}, uid: hostID(a.plan.UIDMap), gid: hostID(a.plan.GIDMap),
		}
		defer walk.top()
		return walk.make(w.Path, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	case plan.CopyUp:
		if err := copyUp(ctx, first, second, w.Owner); err != nil {
			return fmt.Errorf("tmpcopyup: %w", err)
		}
		return nil
	case plan.MapTree:
		return launch.MapTree(a.m, first, &w.Tree)
	}
	return fmt.Errorf("work of kind %d: %w", w.Kind, errdefs.ErrNotImplemented)
}

// maxLinks is how many links a path may lead through (path_resolution(7)).
const maxLinks = 40

// hostID is whom root of a new user namespace is outside of it.
func hostID(list []specs.LinuxIDMapping) int {
	for _, m := range list {
		if m.ContainerID == 0 && m.Size > 0 {
			return int(m.HostID)
		}
	}
	return 0
}

// make makes a directory or an empty file at a path below the root, with what is missing above it.
// Links are followed as a process would whose root directory it is; what they lead to is made.
func (w *rootWalk) make(name string, directory bool) error {
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

// rootWalk is a place below a root directory: handles of the directories that lead to it, the root
// first, which is not the walk's. What is made belongs to uid and gid.
type rootWalk struct {
	dirs     []int
	uid, gid int
}

func (w *rootWalk) up() {
	if n := len(w.dirs); n > 1 {
		unix.Close(w.dirs[n-1])
		w.dirs = w.dirs[:n-1]
	}
}

func (w *rootWalk) top() {
	for len(w.dirs) > 1 {
		w.up()
	}
}

// enter goes on to a name in the present directory, which is made if it is missing. Of a link it
// returns what it says, and stays.
func (w *rootWalk) enter(name string, directory bool) (link string, err error) {
	here := w.dirs[len(w.dirs)-1]
	fd, err := unix.Openat(here, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		err = actAs(w.uid, w.gid, func() error {
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
		return readLink(fd)
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

// readLink reads the link that a descriptor refers to.
func readLink(fd int) (string, error) {
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

// actAs makes the system calls of f with other IDs for files (setfsuid(2)): a filesystem of a user
// namespace takes nothing from a user that the namespace does not have.
func actAs(uid, gid int, f func() error) error {
	if uid == 0 && gid == 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	oldGid, err := unix.SetfsgidRetGid(gid)
	if err != nil {
		return fmt.Errorf("setfsgid: %w", err)
	}
	defer unix.Setfsgid(oldGid)
	oldUid, err := unix.SetfsuidRetUid(uid)
	if err != nil {
		return fmt.Errorf("setfsuid: %w", err)
	}
	defer unix.Setfsuid(oldUid)
	return f()
}
