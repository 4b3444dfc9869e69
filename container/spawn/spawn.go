// Package spawn runs a program in a raw child: a process cloned directly into its namespaces that
// interprets the program with system calls only, without the Go runtime, without a second execution
// of strake, and without cgo.
//
// The child begins as a copy of the caller and jumps into a position-independent interpreter, a few
// hundred bytes of machine code in a sealed memory file that is mapped in front of the program's
// image. The first operations of every program (program.Builder.Isolate) unmap everything else. So
// the rules that the standard library's forkAndExecInChild lives by (no allocation, no lock, no
// stack growth, no write barrier) hold by construction: no Go code runs in the child at all.
//
// Not for: deciding what to run (package plan), or anything after execve beyond the pid.
//
// Requires Linux 5.9 (clone3, CLONE_CLEAR_SIGHAND, close_range). Tested with real children; the
// tests need root.
package spawn

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/internal/early"
)

// interpreterSize is how much machine code is copied. A test checks that the marker behind the code
// lies within.
const interpreterSize = 768

// addressSpace is the length of what a process can map without asking for more: 47 bits, also where
// more exist.
const addressSpace = 1<<47 - 4096

func rawClone3(args unsafe.Pointer, size, code, image uintptr) (pid, errno uintptr)

// copyInterpreter fetches the machine code behind the symbol "interpreter", which exists in
// assembly only.
func copyInterpreter(to *[interpreterSize]byte)

// cloneArgs is struct clone_args (clone3(2)).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal     uint64
	stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// Machine holds what all children of a process share: the sealed file with the interpreter's code.
// It may be used by several goroutines at once.
type Machine struct {
	code   int  // a descriptor
	detour bool // see type detour
}

// New makes a Machine. It costs one memory file.
func New() (*Machine, error) {
	var src [interpreterSize]byte
	copyInterpreter(&src)
	// MFD_EXEC says that the file is meant to be mapped executable; kernels before 6.3 do not know
	// the flag.
	fd, err := unix.MemfdCreate(
		"strake-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC,
	)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("strake-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create for the interpreter: %w", err)
	}
	if _, err := unix.Write(fd, src[:]); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("write the interpreter: %w", err)
	}
	if _, err := unix.FcntlInt(
		uintptr(fd), unix.F_ADD_SEALS,
		unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE,
	); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("seal the interpreter: %w", err)
	}
	return &Machine{code: fd, detour: registeredRseq()}, nil
}

// Close releases the interpreter. Children that run already are not affected.
func (m *Machine) Close() error { return unix.Close(m.code) }

// IDMap is one line of uid_map or gid_map (user_namespaces(7)).
type IDMap struct{ Container, Host, Size uint32 }

// Request says what to start.
type Request struct {
	Image *program.Image
	// Input returns the descriptor for a name that the program asks for. program.InputSync and
	// program.InputExe are supplied by Start. Descriptors stay the caller's; the child gets copies.
	Input func(name string) (int, error)
	// CgroupFD is a cgroup2 directory to be born in (CLONE_INTO_CGROUP), or -1.
	CgroupFD int
	// UIDMap and GIDMap are written before the child's first operation that waits for them, if the
	// image's clone flags have CLONE_NEWUSER. If they have not, and there are mappings, they are
	// those of the process that the program goes on in (program.Builder.Fork).
	UIDMap, GIDMap []IDMap
	// TimeOffsets is written to the timens_offsets of a new time namespace (time_namespaces(7));
	// empty for none.
	TimeOffsets string
}

// Start clones the child and returns while it runs. The caller must go on with Next until the
// program has ended, and must reap Pid in any case.
func (m *Machine) Start(req *Request) (*Child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[1])
	c := &Child{PidFD: -1, sync: pair[0]}
	if req.Image.Forks() {
		err = c.expectFork(true)
	}
	if err == nil {
		err = m.clone(req, c, pair[1])
	}
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	switch {
	case req.Image.CloneFlags()&unix.CLONE_NEWUSER != 0:
		err = c.writeMaps(req)
	case req.Image.Forks() && len(req.UIDMap) > 0:
		c.later = req
	}
	if err != nil {
		c.Kill()
		return nil, err
	}
	return c, nil
}

