package docker

import (
	"context"
	"errors"
	"net"
	"net/http"

	"strake/engine"
)

// execAPI serves processes that are started in running containers.
type execAPI struct{ engine execEngine }

// execEngine is what execAPI needs of Engine.
type execEngine interface {
	ExecCreate(ctx context.Context, name string, spec engine.ExecSpec) (id string, err error)
	ExecStart(
		ctx context.Context, id string, streams engine.Streams, size *[2]uint16, detach bool,
	) error
	ExecInspect(ctx context.Context, id string) (engine.ExecInfo, error)
	ExecResize(ctx context.Context, id string, width, height uint16) error
}

func (a *execAPI) routes() map[string]handler {
	return map[string]handler{
		"POST /containers/{name}/exec": a.create,
		"GET /exec/{id}/json":          a.inspect,
		"POST /exec/{id}/start":        a.start,
		"POST /exec/{id}/resize":       a.resize,
	}
}

func (a *execAPI) create(w http.ResponseWriter, r *request) error {
	var req struct {
		User         string
		Privileged   bool
		Tty          bool
		AttachStdin  bool
		AttachStderr bool
		AttachStdout bool
		DetachKeys   string
		Env          []string
		WorkingDir   string
		Cmd          []string
		ConsoleSize  *[2]uint // height, width
	}
	if err := decode(r, &req); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return invalid("No exec command specified")
	}
	if r.version < 42 {
		req.ConsoleSize = nil
	}
	id, err := a.engine.ExecCreate(r.Context(), r.PathValue("name"), engine.ExecSpec{
		Args: req.Cmd, Env: req.Env, User: req.User, WorkingDir: req.WorkingDir, TTY: req.Tty,
		Stdin:      req.AttachStdin,
		Privileged: req.Privileged, DetachKeys: req.DetachKeys,
		ConsoleSize: consoleSize(req.ConsoleSize),
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, map[string]string{"Id": id})
}

func (a *execAPI) start(w http.ResponseWriter, r *request) error {
	var req struct {
		Detach, Tty bool
		ConsoleSize *[2]uint // height, width
	}
	if err := decode(r, &req); err != nil {
		return err
	}
	id := r.PathValue("id")
	info, err := a.engine.ExecInspect(r.Context(), id)
	if err != nil {
		return err
	}
	var size *[2]uint16
	if c := consoleSize(req.ConsoleSize); c != nil {
		size = &[2]uint16{c.Width, c.Height}
	}
	if req.Detach {
		if err := a.engine.ExecStart(r.Context(), id, engine.Streams{}, size, true); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	if info.Running || info.ExitCode != nil {
		return conflict("exec process is already running or has ended")
	}
	keys, err := detachKeys(info.Spec.DetachKeys, info.Spec.TTY)
	if err != nil {
		return err
	}
	// The client chooses the form of the stream in this request, independent of whether the
	// process has a terminal.
	h, err := hijack(w, r, req.Tty)
	if err != nil {
		return err
	}
	defer h.Close()
	h.answer()
	streams := h.streams(req.Tty, info.Spec.Stdin, true, true)
	if req.Tty && !info.Spec.TTY {
		streams.Stderr = h
	}
	streams.DetachKeys = keys
	if err := a.engine.ExecStart(r.Context(), id, streams, size, false); err != nil &&
		!errors.Is(err, net.ErrClosed) {
		tell(h, req.Tty, err)
	}
	return errAnswered
}

func (a *execAPI) inspect(w http.ResponseWriter, r *request) error {
	e, err := a.engine.ExecInspect(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	var entry string
	var args []string
	if len(e.Spec.Args) > 0 {
		entry, args = e.Spec.Args[0], e.Spec.Args[1:]
	}
	return writeJSON(w, http.StatusOK, map[string]any{
		"ID": e.ID, "Running": e.Running, "ExitCode": e.ExitCode, "ContainerID": e.ContainerID,
		"Pid": e.Pid, "CanRemove": false,
		"OpenStdin": e.Spec.Stdin, "OpenStdout": true, "OpenStderr": true,
		"DetachKeys": []byte(e.Spec.DetachKeys),
		"ProcessConfig": map[string]any{
			"tty": e.Spec.TTY, "entrypoint": entry, "arguments": orEmpty(args),
			"privileged": e.Spec.Privileged, "user": e.Spec.User,
		},
	})
}

func (a *execAPI) resize(w http.ResponseWriter, r *request) error {
	width, height, err := sizeOf(r)
	if err != nil {
		return err
	}
	return a.engine.ExecResize(r.Context(), r.PathValue("id"), width, height)
}
