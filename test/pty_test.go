package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lockedBuffer is written by one goroutine and read by another.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// terminal is a pseudo-terminal (pty(7)) with a program on it, and a person who reads and types.
type terminal struct {
	t      testing.TB
	master *os.File
	cmd    *exec.Cmd
	screen lockedBuffer
	seen   int           // what expect has consumed
	done   chan struct{} // closed when nothing more can be read
}

// onTerminal starts a program as the leader of a session whose terminal has the given size.
func onTerminal(t testing.TB, cmd *exec.Cmd, columns, rows uint16) *terminal {
	t.Helper()
	// Only a file that the poller serves can be closed under a reader.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("needs /dev/ptmx: %v", err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	p := &terminal{t: t, master: master, cmd: cmd, done: make(chan struct{})}
	p.resize(columns, rows)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			p.screen.Write(buf[:n])
			if err != nil {
				return // EIO: nobody has the other end any more
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		master.Close()
		<-p.done
	})
	return p
}

// resize changes the size, which the kernel tells the program by SIGWINCH.
func (p *terminal) resize(columns, rows uint16) {
	p.t.Helper()
	raw, err := p.master.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) {
			err = unix.IoctlSetWinsize(
				int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows},
			)
		})
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *terminal) write(keys string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil && !p.exited() {
		p.t.Fatal(err)
	}
}

// expect waits until a text is on the screen, after what was expected before.
func (p *terminal) expect(text string) { p.expectWithin(text, 20*time.Second) }

func (p *terminal) expectWithin(text string, limit time.Duration) {
	p.t.Helper()
	for end := time.Now().Add(limit); ; runtimeYield() {
		rest := p.screen.String()[p.seen:]
		if i := strings.Index(rest, text); i >= 0 {
			p.seen += i + len(text)
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf(
				"%s: no %q within %s on the screen:\n%s", strings.Join(p.cmd.Args[3:], " "), text,
				limit, tail(rest, 3000),
			)
		}
	}
}

// exited says whether nobody has the terminal open any more.
func (p *terminal) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// ends waits for the program's exit status.
func (p *terminal) ends() int {
	p.t.Helper()
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}
