package seccomp

import (
	"math/bits"
	"slices"
)

// conditions assembles a block and returns where it begins. What matches nothing gets the default
// action.
func (c *compiler) conditions(a *assembler, b *block) ref {
	order := c.order(b.alts, b.wide)
	no := actionRef(0)
	for end := len(order); end > 0; {
		begin := end - 1
		last := &c.alts[order[begin]]
		yes := actionRef(last.act)
		key := c.groupKey(order[begin], b.wide)
		if key == alone {
			no = a.all(last.conds, b.wide, yes, no)
			end = begin
			continue
		}
		for begin > 0 && c.groupKey(order[begin-1], b.wide) == key &&
			c.alts[order[begin-1]].act == last.act {
			begin--
		}
		no = c.union(a, order[begin:end], b.wide, yes, no)
		end = begin
	}
	return no
}

// all tests conditions that must all hold.
func (a *assembler) all(conds []cond, wide bool, yes, no ref) ref {
	for _, cd := range slices.Backward(conds) {
		yes = a.test(cd.width(wide), wide, yes, no)
	}
	return yes
}

// Offsets of the halves of an argument.
func low(arg uint8) uint32  { return offsetArgs + 8*uint32(arg) }
func high(arg uint8) uint32 { return low(arg) + 4 }

// test is one condition: first on the high half, and where that does not decide, on the low half.
func (a *assembler) test(cd cond, wide bool, yes, no ref) ref {
	switch cd.op {
	case opNE:
		return a.equal(cd, wide, no, yes)
	case opEQ:
		return a.equal(cd, wide, yes, no)
	case opLT:
		return a.above(cd, opJGE, wide, no, yes)
	case opLE:
		return a.above(cd, opJGT, wide, no, yes)
	case opGE:
		return a.above(cd, opJGE, wide, yes, no)
	case opGT:
		return a.above(cd, opJGT, wide, yes, no)
	default:
		yes = a.masked(low(cd.arg), uint32(cd.a), uint32(cd.b), yes, no)
		if wide {
			yes = a.masked(high(cd.arg), uint32(cd.a>>32), uint32(cd.b>>32), yes, no)
		}
		return yes
	}
}

func (a *assembler) equal(cd cond, wide bool, yes, no ref) ref {
	r := a.load(low(cd.arg), a.jump(opJEQ, uint32(cd.a), yes, no))
	if wide {
		r = a.load(high(cd.arg), a.jump(opJEQ, uint32(cd.a>>32), r, no))
	}
	return r
}

// above compares with op, which is opJGT or opJGE.
func (a *assembler) above(cd cond, op uint16, wide bool, yes, no ref) ref {
	r := a.load(low(cd.arg), a.jump(op, uint32(cd.a), yes, no))
	if !wide {
		return r
	}
	h := uint32(cd.a >> 32)
	if h == 0 {
		return a.load(high(cd.arg), a.jump(opJEQ, 0, r, yes))
	}
	r = a.jump(opJEQ, h, r, no)
	if h != 1<<32-1 {
		r = a.jump(opJGT, h, yes, r)
	}
	return a.load(high(cd.arg), r)
}

// masked tests one half of an argument.
func (a *assembler) masked(offset, mask, want uint32, yes, no ref) ref {
	switch {
	case mask == 0:
		return yes
	case mask == 1<<32-1:
		return a.load(offset, a.jump(opJEQ, want, yes, no))
	case want == 0:
		return a.load(offset, a.jump(opJSET, mask, no, yes))
	case bits.OnesCount32(mask) == 1:
		return a.load(offset, a.jump(opJSET, mask, yes, no))
	}
	return a.load(offset, a.before(opAnd, mask, a.jump(opJEQ, want, yes, no)))
}

// union tests alternatives with one condition each, all on the same argument and with the same
// action: one search among the values of the low half.
func (c *compiler) union(a *assembler, alts []int32, wide bool, yes, no ref) ref {
	type interval struct{ from, to uint64 } // without to
	set := make([]interval, 0, 2*len(alts))
	aboveAll := false // whether a high half that is not zero matches
	for _, alt := range alts {
		cd := c.alts[alt].conds[0].width(wide)
		const end = 1 << 32
		switch v := cd.a; cd.op {
		case opEQ:
			set = append(set, interval{v, v + 1})
		case opNE:
			set = append(set, interval{0, v}, interval{v + 1, end})
			aboveAll = true
		case opLT:
			set = append(set, interval{0, v})
		case opLE:
			set = append(set, interval{0, v + 1})
		case opGT:
			set = append(set, interval{v + 1, end})
			aboveAll = true
		default:
			set = append(set, interval{v, end})
			aboveAll = true
		}
	}
	slices.SortFunc(set, func(x, y interval) int { return int(int64(x.from) - int64(y.from)) })
	s := make(spans, 0, 2*len(set)+1)
	covered := uint64(0)
	for _, in := range set {
		if in.from >= in.to || in.to <= covered {
			continue
		}
		if in.from > covered {
			s.add(uint32(covered), no, 1)
		}
		s.add(uint32(max(in.from, covered)), yes, 1)
		covered = in.to
	}
	if covered < 1<<32 {
		s.add(uint32(covered), no, 1)
	}
	arg := c.alts[alts[0]].conds[0].arg
	r := a.tree(s, 1<<32)
	if r != yes && r != no {
		r = a.load(low(arg), r)
	}
	if !wide {
		return r
	}
	aboveRef := no
	if aboveAll {
		aboveRef = yes
	}
	if r == aboveRef {
		return r
	}
	return a.load(high(arg), a.jump(opJEQ, 0, r, aboveRef))
}
