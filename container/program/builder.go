package program

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Builder assembles a Program. The zero value is ready. Not for concurrent use.
//
// Its methods do not fail: a mistake in their use (a label placed twice, more than six arguments)
// is a bug of the planner and is reported by Build.
type Builder struct {
	p     Program
	field string
	err   error
}

// What a container with the usual mounts needs, with room, if it is the first one.
const (
	usualOps  = 448
	usualData = 12 << 10
)

// Clone sets the namespaces (CLONE_NEW*) that the child is born in.
func (b *Builder) Clone(flags uint64) { b.p.img.clone = flags }

// Keep lets the child inherit the descriptors below n beside its inputs. Without it these are 0, 1
// and 2.
func (b *Builder) Keep(n int) { b.p.img.keep = n }

// OOMScore has the spawner write the child's oom_score_adj (proc_pid_oom_score_adj(5)), with the
// mappings of its new user namespace: in there the child has no right to lower it. For programs
// with CLONE_NEWUSER in their clone flags.
func (b *Builder) OOMScore(score int) {
	if score < minScore || score > maxScore {
		b.fail("OOM score %d", score)
	}
	b.p.img.score, b.p.img.hasScore = int64(score), true
}

// Field sets the configuration field that the following operations are made for.
func (b *Builder) Field(name string) { b.field = name }

// Fieldf is Field with a format.
func (b *Builder) Fieldf(format string, args ...any) { b.field = fmt.Sprintf(format, args...) }

// begin gives the program memory, of one that was released if there is one.
func (b *Builder) begin() {
	p := &b.p
	m, _ := released.Get().(*memory)
	if m == nil {
		p.img.ops, p.about = make([]instr, 0, usualOps), make([]about, 0, usualOps)
		return
	}
	clear(m.data[:cap(m.data)]) // what alloc hands out is zero
	p.img.ops, p.about, p.img.data = m.ops, m.about, m.data
}

// memory is what most of a program lies in, without content.
type memory struct {
	ops   []instr
	about []about
	data  []byte
}

// released is the memory of programs that nobody needs any more. At hundreds of starts a second it
// was half of all garbage of an engine.
var released sync.Pool

// Release gives the program's memory to programs to come. Neither it nor its Image may be used
// afterwards.
func (p *Program) Release() {
	if p.img.ops == nil || cap(p.img.data) > maxReleased {
		return
	}
	released.Put(&memory{p.img.ops[:0], p.about[:0], p.img.data[:0]})
	p.img.ops, p.about, p.img.data = nil, nil, nil
}

// maxReleased is how much data a program may have whose memory is kept.
const maxReleased = 256 << 10

func (b *Builder) alloc(size, align uint32) uint32 {
	img := &b.p.img
	if img.ops == nil {
		b.begin()
	}
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

// CellIn is the eight bytes at off in r as a cell, for a field that a loop sets again.
// Preconditions: off is a multiple of 8, and off+8 <= size.
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
		b.begin()
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
