package simulate

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"strake/lmctfy/policy"
)

// model is a machine with containers that want CPU and memory.
//
// CPU is shared by weights: what a container does not want goes to the others, and none gets more
// than its quota. Memory grows to what is wanted, at growBytes a second and slower when CPU or
// memory is short, up to the limit; memory.high stops the growth and reclaims cache. When less than
// 1/20 of the memory is free, cache above reservations is reclaimed; what that does not yield is
// pressure, and if nothing is left, the kernel kills a container: that which uses most, or, where
// eviction priorities are in force as oom_score_adj, the batch container of the lowest.
//
// A server's latency is its service time, times a queue's length by what CPU it could get
// (Sakasegawa's approximation of M/M/c), times ten for memory pressure of 100 %.
type model struct {
	machine policy.Machine
	all     map[string]*process
	step    time.Duration
	stall   policy.Pressure // of the machine
	// priorities says that the kernel kills by eviction priority.
	priorities bool
}

// process is a container in the model.
type process struct {
	spec  policy.Container
	load  Load
	hold  policy.Hold
	stall policy.Pressure

	cpu    float64 // thousandths of a CPU that it got in the last step
	memory float64 // bytes
	delay  float64 // what memory pressure it feels, 0 to 1
	wait   float64 // probability that it waits for a CPU
	micros float64 // latency, if it is a server
}

const (
	growBytes    = 64 << 20
	memoryFactor = 10
	longestQueue = 50
)

