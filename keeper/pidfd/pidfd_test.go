package pidfd

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func wait(t *testing.T, fd int, events int16) {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		if n, err := unix.Poll(p, 10000); err == unix.EINTR {
			continue
		} else if err != nil || n != 1 {
			t.Fatalf("poll: %d %v", n, err)
		}
		return
	}
}

func TestChild(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		script string
		want   syscall.WaitStatus
	}{
		{"exit 7", 7 << 8},
		{"kill -TERM $$", 15},
	} {
		cmd := exec.Command("/bin/sh", "-c", "read x; "+tc.script)
		fd := -1
		cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, a, err := Exit(fd, 0); a != Running || err != nil {
			t.Errorf("before the end: %v %v", a, err)
		}
		in.Close()
		wait(t, fd, unix.POLLIN)
		if ws, a, err := Exit(fd, 0); ws != tc.want || a != Known || err != nil {
			t.Errorf("%q: got %#x %v %v, want %#x", tc.script, int(ws), a, err, int(tc.want))
		}
		unix.Close(fd)
	}
}

// TestZombie asks about a process that its parent never reaps.
func TestZombie(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		script string
		want   syscall.WaitStatus
	}{{"exit 9", 9 << 8}, {"exit 0", 0}, {"kill -KILL $$", 9}} {
		// exec keeps the parent from waiting for its background process.
		cmd := exec.Command(
			"/bin/sh", "-c",
			`sh -c 'read x </proc/self/fd/3; `+tc.script+`' & echo $!; exec sleep 1000 3<&-`,
		)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = []*os.File{r}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r.Close()
		pid := number(t, out)
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		// Until the parent is another program it may look for its children.
		comm := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/comm"
		for end := time.Now().Add(20 * time.Second); ; unix.Poll(nil, 1) {
			if name, err := os.ReadFile(comm); string(name) == "sleep\n" {
				break
			} else if time.Now().After(end) {
				t.Fatalf("the parent is %q, %v", name, err)
			}
		}
		w.Close()
		wait(t, fd, unix.POLLIN)
		if ws, a, err := Exit(fd, pid); ws != tc.want || a != Known || err != nil {
			t.Errorf("%q: got %#x %v %v, want %#x", tc.script, int(ws), a, err, int(tc.want))
		}
		if _, a, err := Exit(fd, 0); a != Unreaped || err != nil {
			t.Errorf("%q: without its number: %v %v", tc.script, a, err)
		}
		// Another process's number is not believed.
		if _, a, err := Exit(fd, os.Getpid()); a != Unreaped || err != nil {
			t.Errorf("%q: with another number: %v %v", tc.script, a, err)
		}
		cmd.Process.Kill()
		cmd.Wait()
		unix.Close(fd)
	}
}

func number(t *testing.T, from io.Reader) int {
	t.Helper()
	line := make([]byte, 20)
	n, err := from.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// A grandchild is reaped by its own parent; the kernel still tells how it ended.
func TestGrandchild(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(
		"/bin/sh", "-c", `sh -c 'read x </proc/self/fd/3; exit 9' & echo $!; wait $!; read y`,
	)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd.ExtraFiles = []*os.File{r}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	r.Close()
	pid := number(t, out)
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, a, err := Exit(fd, 0); a != Running || err != nil {
		t.Errorf("before the end: %v %v", a, err)
	}
	w.Close()
	wait(t, fd, 0) // POLLHUP: reaped
	ws, a, err := Exit(fd, 0)
	if a == Lost {
		t.Skip("needs Linux 6.15: PIDFD_INFO_EXIT")
	}
	if ws.ExitStatus() != 9 || a != Known || err != nil {
		t.Errorf("got %#x %v %v, want exit 9", int(ws), a, err)
	}
}
