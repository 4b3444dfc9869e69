package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stopPatience is how long a running engine may take to end: longer than what it gives its own
// requests.
const stopPatience = 30 * time.Second

// stopRunning ends the engine that serves an exec root, if there is one. Who it is, the kernel
// says: the holder of the lock that lockInstance takes (/proc/locks, proc_locks(5)). Its containers
// go on; taking them down is the caller's next step.
func stopRunning(ctx context.Context, execRoot string) error {
	path := filepath.Join(execRoot, "lock")
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("stat %q: %w", path, err)
	}
	find := func() (int, error) {
		raw, err := os.ReadFile("/proc/locks")
		if err != nil {
			return 0, err
		}
		return lockHolder(string(raw), unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino), nil
	}
	pid, err := find()
	if err != nil || pid == 0 {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("engine %d of %s: pidfd_open: %w", pid, execRoot, err)
	}
	defer unix.Close(fd)
	// The number may have gone to another process since; if the lock is still its, the descriptor
	// is the engine's.
	if again, err := find(); err != nil || again != pid {
		return err
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil &&
		!errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("engine %d of %s: signal: %w", pid, execRoot, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	for {
		// A pidfd becomes readable when its process ends (pidfd_open(2)); a short wait lets ctx be
		// seen.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("engine %d of %s: wait: %w", pid, execRoot, err)
		case ctx.Err() != nil:
			return fmt.Errorf("engine %d of %s does not end: %w", pid, execRoot, ctx.Err())
		}
	}
}

// lockHolder finds in the text of /proc/locks the process that holds the flock(2) lock of a file; 0
// when no process does, or none that is visible in this PID namespace.
func lockHolder(locks string, major, minor uint32, inode uint64) int {
	file := fmt.Sprintf("%02x:%02x:%d", major, minor, inode)
	for line := range strings.Lines(locks) {
		f := strings.Fields(line)
		// "ORDINAL: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END"; waiters have "->" after
		// the ordinal.
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}
