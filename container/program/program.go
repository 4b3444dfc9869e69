// Package program defines the flat list of system-call operations that a container start is compiled into, its printed
// form, and the relocatable image that a raw child interprets.
//
// A Program is data. It is built by a pure function (package plan), printed by --explain, sent to the keeper over a
// socket, and executed by package spawn in a freshly cloned child that owns nothing but the image: no Go runtime, no heap,
// no copy of strake. Every operation has fixed arguments, except that an argument may be the result of an earlier
// operation (a Cell) or a descriptor which the spawning process supplies by name (an Input).
//
// The machine has four kinds of operation: a system call, a conditional jump, an arithmetic step on a cell, and a
// deliberate failure. Jumps may go backwards (the PID 1 reaper is such a loop), so termination is the program's business.
//
// Promise: the same calls on a Builder give the same Image, byte for byte, on every host; an Image is validated
// before use by Relocate, which never reads or writes outside of it.
//
// Not for: deciding what a container needs (plan), or running anything (spawn).
//
// Tested by golden text in package plan, by round trips and hostile images here, and by running real children in spawn.
package program

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Code says what kind of operation an Op is.
type Code uint8

const (
	// Syscall issues one system call. A negative result is a failure, unless its errno is in Op.Ignore.
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
	// Imm is the value itself; pointers into the image and inputs become immediates when the image is relocated.
	Imm Kind = iota
	// Load64, Load32, Load16 and Load8 read a little-endian value from the image when the operation runs.
	Load64
	Load32
	Load16
	Load8

	// The remaining kinds become immediates when an image is relocated: the address of an offset in the data, a descriptor
	// that the spawner supplied, the first address of the mapping that holds the machine, and the first one behind it.
	kindPtr   Kind = 100
	kindInput Kind = 101
	kindStart Kind = 102
	kindEnd   Kind = 103
	// kindGapFirst and kindGapLast bound the i-th run of descriptors that the child must not have.
	kindGapFirst Kind = 104
	kindGapLast  Kind = 105
)

// MapStart and MapEnd are the bounds of the memory that holds the image and its interpreter: what the child must keep
// when it unmaps everything that it inherited.
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

// Load is the argument that reads a little-endian value of 8, 4, 2 or 1 bytes at off. Preconditions: as At.
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

// Op is one operation.
type Op struct {
	Code Code
	Cond Cond
	// Field is the part of the container's configuration that asked for this operation, as an error message names it:
	// `mounts[3] (/data)`.
	Field string
	// Nr is the system call number (Code Syscall).
	Nr   uint32
	Args []Arg
	// Dst receives the result, if HasDst; also when an ignored error is the result (as the negative errno).
	Dst    Cell
	HasDst bool
	// Ignore lists up to four errno values that are not failures. After one of them the program goes on at OnError,
	// if that is set, else with the next operation.
	Ignore  []uint16
	OnError Label
	// Target is where a Jump goes.
	Target Label
}

// Input is a descriptor that the spawning process must supply. The program refers to it by its place in Program.Inputs.
type Input struct {
	// Name is how the plan and the spawner agree on it: "sync", "cgroup.tasks/memory", "stdin".
	Name string
}

// Program is a finished, immutable program. It may be used by several goroutines at once.
type Program struct {
	ops    []Op
	labels []int32 // label number → op index
	data   []byte
	ptrs   []dataPtr
	inputs []Input
	clone  uint64
	keep   int
	notes  map[uint32]note // data offset → what it is, for printing
}

type dataPtr struct{ at, to uint32 }

type note struct {
	text string
	size uint32
}

// CloneFlags are the namespaces (CLONE_NEW*) that the child is born in.
func (p *Program) CloneFlags() uint64 { return p.clone }

// Len is the number of operations.
func (p *Program) Len() int { return len(p.ops) }

// Op returns operation i. Precondition: 0 <= i < Len(). The caller must not modify what it refers to.
func (p *Program) Op(i int) Op { return p.ops[i] }

// Inputs returns the descriptors to supply, in the order in which Image.Relocate wants them. Not to be modified.
func (p *Program) Inputs() []Input { return p.inputs }

// Builder assembles a Program. The zero value is ready. Not for concurrent use.
//
// Its methods do not fail: a mistake in their use (a label placed twice, more than six arguments) is a bug of the
// planner and is reported by Build.
type Builder struct {
	p     Program
	field string
	strs  map[string]Buf
	names map[string]uint64
	args  []Arg // of all operations, so that they are few allocations
	err   error
}

