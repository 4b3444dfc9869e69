package program

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// An encoded program ("image") is what travels to the keeper. All numbers are little-endian.
//
//	header   magic, version, counts of operations, data bytes, data pointers, inputs: six uint32, then the clone flags
//	         and the number of descriptors to keep
//	ops      OpSize bytes each
//	data     padded to 8
//	pointers pairs of uint32: offset of the word in data, offset in data that it points to
//	inputs   per name: uint16 length, bytes
//
// In memory, after Relocate, header and pointers are replaced by the machine's own header and absolute addresses.
const (
	imageMagic   = 0x6b727473 // "strk"
	imageVersion = 1
	headerSize   = 32

	// HeaderSize is the machine header in front of the operations: the report descriptor (uint64), then the eight bytes
	// of a report: operation index and errno (uint32 each), then room for the six arguments of the running operation.
	HeaderSize = 64
	// OpSize is the size of one operation in memory. The interpreter in package spawn is written for this layout:
	//
	//	 0 code, 1 condition, 2..7 kinds of the six arguments
	//	 8 system call number (uint32), 12 index of the operation (uint32)
	//	16 ignored errnos (4 × uint16, unused ones 0)
	//	24 six arguments, or the addresses they are loaded from (uint64 each)
	//	72 address that receives the result, or 0
	//	80 address of the operation that follows an ignored error
	//	88 address of the operation that a jump goes to
	OpSize = 96

	// reportCell as the offset of a result stands for the report descriptor in the machine header.
	reportCell = 0xffffffff

	maxOps    = 1 << 16
	maxData   = 8 << 20 // ARG_MAX is at most 6 MiB
	maxInputs = 250     // SCM_MAX_FD is 253
)

// Encode returns the image of the program.
func (p *Program) Encode() []byte {
	dataSize := (len(p.data) + 7) &^ 7
	size := headerSize + (len(p.ops)+1)*OpSize + dataSize + 8*len(p.ptrs)
	for _, in := range p.inputs {
		size += 2 + len(in.Name)
	}
	img := make([]byte, size)
	le := binary.LittleEndian
	for i, v := range []uint32{imageMagic, imageVersion, uint32(len(p.ops) + 1), uint32(dataSize), uint32(len(p.ptrs)), uint32(len(p.inputs))} {
		le.PutUint32(img[4*i:], v)
	}
	// Namespace flags fit in 32 bits; the upper half says how many descriptors are kept.
	le.PutUint64(img[24:], p.clone&0xffffffff|uint64(p.keep)<<32)
	at := headerSize
	for i := range p.ops {
		p.encodeOp(img[at:at+OpSize], i)
		at += OpSize
	}
	// Whatever runs past the end, or jumps there, fails instead of interpreting data.
	end := img[at : at+OpSize]
	end[0] = byte(Fail)
	le.PutUint32(end[12:], uint32(len(p.ops)))
	le.PutUint64(end[24:], 38) // ENOSYS
	at += OpSize
	copy(img[at:], p.data)
	at += dataSize
	for _, ptr := range p.ptrs {
		le.PutUint32(img[at:], ptr.at)
		le.PutUint32(img[at+4:], ptr.to)
		at += 8
	}
	for _, in := range p.inputs {
		le.PutUint16(img[at:], uint16(len(in.Name)))
		copy(img[at+2:], in.Name)
		at += 2 + len(in.Name)
	}
	return img
}

func (p *Program) encodeOp(b []byte, i int) {
	le := binary.LittleEndian
	op := &p.ops[i]
	b[0], b[1] = byte(op.Code), byte(op.Cond)
	le.PutUint32(b[8:], op.Nr)
	le.PutUint32(b[12:], uint32(i))
	for k, e := range op.Ignore {
		le.PutUint16(b[16+2*k:], e)
	}
	for k, a := range op.Args {
		b[2+k] = byte(a.Kind)
		le.PutUint64(b[24+8*k:], a.Value)
	}
	// Offsets are stored plus one, so that zero means none.
	if op.HasDst {
		le.PutUint64(b[72:], uint64(op.Dst.off)+1)
	}
	next := uint64(i + 1)
	if op.OnError.n > 0 {
		next = uint64(p.labels[op.OnError.n-1])
	}
	le.PutUint64(b[80:], next)
	target := uint64(i + 1)
	if op.Code == Jump {
		target = uint64(p.labels[op.Target.n-1])
	}
	le.PutUint64(b[88:], target)
}

// Image is an encoded program whose structure has been checked.
type Image struct {
	raw           []byte
	ops, data     int // counts: operations, bytes of data
	clone         uint64
	keep          int
	ptrs          int
	inputs        []string
	ptrAt, dataAt int // offsets in raw
}

