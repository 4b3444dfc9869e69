// Package relay turns the signals that this process receives into a readable descriptor, for
// programs that live a few milliseconds.
//
// It installs one handler for all signals but those that the Go runtime needs for itself: machine
// code that writes the signal's number into a pipe. Package os/signal does the same through a
// thread of its own, which it wakes twice for each signal number: more than a hundred context
// switches before the first container exists, and half of the time of a whole `run`.
//
// Not for: long-lived programs; there os/signal is right. There is no way back: the process ends
// with the handlers in place. A process has one relay.
package relay

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pipeFD is where the handler writes. It is set once, before the first handler is installed.
//
//lint:ignore U1000 the handler reads it, in assembly
var pipeFD int32

// code returns the addresses of the handler and of what it returns to.
func code() (handler, restorer uintptr)

// kernelAction is struct sigaction as rt_sigaction(2) has it, on amd64 and arm64.
type kernelAction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// Flags of struct sigaction (sigaction(2); asm/signal.h).
const (
	saRestorer = 0x04000000
	saOnStack  = 0x08000000
	saRestart  = 0x10000000
)

// kept are the signals that stay with the Go runtime: faults, which are answered with a stack
// trace, and those that it sends to itself; and SIGCHLD and SIGPIPE, which concern this process
// alone. SIGTTIN and SIGTTOU stop it: with a handler, the call for whose sake the kernel sends them
// would be restarted, and send them again, for ever.
const kept = 1<<unix.SIGKILL | 1<<unix.SIGSTOP | 1<<unix.SIGSEGV | 1<<unix.SIGBUS |
	1<<unix.SIGFPE | 1<<unix.SIGILL | 1<<unix.SIGTRAP |
	1<<unix.SIGSYS | 1<<unix.SIGURG | 1<<unix.SIGCHLD | 1<<unix.SIGPIPE |
	1<<unix.SIGTTIN | 1<<unix.SIGTTOU |
	1<<32 | 1<<33 // the C library's, also in programs that this one may be compared with

// lastSignal is the highest signal number (signal(7)).
const lastSignal = 64

// Relay is the readable end.
type Relay struct{ fd int }

// Begin installs the handlers. Signals that were ignored are relayed too.
func Begin() (*Relay, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("pipe for signals: %w", err)
	}
	pipeFD = int32(p[1])
	handler, restorer := code()
	act := kernelAction{
		handler: handler, flags: saOnStack | saRestart | saRestorer, restorer: restorer,
		mask: ^uint64(0),
	}
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		if sig < lastSignal && kept&(uint64(1)<<sig) != 0 {
			continue
		}
		if _, _, errno := unix.RawSyscall6(
			unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0,
		); errno != 0 {
			return nil, fmt.Errorf("handle signal %d: %w", sig, errno)
		}
	}
	return &Relay{fd: p[0]}, nil
}

// FD becomes readable when a signal has come. It stays the Relay's.
func (r *Relay) FD() int { return r.fd }

// Read returns the signals that have come since the last call, oldest first. It does not wait.
func (r *Relay) Read() (list []unix.Signal) {
	var b [256]byte
	for {
		n, err := unix.Read(r.fd, b[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return list
		}
		for at := 0; at+4 <= n; at += 4 {
			list = append(list, unix.Signal(binary.NativeEndian.Uint32(b[at:])))
		}
	}
}
