package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// handover are the calls by which a process that installed a filter gives the listener away. As
// long as no process has the listener, a notification of these would never be answered.
var handover = [...]string{"write", "sendmsg"}

// cond is one condition on an argument. For opMasked, a is the mask and b what must remain.
type cond struct {
	arg  uint8
	op   operator
	a, b uint64
}

// alternative is a rule with conditions, all of which must hold.
type alternative struct {
	conds []cond // by argument, each at most once
	act   int32
	rule  int32 // index in linux.seccomp.syscalls
}

// node is an element of a list of alternatives; next is 1 more than its index, 0 ends the list.
type node struct {
	alt, next int32
}

// cell is what the profile says of one system call: an action (1 more than its number), or a list
// of alternatives (1 more than the indexes of its ends), or nothing.
type cell struct {
	act, head, tail int32
}

// table is what the profile says of one ABI.
type table struct {
	cells [slots]cell
	// last is the highest number that the profile names, lastPrivate the highest slot among ARM's
	// private calls; or -1.
	last, lastPrivate int32
}

// rules reads the default action and the rules into the tables.
func (c *compiler) rules() error {
	cfg := c.cfg
	def, err := c.value(cfg.DefaultAction, cfg.DefaultErrnoRet, -1)
	if err != nil {
		return err
	}
	if cfg.DefaultAction == specs.ActNotify {
		return invalid(
			"linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action, " +
				"want any other",
		)
	}
	c.action(def)
	c.alts = make([]alternative, 0, 64)
	c.nodes = make([]node, 0, 128)
	for i := range cfg.Syscalls {
		if err := c.rule(i, &cfg.Syscalls[i]); err != nil {
			return err
		}
	}
	return nil
}

// value is the return value of an action with its data, in rule i or, for -1, as default.
func (c *compiler) value(name specs.LinuxSeccompAction, errnoRet *uint, i int) (uint32, error) {
	value, ok := parseAction(name)
	if !ok {
		return 0, invalid(
			"%s: %q, want one of %s", valueField(i, "action", "defaultAction"), name,
			quoted(actionNames[:]),
		)
	}
	highest := uint(unix.SECCOMP_RET_DATA)
	switch {
	case value == unix.SECCOMP_RET_ERRNO:
		highest = 4095 // MAX_ERRNO of linux/err.h: the kernel would silently take this for more
	case value == unix.SECCOMP_RET_TRACE:
	case errnoRet != nil:
		return 0, invalid(
			"%s: %d, but %s answers no errno, want it only with %s or %s",
			valueField(i, "errnoRet", "defaultErrnoRet"), *errnoRet, name, specs.ActErrno,
			specs.ActTrace,
		)
	default:
		return value, nil
	}
	data := uint(unix.EPERM)
	if errnoRet != nil {
		data = *errnoRet
	}
	if data > highest {
		return 0, invalid(
			"%s: %d, want 0 to %d with %s", valueField(i, "errnoRet", "defaultErrnoRet"), data,
			highest, name,
		)
	}
	return value | uint32(data), nil
}

func valueField(i int, ofRule, ofDefault string) string {
	if i < 0 {
		return "linux.seccomp." + ofDefault
	}
	return syscallField(i, ofRule)
}

// rule adds rule i to the tables of all ABIs.
func (c *compiler) rule(i int, s *specs.LinuxSyscall) error {
	value, err := c.value(s.Action, s.ErrnoRet, i)
	if err != nil {
		return err
	}
	if len(s.Names) == 0 {
		return invalid("%s: empty, want at least one system call", syscallField(i, "names"))
	}
	if s.Action == specs.ActNotify {
		if c.cfg.ListenerPath == "" {
			return invalid(
				"linux.seccomp.listenerPath: empty, want the socket of an agent, because %s is %s",
				syscallField(i, "action"), s.Action,
			)
		}
		for _, name := range handover {
			if slices.Contains(s.Names, name) {
				return invalid(
					"%s: SCMP_ACT_NOTIFY cannot be used for the %s syscall, by which the "+
						"listener is handed over",
					syscallField(i, "action"), name,
				)
			}
		}
		c.notify = true
	}
	act := c.action(value)
	from := int32(len(c.alts))
	if err := c.alternatives(i, s.Args, act); err != nil {
		return err
	}
	to := int32(len(c.alts))
	for j, name := range s.Names {
		if name == "" {
			return invalid(
				"%s[%d]: empty, want the name of a system call", syscallField(i, "names"), j,
			)
		}
		row := lookup(name)
		if row == nil {
			continue
		}
		for _, a := range c.abis {
			t := c.tables[a]
			slot := row.slot[a]
			if a == abiX86 && row.mux != 0 {
				// Not counted for the bound: neither does libseccomp, which has no one number for
				// it.
				if act != 0 {
					c.muxed(t, row, from, to, act, i)
				}
			} else if slot >= ordinarySlots {
				t.lastPrivate = max(t.lastPrivate, int32(slot))
			} else {
				t.last = max(t.last, int32(slot))
			}
			if slot >= 0 && act != 0 {
				c.add(&t.cells[slot], from, to, act)
			}
		}
	}
	return nil
}

