// Package seccomp reads LXC's seccomp policy files, versions 1 and 2, and turns them into
// linux.seccomp of an OCI configuration (lxc.container.conf(5), SECCOMP CONFIGURATION; LXC's
// seccomp.c).
//
// It promises that a line that is not understood is an error that names the line and what is
// allowed. Names of system calls that the architecture does not have are left out with a warning,
// because a policy is for many kernels.
//
// As with LXC, a rule in the section of any architecture that the host runs holds for all of them,
// and one in the section of another architecture is left out.
//
// Not for: compiling a filter (package container/seccomp), reading files.
//
// Everything is a pure function and may be called concurrently. Tested by a table of policies and
// of errors, by a fuzz test, and by compiling the results.
package seccomp

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/seccomp"
)

// Host is what a policy depends on.
type Host struct {
	// Arch is a GOARCH, "amd64" or "arm64".
	Arch string
	// Known says whether a system call is known by a name; nil: what package container/seccomp
	// knows.
	Known func(name string) bool
}

// Policy is a policy file in OCI's terms.
type Policy struct {
	// Filter lacks the listener only, which a policy with Notify needs.
	Filter *specs.LinuxSeccomp
	Notify bool
	// Warnings are about rules that were left out, one sentence each.
	Warnings []string
}

// architectures are those of a host, the native one first, and the words for their sections.
var architectures = []struct {
	goarch string
	oci    []specs.Arch
	words  []string
}{
	{"amd64", []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		[]string{"x86_64", "x86", "x32"}},
	{"arm64", []specs.Arch{specs.ArchAARCH64, specs.ArchARM}, []string{"arm64", "arm"}},
}

// sections are all words for architectures, in lower case.
var sections = []string{
	"all", "arm", "arm64", "loongarch64", "mips", "mips64", "mips64n32", "mipsel", "mipsel64",
	"mipsel64n32", "ppc", "ppc64", "ppc64le", "s390", "s390x", "x32", "x86", "x86_64",
}

// action is what happens to a call.
type action struct {
	name  specs.LinuxSeccompAction
	errno *uint
}

func (a action) equal(b action) bool {
	return a.name == b.name && (a.errno == nil) == (b.errno == nil) &&
		(a.errno == nil || *a.errno == *b.errno)
}

// parser is one file being read.
type parser struct {
	host   Host
	line   int
	words  []string // the host's words for sections
	policy Policy
	rule   action // what a rule without an action does
	skip   bool   // the section is of another architecture
}

// Parse reads a policy file. Errors name the line and are of class errdefs.ErrInvalidArgument.
func Parse(text []byte, host Host) (*Policy, error) {
	p := parser{host: host}
	if p.host.Known == nil {
		p.host.Known = func(name string) bool { return seccomp.Has(host.Arch, name) }
	}
	i := slices.IndexFunc(architectures, func(a struct {
		goarch string
		oci    []specs.Arch
		words  []string
	}) bool {
		return a.goarch == host.Arch
	})
	if i < 0 {
		return nil, fmt.Errorf(
			"seccomp policy for architecture %q: want amd64 or arm64: %w", host.Arch,
			errdefs.ErrInvalidArgument,
		)
	}
	p.words = architectures[i].words
	p.policy.Filter = &specs.LinuxSeccomp{Architectures: slices.Clone(architectures[i].oci)}
	version := 0
	header := true // the line with the kind of list comes next
	for raw := range bytes.Lines(text) {
		p.line++
		line := strings.TrimSpace(string(raw))
		var err error
		switch {
		case line == "" || line[0] == '#':
		case version == 0:
			if version, err = strconv.Atoi(line); err != nil || version != 1 && version != 2 {
				err = p.fail("version %q: want 1 or 2", line)
			}
		case header:
			header = false
			err = p.kind(line, version)
		case version == 1:
			err = p.number(line)
		case line[0] == '[':
			err = p.section(line)
		case !p.skip:
			err = p.call(line)
		}
		if err != nil {
			return nil, err
		}
	}
	if header {
		return nil, p.fail("the policy ends here: want a version, then allowlist or denylist")
	}
	return &p.policy, nil
}

func (p *parser) fail(format string, args ...any) error {
	return fmt.Errorf(
		"line %d: %s: %w", p.line, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument,
	)
}

