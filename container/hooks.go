package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/launch"
	"strake/container/program"
	"strake/container/spawn"
	"strake/internal/early"
)

func hasCreateHooks(spec *specs.Spec) bool {
	h := spec.Hooks
	//lint:ignore SA1019 prestart is deprecated in the runtime-spec and still what engines use
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0
}

func hasStartHooks(spec *specs.Spec) bool {
	return spec.Hooks != nil && len(spec.Hooks.StartContainer) > 0
}

// createHooks runs the hooks between the making of the namespaces and the change of the root:
// prestart and createRuntime in the runtime's namespaces, createContainer in the container's
// (runtime-spec config.md, POSIX-platform Hooks).
func (c *Container) createHooks(ctx context.Context, m *spawn.Machine, child *spawn.Child) error {
	state := c.ociState(specs.StateCreating, child.Pid)
	h := c.spec.Hooks
	//lint:ignore SA1019 see hasCreateHooks
	if err := runHooks(ctx, c.rec.Bundle, "prestart", h.Prestart, state); err != nil {
		return err
	}
	err := runHooks(ctx, c.rec.Bundle, "createRuntime", h.CreateRuntime, state)
	if err != nil {
		return err
	}
	return runHooksInside(ctx, c, m, h.CreateContainer, state, child.PidFD)
}

func (c *Container) ociState(status specs.ContainerState, pid int) []byte {
	s := specs.State{
		Version: c.rec.OCIVersion, ID: c.rec.ID, Status: status, Pid: pid, Bundle: c.rec.Bundle,
		Annotations: c.rec.Annotations,
	}
	raw, err := json.Marshal(&s)
	if err != nil {
		return nil // strings, numbers and a map of strings always encode
	}
	return raw
}

// runHooks executes hooks as plain processes of the host, one after the other, until one fails.
func runHooks(
	ctx context.Context, bundle, kind string, hooks []specs.Hook, state []byte,
) error {
	for i := range hooks {
		field := hookField(kind, i, &hooks[i])
		if err := runHook(ctx, bundle, field, &hooks[i], state); err != nil {
			return err
		}
	}
	return nil
}

func hookField(kind string, i int, h *specs.Hook) string {
	// The words behind the field are runc's, by which others know it.
	return fmt.Sprintf("hooks.%s[%d] (%s): error running %s hook #%d", kind, i, h.Path, kind, i)
}

// runHook executes a hook in the bundle, as runc and crun do: a hook that is configured with the
// bundle finds its files there. A hook without an environment inherits the runtime's, one with an
// empty environment gets none.
func runHook(
	ctx context.Context, bundle, field string, h *specs.Hook, state []byte,
) error {
	defer early.Lock()()
	hctx, cancel := hookTimeout(ctx, h.Timeout)
	defer cancel()
	cmd := exec.CommandContext(hctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = h.Env
	if _, err := os.Stat(bundle); err == nil { // it may be gone when the container is deleted
		cmd.Dir = bundle
	}
	cmd.Stdin = bytes.NewReader(state)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// What the hook leaves running must not keep us waiting for its output.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err != nil && hctx.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no end within %d s", *h.Timeout)
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s: %w%s", field, err, tail(out.Bytes()))
	}
	return nil
}

func hookTimeout(ctx context.Context, seconds *int) (context.Context, context.CancelFunc) {
	if seconds == nil {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(*seconds)*time.Second)
}

// tail is the end of a hook's output for an error message.
func tail(out []byte) string {
	s := strings.TrimSpace(string(out))
	if s == "" {
		return ""
	}
	if len(s) > 1024 {
		s = "..." + s[len(s)-1024:]
	}
	return ": " + s
}

