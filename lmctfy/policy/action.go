package policy

import (
	"fmt"
	"strings"
	"time"
)

// Do is what an Action asks for.
type Do int

const (
	// DoNothing: the observation calls for no action; Cause says why.
	DoNothing Do = iota
	// DoAdmit and DoRefuse carry a Decision.
	DoAdmit
	DoRefuse
	// DoThrottle limits a container to the CPU quota and memory.high of Hold; a 0 in it is what the
	// container's specification says.
	DoThrottle
	// DoUnthrottle gives both back to what the specification says.
	DoUnthrottle
	// DoSetWeight sets the weights of Hold; a 0 in it is what the specification says.
	DoSetWeight
	// DoEvict ends the container and all below it.
	DoEvict
)

var doNames = []string{
	"nothing", "admit", "refuse", "throttle", "unthrottle", "weight", "evict",
}

func (d Do) String() string { return doNames[d] }

// MarshalText makes an action's kind its name in JSON.
func (d Do) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Cause says why a Step does nothing.
type Cause string

const (
	// Calm: no pressure, and nothing is held back.
	Calm Cause = "calm"
	// Waiting: the pressure is high, but not yet for long enough, or the last level or eviction
	// has not had its time to show an effect.
	Waiting Cause = "waiting"
	// Holding: batch containers are held back; the pressure has not been low for long enough.
	Holding Cause = "holding"
	// Exhausted: the pressure is high, and no batch container uses so much of the resource that
	// its end would help.
	Exhausted Cause = "exhausted"
	// Backwards: the observation is older than the one before and is ignored.
	Backwards Cause = "backwards"
)

// Hold is what a container is held to. A zero is what its specification says.
type Hold struct {
	// CPUMilli is a quota in thousandths of a CPU.
	CPUMilli int64 `json:"cpu_milli,omitempty"`
	// MemoryHighBytes is the usage above which the container is made to reclaim (cgroup-v2.rst,
	// memory.high; on version 1 a soft limit comes closest).
	MemoryHighBytes int64 `json:"memory_high_bytes,omitempty"`
	// CPUWeight and IOWeight are 1 to 10000 as in cpu.weight and io.weight.
	CPUWeight int `json:"cpu_weight,omitempty"`
	IOWeight  int `json:"io_weight,omitempty"`
}

// Action is what the driver has to do after a Step, in order, with the numbers that led to it.
type Action struct {
	Do        Do     `json:"do"`
	Container string `json:"container,omitempty"`
	Hold      Hold   `json:"hold,omitzero"`
	Cause     Cause  `json:"cause,omitempty"`

	// Resource was under Pressure percent, in the container From or on the machine ("/"). Sign says
	// how that compares with Mark ("<=", "<", ">="), and For since how long. Level is that of the
	// resource after the step.
	Resource Resource      `json:"resource"`
	Pressure float64       `json:"pressure"`
	Sign     string        `json:"sign,omitempty"`
	Mark     float64       `json:"mark"`
	From     string        `json:"from,omitempty"`
	For      time.Duration `json:"for_ns,omitempty"`
	Level    int           `json:"level"`

	// Priority and Over, in the unit of the resource, are why this container was evicted and not
	// another.
	Priority int   `json:"priority,omitempty"`
	Over     int64 `json:"over,omitempty"`

	// Decision belongs to DoAdmit and DoRefuse.
	Decision *Decision `json:"decision,omitempty"`
}

// Action returns the decision as an action.
func (d Decision) Action() Action {
	do := DoRefuse
	if d.Admitted {
		do = DoAdmit
	}
	return Action{Do: do, Container: d.Name, Decision: &d}
}

// String returns the action with its numbers as one line.
func (a Action) String() string {
	if a.Decision != nil {
		return a.Decision.String()
	}
	var b strings.Builder
	b.WriteString(a.Do.String())
	if a.Container != "" {
		b.WriteString(" " + a.Container)
	}
	switch a.Do {
	case DoNothing:
		b.WriteString(" (" + string(a.Cause) + ")")
	case DoThrottle:
		if a.Hold.CPUMilli > 0 {
			b.WriteString(" cpu=" + CPU.Format(a.Hold.CPUMilli))
		}
		if a.Hold.MemoryHighBytes > 0 {
			b.WriteString(" memory.high=" + Memory.Format(a.Hold.MemoryHighBytes))
		}
	case DoSetWeight:
		fmt.Fprintf(&b, " cpu=%s io=%s", weight(a.Hold.CPUWeight), weight(a.Hold.IOWeight))
	case DoEvict:
		fmt.Fprintf(
			&b, " (priority %d, %s over its reservation)", a.Priority, a.Resource.Format(a.Over),
		)
	}
	if a.From == "" {
		return b.String()
	}
	fmt.Fprintf(
		&b, ": %s pressure %.1f%% %s %g%% for %s in %s, level %d",
		a.Resource, a.Pressure, a.Sign, a.Mark, a.For.Round(time.Millisecond), a.From, a.Level,
	)
	return b.String()
}

func weight(w int) string {
	if w == 0 {
		return "own"
	}
	return fmt.Sprint(w)
}
