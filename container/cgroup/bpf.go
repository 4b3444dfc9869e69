package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Version 2 asks a program whether a device may be used (cgroup-v2.rst, "Device controller"). The
// programs here are a dozen instructions for each rule, so they are assembled by hand: a library
// for eBPF would be most of strake-runtime.

// Instructions (Documentation/bpf/standardization/instruction-set.rst).
const (
	opLoad32  = 0x61 // dst = *(u32 *)(src + off)
	opMov64   = 0xbf // dst = src
	opMovImm  = 0xb7 // dst = imm
	opAndImm  = 0x57 // dst &= imm
	opShrImm  = 0x77 // dst >>= imm
	opJneImm  = 0x56 // if (u32)dst != imm goto off
	opJeqImm  = 0x16 // if (u32)dst == imm goto off
	opExit    = 0x95
	bpfOpSize = 8
)

// Registers: R1 is the argument, R0 the answer.
const (
	regAnswer = iota
	regArg
	regAccess
	regKind
	regMajor
	regMinor
	regScratch
)

type bpfProgram []byte

func (p *bpfProgram) emit(op, dst, src byte, off int16, imm int32) {
	b := binary.NativeEndian.AppendUint16([]byte{op, dst | src<<4}, uint16(off))
	*p = append(*p, binary.NativeEndian.AppendUint32(b, uint32(imm))...)
}

// deviceProgram makes the program for a policy: it answers 1 to let an access through and 0 to
// refuse it. An exception matches if all of what is asked for is among its accesses where it
// allows, and if any of it is where it refuses. It is pure.
func deviceProgram(p *devicePolicy) bpfProgram {
	var prog bpfProgram
	// struct bpf_cgroup_dev_ctx: access_type (kind in the lower half, access in the upper), major,
	// minor.
	prog.emit(opLoad32, regKind, regArg, 0, 0)
	prog.emit(opMov64, regAccess, regKind, 0, 0)
	prog.emit(opAndImm, regKind, 0, 0, 0xffff)
	prog.emit(opShrImm, regAccess, 0, 0, 16)
	prog.emit(opLoad32, regMajor, regArg, 4, 0)
	prog.emit(opLoad32, regMinor, regArg, 8, 0)
	answer := func(allow bool) int32 {
		if allow {
			return 1
		}
		return 0
	}
	for _, m := range p.sorted() {
		access := p.exceptions[m]
		var body bpfProgram
		var skips []int // jumps over the rest
		skip := func(op, reg byte, imm int64) {
			skips = append(skips, len(body))
			body.emit(op, reg, 0, 0, int32(uint32(imm)))
		}
		kind := int64(2) // BPF_DEVCG_DEV_CHAR
		if m.kind == 'b' {
			kind = 1
		}
		skip(opJneImm, regKind, kind)
		if m.major != anyNumber {
			skip(opJneImm, regMajor, m.major)
		}
		if m.minor != anyNumber {
			skip(opJneImm, regMinor, m.minor)
		}
		if access != accessAll {
			body.emit(opMov64, regScratch, regAccess, 0, 0)
			if p.allow {
				body.emit(opAndImm, regScratch, 0, 0, int32(access))
				skip(opJeqImm, regScratch, 0)
			} else {
				body.emit(opAndImm, regScratch, 0, 0, int32(accessAll&^access))
				skip(opJneImm, regScratch, 0)
			}
		}
		body.emit(opMovImm, regAnswer, 0, 0, answer(!p.allow))
		body.emit(opExit, 0, 0, 0, 0)
		for _, at := range skips {
			binary.NativeEndian.PutUint16(body[at+2:], uint16((len(body)-at)/bpfOpSize-1))
		}
		prog = append(prog, body...)
	}
	prog.emit(opMovImm, regAnswer, 0, 0, answer(p.allow))
	prog.emit(opExit, 0, 0, 0, 0)
	return prog
}

