package leader

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/leader/leadertest"
)

func init() { leadertest.Play() }

// start starts a process in a new UTS namespace and waits until it plays its role. Needs root.
func start(t *testing.T, role leadertest.Role) Process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces")
	}
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stderr = role.Environ(), &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		unix.Close(fd)
		if out.Len() > 0 {
			t.Errorf("the process says %s", &out)
		}
	})
	p := Process{Pid: cmd.Process.Pid, PidFD: fd}
	if role == leadertest.Gone {
		for end := time.Now().Add(10 * time.Second); !zombie(p); {
			if time.Now().After(end) {
				t.Fatal("the leader has not exited within 10 s")
			}
		}
	}
	return p
}

// zombie says whether the leader has exited.
func zombie(p Process) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
	return err == nil && strings.Contains(string(raw), ") Z ")
}

// end kills the process.
func end(t *testing.T, p Process) {
	t.Helper()
	if err := unix.PidfdSendSignal(p.PidFD, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !p.Ended(); {
		if time.Now().After(deadline) {
			t.Fatal("not killed within 10 s")
		}
	}
}

func self(t *testing.T) Process {
	t.Helper()
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return Process{Pid: os.Getpid(), PidFD: fd}
}

// look checks everything that can be reached of a process once.
func look(t *testing.T, p Process) {
	t.Helper()
	if _, err := p.Live(); err != nil {
		t.Errorf("live: %v", err)
	}
	root, err := p.OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var ours, theirs unix.Stat_t
	if err := errors.Join(
		unix.Stat("/", &ours), unix.Fstat(int(root.Fd()), &theirs),
	); err != nil || ours.Ino != theirs.Ino || ours.Dev != theirs.Dev {
		t.Errorf("its root is inode %d, %v, want %d", theirs.Ino, err, ours.Ino)
	}
	f, err := p.OpenFile("net/dev", unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := make([]byte, 4096)
	if n, err := f.Read(text); err != nil || !strings.Contains(string(text[:n]), "lo:") {
		t.Errorf("net/dev: %q, %v", text[:n], err)
	}
	uts, err := p.Readlink("ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	if own, _ := os.Readlink("/proc/self/ns/uts"); own == uts {
		t.Errorf("its UTS namespace is ours, %s", uts)
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	p := start(t, leadertest.Gone)
	if _, err := os.Open(fmt.Sprintf("/proc/%d/root", p.Pid)); err == nil {
		t.Fatal("the root of a zombie can be opened: nothing is tested")
	}
	tid, err := p.Live()
	if err != nil || tid == p.Pid {
		t.Errorf("live: thread %d of process %d, %v; want another thread", tid, p.Pid, err)
	}
	if p.Ended() {
		t.Error("it is said to have ended")
	}
	look(t, p)
	end(t, p)
	if _, err := p.Live(); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("live after the end: %v, want ErrNotFound", err)
	}
	if _, err := p.OpenRoot(); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("root after the end: %v, want ErrNotFound", err)
	}
	if j, err := p.Join(unix.CLONE_NEWUTS); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("join after the end: %v, %v, want ErrNotFound", j, err)
	}
}

func TestExecuting(t *testing.T) {
	t.Parallel()
	p := start(t, leadertest.Executing)
	for range 300 {
		look(t, p)
		if t.Failed() {
			return
		}
	}
}

func TestLiving(t *testing.T) {
	t.Parallel()
	p := self(t)
	if tid, err := p.Live(); tid != p.Pid || err != nil {
		t.Errorf("got thread %d, %v, want the leader %d", tid, err, p.Pid)
	}
	j, err := p.Join(unix.CLONE_NEWUTS)
	if err != nil || j.FD != p.PidFD || len(j.owned) > 0 {
		t.Errorf("got %+v, %v, want the pidfd itself", j, err)
	}
	f, err := p.OpenFile("ns/nothing", unix.O_RDONLY)
	if !errors.Is(err, os.ErrNotExist) || f != nil {
		t.Errorf("a missing file: %v, %v, want ErrNotExist", f, err)
	}
}

// setns joins on a thread that ends afterwards, and says in which UTS namespace that was.
func setns(j *Joint) (uts string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good
		fd := j.FD
		if fd < 0 {
			fd = j.Files[unix.CLONE_NEWUTS]
		}
		if err = unix.Setns(fd, unix.CLONE_NEWUTS); err == nil {
			uts, err = os.Readlink("/proc/thread-self/ns/uts")
		}
	}()
	<-done
	return uts, err
}

func TestJoin(t *testing.T) {
	t.Parallel()
	p := start(t, leadertest.Gone)
	want, err := p.Readlink("ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := setns(At(p.PidFD)); !Lost(err) {
		t.Errorf("setns on the pidfd: %v, want ESRCH", err)
	}
	for _, thread := range []int{pidfdThread, 1 << 30} { // flags that no kernel knows
		j, err := p.join(unix.CLONE_NEWUTS, thread)
		if err != nil {
			t.Fatal(err)
		}
		if (j.FD < 0) != (thread != pidfdThread) && kernelHasThreads(t) {
			t.Errorf("flags %#x give %+v", thread, j)
		}
		if got, err := setns(j); got != want || err != nil {
			t.Errorf("joined %s, %v, want %s", got, err, want)
		}
		j.Close()
	}
}

func kernelHasThreads(t *testing.T) bool {
	t.Helper()
	fd, err := unix.PidfdOpen(os.Getpid(), pidfdThread)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// TestJoinExecuting joins a process that replaces itself all the time.
func TestJoinExecuting(t *testing.T) {
	t.Parallel()
	p := start(t, leadertest.Executing)
	joined := 0
	for range 200 {
		j, err := p.Join(unix.CLONE_NEWUTS)
		if err != nil {
			t.Fatal(err)
		}
		switch _, err := setns(j); {
		case err == nil:
			joined++
		case !Lost(err):
			t.Fatal(err)
		}
		j.Close()
	}
	if joined < 100 {
		t.Errorf("joined %d of 200 times", joined)
	}
}
