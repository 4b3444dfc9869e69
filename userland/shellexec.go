package userland

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
)

// exec runs a command that is neither a function nor built in (interp.ExecHandlerFunc).
func (s *shell) exec(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	path, err := interp.LookPathDir(hc.Dir, hc.Env, args[0])
	if err != nil {
		s.jobs.settle(jobNumber(hc, jobOwn), 0)
		return s.notFound(hc, args[0])
	}
	if a, ok := s.inline(path); ok {
		s.jobs.settle(jobNumber(hc, jobOwn), 0)
		c := &Call{
			Name: a.Name, Args: args[1:], Stdin: hc.Stdin, Stdout: hc.Stdout, Stderr: hc.Stderr,
			Dir: hc.Dir, Env: exported(hc.Env),
		}
		status := a.Serve(ctx, c)
		if a.Name == "kill" && status == exitOK {
			s.traps.settle(args[1:])
		}
		return exitError(status)
	}
	if s.replace[hc.Pos] && !s.traps.any() && s.ownStreams() {
		// Only a failure comes back; then the usual way reports it.
		s.become(hc, path, args)
	}
	if s.interactive {
		// The terminal sends its interrupt to the program itself.
		ctx = context.WithoutCancel(ctx)
	}
	if job := jobNumber(hc, jobOwn); job != 0 {
		if ok, err := s.background(ctx, hc, job, path, args); ok {
			return err
		}
	}
	handled := false
	if s.interactive {
		handled, err = s.runForeground(ctx, hc, path, args)
	}
	if !handled {
		err = interp.DefaultExecHandler(0)(ctx, append([]string{path}, args[1:]...))
	}
	var es interp.ExitStatus
	if errors.As(err, &es) && int(es) == exitSignal+int(syscall.SIGINT) && s.interactive {
		s.interrupt() // the rest of the line too, as the user means
	}
	if err != nil && !errors.As(err, &es) && ctx.Err() == nil {
		s.c.errorf("%s: %s", args[0], reason(err))
		return interp.ExitStatus(exitNotRunnable)
	}
	return err
}

func exitError(status int) error {
	if status == exitOK {
		return nil
	}
	return interp.ExitStatus(status)
}

func (s *shell) notFound(hc interp.HandlerContext, name string) error {
	if strings.Contains(name, "/") {
		p := name
		if p[0] != '/' {
			p = hc.Dir + "/" + p
		}
		st, err := os.Stat(p)
		switch {
		case err == nil && st.IsDir():
			err = syscall.EISDIR
		case err == nil:
			err = syscall.EACCES
		}
		fmt.Fprintf(hc.Stderr, "%s: %s: %s\n", s.c.Name, name, reason(err))
		if !errors.Is(err, os.ErrNotExist) {
			return interp.ExitStatus(exitNotRunnable)
		}
		return interp.ExitStatus(exitNotFound)
	}
	fmt.Fprintf(hc.Stderr, "%s: %s: not found\n", s.c.Name, name)
	return interp.ExitStatus(exitNotFound)
}

// inline finds the applet that a path leads to, when it may run as a function call.
func (s *shell) inline(path string) (Applet, bool) {
	a, ok := Lookup(path[strings.LastIndexByte(path, '/')+1:])
	if !ok || !a.Inline || s.self == nil {
		return a, false
	}
	st, err := os.Stat(path)
	return a, err == nil && os.SameFile(st, s.self)
}

// exported is the environment that a command gets.
func exported(e expand.Environ) []string {
	var out []string
	for name, v := range e.Each {
		if v.Exported && v.Kind == expand.String && v.IsSet() {
			out = append(out, name+"="+v.String())
		}
	}
	return out
}

// ownStreams tells whether the shell has the process's own streams, hence is the process.
func (s *shell) ownStreams() bool {
	return s.c.Stdin == io.Reader(os.Stdin) && s.c.Stdout == io.Writer(os.Stdout) &&
		s.c.Stderr == io.Writer(os.Stderr)
}

// become executes a program in this process. Streams that were redirected take their numbers first.
func (s *shell) become(hc interp.HandlerContext, path string, args []string) {
	var fds [3]int
	for i, st := range []any{hc.Stdin, hc.Stdout, hc.Stderr} {
		f, ok := st.(*os.File)
		if !ok || f == nil {
			return
		}
		// Through numbers above the three, so that none is overwritten before it is copied.
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 10)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() ||
		unix.Access(path, unix.X_OK) != nil {
		return // the usual way reports it on the streams as they are
	}
	if err := os.Chdir(hc.Dir); err != nil {
		return
	}
	var own [3]int
	for i, fd := range fds {
		var err error
		if own[i], err = unix.FcntlInt(uintptr(i), unix.F_DUPFD_CLOEXEC, 10); err != nil {
			return
		}
		defer unix.Close(own[i])
		if err := unix.Dup3(fd, i, 0); err != nil {
			return
		}
	}
	_ = syscall.Exec(path, args, exported(hc.Env))
	// Not executable after all, a script without #! for instance: as it was.
	for i, fd := range own {
		_ = unix.Dup3(fd, i, 0)
	}
}
