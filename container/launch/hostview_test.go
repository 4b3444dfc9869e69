package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/container/plan"
)

// bare is a process of the host's busybox, found in PATH.
func bare(t *testing.T, script string) *specs.Spec {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs /bin/busybox (package busybox-static)")
	}
	return &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Args: []string{"busybox", "sh", "-c", script}, Cwd: "/",
			Env: []string{"PATH=/nowhere:/bin"},
		},
		Linux: &specs.Linux{},
	}
}

func namespaces(types ...specs.LinuxNamespaceType) (list []specs.LinuxNamespace) {
	for _, t := range types {
		list = append(list, specs.LinuxNamespace{Type: t})
	}
	return list
}

func link(t *testing.T, path string) string {
	t.Helper()
	text, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestProcess(t *testing.T) {
	dir := t.TempDir()
	seccomp := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"uname"}, Action: specs.ActErrno}},
	}
	for _, c := range []struct {
		name, script, want string
		status             int
		reaper             bool
		edit               func(*specs.Spec)
	}{
		{
			name:   "the host's view",
			script: "readlink /proc/self/ns/mnt; readlink /proc/self/ns/net; pwd",
			want: strings.Join([]string{
				link(t, "/proc/self/ns/mnt"), link(t, "/proc/self/ns/net"), dir, "",
			}, "\n"),
			edit: func(s *specs.Spec) { s.Process.Cwd = dir },
		},
		{
			name:   "identity",
			script: "id -u; id -g; umask; cat /proc/self/oom_score_adj; ulimit -n",
			want:   "5\n6\n0077\n321\n55\n", edit: func(s *specs.Spec) {
				umask, score := uint32(0o77), 321
				s.Process.User = specs.User{UID: 5, GID: 6, Umask: &umask}
				s.Process.OOMScoreAdj = &score
				s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 55, Hard: 60}}
			},
		},
		{
			name:   "confinement",
			script: "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status",
			want:   "CapEff:\t0000000000000400\nNoNewPrivs:\t1\nSeccomp:\t2\n",
			edit: func(s *specs.Spec) {
				caps := []string{"CAP_NET_BIND_SERVICE"}
				s.Process.Capabilities = &specs.LinuxCapabilities{
					Bounding: caps, Effective: caps, Permitted: caps,
				}
				s.Process.NoNewPrivileges = true
				s.Linux.Seccomp = seccomp
			},
		},
		// The three streams and ls's own.
		{name: "descriptors", script: "ls /proc/self/fd | wc -l", want: "4\n"},
		{
			name: "namespaces", script: "echo $$; hostname; cat /proc/sys/net/ipv4/ip_forward " +
				"/proc/sys/kernel/shmmax /proc/sys/kernel/domainname",
			want: "1\nh\n1\n4096\nd\n",
			edit: func(s *specs.Spec) {
				s.Hostname = "h"
				s.Linux.Namespaces = namespaces(
					specs.PIDNamespace, specs.UTSNamespace, specs.NetworkNamespace,
					specs.IPCNamespace, specs.CgroupNamespace,
				)
				s.Linux.Sysctl = map[string]string{
					"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096", "kernel.domainname": "d",
				}
			},
		},
		{
			name:   "user namespace",
			script: "id -u; cat /proc/self/uid_map /proc/sys/net/ipv4/ip_forward",
			want:   "0\n         0     100000      65536\n1\n", edit: func(s *specs.Spec) {
				s.Linux.Namespaces = namespaces(specs.UserNamespace, specs.NetworkNamespace)
				s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
				s.Linux.GIDMappings = s.Linux.UIDMappings
				s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
			},
		},
		{
			name: "reaper", script: "echo $$; exit 5", want: "2\n", status: 5, reaper: true,
			edit: func(s *specs.Spec) { s.Linux.Namespaces = namespaces(specs.PIDNamespace) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := bare(t, c.script)
			if c.edit != nil {
				c.edit(s)
			}
			opt := options
			opt.Reaper = c.reaper
			l, err := Process(s, opt, Nowhere())
			if err != nil {
				t.Fatal(err)
			}
			p, err := start(t, machine(t), l, true)
			if err != nil {
				t.Fatal(err)
			}
			out, ws := p.end(t)
			if out != c.want || ws.ExitStatus() != c.status {
				t.Errorf("got %q, %d, want %q, %d", out, ws.ExitStatus(), c.want, c.status)
			}
		})
	}
}

