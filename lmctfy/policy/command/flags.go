package command

import (
	"flag"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"strake/internal/message"
	"strake/lmctfy/policy"
)

// size is a flag of bytes, as "512MiB".
type size int64

func (s *size) String() string { return policy.Memory.Format(int64(*s)) }

func (s *size) Set(text string) error {
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 {
		return message.New(errdefs.ErrInvalidArgument, "a size such as 512MiB is allowed")
	}
	*s = size(n)
	return nil
}

// policyFlags adds the fields of a configuration, with their defaults.
func policyFlags(f *flag.FlagSet) *policy.Config {
	c := policy.Config{}.WithDefaults()
	for _, r := range []struct {
		name  string
		marks *policy.Marks
	}{{"cpu", &c.CPU}, {"memory", &c.Memory}, {"io", &c.IO}} {
		f.Float64Var(&r.marks.High, r.name+"-high", r.marks.High,
			"hold batch containers back at this pressure, in `percent`")
		f.Float64Var(&r.marks.Low, r.name+"-low", r.marks.Low,
			"give back at or below this pressure, in `percent`")
	}
	f.Float64Var(&c.CriticalPercent, "critical", c.CriticalPercent,
		"memory pressure in `percent` at which the last level is next")
	f.Float64Var(&c.PlentyPercent, "plenty", c.PlentyPercent,
		"`percent` of memory available above which memory pressure comes from limits")
	f.DurationVar(&c.RaiseAfter, "raise-after", c.RaiseAfter,
		"how long pressure lasts before the next level")
	f.DurationVar(&c.GiveBackAfter, "give-back-after", c.GiveBackAfter,
		"how long there is no pressure before a level is given back")
	f.DurationVar(&c.GiveBackMost, "give-back-most", c.GiveBackMost,
		"the longest time that relapses make of it")
	f.DurationVar(&c.CoolDown, "cool-down", c.CoolDown, "the least time between two evictions")
	f.Int64Var(&c.LeastCPUMilli, "least-cpu-milli", c.LeastCPUMilli,
		"the smallest quota, in `thousandths` of a CPU")
	f.Var((*size)(&c.LeastMemoryBytes), "least-memory",
		"the smallest memory.high, and what is not worth an eviction, in `bytes`")
	return &c
}

// zeros are flags that may be 0.
var zeros = []string{
	"cpu-low", "memory-low", "io-low", "reserve-cpu-milli", "reserve-memory", "seed",
}

// machineFlags adds what describes a machine; the default is this one.
func machineFlags(f *flag.FlagSet) *policy.Machine {
	m := &policy.Machine{OvercommitPercent: policy.DefaultOvercommit}
	m.CPUMilli = int64(runtime.NumCPU()) * 1000
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		m.MemoryBytes = int64(info.Totalram) * int64(info.Unit)
	}
	f.Int64Var(&m.CPUMilli, "cpu-milli", m.CPUMilli, "`thousandths` of CPUs of the machine")
	f.Var((*size)(&m.MemoryBytes), "memory", "memory of the machine, in `bytes`")
	f.Int64Var(&m.Reserve.CPUMilli, "reserve-cpu-milli", 0, "`thousandths` kept for the system")
	f.Var((*size)(&m.Reserve.MemoryBytes), "reserve-memory", "`bytes` kept for the system")
	f.Int64Var(&m.OvercommitPercent, "overcommit", m.OvercommitPercent,
		"what may be asked for together, in `percent` of the machine")
	return m
}
