package program

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// An encoded program ("image") is what travels to the keeper. All numbers are little-endian.
//
//	header   magic, version, counts of operations, data bytes, data pointers, inputs: six uint32,
//	         then the clone flags, the number of descriptors to keep (its highest bit says that
//	         the program forks); in version 2 of the format, which a program with an OOM score
//	         has, that score as an int64
//	ops      OpSize bytes each
//	data     padded to 8
//	pointers pairs of uint32: offset of the word in data, offset in data that it points to
//	inputs   per name: uint16 length, bytes
//
// In memory, after Relocate, header and pointers are replaced by the machine's own header and
// absolute addresses.
const (
	imageMagic   = 0x6b727473 // "strk"
	imageVersion = 1
	scoreVersion = 2 // the format with an OOM score
	headerSize   = 32
	scoreSize    = 8

	// HeaderSize is the machine header in front of the operations: the report descriptor (uint64),
	// then the eight bytes of a report: operation index and errno (uint32 each), then room for the
	// six arguments of the running operation.
	HeaderSize = 64
	// OpSize is the size of one operation, in an image as in memory.
	OpSize = 96

	// reportCell as the offset of a result stands for the report descriptor in the machine header.
	reportCell = 0xffffffff

	maxOps    = 1 << 16
	maxData   = 8 << 20 // ARG_MAX is at most 6 MiB
	maxInputs = 250     // SCM_MAX_FD is 253

	forksBit = 1 << 31 // beside the number of descriptors to keep

	minScore, maxScore = -1000, 1000 // proc_pid_oom_score_adj(5)
)

// instr is one operation as it lies in an image, and, relocated, before the interpreter in package
// spawn, which is written for this layout (here with the offsets). Both machines that strake runs
// on are little-endian.
type instr struct {
	code   Code      // 0
	cond   Cond      // 1
	kinds  [6]Kind   // 2: of the arguments
	nr     uint32    // 8: system call
	index  uint32    // 12: of the operation
	ignore [4]uint16 // 16: errnos, unused ones 0
	// 24: arguments, or where they are loaded from: an offset in the data, then its address
	args [6]uint64
	// 72: where the result goes: an offset in the data plus one, then its address; or 0
	dst    uint64
	next   uint64 // 80: the operation after an ignored error: its index, then its address
	target uint64 // 88: the operation that a jump goes to, likewise
}

var _ [OpSize]byte = [unsafe.Sizeof(instr{})]byte{}

// opBytes is the memory of operations.
func opBytes(ops []instr) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(ops))), len(ops)*OpSize)
}

// opsIn is memory as operations. Preconditions: it has room for n of them, and is aligned to 8.
func opsIn(mem []byte, n int) []instr {
	return unsafe.Slice((*instr)(unsafe.Pointer(unsafe.SliceData(mem))), n)
}

func aligned(mem []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(mem)))%8 == 0 }

// Encode returns the image of the program.
func (p *Program) Encode() []byte { return p.AppendTo(nil) }

// AppendTo appends the image of the program to raw, as encoding.BinaryAppender does.
func (p *Program) AppendTo(raw []byte) []byte {
	img := &p.img
	version, size := imageVersion, headerSize+len(img.ops)*OpSize+len(img.data)+8*len(img.ptrs)
	if img.hasScore {
		version, size = scoreVersion, size+scoreSize
	}
	for _, name := range img.inputs {
		size += 2 + len(name)
	}
	raw = slices.Grow(raw, size)
	le := binary.LittleEndian
	for _, n := range []int{
		imageMagic, version, len(img.ops), len(img.data), len(img.ptrs), len(img.inputs),
	} {
		raw = le.AppendUint32(raw, uint32(n))
	}
	// Namespace flags fit in 32 bits.
	keep := uint32(img.keep)
	if img.forks {
		keep |= forksBit
	}
	raw = le.AppendUint32(raw, uint32(img.clone))
	raw = le.AppendUint32(raw, keep)
	if img.hasScore {
		raw = le.AppendUint64(raw, uint64(img.score))
	}
	raw = append(raw, opBytes(img.ops)...)
	raw = append(raw, img.data...)
	for _, ptr := range img.ptrs {
		raw = le.AppendUint32(raw, ptr.at)
		raw = le.AppendUint32(raw, ptr.to)
	}
	for _, name := range img.inputs {
		raw = le.AppendUint16(raw, uint16(len(name)))
		raw = append(raw, name...)
	}
	return raw
}

