package lmctfy

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"strake/container/cgroup"
	"strake/lmctfy/name"
	"strake/lmctfy/spec"
)

// Detail says how much Stats reads.
type Detail int

const (
	// Summary leaves out what takes long to read or matters to few: throttling.
	Summary Detail = iota
	// Full is everything.
	Full
)

// Stats is what the container uses of the resources that it isolates, containers inside included.
// Values that the kernel does not have are not set. An error is beside what could be read.
func (c *Container) Stats(detail Detail) (*spec.ContainerStats, error) {
	isolated, _, err := c.isolated()
	if err != nil {
		return nil, err
	}
	out := new(spec.ContainerStats)
	var errs []error
	for _, r := range isolated {
		switch r {
		case spec.CPU:
			out.Cpu, err = c.cpuStats(detail)
			errs = append(errs, err)
		case spec.Memory:
			out.Memory, err = c.memoryStats()
			errs = append(errs, err)
		case spec.Filesystem:
			out.Filesystem, err = c.filesystemStats()
			errs = append(errs, err)
		case spec.BlockIO:
			out.Blockio = new(spec.BlockIoStats)
		case spec.NetworkIO:
			out.Network = new(spec.NetworkStats)
		case spec.Monitoring:
			out.Monitoring = new(spec.MonitoringStats)
		}
	}
	return out, errors.Join(errs...)
}

// read reads the statistics of the container's group in the tree of a controller.
func (c *Container) read(controller string) (*cgroup.Stats, error) {
	t := c.m.of(controller)
	if t == nil {
		return new(cgroup.Stats), nil
	}
	p, _, _ := c.m.find(t, c.name)
	g, err := t.at(p)
	if err != nil {
		return nil, err
	}
	s, err := g.Stats()
	if err != nil {
		return nil, fmt.Errorf("container %q: statistics: %w", c.name, err)
	}
	return s, nil
}

func (c *Container) cpuStats(detail Detail) (*spec.CpuStats, error) {
	used, err := c.read("cpuacct")
	if err != nil {
		return nil, err
	}
	u := &spec.CpuStats_Usage{
		Total: &used.CPU.TotalNanos, User: ptr(int64(used.CPU.UserNanos / 1000)),
		System: ptr(int64(used.CPU.KernelNanos / 1000)),
	}
	for _, n := range used.CPU.PerCPUNanos {
		u.PerCpu = append(u.PerCpu, int64(n))
	}
	out := &spec.CpuStats{Usage: u, Load: c.load()}
	if detail == Summary {
		return out, nil
	}
	throttled, err := c.read("cpu")
	if err != nil {
		return out, err
	}
	out.ThrottlingData = &spec.ThrottlingData{
		Periods:          ptr(int64(throttled.CPU.Periods)),
		ThrottledPeriods: ptr(int64(throttled.CPU.ThrottledPeriods)),
		ThrottledTime:    ptr(int64(throttled.CPU.ThrottledNanos)),
	}
	return out, nil
}

// mostThreads is the number of threads above which their states are not read.
const mostThreads = 4096

// load counts the threads of the container that can run now, or is nil if there are too many to
// ask.
func (c *Container) load() *int32 {
	tids, err := c.Threads(Recursive)
	if err != nil || len(tids) > mostThreads {
		return nil
	}
	n := int32(0)
	for _, tid := range tids {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tid))
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): the state follows the name, which is in parentheses.
		i := bytes.LastIndex(raw, []byte(") "))
		if i >= 0 && bytes.HasPrefix(raw[i+2:], []byte("R")) {
			n++
		}
	}
	return &n
}

// memoryNames2 are the kernel's names of values in memory.stat by the names of fields, where they
// differ, on version 2.
var memoryNames2 = map[string]string{
	"cache": "file", "rss": "anon", "rss_huge": "anon_thp", "mapped_file": "file_mapped",
	"dirty": "file_dirty", "writeback": "file_writeback",
}

