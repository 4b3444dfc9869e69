package seccomp

import "golang.org/x/sys/unix"

// abi is a way to call the kernel: a column of syscallTable.
type abi uint8

const (
	abiX86_64 abi = iota
	abiX86
	abiX32
	abiAarch64
	abiARM
	abiCount
)

// A slot is a place for a system call in a table of one ABI: its number without x32's bit, and
// after those ARM's private calls.
const slots = ordinarySlots + privateSlots

const (
	x32Bit     = 0x40000000 // __X32_SYSCALL_BIT of asm/unistd.h
	armPrivate = 0x0f0000   // __ARM_NR_BASE of asm/unistd.h
)

// syscallRow is a system call: its slot in each ABI, or -1; and, if 32-bit x86 also multiplexes it,
// the call's number in socketcall(2), or 100 more than that in ipc(2).
type syscallRow struct {
	name string
	slot [abiCount]int16
	mux  uint8
}

const (
	slotSocketcall = 102
	slotIPC        = 117
)

// demux is the multiplexing x86 call of a row, and the value of its first argument.
func (r *syscallRow) demux() (slot int16, call uint64) {
	if r.mux >= 100 {
		return slotIPC, uint64(r.mux) - 100
	}
	return slotSocketcall, uint64(r.mux)
}

// lookup finds a system call by name, or nil.
func lookup(name string) *syscallRow {
	h := uint32(2166136261) // FNV-1a
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	for {
		h %= uint32(len(syscallHash))
		n := syscallHash[h]
		if n == 0 {
			return nil
		}
		if row := &syscallTable[n-1]; row.name == name {
			return row
		}
		h++
	}
}

// audit is what the kernel has in seccomp_data.arch for an ABI. x32 shares it with x86_64.
func (a abi) audit() uint32 {
	switch a {
	case abiX86:
		return unix.AUDIT_ARCH_I386
	case abiAarch64:
		return unix.AUDIT_ARCH_AARCH64
	case abiARM:
		return unix.AUDIT_ARCH_ARM
	default:
		return unix.AUDIT_ARCH_X86_64
	}
}

// wide says whether arguments are compared with 64 bits.
func (a abi) wide() bool { return a == abiX86_64 || a == abiAarch64 }
