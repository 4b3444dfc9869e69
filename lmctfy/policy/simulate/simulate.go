package simulate

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"strake/lmctfy/policy"
)

// Mode says how a trace is run.
type Mode int

const (
	// WithPolicy admits and acts as the policy says.
	WithPolicy Mode = iota
	// WithoutPolicy admits everything and never acts.
	WithoutPolicy
	// Alone is WithoutPolicy without batch containers.
	Alone
)

func (m Mode) String() string { return [...]string{"policy", "no policy", "alone"}[m] }

// Latency is what the requests to one server took, a value per step.
type Latency struct {
	Name      string `json:"name"`
	P50Micros int64  `json:"p50_us"`
	P99Micros int64  `json:"p99_us"`
	MaxMicros int64  `json:"max_us"`
}

// Summary is what came out of a run.
type Summary struct {
	Admitted   int `json:"admitted"`
	Refused    int `json:"refused"`
	Throttles  int `json:"throttles"`
	Unthrottle int `json:"unthrottles"`
	Weights    int `json:"weights"`
	Evictions  int `json:"evictions"`
	// Killed counts the containers that the kernel killed for want of memory.
	Killed int `json:"killed"`
	// PeakBytes is the most memory that was used.
	PeakBytes int64 `json:"peak_bytes"`
	// BatchCPU is the CPU time that batch containers got.
	BatchCPU time.Duration `json:"batch_cpu_ns"`
	// Servers are sorted by name.
	Servers []Latency `json:"servers,omitempty"`
	// Held are the batch containers that are still held back at the end.
	Held int `json:"held"`
}

// Event is one line of what happened.
type Event struct {
	At     time.Duration
	Action policy.Action
	// Killed, if set, is a container that the kernel killed.
	Killed string
}

// String returns the event as one line with its time in seconds.
func (e Event) String() string {
	what := e.Action.String()
	if e.Killed != "" {
		what = fmt.Sprintf("oom-kill %s: the kernel found no memory", e.Killed)
	}
	return fmt.Sprintf("%9.3fs %s", e.At.Seconds(), what)
}

// epoch is the time of at_ms 0 in a run of the model.
var epoch = time.Unix(0, 0).UTC()

// run is one run of a trace.
type run struct {
	trace   *Trace
	mode    Mode
	tell    func(Event)
	model   model
	state   policy.State
	sum     Summary
	cause   policy.Cause
	micros  map[string][]float64
	refused map[string]bool
}

// Run replays a trace that Read or Generate returned. If tell is set, it is called with each
// event, in order. A recorded trace is run WithPolicy alone; other modes return a zero Summary.
func Run(t *Trace, mode Mode, tell func(Event)) Summary {
	head := t.Lines[0]
	var config policy.Config
	if head.Config != nil {
		config = *head.Config
	}
	r := &run{
		trace: t, mode: mode, tell: tell, state: policy.New(config),
		model: model{
			machine: *head.Machine, all: map[string]*process{},
			step: time.Duration(t.interval()) * time.Millisecond, priorities: mode == WithPolicy,
		},
		micros: map[string][]float64{}, refused: map[string]bool{},
	}
	if r.tell == nil {
		r.tell = func(Event) {}
	}
	if t.recorded() {
		if mode == WithPolicy {
			r.replay()
		}
		return r.sum
	}
	now := head.AtMillis
	for _, l := range t.Lines[1:] {
		for ; now < l.AtMillis; now += t.interval() {
			r.advance(now + t.interval())
		}
		r.apply(l)
	}
	r.sum.Held = len(r.state.Held())
	r.latencies()
	return r.sum
}

// replay gives recorded observations to the policy.
func (r *run) replay() {
	var first time.Time
	evicted := map[string]bool{}
	for _, l := range r.trace.Lines {
		if l.Observe == nil {
			continue
		}
		if first.IsZero() {
			first = l.Observe.At
		}
		used := int64(0)
		for _, c := range l.Observe.Containers {
			if strings.Count(c.Name, "/") == 1 {
				used += c.Usage.MemoryBytes
			}
		}
		r.sum.PeakBytes = max(r.sum.PeakBytes, used)
		var actions []policy.Action
		r.state, actions = policy.Step(r.state, *l.Observe)
		for _, a := range actions {
			// What was recorded goes on after an eviction; only the first would have been.
			if a.Do == policy.DoEvict && evicted[a.Container] {
				continue
			}
			evicted[a.Container] = evicted[a.Container] || a.Do == policy.DoEvict
			r.did(l.Observe.At.Sub(first), a)
		}
	}
	r.sum.Held = len(r.state.Held())
}

