package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/plan"
	"strake/container/program"
	"strake/container/spawn"
)

// hold starts a holder of new namespaces with what a pod sets in them.
func hold(t *testing.T, m *spawn.Machine, edit func(*specs.Spec), entry Entry) *spawn.Child {
	t.Helper()
	s := bare(t, "")
	s.Process, s.Hostname = nil, "pod"
	s.Linux.Namespaces = namespaces(
		specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace,
	)
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096"}
	if edit != nil {
		edit(s)
	}
	l, err := Hold(s, plan.Options{}, entry)
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(t, m, l, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.child.PidFD >= 0 {
			p.child.Kill()
		}
	})
	return p.child
}

func proc(c *spawn.Child, name string) string { return fmt.Sprintf("/proc/%d/%s", c.Pid, name) }

func text(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// until waits for a condition of another process.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestHold(t *testing.T) {
	path, entry := group(t)
	c := hold(t, machine(t), nil, entry)
	if got := text(t, proc(c, "comm")); got != "strake-hold\n" {
		t.Errorf("its name is %q", got)
	}
	if got := text(t, proc(c, "cmdline")); !strings.HasPrefix(got, "strake: holding") {
		t.Errorf("its command line is %q", got)
	}
	if got := text(t, proc(c, "cgroup")); !strings.Contains(got, path+"\n") {
		t.Errorf("it is in the groups\n%swant %s", got, path)
	}
	for _, ns := range []string{"pid", "ipc", "uts", "net", "mnt"} {
		if link(t, proc(c, "ns/"+ns)) == link(t, "/proc/self/ns/"+ns) {
			t.Errorf("its %s namespace is the host's", ns)
		}
	}
	status := text(t, proc(c, "status"))
	for _, want := range []string{
		"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000",
		fmt.Sprintf("NSpid:\t%d\t1\n", c.Pid),
	} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in its status:\n%s", want, status)
		}
	}
	for _, dir := range []string{"fd", "root"} {
		if list, err := os.ReadDir(proc(c, dir)); err != nil || len(list) > 0 {
			t.Errorf("%s has %v, %v, want nothing", dir, list, err)
		}
	}
	if got := strings.Count(text(t, proc(c, "mountinfo")), "\n"); got != 1 {
		t.Errorf("it sees %d mounts, want its empty root", got)
	}
	if n := strings.Fields(text(t, proc(c, "statm"))); len(n[0]) > 1 {
		t.Errorf("it has %s pages of address space, want less than 10", n[0])
	}
	unix.PidfdSendSignal(c.PidFD, unix.SIGTERM, nil, 0)
	if ws := reap(t, c); !ws.Exited() || ws.ExitStatus() != 0 {
		t.Errorf("wait status %#x after SIGTERM, want an exit with 0", int(ws))
	}
}

