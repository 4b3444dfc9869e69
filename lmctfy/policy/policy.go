// Package policy decides which resource containers a machine takes, and what is taken from batch
// containers when latency-sensitive ones suffer: the layer above lmctfy's containers ("CL2" in its
// documents) that lmctfy announced and did not ship.
//
// It promises:
//   - Admit gives a latency-sensitive container (PREMIER, PRIORITY) what it reserves, or refuses it
//     with the numbers. The sum of reservations never exceeds the machine. Batch containers
//     (NORMAL, BEST_EFFORT) are admitted against what is used, up to a bounded overcommit.
//   - Step throttles batch containers under pressure and evicts one of them at a time if that was
//     not enough; without pressure it gives everything back, in steps. A load that comes and goes
//     lengthens the time before something is given back, so that it ends in a stable state.
//   - PREMIER and PRIORITY containers are never throttled or evicted, and neither is a batch
//     container above one of them.
//
// All functions are pure: time comes in with each Observation, the same input gives the same
// output, and no argument is changed.
//
// Not for: reading or writing the kernel's files (package driver), or enforcing a container's own
// limits, which its specification does without pressure.
//
// Tested by tables, and by properties of seeded random traces.
package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"strake/internal/message"
)

// Class is a container's latency class, numbered as scheduling_latency of lmctfy's ContainerSpec
// is (include/lmctfy.proto). The zero value stands for PRIORITY, which lmctfy's code takes for a
// container whose specification names none.
type Class int

const (
	BestEffort Class = iota + 1
	Normal
	Priority
	Premier
)

var classNames = []string{"", "BEST_EFFORT", "NORMAL", "PRIORITY", "PREMIER"}

// ParseClass reads the name of a class as ContainerSpec spells it; "" is PRIORITY.
// Any other word is errdefs.ErrInvalidArgument.
func ParseClass(name string) (Class, error) {
	if name == "" {
		return Priority, nil
	}
	if i := slices.Index(classNames, strings.ToUpper(name)); i > 0 {
		return Class(i), nil
	}
	return 0, message.New(
		errdefs.ErrInvalidArgument, "class %q: one of %s is allowed", name,
		strings.Join(classNames[1:], ", "),
	)
}

// String returns the name that ParseClass reads.
func (c Class) String() string {
	if c <= 0 || int(c) >= len(classNames) {
		return classNames[Priority]
	}
	return classNames[c]
}

// MarshalText and UnmarshalText make a class its name in JSON.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func (c *Class) UnmarshalText(b []byte) (err error) {
	*c, err = ParseClass(string(b))
	return err
}

// Batch says whether containers of the class live on what others leave.
func (c Class) Batch() bool { return c == BestEffort || c == Normal }

// Amount is a quantity of both resources that are admitted: CPU time in thousandths of a CPU, and
// memory in bytes.
type Amount struct {
	CPUMilli    int64 `json:"cpu_milli,omitempty"`
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
}

// Machine is what there is to give.
type Machine struct {
	Amount
	// Reserve is kept for the system itself and never given to a container.
	Reserve Amount `json:"reserve,omitzero"`
	// OvercommitPercent bounds what containers may ask for together, reservations and the asks of
	// batch containers, in percent of the machine without its reserve. 0 is DefaultOvercommit;
	// less than 100 is an error.
	OvercommitPercent int64 `json:"overcommit_percent,omitempty"`
}

// DefaultOvercommit is the overcommit of a machine that names none.
const DefaultOvercommit = 150

// DefaultEvictionPriority is that of a container whose specification names none, and
// MaxEvictionPriority the largest (MemorySpec.eviction_priority).
const (
	DefaultEvictionPriority = 5000
	MaxEvictionPriority     = 10000
)

// Container is a container or a request for one.
type Container struct {
	// Name is absolute ("/batch/index"). The container's parent is the longest name of another
	// container that this name continues after a slash; "/" is the machine and no container.
	Name  string `json:"name"`
	Class Class  `json:"class,omitempty"`
	// CPULimitMilli is the CPU time that the container may count on when others want it as well
	// (CpuSpec.limit, which becomes a weight), CPUMaxMilli what it may use at most
	// (CpuSpec.max_limit, a quota). 0: none.
	CPULimitMilli int64 `json:"cpu_limit_milli,omitempty"`
	CPUMaxMilli   int64 `json:"cpu_max_milli,omitempty"`
	// MemoryLimitBytes is the most that it may use (MemorySpec.limit), MemoryReservationBytes
	// what it keeps when memory is short (MemorySpec.reservation). 0: none.
	MemoryLimitBytes       int64 `json:"memory_limit_bytes,omitempty"`
	MemoryReservationBytes int64 `json:"memory_reservation_bytes,omitempty"`
	// EvictionPriority is 0 to 10000. A container with a higher one is evicted later
	// (MemorySpec.eviction_priority). 0 is the lowest, not the default.
	EvictionPriority int `json:"eviction_priority"`
	// Started is when the container was made; of equal candidates the youngest is evicted, since
	// the least of its work is lost. Zero: unknown, taken for the oldest.
	Started time.Time `json:"started,omitzero"`
	// Usage is what it and the containers below it use now; Measured says that Usage is known. A
	// container that was not measured yet counts with what it asks for.
	Usage    Amount `json:"usage,omitzero"`
	Measured bool   `json:"measured,omitempty"`
	// Pressure is the pressure that the processes of this container feel, if its group has files
	// for it; nil otherwise.
	Pressure *Pressure `json:"pressure,omitempty"`
}

