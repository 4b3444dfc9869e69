package terminal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"strake/cli/terminal"
)

func TestParseKeys(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "\x10\x11", "ctrl-p,ctrl-q": "\x10\x11", "a,ctrl-a": "a\x01", "ctrl-@": "\x00",
		"ctrl-[": "\x1b", "ctrl-_": "\x1f", "x": "x",
	} {
		if got, err := terminal.ParseKeys(in); err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"ctrl-", "ctrl-pp", "shift-a", "a,", "ctrl-1", "ab"} {
		if got, err := terminal.ParseKeys(in); err == nil {
			t.Errorf("%q: got %q, want an error", in, got)
		}
	}
}

func TestDetachReader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		keys, in, out string
		detached      bool
	}{
		{"\x10\x11", "hello", "hello", false},
		{"\x10\x11", "a\x10\x11b", "a", true},
		{"\x10\x11", "a\x10b", "a\x10b", false},
		{"\x10\x11", "a\x10\x10\x11", "a\x10", true},
		{"\x10\x11", "a\x10", "a\x10", false},
		{"aab", "aaab", "a", true},
		{"abab", "abaabab", "aba", true},
		{"x", "abxcd", "ab", true},
	} {
		for _, slow := range []bool{false, true} {
			var src io.Reader = strings.NewReader(c.in)
			if slow {
				src = iotest.OneByteReader(src)
			}
			got, err := io.ReadAll(terminal.DetachReader(src, []byte(c.keys)))
			if string(got) != c.out || errors.Is(err, terminal.ErrDetached) != c.detached {
				t.Errorf(
					"keys %q of %q: got %q, %v, want %q, detached %v", c.keys, c.in, got, err,
					c.out, c.detached,
				)
			}
		}
	}
}

// pty makes a pseudo-terminal (pts(4)).
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestRawAndBack(t *testing.T) {
	t.Parallel()
	master, slave := pty(t)
	modes := func() uint32 {
		a, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return a.Lflag
	}
	before := modes()
	restore, err := terminal.MakeRaw(slave)
	if err != nil {
		t.Fatal(err)
	}
	if modes()&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Error("the terminal is not raw")
	}
	restore()
	restore()
	if modes() != before {
		t.Error("the terminal's modes are not what they were")
	}
	if err := unix.IoctlSetWinsize(
		int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 5, Col: 33},
	); err != nil {
		t.Fatal(err)
	}
	if c, r, ok := terminal.Size(slave); c != 33 || r != 5 || !ok {
		t.Errorf("size %d %d %v", c, r, ok)
	}
	var b bytes.Buffer
	if _, _, ok := terminal.Size(&b); ok {
		t.Error("a buffer is a terminal")
	}
	if restore, err := terminal.MakeRaw(&b); err != nil {
		t.Error(err)
	} else {
		restore()
	}
}