// Image is a program as it is executed.
type Image struct {
	ops    []instr // with the guard at the end
	data   []byte
	ptrs   []dataPtr
	inputs []string
	clone  uint64
	keep   int
	forks  bool
	// score is for the spawner to write, if hasScore.
	score    int64
	hasScore bool
}

// dataPtr is a word in the data that becomes the address of another place there.
type dataPtr struct{ at, to uint32 }

func invalidImage(format string, args ...any) error {
	return fmt.Errorf(
		"program image: %s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument,
	)
}

// fits checks how much there is of everything against the limits of the format.
func fits(ops, data, inputs int) error {
	switch {
	case ops == 0 || ops > maxOps:
		return invalidImage("%d operations, 1 to %d are possible", ops, maxOps)
	case data > maxData || data%8 != 0:
		return invalidImage(
			"%d bytes of data, at most %d and a multiple of 8 are possible", data, maxData,
		)
	case inputs > maxInputs:
		return invalidImage("%d inputs, at most %d are possible", inputs, maxInputs)
	}
	return nil
}

// Parse checks the outer structure of an image. The Image refers to raw, which must not change
// afterwards. Errors are of class errdefs.ErrInvalidArgument.
func Parse(raw []byte) (*Image, error) {
	if len(raw) < headerSize {
		return nil, invalidImage("%d bytes, want at least %d", len(raw), headerSize)
	}
	if !aligned(raw) {
		raw = append(make([]byte, 0, len(raw)), raw...)
	}
	le := binary.LittleEndian
	magic, version := le.Uint32(raw), le.Uint32(raw[4:])
	if magic != imageMagic || version != imageVersion && version != scoreVersion {
		return nil, invalidImage(
			"magic %#x version %d, want %#x version %d or %d", magic, version, imageMagic,
			imageVersion, scoreVersion,
		)
	}
	ops, data := le.Uint32(raw[8:]), le.Uint32(raw[12:])
	ptrs, inputs := le.Uint32(raw[16:]), le.Uint32(raw[20:])
	if err := fits(int(ops), int(data), int(inputs)); err != nil {
		return nil, err
	}
	keep := le.Uint32(raw[28:])
	img := &Image{
		clone: uint64(le.Uint32(raw[24:])), keep: int(keep &^ forksBit), forks: keep&forksBit != 0,
	}
	// No number of these overflows when it is multiplied: they have 32 bits.
	rest := raw[headerSize:]
	take := func(n uint64) []byte {
		if n > uint64(len(rest)) {
			return nil
		}
		var part []byte
		part, rest = rest[:n:n], rest[n:]
		return part
	}
	if version == scoreVersion {
		score := take(scoreSize)
		if score == nil {
			return nil, invalidImage("truncated in the header")
		}
		img.score, img.hasScore = int64(le.Uint64(score)), true
		if img.score < minScore || img.score > maxScore {
			return nil, invalidImage("OOM score %d", img.score)
		}
	}
	code := take(uint64(ops) * OpSize)
	img.data = take(uint64(data))
	words := take(uint64(ptrs) * 8)
	if code == nil || img.data == nil || words == nil {
		return nil, invalidImage(
			"truncated: %d bytes for %d operations, %d bytes of data, %d pointers", len(raw), ops,
			data, ptrs,
		)
	}
	img.ops = opsIn(code, int(ops))
	img.ptrs = make([]dataPtr, ptrs)
	for i := range img.ptrs {
		img.ptrs[i] = dataPtr{le.Uint32(words[8*i:]), le.Uint32(words[8*i+4:])}
	}
	for range inputs {
		length := take(2)
		if length == nil {
			return nil, invalidImage("truncated in the names of inputs")
		}
		name := take(uint64(le.Uint16(length)))
		if name == nil {
			return nil, invalidImage("truncated in the names of inputs")
		}
		img.inputs = append(img.inputs, string(name))
	}
	return img, nil
}