// add puts an action, or the alternatives from up to to, into a cell.
func (c *compiler) add(at *cell, from, to, act int32) {
	if at.act != 0 {
		return // an action without condition is there already
	}
	if from == to {
		at.act = act + 1
		return
	}
	for alt := from; alt < to; alt++ {
		c.nodes = append(c.nodes, node{alt: alt})
		n := int32(len(c.nodes))
		if at.head == 0 {
			at.head = n
		} else {
			c.nodes[at.tail-1].next = n
		}
		at.tail = n
	}
}

// alternatives appends the alternatives that the conditions of rule i stand for; none, if they hold
// always.
func (c *compiler) alternatives(i int, args []specs.LinuxSeccompArg, act int32) error {
	if len(args) == 0 {
		return nil
	}
	conds := c.newConds(len(args))[:0]
	var seen, twice uint8
	for j := range args {
		a := &args[j]
		op, ok := parseOperator(a.Op)
		if !ok {
			return invalid(
				"%s[%d].op: %q, want one of %s", syscallField(i, "args"), j, a.Op,
				quoted(operatorNames[:]),
			)
		}
		if a.Index > 5 {
			return invalid("%s[%d].index: %d, want 0 to 5", syscallField(i, "args"), j, a.Index)
		}
		bit := uint8(1) << a.Index
		twice |= seen & bit
		seen |= bit
		cd := cond{arg: uint8(a.Index), op: op, a: a.Value}
		if op == opMasked {
			cd.b = a.ValueTwo & a.Value
		}
		conds = append(conds, cd)
	}
	// A mask of nothing always holds. Like libseccomp, take such a condition for none: what is left
	// without one counts as a rule without.
	none := func(cd cond) bool { return cd.op == opMasked && cd.a == 0 }
	if twice != 0 {
		if slices.ContainsFunc(conds, none) {
			return nil
		}
		for j := range conds {
			c.alts = append(
				c.alts, alternative{conds: conds[j : j+1 : j+1], act: act, rule: int32(i)},
			)
		}
		return nil
	}
	conds = slices.DeleteFunc(conds, none)
	if len(conds) == 0 {
		return nil
	}
	sortByArg(conds)
	c.alts = append(c.alts, alternative{conds: conds, act: act, rule: int32(i)})
	return nil
}

// newConds is room for n conditions.
func (c *compiler) newConds(n int) []cond {
	if len(c.room) < n {
		c.room = make([]cond, 64+n)
	}
	conds := c.room[:n:n]
	c.room = c.room[n:]
	return conds
}

func sortByArg(conds []cond) {
	slices.SortFunc(conds, func(x, y cond) int { return int(x.arg) - int(y.arg) })
}

// muxed adds a rule on a call that x86 multiplexes to the multiplexing call. As in libseccomp the
// number of the call takes the place of a condition on the first argument; the others look at the
// arguments of the multiplexing call.
func (c *compiler) muxed(t *table, row *syscallRow, from, to, act int32, rule int) {
	slot, call := row.demux()
	number := cond{op: opEQ, a: call}
	first := int32(len(c.alts))
	if from == to {
		conds := c.newConds(1)
		conds[0] = number
		c.alts = append(c.alts, alternative{conds: conds, act: act, rule: int32(rule)})
	}
	for alt := from; alt < to; alt++ {
		conds := append(c.newConds(1 + len(c.alts[alt].conds))[:0], number)
		for _, cd := range c.alts[alt].conds {
			if cd.arg != 0 {
				conds = append(conds, cd)
			}
		}
		c.alts = append(c.alts, alternative{conds: conds, act: act, rule: int32(rule)})
	}
	c.add(&t.cells[slot], first, int32(len(c.alts)), act)
}

// bound moves the bounds of the known numbers to those of a system call.
func (c *compiler) bound(name string) error {
	if name == "" {
		return nil
	}
	row := lookup(name)
	if row == nil {
		return invalid("last known system call: %q, want the name of one", name)
	}
	for _, a := range c.abis {
		if slot := row.slot[a]; slot >= 0 && slot < ordinarySlots {
			c.tables[a].last = int32(slot)
		}
	}
	return nil
}
