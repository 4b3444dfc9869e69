package spawn

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/container/program"
)

// forking is a program that goes on in a second process, as one that joins a PID namespace does.
func forking(t *testing.T, end func(b *program.Builder)) *program.Image {
	t.Helper()
	var b program.Builder
	b.Isolate()
	b.Fork(0)
	end(&b)
	p, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	img, err := program.Parse(p.Encode()) // what the keeper gets
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func executeTrue(b *program.Builder) {
	b.Call(
		unix.SYS_EXECVE, b.Str("/bin/true").Ptr(), b.Strs([]string{"true"}).Ptr(),
		b.Strs(nil).Ptr(),
	)
}

// last hears the child out.
func last(c *Child) error {
	for {
		if m, err := c.Next(); err != nil || m.Stage == 0 {
			return err
		}
	}
}

// noChild fails if a child is left, dead or alive: one that nobody reaps keeps its PID namespace
// from ending.
func noChild(t *testing.T, what string) {
	t.Helper()
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Fatalf("%s: child %d is left, %v", what, pid, err)
	}
}

// TestForkedFailsAtOnce has the second process fail before the first one has got any further.
func TestForkedFailsAtOnce(t *testing.T) {
	m := machine(t)
	img := forking(t, func(b *program.Builder) { b.Fail(program.Num(uint64(unix.ENOEXEC))) })
	for range 300 {
		c, err := m.Start(&Request{Image: img, CgroupFD: -1})
		if err != nil {
			t.Fatal(err)
		}
		first := c.Pid
		if err := last(c); !errors.Is(err, unix.ENOEXEC) {
			t.Fatalf("got %v, want ENOEXEC", err)
		}
		if c.Pid == first {
			t.Fatal("the failure is taken for the first process's")
		}
		c.Kill()
		noChild(t, "failure")
	}
}

// TestForkedBroken kills the program at each of its operations.
func TestForkedBroken(t *testing.T) {
	m := machine(t)
	img := forking(t, executeTrue)
	for i := range img.Ops() - 1 {
		c, err := m.Start(&Request{Image: img.Broken(i, 0), CgroupFD: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := last(c); err != nil && !errors.Is(err, errKilled) {
			t.Errorf("operation %d: got %v, want an end without a word", i, err)
		}
		c.Kill()
		noChild(t, "broken program")
	}
}

// TestForkedInterrupted kills the child from beside, at many moments.
func TestForkedInterrupted(t *testing.T) {
	m := machine(t)
	img := forking(t, executeTrue)
	for i := range 300 {
		c, err := m.Start(&Request{Image: img, CgroupFD: -1})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			time.Sleep(time.Duration(i) * 2 * time.Microsecond)
			c.Interrupt()
		}()
		if err := last(c); err != nil && !errors.Is(err, errKilled) {
			t.Errorf("got %v", err)
		}
		<-done
		c.Kill()
		noChild(t, "interrupted child")
	}
}

// TestForkedKilled gives the child up at many moments without having heard it out.
func TestForkedKilled(t *testing.T) {
	m := machine(t)
	img := forking(t, executeTrue)
	for i := range 300 {
		c, err := m.Start(&Request{Image: img, CgroupFD: -1})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 2 * time.Microsecond)
		c.Kill()
		noChild(t, "killed child")
	}
}

// TestForkedResumed goes on with a child whose spawner has replaced itself meanwhile.
func TestForkedResumed(t *testing.T) {
	m := machine(t)
	c, err := m.Start(&Request{Image: forking(t, executeTrue), CgroupFD: -1})
	if err != nil {
		t.Fatal(err)
	}
	c = Resume(c.Pid, c.PidFD, c.SyncFD())
	if !c.Forking() {
		t.Error("the second process is not expected")
	}
	first := c.Pid
	if err := last(c); err != nil || c.Pid == first {
		t.Errorf("got %v, process %d after %d", err, c.Pid, first)
	}
	if Resume(c.Pid, c.PidFD, c.SyncFD()).Forking() {
		t.Error("a second process is expected twice")
	}
	c.Kill()
	noChild(t, "resumed child")
}
