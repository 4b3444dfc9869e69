// Package seccomp compiles the linux.seccomp object of an OCI configuration into a classic BPF
// filter for seccomp(2), without libseccomp.
//
// It promises the meaning that runc and libseccomp give a profile (runtime-spec config-linux.md,
// "Seccomp"), in a filter that is a balanced tree over system call numbers:
//
//   - The conditions of one rule must all hold. If two of them look at the same argument, each
//     stands for a rule of its own, as in runc.
//   - Rules for one system call are alternatives. One without conditions beats those with; of
//     several without, the first counts. Of rules with conditions and different actions, the one on
//     the higher argument, then the more exact comparison, then the larger value (for less-than the
//     smaller) is tried first, which is libseccomp's order; the same condition with two actions is
//     an error.
//   - A rule with the default action changes nothing.
//   - Names that an ABI does not have are skipped there; names that no ABI has are skipped
//     everywhere.
//   - Unless the default action lets calls pass, numbers above the highest one that the profile
//     names in their ABI answer ENOSYS, so that programs fall back to what an older kernel has
//     (runc's patchbpf).
//   - ABIs that the profile does not list kill the thread, except for the native one, which is
//     always in.
//   - The 32-bit ABIs (x86, arm, and x32 as libseccomp sees it) compare the low half of an
//     argument.
//   - On x86, rules for socket and IPC calls hold inside socketcall(2) and ipc(2) too, by call
//     number; the first argument cannot be looked at there.
//
// Where it differs from runc, on purpose:
//
//   - Several inequalities on one argument, or MASKED_EQ beside another comparison of it, mean what
//     they say. The tree that libseccomp makes of the two halves of an argument loses some such
//     rules, and tries them in an order of its own.
//   - A rule counts although its number is above the highest counted one (x86 socket calls), and
//     ARM's private calls do not move ARM's bound.
//   - errnoRet with an action that has none is refused, as the specification demands.
//   - Architectures that the kernel cannot run are accepted and make no difference.
//   - SCMP_ACT_NOTIFY is refused for sendmsg as it is for write: the installing process hands the
//     listener over with either.
//
// Not for: installing a filter, serving its notifications, reading profile files, other processors
// than amd64 and arm64.
//
// Everything is a pure function of its arguments, does no I/O and may be called concurrently. Tests
// run compiled filters in an interpreter against a naive reading of the profile for every system
// call, against filters that libseccomp made, and in the running kernel.
package seccomp

import (
	"encoding/binary"
	"fmt"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

//go:generate go run ./internal/sysnum/gen tables.go

// maxInsns is BPF_MAXINSNS of linux/bpf_common.h: what seccomp(2) takes at most.
const maxInsns = 4096

// Options say for whom a filter is compiled. The zero value is the usual choice.
type Options struct {
	// Arch is the GOARCH of the kernel that will run the filter: "amd64" or "arm64". Empty is the
	// architecture of this program.
	Arch string
	// LastKnown names the system call that bounds the known ones: numbers above its own answer
	// ENOSYS, unless a rule names them. Empty, or in an ABI that does not have it, the bound is the
	// highest number that the profile names, as in runc. For a profile that was written with a
	// newer kernel in mind than its rules show.
	LastKnown string
}

// Filter is a compiled filter. It is not changed after Compile.
type Filter struct {
	// Insns is the program for struct sock_fprog.
	Insns []unix.SockFilter
	// Flags are the SECCOMP_FILTER_FLAG_ bits for seccomp(2) that the profile asks for. Never among
	// them: TSYNC, which is accepted and without meaning where a process with one thread installs
	// the filter before it executes the payload; and NEW_LISTENER.
	Flags uintptr
	// Notify says that rules hand calls to a listener: seccomp(2) wants
	// SECCOMP_FILTER_FLAG_NEW_LISTENER as well and answers with its descriptor.
	Notify bool
}

// Bytes is the program as an array of struct sock_filter in the byte order of this machine. The
// caller owns the slice.
func (f *Filter) Bytes() []byte {
	b := make([]byte, 0, 8*len(f.Insns))
	for _, in := range f.Insns {
		b = binary.NativeEndian.AppendUint16(b, in.Code)
		b = append(b, in.Jt, in.Jf)
		b = binary.NativeEndian.AppendUint32(b, in.K)
	}
	return b
}

// Compile compiles cfg. It returns nil and no error if cfg asks for no filter: nil, or neither a
// default action nor rules (runc takes that for "no seccomp").
//
// Without flags in cfg (nil, not empty) the filter has SECCOMP_FILTER_FLAG_SPEC_ALLOW, as in runc.
//
// Every error is ErrInvalidArgument and names the field of the configuration, its value and what is
// allowed; also for a profile that needs more than the 4096 instructions that the kernel takes.
func Compile(cfg *specs.LinuxSeccomp, opts Options) (*Filter, error) {
	if cfg == nil || cfg.DefaultAction == "" && len(cfg.Syscalls) == 0 {
		return nil, nil
	}
	c := compiler{cfg: cfg}
	if err := c.machine(opts); err != nil {
		return nil, err
	}
	if err := c.rules(); err != nil {
		return nil, err
	}
	flags, err := c.flags()
	if err != nil {
		return nil, err
	}
	if err := c.bound(opts.LastKnown); err != nil {
		return nil, err
	}
	insns, err := c.emit()
	if err != nil {
		return nil, err
	}
	if len(insns) > maxInsns {
		return nil, invalid(
			"linux.seccomp: the filter has %d instructions, want at most %d (seccomp(2), "+
				"BPF_MAXINSNS)",
			len(insns), maxInsns,
		)
	}
	return &Filter{Insns: insns, Flags: flags, Notify: c.notify}, nil
}

// compiler is one run of Compile.
type compiler struct {
	cfg    *specs.LinuxSeccomp
	native abi
	abis   []abi // what the filter distinguishes, native first
	tables [abiCount]*table
	notify bool

	acts   []uint32 // distinct return values of the filter; the default is the first
	alts   []alternative
	room   []cond // for the conditions of more
	nodes  []node
	blocks []block
}

// action is the number of a return value in c.acts.
func (c *compiler) action(value uint32) int32 {
	for i, v := range c.acts {
		if v == value {
			return int32(i)
		}
	}
	c.acts = append(c.acts, value)
	return int32(len(c.acts) - 1)
}

// machine settles which ABIs the filter tells apart.
func (c *compiler) machine(opts Options) error {
	arch := opts.Arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	var others []abi
	switch arch {
	case "amd64":
		c.native, others = abiX86_64, []abi{abiX32, abiX86}
	case "arm64":
		c.native, others = abiAarch64, []abi{abiARM}
	default:
		return invalid("seccomp filter for architecture %q, want amd64 or arm64", arch)
	}
	var listed [abiCount]bool
	for i, name := range c.cfg.Architectures {
		a, ok := parseArch(name)
		if !ok {
			return invalid(
				"linux.seccomp.architectures[%d]: %q, want one of %s", i, name,
				quoted(archNames[:]),
			)
		}
		if a < abiCount {
			listed[a] = true
		}
	}
	c.abis = append(make([]abi, 0, abiCount), c.native)
	for _, a := range others {
		if listed[a] {
			c.abis = append(c.abis, a)
		}
	}
	tables := make([]table, len(c.abis))
	for i, a := range c.abis {
		tables[i].last, tables[i].lastPrivate = -1, -1
		c.tables[a] = &tables[i]
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
