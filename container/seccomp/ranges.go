package seccomp

import (
	"math"

	"golang.org/x/sys/unix"
)

// span is a range of values, up to the next span's start, that all lead to the same place.
type span struct {
	start  uint32
	weight int32 // how much it is worth to be quick about it
	to     ref
}

// spans collects ranges in rising order.
type spans []span

// add begins a range at start, or prolongs the last one.
func (s *spans) add(start uint32, to ref, weight int32) {
	if n := len(*s); n > 0 && (*s)[n-1].to == to {
		(*s)[n-1].weight += weight
		return
	}
	*s = append(*s, span{start, weight, to})
}

// The kernel remembers for every number of the native ABI whether filters allow it whatever the
// arguments (kernel/seccomp.c, seccomp_cache_prepare), and then does not run them. What remains hot
// are the calls with conditions, which weigh more than allowed ones.
const (
	weightNumber = 1
	weightBlock  = 32
)

// outcome is where the profile leads a number of an ABI: slot i, which is known if it is at most
// last.
func (c *compiler) outcome(t *table, a abi, i int, unknown ref, last int32) (ref, int32, error) {
	at := &t.cells[i]
	switch {
	case at.act != 0:
		return actionRef(at.act - 1), weightNumber, nil
	case at.head != 0:
		n, err := c.block(at.head, a.wide())
		return blockRef(n), weightBlock, err
	case int32(i) > last:
		return unknown, weightNumber, nil
	}
	return actionRef(0), weightNumber, nil
}

// unknown is what a number above the known ones answers in an ABI: ENOSYS, unless the default lets
// calls pass (a good tracer supports future calls itself) or the profile names no number above 0.
// The second result says whether it is ENOSYS on that ground.
func (c *compiler) unknown(t *table) (ref, bool) {
	switch c.acts[0] & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		return actionRef(0), false
	}
	if t.last <= 0 {
		return actionRef(0), false
	}
	return actionRef(c.action(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))), true
}

// numbers adds the numbers of one ABI from base on, up to where the next range begins.
func (c *compiler) numbers(s *spans, a abi, base uint32) error {
	t := c.tables[a]
	unknown, _ := c.unknown(t)
	for i := range ordinarySlots {
		to, weight, err := c.outcome(t, a, i, unknown, t.last)
		if err != nil {
			return err
		}
		s.add(base+uint32(i), to, weight)
	}
	s.add(base+ordinarySlots, unknown, weightNumber)
	if a != abiARM {
		return nil
	}
	for i := range privateSlots {
		to, weight, err := c.outcome(t, a, ordinarySlots+i, unknown, t.lastPrivate)
		if err != nil {
			return err
		}
		s.add(armPrivate+uint32(i), to, weight)
	}
	s.add(armPrivate+privateSlots, unknown, weightNumber)
	return nil
}

// spans are all numbers of one value of seccomp_data.arch, which a stands for.
func (c *compiler) spans(a abi) (spans, error) {
	s := make(spans, 0, 256)
	if err := c.numbers(&s, a, 0); err != nil || a != abiX86_64 {
		return s, err
	}
	// Numbers with the highest bit are no calls; x32's bit sorts them too.
	unknown, beyond := c.unknown(c.tables[abiX86_64])
	if x32 := c.tables[abiX32]; x32 != nil {
		if err := c.numbers(&s, abiX32, x32Bit); err != nil {
			return nil, err
		}
		s.add(2*x32Bit, unknown, weightNumber)
		unknown, _ = c.unknown(x32)
		s.add(3*x32Bit, unknown, weightNumber)
		return s, nil
	}
	// x32 calls are as bad as those of another architecture. Not so -1, which a tracer sets to skip
	// a call (seccomp(2)).
	bad := actionRef(c.action(unix.SECCOMP_RET_KILL_THREAD))
	s.add(x32Bit, bad, weightNumber)
	if beyond {
		s.add(2*x32Bit, unknown, weightNumber)
	}
	s.add(3*x32Bit, bad, weightNumber)
	s.add(math.MaxUint32, actionRef(0), weightNumber)
	return s, nil
}
