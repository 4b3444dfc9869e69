package engine

import (
	"testing"

	"strake/container/plan"
)

// BenchmarkPlan is what the engine computes for a start: the configuration and its program.
func BenchmarkPlan(b *testing.B) {
	h := &hostState{}
	in := plainInput(&Spec{})
	in.Profile = h.profile
	b.ReportAllocs()
	for b.Loop() {
		cfg, err := ociSpec(in)
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
