// Package launch starts the engine when no process listens on its socket.
//
// Promises:
//
//   - Of several commands at the same time one starts the engine; the others wait for it.
//   - A command goes on as soon as the engine listens: the engine writes a byte to a pipe, and
//     nothing polls.
//   - The engine outlives the command, in a session of its own.
//   - If the engine does not come up, the error has the last lines of its log.
//
// Not for: engines on other hosts, stopping an engine, or checking privileges.
//
// Tested with a small program in the place of the engine.
package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"strake/internal/early"
)

// Engine says how to start an engine. Program and Socket are required.
type Engine struct {
	// Program is the path of straked.
	Program string
	// Args are given to it after --ready-fd.
	Args []string
	// Env is its environment.
	Env []string
	// Socket is where it will listen. Its lock and its log are beside it.
	Socket string
	// Say, if not nil, is called once, by the command that starts the engine, with a line that says
	// so.
	Say func(text string)
}

// Absent says whether an error of connect(2) means that no process listens: there is no socket, or
// the process that made it has ended.
func Absent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

// logTail is how much of the log an error shows.
const logTail = 2 << 10

// Start starts the engine, unless another command has started it meanwhile, and returns a
// connection to it.
func (e Engine) Start(
	ctx context.Context, dial func(context.Context) (net.Conn, error),
) (net.Conn, error) {
	dir := filepath.Dir(e.Socket)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start the engine: %w", err)
	}
	unlock, err := lock(ctx, e.Socket+".start")
	if err != nil {
		return nil, fmt.Errorf("start the engine: %w", err)
	}
	defer unlock()
	// Another command may have started it while this one waited for the lock.
	if c, err := dial(ctx); err == nil || !Absent(err) {
		return c, err
	}
	if err := e.spawn(ctx); err != nil {
		return nil, err
	}
	return dial(ctx)
}

// lock takes a lock file. It is closed on exec, so that the engine does not inherit it.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	got := make(chan error, 1)
	go func() {
		for {
			err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
			if err != syscall.EINTR {
				got <- err
				return
			}
		}
	}()
	select {
	case err := <-got:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %q: %w", name, err)
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		// flock cannot be interrupted; the file is closed once it returns, and with it the lock
		// goes.
		go func() { <-got; f.Close() }()
		return nil, ctx.Err()
	}
}

// spawn starts the engine and returns when it listens.
func (e Engine) spawn(ctx context.Context) error {
	logName := filepath.Join(filepath.Dir(e.Socket), "straked.log")
	log, err := os.OpenFile(logName, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	defer log.Close()
	began, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	defer ready.Close()
	if e.Say != nil {
		e.Say(
			fmt.Sprintf(
				"no engine listens on %s: starting %s, whose log is %s", e.Socket, e.Program,
				logName,
			),
		)
	}
	cmd := exec.Command(e.Program, append([]string{"--ready-fd", "3"}, e.Args...)...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{tell}
	cmd.Env, cmd.Dir = e.Env, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	unlock := early.Lock()
	err = cmd.Start()
	unlock()
	tell.Close()
	if err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	n, err := ready.Read(make([]byte, 1))
	if n == 1 {
		// It is init's child once this command has ended.
		return cmd.Process.Release()
	}
	if ctx.Err() != nil {
		// The engine goes on starting: another command will find it.
		return ctx.Err()
	}
	why := "it closed its side without saying that it listens"
	if state, werr := cmd.Process.Wait(); werr == nil {
		why = state.String()
	} else if err != nil && err != io.EOF {
		why = err.Error()
	}
	return fmt.Errorf("the engine did not start (%s: %s)%s", e.Program, why, tail(logName, began))
}

// tail returns what was written to the log since, its end if that is long.
func tail(name string, since int64) string {
	f, err := os.Open(name)
	if err != nil {
		return "; its log: " + err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size()-since > logTail {
		since = info.Size() - logTail
	}
	raw, err := io.ReadAll(io.NewSectionReader(f, since, logTail))
	if raw = bytes.TrimSpace(raw); err != nil || len(raw) == 0 {
		return "; it wrote nothing to " + name
	}
	return "; from " + name + ":\n  " + strings.ReplaceAll(string(raw), "\n", "\n  ")
}

// Find looks for a program: beside the own one, unless own is empty, then in a PATH. Relative
// directories of the PATH do not count. Errors: fs.ErrNotExist.
func Find(name, own, path string) (string, error) {
	if own != "" {
		if real, err := filepath.EvalSymlinks(own); err == nil {
			own = real
		}
		if p := filepath.Join(filepath.Dir(own), name); executable(p) {
			return p, nil
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if p := filepath.Join(dir, name); filepath.IsAbs(p) && executable(p) {
			return p, nil
		}
	}
	if own == "" {
		return "", fmt.Errorf("%s is not in PATH: %w", name, fs.ErrNotExist)
	}
	return "", fmt.Errorf("%s is neither beside %s nor in PATH: %w", name, own, fs.ErrNotExist)
}

func executable(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
