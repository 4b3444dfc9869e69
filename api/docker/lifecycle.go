package docker

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
	"strake/engine/naming"
)

// lifecycleAPI serves what changes the state of a container that exists.
type lifecycleAPI struct {
	engine lifecycleEngine
	host   host
}

// lifecycleEngine is what lifecycleAPI needs of Engine.
type lifecycleEngine interface {
	inspector
	lister
	sizer
	Start(ctx context.Context, name string) error
	Stop(ctx context.Context, name, signal string, timeout *int) error
	Kill(ctx context.Context, name, signal string) error
	Restart(ctx context.Context, name, signal string, timeout *int) error
	Pause(ctx context.Context, name string) error
	Unpause(ctx context.Context, name string) error
	Remove(ctx context.Context, name string, opt engine.RemoveOptions) error
	Rename(ctx context.Context, name, to string) error
	Update(
		ctx context.Context, name string, res specs.LinuxResources, restart *engine.RestartPolicy,
		front func(json.RawMessage) (json.RawMessage, error),
	) (warnings []string, err error)
	Wait(
		ctx context.Context, name string, cond engine.WaitCondition, registered func(),
	) (engine.ExitStatus, error)
	Resize(ctx context.Context, name string, width, height uint16) error
}

func (a *lifecycleAPI) routes() map[string]handler {
	return map[string]handler{
		"POST /containers/prune":          a.prune,
		"POST /containers/{name}/start":   a.start,
		"POST /containers/{name}/stop":    a.stop,
		"POST /containers/{name}/restart": a.restart,
		"POST /containers/{name}/kill":    a.kill,
		"POST /containers/{name}/pause":   a.pause,
		"POST /containers/{name}/unpause": a.unpause,
		"POST /containers/{name}/wait":    a.wait,
		"POST /containers/{name}/resize":  a.resize,
		"POST /containers/{name}/rename":  a.rename,
		"POST /containers/{name}/update":  a.update,
		"DELETE /containers/{name}":       a.remove,
	}
}

func (a *lifecycleAPI) start(w http.ResponseWriter, r *request) error {
	if id := r.form("checkpoint"); id != "" {
		if naming.Check(id) != nil {
			return invalid("invalid checkpoint ID %q", id)
		}
		return notImplemented("a start from a checkpoint")
	}
	info, err := a.engine.Inspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	switch info.State.Status {
	case engine.Running, engine.Restarting:
		w.WriteHeader(http.StatusNotModified)
		return nil
	case engine.Paused:
		return conflict("cannot start a paused container, try unpause instead")
	}
	// A client that disconnects must not interrupt a start that has begun.
	if err := a.engine.Start(context.WithoutCancel(r.Context()), info.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *lifecycleAPI) stop(w http.ResponseWriter, r *request) error {
	t, err := timeout(r)
	if err != nil {
		return err
	}
	info, err := a.engine.Inspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	switch info.State.Status {
	case engine.Created, engine.Exited, engine.Dead:
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	// A client that disconnects must not leave the container half-way: asked to end, never killed.
	ctx := context.WithoutCancel(r.Context())
	if err := a.engine.Stop(ctx, info.ID, r.form("signal"), t); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *lifecycleAPI) restart(w http.ResponseWriter, r *request) error {
	t, err := timeout(r)
	if err != nil {
		return err
	}
	// A client that disconnects must not leave the container stopped.
	ctx := context.WithoutCancel(r.Context())
	return done(w, a.engine.Restart(ctx, r.PathValue("name"), r.form("signal"), t))
}

// done answers 204, or returns the error.
func done(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *lifecycleAPI) kill(w http.ResponseWriter, r *request) error {
	sig := r.form("signal")
	if sig == "" {
		sig = "KILL"
	}
	return done(w, a.engine.Kill(r.Context(), r.PathValue("name"), sig))
}

func (a *lifecycleAPI) pause(w http.ResponseWriter, r *request) error {
	return done(w, a.engine.Pause(r.Context(), r.PathValue("name")))
}

func (a *lifecycleAPI) unpause(w http.ResponseWriter, r *request) error {
	return done(w, a.engine.Unpause(r.Context(), r.PathValue("name")))
}

func (a *lifecycleAPI) rename(w http.ResponseWriter, r *request) error {
	return done(
		w,
		a.engine.Rename(r.Context(), r.PathValue("name"), strings.TrimPrefix(r.form("name"), "/")),
	)
}

func (a *lifecycleAPI) remove(w http.ResponseWriter, r *request) error {
	if r.flag("link") {
		return notImplemented("link=1")
	}
	opt := engine.RemoveOptions{Force: r.flag("force"), Volumes: r.flag("v")}
	// A client that disconnects must not leave the container killed and not removed.
	return done(w, a.engine.Remove(context.WithoutCancel(r.Context()), r.PathValue("name"), opt))
}

// wait sends its header at once: clients wait for it before they start the container.
func (a *lifecycleAPI) wait(w http.ResponseWriter, r *request) error {
	cond := engine.WaitCondition(r.form("condition"))
	switch cond {
	case "":
		cond = engine.WaitNotRunning
	case engine.WaitNotRunning, engine.WaitNextExit, engine.WaitRemoved:
	default:
		return invalid("invalid condition: %q", cond)
	}
	answered := false
	status, err := a.engine.Wait(r.Context(), r.PathValue("name"), cond, func() {
		if r.version >= 30 {
			answered = true
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
		}
	})
	if err != nil {
		if answered {
			return errAnswered
		}
		return err
	}
	out := container.WaitResponse{StatusCode: int64(status.Code)}
	// A container that did not start has a status and its own error; the wait has not failed.
	if status.Error != "" && status.Code == 0 {
		out.Error = &container.WaitExitError{Message: status.Error}
	}
	if !answered {
		return writeJSON(w, http.StatusOK, out)
	}
	json.NewEncoder(w).Encode(out)
	return nil
}

func (a *lifecycleAPI) resize(w http.ResponseWriter, r *request) error {
	width, height, err := sizeOf(r)
	if err != nil {
		return err
	}
	return a.engine.Resize(r.Context(), r.PathValue("name"), width, height)
}

func (a *lifecycleAPI) prune(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	until, err := f.until()
	if err != nil {
		return err
	}
	list, err := a.engine.List(r.Context())
	if err != nil {
		return err
	}
	out := container.PruneReport{ContainersDeleted: []string{}}
	for i := range list {
		c := &list[i]
		if st := c.State.Status; st != engine.Created && st != engine.Exited && st != engine.Dead {
			continue
		}
		if !f.labels(c.Spec.Labels) || !until.IsZero() && c.Created.After(until) {
			continue
		}
		rw, _, err := a.engine.Usage(r.Context(), c.ID)
		if err != nil {
			rw = 0
		}
		err = a.engine.Remove(r.Context(), c.ID, engine.RemoveOptions{})
		if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		out.ContainersDeleted = append(out.ContainersDeleted, c.ID)
		out.SpaceReclaimed += uint64(rw)
	}
	return writeJSON(w, http.StatusOK, out)
}
