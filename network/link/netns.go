package link

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Enter runs fn on an operating system thread that is in the network namespace ns; nil stands for the namespace the process is in, and costs
// nothing. fn must not hand work to other goroutines and expect them to be in ns.
func Enter(ns *os.File, fn func() error) error {
	if ns == nil {
		return fn()
	}
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// Create makes a network namespace and runs fn on a thread that is in it. The namespace lives as long as the returned file, or a process in it.
func Create(fn func(ns *os.File) error) (*os.File, error) {
	var ns *os.File
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		var err error
		if ns, err = Current(); err != nil {
			return err
		}
		return fn(ns)
	})
	if err != nil && ns != nil {
		err = errors.Join(err, ns.Close())
		ns = nil
	}
	return ns, err
}

// Current is the namespace of the calling thread.
func Current() (*os.File, error) {
	return os.OpenFile("/proc/thread-self/ns/net", os.O_RDONLY|unix.O_CLOEXEC, 0)
}

// onThread runs fn on a locked thread and puts the thread back into its namespace. A thread that cannot be put back is never unlocked: the Go
// runtime ends it with its goroutine.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := Current()
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		err = fn()
		back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
		if back == nil {
			runtime.UnlockOSThread()
		}
		done <- errors.Join(err, back, home.Close())
	}()
	return <-done
}

// Cookie identifies a network namespace for as long as the system runs; it is never given out again (SO_NETNS_COOKIE, Linux 5.14). It is that of
// the calling thread's namespace.
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
