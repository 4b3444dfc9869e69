package policy

import "fmt"

// Resource is one of the things that run short.
type Resource int

const (
	CPU Resource = iota
	Memory
	IO
	resources
)

var resourceNames = [resources]string{"cpu", "memory", "io"}

func (r Resource) String() string { return resourceNames[r] }

// MarshalText makes a resource its name in JSON.
func (r Resource) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Format writes an amount of a resource: CPU as "1500m", memory in the largest unit with which at
// most one decimal is lost ("512MiB", "1.5GiB").
func (r Resource) Format(v int64) string {
	if r == CPU {
		return fmt.Sprintf("%dm", v)
	}
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	size, i := float64(v), 0
	for (size >= 1024 || size <= -1024) && i < len(units)-1 {
		size /= 1024
		i++
	}
	if size == float64(int64(size)) {
		return fmt.Sprintf("%d%s", int64(size), units[i])
	}
	return fmt.Sprintf("%.1f%s", size, units[i])
}

// of picks a resource of an amount.
func (r Resource) of(a Amount) int64 {
	if r == CPU {
		return a.CPUMilli
	}
	return a.MemoryBytes
}
