package policy

import (
	"maps"
	"slices"
	"time"
)

// Observation is the machine at one moment.
type Observation struct {
	At time.Time `json:"at"`
	// Containers are all there are, with their usage.
	Containers []Container `json:"containers"`
	// Machine is the pressure on the whole machine. It decides where a protected container has no
	// pressure of its own.
	Machine Pressure `json:"machine,omitzero"`
	// AvailableBytes of TotalBytes of the machine's memory can be had without swapping, as
	// MemAvailable of /proc/meminfo estimates it. TotalBytes 0: unknown.
	AvailableBytes int64 `json:"available_bytes,omitempty"`
	TotalBytes     int64 `json:"total_bytes,omitempty"`
}

// plenty says that the machine is not short of memory, so that pressure on it comes from the limit
// of a container, and taking memory from others would not relieve it.
func (o Observation) plenty(c Config) bool {
	return o.TotalBytes > 0 &&
		100*float64(o.AvailableBytes) > c.PlentyPercent*float64(o.TotalBytes)
}

// State is what Step remembers. It is a value: a step returns a new one and leaves the old as it
// was. New makes one.
type State struct {
	config Config
	last   time.Time
	// before is the pressure of the previous observation by container, "/" for the machine.
	before map[string]Pressure
	// started is when the containers of the previous observation were made.
	started map[string]time.Time
	gauges  [resources]gauge
	held    map[string]held
	evicted time.Time
}

// held is what one batch container is held to.
type held struct {
	applied Hold
	// base is what it used when it was first held, of which quotas are fractions.
	base Amount
	// retry, if set, says that the driver could not apply the hold, and when it is asked again.
	retry time.Time
	// started tells the container from a later one of the name, to which nothing was done yet.
	started time.Time
	// evictions counts how often it was evicted without being gone.
	evictions int
}

// gauge follows the pressure of one resource.
type gauge struct {
	level int
	// above and below are since when the pressure is at or above the high mark, or at or below the
	// low one; zero if it is not.
	above, below time.Time
	changed      time.Time // when level changed last
	lowered      time.Time // when level was lowered, until it is raised again
	relapses     int       // how often that happened within Config.GiveBackMost
	// percent is the last reading, and falling says that the one before was higher by a tenth.
	percent float64
	falling bool
}

// reading is what an observation says of the pressure of one resource.
type reading struct {
	percent  float64
	critical bool
	from     string // the container that feels it, or "/"
}

// lastLevel is the highest level of each resource, after which containers are evicted; IO never
// leads to an eviction.
//
// CPU: 1 the least weight, then a quota of 2 a half, 3 a quarter, 4 an eighth of what the container
// used. Memory: a quota of 1 a half, 2 a quarter, 3 an eighth, and a memory.high of its reservation
// with 1 three, 2 two, 3 one fourth of what it used above. IO: 1 the least weight.
var lastLevel = [resources]int{CPU: 4, Memory: 3, IO: 1}

// last is the highest level of a resource where pressure is that of the machine alone, or not. CPU
// pressure of the machine says only that more is to run than there are CPUs, which batch containers
// bring about without harm, so that they lose their weight and no more.
func last(r Resource, machine bool) int {
	if r == CPU && machine {
		return 1
	}
	return lastLevel[r]
}

// New returns the state in which nothing is held back. The configuration has to be valid.
func New(c Config) State { return State{config: c.WithDefaults()} }

// Level returns how far batch containers are held back for want of a resource, 0 for not at all.
func (s State) Level(r Resource) int { return s.gauges[r].level }

// Held returns what containers are held to, by name.
func (s State) Held() map[string]Hold {
	all := map[string]Hold{}
	for name, h := range s.held {
		if h.applied != (Hold{}) {
			all[name] = h.applied
		}
	}
	return all
}

// Quiet says that nothing is held back and that no pressure was high or waits to be judged, so that
// the next observation can wait until something happens.
func (s State) Quiet() bool {
	for _, g := range s.gauges {
		if g.level > 0 || !g.above.IsZero() {
			return false
		}
	}
	return len(s.held) == 0 && !s.last.IsZero()
}

// Admit is Admit, which also refuses batch containers while others are held back.
func (s State) Admit(m Machine, containers []Container, request Container) Decision {
	d := Admit(m, containers, request)
	for r, g := range s.gauges {
		if g.level > 0 && request.Class.Batch() {
			d.Admitted = false
			d.Shortages = append(d.Shortages, Shortage{
				Resource: Resource(r), Rule: Pressed, Where: "/", Total: int64(g.level),
			})
		}
	}
	return d
}

