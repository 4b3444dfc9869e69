// Package hook executes hooks of the runtime-spec (config.md, POSIX-platform Hooks) in the
// namespaces of a container that is being made, and has what all kinds of hooks share: a limit of
// time, the state on standard input, and the end of what a hook has said in its error.
//
// Not for: when hooks run, and which (package container, package task/host).
//
// Tested with real containers by package container, package task/host and package test.
package hook

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/launch"
	"strake/container/program"
	"strake/container/spawn"
)

// Limit bounds a context by a hook's timeout in seconds; nil is none.
func Limit(ctx context.Context, seconds *int) (context.Context, context.CancelFunc) {
	if seconds == nil {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(*seconds)*time.Second)
}

// Streams are a hook's standard streams: files that exist as descriptors only.
type Streams struct{ In, Out *os.File }

// Open makes the streams of a hook that reads state.
func Open(state []byte) (*Streams, error) {
	in, err := memoryFile("hook-state", state)
	if err != nil {
		return nil, err
	}
	out, err := memoryFile("hook-output", nil)
	if err != nil {
		in.Close()
		return nil, err
	}
	return &Streams{in, out}, nil
}

// Close closes the files.
func (s *Streams) Close() {
	s.In.Close()
	s.Out.Close()
}

// memoryFile is a file positioned at its beginning.
func memoryFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(content, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Failed is the error of a hook that has ended with a wait status other than 0.
func (s *Streams) Failed(ws unix.WaitStatus) error {
	if ws == 0 {
		return nil
	}
	text := make([]byte, 4096)
	n, _ := s.Out.ReadAt(text, 0)
	if ws.Signaled() {
		return fmt.Errorf("ended by %s%s", ws.Signal(), Said(text[:n]))
	}
	return fmt.Errorf("exit status %d%s", ws.ExitStatus(), Said(text[:n]))
}

// Said is the end of a hook's output for an error message.
func Said(out []byte) string {
	s := strings.TrimSpace(string(out))
	if s == "" {
		return ""
	}
	if len(s) > 1024 {
		s = "..." + s[len(s)-1024:]
	}
	return ": " + s
}

// Inside executes a hook of the host's view in the namespaces flags (CLONE_NEW*) of the process
// pidfd, in the directory dir there, and waits for its end. It is killed when ctx ends.
func Inside(
	ctx context.Context, m *spawn.Machine, h *specs.Hook, dir string, flags uint64, state []byte,
	pidfd int,
) error {
	l, err := launch.Hook(h, dir, flags, pidfd)
	if err != nil {
		return err
	}
	defer l.Close()
	streams, err := Open(state)
	if err != nil {
		return err
	}
	defer streams.Close()
	l.Streams(int(streams.In.Fd()), int(streams.Out.Fd()), int(streams.Out.Fd()))
	child, err := m.Start(l.Request())
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, child.Interrupt)()
	for stage := uint32(program.StageForked); stage != 0; {
		msg, err := child.Next()
		if err != nil {
			child.Kill()
			return l.Explain(err)
		}
		stage = msg.Stage
	}
	defer func() {
		child.Release()
		unix.Close(child.PidFD)
	}()
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(child.Pid, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for process %d: %w", child.Pid, err)
		}
		return streams.Failed(ws)
	}
}