func (c *Container) memoryStats() (*spec.MemoryStats, error) {
	s, err := c.read("memory")
	if err != nil {
		return nil, err
	}
	two := c.m.host.Version() == 2
	out := &spec.MemoryStats{
		Usage: ptr(int64(s.Memory.Usage)), MaxUsage: ptr(int64(s.Memory.MaxUsage)),
		FailCount: ptr(int64(s.Memory.Failcnt)), Limit: ptr(limited(s.Memory.Limit)),
		EffectiveLimit: ptr(c.kernel().effective()),
	}
	if low, ok := c.kernel().number("memory", "memory.soft_limit_in_bytes", "memory.low"); ok {
		out.Reservation = ptr(max(low, 0))
	}
	prefix := "total_"
	if two {
		prefix = ""
	}
	idle := s.Memory.Stat[prefix+"inactive_anon"] + s.Memory.Stat[prefix+"inactive_file"]
	out.WorkingSet = ptr(int64(s.Memory.Usage - min(idle, s.Memory.Usage)))
	if two {
		out.HierarchicalData = memoryData(s.Memory.Stat, "", memoryNames2)
		return out, nil
	}
	out.ContainerData = memoryData(s.Memory.Stat, "", nil)
	out.HierarchicalData = memoryData(s.Memory.Stat, prefix, nil)
	if n, ok := s.Memory.Stat["hierarchical_memory_limit"]; ok {
		out.HierarchicalMemoryLimit = ptr(limited(n))
	}
	out.Numa = c.kernel().numaStats()
	return out, nil
}

// limited is a limit, -1 if it is none.
func limited(n uint64) int64 {
	if n >= unlimited {
		return -1
	}
	return int64(n)
}

// memoryData fills the fields that the kernel has numbers for.
func memoryData(
	stat map[string]uint64, prefix string, names map[string]string,
) *spec.MemoryStats_MemoryData {
	out := new(spec.MemoryStats_MemoryData)
	m := out.ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		kernel := string(f.Name())
		if other, ok := names[kernel]; ok {
			kernel = other
		}
		if n, ok := stat[prefix+kernel]; ok && f.Kind() == protoreflect.Int64Kind {
			m.Set(f, protoreflect.ValueOfInt64(int64(min(n, math.MaxInt64))))
		}
	}
	return out
}

// effective is the least limit of the container and of those above, -1 if there is none.
func (c *values) effective() int64 {
	least := int64(-1)
	for n := c.name; ; n = n.Parent() {
		above := &values{m: c.m, name: n}
		limit, ok := above.number("memory", "memory.limit_in_bytes", "memory.max")
		if ok && limit >= 0 && (least < 0 || limit < least) {
			least = limit
		}
		if n == name.Root {
			return least
		}
	}
}

// numaStats reads memory.numa_stat of version 1 (memory.rst, 3.4), lines of
// "total=12 N0=8 N1=4".
func (c *values) numaStats() *spec.MemoryStats_NumaStats {
	text, ok := c.file("memory", "memory.numa_stat")
	if !ok {
		return nil
	}
	own, all := new(spec.MemoryStats_NumaStats_NumaData), new(spec.MemoryStats_NumaStats_NumaData)
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		kind, total, _ := strings.Cut(f[0], "=")
		into := own
		if rest, hierarchical := strings.CutPrefix(kind, "hierarchical_"); hierarchical {
			kind, into = rest, all
		}
		s := new(spec.MemoryStats_NumaStats_NumaData_Stat)
		s.TotalPageCount = numberOf(total)
		for _, node := range f[1:] {
			level, count, _ := strings.Cut(strings.TrimPrefix(node, "N"), "=")
			n := &spec.MemoryStats_NumaStats_NumaData_Stat_Node{PageCount: numberOf(count)}
			if l := numberOf(level); l != nil {
				n.Level = ptr(int32(*l))
			}
			s.Node = append(s.Node, n)
		}
		switch kind {
		case "total":
			into.Total = s
		case "file":
			into.File = s
		case "anon":
			into.Anon = s
		case "unevictable":
			into.Unevictable = s
		}
	}
	return &spec.MemoryStats_NumaStats{ContainerData: own, HierarchicalData: all}
}

func numberOf(text string) *int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// filesystemStats counts the descriptors that the container's processes have open.
func (c *Container) filesystemStats() (*spec.FilesystemStats, error) {
	pids, err := c.Processes(Recursive)
	if err != nil {
		return nil, err
	}
	n := int64(0)
	for _, pid := range pids {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err == nil {
			n += int64(len(list))
		}
	}
	return &spec.FilesystemStats{FdUsage: &n}, nil
}