// Step judges an observation. It returns at least one action; if nothing is to be done, that is
// DoNothing with its cause.
func Step(s State, o Observation) (State, []Action) {
	if o.At.Before(s.last) {
		return s, []Action{{Do: DoNothing, Cause: Backwards}}
	}
	group := groups(o.Containers)
	elapsed := o.At.Sub(s.last)
	if s.last.IsZero() {
		elapsed = 0
	}
	var readings [resources]reading
	for r := range resources {
		readings[r] = s.read(r, o, elapsed)
	}
	s.held = s.heldOf(o.Containers)
	var raised [resources]bool
	for r := range resources {
		raised[r] = s.gauges[r].turn(s.config, r, last(r, group.machine), readings[r], o.At)
	}
	actions := s.holds(group, readings, o.At)
	for r := range IO {
		g := s.gauges[r]
		if g.level < lastLevel[r] || g.level > last(r, group.machine) || raised[r] ||
			!s.lasts(r, o.At) {
			continue
		}
		if a, ok := s.evict(r, group.batch, readings[r], o.At); ok {
			actions = append(actions, a)
		}
	}
	if len(actions) == 0 {
		actions = []Action{s.nothing(readings, group.machine, o.At)}
	}
	s.last, s.before, s.started = o.At, pressures(o), map[string]time.Time{}
	for _, c := range o.Containers {
		s.started[c.Name] = c.Started
	}
	return s, actions
}

// read measures the pressure that counts: the highest that a protected container feels, or that of
// the machine if one of them has no pressure of its own. Pressure that comes from a container's own
// limit is not counted, since taking from others does not relieve it; nor is memory pressure while
// the machine has plenty. Where nothing is protected, CPU and IO are shared by weights and only
// memory is watched.
func (s State) read(r Resource, o Observation, elapsed time.Duration) reading {
	worst, machine, protected := reading{from: "/"}, false, false
	if r == Memory && o.plenty(s.config) {
		return worst
	}
	consider := func(name string, p Pressure) {
		now, old := p.stall(r), s.before[name].stall(r)
		percent := now.Some.over(old.Some, elapsed)
		critical := r == Memory && (percent >= s.config.CriticalPercent ||
			now.Full.over(old.Full, elapsed) >= s.config.CriticalPercent/2)
		if r == Memory && p.Level == Medium {
			percent = max(percent, s.config.Memory.High)
		}
		if r == Memory && p.Level == Critical {
			percent, critical = 100, true
		}
		worst.critical = worst.critical || critical
		if percent > worst.percent {
			worst.percent, worst.from = percent, name
		}
	}
	for _, c := range o.Containers {
		if c.Class.Batch() {
			continue
		}
		protected = true
		if c.Pressure == nil {
			machine = true
		} else if !atOwnLimit(r, c) {
			consider(c.Name, *c.Pressure)
		}
	}
	if machine || !protected && r == Memory {
		consider("/", o.Machine)
	}
	return worst
}

// atOwnLimit says whether a container uses 95 % of what it may.
func atOwnLimit(r Resource, c Container) bool {
	limit := [...]int64{c.CPUMaxMilli, c.MemoryLimitBytes, 0}[r]
	return limit > 0 && c.Measured && r.of(c.Usage) >= limit-limit/20
}

func pressures(o Observation) map[string]Pressure {
	all := map[string]Pressure{"/": o.Machine}
	for _, c := range o.Containers {
		if c.Pressure != nil {
			all[c.Name] = *c.Pressure
		}
	}
	return all
}

// turn lets a gauge see a reading, lowers its level or raises it, and says whether it raised it.
func (g *gauge) turn(c Config, r Resource, last int, now reading, at time.Time) (raised bool) {
	m := c.marks(r)
	g.percent, g.falling = now.percent, now.percent < 0.9*g.percent
	switch {
	case now.percent >= m.High:
		g.below = time.Time{}
		if g.above.IsZero() {
			g.above = at
		}
		if g.level < last && at.Sub(g.above) >= c.RaiseAfter &&
			at.Sub(g.changed) >= c.RaiseAfter {
			g.raise(c, last, now, at)
			return true
		}
	case now.percent <= m.Low:
		g.above = time.Time{}
		if g.below.IsZero() {
			g.below = at
		}
		after := g.giveBackAfter(c)
		if g.level > 0 && at.Sub(g.below) >= after && at.Sub(g.changed) >= after {
			g.level--
			g.changed, g.lowered = at, at
			return false
		}
	default:
		g.above, g.below = time.Time{}, time.Time{}
	}
	return false
}

