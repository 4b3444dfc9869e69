package seccomp

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func BenchmarkCompileMobyDefault(b *testing.B) {
	cfg := mobyProfile(b)
	b.ReportAllocs()
	var f *Filter
	for b.Loop() {
		var err error
		if f, err = Compile(cfg, Options{Arch: "amd64"}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(f.Insns)), "instructions")
}

// BenchmarkInstructionsPerCall measures what the kernel executes for a call: the mean over all
// x86_64 numbers that exist, and over those with conditions, which are the ones that it does not
// remember as always allowed; beside them a filter that compares one number after the other.
func BenchmarkInstructionsPerCall(b *testing.B) {
	cfg := mobyProfile(b)
	f := mustCompile(b, cfg, "amd64")
	linear := linearFilter(b, cfg)
	mean := func(prog []unix.SockFilter, only func(*syscallRow) bool) float64 {
		steps, calls := 0, 0
		for i := range syscallTable {
			row := &syscallTable[i]
			if row.slot[abiX86_64] < 0 || !only(row) {
				continue
			}
			_, n, err := run(
				prog, call{arch: unix.AUDIT_ARCH_X86_64, nr: uint32(row.slot[abiX86_64])},
			)
			if err != nil {
				b.Fatal(err)
			}
			steps, calls = steps+n, calls+1
		}
		return float64(steps) / float64(calls)
	}
	all := func(*syscallRow) bool { return true }
	conditional := func(row *syscallRow) bool {
		for _, s := range cfg.Syscalls {
			for _, name := range s.Names {
				if name == row.name && len(s.Args) > 0 {
					return true
				}
			}
		}
		return false
	}
	var here, there float64
	for b.Loop() {
		here, there = mean(f.Insns, all), mean(linear, all)
	}
	b.ReportMetric(here, "insns/call")
	b.ReportMetric(mean(f.Insns, conditional), "insns/conditional-call")
	b.ReportMetric(there, "linear-insns/call")
	b.ReportMetric(float64(len(linear)), "linear-instructions")
}

// linearFilter allows the unconditional native calls of a profile one after the other, as the
// simplest compiler would.
func linearFilter(t testing.TB, cfg *specs.LinuxSeccomp) []unix.SockFilter {
	t.Helper()
	prog := []unix.SockFilter{{Code: opLoad, K: offsetNr}}
	for _, s := range cfg.Syscalls {
		for _, name := range s.Names {
			if row := lookup(name); row != nil && row.slot[abiX86_64] >= 0 {
				prog = append(prog, unix.SockFilter{
					Code: opJEQ, Jf: 1, K: uint32(row.slot[abiX86_64]),
				},
					unix.SockFilter{Code: opRet, K: naiveAction(s.Action, s.ErrnoRet)})
			}
		}
	}
	return append(
		prog, unix.SockFilter{Code: opRet, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	)
}
