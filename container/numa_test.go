package container

import (
	"context"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestMemoryPolicy looks at the policy of a process's memory where the kernel shows it
// (numa_maps, proc_pid_numa_maps(5)).
func TestMemoryPolicy(t *testing.T) {
	if _, err := os.Stat("/proc/self/numa_maps"); err != nil {
		t.Skip("needs a kernel with CONFIG_NUMA")
	}
	s := config(rootfs(t), "head -n1 /proc/self/numa_maps")
	s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{
		Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{
			specs.MpolFStaticNodes,
		},
	}
	got, err := run(t, s)
	if err != nil || !strings.Contains(got.out, " bind=static:0 ") {
		t.Errorf("got %q, %v, want a policy bind=static:0", got.out, err)
	}
}

// TestExecAffinity: the final list is in force in the process, and the initial one alone is what it
// begins with.
func TestExecAffinity(t *testing.T) {
	_, ct, _ := create(t, config(rootfs(t), "sleep 100"), nil)
	if err := ct.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, a := range []specs.CPUAffinity{{Initial: "0"}, {Final: "0"}, {Initial: "0-1", Final: "0"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		proc := *ct.Spec().Process
		proc.Args = []string{"/bin/grep", "Cpus_allowed_list", "/proc/self/status"}
		proc.ExecCPUAffinity = &a
		p, err := ct.Exec(
			context.Background(), ExecOptions{Process: &proc, Stdio: &[3]*os.File{null, w, w}},
		)
		null.Close()
		w.Close()
		if err != nil {
			t.Fatalf("%+v: %v", a, err)
		}
		b := make([]byte, 100)
		n, _ := r.Read(b)
		r.Close()
		p.Wait()
		p.Close()
		if got := string(b[:n]); !strings.HasSuffix(got, "\t0\n") {
			t.Errorf("%+v: %q, want processor 0", a, got)
		}
	}
}

// TestAffinityReset: a container is not bound to the processors that its spawner is bound to.
func TestAffinityReset(t *testing.T) {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil || all.Count() < 2 {
		t.Skipf("needs two processors: %d, %v", all.Count(), err)
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	got, err := run(t, config(rootfs(t), "grep Cpus_allowed_list /proc/self/status"))
	if err != nil || strings.HasSuffix(got.out, "\t0\n") {
		t.Errorf("%q, %v, want more than processor 0", got.out, err)
	}
}