// Commands and constants of bpf(2), linux/bpf.h.
const (
	bpfProgLoad       = 5
	bpfProgAttach     = 8
	bpfProgDetach     = 9
	bpfProgGetFD      = 13
	bpfProgQuery      = 16
	bpfTypeDevice     = 15 // BPF_PROG_TYPE_CGROUP_DEVICE
	bpfAttachDevice   = 6  // BPF_CGROUP_DEVICE
	bpfFlagMulti      = 2
	bpfFlagReplace    = 4
	maxDevicePrograms = 64
)

func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		if errno == unix.EAGAIN || errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return -1, errno
		}
		return int(r), nil
	}
}

type bpfLoadAttr struct {
	progType, count uint32
	insns, license  uint64
	logLevel        uint32
	logSize         uint32
	logBuf          uint64
	kernVersion     uint32
	flags           uint32
	name            [16]byte
}

type bpfAttachAttr struct{ target, program, kind, flags, replace uint32 }

type bpfQueryAttr struct {
	target, kind, flags, attachFlags uint32
	ids                              uint64
	count                            uint32
	_                                uint32
}

func loadDevices(p *devicePolicy) (int, error) {
	prog := deviceProgram(p)
	license := []byte("Apache-2.0\x00")
	attr := bpfLoadAttr{
		progType: bpfTypeDevice, count: uint32(len(prog) / bpfOpSize),
		insns:   uint64(uintptr(unsafe.Pointer(&prog[0]))),
		license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	copy(attr.name[:], "strake_devices")
	fd, err := bpf(bpfProgLoad, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(prog)
	runtime.KeepAlive(license)
	if err != nil {
		return -1, fmt.Errorf(
			"load a program of %d instructions: %w", attr.count, os.NewSyscallError("bpf", err),
		)
	}
	return fd, nil
}

// attachDevices puts a policy in force in a version 2 group, in place of what strake put there
// before, without a moment in which neither is in force. Programs of groups above stay in force
// beside it.
func attachDevices(dir string, p *devicePolicy) error {
	group, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", dir, err)
	}
	defer unix.Close(group)
	prog, err := loadDevices(p)
	if err != nil {
		return err
	}
	defer unix.Close(prog) // the group keeps it
	old, err := attached(group)
	if err != nil {
		return err
	}
	defer func() {
		for _, fd := range old {
			unix.Close(fd)
		}
	}()
	attr := bpfAttachAttr{
		target: uint32(group), program: uint32(prog), kind: bpfAttachDevice, flags: bpfFlagMulti,
	}
	if len(old) == 1 {
		attr.flags, attr.replace = bpfFlagMulti|bpfFlagReplace, uint32(old[0])
	}
	if _, err := bpf(bpfProgAttach, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("attach a program to %q: %w", dir, os.NewSyscallError("bpf", err))
	}
	if len(old) < 2 {
		return nil
	}
	for _, fd := range old {
		attr := bpfAttachAttr{target: uint32(group), program: uint32(fd), kind: bpfAttachDevice}
		if _, err := bpf(bpfProgDetach, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil &&
			!errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("detach a program from %q: %w", dir, os.NewSyscallError("bpf", err))
		}
	}
	return nil
}

// attached opens the device programs of a group itself, without those above it.
func attached(group int) (fds []int, err error) {
	var ids [maxDevicePrograms]uint32
	attr := bpfQueryAttr{
		target: uint32(group), kind: bpfAttachDevice, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))),
		count: maxDevicePrograms,
	}
	_, err = bpf(bpfProgQuery, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(&ids)
	if err != nil {
		return nil, fmt.Errorf("list device programs: %w", os.NewSyscallError("bpf", err))
	}
	for _, id := range ids[:attr.count] {
		get := struct{ id, next, flags uint32 }{id: id}
		fd, err := bpf(bpfProgGetFD, unsafe.Pointer(&get), unsafe.Sizeof(get))
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return nil, fmt.Errorf("open a device program: %w", os.NewSyscallError("bpf", err))
		}
		fds = append(fds, fd)
	}
	return fds, nil
}
