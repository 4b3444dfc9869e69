package link

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Thread is an operating system thread that goes from one network namespace to another. It belongs
// to the goroutine that made it, which is locked to it, and must not be used by any other.
type Thread struct{ home *os.File }

// NewThread locks the calling goroutine to its thread. Close unlocks it.
func NewThread() (*Thread, error) {
	runtime.LockOSThread()
	home, err := Current()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return &Thread{home}, nil
}

// Close gives the thread back to the Go runtime, or, when it could not come home, lets it end with
// its goroutine.
func (t *Thread) Close() error {
	err := unix.Setns(int(t.home.Fd()), unix.CLONE_NEWNET)
	if err == nil {
		runtime.UnlockOSThread()
	}
	return errors.Join(err, t.home.Close())
}

// Enter runs fn in the network namespace ns and comes home; nil stands for home. fn must not hand
// work to other goroutines and expect them to be in ns.
func (t *Thread) Enter(ns *os.File, fn func() error) error {
	if ns == nil {
		return fn()
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return errors.Join(fn(), unix.Setns(int(t.home.Fd()), unix.CLONE_NEWNET))
}

// Create makes a network namespace, runs fn in it, and comes home. The namespace lives as long as
// the returned file, or a process in it.
func (t *Thread) Create(fn func(ns *os.File) error) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("unshare network namespace: %w", err)
	}
	ns, err := Current()
	if err == nil {
		err = fn(ns)
	}
	err = errors.Join(err, unix.Setns(int(t.home.Fd()), unix.CLONE_NEWNET))
	if err != nil && ns != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, err
}

// Enter is Thread.Enter for a caller without a thread; with nil for ns it costs nothing.
func Enter(ns *os.File, fn func() error) error {
	if ns == nil {
		return fn()
	}
	return onThread(func(t *Thread) error { return t.Enter(ns, fn) })
}

// Create is Thread.Create for a caller without a thread.
func Create(fn func(ns *os.File) error) (*os.File, error) {
	var ns *os.File
	err := onThread(func(t *Thread) (err error) {
		ns, err = t.Create(fn)
		return err
	})
	return ns, err
}

// Current is the namespace of the calling thread.
func Current() (*os.File, error) {
	return os.OpenFile("/proc/thread-self/ns/net", os.O_RDONLY|unix.O_CLOEXEC, 0)
}

// onThread runs fn on a thread of its own.
func onThread(fn func(*Thread) error) error {
	done := make(chan error, 1)
	go func() {
		t, err := NewThread()
		if err == nil {
			err = errors.Join(fn(t), t.Close())
		}
		done <- err
	}()
	return <-done
}

// Cookie identifies a network namespace for as long as the system runs; it is never given out again
// (SO_NETNS_COOKIE, Linux 5.14). It is that of the calling thread's namespace.
func Cookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("netns cookie: %w", err)
	}
	defer unix.Close(fd)
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("netns cookie: %w", err)
	}
	return c, nil
}
