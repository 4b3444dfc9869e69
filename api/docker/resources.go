package docker

import (
	"fmt"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
)

// resourcesOf translates limits to those of the runtime-spec (config-linux.md, Control groups).
func resourcesOf(s *engine.Spec, r *container.Resources, on host) error {
	var mem specs.LinuxMemory
	set := func(field string, value int64, min int64, to **int64) error {
		if value == 0 {
			return nil
		}
		if value < min {
			return invalid("%s %d: want at least %d", field, value, min)
		}
		*to = &value
		return nil
	}
	if err := set("Memory", r.Memory, 512<<10, &mem.Limit); err != nil {
		return invalid("Minimum memory limit allowed is 512KiB")
	}
	if err := set("MemoryReservation", r.MemoryReservation, 512<<10, &mem.Reservation); err != nil {
		return err
	}
	switch {
	case r.MemorySwap > 0 && r.Memory == 0:
		return invalid(
			"You should always set the Memory limit when using Memoryswap limit, see usage",
		)
	case r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return invalid(
			"Minimum memory limit can not be less than memory reservation limit, see usage",
		)
	case r.MemorySwap < -1:
		return invalid("MemorySwap %d: want -1, 0 or a size", r.MemorySwap)
	}
	if swap := swapOf(r); swap != 0 {
		mem.Swap = &swap
	}
	if v := r.MemorySwappiness; v != nil && *v != -1 {
		if *v < 0 || *v > 100 {
			return invalid("invalid value: %d, valid memory swappiness range is 0-100", *v)
		}
		n := uint64(*v)
		mem.Swappiness = &n
	}
	mem.DisableOOMKiller = r.OomKillDisable
	if mem.DisableOOMKiller != nil && !*mem.DisableOOMKiller {
		mem.DisableOOMKiller = nil
	}
	if mem != (specs.LinuxMemory{}) {
		s.Resources.Memory = &mem
	}
	if err := cpuOf(s, r, on.cpus); err != nil {
		return err
	}
	if p := r.PidsLimit; p != nil && *p > 0 {
		s.Resources.Pids = &specs.LinuxPids{Limit: p}
	}
	return blockIOOf(s, r, on.blockDevice)
}

// swapOf is the limit of memory and swap together, in bytes: dockerd's default is as much swap as
// memory.
func swapOf(r *container.Resources) int64 {
	if r.MemorySwap == 0 && r.Memory > 0 {
		return 2 * r.Memory
	}
	return r.MemorySwap
}

func cpuOf(s *engine.Spec, r *container.Resources, cpus int) error {
	var cpu specs.LinuxCPU
	switch {
	case r.NanoCPUs < 0:
		return invalid("NanoCpus %d: want 0 or more", r.NanoCPUs)
	case r.NanoCPUs > 0 && (r.CPUPeriod > 0 || r.CPUQuota > 0):
		return invalid("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
	case r.CPUShares < 0:
		return invalid(
			"invalid CPU shares (%d): value must be a positive integer", r.CPUShares,
		)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return invalid(
			"CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
		)
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.NanoCPUs > 0:
		period := uint64(100000)
		quota := r.NanoCPUs * int64(period) / 1e9
		if quota < 1000 || r.NanoCPUs > int64(cpus)*1e9 {
			return invalid(
				"Range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available: "+
					"NanoCpus is %d",
				cpus, cpus, r.NanoCPUs,
			)
		}
		cpu.Period, cpu.Quota = &period, &quota
	}
	if r.CPUShares > 0 {
		v := uint64(r.CPUShares)
		cpu.Shares = &v
	}
	if r.CPUPeriod > 0 {
		v := uint64(r.CPUPeriod)
		cpu.Period = &v
	}
	if r.CPUQuota != 0 {
		cpu.Quota = &r.CPUQuota
	}
	if r.CPURealtimePeriod > 0 {
		v := uint64(r.CPURealtimePeriod)
		cpu.RealtimePeriod = &v
	}
	if r.CPURealtimeRuntime != 0 {
		cpu.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	cpu.Cpus, cpu.Mems = r.CpusetCpus, r.CpusetMems
	if cpu != (specs.LinuxCPU{}) {
		s.Resources.CPU = &cpu
	}
	return nil
}

func blockIOOf(
	s *engine.Spec, r *container.Resources,
	number func(path string) (major, minor int64, err error),
) error {
	var io specs.LinuxBlockIO
	used := false
	if r.BlkioWeight != 0 {
		if r.BlkioWeight < 10 || r.BlkioWeight > 1000 {
			return invalid("Range of blkio weight is from 10 to 1000")
		}
		io.Weight, used = &r.BlkioWeight, true
	}
	// An update with an empty list, unlike one without it, removes the limits.
	if r.BlkioWeightDevice != nil {
		io.WeightDevice, used = []specs.LinuxWeightDevice{}, true
	}
	for _, d := range r.BlkioWeightDevice {
		major, minor, err := number(d.Path)
		if err != nil {
			return err
		}
		w := specs.LinuxWeightDevice{Weight: &d.Weight}
		w.Major, w.Minor = major, minor
		io.WeightDevice, used = append(io.WeightDevice, w), true
	}
	for _, t := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &io.ThrottleReadBpsDevice},
		{r.BlkioDeviceWriteBps, &io.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &io.ThrottleReadIOPSDevice},
		{r.BlkioDeviceWriteIOps, &io.ThrottleWriteIOPSDevice},
	} {
		if t.from != nil {
			*t.to, used = []specs.LinuxThrottleDevice{}, true
		}
		for _, d := range t.from {
			major, minor, err := number(d.Path)
			if err != nil {
				return err
			}
			dev := specs.LinuxThrottleDevice{Rate: d.Rate}
			dev.Major, dev.Minor = major, minor
			*t.to, used = append(*t.to, dev), true
		}
	}
	if used {
		s.Resources.BlockIO = &io
	}
	return nil
}

// parseSize reads 10m, 1GiB or 4096.
func parseSize(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil {
		return 0, err
	}
	if n < 0 {
		return 0, fmt.Errorf("want 0 or more")
	}
	return n, nil
}
