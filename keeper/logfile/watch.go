package logfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// watcher tells of changes in the directory of a log.
type watcher struct{ notify *os.File }

func (r *reader) watch() error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("follow log: inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(
		fd, filepath.Dir(r.path), unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO,
	); err != nil {
		unix.Close(fd)
		return fmt.Errorf("follow log: watch %q: %w", filepath.Dir(r.path), err)
	}
	r.notify = os.NewFile(uintptr(fd), "inotify")
	return nil
}

func (w *watcher) close() {
	if w.notify != nil {
		w.notify.Close()
	}
}

// wait returns when something happened in the directory, done is closed, until has passed
// (errUntil) or ctx has ended.
func (w *watcher) wait(ctx context.Context, done <-chan struct{}, until time.Time) error {
	wake := make(chan struct{})
	woken := make(chan struct{})
	if err := w.notify.SetReadDeadline(until); err != nil {
		return fmt.Errorf("follow log: %w", err)
	}
	go func() {
		defer close(woken)
		select {
		case <-done:
		case <-ctx.Done():
		case <-wake:
			return
		}
		w.notify.SetReadDeadline(time.Unix(1, 0))
	}()
	var buf [4096]byte
	_, err := w.notify.Read(buf[:])
	close(wake)
	<-woken
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		select {
		case <-done:
			return nil
		default:
			return errUntil
		}
	}
	return fmt.Errorf("follow log: %w", err)
}
