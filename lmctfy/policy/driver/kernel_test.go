package driver

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lmctfy/policy"
)

// helperEnv makes the test binary a process that presses: "spin", or a file to fill.
const helperEnv = "STRAKE_POLICY_TEST_PRESS"

func TestMain(m *testing.M) {
	switch what := os.Getenv(helperEnv); what {
	case "":
		os.Exit(m.Run())
	case "spin":
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		}
	default:
		fill(what)
	}
}

// fill waits until it is in its group, and writes a file that is larger than the group's memory.
func fill(name string) {
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		os.Exit(2)
	}
	f, err := os.Create(name)
	if err != nil {
		os.Exit(3)
	}
	b := make([]byte, 1<<20)
	for range 64 {
		if _, err := f.Write(b); err != nil {
			os.Exit(4)
		}
	}
}

// helper starts the test binary as such a process.
func helper(t *testing.T, what string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+what)
	return cmd
}

// mounted returns where a file system of cgroups is mounted: version 2, or version 1 with memory.
func mounted(t *testing.T, v1Memory bool) string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		before, after, _ := strings.Cut(sc.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) < 3 {
			continue
		}
		memory := kind[0] == "cgroup" &&
			strings.Contains(","+kind[2]+",", ",memory,")
		if v1Memory && memory || !v1Memory && kind[0] == "cgroup2" {
			return fields[4]
		}
	}
	return ""
}

// group makes a group for the test.
func group(t *testing.T, root string) string {
	t.Helper()
	dir, err := os.MkdirTemp(root, "strake-policy-test-")
	if err != nil {
		t.Skipf("needs to make a group in %s: %v", root, err)
	}
	t.Cleanup(func() {
		// A process that ended leaves its group a moment later.
		for end := time.Now().Add(10 * time.Second); ; {
			err := os.Remove(dir)
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Error(err)
				return
			}
			runtime.Gosched()
		}
	})
	return dir
}