// Clone sets the namespaces (CLONE_NEW*) that the child is born in.
func (b *Builder) Clone(flags uint64) { b.p.clone = flags }

// Keep lets the child inherit the descriptors below n beside its inputs. Without it these are 0, 1 and 2.
func (b *Builder) Keep(n int) { b.p.keep = n }

// Field sets the configuration field that the following operations are made for.
func (b *Builder) Field(name string) { b.field = name }

// Fieldf is Field with a format.
func (b *Builder) Fieldf(format string, args ...any) { b.field = fmt.Sprintf(format, args...) }

func (b *Builder) alloc(size, align uint32) uint32 {
	off := (uint32(len(b.p.data)) + align - 1) &^ (align - 1)
	need := int(off) + int(size)
	if cap(b.p.data) < need {
		grown := make([]byte, len(b.p.data), 2*need+4096)
		copy(grown, b.p.data)
		b.p.data = grown
	}
	b.p.data = b.p.data[:need]
	return off
}

// Cell allocates a cell that starts as zero.
func (b *Builder) Cell() Cell { return Cell{b.alloc(8, 8)} }

// Room allocates size zero bytes, aligned to 8.
func (b *Builder) Room(size int) Buf { return Buf{b.alloc(uint32(size), 8), uint32(size)} }

// Bytes copies v into the image, aligned to 8.
func (b *Builder) Bytes(v []byte) Buf {
	r := b.Room(len(v))
	copy(b.p.data[r.off:], v)
	return r
}

// Str copies s and a terminating NUL into the image; equal strings share one copy. Its Size includes the NUL.
func (b *Builder) Str(s string) Buf {
	if r, ok := b.strs[s]; ok {
		return r
	}
	off := b.alloc(uint32(len(s)+1), 1)
	copy(b.p.data[off:], s)
	r := Buf{off, uint32(len(s) + 1)}
	if b.strs == nil {
		b.strs = make(map[string]Buf, 64)
		b.p.notes = make(map[uint32]note, 64)
	}
	b.strs[s] = r
	b.p.notes[off] = note{text: s, size: uint32(len(s))}
	return r
}

// Note attaches a description to a buffer for the printed form, where it stands in place of the address.
func (b *Builder) Note(r Buf, text string) {
	if b.p.notes == nil {
		b.p.notes = make(map[uint32]note, 64)
	}
	b.p.notes[r.off] = note{text: "\x00" + text}
}

// Strs builds a NULL-terminated array of strings, as execve(2) takes them.
func (b *Builder) Strs(list []string) Buf {
	r := b.Room(8 * (len(list) + 1))
	for i, s := range list {
		b.Point(r, uint32(8*i), b.Str(s))
	}
	return r
}

// Point makes the eight bytes at off in r the address of to.
func (b *Builder) Point(r Buf, off uint32, to Buf) {
	b.p.ptrs = append(b.p.ptrs, dataPtr{r.off + off, to.off})
}

// Poke16 stores a little-endian value of two bytes at off in r.
func (b *Builder) Poke16(r Buf, off uint32, v uint16) {
	binary.LittleEndian.PutUint16(b.p.data[r.off+off:], v)
}

// CellBuf is the cell as a buffer, for calls that take the address of a number.
func (b *Builder) CellBuf(c Cell) Buf { return Buf{c.off, 8} }

// Report makes fd the descriptor on which failures are reported from here on.
func (b *Builder) Report(fd Arg) {
	b.op(Op{Code: ALU, Cond: Move, HasDst: true, Dst: Cell{reportCell}}, []Arg{fd, Num(0)})
}

// Input declares (once per name) a descriptor that the spawner supplies.
func (b *Builder) Input(name string) Arg {
	if i, ok := b.names[name]; ok {
		return Arg{Kind: kindInput, Value: i}
	}
	if b.names == nil {
		b.names = make(map[string]uint64)
	}
	i := uint64(len(b.p.inputs))
	b.names[name] = i
	b.p.inputs = append(b.p.inputs, Input{Name: name})
	return Arg{Kind: kindInput, Value: i}
}

// Label makes a label that is not placed yet.
func (b *Builder) Label() Label {
	b.p.labels = append(b.p.labels, -1)
	return Label{int32(len(b.p.labels))}
}

// Place puts the label in front of the next operation.
func (b *Builder) Place(l Label) {
	if l.n <= 0 || int(l.n) > len(b.p.labels) || b.p.labels[l.n-1] >= 0 {
		b.fail("label %d placed twice or unknown", l.n)
		return
	}
	b.p.labels[l.n-1] = int32(len(b.p.ops))
}

