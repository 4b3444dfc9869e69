package test

import "golang.org/x/sys/unix"

// pathArguments are those of a system call that may be paths: the first two.
func pathArguments(regs *unix.PtraceRegs) []uintptr {
	return []uintptr{uintptr(regs.Rdi), uintptr(regs.Rsi)}
}
