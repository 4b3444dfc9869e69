package cgroup

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Hosts as the pure part sees them.
var (
	hostOne = places{
		one: []string{
			"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb",
		},
	}
	hostTwo = places{
		unified: true,
		two: func() []string {
			return []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"}
		},
	}
)

func TestPlan(t *testing.T) {
	t.Parallel()
	device := specs.LinuxBlockIODevice{Major: 8, Minor: 16}
	for _, c := range []struct {
		name     string
		res      specs.LinuxResources
		one, two []string // "file=value", or one "error: text"
	}{
		{name: "nothing"},
		{
			"memory",
			specs.LinuxResources{
				Memory: &specs.LinuxMemory{
					Limit: ptr(int64(1 << 20)), Swap: ptr(int64(3 << 20)),
					Reservation: ptr(int64(1 << 19)),
				},
			},
			[]string{
				"memory.limit_in_bytes=1048576", "memory.memsw.limit_in_bytes=3145728",
				"memory.soft_limit_in_bytes=524288",
			},
			[]string{"memory.swap.max=2097152", "memory.max=1048576", "memory.low=524288"},
		},
		{
			name: "unlimited memory of a new group",
			res:  specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}},
		},
		{
			"less swap than memory",
			specs.LinuxResources{
				Memory: &specs.LinuxMemory{Limit: ptr(int64(2 << 20)), Swap: ptr(int64(1 << 20))},
			},
			[]string{"error: linux.resources.memory.swap: 1048576: want the sum"},
			[]string{"error: linux.resources.memory.swap: 1048576: want the sum"},
		},
		{
			"swappiness",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(10))}},
			[]string{"memory.swappiness=10"},
			[]string{"error: linux.resources.memory.swappiness: 10: only version 1"},
		},
		{
			"cpu",
			specs.LinuxResources{
				CPU: &specs.LinuxCPU{
					Shares: ptr(uint64(1024)), Period: ptr(uint64(100000)),
					Quota: ptr(int64(50000)), Burst: ptr(uint64(1000)), Cpus: "0",
				},
			},
			[]string{
				"cpu.shares=1024", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000",
				"cpu.cfs_burst_us=1000", "cpuset.cpus=0",
			},
			[]string{
				"cpu.weight=100", "cpu.max=50000 100000", "cpu.max.burst=1000", "cpuset.cpus=0",
			},
		},
		{
			"cpu idle",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(1)), Shares: ptr(uint64(2))}},
			[]string{"cpu.shares=2", "cpu.idle=1"}, []string{"cpu.weight=1", "cpu.idle=1"},
		},
		{
			"quota too small", specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(1))}},
			[]string{"error: linux.resources.cpu.quota: 1: want at least 1000"},
			[]string{"error: linux.resources.cpu.quota: 1: want at least 1000"},
		},
		{
			"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(7))}},
			[]string{"pids.max=7"}, []string{"pids.max=7"},
		},
		{
			"throttles of one device", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
				ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{
					{LinuxBlockIODevice: device, Rate: 9},
				},
				ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{
					{LinuxBlockIODevice: device, Rate: 7},
				},
			}},
			[]string{
				"blkio.throttle.read_bps_device=8:16 9", "blkio.throttle.write_iops_device=8:16 7",
			},
			[]string{"io.max=8:16 rbps=9 wiops=7"},
		},
		{
			"weight", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(1000))}},
			[]string{"blkio.weight=1000"}, []string{"io.bfq.weight=1000"},
		},
		{
			"huge pages",
			specs.LinuxResources{
				HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
			},
			[]string{
				"hugetlb.2MB.limit_in_bytes=4194304", "hugetlb.2MB.rsvd.limit_in_bytes=4194304",
			},
			[]string{"hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max=4194304"},
		},
		{
			"rdma",
			specs.LinuxResources{
				Rdma: map[string]specs.LinuxRdma{"mlx5": {HcaHandles: ptr(uint32(3))}},
			},
			[]string{
				`error: linux.resources.rdma["mlx5"]: mlx5 hca_handle=3: this host has no ` +
					`cgroup controller "rdma"`,
			},
			[]string{"rdma.max=mlx5 hca_handle=3"},
		},
		{
			"unified",
			specs.LinuxResources{
				Unified: map[string]string{"memory.high": "1", "io.max": "8:0 rbps=1\n8:16 rbps=2"},
			},
			[]string{
				`error: linux.resources.unified["io.max"]: invalid configuration: this host has ` +
					`no cgroup2 controller "io"`,
			},
			[]string{"io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "memory.high=1"},
		},
		{
			"unified outside",
			specs.LinuxResources{Unified: map[string]string{"../memory.high": "1"}},
			[]string{
				`error: linux.resources.unified["../memory.high"]: "1": want a name of the form`,
			},
			[]string{
				`error: linux.resources.unified["../memory.high"]: "1": want a name of the form`,
			},
		},
		{
			"unified processes",
			specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}},
			[]string{`error: linux.resources.unified["cgroup.procs"]: "1": want a limit`},
			[]string{`error: linux.resources.unified["cgroup.procs"]: "1": want a limit`},
		},
		{
			"class", specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))}},
			[]string{"error: linux.resources.network.classID: 1: only version 1"},
			[]string{"error: linux.resources.network.classID: 1: only version 1"},
		},
	} {
		for _, host := range []struct {
			name string
			at   places
			want []string
		}{{"version 1", hostOne, c.one}, {"version 2", hostTwo, c.two}} {
			in, err := plan(&c.res, host.at, current{fresh: true})
			var got []string
			if err != nil {
				got = []string{"error: " + err.Error()}
				if !errors.Is(err, errdefs.ErrInvalidArgument) &&
					!errors.Is(err, errdefs.ErrFailedPrecondition) {
					t.Errorf("%s, %s: class of %v", c.name, host.name, err)
				}
				if len(host.want) == 1 && strings.HasPrefix(got[0], host.want[0]) {
					continue
				}
			}
			for _, w := range in.writes {
				got = append(got, w.file+"="+w.value)
			}
			if !reflect.DeepEqual(got, host.want) {
				t.Errorf("%s, %s:\n got %q\nwant %q", c.name, host.name, got, host.want)
			}
		}
	}
}