// apply lets a line of the trace take effect.
func (r *run) apply(l Line) {
	at := time.Duration(l.AtMillis) * time.Millisecond
	switch {
	case l.Request != nil:
		c := *l.Request
		if r.mode == Alone && c.Class.Batch() {
			return
		}
		if r.mode == WithPolicy {
			d := r.state.Admit(r.model.machine, r.containers(), c)
			r.did(at, d.Action())
			if r.refused[c.Name] = !d.Admitted; !d.Admitted {
				return
			}
		}
		p := r.model.all[c.Name]
		if p == nil {
			p = &process{}
			p.spec.Started = epoch.Add(at)
			r.model.all[c.Name] = p
		}
		c.Started = p.spec.Started // an update
		p.spec = c
	case l.Load != nil:
		if p := r.model.all[l.Load.Name]; p != nil {
			p.load = *l.Load
		}
	case l.Exit != "":
		r.model.end(l.Exit)
	}
}

// advance lets a step of the model pass and gives what came of it to the policy.
func (r *run) advance(atMillis int64) {
	at := time.Duration(atMillis) * time.Millisecond
	for _, name := range r.model.advance() {
		r.sum.Killed++
		r.tell(Event{At: at, Killed: name})
	}
	used, cache := 0.0, 0.0
	for _, name := range r.model.names() {
		p := r.model.all[name]
		used, cache = used+p.memory, cache+p.cache()
		if p.micros > 0 {
			r.micros[name] = append(r.micros[name], p.micros)
		}
		if p.spec.Class.Batch() {
			r.sum.BatchCPU += time.Duration(p.cpu / 1000 * float64(r.model.step))
		}
	}
	r.sum.PeakBytes = max(r.sum.PeakBytes, int64(used))
	if r.mode != WithPolicy {
		return
	}
	o := policy.Observation{
		At: epoch.Add(at), Containers: r.containers(), Machine: r.model.stall,
		AvailableBytes: r.model.machine.MemoryBytes - int64(used) + int64(cache),
		TotalBytes:     r.model.machine.MemoryBytes,
	}
	if r.trace.Lines[0].Pressure == "v1" {
		o.Machine = policy.Pressure{Level: level(r.model.all)}
	}
	var actions []policy.Action
	r.state, actions = policy.Step(r.state, o)
	for _, a := range actions {
		r.did(at, a)
		p := r.model.all[a.Container]
		switch {
		case p == nil:
		case a.Do == policy.DoThrottle || a.Do == policy.DoUnthrottle:
			p.hold.CPUMilli, p.hold.MemoryHighBytes = a.Hold.CPUMilli, a.Hold.MemoryHighBytes
		case a.Do == policy.DoSetWeight:
			p.hold.CPUWeight, p.hold.IOWeight = a.Hold.CPUWeight, a.Hold.IOWeight
		case a.Do == policy.DoEvict:
			r.model.end(a.Container)
		}
	}
}

// level is what version 1 would notify of the pressure in the model.
func level(all map[string]*process) (l policy.Level) {
	for _, p := range all {
		switch {
		case p.delay >= 0.6:
			l = policy.Critical
		case p.delay >= 0.1:
			l = max(l, policy.Medium)
		case p.delay > 0:
			l = max(l, policy.Low)
		}
	}
	return l
}

// containers is what the policy sees of the model. Usage includes that of the containers below.
func (r *run) containers() (all []policy.Container) {
	for _, name := range r.model.names() {
		p := r.model.all[name]
		c, cpu, memory := p.spec, 0.0, 0.0
		for _, n := range r.model.names() {
			if n == name || strings.HasPrefix(n, name+"/") {
				cpu, memory = cpu+r.model.all[n].cpu, memory+r.model.all[n].memory
			}
		}
		c.Usage = policy.Amount{CPUMilli: int64(cpu), MemoryBytes: int64(memory)}
		c.Measured = p.stall != (policy.Pressure{}) || p.memory > 0
		if cmp.Or(r.trace.Lines[0].Pressure, "group") == "group" {
			stall := p.stall
			c.Pressure = &stall
		}
		all = append(all, c)
	}
	return all
}

