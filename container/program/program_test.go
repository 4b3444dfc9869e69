package program

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// sample uses every kind of operation and of argument.
func sample(t testing.TB) *Program {
	t.Helper()
	var b Builder
	b.Clone(unix.CLONE_NEWPID | unix.CLONE_NEWNS)
	b.Isolate()
	b.Field("sample")
	out := b.Label()
	fd := b.Call(
		unix.SYS_OPENAT, Num(unix.AT_FDCWD), b.Str("/dev/null").Ptr(), Num(unix.O_RDWR),
	).Ignore(uint16(unix.ENOENT), uint16(unix.EACCES)).Else(out).Result()
	room := b.Room(16)
	b.Poke16(room, 2, 7)
	for _, bytes := range []int{8, 4, 2, 1} {
		b.Call(unix.SYS_READ, fd.Value(), room.Ptr(), room.Load(8, bytes))
	}
	b.Set(fd, fd.Value(), Add, Num(1))
	b.If(fd.Value(), 0xff, Less, Num(3), out)
	b.Report(b.Input("elsewhere"))
	b.Await()
	b.Place(out)
	b.Field("process.args")
	b.Call(
		unix.SYS_EXECVE, b.Str("/bin/true").Ptr(), b.Strs([]string{"true", "/dev/null"}).Ptr(),
		b.Strs(nil).Ptr(),
	)
	p, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const base = 0x7f0000001000

// relocate puts an image at base, between bytes that it must leave alone.
func relocate(t testing.TB, img *Image) ([]byte, error) {
	t.Helper()
	const margin = 64
	size := img.Size()
	mem := bytes.Repeat([]byte{0xa5}, size+2*margin)
	inputs := make([]int, len(img.Inputs()))
	for i := range inputs {
		inputs[i] = 10 + 2*i
	}
	err := img.Relocate(Place{
		Mem: mem[margin : margin+size : margin+size], Base: base, Start: base - 0x1000,
		End: base + 0x10000, Report: 42, Inputs: inputs,
	})
	for i, c := range mem {
		if c != 0xa5 && (i < margin || i >= margin+size) {
			t.Fatalf("byte %d outside of the place is written", i-margin)
		}
	}
	return mem[margin : margin+size], err
}

// TestRoundTrip: an image that has travelled is executed as the program itself is.
func TestRoundTrip(t *testing.T) {
	p := sample(t)
	raw := p.Encode()
	// also where the words do not lie as the machine wants them
	for _, shift := range []int{0, 1, 4} {
		img, err := Parse(append(make([]byte, shift, shift+len(raw)), raw...)[shift:])
		if err != nil {
			t.Fatal(err)
		}
		if img.CloneFlags() != p.CloneFlags() || img.Ops() != p.Len()+1 ||
			!slices.Equal(img.Inputs(), []string{"exe", "elsewhere", "sync"}) {
			t.Errorf(
				"flags %#x, %d operations, inputs %q", img.CloneFlags(), img.Ops(), img.Inputs(),
			)
		}
		one, err1 := relocate(t, p.Image())
		two, err2 := relocate(t, img)
		if err1 != nil || err2 != nil || !bytes.Equal(one, two) {
			t.Errorf("shift %d: the images differ: %v, %v", shift, err1, err2)
		}
	}
}

// TestRelocate reads what the interpreter gets.
func TestRelocate(t *testing.T) {
	p := sample(t)
	mem, err := relocate(t, p.Image())
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	data := uint64(base + HeaderSize + (p.Len()+1)*OpSize)
	at := func(addr uint64) []byte { return mem[addr-base:] }
	if got := le.Uint64(mem); got != 42 {
		t.Errorf("reports go to %d", got)
	}
	var closed []uint64
	for i := range p.Len() {
		op := mem[HeaderSize+i*OpSize:][:OpSize]
		arg := func(k int) uint64 { return le.Uint64(op[24+8*k:]) }
		here := uint64(base + HeaderSize + i*OpSize)
		if le.Uint64(op[80:]) < base || le.Uint64(op[88:]) < base ||
			le.Uint32(op[12:]) != uint32(i) {
			t.Errorf(
				"operation %d goes on at %#x or %#x", i, le.Uint64(op[80:]), le.Uint64(op[88:]),
			)
		}
		switch view := p.Op(i); {
		case view.Code == Syscall && view.Nr == unix.SYS_CLOSE_RANGE:
			closed = append(closed, arg(0), arg(1))
		case view.Code == Syscall && view.Nr == unix.SYS_OPENAT:
			if path := at(arg(1)); !bytes.HasPrefix(path, []byte("/dev/null\x00")) {
				t.Errorf("openat of %.10q", path)
			}
			if want := []byte{2, 0, 13, 0, 0, 0, 0, 0}; !bytes.Equal(op[16:24], want) {
				t.Errorf("ignores %v, want %v", op[16:24], want)
			}
			if le.Uint64(op[80:]) == here+OpSize {
				t.Error("goes on with the next operation after an ignored error")
			}
		case view.Code == Syscall && view.Nr == unix.SYS_READ && op[4] != byte(Imm):
			if arg(0) != arg(0)&^7 || arg(0) < data {
				t.Errorf("%s: loads from %#x", p.Text(i), arg(0))
			}
		case view.Code == Syscall && view.Nr == unix.SYS_EXECVE:
			argv := at(arg(1))
			if s := at(le.Uint64(argv[8:])); !bytes.HasPrefix(s, []byte("/dev/null\x00")) ||
				le.Uint64(argv[16:]) != 0 {
				t.Errorf("second argument %.10q", s)
			}
		case view.HasDst && view.Dst.off == reportCell:
			if le.Uint64(op[72:]) != base || arg(0) != 12 {
				t.Errorf("%s: stores %d at %#x", p.Text(i), arg(0), le.Uint64(op[72:]))
			}
		}
	}
	// Inputs are 10, 12 and 14; 0 to 2 are kept.
	if want := []uint64{3, 9, 11, 11, 13, 13, 15, 1<<32 - 1}; !slices.Equal(closed, want) {
		t.Errorf("closes %d, want %d", closed, want)
	}
	if guard := mem[HeaderSize+p.Len()*OpSize:]; guard[0] != byte(Fail) ||
		le.Uint64(guard[24:]) != uint64(unix.ENOSYS) {
		t.Errorf("the guard is %x", guard[:32])
	}
}

// TestHostile spoils an image in every way that is checked; each gets an error of its own and none
// is written outside of its place.
func TestHostile(t *testing.T) {
	p := sample(t)
	good := p.Encode()
	le := binary.LittleEndian
	find := func(match func(Op) bool) int {
		for i := range p.Len() {
			if match(p.Op(i)) {
				return headerSize + i*OpSize
			}
		}
		t.Fatal("no such operation")
		return 0
	}
	open := find(func(op Op) bool { return op.Nr == unix.SYS_OPENAT })
	read := find(func(op Op) bool { return op.Code == Syscall && op.Nr == unix.SYS_READ })
	gap := find(func(op Op) bool { return op.Nr == unix.SYS_CLOSE_RANGE })
	input := find(func(op Op) bool { return op.HasDst && op.Dst.off == reportCell })
	data := headerSize + (p.Len()+1)*OpSize
	ptrs := data + len(p.img.data)
	put64 := func(at int, v uint64) func([]byte) []byte {
		return func(raw []byte) []byte { le.PutUint64(raw[at:], v); return raw }
	}
	put32 := func(at int, v uint32) func([]byte) []byte {
		return func(raw []byte) []byte { le.PutUint32(raw[at:], v); return raw }
	}
	put8 := func(at int, v byte) func([]byte) []byte {
		return func(raw []byte) []byte { raw[at] = v; return raw }
	}
	for _, c := range []struct {
		want  string
		spoil func([]byte) []byte
	}{
		{"0 bytes", func([]byte) []byte { return nil }},
		{"magic", put8(0, 0)},
		{"version 3", put8(4, 3)},
		{"0 operations", put32(8, 0)},
		{"operations, 1 to 65536", put32(8, 1<<32-1)},
		{"truncated", put32(8, maxOps)},
		{"data, at most", put32(12, 1<<32-8)},
		{"multiple of 8", put32(12, 3)},
		{"truncated", put32(12, maxData)},
		{"truncated", put32(16, 1<<32-1)},
		{"inputs, at most 250", put32(20, 1<<32-1)},
		{"names of inputs", put32(20, 250)},
		{"code 4", put8(open, 4)},
		{"condition 11", put8(open+1, 11)},
		{"index 1", put32(headerSize+12, 1)},
		{"argument 1: program image: points outside", put64(open+32, 1<<40)},
		{"argument 1: program image: points outside", put64(open+32, ^uint64(0))},
		{"argument 0: program image: loaded from outside", put64(read+24, ^uint64(0))},
		{
			"argument 0: program image: loaded from outside",
			put64(read+24, uint64(len(p.img.data)-7)),
		},
		{"argument 5: program image: kind 99", put8(open+7, 99)},
		{"input 3 of 3", put64(input+24, 3)},
		{"gap 9 of 4", put64(gap+24, 9)},
		{"result stored outside", put64(open+72, ^uint64(0))},
		{"result stored outside", put64(open+72, uint64(len(p.img.data)-6))},
		{"goes on", put64(open+80, uint64(p.Len()+1))},
		{"goes on", put64(open+88, ^uint64(0))},
		{"no guard", put8(data-OpSize, byte(ALU))},
		{"pointer 0", put32(ptrs, uint32(len(p.img.data)))},
		{"pointer 0", put32(ptrs, 4)},
		{"pointer 0", put32(ptrs+4, 1<<32-1)},
	} {
		img, err := Parse(c.spoil(slices.Clone(good)))
		if err == nil {
			_, err = relocate(t, img)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) ||
			!errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("got error %v, want one of class ErrInvalidArgument with %q", err, c.want)
		}
	}
	for n := range good {
		if img, err := Parse(good[:n]); err == nil {
			t.Fatalf("%d bytes of %d are an image: %+v", n, len(good), img)
		}
	}
}

