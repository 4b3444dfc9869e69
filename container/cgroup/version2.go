package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
)

// unified is where the version 2 tree is mounted, or "".
func (h *Host) unified() string {
	for i := range h.list {
		if h.list[i].Name == unifiedName {
			return h.list[i].Mount
		}
	}
	return ""
}

// two are the controllers that the version 2 tree can give to groups.
func (h *Host) two() []string {
	mount := h.unified()
	if mount == "" {
		return nil
	}
	raw, err := rawfile.Read(mount + "/cgroup.controllers")
	if err != nil {
		return nil
	}
	return strings.Fields(string(raw))
}

// places says where controllers are, for the pure part.
func (h *Host) places() places {
	p := places{unified: h.unified() != "", two: h.two}
	for i := range h.list {
		p.one = append(p.one, h.list[i].Controllers...)
	}
	return p
}

// wantedControllers are those that a container's group should have, for its limits and for what it
// is asked about.
var wantedControllers = []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"}

// enable gives controllers to the group p: every group above it has to hand them down
// (cgroup-v2.rst, "Enabling and Disabling").
func (h *Host) enable(p string, controllers []string) error {
	mount := h.unified()
	if lacks(mount+p+"/cgroup.controllers", controllers) == nil {
		return nil
	}
	dir := mount
	for part := range strings.SplitSeq(strings.TrimPrefix(p, "/"), "/") {
		if err := handDown(dir, controllers); err != nil {
			return err
		}
		dir += "/" + part
	}
	if left := lacks(mount+p+"/cgroup.controllers", controllers); left != nil {
		return fmt.Errorf(
			"cgroup %q cannot have the controllers %s: %w", p, strings.Join(left, " "),
			errdefs.ErrFailedPrecondition,
		)
	}
	return nil
}

// lacks returns which of the controllers a list in a file does not have.
func lacks(file string, controllers []string) (left []string) {
	raw, _ := rawfile.Read(file)
	have := strings.Fields(string(raw))
	for _, c := range controllers {
		if !slices.Contains(have, c) {
			left = append(left, c)
		}
	}
	return left
}

// handDown enables controllers for the groups below dir. One that the kernel refuses is left out if
// others can be had.
func handDown(dir string, controllers []string) error {
	left := lacks(dir+"/cgroup.subtree_control", controllers)
	if left == nil {
		return nil
	}
	file := dir + "/cgroup.subtree_control"
	if writeFile(file, []byte("+"+strings.Join(left, " +"))) == nil {
		return nil
	}
	var first error
	for _, c := range left {
		if err := writeFile(file, []byte("+"+c)); err != nil && first == nil {
			first = err
		}
	}
	if errors.Is(first, unix.EBUSY) {
		// cgroup-v2.rst, "No Internal Process Constraint".
		return fmt.Errorf(
			"%s: %w: it has processes of its own, so groups below it can have no controllers; "+
				"choose another linux.cgroupsPath: %w",
			dir, first, errdefs.ErrFailedPrecondition,
		)
	}
	return nil
}

// equip gives a new group of a pure version 2 host its controllers: those given, or if nil those
// that a container should have. Only those that a limit needs must succeed.
func (g *Group) equip(need []write, given []string) error {
	have := g.host.two()
	if given == nil {
		given = wantedControllers
	}
	if len(given) == 0 {
		return nil
	}
	want := slices.DeleteFunc(slices.Clone(given), func(c string) bool {
		return !slices.Contains(have, c)
	})
	err := g.host.enable(g.path, want)
	if err == nil {
		return nil
	}
	var must []string
	for i := range need {
		if c := need[i].controller; need[i].version == 2 && c != "cgroup" &&
			!slices.Contains(must, c) {
			must = append(must, c)
		}
	}
	if lacks(g.host.unified()+g.path+"/cgroup.controllers", must) == nil {
		return nil
	}
	return fmt.Errorf("linux.cgroupsPath: %w", err)
}

// freeze2 freezes or thaws and waits until it is so (cgroup-v2.rst, cgroup.freeze).
func (g *Group) freeze2(ctx context.Context, value string) error {
	dir := g.host.unified() + g.path
	if err := writeFile(dir+"/cgroup.freeze", []byte(value)); err != nil {
		return err
	}
	for wait := 50 * time.Microsecond; ; wait = min(2*wait, 5*time.Millisecond) {
		now, err := event(dir, "frozen")
		if err != nil {
			return err
		}
		if now == value {
			return nil
		}
		if err := pause(ctx, wait); err != nil {
			writeFile(dir+"/cgroup.freeze", []byte("0"))
			return fmt.Errorf("freeze cgroup %q: %w", g.path, err)
		}
	}
}

