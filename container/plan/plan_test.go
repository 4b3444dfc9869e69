package plan

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

var update = flag.Bool(
	"update", false, "rewrite the golden files; read the difference before you commit it",
)

// base is a small valid configuration.
func base() *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "/bundle/rootfs"},
		Process: &specs.Process{
			Args: []string{"/bin/true"}, Cwd: "/", Env: []string{"PATH=/usr/bin:/bin"},
		},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace},
			{Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
		}},
	}
}

func mapped(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
}

func number[T any](v T) *T { return &v }

// cases are the configurations of the golden files.
var cases = []struct {
	name string
	opt  Options
	edit func(*specs.Spec)
}{
	{name: "minimal"},
	{name: "cgroup1", opt: Options{Tasks: 2, Host: Host{LastCap: 40, Hierarchies: []Hierarchy{
		{Dir: "memory", Options: []string{"memory"}, Path: "/sys/fs/cgroup/memory/c"},
		{
			Dir: "cpu,cpuacct", Options: []string{"cpu", "cpuacct"},
			Path: "/sys/fs/cgroup/cpu,cpuacct/c",
		},
	}}}, edit: func(s *specs.Spec) {
		s.Linux.Namespaces = append(
			s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace},
		)
		s.Mounts = append(
			s.Mounts,
			specs.Mount{
				Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
				Options: []string{"ro", "nosuid"},
			},
		)
	}},
	{name: "cgroup1-grouped", opt: Options{
		TaskPaths: []string{"memory/c/tasks", "cpu,cpuacct/c/tasks"}, Grouped: true,
		Host: Host{LastCap: 40},
	}, edit: func(s *specs.Spec) {
		s.Linux.Namespaces = append(
			s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace},
		)
	}},
	{name: "cgroup1-late", opt: Options{TaskPaths: []string{
		"memory/c/tasks", "cpu,cpuacct/c/tasks",
	}, Host: Host{LastCap: 40, Hierarchies: []Hierarchy{
		{Dir: "memory", Options: []string{"memory"}, Path: "/sys/fs/cgroup/memory/c"},
	}}}, edit: func(s *specs.Spec) {
		s.Linux.Namespaces = append(
			s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace},
		)
		s.Mounts = append(s.Mounts, specs.Mount{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"ro", "nosuid"},
		},
			specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs"})
	}},
	{name: "cgroup2-shared-namespace", opt: Options{
		Host: Host{
			LastCap: 40, Cgroup2: true, Hierarchies: []Hierarchy{{Path: "/sys/fs/cgroup/c"}},
		},
	}, edit: func(s *specs.Spec) {
		s.Mounts = append(
			s.Mounts,
			specs.Mount{
				Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
				Options: []string{"ro"},
			},
		)
	}},
	{name: "user-namespace", edit: func(s *specs.Spec) {
		mapped(s)
		s.Mounts = append(
			s.Mounts, specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		)
	}},
	{name: "user-namespace-oom-score", edit: func(s *specs.Spec) {
		mapped(s)
		s.Process.OOMScoreAdj = number(-998)
	}},
	{name: "join-pid-and-user", edit: func(s *specs.Spec) {
		s.Linux.Namespaces = []specs.LinuxNamespace{
			{Type: specs.PIDNamespace, Path: "/proc/7/ns/pid"}, {Type: specs.MountNamespace},
			{Type: specs.UserNamespace, Path: "/proc/7/ns/user"}, {Type: specs.UTSNamespace},
		}
	}},
	{name: "time-namespace", edit: func(s *specs.Spec) {
		s.Linux.Namespaces = append(
			s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace},
		)
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{
			"monotonic": {Secs: 7}, "boottime": {Secs: -2, Nanosecs: 5},
		}
	}},
	{name: "terminal", edit: func(s *specs.Spec) {
		s.Process.Terminal = true
		s.Process.ConsoleSize = &specs.Box{Height: 25, Width: 80}
		s.Mounts = append(s.Mounts, specs.Mount{
			Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
		},
			specs.Mount{
				Destination: "/dev/pts", Type: "devpts", Source: "devpts",
				Options: []string{"newinstance", "ptmxmode=0666"},
			})
	}},
	{name: "mounts", edit: func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{
				Destination: "/data", Source: "/srv/data",
				Options: []string{"rbind", "ro", "nosuid"},
			},
			specs.Mount{
				Destination: "/data/deep", Source: "/srv/deep",
				Options: []string{"rbind", "rro", "rshared"},
			},
			specs.Mount{
				Destination: "/etc/hosts", Type: "bind", Source: "/srv/hosts",
				Options: []string{"bind", "rprivate"},
			},
			specs.Mount{
				Destination: "/tmp", Type: "tmpfs", Source: "tmpfs",
				Options: []string{"noexec", "size=1m", "noswap"},
			},
			specs.Mount{
				Destination: "/data", Options: []string{"remount", "bind", "noexec"},
				Source: "/srv/data",
			},
		)
	}},
	{name: "idmapped", edit: func(s *specs.Spec) {
		m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}}
		s.Mounts = append(
			s.Mounts,
			specs.Mount{
				Destination: "/data", Source: "/srv/data", Options: []string{"bind", "idmap"},
				UIDMappings: m, GIDMappings: m,
			},
		)
	}},
	{name: "overlay", opt: Options{
		Overlay: &Overlay{
			Lower: []string{"/l/2", "/l/1"}, Upper: "/c/diff", Work: "/c/work", Target: "/c/root",
		},
		Host: Host{LastCap: 40},
	},
		edit: func(s *specs.Spec) { s.Root = nil }},
	{name: "overlay-volatile", opt: Options{
		Overlay: &Overlay{
			Lower: []string{"/l/1"}, Upper: "/c/diff", Work: "/c/work", Volatile: true,
			Target: "/c/root",
		},
		Host: Host{LastCap: 40},
	},
		edit: func(s *specs.Spec) { s.Root = nil }},
	{name: "overlay-volatile-of-many-layers", opt: Options{
		Overlay: &Overlay{
			Lower: strings.Fields(
				strings.Repeat("/a/long/name/of/a/layer /b/long/name/of/a/layer ", 100),
			),
			Upper: "/c/diff", Work: "/c/work", Volatile: true, Target: "/c/root",
		},
		Host: Host{LastCap: 40},
	},
		edit: func(s *specs.Spec) { s.Root = nil }},
	{name: "overlay-of-many-layers", opt: Options{
		Overlay: &Overlay{
			Lower: strings.Fields(
				strings.Repeat("/a/long/name/of/a/layer /b/long/name/of/a/layer ", 100),
			),
			Target: "/c/root",
		},
		Host: Host{LastCap: 40},
	},
		edit: func(s *specs.Spec) { s.Root = nil }},
	{name: "overlay-of-layers-beside", opt: Options{Overlay: &Overlay{Lower: strings.Fields(
		strings.Repeat("/a,b:c/snapshots/31/fs /a,b:c/snapshots/7/fs ", 100),
	),
		Upper: "/a,b:c/snapshots/40/fs", Work: "/a,b:c/snapshots/40/work", Target: "/c/root",
	}, Host: Host{LastCap: 40}}, edit: func(s *specs.Spec) {
		s.Root = nil
	}},
	{name: "devices", edit: func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{
			{
				Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229,
				FileMode: number(os.FileMode(0o600)), UID: number(uint32(5)),
				GID: number(uint32(6)),
			},
			{Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200},
			{
				Path: "/dev/null", Type: "c", Major: 1, Minor: 3,
				FileMode: number(os.FileMode(0o600)),
			},
		}
	}},
	{name: "system-paths", edit: func(s *specs.Spec) {
		s.Linux.MaskedPaths = []string{"/proc/kcore", "/sys/firmware"}
		s.Linux.ReadonlyPaths = []string{"/proc/sys"}
		s.Root.Readonly = true
		s.Linux.RootfsPropagation = "rprivate"
	}},
	{name: "identity", edit: func(s *specs.Spec) {
		s.Process.User = specs.User{
			UID: 1000, GID: 100, AdditionalGids: []uint32{5, 6}, Umask: number(uint32(0o77)),
		}
		s.Process.Capabilities = &specs.LinuxCapabilities{
			Bounding: []string{"CAP_NET_BIND_SERVICE"}, Effective: []string{"CAP_NET_BIND_SERVICE"},
			Permitted:   []string{"CAP_NET_BIND_SERVICE"},
			Inheritable: []string{"CAP_NET_BIND_SERVICE"},
			Ambient:     []string{"CAP_NET_BIND_SERVICE"},
		}
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
		s.Process.OOMScoreAdj = number(-500)
		s.Process.Cwd = "/home/u"
		s.Hostname, s.Domainname = "h", "d"
	}},
	{name: "seccomp", edit: func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"getcwd"}, Action: specs.ActErrno},
			},
		}
	}},
	{name: "seccomp-no-new-privileges", edit: func(s *specs.Spec) {
		s.Process.NoNewPrivileges = true
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"getcwd"}, Action: specs.ActErrno},
			},
		}
	}},
	{name: "apparmor-and-sysctl", opt: Options{
		Host: Host{LastCap: 40, AppArmor: true},
	}, edit: func(s *specs.Spec) {
		s.Process.ApparmorProfile = "docker-default"
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096"}
	}},
	{name: "path-lookup", edit: func(s *specs.Spec) { s.Process.Args = []string{"true", "-x"} }},
	{name: "reaper", opt: Options{Reaper: true, Host: Host{LastCap: 40}}},
	{name: "hold-and-hooks", opt: Options{Hold: true, Hooks: true, Host: Host{LastCap: 40}}},
	{name: "pipes", opt: Options{Stdio: Pipes, Host: Host{LastCap: 40}}},
	{name: "memory-policy", edit: func(s *specs.Spec) {
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{
			Mode: specs.MpolInterleave, Nodes: "2-3",
			Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes},
		}
	}},
	{name: "no-pivot", opt: Options{
		NoPivot: true, Host: Host{LastCap: 40, Whole: []string{"/sys", "/proc", "/srv/a b/proc"}},
	}},
	{
		name: "assist",
		opt: Options{
			Assist: true, TaskPaths: []string{"pids/g/tasks"}, Host: Host{LastCap: 40},
		},
		edit: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{
				Destination: "/var", Type: "tmpfs", Options: []string{"tmpcopyup", "mode=755"},
			})
		},
	},
	{name: "scheduling", edit: func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 3}
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 2}
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	}},
}

