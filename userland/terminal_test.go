package userland

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is a shell on a pseudo-terminal.
type screen struct {
	t    *testing.T
	pty  *os.File
	cmd  *exec.Cmd
	seen string // read and not yet asked for
}

// openTerminal opens both ends of a pseudo-terminal.
func openTerminal(t *testing.T) (pty, tty *os.File) {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals: ", err)
	}
	t.Cleanup(func() { pty.Close() })
	raw, err := pty.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number, ierr := 0, error(nil)
	if err := raw.Control(func(fd uintptr) {
		if ierr = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); ierr == nil {
			if number, ierr = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); ierr == nil {
				ierr = unix.IoctlSetWinsize(
					int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80},
				)
			}
		}
	}); err != nil || ierr != nil {
		t.Fatal(errors.Join(err, ierr))
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return pty, tty
}

func openScreen(t *testing.T, env ...string) *screen {
	t.Helper()
	pty, tty := openTerminal(t)
	defer tty.Close()
	// An interrupt sends the signal first and discards what was written to the terminal afterwards
	// (drivers/tty/n_tty.c, isig): a shell that is quick loses its prompt.
	mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	mode.Lflag |= unix.NOFLSH
	if err := unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, mode); err != nil {
		t.Fatal(err)
	}
	bin := links(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "sh"))
	cmd.Dir = fixture(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Env = append(
		[]string{
			"PATH=" + bin, "HOME=" + cmd.Dir, "TERM=xterm", "PS1=ready> ",
			"GOCOVERDIR=" + t.TempDir(), // else a covered program says that it is not set
		}, env...,
	)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, pty: pty, cmd: cmd}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return s
}

// until reads up to and with text.
func (s *screen) until(text string) string {
	s.t.Helper()
	if err := s.pty.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		if before, after, ok := strings.Cut(s.seen, text); ok {
			s.seen = after
			return before
		}
		n, err := s.pty.Read(buf)
		if s.seen += string(buf[:n]); err != nil {
			s.t.Fatalf("waiting for %q: %v; on the screen: %q", text, err, s.seen)
		}
	}
}

func (s *screen) send(text string) {
	s.t.Helper()
	if _, err := s.pty.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// command types a line and returns what is on the screen up to the next prompt, without the echo.
func (s *screen) command(line string) string {
	s.t.Helper()
	s.send(line + "\r")
	s.until("\r\n")
	return strings.ReplaceAll(s.until("ready> "), "\r\n", "\n")
}

func (s *screen) status() int {
	s.t.Helper()
	err := s.cmd.Wait()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		s.t.Fatal(err)
	}
	return s.cmd.ProcessState.ExitCode()
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	s := openScreen(t)
	s.until("ready> ")
	for _, tc := range []struct{ line, want string }{
		{"echo one; echo two", "one\ntwo\n"},
		{"x=kept", ""},
		{"echo $x $?", "kept 0\n"},
		{"cd d && ls", "e\ninner\n"}, // no colours asked for, one directory wide
		{"cd ..; false", ""},
		{"echo $?", "1\n"},
		{"tty | wc -l", "1\n"},
		{"sleep 20 & echo started", "started\n"},
		{"kill $!; wait $!; echo $?", "143\n"},
		{"cat & wait", ""}, // what runs in the background does not read what is typed
	} {
		got := s.command(tc.line)
		if strings.Fields(got) == nil != (strings.Fields(tc.want) == nil) ||
			strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(tc.want), " ") {
			t.Errorf("%s: got %q, want %q", tc.line, got, tc.want)
		}
	}
	s.send("exit 7\r")
	if got := s.status(); got != 7 {
		t.Errorf("exit 7: status %d", got)
	}
}

func TestTerminalInterrupt(t *testing.T) {
	t.Parallel()
	s := openScreen(t)
	s.until("ready> ")
	// A program, with the rest of its line: neither goes on.
	s.send("echo go; sleep 60; echo never\r")
	s.until("go\r\n")
	if !waitFor(t, func() bool { return len(children(s.cmd.Process.Pid)) > 0 }) {
		t.Fatal("sleep did not start")
	}
	s.send("\x03")
	if out := s.until("ready> "); strings.Contains(out, "never") {
		t.Errorf("the line went on: %q", out)
	}
	if got := s.command("echo $?"); got != "130\n" {
		t.Errorf("status after an interrupt: %q, want 130", got)
	}
	// A loop of the shell's own.
	s.send("echo go; while :; do :; done\r")
	s.until("go\r\n")
	s.send("\x03")
	s.until("ready> ")
	// A half-typed line is dropped.
	s.send("echo wrong")
	s.until("echo wrong")
	s.send("\x03")
	s.until("ready> ")
	if got := s.command("echo right"); got != "right\n" {
		t.Errorf("after a dropped line: %q", got)
	}
	// The end of input ends the shell with the last status.
	s.command("sh -c 'exit 4'")
	s.send("\x04")
	if got := s.status(); got != 4 {
		t.Errorf("status after the end of input: %d, want 4", got)
	}
}

func TestTerminalEditing(t *testing.T) {
	t.Parallel()
	s := openScreen(t)
	s.until("ready> ")
	s.command("echo first")
	if got := s.command("\x1b[A"); got != "first\n" {
		t.Errorf("arrow up: %q", got)
	}
	if got := s.command("echo ab\x1b[D-"); got != "a-b\n" {
		t.Errorf("arrow left: %q", got)
	}
	if got := s.command("rubbish\x15echo clean"); got != "clean\n" {
		t.Errorf("^U: %q", got)
	}
	if got := s.command("cat fru\t"); !strings.Contains(got, "pear\n") {
		t.Errorf("completion of a file: %q", got)
	}
	s.send("for i in 1 2\r")
	s.until("> ")
	s.send("do echo n$i; done\r")
	s.until("n1\r\nn2\r\n")
}

func TestTerminalTop(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"q", "\x03"} {
		s := openScreen(t)
		s.until("ready> ")
		s.send("top -d 0.05\r")
		s.until("COMMAND")
		s.until("COMMAND") // it goes on
		s.send(key)
		s.until("ready> ")
		if got := s.command("echo back"); got != "back\n" {
			t.Errorf("after %q: %q", key, got)
		}
	}
}

// children are the processes that a process's threads started.
func children(pid int) []string {
	var out []string
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		b, _ := os.ReadFile(l) // the thread may be gone
		out = append(out, strings.Fields(string(b))...)
	}
	return out
}

// waitFor polls another process's state, for which there is nothing to wait on.
func waitFor(t *testing.T, ok func() bool) bool {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
	return true
}
