package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/early"
	"strake/keeper/pidfd"
	"strake/keeper/wire"
)

// Launch says how to start a keeper.
type Launch struct {
	// Command is the executable's path and the words that make it a keeper:
	// "/usr/bin/strake-runtime", "keeper".
	Command []string
	Environ []string
	// Socket is where it will listen. Its directory and StateDir are created with mode 0700 if
	// missing.
	Socket   string
	StateDir string
	// LogFile receives what the keeper has to say, appended; empty for nothing.
	LogFile string
}

// StartProcess starts a keeper in a session of its own, with no descriptor but /dev/null, its log
// and its socket, to which Dial can connect at once. It outlives the caller, whose child it is: the
// caller calls Wait on the process, at least when its connection has ended. If a keeper listens at
// Socket already, it is errdefs.ErrAlreadyExists.
func StartProcess(l *Launch) (*os.Process, error) {
	if len(l.Command) == 0 || !filepath.IsAbs(l.Command[0]) {
		return nil, fmt.Errorf(
			"start a keeper: command %q: want an absolute path: %w", l.Command,
			errdefs.ErrInvalidArgument,
		)
	}
	for _, dir := range []string{filepath.Dir(l.Socket), l.StateDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("start a keeper: %w", err)
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("start a keeper: %w", err)
	}
	defer null.Close()
	out := null
	args := append(slices.Clone(l.Command), "--fd", "3", "--state", l.StateDir)
	if l.LogFile != "" {
		out, err = os.OpenFile(l.LogFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("start a keeper: %w", err)
		}
		defer out.Close()
		args = append(args, "--log", l.LogFile)
	}
	fd, err := wire.Listen(l.Socket)
	if err != nil {
		return nil, fmt.Errorf("start a keeper: %w", err)
	}
	listener := os.NewFile(uintptr(fd), l.Socket)
	defer listener.Close()
	defer early.Lock()()
	p, err := os.StartProcess(l.Command[0], args, &os.ProcAttr{
		Dir: "/", Env: l.Environ, Files: []*os.File{null, out, out, listener},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		os.Remove(l.Socket)
		return nil, fmt.Errorf("start a keeper: %w", err)
	}
	return p, nil
}

// BecomeSubreaper makes the caller the process to which the children of a dead keeper are given, if
// it has started the keeper (PR_SET_CHILD_SUBREAPER, prctl(2)). It must then reap them, as
// AwaitOrphan does, and any other process that loses its parent.
func BecomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	return nil
}

// AwaitOrphan waits, without a thread, for the end of a process whose keeper has died. It reaps it
// if it was given to the caller, and otherwise asks the kernel (package pidfd). The answer is for
// Client.Report; it is Exit.Unknown if the kernel does not know.
func AwaitOrphan(ctx context.Context, p *Process) (Exit, error) {
	dup := -1
	err := p.WithPidFD(func(fd int) (err error) {
		dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return Exit{}, fmt.Errorf("await process %q: %w", p.ID, err)
	}
	// Non-blocking is what makes the runtime poll it.
	if err := unix.SetNonblock(dup, true); err != nil {
		unix.Close(dup)
		return Exit{}, fmt.Errorf("await process %q: %w", p.ID, err)
	}
	f := os.NewFile(uintptr(dup), "pidfd of "+p.ID)
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return Exit{}, fmt.Errorf("await process %q: %w", p.ID, err)
	}
	var e Exit
	var failure error
	err = raw.Read(func(fd uintptr) bool {
		status, answer, err := pidfd.Exit(int(fd), p.Pid)
		e, failure = Exit{Status: status, Time: time.Now(), Unknown: answer != pidfd.Known}, err
		return err != nil || answer == pidfd.Known || answer == pidfd.Lost
	})
	switch {
	case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
		return Exit{}, ctx.Err()
	case err != nil || failure != nil:
		return Exit{}, fmt.Errorf("await process %q: %w", p.ID, errors.Join(err, failure))
	}
	return e, nil
}
