package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLockHolder(t *testing.T) {
	t.Parallel()
	const locks = `1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF
2: FLOCK  ADVISORY  WRITE 12 fe:01:77 0 EOF
3: -> FLOCK  ADVISORY  WRITE 13 fe:00:77 0 EOF
4: FLOCK  ADVISORY  WRITE 14 fe:00:77 0 EOF
5: FLOCK  ADVISORY  WRITE 0 fe:00:78 0 EOF
6: FLOCK
`
	for _, tc := range []struct {
		name         string
		major, minor uint32
		inode        uint64
		want         int
	}{
		{"the one that holds, not who waits", 0xfe, 0, 77, 14},
		{"the same number on another device", 0xfe, 1, 77, 12},
		{"a process of another namespace", 0xfe, 0, 78, 0},
		{"nobody", 0xfe, 0, 79, 0},
	} {
		if got := lockHolder(locks, tc.major, tc.minor, tc.inode); got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestStopRunning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := stopRunning(t.Context(), filepath.Join(dir, "nothing")); err != nil {
		t.Errorf("no exec root: %v", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := stopRunning(t.Context(), dir); err != nil {
		t.Errorf("nobody holds the lock: %v", err)
	}
	// The kernel names the process that took the lock, not those that inherited the descriptor:
	// hence a child that takes it itself.
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestHoldLock$")
	cmd.Env = append(os.Environ(), "STRAKED_TEST_LOCK="+lock.Name())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := stopRunning(t.Context(), dir); err != nil {
		t.Error(err)
	}
	<-ended
	if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok ||
		st.Signal() != syscall.SIGTERM {
		t.Errorf("the holder ended with %v, want SIGTERM", cmd.ProcessState)
	}
}

// TestHoldLock is the engine of TestStopRunning: it takes the lock and waits to be ended.
func TestHoldLock(t *testing.T) {
	name := os.Getenv("STRAKED_TEST_LOCK")
	if name == "" {
		t.Skip("only as a child of TestStopRunning")
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("1")
	select {}
}
