package plan

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// bare is a process without a root filesystem.
func bare() *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Args: []string{"true"}, Cwd: "/srv", Env: []string{"PATH=/usr/bin:/bin"},
		},
	}
}

// held is a sandbox as a pod has it.
func held() *specs.Spec {
	return &specs.Spec{
		Version: specs.Version, Hostname: "pod",
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace, Path: "/run/netns/pod"},
			},
			Sysctl: map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096"},
		},
	}
}

// hostViewCases are the golden files of Process and Hold.
var hostViewCases = []struct {
	name string
	make func(*specs.Spec, Options) (*Plan, error)
	spec func() *specs.Spec
	opt  Options
	edit func(*specs.Spec)
}{
	{name: "process", make: Process, spec: bare, opt: Options{Stdio: Pipes}},
	{name: "process-terminal", make: Process, spec: bare, edit: func(s *specs.Spec) {
		s.Process.Terminal = true
		s.Process.ConsoleSize = &specs.Box{Height: 25, Width: 80}
		s.Process.User.UID = 1000
	}},
	{name: "process-confined", make: Process, spec: bare, opt: Options{
		Stdio: Pipes, TaskPaths: []string{"memory/c/tasks"}, Grouped: true, Reaper: true,
		Host: Host{AppArmor: true},
	}, edit: func(s *specs.Spec) {
		s.Hostname = "h"
		s.Process.OOMScoreAdj = number(7)
		s.Process.NoNewPrivileges = true
		s.Process.ApparmorProfile = "p"
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
		s.Linux = &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace, Path: "/run/netns/x"}, {Type: specs.CgroupNamespace},
			},
			Sysctl: map[string]string{"net.ipv4.ip_forward": "1"},
			Seccomp: &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow,
				Syscalls: []specs.LinuxSyscall{
					{Names: []string{"getcwd"}, Action: specs.ActErrno},
				},
			},
		}
	}},
	{name: "hold", make: Hold, spec: held},
	{name: "hold-groups", make: Hold, spec: held, opt: Options{
		TaskPaths: []string{"memory/c/tasks"}, Grouped: true,
	}, edit: func(s *specs.Spec) { s.Process = &specs.Process{OOMScoreAdj: number(-998)} }},
	{name: "hold-user-and-time", make: Hold, spec: held, edit: func(s *specs.Spec) {
		mapped(s)
		s.Linux.Namespaces = append(
			s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace},
		)
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 5}}
	}},
	{name: "hold-joined-user", make: Hold, spec: held, edit: func(s *specs.Spec) {
		s.Linux.Namespaces = append(
			s.Linux.Namespaces,
			specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/proc/7/ns/user"},
		)
	}},
}

// compileHostView compiles case i.
func compileHostView(t *testing.T, i int) *Plan {
	t.Helper()
	c := &hostViewCases[i]
	s := c.spec()
	if c.edit != nil {
		c.edit(s)
	}
	opt := c.opt
	opt.Host.LastCap = 40
	p, err := c.make(s, opt)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	return p
}

func TestGoldenHostView(t *testing.T) {
	t.Parallel()
	for i, c := range hostViewCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := compileHostView(t, i)
			golden(t, c.name, p.Program)
			if !bytes.Equal(p.Encode(), compileHostView(t, i).Encode()) {
				t.Error("two compilations differ")
			}
		})
	}
}

// calls lists the system calls of a program from operation i on.
func calls(p *Plan, i int) (names []string) {
	for ; i < p.Len(); i++ {
		if op := p.Op(i); op.Code == program.Syscall {
			names = append(names, program.CallName(op.Nr))
		}
	}
	return names
}

// TestProcessMountsNothing holds that a process in the host's view never changes that view.
func TestProcessMountsNothing(t *testing.T) {
	t.Parallel()
	for i, c := range hostViewCases {
		if !strings.HasPrefix(c.name, "process") {
			continue
		}
		p := compileHostView(t, i)
		if p.CloneFlags()&unix.CLONE_NEWNS != 0 {
			t.Errorf("%s: born in a new mount namespace", c.name)
		}
		for _, name := range calls(p, 0) {
			switch name {
			case "mount", "move_mount", "umount2", "pivot_root", "chroot", "mount_setattr",
				"open_tree", "fsmount", "mknodat", "mkdirat", "symlinkat", "unlinkat":
				t.Errorf("%s calls %s", c.name, name)
			}
		}
		if len(p.Trees) > 0 {
			t.Errorf("%s: wants mount sources: %v", c.name, p.Trees)
		}
	}
}

