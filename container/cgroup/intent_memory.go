package cgroup

import (
	"math"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// memoryLimits are those of memory in bytes: -1 for none, 0 for not set.
type memoryLimits struct{ limit, swap, reserve int64 }

// memory follows cgroup-v1/memory.rst and cgroup-v2.rst, "Memory Interface Files". 0 means not set,
// as for runc. kernel and kernelTCP are ignored (config-linux.md calls them deprecated), and so is
// useHierarchy: kernels since 5.11 know nothing else.
func (p *planner) memory(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	l := p.memoryLimits(m)
	if value(m.CheckBeforeUpdate) && !p.cur.fresh && p.at.version("memory") == 2 {
		// Version 1 refuses such a limit itself.
		p.memoryChecks(l)
	}
	p.swapBefore(l)
	p.memoryLimit(l)
	p.swapAfter(l)
	p.reservation(l)
	p.swappiness(m)
	p.oomKiller(m)
}

// memoryLimits checks the limits against each other, and leaves out what need not be written.
func (p *planner) memoryLimits(m *specs.LinuxMemory) memoryLimits {
	l := memoryLimits{value(m.Limit), value(m.Swap), value(m.Reservation)}
	for _, f := range []struct {
		name string
		v    int64
	}{
		{"memory.limit", l.limit}, {"memory.swap", l.swap}, {"memory.reservation", l.reserve},
	} {
		if f.v < -1 {
			p.invalid(f.name, itoa(f.v), "bytes, or -1 for no limit")
		}
	}
	// Without a limit of memory, swap is not limited either unless it says so.
	if l.limit == -1 && l.swap == 0 {
		l.swap = -1
	}
	if l.limit > 0 && l.swap > 0 && l.swap < l.limit {
		p.invalid(
			"memory.swap", itoa(l.swap),
			"the sum of memory and swap: at least memory.limit, "+itoa(l.limit),
		)
	}
	if p.cur.fresh || p.at.version("memory") == 0 {
		// No limit is what a new group has, and what a host without the controller has.
		l = memoryLimits{max(l.limit, 0), max(l.swap, 0), max(l.reserve, 0)}
	}
	return l
}

// memoryChecks refuses limits below what is in use.
func (p *planner) memoryChecks(l memoryLimits) {
	if l.swap > 0 {
		p.checks = append(p.checks, check{
			file: "memory.current", limit: l.swap, what: "rejecting memory+swap limit",
			field: field + "memory.swap", given: itoa(l.swap),
		})
	}
	if l.limit > 0 {
		p.checks = append(p.checks, check{
			file: "memory.current", limit: l.limit, what: "rejecting memory limit",
			field: field + "memory.limit", given: itoa(l.limit),
		})
	}
}

// swapBefore is what is said of swap before the limit of memory: everything of version 2.
func (p *planner) swapBefore(l memoryLimits) {
	if l.swap == 0 {
		return
	}
	switch p.need("memory", "memory.swap", itoa(l.swap)) {
	case 1:
		if p.cur.fresh && l.limit == 0 {
			p.invalid(
				"memory.swap", itoa(l.swap), "memory.limit beside it: swap is the sum of both",
			)
		}
	case 2:
		only, bad := swapOnly(l.swap, l.limit, p.cur.memoryMax)
		if bad != "" {
			p.invalid("memory.swap", itoa(l.swap), bad)
		}
		p.put(2, "memory", write{
			file: "memory.swap.max", value: limit2(only), field: field + "memory.swap",
			given: itoa(l.swap), optional: only <= 0,
		})
	}
}

func (p *planner) memoryLimit(l memoryLimits) {
	if l.limit == 0 {
		return
	}
	w := write{
		file: "memory.limit_in_bytes", value: itoa(l.limit), field: field + "memory.limit",
		given: itoa(l.limit), knot: "memory",
	}
	v := p.need("memory", "memory.limit", itoa(l.limit))
	if v == 2 {
		w.file, w.value, w.knot = "memory.max", limit2(l.limit), ""
	}
	p.put(v, "memory", w)
}

// swapAfter is version 1's limit of the sum, which the limit of memory may not exceed.
func (p *planner) swapAfter(l memoryLimits) {
	if l.swap == 0 || p.at.version("memory") != 1 {
		return
	}
	p.put(1, "memory", write{
		file: "memory.memsw.limit_in_bytes", value: itoa(l.swap), field: field + "memory.swap",
		given: itoa(l.swap), knot: "memory", optional: l.swap == -1,
	})
}

func (p *planner) reservation(l memoryLimits) {
	if l.reserve == 0 {
		return
	}
	w := write{
		file: "memory.soft_limit_in_bytes", value: itoa(l.reserve),
		field: field + "memory.reservation", given: itoa(l.reserve),
	}
	v := p.need("memory", "memory.reservation", itoa(l.reserve))
	if v == 2 {
		w.file, w.value = "memory.low", limit2(l.reserve)
	}
	p.put(v, "memory", w)
}

func (p *planner) swappiness(m *specs.LinuxMemory) {
	// The largest value is -1 of those who wrote it as a signed number.
	if m.Swappiness == nil || *m.Swappiness == math.MaxUint64 {
		return
	}
	s := strconv.FormatUint(*m.Swappiness, 10)
	if *m.Swappiness > 100 {
		p.invalid("memory.swappiness", s, "0 to 100")
	}
	if p.only1("memory", "memory.swappiness", s) {
		p.put(1, "memory", write{
			file: "memory.swappiness", value: s, field: field + "memory.swappiness", given: s,
		})
	}
}

func (p *planner) oomKiller(m *specs.LinuxMemory) {
	w := write{
		file: "memory.oom_control", field: field + "memory.disableOOMKiller", entry: true,
	}
	switch {
	case value(m.DisableOOMKiller):
		if p.only1("memory", "memory.disableOOMKiller", "true") {
			w.value, w.given = "1", "true"
			p.put(1, "memory", w)
		}
	case m.DisableOOMKiller != nil && !p.cur.fresh && p.at.version("memory") == 1:
		w.value, w.given = "0", "false"
		p.put(1, "memory", w)
	}
}

// swapOnly is the limit of swap alone, from the sum that OCI and version 1 have; bad says what is
// wrong.
func swapOnly(swap, limit, now int64) (v int64, bad string) {
	if limit == 0 {
		limit = now
	}
	switch {
	case swap == -1, limit == -1:
		return swap, ""
	case limit == 0:
		return 0, "memory.limit beside it: swap is the sum of both"
	case swap < limit:
		return 0, "the sum of memory and swap: at least the memory limit in force, " + itoa(limit)
	}
	return swap - limit, ""
}