// did counts and tells an action. Of DoNothing only that the policy is at its end is told, once.
func (r *run) did(at time.Duration, a policy.Action) {
	switch a.Do {
	case policy.DoAdmit:
		r.sum.Admitted++
	case policy.DoRefuse:
		r.sum.Refused++
	case policy.DoThrottle:
		r.sum.Throttles++
	case policy.DoUnthrottle:
		r.sum.Unthrottle++
	case policy.DoSetWeight:
		r.sum.Weights++
	case policy.DoEvict:
		r.sum.Evictions++
	case policy.DoNothing:
		changed := r.cause != a.Cause
		if r.cause = a.Cause; !changed || a.Cause != policy.Exhausted {
			return
		}
	}
	r.tell(Event{At: at, Action: a})
}

func (r *run) latencies() {
	for name, all := range r.micros {
		slices.Sort(all)
		at := func(percent int) int64 {
			return int64(math.Round(all[min(len(all)-1, len(all)*percent/100)]))
		}
		r.sum.Servers = append(r.sum.Servers, Latency{name, at(50), at(99), at(100)})
	}
	slices.SortFunc(r.sum.Servers, func(a, b Latency) int { return cmp.Compare(a.Name, b.Name) })
}

// Report runs a trace with the policy and writes each event as a line, then a table of the run
// beside those without the policy and without batch containers.
func Report(t *Trace, w io.Writer) error {
	var failed error
	sums := []Summary{Run(t, WithPolicy, func(e Event) {
		if _, err := fmt.Fprintln(w, e); err != nil && failed == nil {
			failed = err
		}
	})}
	if !t.recorded() {
		sums = append(sums, Run(t, WithoutPolicy, nil), Run(t, Alone, nil))
	}
	if failed != nil {
		return failed
	}
	_, err := io.WriteString(w, table(sums))
	return err
}

func micros(us int64) string { return (time.Duration(us) * time.Microsecond).String() }

func table(sums []Summary) string {
	var b strings.Builder
	row := func(name string, cell func(Summary) string) {
		line := fmt.Sprintf("%-24s", name)
		for _, s := range sums {
			line += fmt.Sprintf(" %14s", cell(s))
		}
		b.WriteString(line + "\n")
	}
	b.WriteString("\n" + fmt.Sprintf("%-24s", ""))
	for i := range sums {
		fmt.Fprintf(&b, " %14s", Mode(i))
	}
	b.WriteString("\n")
	count := func(of func(Summary) int) func(Summary) string {
		return func(s Summary) string { return fmt.Sprint(of(s)) }
	}
	row("admitted", count(func(s Summary) int { return s.Admitted }))
	row("refused", count(func(s Summary) int { return s.Refused }))
	row("throttled", count(func(s Summary) int { return s.Throttles }))
	row("unthrottled", count(func(s Summary) int { return s.Unthrottle }))
	row("weights set", count(func(s Summary) int { return s.Weights }))
	row("evicted", count(func(s Summary) int { return s.Evictions }))
	row("killed by the kernel", count(func(s Summary) int { return s.Killed }))
	row("held at the end", count(func(s Summary) int { return s.Held }))
	row("memory peak", func(s Summary) string { return policy.Memory.Format(s.PeakBytes) })
	if len(sums) == 1 {
		return b.String()
	}
	row("batch CPU time", func(s Summary) string {
		return fmt.Sprintf("%.1fs", s.BatchCPU.Seconds())
	})
	for _, server := range sums[len(sums)-1].Servers {
		of := func(s Summary) (l Latency) {
			for _, l := range s.Servers {
				if l.Name == server.Name {
					return l
				}
			}
			return l
		}
		row(server.Name+" p50", func(s Summary) string { return micros(of(s).P50Micros) })
		row(server.Name+" p99", func(s Summary) string { return micros(of(s).P99Micros) })
		row(server.Name+" p99 / alone", func(s Summary) string {
			return fmt.Sprintf("%.2f", float64(of(s).P99Micros)/float64(server.P99Micros))
		})
		row(server.Name+" longest", func(s Summary) string { return micros(of(s).MaxMicros) })
	}
	return b.String()
}
