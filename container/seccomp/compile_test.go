package seccomp

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mustCompile compiles a profile and checks the result as the kernel would.
func mustCompile(t testing.TB, cfg *specs.LinuxSeccomp, arch string) *Filter {
	t.Helper()
	f, err := Compile(cfg, Options{Arch: arch})
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(f.Insns); err != nil {
		t.Fatalf("the kernel would refuse the filter: %v\n%s", err, Disassemble(f.Insns))
	}
	return f
}

// interesting are the numbers at which a filter can change its mind: every number that an ABI can
// have and those at the borders.
func interesting(arch string) (calls []call) {
	audits := []uint32{
		unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM,
		0, 0xffffffff,
	}
	for _, audit := range audits {
		bases := []uint32{0}
		for _, a := range refABIs[arch] {
			if a.audit == audit && a.base != 0 {
				bases = append(bases, a.base)
			}
		}
		for _, base := range bases {
			for i := range uint32(ordinarySlots + 20) {
				calls = append(calls, call{arch: audit, nr: base + i})
			}
		}
		for i := range uint32(privateSlots + 4) {
			calls = append(calls, call{arch: audit, nr: 0x0f0000 - 2 + i})
		}
		for _, border := range []uint32{
			0x3fffffff, 0x40000000, 0x7fffffff, 0x80000000, 0x80000001, 0xbfffffff, 0xc0000000,
			0xc0000001, 0xfffffffe, 0xffffffff,
		} {
			calls = append(calls, call{arch: audit, nr: border})
		}
	}
	return calls
}

// samples are arguments around the values of conditions, and with either half changed.
func samples(rules []refRule, rng *rand.Rand) [][6]uint64 {
	values := []uint64{0, 1, 1<<32 - 1, 1 << 32, 1<<64 - 1}
	for _, r := range rules {
		for _, arg := range r.conds {
			v := arg.Value
			if arg.Op == specs.OpMaskedEqual {
				v = arg.ValueTwo
				values = append(
					values, arg.Value, ^arg.Value, arg.Value^arg.ValueTwo, arg.ValueTwo|^arg.Value,
				)
			}
			values = append(values, v, v+1, v-1, v^1<<32, v+1<<32, v-1<<32, v&0xffffffff, v>>32)
		}
	}
	sets := [][6]uint64{{}}
	for _, v := range values {
		sets = append(sets, [6]uint64{v, v, v, v, v, v})
	}
	// Every rule alone, fulfilled as far as its values say, with one argument changed at a time.
	for _, r := range rules {
		var hit [6]uint64
		for _, arg := range r.conds {
			hit[arg.Index] = arg.Value
			if arg.Op == specs.OpMaskedEqual {
				hit[arg.Index] = arg.ValueTwo
			}
		}
		sets = append(sets, hit)
		for i := range hit {
			for range 3 {
				other := hit
				other[i] = values[rng.IntN(len(values))]
				sets = append(sets, other)
			}
		}
	}
	for range 20 {
		var set [6]uint64
		for i := range set {
			set[i] = values[rng.IntN(len(values))]
		}
		sets = append(sets, set)
	}
	return sets
}

// check compares a filter with the naive reading of its profile, for all numbers of all ABIs.
func check(t testing.TB, cfg *specs.LinuxSeccomp, arch string, f *Filter, rng *rand.Rand) {
	t.Helper()
	ref := newReference(cfg, arch)
	bad := 0
	for _, c := range interesting(arch) {
		sets := [][6]uint64{{}}
		for _, a := range refABIs[arch] {
			if rules := ref.byNumber[a.name][c.nr]; a.audit == c.arch && ref.listed(a) &&
				len(rules) > 0 {
				sets = samples(rules, rng)
			}
		}
		for _, c.args = range sets {
			want := ref.value(c)
			got, _, err := run(f.Insns, c)
			if err != nil || got != want {
				t.Errorf("%s %v: got %s (%v), want %s", arch, c, returned(got), err, returned(want))
				if bad++; bad > 10 {
					text, _ := json.Marshal(cfg)
					t.Fatalf("profile: %s\n%s", text, Disassemble(f.Insns))
				}
			}
		}
	}
}

// mobyProfile is Docker's default profile for a process with some capabilities.
func mobyProfile(t testing.TB, caps ...string) *specs.LinuxSeccomp {
	t.Helper()
	cfg, err := mobyDefault(caps...)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func mobyDefault(caps ...string) (*specs.LinuxSeccomp, error) {
	return mobyseccomp.GetDefaultProfile(
		&specs.Spec{
			Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
		},
	)
}

// foreign makes a profile that was resolved for this machine one of another architecture.
func foreign(cfg *specs.LinuxSeccomp, archs ...specs.Arch) *specs.LinuxSeccomp {
	other := *cfg
	other.Architectures = archs
	return &other
}

func TestMobyDefaultProfile(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_CHROOT"}} {
		cfg := mobyProfile(t, caps...)
		for _, arch := range []string{"amd64", "arm64"} {
			archs := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
			if arch == "arm64" {
				archs = []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
			}
			for n := range len(archs) + 1 {
				cfg := foreign(cfg, archs[:n]...)
				f := mustCompile(t, cfg, arch)
				check(t, cfg, arch, f, rng)
				t.Logf(
					"%s with %v and capabilities %v: %d instructions", arch, archs[:n], caps,
					len(f.Insns),
				)
			}
		}
	}
}

