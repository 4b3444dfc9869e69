package docker

import (
	"context"
	"net/http"
	"time"

	digest "github.com/opencontainers/go-digest"

	"strake/engine"
	"strake/image"
)

// commitAPI serves POST /commit.
type commitAPI struct {
	images imageCommitter
	engine interface {
		inspector
		publisher
		Pause(ctx context.Context, name string) error
		Unpause(ctx context.Context, name string) error
	}
}

// imageCommitter is what commitAPI needs of Images.
type imageCommitter interface {
	Commit(ctx context.Context, key string, o image.CommitOptions) (digest.Digest, error)
}

func (a *commitAPI) routes() map[string]handler {
	return map[string]handler{
		"POST /commit": a.commit,
	}
}

// commit makes an image of a container.
func (a *commitAPI) commit(w http.ResponseWriter, r *request) error {
	info, err := a.engine.Inspect(r.Context(), r.form("container"))
	if err != nil {
		return err
	}
	opt := image.CommitOptions{
		Author: r.form("author"), Comment: r.form("comment"), Container: info.ID,
		Created: time.Now(),
	}
	if repo := r.form("repo"); repo != "" {
		opt.Ref = repo
		if tag := r.form("tag"); tag != "" {
			opt.Ref += ":" + tag
		}
	}
	if opt.Config, err = changesOf(r.URL.Query()["changes"]); err != nil {
		return err
	}
	f, err := frontOf(&info)
	if err != nil {
		return err
	}
	if len(opt.Config.Cmd) == 0 {
		opt.Config.Cmd = f.Config.Cmd
	}
	if len(opt.Config.Entrypoint) == 0 {
		opt.Config.Entrypoint = f.Config.Entrypoint
	}
	if len(opt.Config.Env) == 0 {
		opt.Config.Env = info.Env
	}
	if r.flagOr("pause", true) && info.State.Status == engine.Running {
		paused, err := a.pause(r.Context(), info.ID)
		if err != nil {
			return err
		}
		if paused {
			// Also for a client that has disconnected.
			defer a.engine.Unpause(context.WithoutCancel(r.Context()), info.ID)
		}
	}
	id, err := a.images.Commit(r.Context(), info.LayerKey, opt)
	if err != nil {
		return err
	}
	a.engine.PublishEvent(engine.Event{
		Type: "container", Action: "commit", ID: info.ID,
		Attributes: map[string]string{
			"comment": opt.Comment, "image": info.Spec.Image, "imageID": id.String(),
			"imageRef": opt.Ref, "name": info.Spec.Name,
		},
	})
	imageEvent(a.engine, "create", id.String(), id.String())
	return writeJSON(w, http.StatusCreated, map[string]digest.Digest{"Id": id})
}

// pause pauses a container that was running a moment ago. One that has ended since, or that another
// request has paused, writes nothing either: that is no error.
func (a *commitAPI) pause(ctx context.Context, id string) (paused bool, err error) {
	if err = a.engine.Pause(ctx, id); err == nil {
		return true, nil
	}
	info, ierr := a.engine.Inspect(ctx, id)
	if ierr == nil && info.State.Status != engine.Running {
		return false, nil
	}
	return false, err
}
