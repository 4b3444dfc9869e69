package lmctfy

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"strake/container/cgroup"
	"strake/lmctfy/name"
	"strake/lmctfy/spec"
)

// Spec is the container's specification as the kernel enforces it: what the kernel holds is read
// from there, and what it does not hold is as it was recorded. What this host does not enforce is
// returned beside it. Of a group that another program made it is what the kernel holds.
func (c *Container) Spec() (*spec.ContainerSpec, []Unenforced, error) {
	isolated, record, err := c.isolated()
	if err != nil {
		return nil, nil, err
	}
	out := new(spec.ContainerSpec)
	var notes []Unenforced
	if record != nil {
		out = proto.CloneOf(record)
		notes = wanted(record, nil, c.kernel().features()).unenforced
	}
	if has(isolated, spec.CPU) {
		c.kernel().describeCPU(out)
	}
	if has(isolated, spec.Memory) {
		c.kernel().describeMemory(out)
	}
	if has(isolated, spec.Device) && record == nil {
		out.Device = c.kernel().describeDevices()
	}
	if has(isolated, spec.BlockIO) && out.Blockio == nil {
		out.Blockio = new(spec.BlockIoSpec)
	}
	return out, notes, nil
}

// values reads what the kernel holds for a container.
type values Container

func (c *Container) kernel() *values { return (*values)(c) }

// features are those of the container's groups.
func (c *values) features() features {
	return features{version: c.m.host.Version(), has: func(controller, file string) bool {
		_, ok := c.file(controller, file)
		return ok
	}}
}

// file reads a file of the container's group in the tree of a controller by its name in version 1.
func (c *values) file(controller, file string) (string, bool) {
	t := c.m.of(controller)
	if t == nil {
		return "", false
	}
	p, _, isolated := c.m.find(t, c.name)
	if !isolated && c.name != name.Root {
		return "", false
	}
	g, err := t.at(p)
	if err != nil {
		return "", false
	}
	value, err := g.File(file)
	return value, err == nil
}

// number reads a file with one number, "max" and what stands for it on version 1 as -1.
func (c *values) number(controller, one, two string) (int64, bool) {
	file := one
	if c.m.host.Version() == 2 {
		file = two
	}
	text, ok := c.file(controller, file)
	if !ok {
		return 0, false
	}
	return limitOf(text)
}

// unlimited is the least number that is no limit on version 1 (memory.rst): the largest number of
// pages in bytes, for pages of up to 64 KiB.
const unlimited = 1<<63 - 1<<16

