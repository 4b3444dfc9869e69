package seccomp

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Disassemble is the text of a filter program, one instruction a line with its number, jumps with
// the numbers of their targets; for people and for tests. An instruction that no filter of this
// package has is shown by its code.
func Disassemble(insns []unix.SockFilter) string {
	var b strings.Builder
	var loaded uint32
	for i, in := range insns {
		fmt.Fprintf(&b, "%4d  ", i)
		branch := func(name string) {
			fmt.Fprintf(
				&b, "%s %s, %d, %d", name, operand(loaded, in.K), i+1+int(in.Jt), i+1+int(in.Jf),
			)
		}
		switch in.Code {
		case opLoad:
			loaded = in.K
			fmt.Fprintf(&b, "ld %s", field(in.K))
		case opAnd:
			fmt.Fprintf(&b, "and %#x", in.K)
		case opJEQ:
			branch("jeq")
		case opJGT:
			branch("jgt")
		case opJGE:
			branch("jge")
		case opJSET:
			branch("jset")
		case opJA:
			fmt.Fprintf(&b, "ja %d", i+1+int(in.K))
		case opRet:
			fmt.Fprintf(&b, "ret %s", returned(in.K))
		default:
			fmt.Fprintf(&b, "code %#x, %d, %d, %#x", in.Code, in.Jt, in.Jf, in.K)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// field names a word of struct seccomp_data.
func field(offset uint32) string {
	switch {
	case offset == offsetNr:
		return "nr"
	case offset == offsetArch:
		return "arch"
	case offset >= offsetArgs && offset < offsetArgs+48 && offset%8 == 0:
		return fmt.Sprintf("args[%d].low", (offset-offsetArgs)/8)
	case offset >= offsetArgs && offset < offsetArgs+48 && offset%8 == 4:
		return fmt.Sprintf("args[%d].high", (offset-offsetArgs)/8)
	}
	return fmt.Sprintf("[%d]", offset)
}

// operand is a constant that is compared with what was loaded last in the text.
func operand(loaded, k uint32) string {
	if loaded == offsetArch {
		switch k {
		case unix.AUDIT_ARCH_X86_64:
			return "x86_64"
		case unix.AUDIT_ARCH_I386:
			return "x86"
		case unix.AUDIT_ARCH_AARCH64:
			return "aarch64"
		case unix.AUDIT_ARCH_ARM:
			return "arm"
		}
	}
	if loaded == offsetNr && k < x32Bit {
		return fmt.Sprint(k)
	}
	return fmt.Sprintf("%#x", k)
}

// returned names a return value.
func returned(k uint32) string {
	data := k & unix.SECCOMP_RET_DATA
	switch k & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW:
		return "allow"
	case unix.SECCOMP_RET_ERRNO:
		return fmt.Sprintf("errno %d", data)
	case unix.SECCOMP_RET_KILL_THREAD:
		return "kill_thread"
	case unix.SECCOMP_RET_KILL_PROCESS:
		return "kill_process"
	case unix.SECCOMP_RET_LOG:
		return "log"
	case unix.SECCOMP_RET_TRACE:
		return fmt.Sprintf("trace %d", data)
	case unix.SECCOMP_RET_TRAP:
		return "trap"
	case unix.SECCOMP_RET_USER_NOTIF:
		return "notify"
	}
	return fmt.Sprintf("%#x", k)
}