// Asks returns what a container wants to be sure of: its CPU limit, and its memory reservation or,
// without one, its memory limit. What a specification does not name is not asked for.
func (c Container) Asks() Amount {
	return Amount{c.CPULimitMilli, cmp.Or(c.MemoryReservationBytes, c.MemoryLimitBytes)}
}

// uses is what a container counts with when it is measured against what is used.
func (c Container) uses() Amount {
	if c.Measured {
		return c.Usage
	}
	return c.Asks()
}

// Below says whether a container's name is under that of another, at any depth.
func (c Container) Below(name string) bool {
	return strings.HasPrefix(c.Name, strings.TrimSuffix(name, "/")+"/") && c.Name != name
}

// Validate returns errdefs.ErrInvalidArgument naming the field, its value and what is allowed.
func (c Container) Validate() error {
	bad := func(field string, value any, allowed string) error {
		return message.New(
			errdefs.ErrInvalidArgument, "container %q: %s %v: %s", c.Name, field, value, allowed,
		)
	}
	if err := validName(c.Name); err != nil {
		return err
	}
	if c.Class < 0 || c.Class > Premier {
		return bad("class", int(c.Class), "1 to 4 is allowed")
	}
	if c.EvictionPriority < 0 || c.EvictionPriority > MaxEvictionPriority {
		return bad("eviction_priority", c.EvictionPriority, "0 to 10000 is allowed")
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"cpu_limit_milli", c.CPULimitMilli}, {"cpu_max_milli", c.CPUMaxMilli},
		{"memory_limit_bytes", c.MemoryLimitBytes},
		{"memory_reservation_bytes", c.MemoryReservationBytes},
		{"usage.cpu_milli", c.Usage.CPUMilli}, {"usage.memory_bytes", c.Usage.MemoryBytes},
	} {
		if f.value < 0 || f.value > maxAmount {
			return bad(f.name, f.value, fmt.Sprintf("0 to %d is allowed", maxAmount))
		}
	}
	if c.CPUMaxMilli > 0 && c.CPUMaxMilli < c.CPULimitMilli {
		return bad("cpu_max_milli", c.CPUMaxMilli, fmt.Sprintf(
			"at least cpu_limit_milli, %d, is allowed", c.CPULimitMilli,
		))
	}
	if c.MemoryLimitBytes > 0 && c.MemoryLimitBytes < c.MemoryReservationBytes {
		return bad("memory_limit_bytes", c.MemoryLimitBytes, fmt.Sprintf(
			"at least memory_reservation_bytes, %d, is allowed", c.MemoryReservationBytes,
		))
	}
	return nil
}

// maxAmount bounds amounts so that neither the sum over thousands of containers nor the overcommit
// of a machine overflows.
const maxAmount = 1 << 48

// validName checks an absolute name by the characters of lmctfy (README, "Container Names").
func validName(name string) error {
	elements := strings.Split(name, "/")
	good := len(elements) > 1 && elements[0] == ""
	strange := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("_.-", r))
	}
	for _, e := range elements[1:] {
		good = good && e != "" && e != "." && e != ".." && !strings.ContainsFunc(e, strange)
	}
	if !good {
		return message.New(
			errdefs.ErrInvalidArgument, "name %q: an absolute name such as /a/b of letters, "+
				"digits, _, . and - is allowed", name,
		)
	}
	return nil
}

// Validate returns errdefs.ErrInvalidArgument naming the field, its value and what is allowed.
func (m Machine) Validate() error {
	bad := func(field string, value int64, allowed string) error {
		return message.New(
			errdefs.ErrInvalidArgument, "machine: %s %d: %s", field, value, allowed,
		)
	}
	switch {
	case m.CPUMilli <= 0 || m.CPUMilli > maxAmount:
		return bad("cpu_milli", m.CPUMilli, fmt.Sprintf("1 to %d is allowed", maxAmount))
	case m.MemoryBytes <= 0 || m.MemoryBytes > maxAmount:
		return bad("memory_bytes", m.MemoryBytes, fmt.Sprintf("1 to %d is allowed", maxAmount))
	case m.Reserve.CPUMilli < 0 || m.Reserve.CPUMilli >= m.CPUMilli:
		return bad("reserve.cpu_milli", m.Reserve.CPUMilli, fmt.Sprintf(
			"0 to less than cpu_milli, %d, is allowed", m.CPUMilli,
		))
	case m.Reserve.MemoryBytes < 0 || m.Reserve.MemoryBytes >= m.MemoryBytes:
		return bad("reserve.memory_bytes", m.Reserve.MemoryBytes, fmt.Sprintf(
			"0 to less than memory_bytes, %d, is allowed", m.MemoryBytes,
		))
	case m.OvercommitPercent != 0 && (m.OvercommitPercent < 100 || m.OvercommitPercent > 10000):
		return bad("overcommit_percent", m.OvercommitPercent, "100 to 10000 is allowed")
	}
	return nil
}
