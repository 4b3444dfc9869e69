package main

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestListenFDs: sockets are the container's unless they were handed to another process.
func TestListenFDs(t *testing.T) {
	for _, c := range []struct {
		fds, pid string
		want     int
	}{
		{"2", "", 2}, {"2", strconv.Itoa(os.Getpid()), 2}, {"2", "1", 0}, {"", "", 0}, {"x", "", 0},
	} {
		t.Setenv("LISTEN_FDS", c.fds)
		t.Setenv("LISTEN_PID", c.pid)
		if got := listenFDs(); got != c.want {
			t.Errorf("LISTEN_FDS=%s LISTEN_PID=%s: got %d, want %d", c.fds, c.pid, got, c.want)
		}
	}
}

// TestFillClosed: a descriptor that is not open is /dev/null until the process executes, one that is
// open stays as it is, and none is left beyond the range.
func TestFillClosed(t *testing.T) {
	open := func(fd int) bool {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		return err == nil
	}
	first := 3 // of six that are not open
	for fd := 3; fd < first+6; fd++ {
		if open(fd) {
			first = fd + 1
		}
	}
	used, err := unix.Eventfd(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup2(used, first+3); err != nil {
		t.Fatal(err)
	}
	unix.Close(used)
	t.Cleanup(func() {
		for fd := first; fd < first+5; fd++ {
			unix.Close(fd)
		}
	})
	if err := fillClosed(first + 5 - 3); err != nil {
		t.Fatal(err)
	}
	for fd := first; fd < first+5; fd++ {
		name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		want, closes := "/dev/null", true
		if fd == first+3 {
			want, closes = "anon_inode:[eventfd]", false
		}
		if err != nil || name != want || flags&unix.FD_CLOEXEC != 0 != closes {
			t.Errorf("descriptor %d: %q, %v, flags %d, want %q", fd, name, err, flags, want)
		}
	}
	if open(first + 5) {
		t.Errorf("descriptor %d is open", first+5)
	}
}
