package userland

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStty sets modes on a pseudo-terminal and reads them back, by itself and by the kernel.
func TestStty(t *testing.T) {
	pty, _ := openTerminal(t)
	fd := int(pty.Fd()) // the master has the modes and the size of the terminal
	call := func(want int, args ...string) string {
		t.Helper()
		var out, errw bytes.Buffer
		if got := stty(t.Context(), &Call{
			Name: "stty", Args: args, Stdin: pty, Stdout: &out, Stderr: &errw,
		}); got != want {
			t.Errorf("stty %q: status %d: %s", args, got, &errw)
		}
		return out.String()
	}
	modes := func() unix.Termios {
		t.Helper()
		m, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return *m
	}
	call(exitOK, "sane")
	saved, before := call(exitOK, "-g"), modes()
	if got := call(exitOK); strings.Contains(got, "echo") || !strings.HasPrefix(got, "speed ") {
		t.Errorf("a sane terminal: %q", got)
	}
	call(exitOK, "raw", "-echo", "intr", "^X", "rows", "33", "cols", "77")
	if m := modes(); m.Lflag&(unix.ICANON|unix.ISIG|unix.ECHO) != 0 || m.Oflag&unix.OPOST != 0 ||
		m.Cc[unix.VINTR] != 'X'&31 {
		t.Errorf("raw: %+v", m)
	}
	if got := call(exitOK, "size"); got != "33 77\n" {
		t.Errorf("size: %q", got)
	}
	all := call(exitOK, "-a")
	for _, want := range []string{"rows 33; columns 77;", "intr = ^X;", "-icanon", "-echo ", "cread"} {
		if !strings.Contains(all, want) {
			t.Errorf("-a lacks %q:\n%s", want, all)
		}
	}
	call(exitOK, strings.TrimSpace(saved))
	if modes() != before {
		t.Errorf("restored: %+v, want %+v", modes(), before)
	}
	for _, args := range [][]string{
		{"nonsense"}, {"rows"}, {"rows", "x"}, {"cols", "70000"}, {"min", "256"}, {"intr", "abc"},
		{"1:2:3"},
	} {
		call(exitUsage, args...)
	}
	if modes() != before {
		t.Error("what was refused has changed the terminal")
	}
	// The peer reads what is written here, as people's scripts do.
	if busybox, err := exec.LookPath("busybox"); err == nil {
		cmd := exec.Command(busybox, "stty", "-a")
		cmd.Stdin = pty
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "intr = ^C") ||
			!strings.Contains(string(out), " echo ") {
			t.Errorf("busybox: %v: %s", err, out)
		}
	}
}
