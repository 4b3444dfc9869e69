package cgroup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
)

// Scope says which processes Pids lists.
type Scope int

const (
	// Direct are the processes of the group itself.
	Direct Scope = iota
	// Recursive are those of the groups below too.
	Recursive
)

// anchor is the hierarchy in which processes are looked for.
func (g *Group) anchor() string {
	if g.host.version == 2 {
		return g.host.unified() + g.path
	}
	for _, c := range []string{"freezer", "pids", "memory"} {
		if m, ok := g.host.mount(c); ok {
			return m + g.path
		}
	}
	return g.host.list[0].Mount + g.path
}

// Pids lists processes in the caller's PID namespace. A group that is gone has none.
func (g *Group) Pids(scope Scope) (pids []int, err error) {
	err = filepath.WalkDir(g.anchor(), func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		case scope == Direct && p != g.anchor():
			return fs.SkipDir
		}
		raw, err := rawfile.Read(filepath.Join(p, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil {
			return err
		}
		for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
			if n, err := strconv.Atoi(s.Text()); err == nil && n > 0 {
				pids = append(pids, n)
			}
		}
		return nil
	})
	return pids, err
}

// Kill sends a signal to all processes of the group and of those below. SIGKILL is repeated until
// none is left or ctx ends. Errors: errdefs.ErrInvalidArgument for the root group.
func (g *Group) Kill(ctx context.Context, sig unix.Signal) error {
	if g.path == "" {
		return fmt.Errorf("signal all of the root group: %w", errdefs.ErrInvalidArgument)
	}
	if sig == unix.SIGKILL && g.host.version == 2 {
		if done, err := g.kill2(ctx); done || err != nil {
			return err
		}
	}
	for {
		pids, err := g.Pids(Recursive)
		if err != nil || len(pids) == 0 {
			return err
		}
		if sig == unix.SIGKILL {
			// A frozen process dies when it thaws.
			if frozen, err := g.Frozen(); err == nil && frozen {
				if err := g.Thaw(ctx); err != nil {
					return err
				}
			}
			g.thawBelow()
		}
		for _, pid := range pids {
			if err := signal(g, pid, sig); err != nil {
				return err
			}
		}
		if sig != unix.SIGKILL {
			return nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("cgroup %q: %d processes do not end: %w", g.path, len(pids), err)
		}
	}
}

// thawBelow thaws the groups below a group of version 1, which do not thaw with it. A group that
// cannot be thawed, or has gone, is met again when Kill looks at what is left.
func (g *Group) thawBelow() {
	mount, ok := g.host.mount("freezer")
	if !ok || g.host.version == 2 {
		return
	}
	filepath.WalkDir(mount+g.path, func(dir string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && dir != mount+g.path {
			writeFile(dir+"/freezer.state", []byte("THAWED"))
		}
		return nil
	})
}

// signal reaches a process only if it is still of the group: its number may belong to another one
// by now.
func signal(g *Group, pid int, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it has ended, or is a zombie's thread
	}
	defer unix.Close(fd)
	raw, err := rawfile.Read("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil || !g.holds(string(raw)) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), pid, err)
	}
	return nil
}

// holds says whether the text of /proc/PID/cgroup (cgroups(7)) is of a process in this group or
// below it.
func (g *Group) holds(text string) bool {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) == 3 && (parts[2] == g.path || strings.HasPrefix(parts[2], g.path+"/")) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
