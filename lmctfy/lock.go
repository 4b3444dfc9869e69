package lmctfy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lmctfy/name"
)

// patience is how long a change waits for another one.
const patience = 10 * time.Second

// lock makes changes of the containers directly in a container wait for each other, in all
// processes. It completes what a killed command began there. The caller calls release. Errors:
// errdefs.ErrNotFound if the container is gone, errdefs.ErrUnavailable if another change takes too
// long.
func (m *Machine) lock(ctx context.Context, parent name.Name) (release func(), err error) {
	g, err := m.group(parent)
	if err != nil {
		return nil, err
	}
	fd, err := openLocked(ctx, g.Dir())
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("container %q: %w", parent, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", parent, err)
	}
	if err := m.repair(ctx, parent); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return func() { unix.Close(fd) }, nil
}

// openLocked opens a directory and waits for the lock on it.
func openLocked(ctx context.Context, dir string) (fd int, err error) {
	fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return fd, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			unix.Close(fd)
			return -1, fmt.Errorf("flock: %w", err)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			unix.Close(fd)
			return -1, fmt.Errorf(
				"another command is changing the containers in it: %w", errdefs.ErrUnavailable,
			)
		}
	}
}

// settle completes what a killed command began in a container. It returns the last part of a name
// that another command is still making or removing, or "". A caller that may not repair what it
// finds is told the same.
func (m *Machine) settle(parent name.Name) (pending string, err error) {
	g, err := m.group(parent)
	if err != nil {
		return "", err
	}
	raw, err := mark(g.Dir())
	if err != nil || len(raw) == 0 {
		return "", err
	}
	fd, err := unix.Open(g.Dir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return pendingBase(raw), nil
	}
	defer unix.Close(fd)
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil || unix.Access(g.Dir(), unix.W_OK) != nil {
		return pendingBase(raw), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return "", m.repair(ctx, parent)
}

// Kinds of marks: what a command was doing to the container that it names.
const (
	making   = "+"
	removing = "-"
)

// repair removes what is left of a container whose making or removal was interrupted. The caller
// holds the lock.
func (m *Machine) repair(ctx context.Context, parent name.Name) error {
	g, err := m.group(parent)
	if err != nil {
		return err
	}
	raw, err := mark(g.Dir())
	if err != nil || len(raw) == 0 {
		return err
	}
	n, err := name.Resolve("/"+pendingBase(raw), name.Root)
	if err != nil || !n.Top() {
		return fmt.Errorf(
			"%s: attribute %s: %q is no name: %w", g.Dir(), pendingAttr, raw, errdefs.ErrDataLoss,
		)
	}
	n = parent.Child(n.Base())
	if err := m.remove(ctx, n, string(raw[:1])); err != nil {
		return err
	}
	return m.end(n)
}

// pendingBase is the last part of the name in a mark.
func pendingBase(mark []byte) string {
	if len(mark) == 0 {
		return ""
	}
	return string(mark[1:])
}

// begin marks a container as being made or removed. Until end, a command that finds the lock free
// and the mark set removes it. The caller holds the lock.
func (m *Machine) begin(n name.Name, kind string) error {
	g, err := m.group(n.Parent())
	if err != nil {
		return err
	}
	return setMark(g.Dir(), []byte(kind+n.Base()))
}

func (m *Machine) end(n name.Name) error {
	g, err := m.group(n.Parent())
	if err != nil {
		return err
	}
	return dropMark(g.Dir())
}

// step is a place where tests end the process.
func (m *Machine) step(what string) {
	if m.fault != nil {
		m.fault(what)
	}
}
