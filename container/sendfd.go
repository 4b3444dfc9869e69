package container

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SendFD connects to the stream socket at a path and passes it a descriptor with a message, as
// console sockets (runc's docs/terminals.md) and seccomp agents (runtime-spec config-linux.md)
// expect it. It does without package net, whose start every container would pay for.
func SendFD(path string, fd int, message []byte) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(s)
	if err := retry(
		func() error { return unix.Connect(s, &unix.SockaddrUnix{Name: path}) },
	); err != nil {
		return fmt.Errorf("connect to %s: %w", path, err)
	}
	rights := unix.UnixRights(fd)
	for len(message) > 0 {
		var n int
		err := retry(func() (err error) {
			n, err = unix.SendmsgN(s, message, rights, nil, unix.MSG_NOSIGNAL)
			return err
		})
		if err != nil {
			return fmt.Errorf("send to %s: %w", path, err)
		}
		message, rights = message[n:], nil
	}
	return nil
}

func retry(call func() error) (err error) {
	for err = unix.EINTR; err == unix.EINTR; {
		err = call()
	}
	return err
}
