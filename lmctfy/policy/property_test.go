package policy

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestReservationsNeverExceedTheMachine(t *testing.T) {
	m := Machine{Amount: Amount{8000, 8 * gib}, Reserve: Amount{1000, gib}}
	each(t, func(t *testing.T, w *world) {
		var all []Container
		admitted := 0
		for range 300 {
			w.all = nil
			w.add()
			r := w.all[0]
			r.Usage = Amount{w.Int64N(4000), w.Int64N(gib)}
			if w.IntN(4) == 0 && len(all) > 0 { // a container ends
				i := w.IntN(len(all))
				below := func(c Container) bool { return c.Below(all[i].Name) }
				if !slices.ContainsFunc(all, below) {
					all = slices.Delete(all, i, i+1)
				}
			}
			d := Admit(m, all, r)
			if d.Admitted != (len(d.Shortages) == 0) {
				t.Fatalf("%v with %d shortages", d.Admitted, len(d.Shortages))
			}
			if !d.Admitted {
				continue
			}
			admitted++
			all = slices.DeleteFunc(all, func(c Container) bool { return c.Name == r.Name })
			all = append(all, r)
			reservedWithin(t, m, all)
		}
		if admitted < 10 {
			t.Errorf("only %d admitted", admitted)
		}
	})
}

// reservedWithin checks reservations by another way than Admit: each one that is not below another
// counts on the machine, and those right below one count in it.
func reservedWithin(t *testing.T, m Machine, all []Container) {
	t.Helper()
	for r := range IO {
		sums := map[string]int64{}
		for _, c := range all {
			if c.Class.Batch() || r.of(c.Asks()) == 0 {
				continue
			}
			holder := "/"
			for _, o := range all {
				if !o.Class.Batch() && r.of(o.Asks()) > 0 && c.Below(o.Name) &&
					len(o.Name) > len(holder) {
					holder = o.Name
				}
			}
			sums[holder] += r.of(c.Asks())
		}
		if total := r.of(m.Amount) - r.of(m.Reserve); sums["/"] > total {
			t.Fatalf("%s: %d reserved of %d", r, sums["/"], total)
		}
		for _, c := range all {
			if sums[c.Name] > r.of(c.Asks()) {
				t.Fatalf("%s: %d reserved in %+v", r, sums[c.Name], c)
			}
		}
	}
}

// felt is the pressure that an observation of a world shows; in a world all feel the same.
func (w *world) felt(r Resource, o Observation) float64 {
	protected := slices.ContainsFunc(o.Containers, func(c Container) bool {
		return !c.Class.Batch()
	})
	if !protected && r != Memory {
		return 0
	}
	return w.pressure[r]
}

func TestActionsNeedPressureAndSpareTheProtected(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s := New(Config{})
		c := s.config
		w.totals = false
		have, since := applied{}, map[Resource]time.Time{}
		var lastEviction time.Time
		for range 2000 {
			o := w.observe()
			high := false
			for r := range resources {
				if w.felt(r, o) < c.marks(r).High {
					delete(since, r)
				} else if high = true; since[r].IsZero() {
					since[r] = o.At
				}
			}
			var actions []Action
			s, actions = Step(s, o)
			if len(actions) == 0 {
				t.Fatal("no action, not even DoNothing")
			}
			have.forget(o.Containers)
			for _, a := range actions {
				before := have[a.Container]
				have.do(a)
				if !high && loosest(have[a.Container], before) != have[a.Container] {
					t.Fatalf("%s: tightened without pressure", a)
				}
				if a.Do == DoNothing {
					continue
				}
				if loosest(have[a.Container], before) != have[a.Container] || a.Do == DoEvict {
					spared(t, a, o.Containers)
				}
				if a.Do != DoEvict {
					continue
				}
				if since[a.Resource].IsZero() || o.At.Sub(since[a.Resource]) < c.RaiseAfter {
					t.Fatalf("%s: pressure since %s only", a, since[a.Resource])
				}
				if !lastEviction.IsZero() && o.At.Sub(lastEviction) < c.CoolDown {
					t.Fatalf("%s: %s after another eviction", a, o.At.Sub(lastEviction))
				}
				if s.Level(a.Resource) != lastLevel[a.Resource] {
					t.Fatalf("%s: evicted before all was throttled", a)
				}
				lastEviction = o.At
				w.remove(a.Container)
			}
			if held := s.Held(); !reflect.DeepEqual(held, map[string]Hold(have)) {
				t.Fatalf("state says %v, the actions made %v", held, have)
			}
		}
	})
}

