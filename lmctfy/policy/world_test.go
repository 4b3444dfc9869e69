package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// seeds is how many random worlds each property is tried in.
const seeds = 60

// world makes random observations: containers that come and go, and pressure in phases.
type world struct {
	*rand.Rand
	at       time.Time
	all      []Container
	seen     map[string]bool // in the previous observation; names are not given again at once
	phase    time.Time       // when the pressure changes next
	pressure [resources]float64
	full     float64
	totals   bool // pressure is given by totals, in place of averages
	sum      Pressure
}

func newWorld(seed uint64) *world {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 7)), at: start}
	w.totals = w.IntN(2) == 0
	for range 1 + w.IntN(8) {
		w.add()
	}
	return w
}

func (w *world) name() string {
	name := fmt.Sprintf("/c%d", w.IntN(6))
	for range w.IntN(3) {
		name += fmt.Sprintf("/c%d", w.IntN(3))
	}
	return name
}

func (w *world) add() {
	c := Container{
		Name: w.name(), Class: Class(w.IntN(5)), EvictionPriority: w.IntN(3) * 5000,
		CPULimitMilli: w.Int64N(2000), MemoryReservationBytes: w.Int64N(gib),
		Started: w.at.Add(-time.Duration(w.IntN(1000)) * time.Second), Measured: w.IntN(10) > 0,
	}
	if !w.seen[c.Name] && !slices.ContainsFunc(w.all, func(o Container) bool { return o.Name == c.Name }) {
		w.all = append(w.all, c)
	}
}

func (w *world) observe() Observation {
	w.at = w.at.Add(time.Duration(500+w.IntN(1000)) * time.Millisecond)
	return w.look(time.Second)
}

// look returns what there is to see after a time.
func (w *world) look(elapsed time.Duration) Observation {
	if w.at.After(w.phase) {
		w.phase = w.at.Add(time.Duration(1+w.IntN(90)) * time.Second)
		w.full = w.Float64() * 60 * float64(w.IntN(2))
		for r := range w.pressure {
			w.pressure[r] = w.Float64() * 100 * float64(w.IntN(2))
		}
	}
	switch w.IntN(30) {
	case 0:
		w.add()
	case 1:
		if len(w.all) > 1 {
			i := w.IntN(len(w.all))
			w.all = slices.Delete(w.all, i, i+1)
		}
	}
	w.seen = map[string]bool{}
	for i := range w.all {
		w.seen[w.all[i].Name] = true
		w.all[i].Usage = Amount{w.Int64N(4000), w.Int64N(2 * gib)}
	}
	grow := func(a *Averages, percent float64) {
		a.Avg10 = percent
		if w.totals {
			a.Total += time.Duration(float64(elapsed) * percent / 100)
		}
	}
	grow(&w.sum.CPU.Some, w.pressure[CPU])
	grow(&w.sum.Memory.Some, w.pressure[Memory])
	grow(&w.sum.Memory.Full, min(w.full, w.pressure[Memory]))
	grow(&w.sum.IO.Some, w.pressure[IO])
	o := Observation{At: w.at, Containers: slices.Clone(w.all), Machine: w.sum}
	for i := range o.Containers {
		if c := &o.Containers[i]; strings.HasSuffix(c.Name, "1") {
			p := w.sum
			c.Pressure = &p
		}
	}
	return o
}

// remove carries out an eviction.
func (w *world) remove(name string) {
	w.all = slices.DeleteFunc(w.all, func(c Container) bool {
		return c.Name == name || c.Below(name)
	})
}

// applied follows what a driver would have set by the actions alone.
type applied map[string]Hold

func (h applied) do(a Action) {
	now := h[a.Container]
	switch a.Do {
	case DoThrottle, DoUnthrottle:
		now.CPUMilli, now.MemoryHighBytes = a.Hold.CPUMilli, a.Hold.MemoryHighBytes
	case DoSetWeight:
		now.CPUWeight, now.IOWeight = a.Hold.CPUWeight, a.Hold.IOWeight
	default:
		return
	}
	if h[a.Container] = now; now == (Hold{}) {
		delete(h, a.Container)
	}
}

// forget drops containers that are gone.
func (h applied) forget(all []Container) {
	for name := range h {
		if !slices.ContainsFunc(all, func(c Container) bool { return c.Name == name }) {
			delete(h, name)
		}
	}
}

func each(t *testing.T, property func(t *testing.T, w *world)) {
	t.Parallel()
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			property(t, newWorld(seed))
		})
	}
}
