package policy

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// grouped is the containers of an observation by what may be done to them.
type grouped struct {
	// all are sorted by name, and batch are those of them that may be held back or evicted.
	all, batch []Container
	// holdable are the names of those with no other batch container above: what holds a container
	// holds those below it.
	holdable map[string]bool
	// machine says that a protected container has no pressure of its own, or that none exists.
	machine bool
}

// groups sorts containers. A batch container with a protected one below it is left alone, since
// whatever is done to it is done to the other as well.
func groups(all []Container) grouped {
	g := grouped{holdable: map[string]bool{}, all: slices.Clone(all)}
	slices.SortFunc(g.all, func(a, b Container) int { return cmp.Compare(a.Name, b.Name) })
	aboveProtected, batch := map[string]bool{}, map[string]bool{}
	own, protected := 0, 0
	for _, c := range all {
		if c.Class.Batch() {
			continue
		}
		protected++
		if c.Pressure != nil {
			own++
		}
		for name := range above(c.Name) {
			aboveProtected[name] = true
		}
	}
	g.machine = own == 0 || own < protected
	for _, c := range g.all {
		if c.Class.Batch() && !aboveProtected[c.Name] {
			g.batch, batch[c.Name] = append(g.batch, c), true
		}
	}
	for _, c := range g.batch {
		g.holdable[c.Name] = true
		for name := range above(c.Name) {
			if batch[name] {
				delete(g.holdable, c.Name)
			}
		}
	}
	return g
}

// above yields the names of all that could be above a container.
func above(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name, '/') {
			if name = name[:i]; !yield(name) {
				return
			}
		}
	}
}

// holds brings what batch containers are held to in line with the levels. It tightens only while
// a pressure is high. A container that may not be held any longer, because it changed its class or
// a protected one was made below it, is given everything back.
func (s *State) holds(g grouped, readings [resources]reading, at time.Time) []Action {
	pressed := slices.ContainsFunc(s.gauges[:], func(g gauge) bool { return !g.above.IsZero() })
	r := s.newest()
	why := s.numbers(Action{}, r, readings[r], at)
	var actions []Action
	for _, c := range g.all {
		h, known := s.held[c.Name]
		if at.Before(h.retry) || !known && !g.holdable[c.Name] {
			continue
		}
		// A quota is a fraction of what was used before it.
		if h.applied.CPUMilli == 0 {
			h.base.CPUMilli = c.uses().CPUMilli
		}
		if h.applied.MemoryHighBytes == 0 {
			h.base.MemoryBytes = c.uses().MemoryBytes
		}
		var want Hold
		if g.holdable[c.Name] {
			want = s.want(c, h.base, g.machine)
		}
		if !pressed {
			want = loosest(want, h.applied)
		}
		actions = append(actions, diff(c.Name, h, want, why)...)
		h.applied, h.retry, h.started = want, time.Time{}, c.Started
		if want == (Hold{}) && h.evictions == 0 {
			delete(s.held, c.Name)
		} else {
			s.held[c.Name] = h
		}
	}
	return actions
}

// newest returns the resource whose level changed last.
func (s *State) newest() (r Resource) {
	for i := range resources {
		if s.gauges[i].changed.After(s.gauges[r].changed) {
			r = i
		}
	}
	return r
}

// want is what the levels hold a container to. Where only the machine's pressure is known there is
// no memory.high, because a container that it slows counts as pressure there itself.
func (s *State) want(c Container, base Amount, machine bool) (h Hold) {
	quota := func(halvings int) {
		q := max(s.config.LeastCPUMilli, base.CPUMilli>>halvings)
		if q < base.CPUMilli && (c.CPUMaxMilli == 0 || q < c.CPUMaxMilli) &&
			(h.CPUMilli == 0 || q < h.CPUMilli) {
			h.CPUMilli = q
		}
	}
	if level := s.gauges[CPU].level; level > 0 {
		h.CPUWeight = 1
		if level > 1 {
			quota(level - 1)
		}
	}
	if level := s.gauges[Memory].level; level > 0 {
		quota(level)
		over := max(0, base.MemoryBytes-c.MemoryReservationBytes)
		high := c.MemoryReservationBytes + over/4*int64(lastLevel[Memory]+1-level)
		high = max(high, s.config.LeastMemoryBytes)
		if !machine && high < base.MemoryBytes {
			h.MemoryHighBytes = high
		}
	}
	if s.gauges[IO].level > 0 {
		h.IOWeight = 1
	}
	return h
}

