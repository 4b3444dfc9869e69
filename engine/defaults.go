package engine

import "slices"

// DefaultMaskedPaths are the paths that a container cannot see unless its Spec says otherwise, but
// for the thermal counters of each processor, which depend on the host.
func DefaultMaskedPaths() []string { return slices.Clone(maskedPaths) }

// DefaultReadonlyPaths are the paths that a container cannot write unless its Spec says otherwise.
func DefaultReadonlyPaths() []string { return slices.Clone(readonlyPaths) }

var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
	"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
	"/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
}

var readonlyPaths = []string{
	"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
}
