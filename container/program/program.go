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

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

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

// about is what is known of an operation beyond what is executed.
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

// Builder assembles a Program. The zero value is ready. Not for concurrent use.
//
// Its methods do not fail: a mistake in their use (a label placed twice, more than six arguments)
// is a bug of the planner and is reported by Build.
type Builder struct {
	p     Program
	field string
	title string
	err   error
}

// What a container with the usual mounts needs, with room.
const (
	usualOps  = 448
	usualData = 12 << 10
)

// Clone sets the namespaces (CLONE_NEW*) that the child is born in.
func (b *Builder) Clone(flags uint64) { b.p.img.clone = flags }

// Keep lets the child inherit the descriptors below n beside its inputs. Without it these are 0, 1
// and 2.
func (b *Builder) Keep(n int) { b.p.img.keep = n }

// Title sets the command line (proc_pid_cmdline(5)) that Isolate gives the child, which has it until
// it executes. Without it the line says that a container is being set up.
func (b *Builder) Title(text string) { b.title = text }

// Field sets the configuration field that the following operations are made for.
func (b *Builder) Field(name string) { b.field = name }

// Fieldf is Field with a format.
func (b *Builder) Fieldf(format string, args ...any) { b.field = fmt.Sprintf(format, args...) }

func (b *Builder) alloc(size, align uint32) uint32 {
	img := &b.p.img
	off := (uint32(len(img.data)) + align - 1) &^ (align - 1)
	need := int(off) + int(size)
	if cap(img.data) < need {
		grown := make([]byte, len(img.data), 2*need+usualData)
		copy(grown, img.data)
		img.data = grown
	}
	img.data = img.data[:need]
	return off
}

// Cell allocates a cell that starts as zero.
func (b *Builder) Cell() Cell { return Cell{b.alloc(8, 8)} }

// Room allocates size zero bytes, aligned to 8.
func (b *Builder) Room(size int) Buf { return Buf{b.alloc(uint32(size), 8), uint32(size)} }

// Bytes copies v into the image, aligned to 8.
func (b *Builder) Bytes(v []byte) Buf {
	r := b.Room(len(v))
	copy(b.p.img.data[r.off:], v)
	return r
}

// Str copies s and a terminating NUL into the image; equal strings share one copy. Its Size
// includes the NUL.
func (b *Builder) Str(s string) Buf {
	if r, ok := b.p.strs[s]; ok {
		return r
	}
	off := b.alloc(uint32(len(s)+1), 1)
	copy(b.p.img.data[off:], s)
	r := Buf{off, uint32(len(s) + 1)}
	if b.p.strs == nil {
		b.p.strs = make(map[string]Buf, 64)
	}
	b.p.strs[s] = r
	return r
}

// Note attaches a description to a buffer for the printed form, where it stands in place of the
// address.
func (b *Builder) Note(r Buf, text string) {
	if b.p.notes == nil {
		b.p.notes = make(map[uint32]string)
	}
	b.p.notes[r.off] = text
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
	b.p.img.ptrs = append(b.p.img.ptrs, dataPtr{r.off + off, to.off})
}

// Poke16 stores a little-endian value of two bytes at off in r.
func (b *Builder) Poke16(r Buf, off uint32, v uint16) {
	binary.LittleEndian.PutUint16(b.p.img.data[r.off+off:], v)
}

// CellBuf is the cell as a buffer, for calls that take the address of a number.
func (b *Builder) CellBuf(c Cell) Buf { return Buf{c.off, 8} }

// CellIn is the eight bytes at off in r as a cell, for a field that a loop sets again. Preconditions:
// off is a multiple of 8, and off+8 <= size.
func (b *Builder) CellIn(r Buf, off uint32) Cell {
	if off%8 != 0 || off+8 > r.size {
		b.fail("a cell at %d in a buffer of %d bytes", off, r.size)
	}
	return Cell{r.off + off}
}

// Report makes fd the descriptor on which failures are reported from here on.
func (b *Builder) Report(fd Arg) {
	b.op(instr{code: ALU, cond: Move, dst: reportCell + 1}, fd, Num(0))
}

// Input declares (once per name) a descriptor that the spawner supplies.
func (b *Builder) Input(name string) Arg {
	i := slices.Index(b.p.img.inputs, name)
	if i < 0 {
		i = len(b.p.img.inputs)
		b.p.img.inputs = append(b.p.img.inputs, name)
	}
	return Arg{Kind: kindInput, Value: uint64(i)}
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
	b.p.labels[l.n-1] = int32(len(b.p.img.ops))
}

// Here makes a label in front of the next operation.
func (b *Builder) Here() Label {
	l := b.Label()
	b.Place(l)
	return l
}

func (b *Builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(
			"program: op %d (%s): %w", len(b.p.img.ops), b.field, fmt.Errorf(format, args...),
		)
	}
}

