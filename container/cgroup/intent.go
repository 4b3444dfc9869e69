package cgroup

import (
	"fmt"
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
		p.err = fmt.Errorf(
			"%s%s: %s: only version 1 of the cgroup controller %q has this, and this host does "+
				"not have that: %w",
			field, name, given, controller, errdefs.ErrFailedPrecondition,
		)
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

// pids follows cgroup-v1/pids.rst. 0 allows as little as the kernel lets run: the processes that
// are in the group already, and no further one.
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
