package docker

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strake/engine"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// createAPI serves POST /containers/create.
type createAPI struct {
	engine interface {
		Create(ctx context.Context, spec engine.Spec) (id string, warnings []string, err error)
	}
	images  imageResolver
	builtin Builtin
	host    host
}

func (a *createAPI) routes() map[string]handler {
	return map[string]handler{
		"POST /containers/create": a.create,
	}
}

func (a *createAPI) create(w http.ResponseWriter, r *request) error {
	var raw json.RawMessage
	if err := decode(r, &raw); err != nil {
		return err
	}
	if len(raw) == 0 {
		return invalid("invalid JSON: EOF")
	}
	var req container.CreateRequest
	var old dropped
	for _, v := range []any{&req, &old} {
		if err := json.Unmarshal(raw, v); err != nil {
			return invalid("invalid JSON: %v", err)
		}
	}
	if req.Config == nil {
		return invalid("config cannot be empty in order to create a container")
	}
	if req.HostConfig == nil {
		req.HostConfig = &container.HostConfig{}
	}
	if err := checkNetworks(&req); err != nil {
		return err
	}
	normalize(&req, r.version, a.host.cgroups)
	notes, err := adapt(&req, &old, r.version)
	if err != nil {
		return err
	}
	spec, err := specOf(&req, a.host)
	if err != nil {
		return err
	}
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; r.version < 44 && m.Type == "bind" {
			m.ReadOnlyNonRecursive = true // submounts stayed writable then
		}
	}
	if _, err := a.builtin.restore(r.Context(), a.images, spec.Image); err != nil {
		return err
	}
	if r.version >= 41 {
		// The answer 404 makes clients pull the image for the platform.
		if err := ofPlatform(r, a.images, spec.Image, "platform"); err != nil {
			return err
		}
	}
	spec.Name = strings.TrimPrefix(r.form("name"), "/")
	if spec.Front, err = json.Marshal(
		front{req.Config, req.HostConfig, req.NetworkingConfig},
	); err != nil {
		return err
	}
	id, warnings, err := a.engine.Create(r.Context(), spec)
	foreign := slices.ContainsFunc(spec.Mounts, func(m engine.Mount) bool {
		return m.Driver != "" && m.Driver != "local"
	})
	if errdefs.IsNotFound(err) && !foreign { // dockerd answers 404 for a volume driver as well
		// The answer 404 makes clients pull the image. If the image is here, something else is
		// missing, and the answer is 400.
		if _, rerr := a.images.Resolve(r.Context(), spec.Image); rerr == nil {
			return invalid("%v", err)
		}
	}
	if err != nil {
		return err
	}
	return writeJSON(
		w, http.StatusCreated,
		container.CreateResponse{ID: id, Warnings: append(orEmpty(warnings), notes...)},
	)
}

// checkNetworks refuses several networks if the container shares one with the host or another
// container, or has none.
func checkNetworks(req *container.CreateRequest) error {
	if req.NetworkingConfig == nil || len(req.NetworkingConfig.EndpointsConfig) < 2 {
		return nil
	}
	modes := append(
		slices.Sorted(maps.Keys(req.NetworkingConfig.EndpointsConfig)),
		string(req.HostConfig.NetworkMode),
	)
	for _, mode := range modes {
		if mode == "none" || mode == "host" || strings.HasPrefix(mode, "container:") {
			return invalid(
				"container cannot be connected to multiple networks "+
					"with one of the networks in %s mode",
				mode,
			)
		}
	}
	return nil
}
