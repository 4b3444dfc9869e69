package policy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestStep plays testdata/step/*.txt. A file is scenarios of lines:
//
//	scenario WHAT IS SHOWN
//	set NAME class=… cpu=MILLI mem=MIB limit=… max=… reservation=MIB memlimit=MIB priority=… age=…
//	gone NAME
//	failed NAME             the driver could not do the last action of the container
//	for 10s NAME cpu=… memory=… io=… full=… level=… available=PERCENT
//	                        one observation a second; "/" is the machine
//
// Lines that begin with ">" are what Step answered, with the second; a DoNothing of the same cause
// as the one before is left out.
func TestStep(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/step/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := playStep(t, string(b))
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(b) {
				t.Errorf("%s: got\n%s", name, got)
			}
		})
	}
}

// start is when all scenarios begin.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// scriptConfig is that of the scripts.
var scriptConfig = Config{
	CriticalPercent: 40,
	RaiseAfter:      5 * time.Second, GiveBackAfter: 30 * time.Second, CoolDown: 15 * time.Second,
}

type stepScript struct {
	t     *testing.T
	state State
	all   []Container
	at    time.Time
	last  map[string]Action
	cause Cause
	out   strings.Builder
}

func playStep(t *testing.T, text string) string {
	s := &stepScript{t: t}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, ">") {
			continue
		}
		s.out.WriteString(line)
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		switch words[0] {
		case "scenario":
			s.state, s.all, s.at, s.cause = New(scriptConfig), nil, start, ""
			s.last = map[string]Action{}
		case "set":
			s.set(words[1], words[2:])
		case "gone":
			s.all = slices.DeleteFunc(s.all, func(c Container) bool { return c.Name == words[1] })
		case "failed":
			s.state = s.state.Failed(s.last[words[1]])
		case "for":
			s.observe(words[1], words[2], words[3:])
		default:
			t.Fatalf("line %q", line)
		}
	}
	return s.out.String()
}

func (s *stepScript) set(name string, words []string) {
	i := slices.IndexFunc(s.all, func(c Container) bool { return c.Name == name })
	if i < 0 {
		i = len(s.all)
		s.all = append(s.all, Container{
			Name: name, EvictionPriority: DefaultEvictionPriority, Measured: true,
			Started: s.at.Add(-time.Hour),
		})
	}
	c := &s.all[i]
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		n, _ := strconv.ParseInt(v, 10, 64)
		switch k {
		case "class":
			var err error
			if c.Class, err = ParseClass(v); err != nil {
				s.t.Fatal(err)
			}
		case "cpu":
			c.Usage.CPUMilli = n
		case "mem":
			c.Usage.MemoryBytes = n << 20
		case "limit":
			c.CPULimitMilli = n
		case "max":
			c.CPUMaxMilli = n
		case "reservation":
			c.MemoryReservationBytes = n << 20
		case "memlimit":
			c.MemoryLimitBytes = n << 20
		case "priority":
			c.EvictionPriority = int(n)
		case "age":
			d, err := time.ParseDuration(v)
			if err != nil {
				s.t.Fatal(err)
			}
			c.Started = s.at.Add(-d)
		default:
			s.t.Fatalf("set %s", w)
		}
	}
}

func (s *stepScript) observe(span, name string, words []string) {
	d, err := time.ParseDuration(span)
	if err != nil {
		s.t.Fatal(err)
	}
	var p Pressure
	var available, total int64
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		f, _ := strconv.ParseFloat(v, 64)
		switch k {
		case "cpu":
			p.CPU.Some.Avg10 = f
		case "memory":
			p.Memory.Some.Avg10 = f
		case "full":
			p.Memory.Full.Avg10 = f
		case "io":
			p.IO.Some.Avg10 = f
		case "available":
			available, total = int64(f), 100
		case "level":
			if err := p.Level.UnmarshalText([]byte(v)); err != nil {
				s.t.Fatal(err)
			}
		default:
			s.t.Fatalf("for %s", w)
		}
	}
	for i := range s.all {
		if s.all[i].Pressure = nil; s.all[i].Name == name {
			s.all[i].Pressure = &p
		}
	}
	for range int(d / time.Second) {
		s.at = s.at.Add(time.Second)
		o := Observation{
			At: s.at, Containers: s.all, AvailableBytes: available, TotalBytes: total,
		}
		if name == "/" {
			o.Machine = p
		}
		var actions []Action
		s.state, actions = Step(s.state, o)
		for _, a := range actions {
			if a.Do == DoNothing && a.Cause == s.cause {
				continue
			}
			s.cause, s.last[a.Container] = a.Cause, a
			fmt.Fprintf(&s.out, "> %3.0fs %s\n", s.at.Sub(start).Seconds(), a)
		}
	}
}
