package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"strake/lmctfy/policy"
)

// Levels is the Watch of a kernel without pressure stall information: it is notified of memory
// pressure by a version 1 memory group and those below it (kernel
// Documentation/admin-guide/cgroup-v1/memory.rst, "Memory Pressure"). It knows nothing of CPU and
// IO. NewLevels makes one; it is not for concurrent use.
type Levels struct {
	poller poller
	// events are the eventfds by level - 1, and seen is when each was notified last.
	events [policy.Critical]int
	seen   [policy.Critical]time.Time
}

// latch is how long a level lasts after it was notified. The kernel notifies one for each few
// megabytes that it scans, and not for each observation.
const latch = time.Second

// NewLevels asks the group with this directory for notifications of every level. It is
// errdefs.ErrNotFound if the group has no memory.pressure_level. Close has to be called.
func NewLevels(dir string) (_ *Levels, err error) {
	level, err := os.Open(filepath.Join(dir, "memory.pressure_level"))
	if err != nil {
		return nil, absent(err)
	}
	defer level.Close()
	control, err := os.OpenFile(filepath.Join(dir, "cgroup.event_control"), os.O_WRONLY, 0)
	if err != nil {
		return nil, absent(err)
	}
	defer control.Close()
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	l := &Levels{poller: p, events: [policy.Critical]int{-1, -1, -1}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	for i := range l.events {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return nil, err
		}
		l.events[i] = fd
		// Without "hierarchy" only the nearest group that listens hears of pressure in a group.
		text := fmt.Sprintf("%d %d %s,hierarchy", fd, level.Fd(), policy.Level(i+1))
		if _, err := control.WriteString(text); err != nil {
			return nil, fmt.Errorf("%s %s: %w", level.Name(), policy.Level(i+1), err)
		}
	}
	return l, nil
}

// Read returns the highest level that was notified since the last Read, or in the second before
// that.
func (l *Levels) Read() (p policy.Pressure, err error) {
	now := time.Now()
	for i, fd := range l.events {
		if drain(fd) {
			l.seen[i] = now
		}
		if !l.seen[i].IsZero() && now.Sub(l.seen[i]) < latch {
			p.Level = policy.Level(i + 1)
		}
	}
	return p, nil
}

// Wait returns when a level above low is notified, the time is over or the context ends. Low, which
// the policy does not act on, would wake the driver whenever page cache is recycled.
func (l *Levels) Wait(ctx context.Context, _ []string, d time.Duration) (woken bool, err error) {
	var fds []unix.PollFd
	for _, fd := range l.events[policy.Medium-1:] {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	ready, err := l.poller.wait(ctx, fds, d)
	return len(ready) > 0, err
}

// Close ends the notifications.
func (l *Levels) Close() error {
	for _, fd := range l.events {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	return l.poller.close()
}