func (c *wish) compile(t *testing.T) *Plan {
	t.Helper()
	s := base()
	if c.edit != nil {
		c.edit(s)
	}
	opt := c.opt
	if opt.Host.LastCap == 0 {
		opt.Host.LastCap = 40
	}
	p, err := Init(s, opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wish is a case without its name.
type wish struct {
	opt  Options
	edit func(*specs.Spec)
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := (&wish{c.opt, c.edit}).compile(t)
			golden(t, c.name, p.Program)
		})
	}
}

func TestGoldenExec(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]ExecOptions{
		"exec": {
			Flags:   unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
			Options: Options{Tasks: 1, Stdio: Pipes, Host: Host{LastCap: 40}},
		},
		"exec-userns": {
			Flags:   unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
			Options: Options{Stdio: Pipes, Host: Host{LastCap: 40}},
		},
		"exec-separate": {
			Flags:   unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
			Options: Options{Stdio: Pipes, Host: Host{LastCap: 40}}, Separate: true,
		},
		"exec-terminal": {Flags: unix.CLONE_NEWNS, Options: Options{Host: Host{LastCap: 40}}},
		"exec-affinity": {
			Flags: unix.CLONE_NEWNS, Options: Options{Tasks: 1, Stdio: Pipes, Host: Host{LastCap: 40}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proc := *base().Process
			proc.Terminal = name == "exec-terminal"
			if name == "exec-affinity" {
				proc.ExecCPUAffinity = &specs.CPUAffinity{Initial: "7", Final: "0-3,70"}
			}
			p, err := Exec(base(), &proc, opt)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, p.Program)
		})
	}
}

