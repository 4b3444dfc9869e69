// Package simulate replays traces against the policy of package policy and says what would have
// been admitted, throttled and evicted, when and why.
//
// A trace is JSON lines, each with the time at_ms in milliseconds, in order, and one of:
//
//	{"at_ms":0,"machine":{"cpu_milli":4000,"memory_bytes":8589934592},"config":{…},
//	 "interval_ms":1000,"pressure":"group"}   the first line; all but the machine may be left out
//	{"at_ms":0,"request":{"name":"/web","class":"PREMIER",…}}   a container asks to be admitted
//	{"at_ms":0,"load":{"name":"/web","cpu_milli":1500,"memory_bytes":1073741824}}   what it wants
//	{"at_ms":9000,"exit":"/web"}                  it ends
//	{"at_ms":60000,"end":true}                    the last line
//	{"at_ms":0,"observe":{…}}                     a recorded policy.Observation
//
// Machine, config, request and observe are the JSON of policy.Machine, Config, Container and
// Observation. A trace with observations, as `policy run -record` writes it, is replayed as it
// was: actions do not change what comes next. Otherwise a model of a machine (see Run) turns loads
// into usage and pressure, and feels the actions.
//
// It promises that the same trace gives the same output.
//
// Not for: predicting what a real machine does to the percent. The model has the right directions
// (less CPU and less memory make queues longer), not a kernel's numbers.
//
// Tested by golden output of three traces, with and without the policy, and a fuzz test of the
// reader.
package simulate

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"

	"strake/internal/message"
	"strake/lmctfy/policy"
)

// Line is one line of a trace.
type Line struct {
	AtMillis int64 `json:"at_ms"`

	Machine *policy.Machine `json:"machine,omitempty"`
	Config  *policy.Config  `json:"config,omitempty"`
	// IntervalMillis is the time between two observations of the model, 1000 if it is 0.
	IntervalMillis int64 `json:"interval_ms,omitempty"`
	// Pressure says what pressure the model shows: that of each container ("group", the default),
	// of the machine alone ("machine"), or version 1 levels of the machine ("v1").
	Pressure string `json:"pressure,omitempty"`

	Request *policy.Container   `json:"request,omitempty"`
	Load    *Load               `json:"load,omitempty"`
	Exit    string              `json:"exit,omitempty"`
	Observe *policy.Observation `json:"observe,omitempty"`
	End     bool                `json:"end,omitempty"`
}

// Load is what a container wants from now on.
type Load struct {
	Name        string `json:"name"`
	CPUMilli    int64  `json:"cpu_milli,omitempty"`
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
	// CachePercent of its memory can be reclaimed and is read again.
	CachePercent int64 `json:"cache_percent,omitempty"`
	// ServiceMicros, if set, makes it a server whose requests take that long on an idle machine.
	ServiceMicros int64 `json:"service_us,omitempty"`
}

// Trace is a trace in memory; its first line has the machine.
type Trace struct{ Lines []Line }

const (
	maxLine  = 4 << 20
	maxLines = 1 << 20
	// maxSteps bounds how many observations a trace asks the model for.
	maxSteps = 1 << 20
)