// TestHoldKeepsNothing holds that when its loop begins the holder has changed its root, has no
// capability and no descriptor, cannot be looked at, and does nothing from there on but reap and
// end.
func TestHoldKeepsNothing(t *testing.T) {
	t.Parallel()
	for i, c := range hostViewCases {
		if !strings.HasPrefix(c.name, "hold") {
			continue
		}
		p := compileHostView(t, i)
		all := calls(p, 0)
		if slices.Contains(all, "execve") {
			t.Errorf("%s executes", c.name)
		}
		last := -1
		for k := range p.Len() {
			op := p.Op(k)
			if op.Code == program.Syscall && program.CallName(op.Nr) == "close_range" &&
				op.Field == "hold" {
				last = k
			}
		}
		if last < 0 || !strings.HasPrefix(p.Text(last), "close_range(0, 0xffffffff, 0)") {
			t.Fatalf("%s: descriptors are not closed", c.name)
		}
		got := slices.Compact(slices.Sorted(slices.Values(calls(p, last+1))))
		if want := []string{"exit_group", "rt_sigtimedwait", "wait4"}; !slices.Equal(got, want) {
			t.Errorf("%s: its loop calls %v, want %v", c.name, got, want)
		}
		before := all[:len(all)-len(calls(p, last))]
		for _, name := range []string{"pivot_root", "umount2", "capset"} {
			if !slices.Contains(before, name) {
				t.Errorf("%s: no %s before the loop", c.name, name)
			}
		}
		if text := p.Text(last - 1); !strings.HasPrefix(text, "prctl(4, 0") {
			t.Errorf("%s: the last call before is %s, want PR_SET_DUMPABLE", c.name, text)
		}
	}
}

// TestInvalidHostView lists what is refused, with the field that the error must name.
func TestInvalidHostView(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		field string
		edit  func(*specs.Spec)
	}{
		{"root.path", func(s *specs.Spec) { s.Root = &specs.Root{Path: "/x"} }},
		{"root.readonly", func(s *specs.Spec) { s.Root = &specs.Root{Readonly: true} }},
		{"mounts[0] (/tmp)", func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/tmp", Type: "tmpfs"}}
		}},
		{"linux.rootfsPropagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "private" }},
		{"linux.maskedPaths", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/x"} }},
		{"linux.readonlyPaths", func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/x"} }},
		{"linux.devices", func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c"}}
		}},
		{"linux.mountLabel", func(s *specs.Spec) { s.Linux.MountLabel = "x" }},
		{"linux.namespaces[0] (mount)", func(s *specs.Spec) {
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
		}},
		{"linux.namespaces[0] (mount)", func(s *specs.Spec) {
			s.Linux.Namespaces = []specs.LinuxNamespace{
				{Type: specs.MountNamespace, Path: "/proc/7/ns/mnt"},
			}
		}},
		{"hostname", func(s *specs.Spec) { s.Hostname, s.Linux.Namespaces = "h", pidOnly() }},
		{"linux.sysctl[net.ipv4.ip_forward]", func(s *specs.Spec) {
			s.Linux.Namespaces = pidOnly()
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		}},
		{"linux.uidMappings", func(s *specs.Spec) {
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UserNamespace}}
		}},
	} {
		for name, make := range map[string]func(*specs.Spec, Options) (*Plan, error){
			"process": Process, "hold": Hold,
		} {
			s := held()
			if name == "process" {
				s = bare()
				s.Linux = &specs.Linux{}
			} else {
				s.Hostname, s.Linux.Sysctl = "", nil
			}
			c.edit(s)
			_, err := make(s, Options{})
			refused(t, name, c.field, err)
		}
	}
	for _, c := range []struct {
		field string
		edit  func(*specs.Spec)
	}{
		{"linux.namespaces", func(s *specs.Spec) { *s = specs.Spec{} }},
		{"linux.seccomp", func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{} }},
		{"process.args", func(s *specs.Spec) { s.Process = bare().Process }},
		{"process.user", func(s *specs.Spec) {
			s.Process = &specs.Process{User: specs.User{UID: 1}}
		}},
		{"process.oomScoreAdj", func(s *specs.Spec) {
			s.Process = &specs.Process{OOMScoreAdj: number(1001)}
		}},
	} {
		s := held()
		c.edit(s)
		_, err := Hold(s, Options{})
		refused(t, "hold", c.field, err)
	}
	for _, opt := range []Options{{Hold: true}, {Hooks: true}, {Reaper: true}, {PreserveFDs: 1}} {
		_, err := Hold(held(), opt)
		refused(t, "hold", "options.", err)
	}
	_, err := Process(bare(), Options{Overlay: &Overlay{Lower: []string{"/l"}, Target: "/t"}})
	refused(t, "process", "root (overlay)", err)
	_, err = Process(&specs.Spec{}, Options{})
	refused(t, "process", "process", err)
}

func pidOnly() []specs.LinuxNamespace {
	return []specs.LinuxNamespace{{Type: specs.PIDNamespace}}
}

func refused(t *testing.T, what, field string, err error) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), field) ||
		!errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf(
			"%s: got error %v, want one of class ErrInvalidArgument that begins with %s",
			what, err, field,
		)
	}
}