func reap(t *testing.T, c *spawn.Child) (ws unix.WaitStatus) {
	t.Helper()
	if _, err := unix.Wait4(c.Pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	unix.Close(c.PidFD)
	c.PidFD = -1
	return ws
}

// member is a container that joins the holder's namespaces by descriptors.
func member(
	t *testing.T, c *spawn.Child, script string, types map[specs.LinuxNamespaceType]string,
) *specs.Spec {
	t.Helper()
	s := config(rootfs(t), script)
	s.Linux.Namespaces = namespaces(specs.MountNamespace)
	for _, typ := range []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.UserNamespace, specs.IPCNamespace, specs.UTSNamespace,
		specs.NetworkNamespace,
	} {
		name, ok := types[typ]
		if !ok {
			continue
		}
		f, err := os.Open(proc(c, "ns/"+name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{
			Type: typ, Path: fmt.Sprintf("/proc/self/fd/%d", f.Fd()),
		})
	}
	return s
}

var shared = map[specs.LinuxNamespaceType]string{
	specs.PIDNamespace: "pid", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
	specs.NetworkNamespace: "net",
}

// TestJoin starts containers in the namespaces of a holder: what was set there is theirs, and is
// not set again unless they say so.
func TestJoin(t *testing.T) {
	m := machine(t)
	c := hold(t, m, nil, Nowhere())
	const look = "busybox hostname; busybox cat /proc/1/comm /proc/sys/net/ipv4/ip_forward " +
		"/proc/sys/kernel/shmmax; test $$ -gt 1 && echo second"
	join := func(s *specs.Spec) string {
		t.Helper()
		l, err := Init(m, s, options, Nowhere())
		if err != nil {
			t.Fatal(err)
		}
		return finish(t, m, l, true)
	}
	got, want := join(member(t, c, look, shared)), "pod\nstrake-hold\n1\n4096\nsecond\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s := member(t, c, look, shared)
	s.Hostname, s.Linux.Sysctl = "other", map[string]string{"net.ipv4.ip_forward": "0"}
	if got, want := join(s), "other\nstrake-hold\n0\n4096\nsecond\n"; got != want {
		t.Errorf("with settings of its own: got %q, want %q", got, want)
	}
	b := bare(t, "hostname; test $$ -gt 1 && echo second")
	b.Linux.Namespaces = member(t, c, "", shared).Linux.Namespaces[1:]
	l, err := Process(b, options, Nowhere())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := finish(t, m, l, true), "other\nsecond\n"; got != want {
		t.Errorf("a process without a root: got %q, want %q", got, want)
	}
}

func TestJoinUserNamespace(t *testing.T) {
	m := machine(t)
	path, entry := group(t)
	c := hold(t, m, func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, namespaces(specs.UserNamespace)...)
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
		score := 998
		s.Process = &specs.Process{OOMScoreAdj: &score}
	}, entry)
	if got := text(t, proc(c, "cgroup")); !strings.Contains(got, path+"\n") {
		t.Errorf("it is in the groups\n%swant %s", got, path)
	}
	if got := text(t, proc(c, "oom_score_adj")); got != "998\n" {
		t.Errorf("its OOM score is %q, want 998", got)
	}
	types := map[specs.LinuxNamespaceType]string{specs.UserNamespace: "user"}
	for typ, name := range shared {
		types[typ] = name
	}
	s := member(t, c, "busybox cat /proc/self/uid_map /proc/1/comm; busybox hostname", types)
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"})
	// A mapped user must be able to reach it.
	for d := s.Root.Path; d != "/" && strings.HasPrefix(d, os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Init(m, s, options, Nowhere())
	if err != nil {
		t.Fatal(err)
	}
	want := "         0     100000      65536\nstrake-hold\npod\n"
	if got := finish(t, m, l, true); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestJoinForeignOwner joins a namespace that does not belong to the container's new user namespace:
// the rights of the spawner allow it.
func TestJoinForeignOwner(t *testing.T) {
	m := machine(t)
	c := hold(t, m, nil, Nowhere())
	s := member(
		t, c, "busybox hostname; busybox cat /proc/self/uid_map",
		map[specs.LinuxNamespaceType]string{specs.UTSNamespace: "uts"},
	)
	s.Linux.Namespaces = append(
		s.Linux.Namespaces, namespaces(specs.UserNamespace, specs.PIDNamespace)...,
	)
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"})
	// A mapped user must be able to reach it.
	for d := s.Root.Path; d != "/" && strings.HasPrefix(d, os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Init(m, s, options, Nowhere())
	if err != nil {
		t.Fatal(err)
	}
	want := "pod\n         0     100000      65536\n"
	if got := finish(t, m, l, true); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestHoldReaps leaves orphans to a holder that is PID 1.
func TestHoldReaps(t *testing.T) {
	m := machine(t)
	c := hold(t, m, nil, Nowhere())
	s := member(t, c, "for i in 1 2 3; do (busybox sleep 0.01 &); done", shared)
	l, err := Init(m, s, options, Nowhere())
	if err != nil {
		t.Fatal(err)
	}
	finish(t, m, l, false)
	until(t, "the holder has reaped its children", func() bool {
		return text(t, proc(c, fmt.Sprintf("task/%d/children", c.Pid))) == ""
	})
}

// TestHoldSignals holds that the processes of a sandbox cannot end it, while from outside it can be
// ended, and stopped and continued.
func TestHoldSignals(t *testing.T) {
	m := machine(t)
	c := hold(t, m, nil, Nowhere())
	s := member(t, c, "kill -TERM 1; kill -KILL 1; kill -HUP 1; kill -USR1 1; kill -CHLD 1", shared)
	s.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"},
		Effective: []string{"CAP_KILL"},
	}
	l, err := Init(m, s, options, Nowhere())
	if err != nil {
		t.Fatal(err)
	}
	finish(t, m, l, false)
	state := func(letter string) func() bool {
		return func() bool {
			return strings.Contains(text(t, proc(c, "status")), "State:\t"+letter) &&
				strings.Contains(text(t, proc(c, "status")), "ShdPnd:\t0000000000000000")
		}
	}
	until(t, "the holder has taken the signals from inside and waits", state("S"))
	unix.PidfdSendSignal(c.PidFD, unix.SIGSTOP, nil, 0)
	until(t, "it is stopped", state("T"))
	unix.PidfdSendSignal(c.PidFD, unix.SIGCONT, nil, 0)
	until(t, "it waits again", state("S"))
	unix.PidfdSendSignal(c.PidFD, unix.SIGTERM, nil, 0)
	if ws := reap(t, c); !ws.Exited() || ws.ExitStatus() != 0 {
		t.Errorf("wait status %#x after SIGTERM, want an exit with 0", int(ws))
	}
	// In the host's PID namespace the sender does not matter.
	c = hold(t, m, func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, Nowhere())
	unix.Kill(c.Pid, unix.SIGTERM)
	if ws := reap(t, c); !ws.Exited() || ws.ExitStatus() != 0 {
		t.Errorf("wait status %#x after SIGTERM, want an exit with 0", int(ws))
	}
}

// TestOwnNamespace refuses to change the host through a namespace that is "joined".
func TestOwnNamespace(t *testing.T) {
	root := rootfs(t)
	for _, c := range []struct {
		typ          specs.LinuxNamespaceType
		path, prefix string
		edit         func(*specs.Spec)
	}{
		{specs.UTSNamespace, "uts", "hostname: ", func(s *specs.Spec) { s.Hostname = "x" }},
		{specs.UTSNamespace, "uts", "domainname: ", func(s *specs.Spec) { s.Domainname = "x" }},
		{
			specs.NetworkNamespace, "net", "linux.sysctl[net.ipv4.ip_forward]: ",
			func(s *specs.Spec) {
				s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
			},
		},
		{specs.IPCNamespace, "ipc", "linux.sysctl[kernel.sem]: ", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"kernel.sem": "1 2 3 4"}
		}},
	} {
		s := config(root, "")
		s.Linux.Namespaces = append(
			namespaces(specs.MountNamespace),
			specs.LinuxNamespace{Type: c.typ, Path: "/proc/self/ns/" + c.path},
		)
		l, err := Init(nil, s, options, Nowhere())
		if err != nil {
			t.Fatalf("%s: joined and not changed: %v", c.path, err)
		}
		l.Close()
		c.edit(s)
		_, err = Init(nil, s, options, Nowhere())
		if err == nil || !strings.HasPrefix(err.Error(), c.prefix+"would change the host") ||
			!errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: got %v, want an error that begins with %s", c.path, err, c.prefix)
		}
	}
}

// TestHoldBrokenAtEveryOperation fails each operation of a holder's program once: the error says
// which, and no process is left.
func TestHoldBrokenAtEveryOperation(t *testing.T) {
	m := machine(t)
	s := bare(t, "")
	s.Process, s.Hostname = nil, "pod"
	s.Linux.Namespaces = namespaces(specs.PIDNamespace, specs.UTSNamespace)
	l, err := Hold(s, plan.Options{}, Nowhere())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	loop := 0
	for i := range l.Plan().Len() {
		if l.Plan().Op(i).Field == "hold" && program.CallName(l.Plan().Op(i).Nr) == "close_range" {
			loop = i
		}
	}
	failed := 0
	for i := range loop {
		req := l.Request()
		req.Image = req.Image.Broken(i, uint16(unix.EIO))
		child, err := m.Start(req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = child.Next()
		child.Kill()
		if err = l.Explain(err); err != nil {
			failed++
			var step *plan.StepError
			if !errors.As(err, &step) || step.Index != i || step.Errno != unix.EIO {
				t.Errorf("operation %d: got %v", i, err)
			}
		}
	}
	if failed < loop/2 {
		t.Errorf("%d of %d operations failed", failed, loop)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("child %d is left, %v", pid, err)
	}
}