// Here makes a label in front of the next operation.
func (b *Builder) Here() Label {
	l := b.Label()
	b.Place(l)
	return l
}

func (b *Builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("program: op %d (%s): %w", len(b.p.ops), b.field, fmt.Errorf(format, args...))
	}
}

// Call appends a system call and returns a handle to say more about it.
func (b *Builder) Call(nr uintptr, args ...Arg) CallRef {
	if len(args) > 6 {
		b.fail("%d arguments to a system call", len(args))
		args = args[:6]
	}
	b.op(Op{Code: Syscall, Nr: uint32(nr)}, args)
	return CallRef{b, len(b.p.ops) - 1}
}

// op appends an operation. args stays the caller's.
func (b *Builder) op(o Op, args []Arg) {
	if b.p.ops == nil {
		// What a container with the usual mounts needs.
		b.p.ops, b.args = make([]Op, 0, 704), make([]Arg, 0, 2048)
	}
	from := len(b.args)
	b.args = append(b.args, args...)
	o.Field, o.Args = b.field, b.args[from:len(b.args):len(b.args)]
	b.p.ops = append(b.p.ops, o)
}

// CallRef refines the system call that Call appended.
type CallRef struct {
	b *Builder
	i int
}

// To stores the result in an existing cell.
func (c CallRef) To(cell Cell) CallRef {
	op := &c.b.p.ops[c.i]
	op.Dst, op.HasDst = cell, true
	return c
}

// Result stores the result in a new cell.
func (c CallRef) Result() Cell {
	cell := c.b.Cell()
	c.To(cell)
	return cell
}

// Ignore lists errno values that are not failures of this call (at most four).
func (c CallRef) Ignore(errnos ...uint16) CallRef {
	op := &c.b.p.ops[c.i]
	op.Ignore = append(op.Ignore, errnos...)
	if len(op.Ignore) > 4 {
		c.b.fail("more than four ignored errors")
	}
	return c
}

// Else continues at l after one of the ignored errors.
func (c CallRef) Else(l Label) CallRef {
	c.b.p.ops[c.i].OnError = l
	return c
}

// If jumps to l if v&mask compares to want as cond says.
func (b *Builder) If(v Arg, mask uint64, cond Cond, want Arg, l Label) {
	if cond > AtLeast {
		b.fail("condition %d in a jump", cond)
	}
	b.op(Op{Code: Jump, Cond: cond, Target: l}, []Arg{v, Num(mask), want})
}

// Goto jumps to l.
func (b *Builder) Goto(l Label) { b.If(Num(0), 0, Equal, Num(0), l) }

// Set computes dst = a op v.
func (b *Builder) Set(dst Cell, a Arg, op Cond, v Arg) {
	if op < Move || op > condLast {
		b.fail("operator %d", op)
	}
	b.op(Op{Code: ALU, Cond: op, Dst: dst, HasDst: true}, []Arg{a, v})
}

// Fail ends the child with errno as the reported reason. errno may be a cell that holds a negative errno.
func (b *Builder) Fail(errno Arg) {
	b.op(Op{Code: Fail}, []Arg{errno})
}

// Build returns the program. The Builder must not be used afterwards.
func (b *Builder) Build() (*Program, error) {
	if b.err != nil {
		return nil, b.err
	}
	for n, at := range b.p.labels {
		if at < 0 {
			return nil, fmt.Errorf("program: label %d is not placed", n+1)
		}
	}
	if b.p.keep == 0 {
		b.p.keep = 3
	}
	// A failure is reported on it, also by a program that says nothing else.
	b.Input(InputSync)
	b.p.closeGaps()
	return &b.p, nil
}

// closeGaps puts in front of the program what closes every descriptor that is neither kept nor an input. The child is
// born with a copy of the spawner's table, in which there are other children's pipes and sockets; as long as it held those, their ends
// would not be seen.
func (p *Program) closeGaps() {
	n := len(p.inputs) + 1
	p.ops = slices.Grow(p.ops, n)[:len(p.ops)+n]
	copy(p.ops[n:], p.ops)
	for i := range n {
		p.ops[i] = Op{
			Code: Syscall, Field: "isolate", Nr: unix.SYS_CLOSE_RANGE,
			Args: []Arg{{kindGapFirst, uint64(i)}, {kindGapLast, uint64(i)}, Num(0)},
		}
	}
	for i := range p.labels {
		p.labels[i] += int32(n)
	}
}
