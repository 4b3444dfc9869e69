package lmctfy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lmctfy/spec"
)

// Wait returns when the event of a specification happens to the container: it runs out of memory,
// or its use of memory crosses a threshold, upwards or downwards. A use that is above the threshold
// already is no crossing on version 1, where the kernel watches; on version 2, where nothing of the
// kernel does, it is one. Errors: errdefs.ErrInvalidArgument if not exactly one event is named, if
// the container does not isolate memory, or for an event that does not exist; errdefs.ErrNotFound
// if the container goes; ctx's.
func (c *Container) Wait(ctx context.Context, e *spec.EventSpec) error {
	isolated, _, err := c.isolated()
	if err != nil {
		return err
	}
	if (e.GetOom() != nil) == (e.GetMemoryThreshold() != nil) || e.ContainerEmpty != nil {
		return fmt.Errorf(
			"event: want one of oom and memory_threshold: %w", errdefs.ErrInvalidArgument,
		)
	}
	if !has(isolated, spec.Memory) {
		return fmt.Errorf(
			"container %q does not isolate memory, so nothing of it happens: %w", c.name,
			errdefs.ErrInvalidArgument,
		)
	}
	threshold := e.GetMemoryThreshold().GetUsage()
	if e.Oom == nil && threshold <= 0 {
		return fmt.Errorf(
			"memory_threshold.usage: %d: want a number of bytes above 0: %w", threshold,
			errdefs.ErrInvalidArgument,
		)
	}
	t := c.m.of("memory")
	p, _, _ := c.m.find(t, c.name)
	g, err := t.at(p)
	if err != nil {
		return err
	}
	switch {
	case c.m.host.Version() == 2 && e.Oom != nil:
		err = waitOOM2(ctx, g.Dir())
	case c.m.host.Version() == 2:
		err = waitUsage2(ctx, g.Dir(), threshold)
	case e.Oom != nil:
		err = waitEvent(ctx, g.Dir(), "memory.oom_control", "")
	default:
		err = waitEvent(ctx, g.Dir(), "memory.usage_in_bytes", strconv.FormatInt(threshold, 10))
	}
	if err != nil {
		return fmt.Errorf("container %q: %w", c.name, err)
	}
	return nil
}

// waitEvent waits for an event of version 1 (memory.rst, "Memory thresholds" and "OOM Control").
func waitEvent(ctx context.Context, dir, file, args string) error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	event := os.NewFile(uintptr(fd), "eventfd")
	defer event.Close()
	watched, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		return gone(err)
	}
	defer watched.Close()
	request := strings.TrimSpace(fmt.Sprintf("%d %d %s", fd, watched.Fd(), args))
	control := filepath.Join(dir, "cgroup.event_control")
	if err := os.WriteFile(control, []byte(request), 0); err != nil {
		return gone(err)
	}
	stop := context.AfterFunc(ctx, func() { event.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var count [8]byte
	if _, err := event.Read(count[:]); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("read eventfd: %w", err)
	}
	// The kernel also reports the end of the group, as one event.
	if binary.NativeEndian.Uint64(count[:]) > 0 && unix.Access(dir, unix.F_OK) != nil {
		return fmt.Errorf("it was destroyed: %w", errdefs.ErrNotFound)
	}
	return nil
}

// gone is the error for a file of a group that is no more.
func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return err
}

// waitOOM2 waits until the count of the kernel's ends in memory.events grows (cgroup-v2.rst).
func waitOOM2(ctx context.Context, dir string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	file := filepath.Join(dir, "memory.events")
	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY|unix.IN_DELETE_SELF); err != nil {
		return gone(&os.PathError{Op: "watch", Path: file, Err: err})
	}
	stop := context.AfterFunc(ctx, func() { events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	before, err := counts(file)
	if err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		if _, err := events.Read(buf); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("read inotify: %w", err)
		}
		now, err := counts(file)
		if err != nil {
			return err
		}
		if now["oom"] > before["oom"] || now["oom_kill"] > before["oom_kill"] {
			return nil
		}
	}
}

// counts reads a file of names and numbers.
func counts(file string) (map[string]uint64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, gone(err)
	}
	out := map[string]uint64{}
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			n, err := strconv.ParseUint(value, 10, 64)
			if err == nil {
				out[name] = n
			}
		}
	}
	return out, nil
}

// interval is how often the use of memory is read on version 2, whose kernel has no thresholds.
const interval = 100 * time.Millisecond

func waitUsage2(ctx context.Context, dir string, threshold int64) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		raw, err := os.ReadFile(filepath.Join(dir, "memory.current"))
		if err != nil {
			return gone(err)
		}
		now, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		if err != nil {
			return err
		}
		if now >= threshold {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
