package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestOnly makes a group in one version 1 tree, moves a process and a thread there, and ends the
// process by its thread.
func TestOnly(t *testing.T) {
	h, name := host(t)
	if h.Version() != 1 {
		t.Skip("version 1 of control groups is not mounted here")
	}
	only, ok := h.Only("memory")
	if !ok || len(only.Hierarchies()) != 1 {
		t.Fatalf("hierarchies %+v, %v", only.Hierarchies(), ok)
	}
	if _, ok := h.Only("no-such-controller"); ok {
		t.Error("there is a tree of a controller that does not exist")
	}
	g, err := only.Create(name, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(8 << 20))},
	}, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ctx := context.Background()
	t.Cleanup(func() {
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
		if g.Exists() {
			t.Error("it is left")
		}
	})
	for _, hier := range h.Hierarchies() {
		_, err := os.Stat(hier.Mount + name)
		if has := slices.Contains(hier.Controllers, "memory"); (err == nil) != has {
			t.Errorf("group in %s: %v, want %v", hier.Name, err, has)
		}
	}
	if got, err := g.File("memory.limit_in_bytes"); err != nil || got != "8388608" {
		t.Errorf("File: %q, %v", got, err)
	}
	if err := g.SetFile("memory.soft_limit_in_bytes", "4096"); err != nil {
		t.Error(err)
	}
	if _, err := g.File("cpu.shares"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("File of another tree: %v", err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if err := g.EnterProcess(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if at, err := only.Of(cmd.Process.Pid); err != nil || at != name {
		t.Errorf("Of: %q, %v", at, err)
	}
	if freezer, ok := h.Only("freezer"); ok {
		if at, err := freezer.Of(cmd.Process.Pid); err != nil || at == name {
			t.Errorf("Of in another tree: %q, %v", at, err)
		}
	}
	sub, err := only.Create(name+"/sub", nil, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sub.Close()
	if list, err := g.Children(); err != nil || !slices.Equal(list, []string{"sub"}) {
		t.Errorf("Children: %q, %v", list, err)
	}
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	if err := sub.EnterThread(other.Process.Pid); err != nil {
		t.Error(err)
	}
	want := []int{cmd.Process.Pid}
	if tids, err := g.Threads(Direct); err != nil || !slices.Equal(tids, want) {
		t.Errorf("Threads: %v, %v, want %v", tids, err, want)
	}
	if tids, err := g.Threads(Recursive); err != nil || len(tids) != 2 {
		t.Errorf("Threads with those below: %v, %v", tids, err)
	}
	if err := g.KillDirect(ctx); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the process: %v", err)
	}
	if unix.Kill(other.Process.Pid, 0) != nil {
		t.Error("the process below is gone too")
	}
	if err := g.EnterThread(1 << 22); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a thread that does not exist: %v", err)
	}
	if _, err := only.Of(1 << 22); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Of a process that does not exist: %v", err)
	}
}

// TestThread moves a thread of this process there and back.
func TestThread(t *testing.T) {
	h, name := host(t)
	only, ok := h.Only("freezer")
	if h.Version() != 1 || !ok {
		t.Skip("version 1 of control groups is not mounted here")
	}
	g, err := only.Create(name, nil, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	defer g.Remove(context.Background())
	runtime.LockOSThread()
	tid := unix.Gettid()
	defer runtime.UnlockOSThread()
	before, err := only.Of(tid)
	if err != nil {
		t.Fatal(err)
	}
	back := only.Top()
	if before != "/" {
		if back, err = only.At(before); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.EnterThread(tid); err != nil {
		t.Fatal(err)
	}
	at, err := only.Of(tid)
	if err := back.EnterThread(tid); err != nil {
		t.Fatal(err)
	}
	if err != nil || at != name {
		t.Errorf("the thread was in %q, %v", at, err)
	}
	if now, _ := only.Of(tid); now != before {
		t.Errorf("it is in %q, want %q", now, before)
	}
}

// TestTop checks that the machine is never ended or removed.
func TestTop(t *testing.T) {
	t.Parallel()
	h, _ := host(t)
	ctx := context.Background()
	for what, err := range map[string]error{
		"remove": h.Top().Remove(ctx), "kill": h.Top().Kill(ctx, unix.Signal(0)),
		"kill direct": h.Top().KillDirect(ctx),
	} {
		if !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !h.Top().Exists() || h.Top().Dir() != h.Hierarchies()[0].Mount {
		t.Errorf("directory %q", h.Top().Dir())
	}
}

func TestPathIn(t *testing.T) {
	t.Parallel()
	const text = "9:name=systemd:/s\n5:cpu,cpuacct:/c/d\n4:memory:/m\n0::/two:1\n"
	for _, c := range []struct {
		h    Hierarchy
		want string
	}{
		{Hierarchy{Name: "systemd"}, "/s"},
		{Hierarchy{Name: "cpu", Controllers: []string{"cpu", "cpuacct"}}, "/c/d"},
		{Hierarchy{Name: "memory", Controllers: []string{"memory"}}, "/m"},
		{Hierarchy{Name: unifiedName}, "/two:1"},
		{Hierarchy{Name: "pids", Controllers: []string{"pids"}}, ""},
	} {
		if got, _ := c.h.pathIn(text); got != c.want {
			t.Errorf("%s: got %q, want %q", c.h.Name, got, c.want)
		}
	}
}
