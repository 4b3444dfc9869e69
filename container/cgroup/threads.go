package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
)

// Threads lists the threads of the group, by their numbers in the caller's PID namespace. A group
// that is gone has none.
func (g *Group) Threads(scope Scope) (tids []int, err error) {
	file := "tasks"
	if g.host.version == 2 {
		file = "cgroup.threads"
	}
	root := g.anchor()
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		case scope == Direct && p != root:
			return fs.SkipDir
		}
		raw, err := rawfile.Read(p + "/" + file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		for _, word := range bytes.Fields(raw) {
			if n, err := strconv.Atoi(string(word)); err == nil && n > 0 {
				tids = append(tids, n)
			}
		}
		return err
	})
	return tids, err
}

// EnterThread moves one thread into the group, in the first hierarchy of the host. On version 2,
// which moves whole processes (cgroup-v2.rst, "Threads"), the thread has to be the first of its
// process. Errors: errdefs.ErrNotFound if there is no such thread or group,
// errdefs.ErrFailedPrecondition if the kernel does not take it.
func (g *Group) EnterThread(tid int) error {
	if g.host.version != 2 {
		return enter(g, "tasks", tid)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", tid, tid)); err == nil {
		tgid, err := leaderOf(tid)
		if err == nil && tgid != tid {
			return fmt.Errorf(
				"thread %d of process %d: version 2 of control groups moves whole processes: %w",
				tid, tgid, errdefs.ErrFailedPrecondition,
			)
		}
	}
	return enter(g, "cgroup.procs", tid)
}

// EnterProcess moves a process with all its threads into the group, in the first hierarchy of the
// host. Errors are those of EnterThread.
func (g *Group) EnterProcess(pid int) error { return enter(g, "cgroup.procs", pid) }

func enter(g *Group, file string, id int) error {
	err := g.SetFile(file, strconv.Itoa(id))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ESRCH):
		return fmt.Errorf("task %d: it does not exist: %w", id, errdefs.ErrNotFound)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("cgroup %q: %w", g.path, errdefs.ErrNotFound)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("task %d: %w: %w", id, err, errdefs.ErrPermissionDenied)
	}
	return fmt.Errorf("task %d: %w: %w", id, err, errdefs.ErrFailedPrecondition)
}

// leaderOf is the process of a thread.
func leaderOf(tid int) (int, error) {
	raw, err := rawfile.Read(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("/proc/%d/status: no Tgid: %w", tid, errdefs.ErrDataLoss)
}

// KillDirect ends the processes that have a thread in the group itself, not those of groups below,
// and waits until the group has no threads or ctx ends. Errors: errdefs.ErrInvalidArgument for the
// root group.
func (g *Group) KillDirect(ctx context.Context) error {
	if g.path == "" {
		return fmt.Errorf("end all of the root group: %w", errdefs.ErrInvalidArgument)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		tids, err := g.Threads(Direct)
		if err != nil || len(tids) == 0 {
			return err
		}
		if frozen, err := g.Frozen(); err == nil && frozen {
			// A frozen process of version 1 dies when it thaws.
			if err := g.Thaw(ctx); err != nil {
				return err
			}
		}
		for _, tid := range tids {
			if err := killThread(g, tid); err != nil {
				return err
			}
		}
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("cgroup %q: %d threads do not end: %w", g.path, len(tids), err)
		}
	}
}

// killThread ends the process of a thread if the thread is still in the group: its number may
// belong to another one by now.
func killThread(g *Group, tid int) error {
	pid, err := leaderOf(tid)
	if err != nil {
		return nil // the thread has ended
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	raw, err := rawfile.Read(fmt.Sprintf("/proc/%d/cgroup", tid))
	if err != nil || !g.holds(string(raw)) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("send SIGKILL to process %d: %w", pid, err)
	}
	return nil
}
