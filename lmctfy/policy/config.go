package policy

import (
	"cmp"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"strake/internal/message"
)

// Marks bound the pressure of a resource, in percent of time lost by waiting (0 to 100).
type Marks struct {
	// High: batch containers are held back after the pressure was at or above it for
	// Config.RaiseAfter. Low: they are given back after it was at or below it for
	// Config.GiveBackAfter. In between nothing changes.
	High float64 `json:"high"`
	Low  float64 `json:"low"`
}

// Config says when Step acts. The zero value of a field is its default.
type Config struct {
	// Marks per resource. The defaults are 20 and 10 for CPU, 10 and 1 for memory, 30 and 5 for IO.
	CPU    Marks `json:"cpu,omitzero"`
	Memory Marks `json:"memory,omitzero"`
	IO     Marks `json:"io,omitzero"`
	// CriticalPercent of time in which some process waits for memory, or half as much in which all
	// do, is thrashing: Step goes to the last level without those between. Default 20: a server
	// that loses a fifth of its time has long latencies already.
	CriticalPercent float64 `json:"critical_percent,omitempty"`
	// PlentyPercent of the machine's memory available means that memory pressure comes from
	// limits, and is not acted on. Default 25; 100 acts on all pressure.
	PlentyPercent float64 `json:"plenty_percent,omitempty"`
	// RaiseAfter is how long pressure lasts before the level is raised, and the time that each
	// level gets to show its effect before the next. Default 1 s.
	RaiseAfter time.Duration `json:"raise_after_ns,omitempty"`
	// GiveBackAfter is how long there has to be no pressure before the level is lowered by one.
	// It is doubled each time that a level is raised within GiveBackMost of having been lowered.
	// Default 1 min.
	GiveBackAfter time.Duration `json:"give_back_after_ns,omitempty"`
	// GiveBackMost bounds the doubling. A load that comes and goes with a shorter period ends in a
	// state that does not change. Default 32 min.
	GiveBackMost time.Duration `json:"give_back_most_ns,omitempty"`
	// CoolDown is the least time between two evictions, so that the effect of one is seen before
	// the next. Default 10 s.
	CoolDown time.Duration `json:"cool_down_ns,omitempty"`
	// LeastCPUMilli is the smallest quota that a container is throttled to. Default 50.
	LeastCPUMilli int64 `json:"least_cpu_milli,omitempty"`
	// LeastMemoryBytes is the smallest memory.high that a container is throttled to, and the use
	// below which evicting it is of no help. Default 16 MiB.
	LeastMemoryBytes int64 `json:"least_memory_bytes,omitempty"`
}

// WithDefaults returns the configuration with defaults in place of zeros.
func (c Config) WithDefaults() Config {
	c.CPU = cmp.Or(c.CPU, Marks{20, 10})
	c.Memory = cmp.Or(c.Memory, Marks{10, 1})
	c.IO = cmp.Or(c.IO, Marks{30, 5})
	c.CriticalPercent = cmp.Or(c.CriticalPercent, 20)
	c.PlentyPercent = cmp.Or(c.PlentyPercent, 25)
	c.RaiseAfter = cmp.Or(c.RaiseAfter, time.Second)
	c.GiveBackAfter = cmp.Or(c.GiveBackAfter, time.Minute)
	c.GiveBackMost = cmp.Or(c.GiveBackMost, max(32*time.Minute, c.GiveBackAfter))
	c.CoolDown = cmp.Or(c.CoolDown, 10*time.Second)
	c.LeastCPUMilli = cmp.Or(c.LeastCPUMilli, 50)
	c.LeastMemoryBytes = cmp.Or(c.LeastMemoryBytes, 16<<20)
	return c
}

// Validate returns errdefs.ErrInvalidArgument naming the field, its value and what is allowed.
func (c Config) Validate() error {
	bad := func(field string, value any, allowed string) error {
		return message.New(
			errdefs.ErrInvalidArgument, "policy: %s %v: %s", field, value, allowed,
		)
	}
	c = c.WithDefaults()
	for r := range resources {
		m := c.marks(r)
		if !(m.High > 0 && m.High <= 100) {
			return bad(r.String()+".high", m.High, "more than 0, at most 100 is allowed")
		}
		if !(m.Low >= 0 && m.Low < m.High) {
			return bad(r.String()+".low", m.Low, fmt.Sprintf(
				"0 to less than %s.high, %g, is allowed", r, m.High,
			))
		}
	}
	if !(c.CriticalPercent > 0 && c.CriticalPercent <= 100) {
		return bad("critical_percent", c.CriticalPercent, "more than 0, at most 100 is allowed")
	}
	if !(c.PlentyPercent > 0 && c.PlentyPercent <= 100) {
		return bad("plenty_percent", c.PlentyPercent, "more than 0, at most 100 is allowed")
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"raise_after", c.RaiseAfter}, {"give_back_after", c.GiveBackAfter},
		{"cool_down", c.CoolDown},
	} {
		if d.value < 0 || d.value > 24*time.Hour {
			return bad(d.name, d.value, "0 to 24h is allowed")
		}
	}
	if c.GiveBackMost < c.GiveBackAfter {
		return bad("give_back_most", c.GiveBackMost, fmt.Sprintf(
			"at least give_back_after, %s, is allowed", c.GiveBackAfter,
		))
	}
	if c.LeastCPUMilli < 0 {
		return bad("least_cpu_milli", c.LeastCPUMilli, "at least 0 is allowed")
	}
	if c.LeastMemoryBytes < 0 {
		return bad("least_memory_bytes", c.LeastMemoryBytes, "at least 0 is allowed")
	}
	return nil
}

func (c Config) marks(r Resource) Marks { return [...]Marks{c.CPU, c.Memory, c.IO}[r] }