// TestOOMScore carries a score through an image, and refuses one that the kernel would.
func TestOOMScore(t *testing.T) {
	if _, ok := sample(t).Image().OOMScore(); ok {
		t.Error("a program that says nothing has a score")
	}
	build := func(score int) (*Program, error) {
		var b Builder
		b.Clone(unix.CLONE_NEWUSER)
		b.OOMScore(score)
		b.Exit(Num(0))
		return b.Build()
	}
	p, err := build(-998)
	if err != nil {
		t.Fatal(err)
	}
	raw := p.Encode()
	img, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if score, ok := img.OOMScore(); score != -998 || !ok || img.CloneFlags() != p.CloneFlags() ||
		img.Ops() != p.Len()+1 {
		t.Errorf("score %d, %t, flags %#x, %d operations", score, ok, img.CloneFlags(), img.Ops())
	}
	one, err1 := relocate(t, p.Image())
	two, err2 := relocate(t, img)
	if err1 != nil || err2 != nil || !bytes.Equal(one, two) {
		t.Errorf("the images differ: %v, %v", err1, err2)
	}
	for n := range raw {
		if _, err := Parse(raw[:n]); err == nil {
			t.Fatalf("%d bytes of %d are an image", n, len(raw))
		}
	}
	binary.LittleEndian.PutUint64(raw[headerSize:], 1001)
	if _, err := Parse(raw); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("score 1001: %v, want ErrInvalidArgument", err)
	}
	if _, err := build(-1001); err == nil {
		t.Error("score -1001 can be built")
	}
}