// runHooksInside executes createContainer hooks in the namespaces of the container, as programs of
// the host's view that join them.
func runHooksInside(
	ctx context.Context, c *Container, m *spawn.Machine, hooks []specs.Hook, state []byte, pidfd int,
) error {
	for i, h := range hooks {
		field := hookField("createContainer", i, &h)
		hctx, cancel := hookTimeout(ctx, h.Timeout)
		// The runtime-spec names no directory; runc's is the root filesystem.
		err := runInside(hctx, m, h, c.rec.Rootfs, namespaceFlags(c.spec), state, pidfd)
		if err != nil && hctx.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("no end within %d s", *h.Timeout)
		}
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
	}
	return nil
}

func runInside(
	ctx context.Context, m *spawn.Machine, h specs.Hook, dir string, flags uint64, state []byte,
	pidfd int,
) error {
	l, err := launch.Hook(&h, dir, flags, pidfd)
	if err != nil {
		return err
	}
	defer l.Close()
	in, err := memoryFile("hook-state", state)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := memoryFile("hook-output", nil)
	if err != nil {
		return err
	}
	defer out.Close()
	l.Streams(int(in.Fd()), int(out.Fd()), int(out.Fd()))
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
	ws, err := (&Process{Pid: child.Pid, PidFD: child.PidFD}).Wait()
	if err != nil {
		return err
	}
	return hookEnd(ws, out)
}

// hookEnd is the error of a hook that has ended with a wait status other than 0.
func hookEnd(ws unix.WaitStatus, out *os.File) error {
	if ws == 0 {
		return nil
	}
	text := make([]byte, 4096)
	n, _ := out.ReadAt(text, 0)
	if ws.Signaled() {
		return fmt.Errorf("ended by %s%s", ws.Signal(), tail(text[:n]))
	}
	return fmt.Errorf("exit status %d%s", ws.ExitStatus(), tail(text[:n]))
}

// startHook executes a startContainer hook as a process of the container, with the identity, the
// capabilities, the limits and the seccomp filter of the container's own process, as runc does: its
// program may be one of the image.
func startHook(ctx context.Context, c *Container, h *specs.Hook) error {
	hctx, cancel := hookTimeout(ctx, h.Timeout)
	defer cancel()
	in, err := memoryFile("hook-state", c.ociState(specs.StateCreated, c.rec.Pid))
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := memoryFile("hook-output", nil)
	if err != nil {
		return err
	}
	defer out.Close()
	proc := *c.spec.Process
	proc.Terminal, proc.ConsoleSize, proc.Args = false, nil, h.Args
	if len(h.Args) == 0 {
		proc.Args = []string{h.Path}
	}
	if h.Env != nil {
		proc.Env = h.Env
	}
	p, err := c.Exec(hctx, ExecOptions{
		Process: &proc, executable: h.Path, Stdio: &[3]*os.File{in, out, out},
	})
	if err != nil {
		return err
	}
	defer p.Close()
	defer context.AfterFunc(hctx, func() {
		unix.PidfdSendSignal(p.PidFD, unix.SIGKILL, nil, 0)
	})()
	ws, err := p.Wait()
	switch {
	case err != nil:
		return err
	case hctx.Err() != nil && ctx.Err() == nil:
		return fmt.Errorf("no end within %d s", *h.Timeout)
	}
	return hookEnd(ws, out)
}

// memoryFile is a file that exists as a descriptor only, positioned at its beginning.
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

// sendListener hands the descriptor of a seccomp listener to the agent that the configuration names
// (runtime-spec config-linux.md, The Container Process State). It takes the descriptor over.
func sendListener(c *Container, fd int) error {
	defer unix.Close(fd)
	s := c.spec.Linux.Seccomp
	var state specs.State
	if err := json.Unmarshal(c.ociState(specs.StateCreating, c.rec.Pid), &state); err != nil {
		return err
	}
	msg, err := json.Marshal(specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: c.rec.Pid,
		Metadata: s.ListenerMetadata, State: state,
	})
	if err != nil {
		return err
	}
	if err := SendFD(s.ListenerPath, fd, msg); err != nil {
		return fmt.Errorf(
			"linux.seccomp.listenerPath: failed to connect with seccomp agent: %w", err,
		)
	}
	return nil
}
