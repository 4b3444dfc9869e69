package plan

import (
	"bytes"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// maxNumber bounds the numbers of processors and memory nodes in lists: CONFIG_NR_CPUS and
// MAX_NUMNODES are lower on every machine.
const maxNumber = 1 << 13

// numberSet parses a list of numbers and ranges, as in cpuset(7), "List format", into a bit mask.
func numberSet(list string) ([]uint64, error) {
	var mask []uint64
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.ParseUint(from, 10, 16)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(to, 10, 16)
		}
		if err != nil || last < first || last >= maxNumber {
			return nil, fmt.Errorf(
				"%q, want numbers below %d and ranges of them, such as 0-3,7", list, maxNumber,
			)
		}
		for n := first; n <= last; n++ {
			for int(n/64) >= len(mask) {
				mask = append(mask, 0)
			}
			mask[n/64] |= 1 << (n % 64)
		}
	}
	return mask, nil
}

// affinity lets the process run on a list of processors only (sched_setaffinity(2)). An empty list
// changes nothing.
func (p *scheduling) affinity(field, list string) {
	if list == "" {
		return
	}
	p.Field(field)
	mask, err := numberSet(list)
	if err != nil {
		p.fail(invalid(field, "%v", err))
		return
	}
	p.Call(
		unix.SYS_SCHED_SETAFFINITY, program.Num(0), program.Num(8*len(mask)),
		p.Bytes(words(mask...)).Ptr(),
	)
}

// resetAffinity lets the process run wherever its group may, whatever its spawner was bound to, as
// engines that are bound to some processors expect.
func (p *scheduling) resetAffinity() {
	if p.proc.ExecCPUAffinity != nil && p.exec {
		return // it says what remains
	}
	p.Field("process (processors)")
	all := p.Bytes(bytes.Repeat([]byte{0xff}, maxNumber/8))
	// A profile of a sandbox around this runtime may refuse it, and the group's limits hold anyway.
	p.Call(
		unix.SYS_SCHED_SETAFFINITY, program.Num(0), program.Num(maxNumber/8), all.Ptr(),
	).Ignore(errnos(unix.EPERM, unix.ENOSYS)...)
}

func validateAffinity(field string, a *specs.CPUAffinity) error {
	if a == nil {
		return nil
	}
	for _, f := range []struct{ name, list string }{
		{".initial", a.Initial}, {".final", a.Final},
	} {
		if f.list == "" {
			continue
		}
		if _, err := numberSet(f.list); err != nil {
			return invalid(field+f.name, "%v", err)
		}
	}
	return nil
}

// Numbers of set_mempolicy(2), linux/mempolicy.h.
var (
	memoryModes = table[specs.MemoryPolicyModeType, uint64]{
		{specs.MpolDefault, 0}, {specs.MpolPreferred, 1}, {specs.MpolBind, 2},
		{specs.MpolInterleave, 3}, {specs.MpolLocal, 4}, {specs.MpolPreferredMany, 5},
		{specs.MpolWeightedInterleave, 6},
	}
	memoryFlags = table[specs.MemoryPolicyFlagType, uint64]{
		{specs.MpolFStaticNodes, 1 << 15}, {specs.MpolFRelativeNodes, 1 << 14},
		{specs.MpolFNumaBalancing, 1 << 13},
	}
)

// memoryPolicyNumbers is a policy as set_mempolicy(2) takes it. Which nodes there are only the
// kernel knows.
func memoryPolicyNumbers(m *specs.LinuxMemoryPolicy) (mode uint64, nodes []uint64, err error) {
	const field = "linux.memoryPolicy"
	mode, ok := memoryModes.get(m.Mode)
	if !ok {
		return 0, nil, invalid(
			field+".mode", "invalid memory policy mode %q, want one of %s", m.Mode,
			strings.Join(MemoryModes(), ", "),
		)
	}
	for i, f := range m.Flags {
		bit, ok := memoryFlags.get(f)
		if !ok {
			return 0, nil, invalid(
				fmt.Sprintf("%s.flags[%d]", field, i),
				"invalid memory policy flag %q, want one of %s", f,
				strings.Join(MemoryFlags(), ", "),
			)
		}
		mode |= bit
	}
	if m.Nodes == "" {
		return mode, nil, nil
	}
	if nodes, err = numberSet(m.Nodes); err != nil {
		return 0, nil, invalid(field+".nodes", "invalid memory policy nodes: %v", err)
	}
	if n := count(nodes); n > 0 && (m.Mode == specs.MpolDefault || m.Mode == specs.MpolLocal) {
		return 0, nil, invalid(field+".nodes", "mode requires 0 nodes but got %d", n)
	}
	return mode, nodes, nil
}

// count is how many numbers are in a set.
func count(set []uint64) (n int) {
	for _, word := range set {
		n += bits.OnesCount64(word)
	}
	return n
}

// memoryPolicy sets on which memory nodes the process allocates.
func (p *scheduling) memoryPolicy() {
	if p.linux.MemoryPolicy == nil {
		return
	}
	p.Field("linux.memoryPolicy")
	mode, nodes, err := memoryPolicyNumbers(p.linux.MemoryPolicy)
	if err != nil {
		p.fail(err)
		return
	}
	mask, size := program.Num(0), 0
	if nodes != nil {
		// The kernel takes one bit less than it is told.
		mask, size = p.Bytes(words(nodes...)).Ptr(), 64*len(nodes)+1
	}
	p.Call(unix.SYS_SET_MEMPOLICY, program.Num(mode), mask, program.Num(size))
}

// MemoryModes are the modes of linux.memoryPolicy.
func MemoryModes() []string { return names(memoryModes) }

// MemoryFlags are its flags.
func MemoryFlags() []string { return names(memoryFlags) }

func names[K ~string, V any](t table[K, V]) []string {
	list := make([]string, len(t))
	for i := range t {
		list[i] = string(t[i].key)
	}
	return list
}
