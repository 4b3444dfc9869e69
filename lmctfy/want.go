package lmctfy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/lmctfy/spec"
)

// Unenforced is a field of a specification that this host cannot enforce. It is recorded all the
// same.
type Unenforced struct {
	Field string // as "memory.dirty.ratio"
	Why   string
}

func (u Unenforced) String() string { return u.Field + ": not enforced: " + u.Why }

// features are what the pure part knows of a host.
type features struct {
	version int
	// has says whether a file exists in the group of a container, in the tree of a controller by
	// its name in version 1.
	has func(controller, file string) bool
	// above are the processors that a container without a mask gets, as a list of the kernel, or ""
	// if it has them.
	above string
}

// set is a value for a file that container/cgroup has no field for.
type set struct {
	controller string // by its name in version 1
	file       string
	value      string
	field      string
}

// want is what a specification means for the groups of one container. It is pure.
type want struct {
	at         features
	resources  map[string]*specs.LinuxResources // by the version 1 controller in whose tree they go
	files      []set
	unenforced []Unenforced
}

// Values of the kernel, and of lmctfy.
const (
	sharesPerCPU    = 1024
	minShares       = 2
	maxShares       = 262144
	periodMicros    = 250000 // of throttling
	defaultPriority = 5000   // of eviction
)

// wanted turns a whole specification into writes. Everything that the specification's resources
// leave out gets its default, so that the same function serves creation and update. old is the
// specification before an update, or nil.
func wanted(s, old *spec.ContainerSpec, at features) *want {
	w := &want{at: at, resources: map[string]*specs.LinuxResources{}}
	if s.Cpu != nil {
		w.cpu(s)
	}
	if s.Memory != nil {
		w.memory(s.Memory)
	}
	if s.Device != nil {
		w.devices(s.Device)
	}
	if s.Blockio != nil {
		w.blockIO(s.Blockio, old.GetBlockio())
	}
	if s.Filesystem != nil && s.Filesystem.FdLimit != nil {
		w.lack("filesystem.fd_limit", "no version of Linux limits the descriptors of a group")
	}
	if s.Monitoring.GetEnablePerfCounters() {
		w.lack("monitoring.enable_perf_counters", "lmctfy never did it either")
	}
	return w
}

func (w *want) lack(field, why string) {
	w.unenforced = append(w.unenforced, Unenforced{Field: field, Why: why})
}

// file adds a value for the file that the version of this host has.
func (w *want) file(controller, one, two, value, field string) {
	name := one
	if w.at.version == 2 {
		name = two
	}
	w.files = append(w.files, set{controller: controller, file: name, value: value, field: field})
}

func ptr[T any](v T) *T { return &v }

// shares are the weight of an amount of processors in milliseconds a second.
func shares(limit uint64) uint64 {
	return min(max(limit*sharesPerCPU/1000, minShares), maxShares)
}

// cpu turns the class of latency into what kernels have today: BEST_EFFORT into cpu.idle, NORMAL
// into the place in /batch (version 1) or the least weight (version 2), PREMIER into a clamp of the
// least processor performance (cgroup-v2.rst, cpu.uclamp.min).
func (w *want) cpu(s *spec.ContainerSpec) {
	c, latency := s.Cpu, spec.Latency(s)
	cpu := &specs.LinuxCPU{
		Shares: ptr(uint64(sharesPerCPU)), Quota: ptr(int64(-1)), Period: ptr(uint64(periodMicros)),
	}
	w.resources["cpu"] = &specs.LinuxResources{CPU: cpu}
	if c.Limit != nil {
		cpu.Shares = ptr(shares(*c.Limit))
	}
	if c.MaxLimit != nil {
		cpu.Quota = ptr(int64(*c.MaxLimit) * periodMicros / 1000)
	}
	const class = "cpu.scheduling_latency"
	switch {
	case latency == spec.SchedulingLatency_BEST_EFFORT && w.at.has("cpu", "cpu.idle"):
		cpu.Idle, cpu.Shares = ptr(int64(1)), nil
		if c.Limit != nil {
			w.lack("cpu.limit", "a container of class BEST_EFFORT has no share of its own")
		}
	case latency == spec.SchedulingLatency_BEST_EFFORT:
		cpu.Shares = ptr(uint64(minShares))
		w.lack(class, "BEST_EFFORT: this kernel has no cpu.idle; the least weight replaces it")
	case latency == spec.SchedulingLatency_NORMAL && w.at.version == 2:
		cpu.Shares = ptr(uint64(minShares))
		if c.Limit != nil {
			w.lack("cpu.limit", "a container of class NORMAL has the least weight on version 2")
		}
	case latency == spec.SchedulingLatency_PREMIER && w.at.has("cpu", "cpu.uclamp.min"):
		w.file("cpu", "cpu.uclamp.min", "cpu.uclamp.min", "max", class)
	case latency == spec.SchedulingLatency_PREMIER:
		w.lack(class, "PREMIER: this kernel has no cpu.uclamp.min; the container runs as PRIORITY")
	}
	switch {
	case c.Mask != nil:
		w.resources["cpuset"] = &specs.LinuxResources{
			CPU: &specs.LinuxCPU{Cpus: processors(c.Mask.Data)},
		}
	case w.at.above != "":
		w.file("cpuset", "cpuset.cpus", "cpuset.cpus", w.at.above, "cpu.mask")
	}
}

