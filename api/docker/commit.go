package docker

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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
	imageInspector
	Commit(ctx context.Context, key string, o image.CommitOptions) (digest.Digest, error)
}

func (a *commitAPI) routes() map[string]handler {
	return map[string]handler{
		"POST /commit": a.commit,
	}
}

// commit makes an image of a container.
func (a *commitAPI) commit(w http.ResponseWriter, r *request) error {
	var asked *container.Config // what is to differ from the container's
	if err := decode(r, &asked); err != nil {
		return err
	}
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
	f, err := frontOf(&info)
	if err != nil {
		return err
	}
	inherit(r.Context(), a.images, &info, f.Config)
	config := runConfigOf(f.Config)
	if asked != nil {
		inheritFrom(asked, &config)
		config = runConfigOf(asked)
	}
	if opt.Config, err = changesOf(config, r.URL.Query()["changes"]); err != nil {
		return err
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

// runConfigOf is what an image made of a container says about its containers: what the container
// was created with.
func runConfigOf(c *container.Config) image.RunConfig {
	out := image.RunConfig{
		ImageConfig: ocispec.ImageConfig{
			User: c.User, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Volumes: c.Volumes,
			WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal,
		},
		OnBuild: c.OnBuild, Shell: c.Shell,
	}
	if len(out.Entrypoint) == 1 && out.Entrypoint[0] == "" {
		out.Entrypoint = nil // the container cleared that of its image
	}
	for _, env := range c.Env {
		if strings.Contains(env, "=") { // a name alone has removed a variable of the image
			out.Env = append(out.Env, env)
		}
	}
	for p := range c.ExposedPorts {
		setEntry(&out.ExposedPorts, p.String(), struct{}{})
	}
	if h := c.Healthcheck; h != nil {
		out.Healthcheck = &image.Healthcheck{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod,
			StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	return out
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
