package policy

import (
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"strake/internal/message"
)

// Pressure is what processes lost by waiting for resources, as pressure stall information (PSI)
// gives it (kernel Documentation/accounting/psi.rst), or the level that version 1 memory cgroups
// notify.
type Pressure struct {
	CPU    Stall `json:"cpu,omitzero"`
	Memory Stall `json:"memory,omitzero"`
	IO     Stall `json:"io,omitzero"`
	// Level is the highest level of memory.pressure_level that was notified since the previous
	// observation (kernel Documentation/admin-guide/cgroup-v1/memory.rst, section 11). It is used
	// where there is no PSI.
	Level Level `json:"level,omitempty"`
}

// Stall is one file of PSI. Some is the time in which at least one process waited, Full that in
// which all did.
type Stall struct {
	Some Averages `json:"some,omitzero"`
	Full Averages `json:"full,omitzero"`
}

// Averages are a line of a file of PSI: percentages over 10, 60 and 300 seconds, and the sum of all
// stalls since boot.
type Averages struct {
	Avg10  float64       `json:"avg10,omitempty"`
	Avg60  float64       `json:"avg60,omitempty"`
	Avg300 float64       `json:"avg300,omitempty"`
	Total  time.Duration `json:"total_ns,omitempty"`
}

// over returns the share of the time since an earlier observation that was lost, in percent. It is
// exact where totals are known. Where they are not, and after more than ten seconds, of which only
// the last count, it is Avg10.
func (a Averages) over(before Averages, elapsed time.Duration) float64 {
	if elapsed > 0 && elapsed <= 10*time.Second && before.Total > 0 && a.Total >= before.Total {
		return min(100, 100*float64(a.Total-before.Total)/float64(elapsed))
	}
	return min(100, max(0, a.Avg10))
}

func (p Pressure) stall(r Resource) Stall {
	return [...]Stall{p.CPU, p.Memory, p.IO}[r]
}

// Level is a level of version 1 memory pressure.
type Level int

const (
	// NoLevel: nothing was notified.
	NoLevel Level = iota
	// Low: the kernel reclaims memory, with ease.
	Low
	// Medium: it swaps or drops page cache that is in use.
	Medium
	// Critical: the machine thrashes and is about to run out of memory.
	Critical
)

var levelNames = []string{"", "low", "medium", "critical"}

// String returns the kernel's word for a level, "" for none.
func (l Level) String() string { return levelNames[min(max(0, int(l)), len(levelNames)-1)] }

// MarshalText and UnmarshalText make a level its name in JSON.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

func (l *Level) UnmarshalText(b []byte) error {
	for i, name := range levelNames {
		if name == string(b) {
			*l = Level(i)
			return nil
		}
	}
	return message.New(
		errdefs.ErrInvalidArgument, "level %q: one of %s is allowed", b,
		strings.Join(levelNames[1:], ", "),
	)
}
