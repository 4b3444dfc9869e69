package container

import (
	"context"
	"debug/elf"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/leader/leadertest"
)

func init() { leadertest.Play() }

// withoutLeader starts a container whose first process is this test binary in a role.
func withoutLeader(t *testing.T, role leadertest.Role) *Container {
	t.Helper()
	root := rootfs(t)
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Section(".interp") != nil {
		t.Skip("needs a static test binary: no cgo, no race detector")
	}
	raw, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "bin/play"), raw, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := config(root, "")
	s.Process.Args, s.Process.Env = []string{"/bin/play"}, append(role.Environ(), "PATH=/bin")
	_, c, _ := create(t, s, nil)
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return c
}

// execIn runs a shell command in a container and returns what it prints.
func execIn(t *testing.T, c *Container, script string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	proc := *c.Spec().Process
	proc.Args = []string{"/bin/sh", "-c", script}
	p, err := c.Exec(
		context.Background(), ExecOptions{Process: &proc, Stdio: &[3]*os.File{null, w, w}},
	)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if ws, err := p.Wait(); err != nil || ws != 0 {
		t.Errorf("wait: %#x, %v, want 0", int(ws), err)
	}
	return string(out)
}

// TestLeaderGone has a first process whose first thread has exited while others go on.
func TestLeaderGone(t *testing.T) {
	c := withoutLeader(t, leadertest.Gone)
	for end := time.Now().Add(10 * time.Second); ; {
		raw, err := os.ReadFile("/proc/" + itoa(c.Pid()) + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), ") Z ") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the leader has not exited within 10 s")
		}
	}
	if got, err := c.Status(); err != nil || got != specs.StateRunning {
		t.Errorf("status %s, %v, want running", got, err)
	}
	if got := execIn(t, c, "hostname"); got != "inside\n" {
		t.Errorf("exec: got %q, want the container's host name", got)
	}
	if err := c.Kill(context.Background(), unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		got, err := c.Status()
		if err != nil {
			t.Fatal(err)
		}
		if got == specs.StateStopped {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("status %s 10 s after SIGKILL, want stopped", got)
		}
	}
}

// TestLeaderExecuting has a first process that replaces itself from another thread all the time.
func TestLeaderExecuting(t *testing.T) {
	c := withoutLeader(t, leadertest.Executing)
	for range 100 {
		if got := execIn(t, c, "hostname"); got != "inside\n" {
			t.Fatalf("exec: got %q, want the container's host name", got)
		}
		if got, err := c.Status(); err != nil || got != specs.StateRunning {
			t.Fatalf("status %s, %v, want running", got, err)
		}
	}
}