// TestLimits: a program that is too large for an image is refused when it is built.
func TestLimits(t *testing.T) {
	var b Builder
	for range maxOps {
		b.Set(Cell{}, Num(0), Move, Num(0))
	}
	if _, err := b.Build(); !errors.Is(err, errdefs.ErrInvalidArgument) ||
		!strings.Contains(err.Error(), "operations") {
		t.Errorf("%d operations: %v", maxOps, err)
	}
	b = Builder{}
	b.Room(maxData + 1)
	if _, err := b.Build(); !errors.Is(err, errdefs.ErrInvalidArgument) ||
		!strings.Contains(err.Error(), "data") {
		t.Errorf("%d bytes: %v", maxData+1, err)
	}
	for name, build := range map[string]func(b *Builder){
		"arguments":      func(b *Builder) { b.Call(unix.SYS_READ, make([]Arg, 7)...) },
		"ignored errors": func(b *Builder) { b.Call(unix.SYS_READ).Ignore(1, 2, 3).Ignore(4, 5) },
		"placed twice":   func(b *Builder) { b.Place(b.Here()) },
		"not placed":     func(b *Builder) { b.Goto(b.Label()) },
		"no label":       func(b *Builder) { b.Goto(Label{}) },
		"condition":      func(b *Builder) { b.If(Num(0), 0, Move, Num(0), b.Here()) },
		"operator":       func(b *Builder) { b.Set(b.Cell(), Num(0), Less, Num(0)) },
	} {
		var b Builder
		build(&b)
		if _, err := b.Build(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got error %v, want one with %q", err, name)
		}
	}
}

// FuzzRelocate holds that whatever passes stays inside: every address that the interpreter follows
// or writes to lies in the image.
func FuzzRelocate(f *testing.F) {
	f.Add(sample(f).Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		img, err := Parse(raw)
		if err != nil {
			return
		}
		mem, err := relocate(t, img)
		if err != nil {
			return
		}
		end := uint64(base + len(mem))
		firstOp, firstData := uint64(base+HeaderSize), uint64(base+HeaderSize+img.Ops()*OpSize)
		for i, in := range opsIn(mem[HeaderSize:], img.Ops()) {
			for _, next := range []uint64{in.next, in.target} {
				if next < firstOp || next >= firstData || (next-firstOp)%OpSize != 0 {
					t.Errorf("operation %d goes on at %#x", i, next)
				}
			}
			if in.dst != 0 && in.dst != base && (in.dst < firstData || in.dst+8 > end) {
				t.Errorf("operation %d stores at %#x", i, in.dst)
			}
			for k, kind := range in.kinds {
				if kind > Load8 || kind != Imm && (in.args[k] < firstData || in.args[k] >= end) {
					t.Errorf(
						"operation %d: argument %d of kind %d from %#x", i, k, kind, in.args[k],
					)
				}
			}
		}
	})
}