func TestProcessFailures(t *testing.T) {
	for _, c := range []struct {
		edit func(*specs.Spec)
		want string
		code int
	}{
		{
			func(s *specs.Spec) { s.Process.Cwd = "/nowhere" },
			"process.cwd (/nowhere): chdir: ENOENT", 128,
		},
		{
			func(s *specs.Spec) { s.Process.Args[0] = "no-such-program" },
			"process.args (no-such-program)", 127,
		},
	} {
		s := bare(t, "")
		c.edit(s)
		l, err := Process(s, options, Nowhere())
		if err != nil {
			t.Fatal(err)
		}
		_, err = start(t, machine(t), l, true)
		var step *plan.StepError
		if !errors.As(err, &step) || !strings.HasPrefix(err.Error(), c.want) ||
			step.ExitCode() != c.code {
			t.Errorf("got error %v, want %q with exit code %d", err, c.want, c.code)
		}
	}
}

// terminal allocates one as a keeper does.
func terminal(t *testing.T) (master *os.File, end int) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var unlock int32
	if _, _, e := unix.Syscall(
		unix.SYS_IOCTL, uintptr(fd), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlock)),
	); e != 0 {
		t.Fatal(e)
	}
	n, _, e := unix.Syscall(
		unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC,
	)
	if e != 0 {
		t.Fatal(e)
	}
	return os.NewFile(uintptr(fd), "/dev/ptmx"), int(n)
}

func TestProcessTerminal(t *testing.T) {
	s := bare(t, "tty; stty size; : < /dev/tty && echo controlled")
	s.Process.Terminal = true
	s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
	l, err := Process(s, options, Nowhere())
	if err != nil {
		t.Fatal(err)
	}
	master, end := terminal(t)
	defer master.Close()
	l.Inputs().Own(plan.InputTTY, end)
	name := link(t, fmt.Sprintf("/proc/self/fd/%d", end))
	p, err := start(t, machine(t), l, false)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(master) // ends with EIO when the other side is closed
	p.end(t)
	if want := name + "\r\n33 99\r\ncontrolled\r\n"; string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// group makes a control group that is removed with the test, and what one enters it by.
func group(t *testing.T) (path string, entry Entry) {
	t.Helper()
	host, err := cgroup.Detect("")
	if err != nil {
		t.Fatal(err)
	}
	path = fmt.Sprintf("/strake-launch-test-%d", os.Getpid())
	g, err := host.Create(path, nil, cgroup.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	entry = Nowhere()
	root, err := os.Open(host.Root())
	if err != nil {
		t.Fatal(err)
	}
	if join := g.Join(); join.CloneInto != nil {
		entry.Born = int(join.CloneInto.Fd())
	}
	entry.Tasks, entry.Root = host.TaskPaths(path), int(root.Fd())
	t.Cleanup(func() {
		root.Close()
		if err := g.Remove(context.Background()); err != nil {
			t.Error(err)
		}
		g.Close()
	})
	return path, entry
}

func TestProcessInGroup(t *testing.T) {
	s := bare(t, "cat /proc/self/cgroup")
	path, entry := group(t)
	l, err := Process(s, options, entry)
	if err != nil {
		t.Fatal(err)
	}
	if got := finish(t, machine(t), l, true); !strings.Contains(got, path+"\n") {
		t.Errorf("the process is in the groups\n%swant %s", got, path)
	}
}
