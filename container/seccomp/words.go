package seccomp

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Vocabulary is what Compile understands, in the words of the OCI configuration, each list sorted.
type Vocabulary struct {
	Actions, Operators, Flags []string
	// Archs are the architectures that filters are made for. The others of the specification are
	// accepted and make no difference, because the kernels of the first never run them.
	Archs []string
}

// Known is the vocabulary for the runtime-spec's features document. The caller owns the slices.
func Known() Vocabulary {
	v := Vocabulary{
		Actions: sorted(actionNames[:]), Operators: sorted(operatorNames[:]),
		Flags: sorted(flagNames[:]),
	}
	for _, name := range archNames {
		if a, ok := parseArch(name); ok && a < abiCount {
			v.Archs = append(v.Archs, string(name))
		}
	}
	slices.Sort(v.Archs)
	return v
}

func sorted[T ~string](names []T) []string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = string(n)
	}
	slices.Sort(list)
	return list
}

// quoted is a list of words for an error.
func quoted[T ~string](names []T) string { return strings.Join(sorted(names), ", ") }

var actionNames = [...]specs.LinuxSeccompAction{
	specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread,
	specs.ActLog, specs.ActNotify, specs.ActTrace, specs.ActTrap,
}

// parseAction is the return value of an action without its data (seccomp(2)). SCMP_ACT_KILL kills
// the thread, as it always did.
func parseAction(name specs.LinuxSeccompAction) (value uint32, ok bool) {
	switch name {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, true
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO, true
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, true
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, true
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, true
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, true
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE, true
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, true
	}
	return 0, false
}

// operator is a comparison of an argument.
type operator uint8

const (
	opEQ operator = iota
	opNE
	opLT
	opLE
	opGT
	opGE
	opMasked
)

var operatorNames = [...]specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual,
	specs.OpGreaterThan, specs.OpMaskedEqual,
}

func parseOperator(name specs.LinuxSeccompOperator) (operator, bool) {
	switch name {
	case specs.OpEqualTo:
		return opEQ, true
	case specs.OpNotEqual:
		return opNE, true
	case specs.OpLessThan:
		return opLT, true
	case specs.OpLessEqual:
		return opLE, true
	case specs.OpGreaterThan:
		return opGT, true
	case specs.OpGreaterEqual:
		return opGE, true
	case specs.OpMaskedEqual:
		return opMasked, true
	}
	return 0, false
}

// flagTsync is none of the specification's flags; runc and profiles know it.
const flagTsync specs.LinuxSeccompFlag = "SECCOMP_FILTER_FLAG_TSYNC"

var flagNames = [...]specs.LinuxSeccompFlag{
	flagTsync, specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow,
	specs.LinuxSeccompFlagWaitKillableRecv,
}

func (c *compiler) flags() (uintptr, error) {
	if c.cfg.Flags == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var flags uintptr
	for i, name := range c.cfg.Flags {
		switch name {
		case flagTsync:
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if !c.notify {
				return 0, invalid(
					"linux.seccomp.flags[%d]: %s wants a rule with %s (seccomp(2))", i, name,
					specs.ActNotify,
				)
			}
			flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return 0, invalid(
				"linux.seccomp.flags[%d]: %q, want one of %s", i, name, quoted(flagNames[:]),
			)
		}
	}
	return flags, nil
}

// archNames are the architectures of the specification.
var archNames = [...]specs.Arch{
	specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
	specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32,
	specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
	specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X,
	specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K,
	specs.ArchSH, specs.ArchSHEB,
}

// parseArch is the ABI of a name; abiCount for one that the specification has and this package does
// not.
func parseArch(name specs.Arch) (abi, bool) {
	switch name {
	case specs.ArchX86_64:
		return abiX86_64, true
	case specs.ArchX86:
		return abiX86, true
	case specs.ArchX32:
		return abiX32, true
	case specs.ArchAARCH64:
		return abiAarch64, true
	case specs.ArchARM:
		return abiARM, true
	}
	return abiCount, slices.Contains(archNames[:], name)
}

// syscallField is the name of a field of rule i, for errors.
func syscallField(i int, field string) string {
	return "linux.seccomp.syscalls[" + strconv.Itoa(i) + "]." + field
}