// Call appends a system call and returns a handle to say more about it.
func (b *Builder) Call(nr uintptr, args ...Arg) CallRef {
	if len(args) > 6 {
		b.fail("%d arguments to a system call", len(args))
		args = args[:6]
	}
	b.op(instr{code: Syscall, nr: uint32(nr)}, args...)
	return CallRef{b, len(b.p.img.ops) - 1}
}

// op appends an operation.
func (b *Builder) op(in instr, args ...Arg) {
	p := &b.p
	if p.img.ops == nil {
		p.img.ops, p.about = make([]instr, 0, usualOps), make([]about, 0, usualOps)
	}
	for k, a := range args {
		in.kinds[k], in.args[k] = a.Kind, a.Value
	}
	p.img.ops = append(p.img.ops, in)
	last := len(p.fields) - 1
	if last < 0 || p.fields[last] != b.field {
		last++
		p.fields = append(p.fields, b.field)
	}
	p.about = append(p.about, about{uint16(last), uint8(len(args))})
}

// CallRef refines the system call that Call appended.
type CallRef struct {
	b *Builder
	i int
}

// To stores the result in an existing cell.
func (c CallRef) To(cell Cell) CallRef {
	c.b.p.img.ops[c.i].dst = uint64(cell.off) + 1
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
	in := &c.b.p.img.ops[c.i]
	used := slices.Index(in.ignore[:], 0)
	if used < 0 || copy(in.ignore[used:], errnos) < len(errnos) {
		c.b.fail("more than four ignored errors")
	}
	return c
}

// Else continues at l after one of the ignored errors.
func (c CallRef) Else(l Label) CallRef {
	c.b.p.img.ops[c.i].next = uint64(l.n)
	return c
}

// If jumps to l if v&mask compares to want as cond says.
func (b *Builder) If(v Arg, mask uint64, cond Cond, want Arg, l Label) {
	if cond > AtLeast {
		b.fail("condition %d in a jump", cond)
	}
	if l.n == 0 {
		b.fail("a jump to no label")
	}
	b.op(instr{code: Jump, cond: cond, target: uint64(l.n)}, v, Num(mask), want)
}

// Goto jumps to l.
func (b *Builder) Goto(l Label) { b.If(Num(0), 0, Equal, Num(0), l) }

// Set computes dst = a op v.
func (b *Builder) Set(dst Cell, a Arg, op Cond, v Arg) {
	if op < Move || op > condLast {
		b.fail("operator %d", op)
	}
	b.op(instr{code: ALU, cond: op, dst: uint64(dst.off) + 1}, a, v)
}

// Fail ends the child with errno as the reported reason. errno may be a cell that holds a negative
// errno.
func (b *Builder) Fail(errno Arg) {
	b.op(instr{code: Fail}, errno)
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
	p := &b.p
	if p.img.keep == 0 {
		p.img.keep = 3
	}
	// A failure is reported on it, also by a program that says nothing else.
	b.Input(InputSync)
	p.closeGaps()
	p.settle()
	b.alloc(0, 8)
	return p, fits(len(p.img.ops), len(p.img.data), len(p.img.inputs))
}

// closeGaps puts in front of the program what closes every descriptor that is neither kept nor an
// input. The child is born with a copy of the spawner's table, in which there are other children's
// pipes and sockets; as long as it held those, their ends would not be seen.
func (p *Program) closeGaps() {
	n := len(p.img.inputs) + 1
	p.fields = append(p.fields, "isolate")
	field := uint16(len(p.fields) - 1)
	ops := slices.Grow(p.img.ops, n+1)[:n+len(p.img.ops)] // and one that settle appends
	copy(ops[n:], p.img.ops)
	p.img.ops, p.about = ops, slices.Grow(p.about, n)[:len(ops)]
	copy(p.about[n:], p.about)
	for i := range n {
		ops[i] = instr{
			code: Syscall, nr: unix.SYS_CLOSE_RANGE,
			kinds: [6]Kind{kindGapFirst, kindGapLast}, args: [6]uint64{uint64(i), uint64(i)},
		}
		p.about[i] = about{field, 3}
	}
	for i := range p.labels {
		p.labels[i] += int32(n)
	}
}

// settle numbers the operations and puts the places of labels where the labels were.
func (p *Program) settle() {
	for i := range p.img.ops {
		in := &p.img.ops[i]
		in.index = uint32(i)
		in.next = p.place(in.next, i)
		in.target = p.place(in.target, i)
	}
	// Whatever runs past the end, or jumps there, fails instead of interpreting data.
	end := uint64(len(p.img.ops))
	p.img.ops = append(
		p.img.ops, instr{code: Fail, index: uint32(end), args: [6]uint64{uint64(unix.ENOSYS)}},
	)
}

// place is the operation at a label, or for 0 the one behind i.
func (p *Program) place(label uint64, i int) uint64 {
	if label == 0 {
		return uint64(i + 1)
	}
	return uint64(p.labels[label-1])
}
