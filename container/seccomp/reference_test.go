package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// reference reads a profile naively: it shares nothing with the compiler but the table of numbers.
type reference struct {
	cfg      *specs.LinuxSeccomp
	native   string // GOARCH
	def      uint32
	byNumber map[specs.Arch]map[uint32][]refRule // in the order of the profile
	// the highest number that counts for ENOSYS, without the ABI's base
	last        map[specs.Arch]uint32
	lastPrivate uint32
}

type refABI struct {
	name  specs.Arch
	col   int
	audit uint32
	base  uint32
	wide  bool
}

var refABIs = map[string][]refABI{
	"amd64": {
		{specs.ArchX86_64, 0, unix.AUDIT_ARCH_X86_64, 0, true},
		{specs.ArchX86, 1, unix.AUDIT_ARCH_I386, 0, false},
		{specs.ArchX32, 2, unix.AUDIT_ARCH_X86_64, 0x40000000, false},
	},
	"arm64": {
		{specs.ArchAARCH64, 3, unix.AUDIT_ARCH_AARCH64, 0, true},
		{specs.ArchARM, 4, unix.AUDIT_ARCH_ARM, 0, false},
	},
}

// number is a row's number in an ABI.
func (a refABI) number(row *syscallRow) (uint32, bool) {
	slot := row.slot[a.col]
	switch {
	case slot < 0:
		return 0, false
	case slot >= ordinarySlots:
		return 0x0f0000 + uint32(slot-ordinarySlots), true
	}
	return a.base + uint32(slot), true
}

func (r *reference) listed(a refABI) bool {
	return a.name == refABIs[r.native][0].name || slices.Contains(r.cfg.Architectures, a.name)
}

func naiveAction(name specs.LinuxSeccompAction, ret *uint) uint32 {
	data := uint32(unix.EPERM)
	if ret != nil {
		data = uint32(*ret)
	}
	return map[specs.LinuxSeccompAction]uint32{
		specs.ActKill: 0, specs.ActKillThread: 0, specs.ActKillProcess: 0x80000000,
		specs.ActTrap: 0x00030000, specs.ActErrno: 0x00050000 | data,
		specs.ActTrace: 0x7ff00000 | data, specs.ActAllow: 0x7fff0000, specs.ActLog: 0x7ffc0000,
		specs.ActNotify: 0x7fc00000,
	}[name]
}

func newReference(cfg *specs.LinuxSeccomp, native string) *reference {
	r := &reference{
		cfg: cfg, native: native, def: naiveAction(cfg.DefaultAction, cfg.DefaultErrnoRet),
		byNumber: map[specs.Arch]map[uint32][]refRule{}, last: map[specs.Arch]uint32{},
	}
	for _, a := range refABIs[native] {
		r.byNumber[a.name] = map[uint32][]refRule{}
		for _, s := range cfg.Syscalls {
			for _, name := range s.Names {
				if row := lookup(name); row != nil {
					r.rule(a, s, row)
				}
			}
		}
	}
	return r
}

// rule notes what a rule says of a system call in an ABI.
func (r *reference) rule(a refABI, s specs.LinuxSyscall, row *syscallRow) {
	value := naiveAction(s.Action, s.ErrnoRet)
	note := func(nr uint32, conds []specs.LinuxSeccompArg) {
		if value != r.def { // as in runc, such a rule changes nothing
			r.byNumber[a.name][nr] = append(r.byNumber[a.name][nr], refRule{conds, value})
		}
	}
	sets := [][]specs.LinuxSeccompArg{s.Args}
	if repeated(s.Args) {
		sets = nil
		for _, one := range s.Args {
			sets = append(sets, []specs.LinuxSeccompArg{one})
		}
	}
	muxed := a.name == specs.ArchX86 && row.mux != 0
	nr, has := a.number(row)
	for _, set := range sets {
		if has {
			note(nr, set)
		}
		if muxed {
			slot, number := uint32(102), uint64(row.mux)
			if row.mux > 100 {
				slot, number = 117, uint64(row.mux)-100
			}
			conds := []specs.LinuxSeccompArg{{Index: 0, Value: number, Op: specs.OpEqualTo}}
			for _, arg := range set {
				if arg.Index != 0 {
					conds = append(conds, arg)
				}
			}
			note(slot, conds)
		}
	}
	// Calls that x86 multiplexes do not count, private ones by themselves.
	switch {
	case !has || muxed:
	case nr-a.base >= 0x0f0000:
		r.lastPrivate = max(r.lastPrivate, nr)
	default:
		r.last[a.name] = max(r.last[a.name], nr-a.base)
	}
}

