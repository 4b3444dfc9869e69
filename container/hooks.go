package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/hook"
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
	hctx, cancel := hook.Limit(ctx, h.Timeout)
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
		return fmt.Errorf("%s: %w%s", field, err, hook.Said(out.Bytes()))
	}
	return nil
}

// runHooksInside executes createContainer hooks in the namespaces of the container, as programs of
// the host's view that join them.
func runHooksInside(
	ctx context.Context, c *Container, m *spawn.Machine, hooks []specs.Hook, state []byte, pidfd int,
) error {
	for i, h := range hooks {
		field := hookField("createContainer", i, &h)
		hctx, cancel := hook.Limit(ctx, h.Timeout)
		// The runtime-spec names no directory; runc's is the root filesystem.
		err := hook.Inside(hctx, m, &h, c.rec.Rootfs, namespaceFlags(c.spec), state, pidfd)
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

// startHook executes a startContainer hook as a process of the container, with the identity, the
// capabilities, the limits and the seccomp filter of the container's own process, as runc does: its
// program may be one of the image.
func startHook(ctx context.Context, c *Container, h *specs.Hook) error {
	hctx, cancel := hook.Limit(ctx, h.Timeout)
	defer cancel()
	streams, err := hook.Open(c.ociState(specs.StateCreated, c.rec.Pid))
	if err != nil {
		return err
	}
	defer streams.Close()
	proc := *c.spec.Process
	proc.Terminal, proc.ConsoleSize, proc.Args = false, nil, h.Args
	if len(h.Args) == 0 {
		proc.Args = []string{h.Path}
	}
	if h.Env != nil {
		proc.Env = h.Env
	}
	p, err := c.Exec(hctx, ExecOptions{
		Process: &proc, executable: h.Path, Stdio: &[3]*os.File{streams.In, streams.Out, streams.Out},
	})
	if err != nil {
		return err
	}
	killed := make(chan struct{})
	stop := context.AfterFunc(hctx, func() {
		unix.PidfdSendSignal(p.PidFD, unix.SIGKILL, nil, 0)
		close(killed)
	})
	ws, err := p.Wait()
	if !stop() {
		<-killed // before the descriptor is closed
	}
	p.Close()
	switch {
	case err != nil:
		return err
	case ws.Signaled() && hctx.Err() != nil && ctx.Err() == nil:
		return fmt.Errorf("no end within %d s", *h.Timeout)
	}
	return streams.Failed(ws)
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