// Inputs returns the names of the descriptors that Relocate wants, in order. Not to be modified.
func (img *Image) Inputs() []string { return img.inputs }

// CloneFlags are the namespaces that the child is born in (CLONE_NEW*, clone(2)).
func (img *Image) CloneFlags() uint64 { return img.clone }

// Forks says whether the program goes on in a second process (Builder.Fork), which tells the
// spawner of itself.
func (img *Image) Forks() bool { return img.forks }

// OOMScore is the oom_score_adj that the spawner writes for the child, if ok.
func (img *Image) OOMScore() (score int, ok bool) { return int(img.score), img.hasScore }

// Size is the memory that the relocated image needs, in bytes.
func (img *Image) Size() int { return HeaderSize + len(img.ops)*OpSize + len(img.data) }

// Place is where an image will run.
type Place struct {
	// Mem receives the image; it must hold at least Image.Size bytes and be aligned to 8. Where the
	// image runs, it starts at the address Base.
	Mem  []byte
	Base uintptr
	// Start and End bound the whole mapping that Mem and the interpreter's code lie in.
	Start, End uintptr
	// Report is the descriptor on which the child reports a failure.
	Report int
	// Header is the address of the machine header that the interpreter starts with, if that is not
	// Base.
	Header uintptr
	// Inputs are the descriptors, in the order of Image.Inputs.
	Inputs []int
}

// Relocate writes the image into its place with every address and descriptor filled in. Errors are
// of class errdefs.ErrInvalidArgument; Mem then holds nothing that may be run.
func (img *Image) Relocate(to Place) error {
	if len(to.Mem) < img.Size() || to.Base%8 != 0 || !aligned(to.Mem) {
		return invalidImage(
			"place of %d bytes at %#x, want %d aligned to 8", len(to.Mem), to.Base, img.Size(),
		)
	}
	if len(to.Inputs) != len(img.inputs) {
		return invalidImage("%d inputs supplied, want %d", len(to.Inputs), len(img.inputs))
	}
	if to.Header == 0 {
		to.Header = to.Base
	}
	clear(to.Mem[:HeaderSize])
	binary.LittleEndian.PutUint64(to.Mem, uint64(to.Report))
	r := relocation{
		img: img, to: &to, gaps: img.gaps(to.Inputs), ops: uint64(to.Base) + HeaderSize,
		size: uint64(len(img.data)),
	}
	r.data = r.ops + uint64(len(img.ops)*OpSize)
	ops := opsIn(to.Mem[HeaderSize:], len(img.ops))
	copy(ops, img.ops) // and only the copy is looked at
	for i := range ops {
		if err := r.op(&ops[i], i); err != nil {
			return err
		}
	}
	data := to.Mem[HeaderSize+len(ops)*OpSize:][:len(img.data)]
	copy(data, img.data)
	for i, ptr := range img.ptrs {
		if ptr.at%8 != 0 || uint64(ptr.at)+8 > r.size || uint64(ptr.to) > r.size {
			return invalidImage("pointer %d at %d to %d is outside", i, ptr.at, ptr.to)
		}
		binary.LittleEndian.PutUint64(data[ptr.at:], r.data+uint64(ptr.to))
	}
	return nil
}

// relocation is one Relocate at work.
type relocation struct {
	img       *Image
	to        *Place
	gaps      []gap
	ops, data uint64 // addresses
	size      uint64 // of the data
}

