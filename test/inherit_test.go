package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inherited prints what a process inherits from the one that starts it.
const inherited = `busybox grep Cpus_allowed_list /proc/self/status; busybox cat /proc/self/timerslack_ns`

// own is what inherited prints for a child of the calling thread.
func own(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", inherited).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestRuntimeInherits checks that hooks have the processors and the timer slack that strake-runtime
// was started with, and processes of containers the slack, and all processors that their group may
// use.
func TestRuntimeInherits(t *testing.T) {
	r := newOCIRig(t)
	hook := filepath.Join(r.dir, "hook")
	check := func(t *testing.T, want, hooked string) {
		r.write(func(config map[string]any) {
			shell(inherited + "; exec sleep 1000")(config)
			list := []any{
				map[string]any{
					"path": "/bin/sh",
					"args": []string{"sh", "-c", "(" + inherited + ") >>" + hook},
					"env":  []string{"PATH=/bin:/usr/bin"},
				},
			}
			config["hooks"] = map[string]any{"createRuntime": list, "poststop": list}
		})
		out := filepath.Join(r.dir, "out")
		cmd := r.command("run", "-d", "c")
		f, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.Stdout, cmd.Stderr = f, f
		if err := cmd.Run(); err != nil {
			raw, _ := os.ReadFile(out)
			t.Fatalf("run: %v: %s", err, raw)
		}
		raw, _ := os.ReadFile(out)
		for end := time.Now().Add(20 * time.Second); strings.Count(string(raw), "\n") < 2 &&
			time.Now().Before(end); runtimeYield() {
			raw, _ = os.ReadFile(out)
		}
		if string(raw) != want {
			t.Errorf("run: %q, want %q", raw, want)
		}
		if got := r.do("exec", "c", "sh", "-c", inherited); got.out != want {
			t.Errorf("exec: %+v, want %q", got, want)
		}
		if got := r.do("delete", "--force", "c"); got.code != 0 {
			t.Fatalf("delete: %+v", got)
		}
		if raw, _ := os.ReadFile(hook); string(raw) != hooked+hooked {
			t.Errorf("hooks: %q, want %q twice", raw, hooked)
		}
		os.Remove(hook)
	}
	all := own(t)
	check(t, all, all)
	t.Run("one processor and a slack of its own", func(t *testing.T) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // for good: what it starts inherits from it
			var set, one unix.CPUSet
			if err := unix.SchedGetaffinity(0, &set); err != nil {
				t.Error(err)
				return
			}
			for i := range len(set) * 64 {
				if set.IsSet(i) {
					one.Zero()
					one.Set(i) // the last
				}
			}
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				t.Error(err)
				return
			}
			unix.Prctl(unix.PR_SET_TIMERSLACK, 70_000, 0, 0, 0)
			bound := own(t)
			processors, _, _ := strings.Cut(all, "\n")
			_, slack, _ := strings.Cut(bound, "\n")
			check(t, processors+"\n"+slack, bound)
		}()
		<-done
	})
	// A process that never asked for certain processors is only bound by its cpuset, and gets those
	// of the next one that it comes into.
	t.Run("started in a smaller cpuset", func(t *testing.T) {
		const root = "/sys/fs/cgroup/cpuset"
		cpus, err := os.ReadFile(root + "/cpuset.cpus")
		if err != nil {
			t.Skip("needs version 1 of control groups")
		}
		mems, err := os.ReadFile(root + "/cpuset.mems")
		small := root + r.group + "-small"
		if err == nil {
			err = os.Mkdir(small, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(small)
		first, _, _ := strings.Cut(
			strings.ReplaceAll(strings.TrimSpace(string(cpus)), "-", ","), ",",
		)
		for name, value := range map[string]string{
			"cpuset.cpus": first, "cpuset.mems": strings.TrimSpace(string(mems)),
		} {
			if err := os.WriteFile(filepath.Join(small, name), []byte(value), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		r.write(func(config map[string]any) {
			shell(inherited)(config)
			config["linux"].(map[string]any)["resources"] = map[string]any{
				"cpu": map[string]any{"cpus": strings.TrimSpace(string(cpus))},
			}
		})
		in := fmt.Sprintf(
			"echo $$ >%s/cgroup.procs && exec %s --root %s run -b %s c", small, r.program, r.root,
			r.bundle,
		)
		got, err := exec.Command("sh", "-c", in).CombinedOutput()
		if want := own(t); string(got) != want {
			t.Errorf("%q, want %q: %v", got, want, err)
		}
	})
}