func golden(t *testing.T, name string, p *program.Program) {
	t.Helper()
	var b bytes.Buffer
	if err := p.Print(&b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf(
			"%s differs from the program; run go test -update and read the difference\ngot:\n%s",
			file, b.String(),
		)
	}
}

// TestDeterminism compiles everything twice: the same configuration gives the same bytes.
func TestDeterminism(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		one, two := (&wish{c.opt, c.edit}).compile(t), (&wish{c.opt, c.edit}).compile(t)
		if !bytes.Equal(one.Encode(), two.Encode()) {
			t.Errorf("%s: two compilations differ", c.name)
		}
	}
}

var inputNames = regexp.MustCompile("<[^>]*>")

// TestNoPathInsideRootWithoutHandle holds the first safety property: between the appearance of the
// container's root and the change to it, strings are resolved only below a descriptor, and only
// with RESOLVE_IN_ROOT or as a single name.
func TestNoPathInsideRootWithoutHandle(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		p := (&wish{c.opt, c.edit}).compile(t)
		inside := false
		for i := range p.Len() {
			op := p.Op(i)
			if op.Code != program.Syscall {
				continue
			}
			text := inputNames.ReplaceAllString(p.Text(i), "<input>")
			switch name := program.CallName(op.Nr); name {
			case "fchdir":
				inside = false
			case "pivot_root":
			case "mount", "move_mount", "umount2", "chdir", "chroot", "openat", "mknodat",
				"mkdirat", "symlinkat", "unlinkat", "fchownat", "open_tree":
				if name == "mount" && strings.Contains(text, `"overlay"`) ||
					strings.HasPrefix(op.Field, "root") &&
						(name == "move_mount" || name == "openat") {
					inside = true
					continue
				}
				if !inside {
					continue
				}
				if strings.Contains(text, "AT_FDCWD") && !strings.Contains(text, `"/dev/null"`) {
					t.Errorf("%s: %d %s: resolved without a handle", c.name, i, text)
				}
				for _, quoted := range strings.Split(text, `"`) {
					if name != "symlinkat" && strings.Contains(quoted, "/") &&
						!strings.Contains(text, `AT_FDCWD, "/dev/null"`) {
						t.Errorf("%s: %d %s: more than one name below a handle", c.name, i, text)
					}
				}
			case "openat2":
				if inside && !strings.Contains(text, "in-root") &&
					!strings.Contains(text, "beneath") {
					t.Errorf("%s: %d %s: may leave the root", c.name, i, text)
				}
			}
		}
	}
}

