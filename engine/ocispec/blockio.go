package ocispec

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// throttles are the four kinds of limits on devices.
func throttles(b *specs.LinuxBlockIO) [4]*[]specs.LinuxThrottleDevice {
	return [4]*[]specs.LinuxThrottleDevice{
		&b.ThrottleReadBpsDevice, &b.ThrottleWriteBpsDevice, &b.ThrottleReadIOPSDevice,
		&b.ThrottleWriteIOPSDevice,
	}
}

// MergeBlockIO puts what is set in b over a. A list replaces a list, an empty one too.
func MergeBlockIO(a, b *specs.LinuxBlockIO) *specs.LinuxBlockIO {
	out := specs.LinuxBlockIO{}
	if a != nil {
		out = *a
	}
	over(&out.Weight, b.Weight)
	over(&out.LeafWeight, b.LeafWeight)
	if b.WeightDevice != nil {
		out.WeightDevice = b.WeightDevice
	}
	from, to := throttles(b), throttles(&out)
	for i := range from {
		if *from[i] != nil {
			*to[i] = *from[i]
		}
	}
	return &out
}

// defaultWeight is the share of a device that the kernel gives a group (bfq-iosched.rst).
const defaultWeight uint16 = 100

// Lift completes an update for a group that has the limits of old: devices that are in a list no
// longer get what they had before any limit.
func Lift(old, update *specs.LinuxBlockIO) *specs.LinuxBlockIO {
	if old == nil || update == nil {
		return update
	}
	out := *update
	if update.WeightDevice != nil {
		out.WeightDevice = slices.Clone(update.WeightDevice)
		for _, d := range old.WeightDevice {
			if !slices.ContainsFunc(
				update.WeightDevice,
				func(x specs.LinuxWeightDevice) bool { return x.LinuxBlockIODevice == d.LinuxBlockIODevice },
			) {
				weight := defaultWeight
				out.WeightDevice = append(
					out.WeightDevice,
					specs.LinuxWeightDevice{
						LinuxBlockIODevice: d.LinuxBlockIODevice, Weight: &weight,
					},
				)
			}
		}
	}
	had, to := throttles(old), throttles(&out)
	for i := range to {
		if *to[i] == nil {
			continue
		}
		list := slices.Clone(*to[i])
		for _, d := range *had[i] {
			if !slices.ContainsFunc(
				list,
				func(x specs.LinuxThrottleDevice) bool { return x.LinuxBlockIODevice == d.LinuxBlockIODevice },
			) {
				// no rate: no limit
				list = append(
					list, specs.LinuxThrottleDevice{LinuxBlockIODevice: d.LinuxBlockIODevice},
				)
			}
		}
		*to[i] = list
	}
	return &out
}
