package engine

import "slices"

// DefaultMaskedPaths are the paths that a container cannot see unless its Spec says otherwise, but
// for the thermal counters of each processor, which depend on the host.
func DefaultMaskedPaths() []string { return slices.Clone(maskedPaths) }

// DefaultReadonlyPaths are the paths that a container cannot write unless its Spec says otherwise.
func DefaultReadonlyPaths() []string { return slices.Clone(readonlyPaths) }
