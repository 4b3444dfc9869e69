package container

import (
	"strake/container/capability"
	"strake/container/plan"
	"strake/container/seccomp"
)

// Features is what this package can do, in the words of the runtime-spec's features document.
type Features struct {
	Namespaces, Capabilities, MountOptions                       []string
	SeccompActions, SeccompOperators, SeccompArchs, SeccompFlags []string
	MemoryModes, MemoryFlags                                     []string
}

// Capabilities says what this build can do; what a kernel lacks shows when it is asked for.
func Capabilities() Features {
	s := seccomp.Known()
	return Features{
		Namespaces:     plan.Namespaces(),
		Capabilities:   capability.Names(),
		MountOptions:   plan.MountOptions(),
		SeccompActions: s.Actions, SeccompOperators: s.Operators, SeccompArchs: s.Archs,
		SeccompFlags: s.Flags,
		MemoryModes:  plan.MemoryModes(), MemoryFlags: plan.MemoryFlags(),
	}
}
