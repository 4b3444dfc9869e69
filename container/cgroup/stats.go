package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"strake/internal/rawfile"
)

// Stats is one reading of a group. Times are totals in nanoseconds, sizes bytes. What a host lacks
// is zero.
type Stats struct {
	CPU    CPUStats    `json:"cpu"`
	Memory MemoryStats `json:"memory"`
	Pids   PidsStats   `json:"pids"`
	IO     []IOEntry   `json:"blkio,omitempty"`
	// Hugetlb is by page size as the kernel writes it: "2MB".
	Hugetlb map[string]HugetlbStats `json:"hugetlb,omitempty"`
	// IOPressure is nil where the kernel does not tell, as version 1 does not.
	IOPressure *Pressure `json:"ioPressure,omitempty"`
}

// HugetlbStats is the use of huge pages of one size, in bytes (hugetlb.rst).
type HugetlbStats struct {
	Usage    uint64 `json:"usage"`
	MaxUsage uint64 `json:"max"`
	Limit    uint64 `json:"limit"`
}

// Pressure is how much time was lost for want of a resource (accounting/psi.rst): by some of the
// processes, and by all at once.
type Pressure struct {
	Some Stall `json:"some"`
	Full Stall `json:"full"`
}

// Stall is shares of time in percent over the last 10, 60 and 300 seconds, and a total.
type Stall struct {
	Avg10       float64 `json:"avg10"`
	Avg60       float64 `json:"avg60"`
	Avg300      float64 `json:"avg300"`
	TotalMicros uint64  `json:"total"`
}

// CPUStats is processor time (cpuacct.rst, sched-bwc.rst).
type CPUStats struct {
	TotalNanos       uint64    `json:"total"`
	UserNanos        uint64    `json:"user"`
	KernelNanos      uint64    `json:"kernel"`
	PerCPUNanos      []uint64  `json:"percpu,omitempty"`
	Periods          uint64    `json:"periods"`
	ThrottledPeriods uint64    `json:"throttledPeriods"`
	ThrottledNanos   uint64    `json:"throttledTime"`
	Pressure         *Pressure `json:"psi,omitempty"`
}

// MemoryStats is memory use (memory.rst); Stat has the kernel's own names.
type MemoryStats struct {
	Usage    uint64            `json:"usage"`
	MaxUsage uint64            `json:"max"`
	Limit    uint64            `json:"limit"`
	Failcnt  uint64            `json:"failcnt"`
	Stat     map[string]uint64 `json:"raw,omitempty"`
	// Swap is separate from Usage, in both versions.
	SwapUsage uint64    `json:"swap"`
	SwapLimit uint64    `json:"swapLimit"`
	Pressure  *Pressure `json:"psi,omitempty"`
}

// PidsStats counts processes; Limit 0 is none.
type PidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"`
}

// IOEntry counts one kind of operation on one device.
type IOEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"` // "read", "write"
	Bytes uint64 `json:"bytes"`
	Count uint64 `json:"count"`
}

// read returns a file of the group, or nothing if the host does not have it.
func (g *Group) read(controller, file string) ([]byte, error) {
	mount, ok := g.host.mount(controller)
	if !ok {
		return nil, nil
	}
	raw, err := rawfile.Read(mount + g.path + "/" + file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, derr := os.Stat(mount + g.path); derr != nil {
			return nil, err
		}
		return nil, nil
	}
	return raw, err
}

func number(raw []byte) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	return n
}

// pairs reads lines of a name and a number.
func pairs(raw []byte) map[string]uint64 {
	out := map[string]uint64{}
	for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), " "); ok {
			out[name] = number([]byte(value))
		}
	}
	return out
}

// userTick is how long one tick of times shown to users is: USER_HZ is 100 on all architectures
// that Go knows.
const userTick = 10_000_000

