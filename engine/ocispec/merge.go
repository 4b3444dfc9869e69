package ocispec

import "github.com/opencontainers/runtime-spec/specs-go"

// MergeResources puts the limits that are set in b over those of a.
func MergeResources(a, b specs.LinuxResources) specs.LinuxResources {
	out := a
	if b.Memory != nil {
		m := specs.LinuxMemory{}
		if a.Memory != nil {
			m = *a.Memory
		}
		over(&m.Limit, b.Memory.Limit)
		over(&m.Swap, b.Memory.Swap)
		over(&m.Reservation, b.Memory.Reservation)
		over(&m.Swappiness, b.Memory.Swappiness)
		over(&m.DisableOOMKiller, b.Memory.DisableOOMKiller)
		out.Memory = &m
	}
	if b.CPU != nil {
		c := specs.LinuxCPU{}
		if a.CPU != nil {
			c = *a.CPU
		}
		over(&c.Shares, b.CPU.Shares)
		over(&c.Quota, b.CPU.Quota)
		over(&c.Period, b.CPU.Period)
		over(&c.RealtimePeriod, b.CPU.RealtimePeriod)
		over(&c.RealtimeRuntime, b.CPU.RealtimeRuntime)
		over(&c.Burst, b.CPU.Burst)
		over(&c.Idle, b.CPU.Idle)
		if b.CPU.Cpus != "" {
			c.Cpus = b.CPU.Cpus
		}
		if b.CPU.Mems != "" {
			c.Mems = b.CPU.Mems
		}
		out.CPU = &c
	}
	if b.Pids != nil {
		out.Pids = b.Pids
	}
	if b.BlockIO != nil {
		out.BlockIO = MergeBlockIO(a.BlockIO, b.BlockIO)
	}
	if len(b.Unified) > 0 {
		out.Unified = map[string]string{}
		for k, v := range a.Unified {
			out.Unified[k] = v
		}
		for k, v := range b.Unified {
			out.Unified[k] = v
		}
	}
	return out
}

func over[T any](dst **T, v *T) {
	if v != nil {
		*dst = v
	}
}
