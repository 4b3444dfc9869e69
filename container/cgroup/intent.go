package cgroup

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// places says which controllers are where. It is what the pure part knows of a host.
type places struct {
	one     []string        // controllers and names of version 1 hierarchies
	two     func() []string // controllers of cgroup2
	unified bool            // there is a cgroup2 tree
}

// current is what the pure part knows of a group whose limits change.
type current struct {
	// fresh says that the group was just made: a value that is the kernel's default needs no
	// writing.
	fresh bool
	// cpuMax is the first word of cpu.max, "" if not known.
	cpuMax string
	// memoryMax is memory.max: -1 for none, 0 if not known.
	memoryMax int64
}

// write is one value for one file.
type write struct {
	version    int // of the hierarchy
	controller string
	file       string
	value      string
	// altFile and altValue are for kernels without file.
	altFile, altValue string
	// field is where the value comes from in the configuration, and given what it says there.
	field, given string
	// Writes of one knot depend on one another: one that the kernel refuses as invalid is tried
	// again after the others.
	knot string
	// optional allows the file to be missing, because then what is asked for is so anyway.
	optional bool
	// entry says that the file keeps other entries beside this one, so that the old content cannot
	// be put back.
	entry bool
}

// check refuses an update if what a file says has reached a limit.
type check struct {
	file         string
	limit        int64
	what         string
	field, given string
}

// intent is what a configuration means for one group, in the order in which it has to happen.
type intent struct {
	checks []check
	writes []write
}

// prefix of all fields of this package.
const field = "linux.resources."

// planner collects an intent. Its first error ends it.
type planner struct {
	at  places
	cur current
	intent
	err error
}

// plan turns limits into writes. It is pure. Device rules are not part of it: see devices.go.
// Errors name the field; classes are errdefs.ErrInvalidArgument for what no host can do and
// errdefs.ErrFailedPrecondition for what this host cannot.
func plan(res *specs.LinuxResources, at places, cur current) (intent, error) {
	p := planner{at: at, cur: cur}
	if res != nil {
		p.memory(res.Memory)
		p.cpu(res.CPU)
		p.cpuset(res.CPU)
		p.pids(res.Pids)
		p.blockIO(res.BlockIO)
		p.hugepages(res.HugepageLimits)
		p.network(res.Network)
		p.rdma(res.Rdma)
		p.unified(res.Unified)
	}
	if p.err != nil {
		return intent{}, p.err
	}
	return p.intent, nil
}

// version is the hierarchy version in which a controller is found, by its name in version 1: 1, 2,
// or 0 if this host has none.
func (at *places) version(controller string) int {
	if slices.Contains(at.one, controller) {
		return 1
	}
	switch controller {
	case "devices", "freezer":
		// cgroup2 does these without a controller.
		if at.unified {
			return 2
		}
		return 0
	case "blkio":
		controller = "io"
	}
	if at.two != nil && slices.Contains(at.two(), controller) {
		return 2
	}
	return 0
}

// need is version for a value that has to be set somewhere.
func (p *planner) need(controller, name, given string) int {
	v := p.at.version(controller)
	if v == 0 && p.err == nil {
		p.err = fmt.Errorf(
			"%s%s: %s: this host has no cgroup controller %q: %w", field, name, given, controller,
			errdefs.ErrFailedPrecondition,
		)
	}
	return v
}

// only1 is need for what cgroup2 does not have.
func (p *planner) only1(controller, name, given string) bool {
	v := p.at.version(controller)
	if v != 1 && p.err == nil {
		p.err = fmt.Errorf("%s%s: %s: only version 1 of the cgroup controller %q has this, and this host does not have that: %w",
			field, name, given, controller, errdefs.ErrFailedPrecondition)
	}
	return v == 1
}

func (p *planner) invalid(name, given, want string) {
	if p.err == nil {
		p.err = fmt.Errorf(
			"%s%s: %s: want %s: %w", field, name, given, want, errdefs.ErrInvalidArgument,
		)
	}
}