// event reads a value of cgroup.events.
func event(dir, name string) (string, error) {
	raw, err := rawfile.Read(dir + "/cgroup.events")
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(raw) {
		if f := bytes.Fields(line); len(f) == 2 && string(f[0]) == name {
			return string(f[1]), nil
		}
	}
	return "", fmt.Errorf("%s/cgroup.events: no %q: %w", dir, name, errdefs.ErrDataLoss)
}

// kill2 ends everything in the group and below at once (cgroup-v2.rst, cgroup.kill, Linux 5.14).
// done says whether the kernel can do that.
func (g *Group) kill2(ctx context.Context) (done bool, err error) {
	dir := g.host.unified() + g.path
	err = writeFile(dir+"/cgroup.kill", []byte("1"))
	if errors.Is(err, unix.ENOENT) {
		_, serr := rawfile.Read(dir + "/cgroup.procs")
		return errors.Is(serr, unix.ENOENT), nil // either the group is gone, or the kernel is old
	}
	if err != nil {
		return false, err
	}
	for wait := 50 * time.Microsecond; ; wait = min(2*wait, 5*time.Millisecond) {
		now, err := event(dir, "populated")
		if now == "0" || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
			return true, nil
		}
		if err != nil {
			return true, err
		}
		if err := pause(ctx, wait); err != nil {
			return true, fmt.Errorf("cgroup %q: its processes do not end: %w", g.path, err)
		}
	}
}

// stats2 reads a version 2 group.
func (g *Group) stats2() (*Stats, error) {
	dir := g.host.unified() + g.path
	if _, err := rawfile.Read(dir + "/cgroup.events"); err != nil {
		return nil, err
	}
	read := func(file string) []byte {
		raw, _ := rawfile.Read(path.Join(dir, file)) // a controller that the group does not have
		return raw
	}
	s := new(Stats)
	cpu := pairs(read("cpu.stat"))
	const micro = 1000
	s.CPU = CPUStats{
		TotalNanos: cpu["usage_usec"] * micro, UserNanos: cpu["user_usec"] * micro,
		KernelNanos: cpu["system_usec"] * micro,
		Periods:     cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"],
		ThrottledNanos: cpu["throttled_usec"] * micro,
		Pressure:       pressure(read("cpu.pressure")),
	}
	s.Memory = MemoryStats{
		Usage: number(read("memory.current")), MaxUsage: number(read("memory.peak")),
		Limit:   limit(read("memory.max")),
		Failcnt: pairs(read("memory.events"))["max"], Stat: pairs(read("memory.stat")),
		SwapUsage: number(read("memory.swap.current")), SwapLimit: limit(read("memory.swap.max")),
		Pressure: pressure(read("memory.pressure")),
	}
	s.Pids = PidsStats{Current: number(read("pids.current")), Limit: number(read("pids.max"))}
	s.IO = ioStat(read("io.stat"))
	s.IOPressure = pressure(read("io.pressure"))
	s.Hugetlb = hugetlbStats(dir, ".current", ".max", ".peak")
	return s, nil
}

// limit is a number, or the largest one for "max".
func limit(raw []byte) uint64 {
	if strings.TrimSpace(string(raw)) == "max" {
		return ^uint64(0)
	}
	return number(raw)
}

// ioStat reads lines of "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func ioStat(raw []byte) (list []IOEntry) {
	for line := range bytes.Lines(raw) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		major, minor, _ := strings.Cut(f[0], ":")
		values := map[string]uint64{}
		for _, kv := range f[1:] {
			if k, v, ok := strings.Cut(kv, "="); ok {
				values[k] = number([]byte(v))
			}
		}
		for _, op := range []struct{ name, bytes, count string }{
			{"read", "rbytes", "rios"}, {"write", "wbytes", "wios"},
		} {
			list = append(list, IOEntry{
				Major: number([]byte(major)), Minor: number([]byte(minor)), Op: op.name,
				Bytes: values[op.bytes], Count: values[op.count],
			})
		}
	}
	return list
}

// pressure reads a file of pressure stall information (accounting/psi.rst), or returns nil where
// there is none.
func pressure(raw []byte) *Pressure {
	if len(raw) == 0 {
		return nil
	}
	p := new(Pressure)
	for line := range bytes.Lines(raw) {
		f := strings.Fields(string(line))
		if len(f) == 0 {
			continue
		}
		var l Stall
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			switch k {
			case "avg10":
				l.Avg10 = decimal(v)
			case "avg60":
				l.Avg60 = decimal(v)
			case "avg300":
				l.Avg300 = decimal(v)
			case "total":
				l.TotalMicros = number([]byte(v))
			}
		}
		switch f[0] {
		case "some":
			p.Some = l
		case "full":
			p.Full = l
		}
	}
	return p
}
