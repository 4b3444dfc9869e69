package cgroup

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// write is one value for one file of the group.
type write struct {
	field, controller, file, value string
	// optional writes may be refused: the kernel was built without the file, or the value is a hint.
	optional bool
}

// writesOf turns what a configuration wants (runtime-spec config-linux.md, Control groups) into writes, in the order in which the kernel
// takes them.
func writesOf(res *specs.LinuxResources) (list []write, err error) {
	if res == nil {
		return nil, nil
	}
	bad := func(field, format string, args ...any) {
		if err == nil {
			err = fmt.Errorf("linux.resources.%s: %s: %w", field, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
		}
	}
	add := func(field, controller, file, value string) {
		list = append(list, write{field: "linux.resources." + field, controller: controller, file: controller + "." + file, value: value})
	}
	num := func(field, controller, file string, v *int64) {
		if v != nil && *v != 0 {
			add(field, controller, file, strconv.FormatInt(*v, 10))
		}
	}
	unum := func(field, controller, file string, v *uint64) {
		if v != nil && *v != 0 {
			add(field, controller, file, strconv.FormatUint(*v, 10))
		}
	}
	for i, d := range res.Devices {
		value, ok := deviceRule(&d)
		if !ok {
			bad(fmt.Sprintf("devices[%d]", i), "type %q, access %q: want a, b or c, and some of rwm", d.Type, d.Access)
			continue
		}
		file := "deny"
		if d.Allow {
			file = "allow"
		}
		add(fmt.Sprintf("devices[%d]", i), "devices", file, value)
	}
	if m := res.Memory; m != nil {
		if m.Limit != nil && *m.Limit < -1 || m.Swap != nil && *m.Swap < -1 {
			bad("memory", "a negative limit other than -1")
		}
		num("memory.limit", "memory", "limit_in_bytes", m.Limit)
		if m.Swap != nil && *m.Swap != 0 {
			add("memory.swap", "memory", "memsw.limit_in_bytes", strconv.FormatInt(*m.Swap, 10))
			list[len(list)-1].optional = true // kernels without swap accounting have no such file
		}
		num("memory.reservation", "memory", "soft_limit_in_bytes", m.Reservation)
		if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
			add("memory.disableOOMKiller", "memory", "oom_control", "1")
		}
		if m.Swappiness != nil {
			if *m.Swappiness > 100 {
				bad("memory.swappiness", "%d, want 0 to 100", *m.Swappiness)
			}
			add("memory.swappiness", "memory", "swappiness", strconv.FormatUint(*m.Swappiness, 10))
			list[len(list)-1].optional = true
		}
	}
	if c := res.CPU; c != nil {
		if c.Cpus != "" {
			add("cpu.cpus", "cpuset", "cpus", c.Cpus)
		}
		if c.Mems != "" {
			add("cpu.mems", "cpuset", "mems", c.Mems)
		}
		unum("cpu.shares", "cpu", "shares", c.Shares)
		unum("cpu.realtimePeriod", "cpu", "rt_period_us", c.RealtimePeriod)
		num("cpu.realtimeRuntime", "cpu", "rt_runtime_us", c.RealtimeRuntime)
		unum("cpu.period", "cpu", "cfs_period_us", c.Period)
		num("cpu.quota", "cpu", "cfs_quota_us", c.Quota)
		if c.Burst != nil {
			add("cpu.burst", "cpu", "cfs_burst_us", strconv.FormatUint(*c.Burst, 10))
		}
		if c.Idle != nil {
			add("cpu.idle", "cpu", "idle", strconv.FormatInt(*c.Idle, 10))
		}
	}
	if p := res.Pids; p != nil && p.Limit != nil && *p.Limit != 0 {
		value := "max"
		if *p.Limit > 0 {
			value = strconv.FormatInt(*p.Limit, 10)
		}
		add("pids.limit", "pids", "max", value)
	}
	list = append(list, blockIO(res.BlockIO)...)
	for i, h := range res.HugepageLimits {
		add(fmt.Sprintf("hugepageLimits[%d]", i), "hugetlb", h.Pagesize+".limit_in_bytes", strconv.FormatUint(h.Limit, 10))
	}
	if n := res.Network; n != nil {
		if n.ClassID != nil {
			add("network.classID", "net_cls", "classid", strconv.FormatUint(uint64(*n.ClassID), 10))
		}
		for i, p := range n.Priorities {
			add(fmt.Sprintf("network.priorities[%d]", i), "net_prio", "ifpriomap", p.Name+" "+strconv.FormatUint(uint64(p.Priority), 10))
		}
	}
	for name, r := range res.Rdma {
		value := name
		if r.HcaHandles != nil {
			value += fmt.Sprintf(" hca_handle=%d", *r.HcaHandles)
		}
		if r.HcaObjects != nil {
			value += fmt.Sprintf(" hca_object=%d", *r.HcaObjects)
		}
		add("rdma."+name, "rdma", "max", value)
	}
	for key := range res.Unified {
		bad("unified."+key, "this host's controllers are version 1; the unified map is for version 2")
	}
	return list, err
}

// deviceRule is a rule in the words of devices.allow and devices.deny (devices.rst).
func deviceRule(d *specs.LinuxDeviceCgroup) (string, bool) {
	kind, access := d.Type, d.Access
	if kind == "" {
		kind = "a"
	}
	if access == "" {
		access = "rwm"
	}
	if kind != "a" && kind != "b" && kind != "c" || strings.Trim(access, "rwm") != "" {
		return "", false
	}
	n := func(v *int64) string {
		if v == nil || *v < 0 {
			return "*"
		}
		return strconv.FormatInt(*v, 10)
	}
	return kind + " " + n(d.Major) + ":" + n(d.Minor) + " " + access, true
}

func blockIO(b *specs.LinuxBlockIO) (list []write) {
	if b == nil {
		return nil
	}
	add := func(field, file, value string, optional bool) {
		list = append(list, write{field: "linux.resources.blockIO." + field, controller: "blkio", file: "blkio." + file, value: value, optional: optional})
	}
	// Weights need the BFQ scheduler: a host without it has nothing to weigh.
	if b.Weight != nil && *b.Weight != 0 {
		add("weight", "bfq.weight", strconv.Itoa(int(*b.Weight)), true)
	}
	for i, d := range b.WeightDevice {
		if d.Weight != nil {
			add(fmt.Sprintf("weightDevice[%d]", i), "bfq.weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight), true)
		}
	}
	for _, t := range []struct {
		field, file string
		list        []specs.LinuxThrottleDevice
	}{
		{"throttleReadBpsDevice", "throttle.read_bps_device", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", "throttle.write_bps_device", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "throttle.read_iops_device", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", "throttle.write_iops_device", b.ThrottleWriteIOPSDevice},
	} {
		for i, d := range t.list {
			add(fmt.Sprintf("%s[%d]", t.field, i), t.file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate), false)
		}
	}
	return list
}
