package spawn

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"strake/container/program"
)

func TestInterpreterFitsCopy(t *testing.T) {
	var code [interpreterSize]byte
	copyInterpreter(&code)
	if i := bytes.Index(code[:], []byte("strake.\x00")); i < 0 {
		t.Fatalf("the marker behind the interpreter is not within %d bytes", interpreterSize)
	} else {
		t.Logf("interpreter: %d bytes", i)
	}
}

// run executes a program with /bin/true-like payload and returns its exit status.
func run(t testing.TB, m *Machine, build func(b *program.Builder)) (syscall.WaitStatus, error) {
	t.Helper()
	var b program.Builder
	b.Isolate()
	build(&b)
	p, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Start(&Request{Image: p.Image(), CgroupFD: -1})
	if err != nil {
		return 0, err
	}
	defer unix.Close(c.PidFD)
	defer c.Release()
	_, err = c.Next()
	var ws syscall.WaitStatus
	if _, werr := syscall.Wait4(c.Pid, &ws, 0, nil); werr != nil {
		t.Fatal(werr)
	}
	return ws, err
}

func machine(t testing.TB) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: PR_SET_MM_MAP")
	}
	m, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestExec(t *testing.T) {
	m := machine(t)
	t.Run("straight", func(t *testing.T) {
		if m.detour {
			t.Skip("needs a process without restartable sequences: no cgo, no race detector")
		}
		testExec(t, m)
	})
	t.Run("detour", func(t *testing.T) {
		testExec(t, &Machine{code: m.code, detour: true})
	})
}

func testExec(t *testing.T, m *Machine) {
	t.Helper()
	ws, err := run(t, m, func(b *program.Builder) {
		b.Field("process.args")
		b.Call(
			unix.SYS_EXECVE, b.Str("/bin/sh").Ptr(), b.Strs([]string{"sh", "-c", "exit 7"}).Ptr(),
			b.Strs(nil).Ptr(),
		)
	})
	if err != nil || ws.ExitStatus() != 7 {
		t.Fatalf("got %v, status %d (%x); want status 7", err, ws.ExitStatus(), int(ws))
	}
}

// Children that are cloned at the same time, by one Machine or several, must each be born with
// their own program.
func TestConcurrent(t *testing.T) {
	machines := [2]*Machine{machine(t), machine(t)}
	var wg sync.WaitGroup
	for i := range 8 {
		m := machines[i%2]
		wg.Go(func() {
			for range 25 {
				ws, err := run(t, m, func(b *program.Builder) {
					b.Exit(program.Num(i))
				})
				if err != nil || ws.ExitStatus() != i {
					t.Errorf("got %v, wait status %#x; want exit %d", err, int(ws), i)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkTrue(b *testing.B) {
	m := machine(b)
	for b.Loop() {
		ws, err := run(b, m, func(b *program.Builder) {
			b.Call(
				unix.SYS_EXECVE, b.Str("/bin/busybox").Ptr(), b.Strs([]string{"true"}).Ptr(),
				b.Strs(nil).Ptr(),
			)
		})
		if err != nil || ws != 0 {
			b.Fatal(err, ws)
		}
	}
}

func BenchmarkVforkTrue(b *testing.B) {
	for b.Loop() {
		p, err := syscall.ForkExec("/bin/busybox", []string{"true"}, &syscall.ProcAttr{})
		if err != nil {
			b.Fatal(err)
		}
		syscall.Wait4(p, nil, 0, nil)
	}
}

// A clone that the kernel refuses is an error, by either way, and leaves no process.
func TestCloneRefused(t *testing.T) {
	m := machine(t)
	var b program.Builder
	b.Isolate()
	p, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, detour := range []bool{false, true} {
		c, err := (&Machine{code: m.code, detour: detour}).Start(
			&Request{Image: p.Image(), CgroupFD: int(null.Fd())},
		)
		if !errors.Is(err, unix.EBADF) {
			t.Errorf("detour %t: got %v, %v, want EBADF: not a cgroup", detour, c, err)
		}
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("detour %t: child %d is left, %v", detour, pid, err)
		}
	}
}
