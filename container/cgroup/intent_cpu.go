package cgroup

import (
	"math"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Bounds of the kernel's bandwidth control (kernel/sched/core.c, tg_set_cfs_bandwidth;
// sched-bwc.rst), in microseconds.
const (
	minQuotaMicros  = 1000
	minPeriodMicros = 1000
	maxPeriodMicros = 1000000
)

// Bounds of cpu.shares (kernel/sched/sched.h, MIN_SHARES and MAX_SHARES).
const (
	minShares = 2
	maxShares = 262144
)

// weightOf is the cgroup2 weight (1 to 10000, default 100) for shares of version 1 (2 to 262144,
// default 1024): the quadratic through these three points on logarithmic scales that runc, crun and
// Kubernetes have agreed on in 2025.
func weightOf(shares uint64) uint64 {
	switch {
	case shares <= minShares:
		return 1
	case shares >= maxShares:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// cpu follows sched-bwc.rst, sched-rt-group.rst and cgroup-v2.rst, "CPU Interface Files". 0 means
// not set, except for burst and idle.
func (p *planner) cpu(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	u := func(v uint64) string { return strconv.FormatUint(v, 10) }
	quota, period, shares := value(c.Quota), value(c.Period), value(c.Shares)
	if period != 0 && (period < minPeriodMicros || period > maxPeriodMicros) {
		p.invalid("cpu.period", u(period), "1000 to 1000000 microseconds")
	}
	if quota > 0 && quota < minQuotaMicros {
		p.invalid("cpu.quota", itoa(quota), "at least 1000 microseconds, or -1 for no limit")
	}
	if c.Idle != nil && *c.Idle != 0 && *c.Idle != 1 {
		p.invalid("cpu.idle", itoa(*c.Idle), "0 or 1")
	}
	quota = max(quota, -1)
	if quota < 0 && (p.cur.fresh || p.at.version("cpu") == 0) &&
		(period == 0 || p.at.version("cpu") != 2) {
		quota = 0
	}
	idle := func() {
		if c.Idle == nil || *c.Idle == 0 && (p.cur.fresh || p.at.version("cpu") == 0) {
			return
		}
		g := itoa(*c.Idle)
		p.put(
			p.need("cpu", "cpu.idle", g), "cpu",
			write{file: "cpu.idle", value: g, field: field + "cpu.idle", given: g},
		)
	}
	// An idle group has no weight that could be set: it stops being idle before, and becomes idle
	// after.
	if value(c.Idle) == 0 {
		idle()
	}
	if shares != 0 {
		g := u(shares)
		w := write{file: "cpu.shares", value: g, field: field + "cpu.shares", given: g}
		v := p.need("cpu", "cpu.shares", g)
		switch {
		case v == 2:
			w.file, w.value = "cpu.weight", u(weightOf(shares))
		case shares < minShares || shares > maxShares:
			p.invalid("cpu.shares", g, "2 to 262144")
		}
		p.put(v, "cpu", w)
	}
	if value(c.Idle) == 1 {
		idle()
	}
	p.bandwidth(quota, period, c.Burst)
	p.realtime(value(c.RealtimeRuntime), value(c.RealtimePeriod))
}

func (p *planner) bandwidth(quota int64, period uint64, burst *uint64) {
	name, given := "cpu.quota", itoa(quota)
	if quota == 0 {
		name, given = "cpu.period", strconv.FormatUint(period, 10)
	}
	if quota != 0 || period != 0 {
		switch p.need("cpu", name, given) {
		case 1:
			if period != 0 {
				s := strconv.FormatUint(period, 10)
				p.put(
					1, "cpu",
					write{
						file: "cpu.cfs_period_us", value: s, field: field + "cpu.period", given: s,
						knot: "bandwidth",
					},
				)
			}
			if quota != 0 {
				p.put(
					1, "cpu",
					write{
						file: "cpu.cfs_quota_us", value: itoa(quota), field: field + "cpu.quota",
						given: itoa(quota), knot: "bandwidth",
					},
				)
			}
		case 2:
			// One number alone leaves the period as it is; a period needs a quota before it.
			v := limit2(quota)
			if quota == 0 {
				if v = p.cur.cpuMax; v == "" {
					v = "max"
				}
			}
			if period != 0 {
				v += " " + strconv.FormatUint(period, 10)
			}
			p.put(
				2, "cpu",
				write{
					file: "cpu.max", value: v, field: field + name, given: given, knot: "bandwidth",
				},
			)
		}
	}
	if burst == nil || *burst == 0 && (p.cur.fresh || p.at.version("cpu") == 0) {
		return
	}
	s := strconv.FormatUint(*burst, 10)
	w := write{
		file: "cpu.cfs_burst_us", value: s, field: field + "cpu.burst", given: s, knot: "bandwidth",
		optional: *burst == 0,
	}
	v := p.need("cpu", "cpu.burst", s)
	if v == 2 {
		w.file = "cpu.max.burst"
	}
	p.put(v, "cpu", w)
}

func (p *planner) realtime(runtime int64, period uint64) {
	if period != 0 {
		s := strconv.FormatUint(period, 10)
		if p.only1("cpu", "cpu.realtimePeriod", s) {
			p.put(
				1, "cpu",
				write{
					file: "cpu.rt_period_us", value: s, field: field + "cpu.realtimePeriod",
					given: s, knot: "realtime",
				},
			)
		}
	}
	if runtime != 0 {
		s := itoa(runtime)
		if p.only1("cpu", "cpu.realtimeRuntime", s) {
			p.put(
				1, "cpu",
				write{
					file: "cpu.rt_runtime_us", value: s, field: field + "cpu.realtimeRuntime",
					given: s, knot: "realtime",
				},
			)
		}
	}
}

// cpuset follows cpuset(7). Which lists are right only the kernel knows.
func (p *planner) cpuset(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	for _, f := range []struct{ name, file, v string }{
		{"cpu.cpus", "cpuset.cpus", c.Cpus}, {"cpu.mems", "cpuset.mems", c.Mems},
	} {
		if f.v == "" {
			continue
		}
		if !printable(f.v) {
			p.invalid(f.name, strconv.Quote(f.v), "a list such as 0-3,7")
		}
		g := strconv.Quote(f.v)
		p.put(
			p.need("cpuset", f.name, g), "cpuset",
			write{file: f.file, value: f.v, field: field + f.name, given: g},
		)
	}
}