// put adds a write for a controller by its name in version 1; w lacks only the places.
func (p *planner) put(version int, controller string, w write) {
	if version == 0 || p.err != nil {
		return
	}
	w.version, w.controller = version, controller
	if version == 2 && controller == "blkio" {
		w.controller = "io"
	}
	p.writes = append(p.writes, w)
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func itoa(v int64) string { return strconv.FormatInt(v, 10) }

// limit2 is a limit as cgroup2 writes it.
func limit2(v int64) string {
	if v < 0 {
		return "max"
	}
	return itoa(v)
}

// memory follows cgroup-v1/memory.rst and cgroup-v2.rst, "Memory Interface Files". 0 means not set,
// as for runc. kernel and kernelTCP are ignored (config-linux.md calls them deprecated), and so is
// useHierarchy: kernels since 5.11 know nothing else.
func (p *planner) memory(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	limit, swap, reserve := value(m.Limit), value(m.Swap), value(m.Reservation)
	for _, f := range []struct {
		name string
		v    int64
	}{{"memory.limit", limit}, {"memory.swap", swap}, {"memory.reservation", reserve}} {
		if f.v < -1 {
			p.invalid(f.name, itoa(f.v), "bytes, or -1 for no limit")
		}
	}
	// Without a limit of memory, swap is not limited either unless it says so.
	implied := limit == -1 && swap == 0
	if implied {
		swap = -1
	}
	if limit > 0 && swap > 0 && swap < limit {
		p.invalid(
			"memory.swap", itoa(swap),
			"the sum of memory and swap: at least memory.limit, "+itoa(limit),
		)
	}
	if none := p.cur.fresh || p.at.version("memory") == 0; none {
		// No limit is what a new group has, and what a host without the controller has.
		limit, swap, reserve = max(limit, 0), max(swap, 0), max(reserve, 0)
	}
	if value(m.CheckBeforeUpdate) && !p.cur.fresh && p.at.version("memory") == 2 {
		// Version 1 refuses such a limit itself.
		if swap > 0 {
			p.checks = append(
				p.checks,
				check{
					file: "memory.current", limit: swap, what: "rejecting memory+swap limit",
					field: field + "memory.swap", given: itoa(swap),
				},
			)
		}
		if limit > 0 {
			p.checks = append(
				p.checks,
				check{
					file: "memory.current", limit: limit, what: "rejecting memory limit",
					field: field + "memory.limit", given: itoa(limit),
				},
			)
		}
	}
	limitW := write{
		file: "memory.limit_in_bytes", value: itoa(limit), field: field + "memory.limit",
		given: itoa(limit), knot: "memory",
	}
	swapW := write{
		file: "memory.memsw.limit_in_bytes", value: itoa(swap), field: field + "memory.swap",
		given: itoa(swap), knot: "memory", optional: swap == -1,
	}
	if swap != 0 {
		switch p.need("memory", "memory.swap", itoa(swap)) {
		case 1:
			if p.cur.fresh && limit == 0 {
				p.invalid(
					"memory.swap", itoa(swap), "memory.limit beside it: swap is the sum of both",
				)
			}
		case 2:
			only, err := swapOnly(swap, limit, p.cur.memoryMax)
			if err != "" {
				p.invalid("memory.swap", itoa(swap), err)
			}
			p.put(
				2, "memory",
				write{
					file: "memory.swap.max", value: limit2(only), field: swapW.field,
					given: swapW.given, optional: only <= 0,
				},
			)
		}
	}
	if limit != 0 {
		switch p.need("memory", "memory.limit", itoa(limit)) {
		case 1:
			p.put(1, "memory", limitW)
		case 2:
			p.put(
				2, "memory",
				write{
					file: "memory.max", value: limit2(limit), field: limitW.field,
					given: limitW.given,
				},
			)
		}
	}
	if swap != 0 && p.at.version("memory") == 1 {
		p.put(1, "memory", swapW)
	}
	if reserve != 0 {
		w := write{
			file: "memory.soft_limit_in_bytes", value: itoa(reserve),
			field: field + "memory.reservation", given: itoa(reserve),
		}
		v := p.need("memory", "memory.reservation", itoa(reserve))
		if v == 2 {
			w.file, w.value = "memory.low", limit2(reserve)
		}
		p.put(v, "memory", w)
	}
	// The largest value is -1 of those who wrote it as a signed number.
	if m.Swappiness != nil && *m.Swappiness != math.MaxUint64 {
		s := strconv.FormatUint(*m.Swappiness, 10)
		if *m.Swappiness > 100 {
			p.invalid("memory.swappiness", s, "0 to 100")
		}
		if p.only1("memory", "memory.swappiness", s) {
			p.put(
				1, "memory",
				write{
					file: "memory.swappiness", value: s, field: field + "memory.swappiness",
					given: s,
				},
			)
		}
	}
	if value(m.DisableOOMKiller) {
		if p.only1("memory", "memory.disableOOMKiller", "true") {
			p.put(
				1, "memory",
				write{
					file: "memory.oom_control", value: "1",
					field: field + "memory.disableOOMKiller", given: "true", entry: true,
				},
			)
		}
	} else if m.DisableOOMKiller != nil && !p.cur.fresh && p.at.version("memory") == 1 {
		p.put(
			1, "memory",
			write{
				file: "memory.oom_control", value: "0", field: field + "memory.disableOOMKiller",
				given: "false", entry: true,
			},
		)
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

// pids follows cgroup-v1/pids.rst. 0 allows as little as the kernel lets run: nothing more than
// what is there.
func (p *planner) pids(l *specs.LinuxPids) {
	if l == nil || l.Limit == nil {
		return
	}
	given, v := itoa(*l.Limit), "max"
	switch {
	case *l.Limit > 0:
		v = given
	case *l.Limit == 0:
		// systemd has no 0 here, and a group behaves the same with either.
		v = "1"
	case p.cur.fresh || p.at.version("pids") == 0:
		return
	}
	p.put(
		p.need("pids", "pids.limit", given), "pids",
		write{file: "pids.max", value: v, field: field + "pids.limit", given: given},
	)
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
