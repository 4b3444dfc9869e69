package main

import (
	"math"

	"strake/container/cgroup"
)

// The form in which runc prints statistics (its types/events.go), which docker, containerd and
// monitoring agents read.

type statsData struct {
	CPU     cpuData                        `json:"cpu"`
	Memory  memoryData                     `json:"memory"`
	Pids    cgroup.PidsStats               `json:"pids"`
	IO      ioData                         `json:"blkio"`
	Hugetlb map[string]cgroup.HugetlbStats `json:"hugetlb"`
}

type cpuData struct {
	Usage struct {
		Total  uint64   `json:"total"`
		PerCPU []uint64 `json:"percpu,omitempty"`
		Kernel uint64   `json:"kernel"`
		User   uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods"`
		ThrottledPeriods uint64 `json:"throttledPeriods"`
		ThrottledTime    uint64 `json:"throttledTime"`
	} `json:"throttling"`
	PSI *cgroup.Pressure `json:"psi,omitempty"`
}

type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type memoryData struct {
	Cache uint64            `json:"cache,omitempty"`
	Usage memoryEntry       `json:"usage"`
	Swap  memoryEntry       `json:"swap"`
	Raw   map[string]uint64 `json:"raw,omitempty"`
	PSI   *cgroup.Pressure  `json:"psi,omitempty"`
}

type ioEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

type ioData struct {
	Bytes []ioEntry        `json:"ioServiceBytesRecursive,omitempty"`
	Count []ioEntry        `json:"ioServicedRecursive,omitempty"`
	PSI   *cgroup.Pressure `json:"psi,omitempty"`
}

func statsOf(s *cgroup.Stats) *statsData {
	out := &statsData{Pids: s.Pids, Hugetlb: s.Hugetlb, IO: ioData{PSI: s.IOPressure}}
	if out.Hugetlb == nil {
		out.Hugetlb = map[string]cgroup.HugetlbStats{}
	}
	u, t := &out.CPU.Usage, &out.CPU.Throttling
	u.Total, u.PerCPU = s.CPU.TotalNanos, s.CPU.PerCPUNanos
	u.Kernel, u.User = s.CPU.KernelNanos, s.CPU.UserNanos
	t.Periods, t.ThrottledPeriods = s.CPU.Periods, s.CPU.ThrottledPeriods
	t.ThrottledTime = s.CPU.ThrottledNanos
	out.CPU.PSI = s.CPU.Pressure
	m := &s.Memory
	cache, ok := m.Stat["cache"] // version 1
	if !ok {
		cache = m.Stat["file"]
	}
	out.Memory = memoryData{
		Cache: cache, Raw: m.Stat, PSI: m.Pressure,
		Usage: memoryEntry{Limit: m.Limit, Usage: m.Usage, Max: m.MaxUsage, Failcnt: m.Failcnt},
		// As version 1 counts it: memory and swap together.
		Swap: memoryEntry{Limit: m.SwapLimit, Usage: m.SwapUsage + m.Usage},
	}
	if l := &out.Memory.Swap.Limit; *l < math.MaxUint64-m.Limit {
		*l += m.Limit
	}
	for _, e := range s.IO {
		out.IO.Bytes = append(out.IO.Bytes, ioEntry{e.Major, e.Minor, e.Op, e.Bytes})
		out.IO.Count = append(out.IO.Count, ioEntry{e.Major, e.Minor, e.Op, e.Count})
	}
	return out
}