// TestIsolationComesFirst holds that a child gives up descriptors, memory and executable before it
// joins or makes anything.
func TestIsolationComesFirst(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		p := (&wish{c.opt, c.edit}).compile(t)
		for i := 0; ; i++ {
			op := p.Op(i)
			if op.Code == program.Syscall && program.CallName(op.Nr) == "prctl" &&
				op.Args[0].Value == unix.PR_SET_MM {
				break
			}
			if op.Field != "isolate" {
				t.Fatalf("%s: %d %s comes before the executable is given up", c.name, i, p.Text(i))
			}
		}
	}
}

// TestInvalid lists configurations that are refused, each with the field that the error must name.
func TestInvalid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		field string
		edit  func(*specs.Spec)
	}{
		{"process.args", func(s *specs.Spec) { s.Process.Args = nil }},
		{"process.args[1]", func(s *specs.Spec) { s.Process.Args = []string{"a", "b\x00c"} }},
		{"process.env[0]", func(s *specs.Spec) { s.Process.Env = []string{"novalue"} }},
		{"process.cwd", func(s *specs.Spec) { s.Process.Cwd = "relative" }},
		{"process.execCPUAffinity.initial", func(s *specs.Spec) {
			s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "1-"}
		}},
		{"process.execCPUAffinity.final", func(s *specs.Spec) {
			s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "1", Final: "3-2"}
		}},
		{"linux.memoryPolicy.mode", func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_NONE"}
		}},
		{"linux.memoryPolicy.nodes", func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "9000"}
		}},
		{"linux.memoryPolicy.flags[0]", func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{
				Mode: "MPOL_BIND", Nodes: "0", Flags: []specs.MemoryPolicyFlagType{"MPOL_F"},
			}
		}},
		{
			"process.rlimits[0].type",
			func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NO"}} },
		},
		{
			"process.rlimits[0]",
			func(s *specs.Spec) {
				s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU", Soft: 2, Hard: 1}}
			},
		},
		{"process.oomScoreAdj", func(s *specs.Spec) { s.Process.OOMScoreAdj = number(1001) }},
		{"process.user", func(s *specs.Spec) { s.Process.User.UID = ^uint32(0) }},
		{"process.apparmorProfile", func(s *specs.Spec) { s.Process.ApparmorProfile = "x" }},
		{
			"process.ioPriority.class",
			func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "x"} },
		},
		{
			"process.scheduler",
			func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "x"} },
		},
		{"root.path", func(s *specs.Spec) { s.Root = nil }},
		{"hostname", func(s *specs.Spec) { s.Hostname = strings.Repeat("a", 65) }},
		{"linux.namespaces", func(s *specs.Spec) { s.Linux.Namespaces = nil }},
		{
			"linux.namespaces[5].type",
			func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "x"})
			},
		},
		{
			"linux.namespaces[5].type",
			func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0])
			},
		},
		{
			"linux.namespaces[0].path",
			func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "relative" },
		},
		{"linux.uidMappings", func(s *specs.Spec) {
			s.Linux.Namespaces = append(
				s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace},
			)
		}},
		{
			"linux.timeOffsets",
			func(s *specs.Spec) {
				s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {}}
			},
		},
		{"linux.rootfsPropagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "x" }},
		{
			"linux.sysctl[kernel.core_pattern]",
			func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.core_pattern": "|x"} },
		},
		{
			"linux.sysctl[net.../../kernel/core_pattern]",
			func(s *specs.Spec) {
				s.Linux.Sysctl = map[string]string{"net.../../kernel/core_pattern": "|x"}
			},
		},
		{
			"linux.devices[0]",
			func(s *specs.Spec) {
				s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "q"}}
			},
		},
		{
			"mounts[1] (/)",
			func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/", Type: "tmpfs"})
			},
		},
		{"mounts[1] (/a)", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/a", Type: "bind", Source: "b"})
		}},
		{
			"mounts[1] (/a)",
			func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/a"}) },
		},
		{"mounts[1] (/a)", func(s *specs.Spec) {
			s.Mounts = append(
				s.Mounts,
				specs.Mount{Destination: "/a", Source: "/b", Options: []string{"bind", "nonsense"}},
			)
		}},
		{"mounts[1] (/proc/self)", func(s *specs.Spec) {
			s.Mounts = append(
				s.Mounts,
				specs.Mount{Destination: "/proc/self", Source: "/b", Options: []string{"bind"}},
			)
		}},
		{"mounts[1] (/a/../proc/sys)", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/a/../proc/sys", Type: "tmpfs"})
		}},
		{
			"linux.seccomp",
			func(s *specs.Spec) {
				s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_NO"}
			},
		},
	} {
		s := base()
		c.edit(s)
		_, err := Init(s, Options{Host: Host{LastCap: 40}})
		if err == nil || !strings.HasPrefix(err.Error(), c.field) ||
			!errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf(
				"got error %v, want one of class ErrInvalidArgument that begins with %s", err,
				c.field,
			)
		}
	}
}

