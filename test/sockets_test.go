package test

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// handed is what a program got over a socket from strake-runtime.
type handed struct {
	file    *os.File
	message string
	err     error
}

// receive listens at a path for one descriptor and the message with it, which may come in pieces.
func receive(t *testing.T, path string) <-chan handed {
	t.Helper()
	os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.SetDeadline(time.Now().Add(20 * time.Second))
	c := make(chan handed, 1)
	go func() {
		conn, err := l.AcceptUnix()
		if err != nil {
			c <- handed{err: err}
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		msg, oob := make([]byte, 16), make([]byte, 64)
		n, oobn, _, _, err := conn.ReadMsgUnix(msg, oob)
		if err != nil {
			c <- handed{err: err}
			return
		}
		rest, err := io.ReadAll(conn)
		got := handed{message: string(msg[:n]) + string(rest), err: err}
		if cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(cmsgs) == 1 {
			if fds, err := unix.ParseUnixRights(&cmsgs[0]); err == nil && len(fds) == 1 {
				got.file = os.NewFile(uintptr(fds[0]), "handed")
			}
		}
		c <- got
	}()
	return c
}

func (h handed) check(t *testing.T) handed {
	t.Helper()
	if h.err != nil || h.file == nil {
		t.Fatalf("handed over: %+v", h)
	}
	t.Cleanup(func() { h.file.Close() })
	return h
}

// TestSockets takes what strake-runtime hands to other programs: a terminal, a pidfd, and the
// listener of a seccomp filter.
func TestSockets(t *testing.T) {
	r := newOCIRig(t)
	socket := func(name string) string { return filepath.Join(r.dir, name) }

	t.Run("terminal and pidfd", func(t *testing.T) {
		r.write(func(config map[string]any) {
			shell(
				"read line; echo got $line; tty; test -c /dev/console && echo console; exit 3",
			)(config)
			config["process"].(map[string]any)["terminal"] = true
		})
		console, pidfd := receive(t, socket("console")), receive(t, socket("pidfd"))
		r.ok(
			"create", "--console-socket", socket("console"), "--pidfd-socket", socket("pidfd"), "c",
		)
		defer r.do("delete", "--force", "c")
		terminal, process := (<-console).check(t), (<-pidfd).check(t)
		if process.message != "pidfd" {
			t.Errorf("the pidfd comes as %q", process.message)
		}
		info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(process.file.Fd())))
		if want := "Pid:\t" + strconv.Itoa(r.state("c").Pid) + "\n"; err != nil ||
			!strings.Contains(string(info), want) {
			t.Errorf("the pidfd is for %q, want %q (%v)", info, want, err)
		}
		if !strings.HasPrefix(terminal.message, "/") {
			t.Errorf("the terminal comes as %q", terminal.message)
		}
		r.ok("start", "c")
		if _, err := terminal.file.WriteString("word\n"); err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(terminal.file) // ends with EIO when the other side is closed
		if want := "word\r\ngot word\r\n/dev/pts/0\r\nconsole\r\n"; string(out) != want {
			t.Errorf("terminal: %q, want %q", out, want)
		}
		ended := []unix.PollFd{{Fd: int32(process.file.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(ended, 20_000); n != 1 {
			t.Errorf("the pidfd does not tell the end: %d, %v", n, err)
		}
	})

	t.Run("seccomp listener", func(t *testing.T) {
		const exdev = 18
		r.write(func(config map[string]any) {
			shell("echo begins; mkdir /there")(config)
			config["linux"].(map[string]any)["seccomp"] = map[string]any{
				"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket("agent"),
				"listenerMetadata": "of the agent",
				"syscalls": []any{
					map[string]any{
						"names": []string{"mkdir", "mkdirat"}, "action": "SCMP_ACT_NOTIFY",
					},
				},
			}
		})
		agent := receive(t, socket("agent"))
		done := make(chan result, 1)
		go func() { done <- r.do("run", "c") }()
		var listener handed
		select {
		case listener = <-agent:
		case got := <-done:
			t.Fatalf("run: %+v", got)
		}
		listener.check(t)
		var state struct {
			Fds      []string
			Pid      int
			Metadata string
			State    struct {
				ID, Status, Bundle string
				Pid                int
			}
		}
		if err := json.Unmarshal([]byte(listener.message), &state); err != nil {
			t.Fatalf("%v: %s", err, listener.message)
		}
		if len(state.Fds) != 1 || state.Fds[0] != "seccompFd" || state.Pid == 0 ||
			state.Pid != state.State.Pid || state.Metadata != "of the agent" ||
			state.State.ID != "c" || state.State.Status != "creating" ||
			state.State.Bundle != r.bundle {
			t.Errorf("process state: %s", listener.message)
		}
		// seccomp_unotify(2): struct seccomp_notif has 80 bytes, of which the first eight are the
		// ID; struct seccomp_notif_resp has 24.
		var question [80]byte
		var answer struct {
			id    [8]byte
			value int64
			err   int32
			flags uint32
		}
		if _, _, e := unix.Syscall(
			unix.SYS_IOCTL, listener.file.Fd(), 0xc0502100, uintptr(unsafe.Pointer(&question)),
		); e != 0 {
			t.Fatalf("SECCOMP_IOCTL_NOTIF_RECV: %v", e)
		}
		copy(answer.id[:], question[:8])
		answer.err = -exdev
		if _, _, e := unix.Syscall(
			unix.SYS_IOCTL, listener.file.Fd(), 0xc0182101, uintptr(unsafe.Pointer(&answer)),
		); e != 0 {
			t.Fatalf("SECCOMP_IOCTL_NOTIF_SEND: %v", e)
		}
		if got := <-done; got.code != 1 || got.out != "begins\n" ||
			!strings.Contains(got.err, "nvalid cross-device link") {
			t.Errorf("run: %+v", got)
		}
	})

	t.Run("nobody listens", func(t *testing.T) {
		before := r.host()
		r.write(func(config map[string]any) {
			config["process"].(map[string]any)["terminal"] = true
		})
		for _, args := range [][]string{
			{"create", "--console-socket", socket("none"), "c"},
			{"create", "--console-socket", "/" + strings.Repeat("long/", 30), "c"},
			{"create", "--console-socket", socket("file"), "c"},
		} {
			os.WriteFile(socket("file"), nil, 0o600)
			got := r.do(args...)
			if got.code != 1 ||
				!strings.Contains(got.err, "--console-socket: connect to "+args[2]+": ") {
				t.Errorf("%q: %+v", args, got)
			}
		}
		os.Remove(socket("file"))
		if left := r.left(before); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}