func repeated(args []specs.LinuxSeccompArg) bool {
	var count [6]int
	for _, arg := range args {
		if count[arg.Index]++; count[arg.Index] > 1 {
			return true
		}
	}
	return false
}

// stub is runc's answer to numbers above the last: whether there is one, and from where.
func (r *reference) stub(a refABI) (uint32, bool) {
	switch r.cfg.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
		return 0, false
	}
	last := r.last[a.name]
	return a.base + last, last > 0
}

// unknown says whether a number without rules answers ENOSYS.
func (r *reference) unknown(a refABI, nr uint32) bool {
	after, ok := r.stub(a)
	return ok && nr > after && (a.name != specs.ArchARM || nr < 0x0f0000 || nr > r.lastPrivate)
}

// abi is the ABI of the profile that a call belongs to.
func (r *reference) abi(c call) (refABI, bool) {
	for _, a := range refABIs[r.native] {
		x32 := c.arch == unix.AUDIT_ARCH_X86_64 && c.nr&0x40000000 != 0
		if a.audit == c.arch && x32 == (a.name == specs.ArchX32) && r.listed(a) {
			return a, true
		}
	}
	return refABI{}, false
}

const refENOSYS = 0x00050000 | uint32(unix.ENOSYS)

// value is what the filter must answer.
func (r *reference) value(c call) uint32 {
	if a, ok := r.abi(c); ok {
		if v, ok := r.rules(a, c); ok {
			return v
		}
		if r.unknown(a, c.nr) {
			return refENOSYS
		}
		if c.nr&0x80000000 != 0 && a.name == specs.ArchX86_64 &&
			!slices.Contains(r.cfg.Architectures, specs.ArchX32) {
			return 0
		}
		return r.def
	}
	if c.arch == unix.AUDIT_ARCH_X86_64 && c.nr == 0xffffffff && r.native == "amd64" {
		return r.def // how a tracer skips a call
	}
	return 0 // not an ABI of the profile
}

// refRule is a rule for a number: conditions that must all hold.
type refRule struct {
	conds []specs.LinuxSeccompArg
	value uint32
}

// rules is what the rules say; only for profiles in which at most one action has conditions for one
// call, or whose rules of different actions do not overlap: the order of others is tested by
// itself.
func (r *reference) rules(a refABI, c call) (uint32, bool) {
	list := r.byNumber[a.name][c.nr]
	for _, rule := range list {
		if len(rule.conds) == 0 {
			return rule.value, true
		}
	}
	for _, rule := range list {
		all := true
		for _, arg := range rule.conds {
			all = all && refHolds(arg, c.args[arg.Index], a.wide)
		}
		if all {
			return rule.value, true
		}
	}
	if len(list) > 0 {
		return r.def, true
	}
	return 0, false
}

func refHolds(arg specs.LinuxSeccompArg, got uint64, wide bool) bool {
	value, two := arg.Value, arg.ValueTwo
	if !wide {
		got, value, two = got&0xffffffff, value&0xffffffff, two&0xffffffff
	}
	switch arg.Op {
	case specs.OpEqualTo:
		return got == value
	case specs.OpNotEqual:
		return got != value
	case specs.OpLessThan:
		return got < value
	case specs.OpLessEqual:
		return got <= value
	case specs.OpGreaterThan:
		return got > value
	case specs.OpGreaterEqual:
		return got >= value
	case specs.OpMaskedEqual:
		return got&value == two&value
	}
	panic("operator " + arg.Op)
}