// TestExplain turns failures into sentences.
func TestExplain(t *testing.T) {
	t.Parallel()
	s := base()
	s.Mounts = append(
		s.Mounts, specs.Mount{Destination: "/data", Source: "/srv/data", Options: []string{"bind"}},
	)
	p, err := Init(s, Options{Host: Host{LastCap: 40}})
	if err != nil {
		t.Fatal(err)
	}
	find := func(field, call string) int {
		for i := range p.Len() {
			op := p.Op(i)
			if op.Field == field && op.Code == program.Syscall && program.CallName(op.Nr) == call {
				return i
			}
		}
		t.Fatalf("no %s for %s", call, field)
		return 0
	}
	for _, c := range []struct {
		field, call string
		errno       unix.Errno
		want        string
		code        int
	}{
		{
			"mounts[1] (/data)", "move_mount", unix.EINVAL,
			"mounts[1] (/data): move_mount: EINVAL: invalid argument", 128,
		},
		{
			"process.args (/bin/true)", "execve", unix.ENOENT,
			"process.args (/bin/true): execve: ENOENT: exec /bin/true: no such file or directory, " +
				"or its interpreter is missing",
			127,
		},
		{
			"process.args (/bin/true)", "execve", unix.EACCES,
			"process.args (/bin/true): execve: EACCES: permission denied: not an executable file",
			126,
		},
		{
			"mounts[0] (/proc)", "openat2", unix.ELOOP,
			"mounts[0] (/proc): openat2: ELOOP: must be mounted on ordinary directory, " +
				"but a symbolic link is in its place",
			128,
		},
	} {
		err := Explain(p.Program, find(c.field, c.call), c.errno)
		var step *StepError
		if !errors.As(err, &step) || err.Error() != c.want || step.ExitCode() != c.code ||
			!errors.Is(err, c.errno) {
			t.Errorf("got %v, want %q with exit status %d", err, c.want, c.code)
		}
	}
}

func BenchmarkInit(b *testing.B) {
	s := base()
	cases[3].edit(s)
	for b.Loop() {
		p, err := Init(s, Options{Host: Host{LastCap: 40}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := program.Parse(p.Encode()); err != nil {
			b.Fatal(err)
		}
	}
}