// op fills one operation in and checks it.
func (r *relocation) op(in *instr, i int) error {
	if in.code > Fail || in.cond > condLast || in.index != uint32(i) {
		return invalidImage(
			"operation %d: code %d, condition %d, index %d", i, in.code, in.cond, in.index,
		)
	}
	for k := range in.args {
		if in.kinds[k] == Imm {
			continue
		}
		if err := r.arg(&in.kinds[k], &in.args[k]); err != nil {
			return fmt.Errorf("operation %d: argument %d: %w", i, k, err)
		}
	}
	switch {
	case in.dst == 0:
	case in.dst == reportCell+1:
		in.dst = uint64(r.to.Header)
	case in.dst > r.size || in.dst-1+8 > r.size:
		return invalidImage("operation %d: result stored outside", i)
	default:
		in.dst += r.data - 1
	}
	last := len(r.img.ops) - 1
	if i == last {
		if in.code != Fail {
			return invalidImage("no guard at the end")
		}
		in.next, in.target = uint64(i), uint64(i) // it has no successor
	}
	if in.next > uint64(last) || in.target > uint64(last) {
		return invalidImage(
			"operation %d: goes on at %d or %d of %d", i, in.next, in.target, last+1,
		)
	}
	in.next, in.target = r.ops+in.next*OpSize, r.ops+in.target*OpSize
	return nil
}

// arg fills one argument in and checks it.
func (r *relocation) arg(kind *Kind, value *uint64) error {
	v := *value
	width := uint64(0)
	switch *kind {
	case Load64:
		width = 8
	case Load32:
		width = 4
	case Load16:
		width = 2
	case Load8:
		width = 1
	case kindPtr:
		if v > r.size {
			return invalidImage("points outside")
		}
		v += r.data
	case kindInput:
		if v >= uint64(len(r.to.Inputs)) {
			return invalidImage("input %d of %d", v, len(r.to.Inputs))
		}
		v = uint64(r.to.Inputs[v])
	case kindStart:
		v = uint64(r.to.Start)
	case kindEnd:
		v = uint64(r.to.End)
	case kindGapFirst, kindGapLast:
		if v >= uint64(len(r.gaps)) {
			return invalidImage("gap %d of %d", v, len(r.gaps))
		}
		g := r.gaps[v]
		if v = uint64(g.first); *kind == kindGapLast {
			v = uint64(g.last)
		}
	default:
		return invalidImage("kind %d", *kind)
	}
	if width == 0 {
		*kind, *value = Imm, v
		return nil
	}
	if v > r.size || v+width > r.size {
		return invalidImage("loaded from outside")
	}
	*value = r.data + v
	return nil
}

type gap struct{ first, last uint32 }

// gaps lists the runs of descriptors between the ones to keep, the last of them open-ended. There
// is one more than inputs; those that are not needed lie beyond any descriptor.
func (img *Image) gaps(inputs []int) []gap {
	sorted := slices.Clone(inputs)
	slices.Sort(sorted)
	list := make([]gap, 0, len(inputs)+1)
	from := img.keep
	for _, fd := range sorted {
		if fd > from {
			list = append(list, gap{uint32(from), uint32(fd - 1)})
		}
		from = max(from, fd+1)
	}
	list = append(list, gap{uint32(from), ^uint32(0)})
	for len(list) <= len(inputs) {
		list = append(list, gap{1 << 31, ^uint32(0)})
	}
	return list
}

// Broken is the image with operation i replaced: it fails with errno, or, if errno is 0, ends the
// process without a word, as a SIGKILL at this point would. For tests of what is left behind.
// Precondition: 0 <= i < the number of operations.
func (img *Image) Broken(i int, errno uint16) *Image {
	out := *img
	out.ops = slices.Clone(img.ops)
	in := instr{index: uint32(i), next: img.ops[i].next, target: img.ops[i].next}
	if errno != 0 {
		in.code, in.args[0] = Fail, uint64(errno)
	} else {
		in.nr, in.args[0] = unix.SYS_EXIT_GROUP, 137
	}
	out.ops[i] = in
	return &out
}

// Ops is the number of operations, with the guard at the end.
func (img *Image) Ops() int { return len(img.ops) }