func (m *Machine) clone(req *Request, c *Child, syncFD int) error {
	page := os.Getpagesize()
	code := (interpreterSize + page - 1) &^ (page - 1) // where the image begins
	if m.detour {
		code += page
	}
	size := code + (req.Image.Size()+page-1)&^(page-1)
	mem, err := live.mmap(size)
	if err != nil {
		return fmt.Errorf("mmap %d bytes for the program: %w", size, err)
	}
	defer live.munmap(mem)
	base := uintptr(unsafe.Pointer(&mem[0]))
	if _, _, e := unix.Syscall6(
		unix.SYS_MMAP, base, interpreterSize, unix.PROT_READ|unix.PROT_EXEC,
		unix.MAP_PRIVATE|unix.MAP_FIXED, uintptr(m.code), 0,
	); e != 0 {
		return fmt.Errorf("mmap the interpreter: %w", e)
	}
	names := req.Image.Inputs()
	inputs := make([]int, len(names))
	for i, name := range names {
		switch name {
		case program.InputSync:
			inputs[i] = syncFD
		case program.InputExe:
			inputs[i] = m.code
		default:
			if inputs[i], err = req.Input(name); err != nil {
				return fmt.Errorf("descriptor %q: %w", name, err)
			}
		}
	}
	place := program.Place{
		Mem: mem[code:], Base: base + uintptr(code), Start: base, End: base + uintptr(size),
		Report: syncFD, Inputs: inputs,
	}
	if m.detour {
		place.Header = base + uintptr(code-page)
	}
	err = req.Image.Relocate(place)
	if err != nil {
		return err
	}
	// Both are on the heap, because a stack moves and the kernel has their addresses as numbers.
	call := &struct {
		cloneArgs
		pidfd int32
	}{pidfd: -1}
	args := &call.cloneArgs
	*args = cloneArgs{
		flags:      req.Image.CloneFlags() | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND,
		pidfd:      uint64(uintptr(unsafe.Pointer(&call.pidfd))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if req.CgroupFD >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(req.CgroupFD)
	}
	var d *detour
	if m.detour {
		d = newDetour(mem[code-page:code], args, syncFD, base+uintptr(code)+program.HeaderSize)
	}
	pid, errno, err := m.cloneFrom(req, args, d, base, base+uintptr(code))
	runtime.KeepAlive(call)
	runtime.KeepAlive(m)
	if err != nil {
		return err
	}
	if errno != 0 {
		return fmt.Errorf("clone3 with flags %#x: %w", args.flags, errno)
	}
	c.Pid, c.PidFD = pid, int(call.pidfd)
	return nil
}

// cloneFrom clones, from a thread of its own if the child gets a time namespace with offsets: they
// can only be set before the namespace has a process (time_namespaces(7)), and the thread that made
// it is not fit for anything else afterwards.
func (m *Machine) cloneFrom(
	req *Request, args *cloneArgs, d *detour, code, image uintptr,
) (pid int, errno syscall.Errno, err error) {
	if args.flags&unix.CLONE_NEWTIME == 0 || req.TimeOffsets == "" {
		pid, errno = cloneMasked(args, d, code, image)
		return pid, errno, nil
	}
	args.flags &^= unix.CLONE_NEWTIME
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err = unix.Unshare(unix.CLONE_NEWTIME); err != nil {
			err = fmt.Errorf("unshare a time namespace: %w", err)
			return
		}
		if err = os.WriteFile(
			"/proc/"+strconv.Itoa(unix.Gettid())+"/timens_offsets", []byte(req.TimeOffsets), 0,
		); err != nil {
			err = fmt.Errorf("linux.timeOffsets: %w", err)
			return
		}
		pid, errno = cloneMasked(args, d, code, image)
	}()
	<-done
	return pid, errno, err
}

// cloneMasked clones with all signals blocked: the child has no handlers and no stack to run one
// on. The program opens the mask again right before it executes the container's process.
func cloneMasked(args *cloneArgs, d *detour, code, image uintptr) (int, syscall.Errno) {
	if d == nil {
		pid, errno := cloneBlocked(args, code, image)
		return int(pid), syscall.Errno(errno)
	}
	defer early.Lock()()
	all, old := ^uint64(0), uint64(0)
	unix.RawSyscall6(
		unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)),
		uintptr(unsafe.Pointer(&old)), 8, 0, 0,
	)
	pid, errno := d.clone(args, code)
	unix.RawSyscall6(
		unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0,
	)
	return int(pid), syscall.Errno(errno)
}

// cloneBlocked has no point at which the goroutine could move to another thread: every function
// that it calls is nosplit, and a blocked signal does not preempt it. So it needs no
// runtime.LockOSThread, whose first use in a process starts a thread.
//
//go:nosplit
func cloneBlocked(args *cloneArgs, code, image uintptr) (pid, errno uintptr) {
	all, old := ^uint64(0), uint64(0)
	unix.RawSyscall6(
		unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)),
		uintptr(unsafe.Pointer(&old)), 8, 0, 0,
	)
	early.Thread()
	pid, errno = rawClone3(unsafe.Pointer(args), unsafe.Sizeof(*args), code, image)
	unix.RawSyscall6(
		unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0,
	)
	return pid, errno
}