// Stats reads the group's use of resources.
func (g *Group) Stats() (*Stats, error) {
	if g.host.Version() == 2 {
		return g.stats2()
	}
	s := new(Stats)
	var failed error
	read := func(controller, file string) []byte {
		raw, err := g.read(controller, file)
		if err != nil && failed == nil {
			failed = err
		}
		return raw
	}
	s.CPU.TotalNanos = number(read("cpuacct", "cpuacct.usage"))
	ticks := pairs(read("cpuacct", "cpuacct.stat"))
	s.CPU.UserNanos, s.CPU.KernelNanos = ticks["user"]*userTick, ticks["system"]*userTick
	for _, f := range strings.Fields(string(read("cpuacct", "cpuacct.usage_percpu"))) {
		s.CPU.PerCPUNanos = append(s.CPU.PerCPUNanos, number([]byte(f)))
	}
	throttle := pairs(read("cpu", "cpu.stat"))
	s.CPU.Periods, s.CPU.ThrottledPeriods = throttle["nr_periods"], throttle["nr_throttled"]
	s.CPU.ThrottledNanos = throttle["throttled_time"]
	s.Memory = MemoryStats{
		Usage:    number(read("memory", "memory.usage_in_bytes")),
		MaxUsage: number(read("memory", "memory.max_usage_in_bytes")),
		Limit:    number(read("memory", "memory.limit_in_bytes")),
		Failcnt:  number(read("memory", "memory.failcnt")),
		Stat:     pairs(read("memory", "memory.stat")),
	}
	s.Pids = PidsStats{
		Current: number(read("pids", "pids.current")), Limit: number(read("pids", "pids.max")),
	}
	s.IO = ioEntries(
		read("blkio", "blkio.throttle.io_service_bytes_recursive"),
		read("blkio", "blkio.throttle.io_serviced_recursive"),
	)
	if total, err := g.read("memory", "memory.memsw.usage_in_bytes"); err == nil && len(total) > 0 {
		s.Memory.SwapUsage = max(number(total), s.Memory.Usage) - s.Memory.Usage
	}
	if mount, ok := g.host.mount("hugetlb"); ok {
		s.Hugetlb = hugetlbStats(
			mount+g.path, ".usage_in_bytes", ".limit_in_bytes", ".max_usage_in_bytes",
		)
	}
	return s, failed
}

// hugetlbStats reads files such as hugetlb.2MB.current, for every page size.
func hugetlbStats(dir, usage, limitFile, peak string) map[string]HugetlbStats {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out map[string]HugetlbStats
	for _, e := range entries {
		size, ok := strings.CutPrefix(e.Name(), "hugetlb.")
		if !ok {
			continue
		}
		if size, ok = strings.CutSuffix(size, usage); !ok || strings.Contains(size, ".") {
			continue
		}
		read := func(what string) []byte {
			raw, _ := rawfile.Read(dir + "/hugetlb." + size + what)
			return raw
		}
		if out == nil {
			out = map[string]HugetlbStats{}
		}
		out[size] = HugetlbStats{
			Usage: number(read(usage)), MaxUsage: number(read(peak)), Limit: limit(read(limitFile)),
		}
	}
	return out
}

func decimal(s string) float64 {
	v, _ := strconv.ParseFloat(s, 64)
	return v
}

// ioEntries joins the two files that count bytes and operations, lines of "8:0 Read 4096".
func ioEntries(bytesFile, countFile []byte) (list []IOEntry) {
	at := map[string]int{}
	for i, raw := range [][]byte{bytesFile, countFile} {
		for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
			f := strings.Fields(s.Text())
			if len(f) != 3 || f[1] != "Read" && f[1] != "Write" {
				continue
			}
			key := f[0] + f[1]
			k, ok := at[key]
			if !ok {
				major, minor, _ := strings.Cut(f[0], ":")
				k = len(list)
				at[key] = k
				list = append(
					list,
					IOEntry{
						Major: number([]byte(major)), Minor: number([]byte(minor)),
						Op: strings.ToLower(f[1]),
					},
				)
			}
			if i == 0 {
				list[k].Bytes = number([]byte(f[2]))
			} else {
				list[k].Count = number([]byte(f[2]))
			}
		}
	}
	return list
}

// OOMCount is how often the kernel ended a process of the group for want of memory.
func (g *Group) OOMCount() (int, error) {
	if g.host.Version() == 2 {
		raw, err := rawfile.Read(g.host.unified() + g.path + "/memory.events")
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil // no memory controller, so none of its own
		}
		return int(pairs(raw)["oom_kill"]), err
	}
	raw, err := g.read("memory", "memory.oom_control")
	return int(pairs(raw)["oom_kill"]), err
}
