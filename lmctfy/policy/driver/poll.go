package driver

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for file descriptors with poll(2). A context that ends wakes it through an eventfd.
type poller struct{ wake int }

func newPoller() (poller, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return poller{fd}, err
}

func (p poller) close() error { return unix.Close(p.wake) }

// wait returns what poll(2) reports for the descriptors: nothing if the time is over or the context
// ended. It is not called concurrently.
func (p poller) wait(
	ctx context.Context, fds []unix.PollFd, d time.Duration,
) ([]unix.PollFd, error) {
	if ctx.Err() != nil {
		return nil, nil
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = signal(p.wake) // it fails only if the counter is full, and then poll returns as well
	})
	defer func() {
		if !stop() {
			<-woken // the descriptor may be closed after this
		}
		drain(p.wake)
	}()
	all := append(fds[:len(fds):len(fds)], unix.PollFd{Fd: int32(p.wake), Events: unix.POLLIN})
	end := time.Now().Add(d)
	for {
		left := unix.NsecToTimespec(int64(max(0, time.Until(end))))
		n, err := unix.Ppoll(all, &left, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return nil, err
		}
		var ready []unix.PollFd
		for _, f := range all[:len(fds)] {
			if f.Revents != 0 {
				ready = append(ready, f)
			}
		}
		return ready, nil
	}
}

func signal(eventfd int) error {
	_, err := unix.Write(eventfd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

// drain sets the counter of a non-blocking eventfd to 0 and says whether it was more.
func drain(eventfd int) bool {
	var b [8]byte
	n, err := unix.Read(eventfd, b[:])
	return err == nil && n == len(b)
}
