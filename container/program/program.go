// Package program defines the flat list of system-call operations that a container start is
// compiled into, its printed form, and the relocatable image that a raw child interprets.
//
// A Program is data. It is built by a pure function (package plan), printed by --explain, sent to
// the keeper over a socket, and executed by package spawn in a freshly cloned child that owns
// nothing but the image: no Go runtime, no heap, no copy of strake. Every operation has fixed
// arguments, except that an argument may be the result of an earlier operation (a Cell) or a
// descriptor which the spawning process supplies by name (an Input).
//
// The machine has four kinds of operation: a system call, a conditional jump, an arithmetic step on
// a cell, and a deliberate failure. Jumps may go backwards (the PID 1 reaper is such a loop), so
// termination is the program's business.
//
// Promise: the same calls on a Builder give the same Image, byte for byte, on every host; an Image
// is validated before use by Relocate, which never reads or writes outside of it.
//
// Not for: deciding what a container needs (plan), or running anything (spawn).
//
// Tested by golden text in package plan, by round trips and hostile images here, and by running
// real children in spawn.
package program

import ()

// Code says what kind of operation an Op is.
type Code uint8

const (
	// Syscall issues one system call. A negative result is a failure, unless its errno is in
	// Op.Ignore.
	Syscall Code = iota
	// Jump continues at Op.Target if Args[0]&Args[1] compares to Args[2] as Op.Cond says.
	Jump
	// ALU stores Args[0] <Op.Cond as operator> Args[1] in Op.Dst.
	ALU
	// Fail reports errno Args[0] as the failure of this operation and ends the child.
	Fail
)

// Cond is the comparison of a Jump or the operator of an ALU operation.
type Cond uint8

const (
	Equal Cond = iota
	NotEqual
	Less     // signed
	AtLeast  // signed
	Move     // ALU: first argument
	Add      // ALU
	Sub      // ALU
	And      // ALU
	Or       // ALU
	ShiftL   // ALU
	ShiftR   // ALU, logical
	condLast = ShiftR
)

// Kind says how an argument gets its value.
type Kind uint8

const (
	// Imm is the value itself; pointers into the image and inputs become immediates when the image
	// is relocated.
	Imm Kind = iota
	// Load64, Load32, Load16 and Load8 read a little-endian value from the image when the operation
	// runs.
	Load64
	Load32
	Load16
	Load8

	// The remaining kinds become immediates when an image is relocated: the address of an offset in
	// the data, a descriptor that the spawner supplied, the first address of the mapping that holds
	// the machine, and the first one behind it.
	kindPtr   Kind = 100
	kindInput Kind = 101
	kindStart Kind = 102
	kindEnd   Kind = 103
	// kindGapFirst and kindGapLast bound the i-th run of descriptors that the child must not have.
	kindGapFirst Kind = 104
	kindGapLast  Kind = 105
)

// MapStart and MapEnd are the bounds of the memory that holds the image and its interpreter: what
// the child must keep when it unmaps everything that it inherited.
var (
	MapStart = Arg{Kind: kindStart}
	MapEnd   = Arg{Kind: kindEnd}
)

// Arg is one argument of an Op.
type Arg struct {
	Kind  Kind
	Value uint64 // immediate, offset into Data, or index of an input
}

// Num is a number as an argument.
func Num[T ~int | ~int32 | ~int64 | ~uint | ~uint16 | ~uint32 | ~uint64 | ~uintptr](v T) Arg {
	return Arg{Kind: Imm, Value: uint64(v)}
}

// Cell is eight bytes in the image that operations write results to and read arguments from.
type Cell struct{ off uint32 }

// Value is the argument that reads the cell as 64 bits.
func (c Cell) Value() Arg { return Arg{Kind: Load64, Value: uint64(c.off)} }

// Buf is a piece of the image: a string, a structure, or room for a result.
type Buf struct {
	off  uint32
	size uint32
}

// Ptr is the address of the buffer.
func (b Buf) Ptr() Arg { return Arg{Kind: kindPtr, Value: uint64(b.off)} }

// At is the address of byte off in the buffer. Precondition: off <= size.
func (b Buf) At(off uint32) Arg { return Arg{Kind: kindPtr, Value: uint64(b.off + off)} }

// Size is the length of the buffer in bytes.
func (b Buf) Size() Arg { return Num(b.size) }

// Load is the argument that reads a little-endian value of 8, 4, 2 or 1 bytes at off.
// Preconditions: as At.
func (b Buf) Load(off uint32, bytes int) Arg {
	kind := Load64
	switch bytes {
	case 4:
		kind = Load32
	case 2:
		kind = Load16
	case 1:
		kind = Load8
	}
	return Arg{Kind: kind, Value: uint64(b.off + off)}
}

// Label is a place in the program that jumps go to. The zero Label is no place.
type Label struct{ n int32 }

// Op is one operation of a finished program, for those who look at it.
type Op struct {
	Code Code
	Cond Cond
	// Field is the part of the container's configuration that asked for this operation, as an error
	// message names it: `mounts[3] (/data)`.
	Field string
	// Nr is the system call number (Code Syscall).
	Nr   uint32
	Args []Arg
	// Dst receives the result, if HasDst; also when an ignored error is the result (as the negative
	// errno).
	Dst    Cell
	HasDst bool
	// Ignore lists up to four errno values that are not failures.
	Ignore []uint16
	// OnError is the operation that follows after one of them, Target the one that a Jump goes to;
	// else both are the next one.
	OnError, Target int
}

// Program is a finished, immutable program. It may be used by several goroutines at once.
type Program struct {
	img    Image
	labels []int32 // label number → op index
	about  []about // of each operation
	fields []string
	strs   map[string]Buf    // where in the data they are
	notes  map[uint32]string // data offset → what it is, for printing
}

// about is the part of an operation that is not executed: for printing and error messages.
type about struct {
	field uint16 // index in fields
	args  uint8  // how many there are
}

// CloneFlags are the namespaces (CLONE_NEW*) that the child is born in.
func (p *Program) CloneFlags() uint64 { return p.img.clone }

// Image is the program as it is executed by this process. It is immutable like the program.
func (p *Program) Image() *Image { return &p.img }

// Len is the number of operations.
func (p *Program) Len() int { return len(p.about) }

// Op returns operation i. Precondition: 0 <= i < Len().
func (p *Program) Op(i int) Op {
	in, about := &p.img.ops[i], p.about[i]
	op := Op{
		Code: in.code, Cond: in.cond, Field: p.fields[about.field], Nr: in.nr,
		OnError: int(in.next), Target: int(in.target),
	}
	if in.dst != 0 {
		op.HasDst, op.Dst = true, Cell{uint32(in.dst - 1)}
	}
	for k := range about.args {
		op.Args = append(op.Args, Arg{in.kinds[k], in.args[k]})
	}
	for _, errno := range in.ignore {
		if errno != 0 {
			op.Ignore = append(op.Ignore, errno)
		}
	}
	return op
}
