package task

import (
	"context"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/launch"
	"strake/container/plan"
)

// Groups makes control groups for one owner.
type Groups interface {
	// Create makes the group name below parent ("" for the owner's own) with limits. It is gone
	// again if there is an error.
	Create(
		ctx context.Context, parent, name string, res *specs.LinuxResources,
	) (Group, error)
	// Path is where Create would make a group, whether it exists or not.
	Path(parent, name string) (string, error)
	// Enforced takes out of the limits what this host can never enforce, and dockerd drops with a
	// warning: what only version 1 has.
	Enforced(res *specs.LinuxResources) (warnings []string)
	// At names a group by what Group.Path returned, whether it exists or not.
	At(path string) (Group, error)
	// Sweep removes the owner's groups below its own parent for which keep says false, with the
	// processes in them; without keep all of them and the parent.
	Sweep(ctx context.Context, keep func(name string) bool) error
}

// Group is the control group of one task. Its methods may be called concurrently.
type Group interface {
	// Path names the group for At and for specs.Linux.CgroupsPath.
	Path() string
	// Entry opens what a process enters the group by; release closes it.
	Entry() (entry launch.Entry, release func(), err error)
	// EntryBy is Entry into the group below this one that a process of the task is in, as a systemd
	// in a container makes it; version 2 then refuses others in the group itself. If the process is
	// in none that is errdefs.ErrNotFound.
	EntryBy(pid int) (entry launch.Entry, release func(), err error)
	// Hierarchies describes the group for the task's own /sys/fs/cgroup.
	Hierarchies() []plan.Hierarchy
	Update(ctx context.Context, res *specs.LinuxResources) error
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	Pids() ([]int, error)
	Stats() (Stats, error)
	// OOMKills counts the processes that the kernel killed for want of memory.
	OOMKills() (uint64, error)
	// Remove kills what is left in the group and removes it. A group that does not exist is no
	// error.
	Remove(ctx context.Context) error
}

// Stats is one reading of a running task. Times are totals in nanoseconds, sizes bytes.
type Stats struct {
	Time     time.Time
	CPU      CPUStats
	Memory   MemoryStats
	Pids     uint64
	PidsMax  uint64 // 0: unlimited
	IO       []IOEntry
	Networks map[string]NetworkStats // by interface name in the task's namespace
}

// CPUStats is processor time. SystemNanos is that of the whole host, for percentages as Docker
// computes them.
type CPUStats struct {
	TotalNanos, UserNanos, KernelNanos, SystemNanos uint64
	OnlineCPUs                                      int
	Periods, ThrottledPeriods, ThrottledNanos       uint64
}

// MemoryStats is memory use; Stat holds the kernel's memory.stat under its own names.
type MemoryStats struct {
	Usage, Limit, MaxUsage, Failcnt uint64
	Stat                            map[string]uint64
}

// IOEntry counts one operation ("read", "write") on one device.
type IOEntry struct {
	Major, Minor uint64
	Op           string
	Bytes, Count uint64
}

// NetworkStats counts from the task's side.
type NetworkStats struct {
	RxBytes, RxPackets, RxErrors, RxDropped, TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// NoGroup stands for the group of a task that has none, or one that cannot be named: whatever is
// asked of it fails with Err, except for its removal.
type NoGroup struct{ Err error }

func (g NoGroup) Path() string { return "" }
func (g NoGroup) Entry() (launch.Entry, func(), error) {
	return launch.Nowhere(), func() {}, g.Err
}
func (g NoGroup) EntryBy(int) (launch.Entry, func(), error) {
	return launch.Nowhere(), func() {}, g.Err
}
func (g NoGroup) Hierarchies() []plan.Hierarchy                       { return nil }
func (g NoGroup) Update(context.Context, *specs.LinuxResources) error { return g.Err }
func (g NoGroup) Freeze(context.Context) error                        { return g.Err }
func (g NoGroup) Thaw(context.Context) error                          { return g.Err }
func (g NoGroup) Pids() ([]int, error)                                { return nil, g.Err }
func (g NoGroup) Stats() (Stats, error)                               { return Stats{}, g.Err }
func (g NoGroup) OOMKills() (uint64, error)                           { return 0, g.Err }
func (g NoGroup) Remove(context.Context) error                        { return nil }
