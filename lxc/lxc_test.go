package lxc

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"strake/lxc/config"
)

// newPath is a directory of containers of the test's own.
func newPath(t *testing.T) *Path {
	t.Helper()
	dir := t.TempDir()
	p, err := Open(filepath.Join(dir, "lxc"), Options{Run: filepath.Join(dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *Path) mustContainer(t *testing.T, name string) *Container {
	t.Helper()
	c, err := p.Container(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestNames: a name is one directory, and an ID of tasks.
func TestNames(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	for name, ok := range map[string]bool{
		"a": true, "web-1": true, "a.b_c": true, "0": true, "": false, ".": false, "..": false,
		"a/b": false, "-n": false, ".hidden": false, "a b": false, "é": false,
		string(make([]byte, 101)): false,
	} {
		_, err := p.Container(name)
		if (err == nil) != ok || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestList shows what is defined, and what runs without being defined any more.
func TestList(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	if names, err := p.List(); err != nil || len(names) > 0 {
		t.Errorf("no directory: %q, %v", names, err)
	}
	for _, dir := range []string{"b", "a", "no config", "empty"} {
		if err := os.MkdirAll(filepath.Join(p.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b", "no config"} {
		if err := os.WriteFile(filepath.Join(p.dir, name, "config"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gone := p.mustContainer(t, "gone")
	if err := gone.save(&record{State: Running}); err != nil {
		t.Fatal(err)
	}
	names, err := p.List()
	if want := []string{"a", "b", "gone"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, %v; want %q", names, err, want)
	}
	if err := gone.Exists(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.mustContainer(t, "c").Exists(t.Context()); !errdefs.IsNotFound(err) {
		t.Errorf("%v, want %v", err, errdefs.ErrNotFound)
	}
}

// TestStatus: a record whose process has ended is that of a container that is being stopped, also
// when another process has got the number.
func TestStatus(t *testing.T) {
	t.Parallel()
	c := newPath(t).mustContainer(t, "c")
	state := func() State {
		st, err := c.Status()
		if err != nil {
			t.Fatal(err)
		}
		return st.State
	}
	if got := state(); got != Stopped {
		t.Errorf("without a record: %s", got)
	}
	own := os.Getpid()
	for _, k := range []struct {
		r    record
		want State
	}{
		{record{State: Starting}, Starting},
		{record{State: Running, Pid: own, Birth: birth(own)}, Running},
		{record{State: Frozen, Pid: own, Birth: birth(own)}, Frozen},
		{record{State: Running, Pid: own, Birth: birth(own) + 1}, Stopping},
		{record{State: Running, Pid: 1 << 30, Birth: 1}, Stopping},
	} {
		if err := c.save(&k.r); err != nil {
			t.Fatal(err)
		}
		if got := state(); got != k.want {
			t.Errorf("%+v: %s, want %s", k.r, got, k.want)
		}
	}
	if _, err := c.running(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%v, want %v", err, errdefs.ErrFailedPrecondition)
	}
}

// TestWatch shows every change in order, also after the file of events has begun anew.
func TestWatch(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	c := p.mustContainer(t, "c")
	if err := os.MkdirAll(p.run, 0o700); err != nil {
		t.Fatal(err)
	}
	// The next event is written to an empty file.
	if err := os.WriteFile(p.eventFile(), make([]byte, maxEvents+1), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []State{Starting, Running, Freezing, Frozen, Thawed, Running, Stopping, Stopped}
	var got []State
	err := p.Watch(t.Context(), func() error {
		go func() {
			for _, s := range want {
				if err := c.announce(s); err != nil {
					t.Error(err)
				}
			}
		}()
		return nil
	}, func(e Event) bool {
		if e.Name != "c" {
			t.Errorf("%+v", e)
		}
		got = append(got, e.State)
		return len(got) < len(want)
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = p.Watch(ctx, func() error { cancel(); return nil }, func(Event) bool { return true })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestWait returns for a state that is there already, and for one that comes.
func TestWait(t *testing.T) {
	t.Parallel()
	c := newPath(t).mustContainer(t, "c")
	if got, err := c.Wait(t.Context(), Running, Stopped); err != nil || got != Stopped {
		t.Errorf("%s, %v; want %s", got, err, Stopped)
	}
	go c.announce(Running)
	// Announced before it waits or after: the record says so too.
	if err := c.save(&record{State: Running}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Wait(t.Context(), Running); err != nil || got != Running {
		t.Errorf("%s, %v; want %s", got, err, Running)
	}
}

// TestHaltSignal: an init that blocks SIGRTMIN+3 is systemd.
func TestHaltSignal(t *testing.T) {
	t.Parallel()
	set := &config.Config{}
	set.Signal.Halt = int(syscall.SIGUSR1)
	if got := haltSignal(set, os.Getpid()); got != syscall.SIGUSR1 {
		t.Errorf("as configured: %v", got)
	}
	for script, want := range map[string]syscall.Signal{
		"import signal, sys; signal.pthread_sigmask(0, [37]); print(1, flush=True); sys.stdin.read()": sigRTMinPlus3,
		"import signal, sys; signal.pthread_sigmask(0, [36]); print(1, flush=True); sys.stdin.read()": syscall.SIGPWR,
	} {
		cmd := exec.CommandContext(t.Context(), "python3", "-c", script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Skipf("needs python3: %v", err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if got := haltSignal(&config.Config{}, cmd.Process.Pid); got != want {
			t.Errorf("%s: %d, want %d", script, got, want)
		}
		io.WriteString(in, "x")
		in.Close()
		cmd.Wait()
	}
}

// TestHostEnd: what an interrupted start has made is found by names that follow from the
// container's, and differ from all others'.
func TestHostEnd(t *testing.T) {
	t.Parallel()
	p, other := newPath(t), newPath(t)
	c := p.mustContainer(t, "c")
	names := []string{
		c.hostEnd(0), c.hostEnd(1), p.mustContainer(t, "d").hostEnd(0),
		other.mustContainer(t, "c").hostEnd(0),
	}
	for i, n := range names {
		if len(n) > 15 || slices.Contains(names[:i], n) {
			t.Errorf("%q", names)
		}
	}
	if c.hostEnd(0) != names[0] {
		t.Error("another name for the same")
	}
}

// TestHardware puts random digits in the place of x, and a locally administered unicast address
// stays one.
func TestHardware(t *testing.T) {
	t.Parallel()
	a, err := hardware("00:16:3e:xx:xx:xx")
	if err != nil || a.String()[:9] != "00:16:3e:" {
		t.Errorf("%s, %v", a, err)
	}
	b, err := hardware("00:16:3e:xx:xx:xx")
	if err != nil || a.String() == b.String() {
		t.Errorf("%s twice, %v", a, err)
	}
	if _, err := hardware("00:16"); err == nil {
		t.Error("a short address is taken")
	}
}
