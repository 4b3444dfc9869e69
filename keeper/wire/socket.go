package wire

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxSocketPath is the length of sun_path without its end, unix(7).
const maxSocketPath = 107

// withAddress calls do with an address for path, which may be longer than an address can be.
func withAddress(path string, do func(*unix.SockaddrUnix) error) error {
	if len(path) <= maxSocketPath {
		return do(&unix.SockaddrUnix{Name: path})
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return do(
		&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))},
	)
}

func socket() (int, error) {
	return unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

// Connect connects to the keeper at path and returns a non-blocking socket. If no process listens
// there, or it does not accept, the error is errdefs.ErrUnavailable.
func Connect(path string) (int, error) {
	fd, err := socket()
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := withAddress(
		path, func(a *unix.SockaddrUnix) error { return unix.Connect(fd, a) },
	); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %q: %w: %w", path, err, errdefs.ErrUnavailable)
	}
	return fd, nil
}

// Listen makes a listening socket at path, for its owner alone (mode 0600). A socket that a dead
// keeper has left there is removed; if one lives, it is errdefs.ErrAlreadyExists.
func Listen(path string) (int, error) {
	if fd, err := Connect(path); err == nil {
		unix.Close(fd)
		return -1, fmt.Errorf(
			"listen at %q: another process listens there: %w", path, errdefs.ErrAlreadyExists,
		)
	} else if errors.Is(err, unix.ECONNREFUSED) {
		unix.Unlink(path)
	} else if !errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("listen at %q: %w", path, err)
	}
	fd, err := socket()
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err = withAddress(
		path, func(a *unix.SockaddrUnix) error { return unix.Bind(fd, a) },
	); err == nil {
		// A client cannot connect before listen(2), so none does before the mode is right.
		if err = unix.Chmod(path, 0o600); err == nil {
			err = unix.Listen(fd, 128)
		}
		if err != nil {
			unix.Unlink(path)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen at %q: %w", path, err)
	}
	return fd, nil
}