// Read reads a trace. Errors name the line; those of the content are errdefs.ErrInvalidArgument.
func Read(r io.Reader) (*Trace, error) {
	t := &Trace{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxLine)
	for n := 1; sc.Scan(); n++ {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		if len(t.Lines) == maxLines {
			return nil, bad(n, "more than %d lines", maxLines)
		}
		var l Line
		d := json.NewDecoder(bytes.NewReader(sc.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil {
			return nil, bad(n, "%w", err)
		}
		if d.More() {
			return nil, bad(n, "more than one value in a line")
		}
		if err := t.check(l); err != nil {
			return nil, bad(n, "%w", err)
		}
		t.Lines = append(t.Lines, l)
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return nil, bad(len(t.Lines)+1, "longer than %d bytes", maxLine)
	}
	if sc.Err() != nil {
		return nil, sc.Err()
	}
	if len(t.Lines) == 0 {
		return nil, bad(1, "the trace is empty")
	}
	if last := t.Lines[len(t.Lines)-1]; !last.End && !t.recorded() {
		return nil, bad(len(t.Lines), `the last line has to be {"at_ms":…,"end":true}`)
	}
	return t, nil
}

func bad(line int, format string, args ...any) error {
	return message.New(
		errdefs.ErrInvalidArgument, "trace line %d: %w", line, fmt.Errorf(format, args...),
	)
}

// check checks a line by itself and against those before it.
func (t *Trace) check(l Line) error {
	kinds := 0
	for _, has := range []bool{
		l.Machine != nil, l.Request != nil, l.Load != nil, l.Exit != "", l.Observe != nil, l.End,
	} {
		if has {
			kinds++
		}
	}
	if kinds != 1 {
		return fmt.Errorf(
			"%d of machine, request, load, exit, observe and end: exactly 1 is allowed", kinds,
		)
	}
	if (len(t.Lines) == 0) != (l.Machine != nil) {
		return errors.New("machine: the first line has it, and no other")
	}
	if l.Machine == nil && (l.Config != nil || l.IntervalMillis != 0 || l.Pressure != "") {
		return errors.New("config, interval_ms and pressure belong to the first line")
	}
	if n := len(t.Lines); n > 0 && l.AtMillis < t.Lines[n-1].AtMillis {
		return fmt.Errorf("at_ms %d: at least %d is allowed", l.AtMillis, t.Lines[n-1].AtMillis)
	}
	if n := len(t.Lines); n > 0 && t.Lines[n-1].End {
		return errors.New("a line after the end")
	}
	switch {
	case l.Machine != nil:
		return l.header()
	case l.Request != nil:
		return l.Request.Validate()
	case l.Load != nil:
		return l.Load.validate()
	case l.Observe != nil:
		for _, c := range l.Observe.Containers {
			if err := c.Validate(); err != nil {
				return err
			}
		}
	}
	if steps := (l.AtMillis - t.Lines[0].AtMillis) / t.interval(); l.End && steps > maxSteps {
		return fmt.Errorf("at_ms %d: %d observations, at most %d are allowed",
			l.AtMillis, steps, maxSteps)
	}
	return nil
}

func (l Line) header() error {
	if l.AtMillis < 0 {
		return fmt.Errorf("at_ms %d: at least 0 is allowed", l.AtMillis)
	}
	if l.IntervalMillis < 0 || l.IntervalMillis > 3600_000 {
		return fmt.Errorf("interval_ms %d: 0 to 3600000 is allowed", l.IntervalMillis)
	}
	switch l.Pressure {
	case "", "group", "machine", "v1":
	default:
		return fmt.Errorf("pressure %q: one of group, machine, v1 is allowed", l.Pressure)
	}
	if l.Config != nil {
		if err := l.Config.Validate(); err != nil {
			return err
		}
	}
	return l.Machine.Validate()
}

func (l Load) validate() error {
	c := policy.Container{
		Name: l.Name, Usage: policy.Amount{CPUMilli: l.CPUMilli, MemoryBytes: l.MemoryBytes},
	}
	if err := c.Validate(); err != nil {
		return err
	}
	if p := l.CachePercent; p < 0 || p > 100 {
		return fmt.Errorf("load %q: cache_percent %d: 0 to 100 is allowed", l.Name, p)
	}
	if us := l.ServiceMicros; us < 0 || us > 3600_000_000 {
		return fmt.Errorf("load %q: service_us %d: 0 to 3600000000 is allowed", l.Name, us)
	}
	return nil
}

func (t *Trace) interval() int64 {
	if i := t.Lines[0].IntervalMillis; i > 0 {
		return i
	}
	return 1000
}

// recorded says whether the trace has observations.
func (t *Trace) recorded() bool {
	for _, l := range t.Lines {
		if l.Observe != nil {
			return true
		}
	}
	return false
}

// Write writes the trace as Read reads it.
func (t *Trace) Write(w io.Writer) error {
	e := json.NewEncoder(w)
	for _, l := range t.Lines {
		if err := e.Encode(l); err != nil {
			return err
		}
	}
	return nil
}
