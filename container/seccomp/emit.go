package seccomp

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (linux/seccomp.h), little-endian.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

// The instructions of a filter (linux/bpf_common.h). All but these would keep the kernel from
// remembering which calls are always allowed.
const (
	opLoad = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opJEQ  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opJGT  = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	opJGE  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	opJSET = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	opJA   = unix.BPF_JMP | unix.BPF_JA
	opRet  = unix.BPF_RET | unix.BPF_K
)

// ref is a place that code can jump to: an instruction that is there already, an action, or a
// block.
type ref uint32

const (
	refKind   ref = 3 << 30
	refAction ref = 1 << 30
	refBlock  ref = 2 << 30
)

func actionRef(act int32) ref { return refAction | ref(act) }
func blockRef(n int32) ref    { return refBlock | ref(n) }

// assembler writes a program from its end to its beginning, because jumps go forwards only and so
// every target is there before the jump.
type assembler struct {
	rev    []unix.SockFilter // the last instruction first
	acts   []uint32
	rets   []int32 // the latest return instruction of every action, or -1
	blocks []place
}

// place is where a block's code begins, and the latest instruction that is or leads to that; or -1.
type place struct{ start, near int32 }

// reach is how far a conditional jump goes, less the two instructions that may come between a
// target and its jump.
const reach = 255 - 2

func (a *assembler) emit(in unix.SockFilter) int32 {
	a.rev = append(a.rev, in)
	return int32(len(a.rev) - 1)
}

func (a *assembler) inReach(i int32) bool { return int32(len(a.rev))-i-1 <= reach }

// near is an instruction in reach that is or leads to r.
func (a *assembler) near(r ref) int32 {
	switch n := int32(r &^ refKind); r & refKind {
	case refAction:
		if at := a.rets[n]; at < 0 || !a.inReach(at) {
			a.rets[n] = a.emit(unix.SockFilter{Code: opRet, K: a.acts[n]})
		}
		return a.rets[n]
	case refBlock:
		b := &a.blocks[n]
		if !a.inReach(b.near) {
			b.near = a.long(b.start)
		}
		return b.near
	default:
		if !a.inReach(n) {
			return a.long(n)
		}
		return n
	}
}

// long is a new jump of any distance.
func (a *assembler) long(to int32) int32 {
	return a.emit(unix.SockFilter{Code: opJA, K: uint32(int32(len(a.rev)) - to - 1)})
}

// jump puts a conditional jump before the program. Its blocks have been placed.
func (a *assembler) jump(code uint16, k uint32, yes, no ref) ref {
	t := a.near(yes)
	f := a.near(no)
	at := int32(len(a.rev))
	return ref(
		a.emit(unix.SockFilter{Code: code, Jt: uint8(at - t - 1), Jf: uint8(at - f - 1), K: k}),
	)
}

// load puts a load before next, which is the front of the program.
func (a *assembler) load(offset uint32, next ref) ref { return a.before(opLoad, offset, next) }

// before puts an instruction that does not jump before the front of the program, which the caller
// has just made.
func (a *assembler) before(code uint16, k uint32, _ ref) ref {
	return ref(a.emit(unix.SockFilter{Code: code, K: k}))
}

// tree puts a search for the accumulator's value before the program, among ranges of which the last
// ends before end. It weighs the ranges, so that those that matter are found first.
func (a *assembler) tree(s []span, end uint64) ref {
	if r, ok := a.leaf(s, end); ok {
		return r
	}
	mid := split(s)
	above := a.tree(s[mid:], end)
	below := a.tree(s[:mid], uint64(s[mid].start))
	return a.jump(opJGE, s[mid].start, above, below)
}

// leaf searches among ranges that all lead to one place but for at most two single values: one
// comparison for each of those is less code than cutting the ranges in halves, and no slower.
func (a *assembler) leaf(s []span, end uint64) (ref, bool) {
	if len(s) > 5 {
		return 0, false
	}
	var single [2]*span
	singles := 0
	rest := s[0].to
	for i := range s {
		next := end
		if i+1 < len(s) {
			next = uint64(s[i+1].start)
		}
		switch isSingle := next-uint64(s[i].start) == 1; {
		case s[i].to == rest:
		case isSingle && singles < 2:
			single[singles] = &s[i]
			singles++
		case i == 1 && singles == 0 && s[1].start-s[0].start == 1:
			single[0], singles, rest = &s[0], 1, s[1].to
		default:
			return 0, false
		}
	}
	for _, one := range single[:singles] {
		rest = a.jump(opJEQ, one.start, one.to, rest)
	}
	return rest, true
}

// split is where to cut two or more spans into halves of the same weight.
func split(s []span) int {
	var total int32
	for i := range s {
		total += s[i].weight
	}
	left, mid := s[0].weight, 1
	for mid < len(s)-1 && 2*left+s[mid].weight <= total {
		left += s[mid].weight
		mid++
	}
	return mid
}

// emit assembles the filter.
func (c *compiler) emit() ([]unix.SockFilter, error) {
	type group struct {
		abi
		spans
	}
	var groups []group
	for _, a := range c.abis {
		if a == abiX32 {
			continue // with x86_64
		}
		s, err := c.spans(a)
		if err != nil {
			return nil, err
		}
		groups = append(groups, group{a, s})
	}
	// SCMP_FLTATR_ACT_BADARCH of libseccomp
	kill := actionRef(c.action(unix.SECCOMP_RET_KILL_THREAD))
	a := &assembler{
		rev: make([]unix.SockFilter, 0, 1024), acts: c.acts,
		rets: make([]int32, len(c.acts)), blocks: make([]place, len(c.blocks)),
	}
	for i := range a.rets {
		a.rets[i] = -1
	}
	for i := range a.blocks {
		a.blocks[i] = place{-1, -1}
	}
	// From the end: what is not native, the native calls, and in front of all the choice of the
	// architecture. The conditions of each part stand behind it, in reach of its search.
	roots := make([]ref, len(groups))
	for i, g := range slices.Backward(groups) {
		for _, s := range g.spans {
			c.place(a, s.to)
		}
		roots[i] = a.tree(g.spans, 1<<32)
		if roots[i]&refKind != refAction {
			roots[i] = a.load(offsetNr, roots[i])
		}
	}
	next := kill
	for i, g := range slices.Backward(groups) {
		next = a.jump(opJEQ, g.audit(), roots[i], next)
	}
	a.load(offsetArch, next)
	slices.Reverse(a.rev)
	return a.rev, nil
}

// place assembles the block that r leads to, if it is not there yet.
func (c *compiler) place(a *assembler, r ref) {
	if r&refKind != refBlock {
		return
	}
	n := r &^ refKind
	if a.blocks[n].start < 0 {
		at := a.near(c.conditions(a, &c.blocks[n]))
		a.blocks[n] = place{at, at}
	}
}
