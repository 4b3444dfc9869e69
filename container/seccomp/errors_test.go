package seccomp

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestRefuses(t *testing.T) {
	t.Parallel()
	rules := func(r ...specs.LinuxSyscall) *specs.LinuxSeccomp { return deny(r...)() }
	eq := func(index uint, v uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: v, Op: specs.OpEqualTo}
	}
	good := rule(specs.ActErrno, nil, "getpgid")
	with := func(change func(*specs.LinuxSeccomp)) *specs.LinuxSeccomp {
		cfg := rules(good)
		change(cfg)
		return cfg
	}
	for _, tc := range []struct {
		name string
		cfg  *specs.LinuxSeccomp
		opts Options
		want []string
	}{
		{"default action", with(
			func(c *specs.LinuxSeccomp) { c.DefaultAction = "SCMP_ACT_DENY" },
		), Options{},
			[]string{
				"linux.seccomp.defaultAction", `"SCMP_ACT_DENY"`, "SCMP_ACT_ALLOW, SCMP_ACT_ERRNO",
				"SCMP_ACT_TRAP",
			}},
		{
			"no default action, but rules",
			with(func(c *specs.LinuxSeccomp) { c.DefaultAction = "" }), Options{},
			[]string{"linux.seccomp.defaultAction", `""`},
		},
		{
			"default notify",
			with(func(c *specs.LinuxSeccomp) { c.DefaultAction = specs.ActNotify }), Options{},
			[]string{
				"linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action",
			},
		},
		{
			"default errno without errno",
			with(func(c *specs.LinuxSeccomp) { c.DefaultErrnoRet = ret(5) }), Options{},
			[]string{"linux.seccomp.defaultErrnoRet", "5", "SCMP_ACT_ALLOW"},
		},
		{
			"action", rules(good, rule("errno", nil, "read")), Options{},
			[]string{"linux.seccomp.syscalls[1].action", `"errno"`, "SCMP_ACT_KILL_PROCESS"},
		},
		{
			"errno too large", rules(rule(specs.ActErrno, ret(4096), "read")), Options{},
			[]string{"linux.seccomp.syscalls[0].errnoRet", "4096", "0 to 4095"},
		},
		{
			"trace too large", rules(rule(specs.ActTrace, ret(65536), "read")), Options{},
			[]string{"linux.seccomp.syscalls[0].errnoRet", "65536", "0 to 65535"},
		},
		{
			"errno without errno", rules(rule(specs.ActKill, ret(1), "read")), Options{},
			[]string{
				"linux.seccomp.syscalls[0].errnoRet", "SCMP_ACT_KILL",
				"SCMP_ACT_ERRNO or SCMP_ACT_TRACE",
			},
		},
		{
			"no names", rules(specs.LinuxSyscall{Action: specs.ActTrap}), Options{},
			[]string{"linux.seccomp.syscalls[0].names", "at least one"},
		},
		{
			"empty name", rules(rule(specs.ActTrap, nil, "")), Options{},
			[]string{"linux.seccomp.syscalls[0].names[0]", "empty"},
		},
		{
			"operator",
			rules(
				good, rule(specs.ActTrap, nil, "read", eq(0, 1), specs.LinuxSeccompArg{Op: "=="}),
			),
			Options{},
			[]string{"linux.seccomp.syscalls[1].args[1].op", `"=="`, "SCMP_CMP_MASKED_EQ"},
		},
		{
			"argument", rules(rule(specs.ActTrap, nil, "read", eq(6, 1))), Options{},
			[]string{"linux.seccomp.syscalls[0].args[0].index", "6", "0 to 5"},
		},
		{"contradiction", rules(
			rule(specs.ActTrap, nil, "read", eq(0, 1)), good,
			rule(specs.ActKill, nil, "read", eq(0, 1)),
		), Options{},
			[]string{"linux.seccomp.syscalls[2].args", "linux.seccomp.syscalls[0]"}},
		{"contradiction with more", rules(
			rule(specs.ActTrap, nil, "read", eq(1, 1), eq(0, 1)),
			rule(specs.ActKill, nil, "read", eq(0, 1)),
		), Options{},
			[]string{"linux.seccomp.syscalls[1].args"}},
		{"contradiction in the low half", with(func(c *specs.LinuxSeccomp) {
			c.Architectures = []specs.Arch{specs.ArchX86}
			c.Syscalls = append(
				c.Syscalls, rule(specs.ActTrap, nil, "waitpid", eq(0, 1)),
				rule(specs.ActKill, nil, "waitpid", eq(0, 1<<32+1)),
			)
		}), Options{}, []string{"linux.seccomp.syscalls[2].args"}},
		{"architecture", with(
			func(c *specs.LinuxSeccomp) { c.Architectures = []specs.Arch{specs.ArchX86, "x86"} },
		), Options{},
			[]string{
				"linux.seccomp.architectures[1]", `"x86"`, "SCMP_ARCH_AARCH64", "SCMP_ARCH_X86_64",
			}},
		{"flag", with(
			func(c *specs.LinuxSeccomp) {
				c.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, "LOG"}
			},
		), Options{},
			[]string{"linux.seccomp.flags[1]", `"LOG"`, "SECCOMP_FILTER_FLAG_TSYNC"}},
		{"flag without listener", with(func(c *specs.LinuxSeccomp) {
			c.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}
		}), Options{}, []string{"linux.seccomp.flags[0]", "SCMP_ACT_NOTIFY"}},
		{"notify without a listener", with(
			func(c *specs.LinuxSeccomp) {
				c.ListenerPath, c.Syscalls[0].Action = "", specs.ActNotify
			},
		), Options{},
			[]string{"linux.seccomp.listenerPath", "linux.seccomp.syscalls[0].action"}},
		{
			"notify of write", rules(rule(specs.ActNotify, nil, "write")), Options{},
			[]string{
				"linux.seccomp.syscalls[0].action",
				"SCMP_ACT_NOTIFY cannot be used for the write syscall",
			},
		},
		{
			"notify of sendmsg", rules(rule(specs.ActNotify, nil, "sendmsg")), Options{},
			[]string{"cannot be used for the sendmsg syscall"},
		},
		{"machine", rules(good), Options{Arch: "riscv64"}, []string{`"riscv64"`, "amd64 or arm64"}},
		{"last known", rules(good), Options{LastKnown: "frobnicate"}, []string{`"frobnicate"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.opts.Arch == "" {
				tc.opts.Arch = "amd64"
			}
			f, err := Compile(tc.cfg, tc.opts)
			if f != nil || !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Fatalf("got %v, %v, want ErrInvalidArgument", f, err)
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not contain %q", err, part)
				}
			}
		})
	}
}

func TestNoFilter(t *testing.T) {
	t.Parallel()
	for _, cfg := range []*specs.LinuxSeccomp{
		nil, {}, {Architectures: []specs.Arch{specs.ArchX86}},
	} {
		if f, err := Compile(cfg, Options{Arch: "amd64"}); f != nil || err != nil {
			t.Errorf("Compile(%v) = %v, %v, want nothing", cfg, f, err)
		}
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		flags []specs.LinuxSeccompFlag
		want  uintptr
	}{
		{"none given", nil, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{"none wanted", []specs.LinuxSeccompFlag{}, 0},
		{"TSYNC is for nothing", []specs.LinuxSeccompFlag{flagTsync}, 0},
		{
			"all", flagNames[:],
			unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW |
				unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := deny(rule(specs.ActNotify, nil, "mkdir"))()
			cfg.Flags = tc.flags
			f, err := Compile(cfg, Options{Arch: "amd64"})
			if err != nil || f.Flags != tc.want || !f.Notify {
				t.Errorf("got %+v, %v, want flags %#x and a listener", f, err, tc.want)
			}
		})
	}
}

// Numbers above the bound are unknown, unless a rule names them.
func TestLastKnown(t *testing.T) {
	t.Parallel()
	cfg := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno,
		Syscalls: []specs.LinuxSyscall{
			rule(specs.ActAllow, nil, "openat2"), rule(specs.ActAllow, nil, "read"),
		},
	}
	// of mount, faccessat2 (after openat2), and openat2
	for last, want := range map[string][3]uint32{
		"":           {refENOSYS - 37, refENOSYS, 0x7fff0000},
		"faccessat2": {refENOSYS - 37, refENOSYS - 37, 0x7fff0000},
		"fork":       {refENOSYS, refENOSYS, 0x7fff0000},
		"socketcall": {refENOSYS - 37, refENOSYS, 0x7fff0000}, // not in this ABI
	} {
		f, err := Compile(cfg, Options{Arch: "amd64", LastKnown: last})
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"mount", "faccessat2", "openat2"} {
			got, _, err := run(
				f.Insns,
				call{arch: unix.AUDIT_ARCH_X86_64, nr: uint32(lookup(name).slot[abiX86_64])},
			)
			if err != nil || got != want[i] {
				t.Errorf(
					"last known %q: %s answers %s (%v), want %s", last, name, returned(got), err,
					returned(want[i]),
				)
			}
		}
	}
}

// A profile of many conditions needs jumps longer than 255; one of too many is refused, and says
// how many.
func TestLongPrograms(t *testing.T) {
	t.Parallel()
	profile := func(rules, values int) *specs.LinuxSeccomp {
		cfg := &specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno,
			Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32},
		}
		for i := range rules {
			s := rule(specs.ActAllow, nil, syscallTable[i].name)
			if i%3 == 1 {
				s.Action = specs.ActLog
			}
			for j := range values {
				s.Args = append(
					s.Args,
					specs.LinuxSeccompArg{
						Index: uint(j % 6), Op: specs.OpMaskedEqual, Value: 0xff00ff,
						ValueTwo: uint64(i + j),
					},
				)
			}
			cfg.Syscalls = append(cfg.Syscalls, s)
		}
		return cfg
	}
	cfg := profile(60, 6)
	f := mustCompile(t, cfg, "amd64")
	if len(f.Insns) < 2000 || !slices.ContainsFunc(
		f.Insns, func(in unix.SockFilter) bool { return in.Code == opJA && in.K > 255 },
	) {
		t.Errorf("%d instructions without a long jump: the test is too small", len(f.Insns))
	}
	check(t, cfg, "amd64", f, rand.New(rand.NewPCG(5, 6)))
	got, err := Compile(profile(400, 6), Options{Arch: "amd64"})
	if got != nil || !errors.Is(err, errdefs.ErrInvalidArgument) ||
		!strings.Contains(err.Error(), "at most 4096") {
		t.Errorf("got %v, %v, want ErrInvalidArgument with the limit", got, err)
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	f := Filter{
		Insns: []unix.SockFilter{
			{Code: opJGE, Jt: 3, Jf: 4, K: 0x01020304}, {Code: opRet, K: 0x7fff0000},
		},
	}
	b := f.Bytes()
	if len(b) != 16 || binary.NativeEndian.Uint16(b) != opJGE || b[2] != 3 || b[3] != 4 ||
		binary.NativeEndian.Uint32(b[4:]) != 0x01020304 ||
		binary.NativeEndian.Uint32(b[12:]) != 0x7fff0000 {
		t.Errorf("got % x", b)
	}
}

func TestKnown(t *testing.T) {
	t.Parallel()
	v := Known()
	for what, tc := range map[string]struct {
		got  []string
		want int
		has  string
	}{
		"actions":       {v.Actions, 9, "SCMP_ACT_NOTIFY"},
		"operators":     {v.Operators, 7, "SCMP_CMP_MASKED_EQ"},
		"flags":         {v.Flags, 4, "SECCOMP_FILTER_FLAG_TSYNC"},
		"architectures": {v.Archs, 5, "SCMP_ARCH_X32"},
	} {
		if len(tc.got) != tc.want || !slices.IsSorted(tc.got) || !slices.Contains(tc.got, tc.has) {
			t.Errorf("%s are %v, want %d, sorted, with %s", what, tc.got, tc.want, tc.has)
		}
	}
	// What is known compiles, and so do the specification's other architectures.
	for _, arch := range archNames {
		cfg := deny(rule(specs.ActErrno, nil, "getpgid"))()
		cfg.Architectures = []specs.Arch{arch}
		mustCompile(t, cfg, "arm64")
	}
	if f, err := Compile(
		deny(rule(specs.ActErrno, nil, "getpgid"))(), Options{},
	); (err == nil) != (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64") {
		t.Errorf("for this machine: %v, %v", f, err)
	}
}

// Compile changes nothing of its input, and several may compile the same profile.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	cfg := mobyProfile(t)
	want := mustCompile(t, cfg, "amd64")
	done := make(chan bool)
	for range 4 {
		go func() {
			f, err := Compile(cfg, Options{Arch: "amd64"})
			done <- err == nil && slices.Equal(f.Insns, want.Insns)
		}()
	}
	for range 4 {
		if !<-done {
			t.Error("another filter")
		}
	}
}