// loosest returns want without what is tighter than what is applied.
func loosest(want, applied Hold) Hold {
	loose := func(w, a int64) int64 {
		if w == 0 || a == 0 {
			return 0
		}
		return max(w, a)
	}
	return Hold{
		CPUMilli:        loose(want.CPUMilli, applied.CPUMilli),
		MemoryHighBytes: loose(want.MemoryHighBytes, applied.MemoryHighBytes),
		CPUWeight:       int(loose(int64(want.CPUWeight), int64(applied.CPUWeight))),
		IOWeight:        int(loose(int64(want.IOWeight), int64(applied.IOWeight))),
	}
}

// diff returns the actions that lead from what is applied to what is wanted, or all that set what
// is wanted if it is not known what is applied.
func diff(name string, h held, want Hold, why Action) (actions []Action) {
	unknown, old := !h.retry.IsZero(), h.applied
	why.Container = name
	if unknown || want.CPUMilli != old.CPUMilli || want.MemoryHighBytes != old.MemoryHighBytes {
		a := why
		a.Do = DoThrottle
		a.Hold = Hold{CPUMilli: want.CPUMilli, MemoryHighBytes: want.MemoryHighBytes}
		if a.Hold == (Hold{}) {
			a.Do = DoUnthrottle
		}
		actions = append(actions, a)
	}
	if unknown || want.CPUWeight != old.CPUWeight || want.IOWeight != old.IOWeight {
		a := why
		a.Do = DoSetWeight
		a.Hold = Hold{CPUWeight: want.CPUWeight, IOWeight: want.IOWeight}
		actions = append(actions, a)
	}
	return actions
}

// evict chooses the container to evict for want of a resource: the one of the lowest eviction
// priority, of those the one that uses most above its reservation, of those the youngest. One that
// was evicted and is still there comes last. Those that use too little to help are left alone.
func (s *State) evict(
	r Resource, batch []Container, now reading, at time.Time,
) (Action, bool) {
	least := [...]int64{2 * s.config.LeastCPUMilli, s.config.LeastMemoryBytes}[r]
	over := func(c Container) int64 { return r.of(c.Usage) - r.of(c.reserves()) }
	var best *Container
	for i := range batch {
		c := &batch[i]
		if !c.Measured || r.of(c.Usage) <= least {
			continue
		}
		if best == nil || cmp.Or(
			cmp.Compare(s.held[c.Name].evictions, s.held[best.Name].evictions),
			cmp.Compare(c.EvictionPriority, best.EvictionPriority),
			cmp.Compare(over(*best), over(*c)),
			best.Started.Compare(c.Started),
			cmp.Compare(c.Name, best.Name),
		) < 0 {
			best = c
		}
	}
	if best == nil {
		return Action{}, false
	}
	h := s.held[best.Name]
	h.started = best.Started
	h.evictions++
	s.held[best.Name], s.evicted = h, at
	return s.numbers(Action{
		Do: DoEvict, Container: best.Name, Priority: best.EvictionPriority, Over: over(*best),
	}, r, now, at), true
}

// reserves is what usage is compared with for eviction: not the memory limit, which Asks takes for
// the reservation where there is none.
func (c Container) reserves() Amount { return Amount{c.CPULimitMilli, c.MemoryReservationBytes} }
