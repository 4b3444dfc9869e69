package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"strake/cmd/strake-runtime/internal/relay"
	"strake/container"
)

// foreground connects the caller with a process: its signals, its terminal, its end.
type foreground struct {
	signals *relay.Relay
	master  *os.File
	old     *term.State
	taken   bool // what is typed goes to the process
	copied  sync.WaitGroup
}

// begin starts to collect signals, before there is a process that could miss one.
func (f *foreground) begin() (err error) {
	f.signals, err = relay.Begin()
	return err
}

// terminal takes the master of the process's terminal and connects it with ours. Newlines come as
// the process wrote them (PlainTerminal): a terminal of the user adds the carriage returns, a file
// or a pipe gets none.
func (f *foreground) terminal(master *os.File) error {
	// Reads through the poller end when the process's side is closed.
	unix.SetNonblock(int(master.Fd()), true)
	f.master = os.NewFile(uintptr(dup(master)), master.Name())
	master.Close()
	f.resize()
	if err := f.take(); err != nil {
		return err
	}
	f.copied.Go(func() { io.Copy(os.Stdout, f.master) })
	return nil
}

// take gives what is typed to the process, as soon as this process is in the foreground of its
// terminal: another one that reads, or changes how the terminal works, is stopped (termios(3),
// SIGTTIN and SIGTTOU).
func (f *foreground) take() error {
	if f.taken || inBackground() {
		return nil
	}
	f.taken = true
	if old, err := term.GetState(0); err == nil {
		if err := makeRaw(0); err != nil {
			return err
		}
		f.old = old
	}
	go io.Copy(f.master, os.Stdin) // ends with this process
	return nil
}

// inBackground says whether another process group has the terminal.
func inBackground() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group != unix.Getpgrp()
}

// makeRaw is cfmakeraw(3), but for the output, which keeps getting its carriage returns.
func makeRaw(fd int) error {
	return changeTerminal(fd, func(t *unix.Termios) {
		t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR |
			unix.IGNCR | unix.ICRNL | unix.IXON
		t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	})
}

func changeTerminal(fd int, f func(t *unix.Termios)) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	f(t)
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	return nil
}

func dup(f *os.File) int {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	unix.SetNonblock(fd, true)
	return fd
}

func (f *foreground) resize() {
	if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(int(f.master.Fd()), unix.TIOCSWINSZ, ws)
	}
}

// wait forwards signals to the process until it ends and returns the exit status by the shell's
// convention.
func (f *foreground) wait(p *container.Process) (int, error) {
	fds := []unix.PollFd{
		{Fd: int32(p.PidFD), Events: unix.POLLIN}, {Fd: int32(f.signals.FD()), Events: unix.POLLIN},
	}
	for fds[0].Revents == 0 {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return 1, fmt.Errorf("poll: %w", err)
		}
		for _, s := range f.signals.Read() {
			f.forward(p, s)
		}
	}
	ws, err := p.Wait()
	if f.master != nil {
		f.copied.Wait()
	}
	if err != nil {
		return 1, err
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

func (f *foreground) forward(p *container.Process, s unix.Signal) {
	if s == unix.SIGCONT && f.master != nil {
		// Perhaps in the foreground now. A terminal that is gone does not end the process.
		_ = f.take()
	}
	if s != unix.SIGWINCH {
		unix.PidfdSendSignal(p.PidFD, s, nil, 0)
	} else if f.master != nil {
		f.resize()
	}
}

// end restores the terminal.
func (f *foreground) end() {
	if f.old != nil && !inBackground() {
		term.Restore(0, f.old)
		f.old = nil
	}
}