func limitOf(text string) (int64, bool) {
	text, _, _ = strings.Cut(text, " ")
	if text == "max" {
		return -1, true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if n >= unlimited {
		n = -1
	}
	return n, err == nil
}

// describeCPU keeps a recorded value that the kernel's agrees with, because the kernel rounds its
// own.
func (c *values) describeCPU(out *spec.ContainerSpec) {
	if out.Cpu == nil {
		out.Cpu = new(spec.CpuSpec)
	}
	cpu := out.Cpu
	c.describeWeight(cpu, spec.Latency(out))
	if quota, period, ok := c.bandwidth(); ok {
		switch {
		case quota < 0:
			cpu.MaxLimit = nil
		case cpu.MaxLimit == nil || int64(*cpu.MaxLimit)*period/1000 != quota:
			cpu.MaxLimit = ptr(uint64(quota * 1000 / period))
		}
	}
	list, ok := c.file("cpuset", "cpuset.cpus")
	if ok && list == "" && c.m.host.Version() == 2 {
		list, ok = c.file("cpuset", "cpuset.cpus.effective")
	}
	if !ok || list == "" {
		return
	}
	if mask, err := maskOf(list); err == nil {
		cpu.Mask = &spec.CpuSpec_Mask{Data: mask}
	}
}

func (c *values) describeWeight(cpu *spec.CpuSpec, latency spec.SchedulingLatency) {
	if c.m.host.Version() == 2 {
		text, ok := c.file("cpu", "cpu.weight")
		weight, err := strconv.ParseUint(text, 10, 64)
		if !ok || err != nil || batchLatency(latency) {
			return
		}
		if cpu.Limit == nil || cgroup.WeightOf(shares(*cpu.Limit)) != weight {
			cpu.Limit = ptr(milliOfWeight(weight))
		}
		return
	}
	text, ok := c.file("cpu", "cpu.shares")
	now, err := strconv.ParseUint(text, 10, 64)
	if !ok || err != nil || latency == spec.SchedulingLatency_BEST_EFFORT {
		return
	}
	if cpu.Limit == nil || shares(*cpu.Limit) != now {
		cpu.Limit = ptr(now * 1000 / sharesPerCPU)
	}
}

func batchLatency(l spec.SchedulingLatency) bool {
	return l == spec.SchedulingLatency_BEST_EFFORT || l == spec.SchedulingLatency_NORMAL
}

// milliOfWeight is the least amount of processors that has a weight on version 2, to 10
// milliseconds, and one processor for the weight that a group has at first.
func milliOfWeight(weight uint64) (milli uint64) {
	if weight == cgroup.WeightOf(sharesPerCPU) {
		return 1000
	}
	low, high := uint64(0), uint64(maxShares*1000/sharesPerCPU)
	for low < high {
		mid := (low + high) / 2
		if cgroup.WeightOf(shares(mid)) >= weight {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return (low + 9) / 10 * 10
}

// bandwidth is the quota and the period of throttling in microseconds; a quota of -1 is no limit.
func (c *values) bandwidth() (quota, period int64, ok bool) {
	if c.m.host.Version() == 2 {
		text, ok := c.file("cpu", "cpu.max")
		first, second, _ := strings.Cut(text, " ")
		quota, ok1 := limitOf(first)
		period, ok2 := limitOf(second)
		return quota, period, ok && ok1 && ok2 && period > 0
	}
	quota, ok1 := c.number("cpu", "cpu.cfs_quota_us", "")
	period, ok2 := c.number("cpu", "cpu.cfs_period_us", "")
	return quota, period, ok1 && ok2 && period > 0
}

// maskOf is a list of the kernel ("0-3,8") as a bitmap.
func maskOf(list string) (mask []uint64, err error) {
	for item := range strings.SplitSeq(list, ",") {
		from, to, ranged := strings.Cut(item, "-")
		if !ranged {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 13)
		last, err2 := strconv.ParseUint(to, 10, 13)
		if err1 != nil || err2 != nil || last < first {
			return nil, fmt.Errorf("list of processors %q", list)
		}
		for i := first; i <= last; i++ {
			for uint64(len(mask)) <= i/64 {
				mask = append(mask, 0)
			}
			mask[i/64] |= 1 << (i % 64)
		}
	}
	return mask, nil
}

func (c *values) describeMemory(out *spec.ContainerSpec) {
	if out.Memory == nil {
		out.Memory = new(spec.MemorySpec)
	}
	m := out.Memory
	hard, ok := c.number("memory", "memory.limit_in_bytes", "memory.max")
	if soft, has := c.number("memory", "", "memory.high"); has && m.MaxLimit != nil {
		// With max_limit, limit slows the container down before.
		m.MaxLimit, m.Limit = &hard, &soft
	} else if ok {
		m.Limit = agree(m.Limit, hard)
	}
	if low, ok := c.number("memory", "memory.soft_limit_in_bytes", "memory.low"); ok {
		m.Reservation = agree(m.Reservation, max(low, 0))
	}
	if c.m.host.Version() == 2 {
		if swap, ok := c.number("memory", "", "memory.swap.max"); ok && swap >= 0 && hard >= 0 {
			m.SwapLimit = agree(m.SwapLimit, hard+swap)
		}
	} else if sum, ok := c.number("memory", "memory.memsw.limit_in_bytes", ""); ok {
		m.SwapLimit = agree(m.SwapLimit, sum)
	}
	if m.EvictionPriority == nil {
		m.EvictionPriority = ptr(int32(defaultPriority))
	}
}

// page is the size that the kernel rounds limits of memory to, at most.
const page = 1 << 16

// agree is the recorded value if the kernel's is the same but for rounding, else the kernel's.
func agree(recorded *int64, kernel int64) *int64 {
	if recorded != nil && *recorded > 0 && kernel > 0 && *recorded-kernel < page &&
		kernel-*recorded < page {
		return recorded
	}
	return &kernel
}

// describeDevices reads the rules of version 1; the programs of version 2 cannot be read back.
func (c *values) describeDevices() *spec.DeviceSpec {
	out := &spec.DeviceSpec{RestrictionsSet: new(spec.DeviceSpec_DeviceRestrictionsSet)}
	text, ok := c.file("devices", "devices.list")
	if !ok {
		return out
	}
	set := out.RestrictionsSet
	if strings.HasPrefix(text, "a ") {
		return out // everything that the container above may use
	}
	set.Restrictions = append(set.Restrictions, &spec.DeviceSpec_DeviceRestrictions{
		Permission: spec.DeviceSpec_DENY.Enum(), Type: spec.DeviceSpec_DEVICE_ALL.Enum(),
	})
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		r := &spec.DeviceSpec_DeviceRestrictions{
			Permission: spec.DeviceSpec_ALLOW.Enum(), Type: spec.DeviceSpec_DEVICE_CHAR.Enum(),
		}
		if f[0] == "b" {
			r.Type = spec.DeviceSpec_DEVICE_BLOCK.Enum()
		}
		major, minor, _ := strings.Cut(f[1], ":")
		if n, err := strconv.ParseInt(major, 10, 64); err == nil {
			r.Major = &n
		}
		if n, err := strconv.ParseInt(minor, 10, 64); err == nil {
			r.Minor = &n
		}
		for _, a := range accesses {
			if strings.Contains(f[2], a.letter) {
				r.Access = append(r.Access, a.is)
			}
		}
		set.Restrictions = append(set.Restrictions, r)
	}
	return out
}
