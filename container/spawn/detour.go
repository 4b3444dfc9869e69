package spawn

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"strake/container/program"
)

// detour is a clone by way of a helper process, for a caller whose threads have registered
// restartable sequences (rseq(2)): the C library does that in a program that uses cgo, with the
// race detector for example. A child inherits the registration but not the memory, and the kernel
// kills it when it writes to that memory. A process that shares its parent's memory (CLONE_VM)
// does not inherit the registration. So a helper of that kind is cloned, clones the child as its
// own sibling (CLONE_PARENT), and ends, all in one vfork.
//
// The helper runs a program of three operations in front of the child's, in the same mapping. The
// child is born in the middle of it, finds that it is the child, and jumps to its own.
type detour struct {
	mem []byte
}

// Places in the page.
const (
	detourOps    = program.HeaderSize
	detourResult = detourOps + 3*program.OpSize
)

// newDetour writes the helper's program into mem. It clones with args, on behalf of a child whose
// first operation is at first and which reports on the descriptor report.
func newDetour(mem []byte, args *cloneArgs, report int, first uintptr) *detour {
	le := binary.LittleEndian
	base := uint64(uintptr(unsafe.Pointer(&mem[0])))
	// CLONE_PARENT takes the exit signal from the helper.
	args.flags |= unix.CLONE_PARENT
	args.exitSignal = 0
	le.PutUint64(mem, uint64(report))
	op := func(i int) []byte {
		b := mem[detourOps+i*program.OpSize:][:program.OpSize]
		next := base + uint64(detourOps+(i+1)*program.OpSize)
		le.PutUint64(b[80:], next)
		le.PutUint64(b[88:], next)
		return b
	}
	clone := op(0)
	clone[0] = byte(program.Syscall)
	le.PutUint32(clone[8:], unix.SYS_CLONE3)
	le.PutUint64(clone[24:], uint64(uintptr(unsafe.Pointer(args))))
	le.PutUint64(clone[32:], uint64(unsafe.Sizeof(*args)))
	le.PutUint64(clone[72:], base+detourResult)
	child := op(1)
	child[0], child[1], child[2] = byte(program.Jump), byte(program.Equal), byte(program.Load64)
	le.PutUint64(child[24:], base+detourResult)
	le.PutUint64(child[32:], ^uint64(0))
	le.PutUint64(child[88:], uint64(first))
	end := op(2)
	end[0] = byte(program.Syscall)
	le.PutUint32(end[8:], unix.SYS_EXIT_GROUP)
	return &detour{mem: mem}
}

// clone does what rawClone3 does. Preconditions: as cloneMasked leaves them; args are newDetour's.
func (d *detour) clone(args *cloneArgs, code uintptr) (pid, errno uintptr) {
	helper := &cloneArgs{
		flags:      unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_FILES,
		exitSignal: uint64(unix.SIGCHLD),
	}
	pid, errno = rawClone3(
		unsafe.Pointer(helper), unsafe.Sizeof(*helper), code, uintptr(unsafe.Pointer(&d.mem[0])),
	)
	if errno != 0 {
		return 0, errno
	}
	for {
		if _, err := unix.Wait4(int(pid), nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	runtime.KeepAlive(args)
	le := binary.LittleEndian
	if child := le.Uint64(d.mem[detourResult:]); child != 0 {
		return uintptr(child), 0
	}
	return 0, uintptr(le.Uint32(d.mem[12:])) // the helper's report
}

// registeredRseq says whether threads of this process have restartable sequences. It asks for a
// registration at an address that is never valid: the kernel refuses that with EFAULT, but with
// EINVAL before it looks at the address if there is another registration (kernel/rseq.c).
func registeredRseq() bool {
	const (
		size      = 32 // struct rseq, linux/rseq.h
		signature = 0x73747261
		kernel    = ^uintptr(0) &^ 0xffff
	)
	_, _, e := unix.RawSyscall6(unix.SYS_RSEQ, kernel, size, 0, signature, 0, 0)
	return e != unix.EFAULT && e != unix.ENOSYS
}
