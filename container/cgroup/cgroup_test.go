package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
)

func ptr[T any](v T) *T { return &v }

func TestParseMounts(t *testing.T) {
	t.Parallel()
	raw := `30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 30 0:30 /sub /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 30 0:31 / /elsewhere/pids rw - cgroup cgroup rw,pids
`
	want := []Hierarchy{
		{
			Name: "cpu", Controllers: []string{"cpu", "cpuacct"},
			Mount: "/sys/fs/cgroup/cpu,cpuacct", Options: []string{"cpu", "cpuacct"},
		},
		{
			Name: "systemd", Mount: "/sys/fs/cgroup/systemd",
			Options: []string{"none", "name=systemd"},
		},
		{Name: "unified", Mount: "/sys/fs/cgroup/unified"},
	}
	if got := parseMounts([]byte(raw), "/sys/fs/cgroup"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestLocate(t *testing.T) {
	t.Parallel()
	self := "9:name=systemd:/user\n5:cpu,cpuacct:/\n4:memory:/\n0::/\n"
	mounted := map[string]int64{
		"/r/systemd": unix.CGROUP_SUPER_MAGIC, "/r/cpu,cpuacct": unix.CGROUP_SUPER_MAGIC,
		"/r/memory": unix.CGROUP_SUPER_MAGIC, "/r/unified": unix.CGROUP2_SUPER_MAGIC,
	}
	want := []Hierarchy{
		{Name: "systemd", Mount: "/r/systemd", Options: []string{"none", "name=systemd"}},
		{
			Name: "cpu", Controllers: []string{"cpu", "cpuacct"}, Mount: "/r/cpu,cpuacct",
			Options: []string{"cpu", "cpuacct"},
		},
		{
			Name: "memory", Controllers: []string{"memory"}, Mount: "/r/memory",
			Options: []string{"memory"},
		},
		{Name: "unified", Mount: "/r/unified"},
	}
	probe := func(p string) int64 { return mounted[p] }
	if got, complete := locate([]byte(self), "/r", probe); !complete ||
		!reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, complete)
	}
	delete(mounted, "/r/memory")
	if got, complete := locate([]byte(self), "/r", probe); complete {
		t.Errorf("without memory: %+v", got)
	}
	h, err := Detect("")
	if err != nil || h.Version() != 1 {
		return
	}
	raw, err := rawfile.Read("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	names := func(list []Hierarchy) (out []string) {
		for _, h := range list {
			out = append(out, h.Mount)
		}
		slices.Sort(out)
		return out
	}
	if ours, theirs := names(h.Hierarchies()), names(
		parseMounts(raw, "/sys/fs/cgroup"),
	); !slices.Equal(ours, theirs) {
		t.Errorf("located %q, mounted are %q", ours, theirs)
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"", "/", "..", "/a/../b", "a/..", "/a\x00"} {
		if _, err := checkPath(p); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v, want ErrInvalidArgument", p, err)
		}
	}
	if _, err := Below("/a", "../b"); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("Below: %v", err)
	}
}

// host is the machine's layout, for tests that make groups. They are named after the process.
func host(t testing.TB) (*Host, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	h, err := Detect("")
	if err != nil {
		t.Skipf("needs control groups: %v", err)
	}
	name := fmt.Sprintf("/strake-test-%d-%s", os.Getpid(), strings.ToLower(t.Name()))
	t.Cleanup(func() {
		for _, hier := range h.Hierarchies() {
			if _, err := os.Stat(hier.Mount + name); err == nil {
				t.Errorf("%s is left", hier.Mount+name)
				os.Remove(hier.Mount + name)
			}
		}
	})
	return h, name
}

func TestGroup(t *testing.T) {
	h, name := host(t)
	ctx := context.Background()
	g, err := h.Create(name, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(8 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(50))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(77))},
		Devices: []specs.LinuxDeviceCgroup{
			{Access: "rwm"},
			{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rwm"},
		},
	}, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Remove(ctx)
	// The shell enters as a container's child does, and is held to its limits.
	var entries []string
	for _, f := range g.Join().Tasks {
		entries = append(entries, "echo 0 > "+f.Name())
	}
	cmd := exec.Command(
		"/bin/sh", "-c",
		strings.Join(
			append(
				entries,
				"cat </dev/zero >/dev/null 2>&1; echo $?; head -c1 </dev/null; "+
					"echo $?; exec sleep 1000",
			),
			"; ",
		),
	)
	if f := g.Join().CloneInto; f != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	var got string
	for strings.Count(got, "\n") < 2 {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += string(buf[:n])
	}
	if got == "0\n0\n" || !strings.HasSuffix(got, "\n0\n") {
		t.Errorf("got %q: /dev/zero must be refused, /dev/null must not", got)
	}
	pids, err := g.Pids(Recursive)
	if err != nil || !reflect.DeepEqual(pids, []int{cmd.Process.Pid}) {
		t.Errorf("pids %v, %v; want %d", pids, err, cmd.Process.Pid)
	}
	s, err := g.Stats()
	if err != nil || s.Memory.Limit != 8<<20 || s.Pids.Limit != 50 || s.Pids.Current != 1 ||
		s.Memory.Usage == 0 || s.CPU.TotalNanos == 0 {
		t.Errorf("stats %+v, %v", s, err)
	}
	if err := g.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); err != nil || !frozen {
		t.Errorf("frozen %v, %v", frozen, err)
	}
	if err := g.Update(
		&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20))}},
	); err != nil {
		t.Error(err)
	}
	again, err := h.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if s, err := again.Stats(); err != nil || s.Memory.Limit != 16<<20 {
		t.Errorf("after update: %+v, %v", s, err)
	}
	// Removing kills what is inside, frozen as it is.
	go cmd.Wait()
	if err := g.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Open(name); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("open after remove: %v, want ErrNotFound", err)
	}
	if err := g.Remove(ctx); err != nil {
		t.Errorf("second remove: %v", err)
	}
}

// TestNothingHalfMade asks for what the kernel refuses: nothing is left, and the error names the
// field.
func TestNothingHalfMade(t *testing.T) {
	h, name := host(t)
	for want, res := range map[string]*specs.LinuxResources{
		"linux.resources.cpu.cpus: ":  {CPU: &specs.LinuxCPU{Cpus: "999"}},
		"linux.resources.cpu.quota: ": {CPU: &specs.LinuxCPU{Quota: ptr(int64(1))}},
		"linux.resources.network.classID: 1: only": {
			Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))},
		},
	} {
		_, err := h.Create(name, res, CreateOptions{})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want an error that begins with %q", err, want)
		}
		for _, hier := range h.Hierarchies() {
			if _, err := os.Stat(hier.Mount + name); err == nil {
				t.Errorf("%s: %s is left", want, hier.Mount+name)
			}
		}
	}
}

// TestRemoveInner removes groups that were made inside.
func TestRemoveInner(t *testing.T) {
	h, name := host(t)
	g, err := h.Create(name, nil, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, hier := range h.Hierarchies() {
		if err := os.MkdirAll(filepath.Join(hier.Mount+name, "inner", "most"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Remove(context.Background()); err != nil {
		t.Error(err)
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	h, name := host(b)
	res := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(8 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(50))},
	}
	i := 0
	for b.Loop() {
		i++
		g, err := h.Create(name+strconv.Itoa(i), res, CreateOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Remove(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