// names returns the names of all containers in order, since sums of floats depend on it.
func (m *model) names() []string {
	names := make([]string, 0, len(m.all))
	for name := range m.all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// end removes a container and those below it.
func (m *model) end(name string) {
	for n := range m.all {
		if n == name || strings.HasPrefix(n, name+"/") {
			delete(m.all, n)
		}
	}
}

// share returns the part of a hold of a container, or of one above it, that is its own: the hold is
// split by what the containers below it want. 0: nothing holds it.
func (m *model) share(
	name string, hold func(*process) int64, want func(*process) float64,
) (part float64) {
	for _, n := range m.names() {
		h := float64(hold(m.all[n]))
		if h == 0 || n != name && !strings.HasPrefix(name, n+"/") {
			continue
		}
		sum := 0.0
		for _, below := range m.names() {
			if below == n || strings.HasPrefix(below, n+"/") {
				sum += want(m.all[below])
			}
		}
		if sum > 0 {
			h *= want(m.all[name]) / sum
		}
		if part == 0 || h < part {
			part = h
		}
	}
	return part
}

// advance lets a step of time pass. It returns the containers that the kernel killed.
func (m *model) advance() (killed []string) {
	killed = m.memory()
	m.cpu()
	machine := [3]float64{}
	for _, name := range m.names() {
		p := m.all[name]
		short := 0.0
		if want := m.wanted(name); want > 0 {
			short = 1 - p.cpu/want
		}
		cpu := max(p.wait, short)
		p.stall = grow(p.stall, m.step, cpu, p.delay)
		machine[0], machine[1] = max(machine[0], cpu), max(machine[1], p.delay)
	}
	m.stall = grow(m.stall, m.step, machine[0], machine[1])
	return killed
}

// wanted is the CPU that a container would use if it were alone with its limits and not held.
func (m *model) wanted(name string) float64 {
	p := m.all[name]
	want := float64(p.load.CPUMilli)
	if p.spec.CPUMaxMilli > 0 {
		want = min(want, float64(p.spec.CPUMaxMilli))
	}
	return want
}

// memory moves memory towards what is wanted and reclaims.
func (m *model) memory() (killed []string) {
	total, sum := float64(m.machine.MemoryBytes), 0.0
	for _, name := range m.names() {
		p := m.all[name]
		speed := 1.0
		if want := m.wanted(name); want > 0 && p.memory > 0 {
			speed = p.cpu / want
		}
		speed *= 1 - p.delay // allocating is what waits
		want := min(float64(p.load.MemoryBytes), p.memory+growBytes*m.step.Seconds()*speed)
		if limit := float64(p.spec.MemoryLimitBytes); limit > 0 {
			want = min(want, limit)
		}
		high := m.share(
			name, func(p *process) int64 { return p.hold.MemoryHighBytes },
			func(p *process) float64 { return float64(p.load.MemoryBytes) },
		)
		if high > 0 && want > high {
			want = max(high, min(want, p.memory-p.cache()))
		}
		p.memory = want
		sum += want
	}
	margin := total / 20
	need := max(0, sum-(total-margin))
	reclaimed := m.reclaim(need)
	delay := min(1, (0.3*reclaimed+(need-reclaimed))/margin)
	for sum -= reclaimed; sum > total && len(m.all) > 0; {
		name := m.victim()
		sum -= m.all[name].memory
		killed = append(killed, name)
		m.end(name)
	}
	for _, p := range m.all {
		if p.delay = delay; p.memory <= float64(p.spec.MemoryReservationBytes) {
			p.delay /= 2
		}
	}
	return killed
}

// cache is what can be reclaimed. Memory that cannot is filled first.
func (p *process) cache() float64 {
	kept := float64(p.load.MemoryBytes) * float64(100-p.load.CachePercent) / 100
	return max(0, p.memory-kept)
}

// reclaim takes cache above reservations, from each in proportion to what it has.
func (m *model) reclaim(need float64) float64 {
	takes := func(p *process) float64 {
		over := max(0, p.memory-float64(p.spec.MemoryReservationBytes))
		return min(over, p.cache())
	}
	sum := 0.0
	for _, name := range m.names() {
		sum += takes(m.all[name])
	}
	if sum == 0 || need == 0 {
		return 0
	}
	part := min(1, need/sum)
	for _, p := range m.all {
		p.memory -= takes(p) * part
	}
	return sum * part
}

// victim is the container that the kernel kills.
func (m *model) victim() string {
	return slices.MinFunc(m.names(), func(a, b string) int {
		p, q := m.all[a], m.all[b]
		byMemory := cmp.Or(cmp.Compare(q.memory, p.memory), cmp.Compare(a, b))
		if !m.priorities {
			return byMemory
		}
		return cmp.Or(
			cmp.Compare(p.rank(), q.rank()),
			cmp.Compare(p.spec.EvictionPriority, q.spec.EvictionPriority), byMemory,
		)
	})
}

// rank is 0 for batch containers that use memory, so that they are killed first.
func (p *process) rank() int {
	if p.spec.Class.Batch() && p.memory > 0 {
		return 0
	}
	return 1
}

// cpu shares the CPUs and computes latencies.
func (m *model) cpu() {
	got := m.divide("")
	for _, name := range m.names() {
		p := m.all[name]
		p.cpu, p.wait, p.micros = got[name], 0, 0
		if p.load.ServiceMicros == 0 || p.load.CPUMilli == 0 {
			continue
		}
		could := max(1, m.divide(name)[name])
		servers, busy := max(1, could/1000), min(1, float64(p.load.CPUMilli)/could)
		p.wait = math.Pow(busy, math.Sqrt(2*(servers+1))-1)
		queue := float64(longestQueue)
		if busy < 1 {
			queue = min(queue, p.wait/(servers*(1-busy)))
		}
		p.micros = float64(p.load.ServiceMicros) * (1 + queue) * (1 + memoryFactor*p.delay)
	}
}

// divide shares the CPUs by weights, as if one container wanted all of them.
func (m *model) divide(greedy string) map[string]float64 {
	left, open, got := float64(m.machine.CPUMilli), m.names(), map[string]float64{}
	limits, weights := map[string]float64{}, map[string]float64{}
	for _, name := range open {
		p := m.all[name]
		limit := m.wanted(name)
		if name == greedy {
			limit = cmp.Or(float64(p.spec.CPUMaxMilli), left)
		}
		quota := m.share(name, func(p *process) int64 { return p.hold.CPUMilli },
			func(p *process) float64 { return float64(p.load.CPUMilli) })
		if quota > 0 {
			limit = min(limit, quota)
		}
		limits[name], weights[name] = limit, m.weight(name)
	}
	for len(open) > 0 {
		sum := 0.0
		for _, name := range open {
			sum += weights[name]
		}
		// Those that want less than their share get it; the rest is shared again.
		var rest []string
		given := 0.0
		for _, name := range open {
			if limits[name] <= left*weights[name]/sum {
				got[name] = limits[name]
				given += limits[name]
			} else {
				rest = append(rest, name)
			}
		}
		if len(rest) == len(open) {
			for _, name := range open {
				got[name] = left * weights[name] / sum
			}
			break
		}
		left, open = left-given, rest
	}
	return got
}

// weight is in shares of version 1: 1024 for a CPU, and for a container that names none.
func (m *model) weight(name string) float64 {
	for _, n := range m.names() {
		if h := m.all[n].hold.CPUWeight; h > 0 && (n == name || strings.HasPrefix(name, n+"/")) {
			return float64(h) * 10.24
		}
	}
	if limit := m.all[name].spec.CPULimitMilli; limit > 0 {
		return max(2, float64(limit)*1.024)
	}
	return 1024
}

// grow adds a step to stall information.
func grow(p policy.Pressure, step time.Duration, cpu, memory float64) policy.Pressure {
	add := func(a *policy.Averages, part float64) {
		a.Total += time.Duration(float64(step) * part)
		for _, avg := range []struct {
			value   *float64
			seconds float64
		}{{&a.Avg10, 10}, {&a.Avg60, 60}, {&a.Avg300, 300}} {
			keep := math.Exp(-step.Seconds() / avg.seconds)
			*avg.value = *avg.value*keep + 100*part*(1-keep)
		}
	}
	add(&p.CPU.Some, cpu)
	add(&p.Memory.Some, memory)
	add(&p.Memory.Full, memory*memory)
	return p
}