// processors is a bitmap as a list of the kernel, "0-3,8" (cpuset(7)).
func processors(mask []uint64) string {
	var list []string
	for i := 0; i < 64*len(mask); i++ {
		if !bit(mask, i) {
			continue
		}
		first := i
		for bit(mask, i+1) {
			i++
		}
		item := strconv.Itoa(first)
		if i > first {
			item += "-" + strconv.Itoa(i)
		}
		list = append(list, item)
	}
	return strings.Join(list, ",")
}

func bit(mask []uint64, i int) bool {
	return i/64 < len(mask) && mask[i/64]&(1<<(i%64)) != 0
}

// orNone is the value of a field, or -1 for no limit.
func orNone(v *int64) int64 {
	if v == nil {
		return -1
	}
	return *v
}

func (w *want) memory(m *spec.MemorySpec) {
	hard := orNone(m.Limit)
	if m.GetMaxLimit() > 0 {
		if w.at.version == 2 {
			w.file("memory", "", "memory.high", strconv.FormatInt(hard, 10), "memory.limit")
			hard = *m.MaxLimit
		} else {
			w.lack("memory.max_limit", "version 1 of control groups has one limit, memory.limit")
		}
	}
	res := &specs.LinuxMemory{Limit: &hard, Swap: ptr(orNone(m.SwapLimit))}
	if m.SwapLimit != nil && !w.at.has("memory", swapFile(w.at.version)) {
		w.lack("memory.swap_limit", "this kernel does not account for swap")
		res.Swap = nil
	}
	if res.Swap != nil && *res.Swap < 0 && !w.at.has("memory", swapFile(w.at.version)) {
		res.Swap = nil
	}
	w.resources["memory"] = &specs.LinuxResources{Memory: res}
	w.file(
		"memory", "memory.soft_limit_in_bytes", "memory.low",
		strconv.FormatInt(m.GetReservation(), 10), "memory.reservation",
	)
	w.patched(m)
}

func swapFile(version int) string {
	if version == 2 {
		return "memory.swap.max"
	}
	return "memory.memsw.limit_in_bytes"
}

// patched is what the original had patches of the kernel for. A kernel that has the file gets the
// value.
func (w *want) patched(m *spec.MemorySpec) {
	for _, f := range []struct {
		set         bool
		value       int64
		field, file string
	}{
		{
			m.CompressionSamplingRatio != nil, int64(m.GetCompressionSamplingRatio()),
			"compression_sampling_ratio", "memory.compression_sampling_ratio",
		},
		{
			m.StalePageAge != nil, int64(m.GetStalePageAge()), "stale_page_age",
			"memory.stale_page_age",
		},
		{
			m.Dirty.GetRatio() != 0, int64(m.Dirty.GetRatio()), "dirty.ratio",
			"memory.dirty_ratio",
		},
		{
			m.Dirty.GetBackgroundRatio() != 0, int64(m.Dirty.GetBackgroundRatio()),
			"dirty.background_ratio", "memory.dirty_background_ratio",
		},
		{
			m.Dirty.GetLimit() != 0, int64(m.Dirty.GetLimit()), "dirty.limit",
			"memory.dirty_limit_in_bytes",
		},
		{
			m.Dirty.GetBackgroundLimit() != 0, int64(m.Dirty.GetBackgroundLimit()),
			"dirty.background_limit", "memory.dirty_background_limit_in_bytes",
		},
		{
			m.KmemChargeUsage != nil, 0, "kmem_charge_usage", "memory.kmem_charge_usage",
		},
	} {
		switch {
		case !f.set:
		case w.at.version == 1 && f.field != "kmem_charge_usage" && w.at.has("memory", f.file):
			w.file("memory", f.file, f.file, strconv.FormatInt(f.value, 10), "memory."+f.field)
		default:
			w.lack("memory."+f.field, "this kernel has no "+f.file)
		}
	}
	if m.HugetlbfsPath != nil {
		w.lack("memory.hugetlbfs_path", "lmctfy never did it either")
	}
	if m.Tmpfs != nil {
		w.lack("memory.tmpfs", "lmctfy never did it either")
	}
}

