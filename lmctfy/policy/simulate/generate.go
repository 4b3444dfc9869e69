package simulate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"strake/internal/message"
	"strake/lmctfy/policy"
)

// Kinds are the traces that Generate makes: a machine with room for all, batch containers whose
// memory surges and goes on surging, and batch containers that come and go in turns.
var Kinds = []string{"calm", "surge", "flapping"}

const mib = 1 << 20

// generator writes a trace.
type generator struct {
	*rand.Rand
	lines []Line
}

// Generate makes a synthetic trace of a kind. The same kind and seed make the same trace. A kind
// that does not exist is errdefs.ErrInvalidArgument.
func Generate(kind string, seed uint64) (*Trace, error) {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1))}
	g.add(Line{IntervalMillis: 500, Machine: &policy.Machine{
		Amount:  policy.Amount{CPUMilli: 4000, MemoryBytes: 8192 * mib},
		Reserve: policy.Amount{CPUMilli: 200, MemoryBytes: 512 * mib},
	}})
	g.request(0, "/web", policy.Premier, 2000, 2048, policy.DefaultEvictionPriority)
	g.request(0, "/db", policy.Priority, 1000, 2048, policy.DefaultEvictionPriority)
	// One more reservation than the machine has room for.
	g.request(0, "/greedy", policy.Premier, 1000, 1024, policy.DefaultEvictionPriority)
	for i := range int64(4) {
		// The first two fit beside the reservations; those after a while, beside what is used.
		g.request(
			i/2*25, fmt.Sprintf("/batch%d", i), policy.Class(1+i%2), 400, 256, 1000*(1+g.IntN(9)),
		)
	}
	switch kind {
	case "calm":
		g.calm(300)
	case "surge":
		g.surge(900)
	case "flapping":
		g.flapping(7200)
	default:
		return nil, message.New(
			errdefs.ErrInvalidArgument, "trace %q: one of %s is allowed", kind,
			strings.Join(Kinds, ", "),
		)
	}
	return &Trace{Lines: g.lines}, nil
}

func (g *generator) add(l Line) { g.lines = append(g.lines, l) }

func (g *generator) request(
	second int64, name string, class policy.Class, cpu, memory int64, priority int,
) {
	g.add(Line{AtMillis: second * 1000, Request: &policy.Container{
		Name: name, Class: class, CPULimitMilli: cpu, MemoryReservationBytes: memory * mib,
		EvictionPriority: priority,
	}})
}

// load sets what a container wants, give or take a tenth.
func (g *generator) load(second int64, l Load) {
	about := func(v int64) int64 { return v - v/10 + g.Int64N(v/5+1) }
	l.CPUMilli, l.MemoryBytes = about(l.CPUMilli), about(l.MemoryBytes)
	g.add(Line{AtMillis: second * 1000, Load: &l})
}

func (g *generator) servers(second int64) {
	g.load(second, Load{
		Name: "/web", CPUMilli: 800, MemoryBytes: 1700 * mib, CachePercent: 20, ServiceMicros: 2000,
	})
	g.load(second, Load{
		Name: "/db", CPUMilli: 500, MemoryBytes: 1700 * mib, CachePercent: 50, ServiceMicros: 500,
	})
}

// every calls a function for each span of seconds, and ends the trace.
func (g *generator) every(span, seconds int64, at func(second int64)) {
	for s := int64(0); s < seconds; s += span {
		g.servers(s)
		at(s)
	}
	g.add(Line{AtMillis: seconds * 1000, End: true})
	slices.SortStableFunc(g.lines, func(a, b Line) int { return int(a.AtMillis - b.AtMillis) })
}

func (g *generator) batch(second, i, cpu, memory int64) {
	g.load(second, Load{
		Name: fmt.Sprintf("/batch%d", i), CPUMilli: cpu, MemoryBytes: memory * mib,
		CachePercent: 10,
	})
}

func (g *generator) calm(seconds int64) {
	g.every(10, seconds, func(s int64) {
		for i := range int64(4) {
			g.batch(s, i, 200, 300)
		}
	})
}

// surge: from a fifth of the trace to its half, three batch containers want more memory than there
// is. Those that were evicted ask again, while that lasts and afterwards.
func (g *generator) surge(seconds int64) {
	for i := range int64(3) {
		for _, s := range []int64{seconds / 3, seconds - 30} {
			g.request(s, fmt.Sprintf("/batch%d", i), policy.BestEffort, 400, 256, 5000)
		}
	}
	g.every(10, seconds, func(s int64) {
		for i := range int64(4) {
			memory := int64(300)
			if s >= seconds/5 && s < seconds/2 && i < 3 {
				memory = 4000
			}
			g.batch(s, i, 200, memory)
		}
	})
}

// flapping: all batch containers want the CPUs for half a minute in every one and a half.
func (g *generator) flapping(seconds int64) {
	g.every(30, seconds, func(s int64) {
		for i := range int64(4) {
			cpu := int64(20)
			if s/30%3 == 1 && s < seconds/2 {
				cpu = 4000
			}
			g.batch(s, i, cpu, 300)
		}
	})
}