func (g *gauge) raise(c Config, last int, now reading, at time.Time) {
	if !g.lowered.IsZero() {
		if at.Sub(g.lowered) > c.GiveBackMost {
			g.relapses = 0
		} else {
			g.relapses = min(g.relapses+1, 30)
		}
	}
	g.level++
	if now.critical {
		g.level = last
	}
	g.changed, g.lowered = at, time.Time{}
}

// giveBackAfter is the time without pressure after which the level is lowered.
func (g *gauge) giveBackAfter(c Config) time.Duration {
	after := c.GiveBackAfter
	for i := 0; i < g.relapses && after < c.GiveBackMost; i++ {
		after *= 2
	}
	return min(after, c.GiveBackMost)
}

// lasts says whether the last level of a resource, and the last eviction, had their time and the
// pressure goes on. Pressure that falls gets more time, since throttling works.
func (s State) lasts(r Resource, at time.Time) bool {
	g := s.gauges[r]
	if g.above.IsZero() || s.cooling(at) ||
		g.falling && at.Sub(g.changed) < patience*s.config.RaiseAfter {
		return false
	}
	return at.Sub(g.above) >= s.config.RaiseAfter && at.Sub(g.changed) >= s.config.RaiseAfter
}

// patience is how many times Config.RaiseAfter the last level gets while the pressure falls.
const patience = 5

func (s State) cooling(at time.Time) bool {
	return !s.evicted.IsZero() && at.Sub(s.evicted) < s.config.CoolDown
}

// nothing says why there is no action, by the resource that is pressed most.
func (s State) nothing(readings [resources]reading, machine bool, at time.Time) Action {
	a := Action{Do: DoNothing, Cause: Calm}
	worst := CPU
	for r := range resources {
		g, w := s.gauges[r], s.gauges[worst]
		if !g.above.IsZero() && w.above.IsZero() ||
			g.above.IsZero() == w.above.IsZero() && g.level > w.level {
			worst = r
		}
	}
	g := s.gauges[worst]
	switch {
	case !g.above.IsZero() && g.level >= last(worst, machine) &&
		(last(worst, machine) == 1 || s.lasts(worst, at)):
		a.Cause = Exhausted
	case !g.above.IsZero():
		a.Cause = Waiting
	case g.level > 0:
		a.Cause = Holding
	default:
		return a
	}
	return s.numbers(a, worst, readings[worst], at)
}

// numbers fills in what led to an action.
func (s State) numbers(a Action, r Resource, now reading, at time.Time) Action {
	g, m := s.gauges[r], s.config.marks(r)
	a.Resource, a.Pressure, a.From, a.Level = r, now.percent, now.from, g.level
	switch {
	case !g.above.IsZero():
		a.Sign, a.Mark, a.For = ">=", m.High, at.Sub(g.above)
	case !g.below.IsZero():
		a.Sign, a.Mark, a.For = "<=", m.Low, at.Sub(g.below)
	default:
		a.Sign, a.Mark = "<", m.High
	}
	return a
}

// heldOf copies what is held, without containers that are gone or were made anew.
func (s State) heldOf(all []Container) map[string]held {
	here := map[string]held{}
	for _, c := range all {
		if h, ok := s.held[c.Name]; ok && h.started.Equal(c.Started) {
			here[c.Name] = h
		}
	}
	return here
}

// Failed returns the state after the driver could not carry out an action: what the container is
// held to is unknown, and Step asks again after Config.RaiseAfter.
func (s State) Failed(a Action) State {
	if a.Do == DoEvict {
		return s
	}
	h := s.held[a.Container]
	if s.held = maps.Clone(s.held); s.held == nil {
		s.held = map[string]held{}
	}
	h.started = s.started[a.Container]
	h.retry = s.last.Add(s.config.RaiseAfter)
	s.held[a.Container] = h
	return s
}

// Release gives everything back, for a driver that ends.
func (s State) Release() (State, []Action) {
	var actions []Action
	for _, name := range slices.Sorted(maps.Keys(s.held)) {
		actions = append(actions, diff(name, s.held[name], Hold{}, Action{Container: name})...)
	}
	return New(s.config), actions
}
