// Package leadertest has processes without a leader, for the tests of those who look at processes:
// a test binary that executes itself (with Environ) becomes one.
//
// Not for: production code.
package leadertest

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Role is what a process does.
type Role string

const (
	// Gone is a process whose leader has exited while its other threads go on.
	Gone Role = "gone"
	// Executing is a process that executes itself from a thread other than the leader, for ever.
	Executing Role = "executing"
)

const variable = "STRAKE_LEADERTEST_ROLE"

// Environ is the environment of a process that plays a role.
func (r Role) Environ() []string { return []string{variable + "=" + string(r)} }

// Play makes this process what its environment says, and returns if that says nothing. It must be
// called from an init function, which runs on the leader.
func Play() {
	role := Role(os.Getenv(variable))
	if role == "" {
		return
	}
	runtime.LockOSThread()
	// So that another thread runs what follows.
	other := make(chan struct{})
	switch role {
	case Gone:
		go func() {
			fmt.Println("ready")
			close(other)
			select {}
		}()
		<-other
		// This thread alone ends. The others wait for a signal, and one of them for nothing at all.
		go func() { runtime.LockOSThread(); unix.Pause() }()
		syscall.Syscall(unix.SYS_EXIT, 0, 0, 0)
	case Executing:
		go func() {
			err := syscall.Exec("/proc/self/exe", os.Args, os.Environ())
			fmt.Fprintln(os.Stderr, "execute again:", err)
			os.Exit(1)
		}()
		<-other
	}
	fmt.Fprintf(os.Stderr, "role %q is unknown\n", role)
	os.Exit(1)
}