// spared checks that an action touches no protected container.
func spared(t *testing.T, a Action, all []Container) {
	t.Helper()
	found := false
	for _, c := range all {
		if c.Name == a.Container {
			found = true
		}
		if !c.Class.Batch() && (c.Name == a.Container || c.Below(a.Container)) {
			t.Fatalf("%s: touches %s of class %s", a, c.Name, c.Class)
		}
	}
	if !found {
		t.Fatalf("%s: there is no such container", a)
	}
}

// TestActionsAreFew: levels have 8 steps in all, each is raised once and lowered at most twice in a
// minute; an action more per container for weights beside quotas, and one for each new quota.
func TestActionsAreFew(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s := New(Config{})
		times, evictions := map[string][]time.Time{}, []time.Time(nil)
		for range 3000 {
			o := w.observe()
			var actions []Action
			s, actions = Step(s, o)
			for _, a := range actions {
				switch a.Do {
				case DoNothing:
				case DoEvict:
					evictions = append(evictions, o.At)
					w.remove(a.Container)
				default:
					times[a.Container] = append(times[a.Container], o.At)
				}
			}
		}
		for name, all := range times {
			if n := busiest(all); n > 24 {
				t.Errorf("%s: %d actions in a minute", name, n)
			}
		}
		if n := busiest(evictions); n > 7 {
			t.Errorf("%d evictions in a minute", n)
		}
	})
}

// busiest returns the largest number of times within a minute.
func busiest(all []time.Time) (most int) {
	for i, from := range all {
		n := 0
		for n < len(all)-i && all[i+n].Sub(from) <= time.Minute {
			n++
		}
		most = max(most, n)
	}
	return most
}

func TestEverythingIsGivenBackAfterPressureEnds(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s, have, held := New(Config{}), applied{}, false
		step := func(o Observation) {
			var actions []Action
			s, actions = Step(s, o)
			have.forget(o.Containers)
			for _, a := range actions {
				have.do(a)
				if a.Do == DoEvict {
					w.remove(a.Container)
				}
				if w.IntN(20) == 0 {
					s = s.Failed(a)
				}
			}
			held = held || len(have) > 0
		}
		for range 1500 {
			step(w.observe())
		}
		// The highest level is given back in four steps of at most GiveBackMost each.
		w.pressure, w.full, w.phase = [resources]float64{}, 0, w.at.Add(1000*time.Hour)
		for end := w.at.Add(4*s.config.GiveBackMost + time.Minute); w.at.Before(end); {
			w.at = w.at.Add(10 * time.Second)
			step(w.look(10 * time.Second))
		}
		for range 10 { // what failed at the end is done again
			w.at = w.at.Add(10 * time.Second)
			s, _ = Step(s, w.look(10*time.Second))
		}
		if !s.Quiet() || len(s.Held()) > 0 {
			t.Errorf("still held: %v, levels %+v", s.Held(), s.gauges)
		}
		if slices.ContainsFunc(w.all, func(c Container) bool { return c.Class.Batch() }) && !held {
			t.Log("this world never held anything")
		}
	})
}

// TestFlappingEndsInAStableState lets loads come and go with random periods. First the pressure
// does not depend on what is held, which is the worst case: in the last two of ten hours there is
// no action. Then the pressure goes away with what is held, and only a try per GiveBackMost is
// left, without which the end of the pressure would not be seen.
func TestFlappingEndsInAStableState(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("relieved %v", closed), func(t *testing.T) {
			each(t, func(t *testing.T, w *world) { flap(t, w, closed) })
		})
	}
}

func flap(t *testing.T, w *world, closed bool) {
	s := New(Config{})
	most := s.config.GiveBackMost
	busy := time.Duration(1+w.IntN(60)) * time.Second
	quiet := time.Duration(1+w.Int64N(int64(most/time.Second))) * time.Second
	web := premier("/web", 1000, gib).using(1000, gib)
	job := batch("/batch", 100, 0).using(2000, 10*mib) // too small to be evicted for memory
	last := map[time.Duration]int{}
	interval := time.Second
	for at := time.Duration(0); at < 10*time.Hour; at += interval {
		p := Pressure{}
		interval = min(10*time.Second, busy+quiet-at%(busy+quiet)) // no busy time is missed
		if at%(busy+quiet) < busy {
			interval = time.Second
			p.CPU.Some.Avg10, p.Memory.Some.Avg10 = 15, 50
			if closed {
				p.Memory.Some.Avg10 = float64(max(0, 40-20*s.Level(Memory)))
			}
		}
		web.Pressure = &p
		var actions []Action
		s, actions = Step(s, Observation{
			At: start.Add(at), Containers: []Container{web, job},
		})
		for _, a := range actions {
			if a.Do != DoNothing {
				last[at/(2*time.Hour)]++
			}
		}
	}
	allowed := 0
	if closed {
		allowed = int(2 * (2*time.Hour/most + 1))
	}
	if n := last[4]; n > allowed {
		t.Errorf("%d actions in the last two hours: busy %s, quiet %s, %v", n, busy, quiet, last)
	}
}