// kind reads the line that says what happens to calls without a rule and to those with one. The
// words from before LXC 4.0.5 are still in many files.
func (p *parser) kind(line string, version int) error {
	word, rest, _ := strings.Cut(line, " ")
	deny := word == "denylist" || word == "blacklist"
	if !deny && word != "allowlist" && word != "whitelist" {
		return p.fail("%q: want allowlist or denylist", word)
	}
	if version == 1 && deny {
		return p.fail("%q: version 1 of the format has allowlist only", word)
	}
	fallback, rule := action{name: specs.ActKill}, action{name: specs.ActAllow}
	if deny {
		fallback, rule = rule, fallback
	}
	p.rule = rule
	given, rest, err := p.action(rest)
	if err != nil {
		return err
	}
	if rest = comment(rest); rest != "" || version == 1 && given != nil {
		return p.fail("%q: nothing more is understood behind the kind of list", line)
	}
	if given != nil {
		fallback = *given
	}
	if fallback.name == specs.ActNotify {
		return p.fail("notify: want it for system calls by name; by default it stops every program")
	}
	p.policy.Filter.DefaultAction, p.policy.Filter.DefaultErrnoRet = fallback.name, fallback.errno
	if version == 1 {
		p.policy.Filter.Architectures = p.policy.Filter.Architectures[:1]
	}
	return nil
}

// action reads a word for an action at the start of what follows a name; nil: there is none.
func (p *parser) action(text string) (*action, string, error) {
	text = strings.TrimLeft(text, " \t")
	if text == "" || text[0] == '#' || text[0] == '[' {
		return nil, text, nil
	}
	word, rest := text, ""
	if i := strings.IndexAny(text, " \t[#"); i >= 0 {
		word, rest = text[:i], text[i:]
	}
	switch word {
	case "kill":
		return &action{name: specs.ActKill}, rest, nil
	case "trap":
		return &action{name: specs.ActTrap}, rest, nil
	case "allow":
		return &action{name: specs.ActAllow}, rest, nil
	case "notify":
		return &action{name: specs.ActNotify}, rest, nil
	case "errno":
	default:
		return nil, "", p.fail("action %q: want kill, trap, errno N, allow or notify", word)
	}
	rest = strings.TrimLeft(rest, " \t")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	const maxErrno = 4095 // include/linux/err.h
	n, err := strconv.ParseUint(rest[:end], 10, 32)
	if err != nil || n > maxErrno {
		return nil, "", p.fail("errno %q: want a number from 0 to %d", comment(rest), maxErrno)
	}
	number := uint(n)
	return &action{specs.ActErrno, &number}, rest[end:], nil
}

// comment takes a comment off.
func comment(text string) string {
	text, _, _ = strings.Cut(text, "#")
	return strings.TrimSpace(text)
}

// section reads the name of an architecture in brackets.
func (p *parser) section(line string) error {
	name, ok := strings.CutSuffix(comment(line)[1:], "]")
	name = strings.ToLower(name)
	if !ok || !slices.Contains(sections, name) {
		return p.fail("section %q: want one of %s in brackets", line, strings.Join(sections, ", "))
	}
	p.skip = name != "all" && !slices.Contains(p.words, name)
	return nil
}

// number reads a line of version 1.
func (p *parser) number(line string) error {
	n, err := strconv.Atoi(comment(line))
	if err != nil || n < 0 {
		return p.fail("%q: want the number of a system call", line)
	}
	name, ok := seccomp.Name(p.host.Arch, n)
	if !ok {
		p.warn("%d is not the number of a system call", n)
		return nil
	}
	p.add(name, p.rule, nil)
	return nil
}

// call reads a rule of version 2: a name, perhaps an action, and perhaps conditions.
func (p *parser) call(line string) error {
	name, rest := line, ""
	if i := strings.IndexAny(line, " \t[#"); i >= 0 {
		name, rest = line[:i], line[i:]
	}
	given, rest, err := p.action(rest)
	if err != nil {
		return err
	}
	act := p.rule
	if given != nil {
		act = *given
	}
	args, err := p.conditions(rest)
	if err != nil {
		return err
	}
	if name == "reject_force_umount" {
		if given != nil || len(args) > 0 {
			return p.fail("%s: want nothing behind it", name)
		}
		errno := uint(unix.EACCES)
		p.add("umount2", action{specs.ActErrno, &errno}, []specs.LinuxSeccompArg{{
			Index: 1, Value: unix.MNT_FORCE, ValueTwo: unix.MNT_FORCE, Op: specs.OpMaskedEqual,
		}})
		return nil
	}
	if strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) {
		return p.fail("%q: want the name of a system call", name)
	}
	if !p.host.Known(name) {
		p.warn("%s is not a system call here", name)
		return nil
	}
	if act.name == specs.ActNotify {
		p.policy.Notify = true
	}
	p.add(name, act, args)
	return nil
}

