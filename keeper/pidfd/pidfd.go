// Package pidfd asks how a process ended through its descriptor, whoever its parent is.
//
// Not for: sending signals or waiting; poll(2) says when there is something to ask.
//
// Tested with children that are reaped by others.
package pidfd

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Answer says what is known about a process.
type Answer int

const (
	// Running: it has not ended.
	Running Answer = iota
	// Known: it has ended, and the status is valid.
	Known
	// Unreaped: it has ended, and its status belongs to its parent, who has not asked for it yet.
	// It may become Known.
	Unreaped
	// Lost: it has ended, and nobody can say how: the kernel is older than Linux 6.15.
	Lost
)

// info is the first version of struct pidfd_info, linux/pidfd.h.
type info struct {
	mask, cgroup uint64
	ids          [11]uint32
	exitCode     int32
}

const (
	getInfo  = 3<<30 | uint(unsafe.Sizeof(info{}))<<16 | 0xff<<8 | 11 // PIDFD_GET_INFO, Linux 6.13
	infoExit = 1 << 3                                                 // PIDFD_INFO_EXIT, Linux 6.15
)

// Exit asks how a process ended, without waiting. A child of the caller is reaped (waitid(2),
// P_PIDFD); for any other process the kernel is asked (PIDFD_GET_INFO), which answers when its
// parent has reaped it.
func Exit(fd int) (syscall.WaitStatus, Answer, error) {
	var si [128]byte // siginfo_t
	for {
		_, _, e := unix.Syscall6(
			unix.SYS_WAITID, unix.P_PIDFD, uintptr(fd), uintptr(unsafe.Pointer(&si)),
			unix.WEXITED|unix.WNOHANG, 0, 0,
		)
		switch e {
		case 0:
			return fromSiginfo(si[:])
		case unix.EINTR:
			continue
		case unix.ECHILD:
			return foreign(fd)
		}
		return 0, Running, fmt.Errorf("waitid on a pidfd: %w", e)
	}
}

func fromSiginfo(si []byte) (syscall.WaitStatus, Answer, error) {
	le := binary.LittleEndian
	code, pid, status := le.Uint32(si[8:]), le.Uint32(si[16:]), le.Uint32(si[24:])
	if pid == 0 {
		return 0, Running, nil
	}
	switch code {
	case 1: // CLD_EXITED
		return syscall.WaitStatus(status << 8), Known, nil
	case 2: // CLD_KILLED
		return syscall.WaitStatus(status), Known, nil
	case 3: // CLD_DUMPED
		return syscall.WaitStatus(status | 0x80), Known, nil
	}
	return 0, Running, fmt.Errorf("waitid on a pidfd: unexpected code %d", code)
}

func foreign(fd int) (syscall.WaitStatus, Answer, error) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, 0); err != nil && err != unix.EINTR {
		return 0, Running, fmt.Errorf("poll a pidfd: %w", err)
	}
	if p[0].Revents == 0 {
		return 0, Running, nil
	}
	in := info{mask: infoExit}
	_, _, e := unix.Syscall(
		unix.SYS_IOCTL, uintptr(fd), uintptr(getInfo), uintptr(unsafe.Pointer(&in)),
	)
	switch {
	case e == 0 && in.mask&infoExit != 0:
		return syscall.WaitStatus(in.exitCode), Known, nil
	case e == 0 || e == unix.ESRCH && p[0].Revents&unix.POLLHUP == 0:
		// Dead and not reaped. A kernel that knows PIDFD_GET_INFO and not PIDFD_INFO_EXIT never
		// becomes wiser.
		return 0, Unreaped, nil
	}
	return 0, Lost, nil
}
