package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/containerd/errdefs"

	"strake/internal/early"
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
