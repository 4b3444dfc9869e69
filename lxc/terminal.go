package lxc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/task"
)

// Terminal is the outer side of a terminal of a running container: what is read was written by the
// container's processes. Close gives it back.
type Terminal struct {
	io.Reader
	io.Writer
	// Number is that of /dev/ttyN; 0 is the console.
	Number int

	resize func(width, height uint16) error
	close  []func() error
}

// Resize sets the size in characters.
func (t *Terminal) Resize(width, height uint16) error { return t.resize(width, height) }

// Close gives the terminal back.
func (t *Terminal) Close() error {
	var errs []error
	for _, f := range t.close {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// AnyTerminal stands for the first terminal that is not in use.
const AnyTerminal = -1

// Terminal opens a terminal: 0 the console, N /dev/ttyN, AnyTerminal one that is free. A terminal
// that is in use, and the console of a container without one, are errdefs.ErrFailedPrecondition; a
// number that the container does not have is errdefs.ErrNotFound.
func (c *Container) Terminal(ctx context.Context, n int) (*Terminal, error) {
	t, err := c.Task(ctx)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return console(ctx, t)
	}
	first, last := n, n
	if n == AnyTerminal {
		const most = 64
		first, last = 1, most
	}
	for n := first; n <= last; n++ {
		master, err := t.Kept("tty" + strconv.Itoa(n))
		switch {
		case errdefs.IsNotFound(err) && first != last:
			return nil, fmt.Errorf(
				"container %q has no free terminal: %w", c.name, errdefs.ErrFailedPrecondition,
			)
		case err != nil:
			return nil, fmt.Errorf("terminal %d of container %q: %w", n, c.name, err)
		}
		lock, err := c.lockTerminal(n)
		if err != nil {
			master.Close()
			return nil, err
		}
		if lock == nil {
			master.Close()
			continue
		}
		return &Terminal{
			Reader: master, Writer: master, Number: n,
			close: []func() error{master.Close, lock.Close},
			resize: func(width, height uint16) error {
				size := &unix.Winsize{Row: height, Col: width}
				return unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, size)
			},
		}, nil
	}
	return nil, fmt.Errorf(
		"terminal %d of container %q is in use: %w", n, c.name, errdefs.ErrFailedPrecondition,
	)
}

// lockTerminal takes a terminal for as long as the file is open; nil if another process has it.
func (c *Container) lockTerminal(n int) (*os.File, error) {
	f, err := os.OpenFile(
		filepath.Join(c.run, "tty"+strconv.Itoa(n)), os.O_RDWR|os.O_CREATE, 0o600,
	)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, nil
		}
		return nil, fmt.Errorf("lock %q: %w", f.Name(), err)
	}
	return f, nil
}

// console joins the console, whose output the keeper reads.
func console(ctx context.Context, t task.Task) (*Terminal, error) {
	in, err := t.Input()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer w.Close()
	sub, err := t.Attach(ctx, task.Output{Stdout: w, Stderr: w, Pending: true})
	if err != nil {
		return nil, errors.Join(err, in.Close(), r.Close())
	}
	return &Terminal{
		Reader: r, Writer: in,
		close: []func() error{
			func() error { return t.Detach(context.WithoutCancel(ctx), sub.ID) }, in.Close, r.Close,
		},
		resize: func(width, height uint16) error { return t.Resize(ctx, width, height) },
	}, nil
}
