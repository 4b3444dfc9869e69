package ocispec

import (
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/plan"
	"strake/engine"
)

// BenchmarkPlan is what the engine computes for a start: the configuration and its program.
func BenchmarkPlan(b *testing.B) {
	// The supervisor remembers the default profile: making it costs more than all the rest.
	var made *specs.LinuxSeccomp
	in := plainInput(&engine.Spec{})
	in.Profile = func(cfg *specs.Spec) (_ *specs.LinuxSeccomp, err error) {
		if made == nil {
			made, err = seccomp.GetDefaultProfile(cfg)
		}
		return made, err
	}
	b.ReportAllocs()
	for b.Loop() {
		cfg, err := Make(in)
		if err != nil {
			b.Fatal(err)
		}
		p, err := plan.Init(
			cfg,
			plan.Options{
				Host: plan.Host{LastCap: 40}, Stdio: plan.Pipes, Tasks: 9,
				Overlay: &plan.Overlay{
					Lower: []string{"/l"}, Upper: "/u", Work: "/w", Target: "/run/rootfs",
				},
			},
		)
		if err != nil {
			b.Fatal(err)
		}
		p.Encode()
	}
}
