package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

func TestWritesOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		res  specs.LinuxResources
		want []string // "file=value", or one error text
	}{
		{"nothing", specs.LinuxResources{}, nil},
		{"memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 20)), Swap: ptr(int64(2 << 20)), Reservation: ptr(int64(1 << 19)), Swappiness: ptr(uint64(0))}},
			[]string{"memory.limit_in_bytes=1048576", "memory.memsw.limit_in_bytes=2097152", "memory.soft_limit_in_bytes=524288", "memory.swappiness=0"}},
		{"unlimited memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}}, []string{"memory.limit_in_bytes=-1"}},
		{"cpu", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(512)), Period: ptr(uint64(100000)), Quota: ptr(int64(50000)), Cpus: "0"}},
			[]string{"cpuset.cpus=0", "cpu.shares=512", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"}},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(7))}}, []string{"pids.max=7"}},
		{"unlimited pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, []string{"pids.max=max"}},
		{"devices keep their order", specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rw"}, {Allow: true, Type: "c", Access: "m"}}},
			[]string{"devices.deny=a *:* rwm", "devices.allow=c 1:3 rw", "devices.allow=c *:* m"}},
		{"throttle", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{Rate: 9}}}}, []string{"blkio.throttle.read_bps_device=0:0 9"}},
		{"bad device", specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Type: "x"}}}, []string{`linux.resources.devices[0]: type "x"`}},
		{"bad swappiness", specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(101))}}, []string{"linux.resources.memory.swappiness: 101"}},
		{"unified", specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}, []string{"linux.resources.unified.memory.high:"}},
	} {
		writes, err := writesOf(&c.res)
		if err != nil {
			if len(c.want) != 1 || !strings.HasPrefix(err.Error(), c.want[0]) || !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s: error %v, want %q", c.name, err, c.want)
			}
			continue
		}
		var got []string
		for _, w := range writes {
			got = append(got, w.file+"="+w.value)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

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
		{Name: "cpu", Controllers: []string{"cpu", "cpuacct"}, Mount: "/sys/fs/cgroup/cpu,cpuacct", Options: []string{"cpu", "cpuacct"}},
		{Name: "systemd", Mount: "/sys/fs/cgroup/systemd", Options: []string{"none", "name=systemd"}},
		{Name: "unified", Mount: "/sys/fs/cgroup/unified"},
	}
	if got := parseMounts([]byte(raw), "/sys/fs/cgroup"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
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
		t.Skipf("needs version 1 control groups: %v", err)
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
		Memory: &specs.LinuxMemory{Limit: ptr(int64(8 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(50))}, CPU: &specs.LinuxCPU{Shares: ptr(uint64(77))},
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rwm"}},
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
	cmd := exec.Command("/bin/sh", "-c", strings.Join(entries, "; ")+"; cat </dev/zero >/dev/null 2>&1; echo $?; head -c1 </dev/null; echo $?; exec sleep 1000")
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
	if err != nil || s.Memory.Limit != 8<<20 || s.Pids.Limit != 50 || s.Pids.Current != 1 || s.Memory.Usage == 0 || s.CPU.TotalNanos == 0 {
		t.Errorf("stats %+v, %v", s, err)
	}
	if err := g.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); err != nil || !frozen {
		t.Errorf("frozen %v, %v", frozen, err)
	}
	if err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20))}}); err != nil {
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

// TestNothingHalfMade asks for what the kernel refuses: nothing is left, and the error names the field.
func TestNothingHalfMade(t *testing.T) {
	h, name := host(t)
	for want, res := range map[string]*specs.LinuxResources{
		"linux.resources.cpu.cpus: ":            {CPU: &specs.LinuxCPU{Cpus: "999"}},
		"linux.resources.cpu.quota: ":           {CPU: &specs.LinuxCPU{Quota: ptr(int64(1))}},
		"linux.resources.network.classID: this": {Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))}},
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
	res := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(8 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(50))}}
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
