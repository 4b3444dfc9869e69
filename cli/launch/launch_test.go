package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestMain lets the test binary play the engine.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--ready-fd" {
		os.Exit(play(os.Args[3], os.Args[4]))
	}
	os.Exit(m.Run())
}

// play is an engine: how it behaves, and its socket.
func play(how, socket string) int {
	ready := os.NewFile(3, "ready")
	switch how {
	case "fails":
		fmt.Fprintln(os.Stderr, "the disk is made of cheese")
		return 7
	case "silent":
		return 0
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return 8
	}
	if _, err := ready.Write([]byte("1")); err != nil {
		return 9
	}
	// One line for every connection, until one says that it is the last.
	for {
		c, err := l.Accept()
		if err != nil {
			return 10
		}
		buf := make([]byte, 4)
		n, _ := c.Read(buf)
		fmt.Fprint(c, os.Getpid())
		c.Close()
		if string(buf[:n]) == "quit" {
			return 0
		}
	}
}

func engine(t *testing.T, how string) (Engine, func(context.Context) (net.Conn, error)) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Socket paths are short by nature (unix(7)), names of test directories are not.
	dir, err := os.MkdirTemp("", "strake-launch-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "below", "s.sock")
	return Engine{
			Program: self, Args: []string{how, socket}, Socket: socket,
		}, func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}
}

func ask(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 32)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestManyCommandsStartOneEngine(t *testing.T) {
	t.Parallel()
	e, dial := engine(t, "works")
	var said atomic.Int32
	e.Say = func(text string) {
		said.Add(1)
		if !strings.Contains(text, e.Socket) || !strings.Contains(text, "straked.log") {
			t.Errorf("what is said names neither socket nor log: %s", text)
		}
	}
	const commands = 8
	answers := make([]string, commands)
	var wg sync.WaitGroup
	for i := range commands {
		wg.Go(func() {
			c, err := e.Start(t.Context(), dial)
			if err != nil {
				t.Error(err)
				return
			}
			answers[i] = ask(t, c, "hello")
		})
	}
	wg.Wait()
	for _, a := range answers {
		if a == "" || a != answers[0] {
			t.Fatalf("engines of these commands: %q, want one", answers)
		}
	}
	if said.Load() != 1 {
		t.Errorf("said %d times that an engine is started, want once", said.Load())
	}
	c, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask(t, c, "quit")
}

func TestEngineThatDoesNotStart(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ how, want string }{
		{"fails", "made of cheese"},
		{"fails", "exit status 7"},
		{"silent", "it wrote nothing to "},
	} {
		e, dial := engine(t, tc.how)
		if _, err := e.Start(t.Context(), dial); err == nil ||
			!strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q in it", tc.how, err, tc.want)
		}
	}
	e, dial := engine(t, "works")
	e.Program = filepath.Join(t.TempDir(), "nothing")
	if _, err := e.Start(t.Context(), dial); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: got %v", err)
	}
}

func TestAbsent(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		syscall.ENOENT: true, syscall.ECONNREFUSED: true, syscall.EACCES: false,
		errors.New("x"): false,
	} {
		if got := Absent(
			&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)},
		); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	for _, p := range []string{
		filepath.Join(dir, "straked"), filepath.Join(other, "straked"),
		filepath.Join(other, "helper"),
	} {
		if err := os.WriteFile(p, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "helper"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "strake")
	if err := os.WriteFile(filepath.Join(dir, "strake"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "strake"), link); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, program, own, path, want string }{
		{
			"beside the own program", "straked", filepath.Join(dir, "strake"), other,
			filepath.Join(dir, "straked"),
		},
		{"beside what a link leads to", "straked", link, "", filepath.Join(dir, "straked")},
		{
			"not executable there", "helper", filepath.Join(dir, "strake"), other,
			filepath.Join(other, "helper"),
		},
		{"relative PATH entries do not count", "nothing", "", ".:" + other, ""},
	} {
		got, err := Find(tc.program, tc.own, tc.path)
		if got != tc.want || (tc.want == "") != errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %q, %v; want %q", tc.name, got, err, tc.want)
		}
	}
}