// TestPlanUpdate turns limits of a group that has some.
func TestPlanUpdate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		res  specs.LinuxResources
		cur  current
		want []string
	}{
		{
			"lift the limit",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}}, current{},
			[]string{"memory.swap.max=max", "memory.max=max"},
		},
		{
			"swap beside the limit in force",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(5 << 20))}},
			current{memoryMax: 4 << 20}, []string{"memory.swap.max=1048576"},
		},
		{
			"a period keeps the quota",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(20000))}},
			current{cpuMax: "5000"}, []string{"cpu.max=5000 20000"},
		},
		{
			"a quota alone", specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1))}},
			current{cpuMax: "5000"}, []string{"cpu.max=max"},
		},
		{
			"no limit of processes",
			specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, current{},
			[]string{"pids.max=max"},
		},
	} {
		in, err := plan(&c.res, hostTwo, c.cur)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []string
		for _, w := range in.writes {
			got = append(got, w.file+"="+w.value)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// TestWeight holds the three points that shares and weights agree on, and that more shares are
// never less weight.
func TestWeight(t *testing.T) {
	t.Parallel()
	for shares, want := range map[uint64]uint64{
		0: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000,
	} {
		if got := weightOf(shares); got != want {
			t.Errorf("weight of %d shares: %d, want %d", shares, got, want)
		}
	}
	last := uint64(0)
	for s := uint64(2); s <= 262144; s += 7 {
		if w := weightOf(s); w < last || w > 10000 {
			t.Fatalf("weight of %d shares: %d after %d", s, w, last)
		} else {
			last = w
		}
	}
}