func (p *parser) warn(format string, args ...any) {
	p.policy.Warnings = append(
		p.policy.Warnings,
		fmt.Sprintf("line %d: ", p.line)+fmt.Sprintf(format, args...)+"; the rule is left out",
	)
}

// add adds a rule. Neighbours that do the same become one.
func (p *parser) add(name string, act action, args []specs.LinuxSeccompArg) {
	list := &p.policy.Filter.Syscalls
	if n := len(*list); n > 0 && len(args) == 0 {
		last := &(*list)[n-1]
		if len(last.Args) == 0 && act.equal(action{last.Action, last.ErrnoRet}) {
			if !slices.Contains(last.Names, name) {
				last.Names = append(last.Names, name)
			}
			return
		}
	}
	*list = append(*list, specs.LinuxSyscall{
		Names: []string{name}, Action: act.name, ErrnoRet: act.errno, Args: args,
	})
}

// operators are the words for comparisons, libseccomp's and LXC's.
var operators = []struct {
	word, name string
	op         specs.LinuxSeccompOperator
}{
	{"!=", "SCMP_CMP_NE", specs.OpNotEqual}, {"<", "SCMP_CMP_LT", specs.OpLessThan},
	{"<=", "SCMP_CMP_LE", specs.OpLessEqual}, {"==", "SCMP_CMP_EQ", specs.OpEqualTo},
	{">=", "SCMP_CMP_GE", specs.OpGreaterEqual}, {">", "SCMP_CMP_GT", specs.OpGreaterThan},
	{"&=", "SCMP_CMP_MASKED_EQ", specs.OpMaskedEqual},
}

// conditions reads any number of [index,value,op] and [index,value,op,mask].
func (p *parser) conditions(text string) (list []specs.LinuxSeccompArg, err error) {
	const most = 6 // arguments of a system call
	for text = comment(text); text != ""; text = strings.TrimLeft(text, " \t,") {
		inside, rest, ok := strings.Cut(strings.TrimPrefix(text, "["), "]")
		if !ok || text[0] != '[' {
			return nil, p.fail(
				"%q: want conditions as [index,value,op] or [index,value,op,mask]", text,
			)
		}
		arg, err := p.condition(inside)
		if err != nil {
			return nil, err
		}
		if list = append(list, arg); len(list) > most {
			return nil, p.fail("more than %d conditions", most)
		}
		text = rest
	}
	return list, nil
}

func (p *parser) condition(text string) (arg specs.LinuxSeccompArg, err error) {
	f := strings.Split(text, ",")
	if len(f) != 3 && len(f) != 4 {
		return arg, p.fail("[%s]: want [index,value,op] or [index,value,op,mask]", text)
	}
	for i := range f {
		f[i] = strings.TrimSpace(f[i])
	}
	index, err := strconv.ParseUint(f[0], 0, 8)
	if err != nil || index > 5 {
		return arg, p.fail("[%s]: index %q: want 0 to 5", text, f[0])
	}
	numbers := [2]uint64{}
	for i, s := range append(f[1:2:2], f[3:]...) {
		if numbers[i], err = strconv.ParseUint(s, 0, 64); err != nil {
			return arg, p.fail("[%s]: %q: want a number of 64 bits", text, s)
		}
	}
	for _, o := range operators {
		if f[2] != o.word && f[2] != o.name {
			continue
		}
		arg = specs.LinuxSeccompArg{Index: uint(index), Value: numbers[0], Op: o.op}
		if o.op == specs.OpMaskedEqual {
			// OCI has the mask first (libseccomp, SCMP_CMP).
			arg.Value, arg.ValueTwo = numbers[1], numbers[0]
		}
		return arg, nil
	}
	return arg, p.fail(
		"[%s]: operator %q: want one of != < <= == >= > &= or libseccomp's", text, f[2],
	)
}