func join(t *testing.T, dir string, pid int) {
	t.Helper()
	name := filepath.Join(dir, "cgroup.procs")
	if err := os.WriteFile(name, []byte(strconv.Itoa(pid)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTriggerOfThisKernel: Wait sleeps while a group has no pressure, wakes when it has, and is not
// ready for ever after the group is gone.
func TestTriggerOfThisKernel(t *testing.T) {
	psi, err := NewPSI(ProcPressure, policy.Config{CPU: policy.Marks{High: 5, Low: 1}})
	if errdefs.IsNotFound(err) {
		t.Skipf("the kernel keeps no pressure stall information: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := psi.Close(); err != nil {
			t.Error(err)
		}
	}()
	root := mounted(t, false)
	if root == "" {
		t.Skip("no version 2 cgroups are mounted")
	}
	dir := group(t, root)
	if _, err := ReadPSI(dir); err != nil {
		t.Skipf("the kernel keeps no pressure of groups: %v", err)
	}
	idle, err := psi.Wait(t.Context(), []string{dir}, 50*time.Millisecond)
	if idle || err != nil {
		t.Fatalf("of an empty group: got %v %v", idle, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	begun := time.Now()
	woken, err := psi.Wait(cancelled, []string{dir}, time.Minute)
	if woken || err != nil || time.Since(begun) > 30*time.Second {
		t.Fatalf("after the context ended: got %v %v in %s", woken, err, time.Since(begun))
	}
	var spinners []*exec.Cmd
	for range 2 * runtime.NumCPU() {
		cmd := helper(t, "spin")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		spinners = append(spinners, cmd)
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
		join(t, dir, cmd.Process.Pid)
	}
	woken, err = psi.Wait(t.Context(), []string{dir}, 30*time.Second)
	if !woken || err != nil {
		t.Fatalf("under pressure: got %v %v", woken, err)
	}
	p, err := ReadPSI(dir)
	if err != nil || p.CPU.Some.Total == 0 {
		t.Errorf("got %+v %v", p, err)
	}
	for _, cmd := range spinners {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for end := time.Now().Add(10 * time.Second); os.Remove(dir) != nil; {
		if time.Now().After(end) {
			t.Fatal("the group cannot be removed")
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil { // for the clean-up
		t.Fatal(err)
	}
	for range 2 { // the first tells that the group is gone
		if _, err = psi.Wait(t.Context(), []string{dir}, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if woken, _ := psi.Wait(t.Context(), []string{dir}, time.Millisecond); woken {
		t.Error("a group that is gone wakes for ever")
	}
}

func TestTriggerOfTheMachine(t *testing.T) {
	psi, err := NewPSI(ProcPressure, policy.Config{})
	if errdefs.IsNotFound(err) {
		t.Skipf("the kernel keeps no pressure stall information: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer psi.Close()
	if _, err := psi.Read(); err != nil {
		t.Error(err)
	}
	if _, err := psi.Wait(t.Context(), []string{""}, time.Millisecond); err != nil {
		t.Error(err)
	}
	if len(psi.fds) != 3 {
		t.Errorf("%d triggers, want one each of CPU, memory and IO", len(psi.fds))
	}
	// What cannot be waited for is an error at once.
	if _, err := psi.Wait(t.Context(), []string{"/nonexistent"}, time.Hour); err == nil {
		t.Error("a group that does not exist is waited for")
	}
}

func TestNoPSIIsNotFound(t *testing.T) {
	t.Parallel()
	if _, err := NewPSI(t.TempDir(), policy.Config{}); !errdefs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	if _, err := NewLevels(t.TempDir()); !errdefs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}

// TestLevelsOfThisKernel fills a group's memory with page cache, which is the pressure that the
// kernel calls low. The group above hears of it, even if the group has a listener of its own.
func TestLevelsOfThisKernel(t *testing.T) {
	root := mounted(t, true)
	if root == "" {
		t.Skip("no version 1 memory cgroups are mounted")
	}
	dir := group(t, root)
	below := group(t, dir)
	limit := filepath.Join(below, "memory.limit_in_bytes")
	if err := os.WriteFile(limit, []byte("16777216"), 0o600); err != nil {
		t.Fatal(err)
	}
	levels, err := NewLevels(dir)
	if errdefs.IsNotFound(err) {
		t.Skipf("the kernel notifies no memory pressure: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := levels.Close(); err != nil {
			t.Error(err)
		}
	}()
	other, err := NewLevels(below)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if p, err := levels.Read(); err != nil || p.Level != policy.NoLevel {
		t.Errorf("of an empty group: got %v %v", p.Level, err)
	}
	cmd := helper(t, filepath.Join(t.TempDir(), "file"))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	join(t, below, cmd.Process.Pid)
	if _, err := stdin.Write([]byte("g")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	p, err := levels.Read()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); p.Level == policy.NoLevel; {
		if p, err = levels.Read(); err != nil || time.Now().After(end) {
			t.Fatalf("no notification: %v", err)
		}
		runtime.Gosched()
	}
}

// TestLevelsWait: medium wakes, low does not, and a level lasts for a second.
func TestLevelsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		levels := &Levels{}
		var err error
		if levels.poller, err = newPoller(); err != nil {
			t.Fatal(err)
		}
		for i := range levels.events {
			fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
			if err != nil {
				t.Fatal(err)
			}
			levels.events[i] = fd
		}
		defer levels.Close()
		for _, level := range []policy.Level{policy.Low, policy.Medium} {
			if err := signal(levels.events[level-1]); err != nil {
				t.Fatal(err)
			}
			woken, err := levels.Wait(t.Context(), nil, 0)
			if want := level == policy.Medium; woken != want || err != nil {
				t.Errorf("%s: got %v %v", level, woken, err)
			}
			for range 2 {
				if p, _ := levels.Read(); p.Level != level {
					t.Errorf("got %v, want %v", p.Level, level)
				}
				time.Sleep(latch / 2)
			}
			if p, _ := levels.Read(); p.Level != policy.NoLevel {
				t.Errorf("a second later: got %v", p.Level)
			}
		}
	})
}

// groups is a Source of two version 2 groups, and an Actuator that tells when batch is held.
type groups struct {
	DryRun
	dirs map[string]string
	end  func()
}

func (g *groups) List(context.Context) ([]policy.Container, error) {
	return []policy.Container{
		{Name: "/web", Class: policy.Premier}, {Name: "/batch", Class: policy.BestEffort},
	}, nil
}

func (g *groups) Observe(_ context.Context, name string) (Sample, error) {
	stat, err := readFields(filepath.Join(g.dirs[name], "cpu.stat"), 1000)
	return Sample{CPU: time.Duration(stat["usage_usec"]), Dir: g.dirs[name]}, err
}

func (g *groups) SetWeight(_ context.Context, _ string, h policy.Hold) error {
	if h.CPUWeight == 1 {
		g.end()
	}
	return nil
}

// TestRunOnThisKernel: a server that has to wait for CPUs that batch processes use wakes the driver,
// which lowers the weight of batch, and gives it back when it ends.
func TestRunOnThisKernel(t *testing.T) {
	root := mounted(t, false)
	if root == "" {
		t.Skip("no version 2 cgroups are mounted")
	}
	config := policy.Config{CPU: policy.Marks{High: 15, Low: 14}}
	watch, err := NewPSI(ProcPressure, config)
	if err != nil {
		t.Skipf("the kernel keeps no pressure stall information: %v", err)
	}
	defer watch.Close()
	g := &groups{dirs: map[string]string{"/web": group(t, root), "/batch": group(t, root)}}
	if _, err := ReadPSI(g.dirs["/web"]); err != nil {
		t.Skipf("the kernel keeps no pressure of groups: %v", err)
	}
	lines := make(chan string, 100)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	g.end = sync.OnceFunc(func() { lines <- "batch is to be held" })
	go func() {
		done <- Run(ctx, Config{
			Policy: config, Source: g, Actuator: g, Watch: watch, Idle: time.Minute,
			Log: func(_ time.Time, line string) { lines <- line },
		})
	}()
	if line := <-lines; line != "nothing (calm)" {
		t.Errorf("got %s", line)
	}
	spin := func(name string, n int) (stop func()) {
		var all []*exec.Cmd
		for range n {
			cmd := helper(t, "spin")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			join(t, g.dirs[name], cmd.Process.Pid)
			all = append(all, cmd)
		}
		return sync.OnceFunc(func() {
			for _, cmd := range all {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		})
	}
	stopBatch := spin("/batch", 2*runtime.NumCPU())
	defer stopBatch()
	defer spin("/web", 1)()
	for held := false; !held; {
		select {
		case line := <-lines:
			held = line == "batch is to be held"
		case <-ctx.Done():
			t.Fatal("the pressure is not answered within a minute")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	close(lines)
	weighed, released := false, false
	for line := range lines {
		weighed = weighed || strings.HasPrefix(line, "weight /batch cpu=1 io=own: cpu pressure ") &&
			strings.HasSuffix(line, " in /web, level 1")
		released = released || strings.HasPrefix(line, "weight /batch cpu=own io=own")
	}
	if !weighed || !released {
		t.Errorf("weighed %v, released %v", weighed, released)
	}
}
