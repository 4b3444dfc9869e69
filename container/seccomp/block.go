package seccomp

import (
	"cmp"
	"slices"
)

// block is the code for a system call whose rules have conditions: its alternatives in the order in
// which they are tried.
type block struct {
	alts []int32
	wide bool
}

// block is the number of the block for a list of nodes; system calls with the same rules share one.
func (c *compiler) block(head int32, wide bool) (int32, error) {
	for i := range c.blocks {
		if b := &c.blocks[i]; b.wide == wide && c.lists(head, b.alts) {
			return int32(i), nil
		}
	}
	var alts []int32
	for n := head; n != 0; n = c.nodes[n-1].next {
		alts = append(alts, c.nodes[n-1].alt)
	}
	c.blocks = append(c.blocks, block{alts: alts, wide: wide})
	return int32(len(c.blocks) - 1), c.conflicts(alts, wide)
}

// lists says whether a list of nodes has exactly these alternatives.
func (c *compiler) lists(head int32, alts []int32) bool {
	for _, alt := range alts {
		if head == 0 || c.nodes[head-1].alt != alt {
			return false
		}
		head = c.nodes[head-1].next
	}
	return head == 0
}

// order is the order in which the alternatives of a block are tried: any, if they all have one
// action, and then one that puts together what can be compared together; otherwise libseccomp's.
func (c *compiler) order(alts []int32, wide bool) []int32 {
	sorted := slices.Clone(alts)
	if c.oneAction(alts) {
		slices.SortStableFunc(sorted, func(x, y int32) int {
			return cmp.Compare(c.groupKey(x, wide), c.groupKey(y, wide))
		})
		return sorted
	}
	slices.SortStableFunc(sorted, func(x, y int32) int { return c.compare(x, y, wide) })
	return sorted
}

func (c *compiler) oneAction(alts []int32) bool {
	for _, alt := range alts {
		if c.alts[alt].act != c.alts[alts[0]].act {
			return false
		}
	}
	return true
}

// alone is the group of an alternative that can only be tested by itself.
const alone = 6

// groupKey is the argument of an alternative that can be compared together with others on the same,
// or alone.
func (c *compiler) groupKey(alt int32, wide bool) int {
	if conds := c.alts[alt].conds; len(conds) == 1 && conds[0].interval(wide) {
		return int(conds[0].arg)
	}
	return alone
}

// conflicts refuses the same conditions with two actions, and, as libseccomp does, fewer conditions
// that come after more.
func (c *compiler) conflicts(alts []int32, wide bool) error {
	if c.oneAction(alts) {
		return nil
	}
	for i, x := range alts {
		for _, y := range alts[i+1:] {
			a, b := &c.alts[x], &c.alts[y]
			if a.act != b.act && len(b.conds) <= len(a.conds) &&
				slices.EqualFunc(a.conds[:len(b.conds)], b.conds, func(p, q cond) bool {
					return p.width(wide) == q.width(wide)
				}) {
				return invalid(
					"%s: the conditions contradict those of linux.seccomp.syscalls[%d], which "+
						"have another action, want each condition with one action",
					syscallField(int(b.rule), "args"), a.rule,
				)
			}
		}
	}
	return nil
}

// compare is libseccomp's order of two rules: by their first conditions that differ, the higher
// argument first, then EQ, NE and MASKED_EQ before LE and LT before GE and GT, then the larger
// value, or for LE and LT the smaller. Fewer conditions come before the same and more.
func (c *compiler) compare(x, y int32, wide bool) int {
	a, b := c.alts[x].conds, c.alts[y].conds
	for i := range min(len(a), len(b)) {
		p, q := a[i].width(wide), b[i].width(wide)
		if d := cmp.Compare(q.priority(), p.priority()); d != 0 {
			return d
		}
		if p.op == opLT || p.op == opLE {
			p, q = q, p
		}
		if d := cmp.Compare(q.datum(), p.datum()); d != 0 {
			return d
		}
	}
	return cmp.Compare(len(a), len(b))
}

// width is the condition as an ABI of 32 or 64 bits sees it.
func (c cond) width(wide bool) cond {
	if !wide {
		c.a, c.b = uint64(uint32(c.a)), uint64(uint32(c.b))
	}
	return c
}

func (c cond) datum() uint64 {
	if c.op == opMasked {
		return c.b
	}
	return c.a
}

// priority orders conditions on different arguments or with different operators.
func (c cond) priority() int {
	rank := 3
	switch c.op {
	case opLT, opLE:
		rank = 2
	case opGT, opGE:
		rank = 1
	}
	return 4*int(c.arg) + rank
}

// interval says whether the condition is a set of few intervals of the low half of the argument, if
// the high half is zero, and constant if it is not.
func (c cond) interval(wide bool) bool {
	return c.op != opMasked && (!wide || c.a>>32 == 0)
}