// Parse checks the outer structure of an image. The Image refers to raw, which must not change afterwards. Errors are of
// class errdefs.ErrInvalidArgument.
func Parse(raw []byte) (*Image, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("program image: %s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
	}
	if len(raw) < headerSize {
		return nil, bad("%d bytes, want at least %d", len(raw), headerSize)
	}
	le := binary.LittleEndian
	if m, v := le.Uint32(raw), le.Uint32(raw[4:]); m != imageMagic || v != imageVersion {
		return nil, bad("magic %#x version %d, want %#x version %d", m, v, imageMagic, imageVersion)
	}
	ops, data, ptrs, inputs := le.Uint32(raw[8:]), le.Uint32(raw[12:]), le.Uint32(raw[16:]), le.Uint32(raw[20:])
	if ops == 0 || ops > maxOps || data > maxData || data%8 != 0 || ptrs > maxData/8 || inputs > maxInputs {
		return nil, bad("%d operations, %d bytes, %d pointers, %d inputs exceed the format", ops, data, ptrs, inputs)
	}
	img := &Image{raw: raw, ops: int(ops), data: int(data), ptrs: int(ptrs), clone: uint64(le.Uint32(raw[24:])), keep: int(le.Uint32(raw[28:]))}
	img.dataAt = headerSize + img.ops*OpSize
	img.ptrAt = img.dataAt + img.data
	at := img.ptrAt + 8*img.ptrs
	if at > len(raw) {
		return nil, bad("truncated: %d bytes, want at least %d", len(raw), at)
	}
	for range inputs {
		if at+2 > len(raw) || at+2+int(le.Uint16(raw[at:])) > len(raw) {
			return nil, bad("truncated in the names of inputs")
		}
		n := int(le.Uint16(raw[at:]))
		img.inputs = append(img.inputs, string(raw[at+2:at+2+n]))
		at += 2 + n
	}
	return img, nil
}

// Inputs returns the names of the descriptors that Relocate wants, in order. Not to be modified.
func (img *Image) Inputs() []string { return img.inputs }

// CloneFlags are the namespaces that the child is born in (CLONE_NEW*, clone(2)).
func (img *Image) CloneFlags() uint64 { return img.clone }

// Size is the memory that the relocated image needs, in bytes.
func (img *Image) Size() int { return HeaderSize + img.ops*OpSize + img.data }

// Place is where an image will run.
type Place struct {
	// Mem receives the image; it must hold at least Image.Size bytes and start at the address Base, aligned to 8.
	Mem  []byte
	Base uintptr
	// Start and End bound the whole mapping that Mem and the interpreter's code lie in.
	Start, End uintptr
	// Report is the descriptor on which the child reports a failure.
	Report int
	// Header is the address of the machine header that the interpreter starts with, if that is not Base.
	Header uintptr
	// Inputs are the descriptors, in the order of Image.Inputs.
	Inputs []int
}

