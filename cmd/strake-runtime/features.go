package main

import (
	"context"
	"flag"
	"fmt"
	"sort"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"strake/container"
)

func (a *app) features(_ context.Context, fs *flag.FlagSet, args []string) (int, error) {
	if err := fs.Parse(args); err != nil {
		return 1, err
	}
	if fs.NArg() > 0 {
		return 1, fmt.Errorf("features: unexpected argument %q", fs.Arg(0))
	}
	yes, no := true, false
	can := container.Capabilities()
	mountOptions := append([]string(nil), can.MountOptions...)
	sort.Strings(mountOptions)
	return 0, a.printJSON(features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks: []string{
			"prestart", "createRuntime", "createContainer", "startContainer", "poststart",
			"poststop",
		},
		MountOptions: mountOptions,
		Linux: &features.Linux{
			Namespaces:   can.Namespaces,
			Capabilities: can.Capabilities,
			Cgroup: &features.Cgroup{
				V1: &yes, V2: &yes, Systemd: &no, SystemdUser: &no, Rdma: &yes,
			},
			Seccomp: &features.Seccomp{
				Enabled: &yes, Actions: can.SeccompActions, Operators: can.SeccompOperators,
				Archs:      can.SeccompArchs,
				KnownFlags: can.SeccompFlags, SupportedFlags: can.SeccompFlags,
			},
			Apparmor: &features.Apparmor{Enabled: &yes},
			Selinux:  &features.Selinux{Enabled: &yes},
			IntelRdt: &features.IntelRdt{Enabled: &no},
			MemoryPolicy: &features.MemoryPolicy{
				Modes: can.MemoryModes, Flags: can.MemoryFlags,
			},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			NetDevices:      &features.NetDevices{Enabled: &yes},
		},
	})
}