// randomProfile draws a profile. Rules on one call have one action, so that the order of rules
// plays no part.
func randomProfile(rng *rand.Rand, arch string) *specs.LinuxSeccomp {
	pick := func(n int) int { return rng.IntN(n) }
	errno := func() *uint { v := uint(pick(4096)); return &v }
	cfg := &specs.LinuxSeccomp{
		DefaultAction: actionNames[pick(len(actionNames))], ListenerPath: "/run/agent",
	}
	if cfg.DefaultAction == specs.ActNotify {
		cfg.DefaultAction = specs.ActErrno
	}
	if cfg.DefaultAction == specs.ActErrno && pick(2) == 0 {
		cfg.DefaultErrnoRet = errno()
	}
	for _, a := range refABIs[arch] {
		if pick(2) == 0 {
			cfg.Architectures = append(cfg.Architectures, a.name)
		}
	}
	values := []uint64{
		0, 1, 2, 3, 7, 0x80, 0xffff, 0x7e020000, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 5,
		0x123456789abcdef0, 1<<63 - 1, 1 << 63, 1<<64 - 1,
	}
	value := func() uint64 {
		if pick(4) == 0 {
			return rng.Uint64()
		}
		return values[pick(len(values))]
	}
	few := 1 + pick(len(syscallTable))
	type verdict struct {
		action   specs.LinuxSeccompAction
		errnoRet *uint
	}
	action := map[string]verdict{}
	for range pick(60) {
		s := specs.LinuxSyscall{Action: actionNames[pick(len(actionNames))]}
		if (s.Action == specs.ActErrno || s.Action == specs.ActTrace) && pick(2) == 0 {
			s.ErrnoRet = errno()
		}
		for range 1 + pick(8) {
			name := syscallTable[pick(few)].name
			if name == "write" || name == "sendmsg" {
				continue
			}
			// Calls that x86 multiplexes all meet in two numbers.
			family := name
			if row := lookup(name); row.mux > 100 || name == "ipc" {
				family = "ipc"
			} else if row.mux > 0 || name == "socketcall" {
				family = "socketcall"
			}
			if first, ok := action[family]; !ok {
				action[family] = verdict{s.Action, s.ErrnoRet}
			} else if len(s.Names) == 0 {
				s.Action, s.ErrnoRet = first.action, first.errnoRet
			} else if first != (verdict{s.Action, s.ErrnoRet}) {
				continue
			}
			s.Names = append(s.Names, name)
		}
		if pick(5) == 0 {
			s.Names = append(s.Names, "no_such_call")
		}
		if len(s.Names) == 0 {
			s.Names = []string{"no_such_call"}
		}
		if pick(3) > 0 {
			for range 1 + pick(4) {
				s.Args = append(
					s.Args,
					specs.LinuxSeccompArg{
						Index: uint(pick(6)), Op: operatorNames[pick(len(operatorNames))],
						Value: value(), ValueTwo: value(),
					},
				)
			}
		}
		cfg.Syscalls = append(cfg.Syscalls, s)
	}
	return cfg
}

// Any profile means what a naive reading says, for every number of every ABI.
func TestRandomProfiles(t *testing.T) {
	t.Parallel()
	n := 150
	if testing.Short() {
		n = 20
	}
	for seed := range uint64(n) {
		for _, arch := range []string{"amd64", "arm64"} {
			t.Run(fmt.Sprintf("%s-%d", arch, seed), func(t *testing.T) {
				t.Parallel()
				rng := rand.New(rand.NewPCG(seed, 7))
				cfg := randomProfile(rng, arch)
				check(t, cfg, arch, mustCompile(t, cfg, arch), rng)
			})
		}
	}
}

// Whatever a profile says, Compile answers with a filter that the kernel takes and that ends for
// every call, or with an error.
func FuzzCompile(f *testing.F) {
	moby, err := json.Marshal(mobyProfile(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(moby)
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_KILL","architectures":["SCMP_ARCH_X32"],` +
		`"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",` +
		`"args":[{"index":5,"value":18446744073709551615,"op":"SCMP_CMP_GE"}]}]}`))
	for _, file := range []string{"overlap.json", "arguments.json"} {
		if raw, err := os.ReadFile("testdata/libseccomp/" + file); err == nil {
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var cfg specs.LinuxSeccomp
		if json.Unmarshal(raw, &cfg) != nil {
			return
		}
		for _, arch := range []string{"amd64", "arm64"} {
			filter, err := Compile(&cfg, Options{Arch: arch})
			if err != nil || filter == nil {
				continue
			}
			if err := verify(filter.Insns); err != nil {
				t.Fatalf("%v\n%s", err, Disassemble(filter.Insns))
			}
			ref := newReference(&cfg, arch)
			for _, a := range refABIs[arch] {
				for i := range uint32(20) {
					c := call{
						arch: a.audit, nr: a.base + i*29, args: [6]uint64{1, 2, 1 << 32, 1<<64 - 1},
					}
					got, _, err := run(filter.Insns, c)
					if err != nil {
						t.Fatal(err)
					}
					if oneActionEach(&cfg) {
						if want := ref.value(c); got != want {
							t.Fatalf("%v: got %s, want %s", c, returned(got), returned(want))
						}
					}
				}
			}
		}
	})
}

// oneActionEach says whether all rules with conditions have one action, so that their order plays
// no part.
func oneActionEach(cfg *specs.LinuxSeccomp) bool {
	seen := map[uint32]bool{}
	for _, s := range cfg.Syscalls {
		if len(s.Args) > 0 {
			seen[naiveAction(s.Action, s.ErrnoRet)] = true
		}
		for _, name := range s.Names { // becomes a condition on x86
			if row := lookup(name); row != nil && row.mux != 0 {
				seen[naiveAction(s.Action, s.ErrnoRet)] = true
			}
		}
	}
	return len(seen) <= 1
}