// Relocate writes the image into its place with every address and descriptor filled in. Errors are of class
// errdefs.ErrInvalidArgument; Mem then holds nothing that may be run.
func (img *Image) Relocate(to Place) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("program image: %s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
	}
	if len(to.Mem) < img.Size() || to.Base%8 != 0 {
		return bad("place of %d bytes at %#x, want %d aligned to 8", len(to.Mem), to.Base, img.Size())
	}
	if len(to.Inputs) != len(img.inputs) {
		return bad("%d inputs supplied, want %d", len(to.Inputs), len(img.inputs))
	}
	gaps := img.gaps(to.Inputs)
	header := to.Header
	if header == 0 {
		header = to.Base
	}
	le := binary.LittleEndian
	clear(to.Mem[:HeaderSize])
	le.PutUint64(to.Mem, uint64(to.Report))
	opsBase := uint64(to.Base) + HeaderSize
	dataBase := opsBase + uint64(img.ops*OpSize)
	ops := to.Mem[HeaderSize : HeaderSize+img.ops*OpSize]
	copy(ops, img.raw[headerSize:img.dataAt])
	for i := range img.ops {
		b := ops[i*OpSize : (i+1)*OpSize]
		if Code(b[0]) > Fail || Cond(b[1]) > condLast || le.Uint32(b[12:]) != uint32(i) {
			return bad("operation %d: code %d, condition %d, index %d", i, b[0], b[1], le.Uint32(b[12:]))
		}
		for k := range 6 {
			v := le.Uint64(b[24+8*k:])
			width := uint64(1)
			switch Kind(b[2+k]) {
			case Imm:
				continue
			case Load64:
				width = 8
			case Load32:
				width = 4
			case Load16:
				width = 2
			case Load8:
			case kindPtr:
				if v > uint64(img.data) {
					return bad("operation %d: argument %d points outside", i, k)
				}
				b[2+k] = byte(Imm)
				le.PutUint64(b[24+8*k:], dataBase+v)
				continue
			case kindInput:
				if v >= uint64(len(to.Inputs)) {
					return bad("operation %d: argument %d: input %d of %d", i, k, v, len(to.Inputs))
				}
				b[2+k] = byte(Imm)
				le.PutUint64(b[24+8*k:], uint64(to.Inputs[v]))
				continue
			case kindStart:
				b[2+k] = byte(Imm)
				le.PutUint64(b[24+8*k:], uint64(to.Start))
				continue
			case kindEnd:
				b[2+k] = byte(Imm)
				le.PutUint64(b[24+8*k:], uint64(to.End))
				continue
			case kindGapFirst, kindGapLast:
				if v >= uint64(len(gaps)) {
					return bad("operation %d: argument %d: gap %d of %d", i, k, v, len(gaps))
				}
				end := gaps[v].first
				if Kind(b[2+k]) == kindGapLast {
					end = gaps[v].last
				}
				b[2+k] = byte(Imm)
				le.PutUint64(b[24+8*k:], uint64(end))
				continue
			default:
				return bad("operation %d: argument %d of kind %d", i, k, b[2+k])
			}
			if v > uint64(img.data) || v+width > uint64(img.data) {
				return bad("operation %d: argument %d is loaded from outside", i, k)
			}
			le.PutUint64(b[24+8*k:], dataBase+v)
		}
		if d := le.Uint64(b[72:]); d == reportCell+1 {
			le.PutUint64(b[72:], uint64(header))
		} else if d != 0 {
			if d-1+8 > uint64(img.data) || d-1 > uint64(img.data) {
				return bad("operation %d: result stored outside", i)
			}
			le.PutUint64(b[72:], dataBase+d-1)
		}
		for _, at := range []int{80, 88} {
			j := le.Uint64(b[at:])
			if i == img.ops-1 {
				j = uint64(i) // the guard at the end has no successor
			}
			if j >= uint64(img.ops) {
				return bad("operation %d: jump to %d of %d", i, j, img.ops)
			}
			le.PutUint64(b[at:], opsBase+j*OpSize)
		}
		if i == img.ops-1 && Code(b[0]) != Fail {
			return bad("no guard at the end")
		}
	}
	data := to.Mem[HeaderSize+img.ops*OpSize:][:img.data]
	copy(data, img.raw[img.dataAt:img.ptrAt])
	for i := range img.ptrs {
		at, target := le.Uint32(img.raw[img.ptrAt+8*i:]), le.Uint32(img.raw[img.ptrAt+8*i+4:])
		if at%8 != 0 || uint64(at)+8 > uint64(img.data) || uint64(target) > uint64(img.data) {
			return bad("pointer %d at %d to %d is outside", i, at, target)
		}
		le.PutUint64(data[at:], dataBase+uint64(target))
	}
	return nil
}

type gap struct{ first, last uint32 }

// gaps lists the runs of descriptors between the ones to keep, the last of them open-ended. There is one more than inputs; those that are
// not needed lie beyond any descriptor.
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

// Broken is the image with operation i replaced: it fails with errno, or, if errno is 0, ends the process without a word, as
// a SIGKILL at this point would. For tests of what is left behind. Precondition: 0 <= i < the number of operations.
func (img *Image) Broken(i int, errno uint16) *Image {
	out := *img
	out.raw = slices.Clone(img.raw)
	op := out.raw[headerSize+i*OpSize:][:OpSize]
	index := binary.LittleEndian.Uint32(op[12:])
	next := binary.LittleEndian.Uint64(op[80:])
	clear(op)
	binary.LittleEndian.PutUint32(op[12:], index)
	binary.LittleEndian.PutUint64(op[80:], next)
	binary.LittleEndian.PutUint64(op[88:], next)
	if errno != 0 {
		op[0] = byte(Fail)
		binary.LittleEndian.PutUint64(op[24:], uint64(errno))
		return &out
	}
	binary.LittleEndian.PutUint32(op[8:], uint32(unix.SYS_EXIT_GROUP))
	binary.LittleEndian.PutUint64(op[24:], 137)
	return &out
}

// Ops is the number of operations, with the guard at the end.
func (img *Image) Ops() int { return img.ops }