// devices begins with everything, because a container inherits what the one above may use, and
// because an update replaces the rules before.
func (w *want) devices(d *spec.DeviceSpec) {
	rules := []specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rwm"}}
	for _, r := range d.GetRestrictionsSet().GetRestrictions() {
		rule := specs.LinuxDeviceCgroup{
			Allow: r.GetPermission() == spec.DeviceSpec_ALLOW, Major: r.Major, Minor: r.Minor,
		}
		switch r.GetType() {
		case spec.DeviceSpec_DEVICE_ALL:
			rule.Type, rule.Access = "a", "rwm"
		case spec.DeviceSpec_DEVICE_BLOCK:
			rule.Type, rule.Access = "b", accessOf(r.Access)
		default:
			rule.Type, rule.Access = "c", accessOf(r.Access)
		}
		rules = append(rules, rule)
	}
	w.resources["devices"] = &specs.LinuxResources{Devices: rules}
}

// accesses are the kinds of access with the kernel's letters.
var accesses = []struct {
	is     spec.DeviceSpec_DeviceAccess
	letter string
}{
	{spec.DeviceSpec_READ, "r"}, {spec.DeviceSpec_WRITE, "w"}, {spec.DeviceSpec_MKNOD, "m"},
}

func accessOf(list []spec.DeviceSpec_DeviceAccess) (access string) {
	for _, a := range accesses {
		if slices.Contains(list, a.is) {
			access += a.letter
		}
	}
	return access
}

// rates are the limits of one kind of operation by device.
type rates map[[2]int64]uint64

func ratesOf(
	b *spec.BlockIoSpec, op spec.BlockIoSpec_OpType, kind spec.BlockIoSpec_LimitType,
) rates {
	out := rates{}
	for _, m := range b.GetMaxDeviceLimitSet().GetMaxLimits() {
		if m.GetOpType() != op || m.GetLimitType() != kind {
			continue
		}
		for _, l := range m.Limits {
			out[[2]int64{l.Device.GetMajor(), l.Device.GetMinor()}] = l.GetLimit()
		}
	}
	return out
}

func (w *want) blockIO(b, old *spec.BlockIoSpec) {
	out := &specs.LinuxBlockIO{}
	weights := w.at.has("blkio", "blkio.bfq.weight") || w.at.has("blkio", "blkio.weight")
	if w.at.version == 2 {
		weights = w.at.has("blkio", "io.weight") || w.at.has("blkio", "io.bfq.weight")
	}
	set := b.GetDeviceLimitSet()
	switch {
	case weights && set != nil:
		if set.DefaultLimit != nil {
			out.Weight = ptr(uint16(*set.DefaultLimit * 10))
		}
		for _, l := range set.DeviceLimits {
			d := specs.LinuxWeightDevice{Weight: ptr(uint16(l.GetLimit() * 10))}
			d.Major, d.Minor = l.Device.GetMajor(), l.Device.GetMinor()
			out.WeightDevice = append(out.WeightDevice, d)
		}
	case set != nil:
		w.lack("blockio.device_limit_set", "no scheduler of this kernel weighs groups (bfq does)")
	}
	for _, f := range []struct {
		to   *[]specs.LinuxThrottleDevice
		op   spec.BlockIoSpec_OpType
		kind spec.BlockIoSpec_LimitType
	}{
		{&out.ThrottleReadBpsDevice, spec.BlockIoSpec_READ, spec.BlockIoSpec_BYTES_PER_SECOND},
		{&out.ThrottleWriteBpsDevice, spec.BlockIoSpec_WRITE, spec.BlockIoSpec_BYTES_PER_SECOND},
		{&out.ThrottleReadIOPSDevice, spec.BlockIoSpec_READ, spec.BlockIoSpec_IO_PER_SECOND},
		{&out.ThrottleWriteIOPSDevice, spec.BlockIoSpec_WRITE, spec.BlockIoSpec_IO_PER_SECOND},
	} {
		now := ratesOf(b, f.op, f.kind)
		for device := range ratesOf(old, f.op, f.kind) {
			if _, kept := now[device]; !kept {
				now[device] = 0 // no limit
			}
		}
		for device, rate := range now {
			d := specs.LinuxThrottleDevice{Rate: rate}
			d.Major, d.Minor = device[0], device[1]
			*f.to = append(*f.to, d)
		}
	}
	w.resources["blkio"] = &specs.LinuxResources{BlockIO: out}
}

// missing is the error for a resource whose controller is not mounted.
func missing(r spec.Resource, controller string) error {
	return fmt.Errorf(
		"%s: this host has no control groups of the controller %q: %w", r, controller,
		errdefs.ErrFailedPrecondition,
	)
}