func TestStepIsDeterministicAndLeavesItsArgumentsAlone(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s := New(Config{})
		for range 500 {
			o := w.observe()
			before := slices.Clone(o.Containers)
			next, actions := Step(s, o)
			// Another step from the same state, with a copy of the state held elsewhere.
			other := o
			other.Machine, other.Containers = Pressure{}, nil
			Step(s, other)
			s.Failed(Action{Do: DoThrottle, Container: "/c1"})
			next.Failed(Action{Do: DoThrottle, Container: "/c1"})
			shuffled := o
			shuffled.Containers = slices.Clone(o.Containers)
			w.Shuffle(len(shuffled.Containers), func(i, j int) {
				all := shuffled.Containers
				all[i], all[j] = all[j], all[i]
			})
			again, repeated := Step(s, shuffled)
			for _, a := range [][]Action{actions, repeated} {
				for i := range a { // of equal pressures the first container is named
					a[i].From = ""
				}
			}
			if !reflect.DeepEqual(actions, repeated) || !reflect.DeepEqual(next, again) {
				t.Fatalf("the same input: %v, then %v", actions, repeated)
			}
			if !reflect.DeepEqual(before, o.Containers) {
				t.Fatal("the observation was changed")
			}
			for _, a := range actions {
				if a.Do == DoEvict {
					w.remove(a.Container)
				}
			}
			s = next
		}
	})
}

func TestObservationsOutOfOrderAreIgnored(t *testing.T) {
	t.Parallel()
	s, _ := Step(New(Config{}), Observation{At: start})
	next, actions := Step(s, Observation{At: start.Add(-time.Second)})
	if len(actions) != 1 || actions[0].Cause != Backwards || !reflect.DeepEqual(s, next) {
		t.Errorf("got %v", actions)
	}
}

func TestTotalsAreMoreExactThanAverages(t *testing.T) {
	t.Parallel()
	before := Averages{Avg10: 80, Total: time.Second}
	for _, tt := range []struct {
		now     Averages
		elapsed time.Duration
		want    float64
	}{
		{Averages{Avg10: 80, Total: 1500 * time.Millisecond}, time.Second, 50},
		{Averages{Avg10: 80, Total: time.Second}, time.Second, 0},
		{Averages{Avg10: 80, Total: 9 * time.Second}, time.Second, 100},
		{Averages{Avg10: 80, Total: 2 * time.Second}, 11 * time.Second, 80},
		{Averages{Avg10: 80}, time.Second, 80},           // no total, or a new group of the name
		{Averages{Avg10: 80, Total: time.Second}, 0, 80}, // the first observation
		{Averages{Avg10: 101}, 0, 100},
	} {
		if got := tt.now.over(before, tt.elapsed); got != tt.want {
			t.Errorf("%+v over %s: got %v, want %v", tt.now, tt.elapsed, got, tt.want)
		}
	}
}

func TestReleaseGivesEverythingBack(t *testing.T) {
	t.Parallel()
	for seed := range uint64(seeds) {
		w, s, have := newWorld(seed), New(Config{}), applied{}
		for range 50 {
			var actions []Action
			o := w.observe()
			s, actions = Step(s, o)
			have.forget(o.Containers)
			for _, a := range actions {
				have.do(a)
			}
		}
		s, actions := s.Release()
		for _, a := range actions {
			have.do(a)
		}
		if len(have) > 0 || len(s.Held()) > 0 {
			t.Errorf("seed %d: still held %v", seed, have)
		}
	}
}

func TestFallingPressureIsNotWaitedForWithoutEnd(t *testing.T) {
	t.Parallel()
	web, s := premier("/web", 0, 0).using(0, 0), New(Config{})
	var evicted time.Duration
	percent := 100.0
	for at := time.Duration(0); at < 10*time.Second && evicted == 0; at += time.Second {
		web.Pressure = &Pressure{Memory: Stall{Some: Averages{Avg10: percent}}}
		percent *= 0.88
		var actions []Action
		s, actions = Step(s, Observation{
			At: start.Add(at), Containers: []Container{web, batch("/b", 0, 0).using(0, gib)},
		})
		if actions[len(actions)-1].Do == DoEvict {
			evicted = at
		}
	}
	// The last level is reached after one second.
	if want := (1 + patience) * time.Second; evicted != want {
		t.Errorf("evicted after %s, want %s", evicted, want)
	}
}
