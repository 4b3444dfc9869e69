// Package pidfd asks how a process ended through its descriptor, also a process that is another
// one's child.
//
// What it promises: from the moment at which the descriptor is readable until the process is
// reaped, and on Linux 6.15 and later also after that, the status is known. Before Linux 6.15 the
// status of another process's child is lost when its parent reaps it.
//
// Not for: sending signals or waiting; poll(2) says when there is something to ask.
//
// Tested with children that other processes reap, and with one that is never reaped.
package pidfd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
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
	// Unreaped: it has ended, its parent has not reaped it yet, and the caller may not look at it
	// (ptrace(2), PTRACE_MODE_READ_FSCREDS). It may become Known.
	Unreaped
	// Lost: it has ended and was reaped, and the kernel, older than Linux 6.15, does not say how.
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
// P_PIDFD). Of any other process the kernel is asked: as long as its parent has not reaped it
// through /proc/PID/stat, for which pid is its number in the PID namespace of /proc or 0 if that is
// not known; afterwards with PIDFD_GET_INFO.
func Exit(fd, pid int) (syscall.WaitStatus, Answer, error) {
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
			return foreign(fd, pid)
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

func foreign(fd, pid int) (syscall.WaitStatus, Answer, error) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, 0); err != nil && err != unix.EINTR {
		return 0, Running, fmt.Errorf("poll a pidfd: %w", err)
	}
	if p[0].Revents == 0 {
		return 0, Running, nil
	}
	status, answer := ask(fd)
	if answer != Unreaped {
		return status, answer, nil
	}
	if status, ok := zombieStatus(fd, pid); ok {
		return status, Known, nil
	}
	// It may have been reaped since ask.
	status, answer = ask(fd)
	return status, answer, nil
}

// ask asks the kernel about a process that has ended and is not the caller's child.
func ask(fd int) (syscall.WaitStatus, Answer) {
	in := info{mask: infoExit}
	_, _, e := unix.Syscall(
		unix.SYS_IOCTL, uintptr(fd), uintptr(getInfo), uintptr(unsafe.Pointer(&in)),
	)
	switch {
	case e == 0 && in.mask&infoExit != 0:
		return syscall.WaitStatus(in.exitCode), Known
	case exists(fd):
		return 0, Unreaped
	}
	if e == 0 {
		// It was reaped between the two questions, or the kernel knows PIDFD_GET_INFO (Linux 6.13)
		// and not PIDFD_INFO_EXIT.
		in = info{mask: infoExit}
		_, _, e = unix.Syscall(
			unix.SYS_IOCTL, uintptr(fd), uintptr(getInfo), uintptr(unsafe.Pointer(&in)),
		)
		if e == 0 && in.mask&infoExit != 0 {
			return syscall.WaitStatus(in.exitCode), Known
		}
	}
	return 0, Lost
}

// exists says whether a process is not reaped yet.
func exists(fd int) bool { return unix.PidfdSendSignal(fd, 0, nil, 0) != unix.ESRCH }

// Fields of /proc/PID/stat behind the name (proc_pid_stat(5)): the third and the fifty-second.
const (
	statState    = 0
	statExitCode = 49
)

// zombieStatus reads the status of a process that is dead and not reaped: since Linux 3.5 the
// kernel shows it to those who may look at the process, and 0 to others.
func zombieStatus(fd, pid int) (syscall.WaitStatus, bool) {
	if pid <= 0 {
		return 0, false
	}
	dir := "/proc/" + strconv.Itoa(pid)
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0, false
	}
	f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(f) <= statExitCode || string(f[statState]) != "Z" {
		return 0, false
	}
	code, err := strconv.ParseUint(string(f[statExitCode]), 10, 16)
	if err != nil {
		return 0, false
	}
	if code == 0 {
		// The link is readable under the same condition.
		if _, err := os.Readlink(dir + "/ns/pid"); err != nil {
			return 0, false
		}
	}
	// A process that is not reaped yet still has its number, so what was read was its own.
	return syscall.WaitStatus(code), exists(fd)
}
