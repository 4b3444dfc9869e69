package docker

import (
	"errors"
	"maps"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	apivolume "github.com/moby/moby/api/types/volume"

	"strake/engine"
	"strake/volume"
)

// volumeAPI serves volumes.
type volumeAPI struct {
	volumes Volumes
	engine  publisher
}

func (a *volumeAPI) routes() map[string]handler {
	return map[string]handler{
		"GET /volumes":           a.list,
		"GET /volumes/{name}":    a.inspect,
		"POST /volumes/create":   a.create,
		"POST /volumes/prune":    a.prune,
		"DELETE /volumes/{name}": a.remove,
	}
}

// anonymousLabel marks the volumes whose creator gave no name.
const anonymousLabel = "com.docker.volume.anonymous"

// labelsOf are the labels of a volume as clients see them and filter by.
func labelsOf(v *volume.Volume) map[string]string {
	labels := maps.Clone(v.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if v.Anonymous {
		labels[anonymousLabel] = ""
	}
	return labels
}

func volumeOf(v *volume.Volume) apivolume.Volume {
	return apivolume.Volume{
		Name: v.Name, Driver: "local", Scope: "local", Mountpoint: v.Path, Labels: labelsOf(v),
		Options: v.Options, CreatedAt: v.Created.UTC().Format(time.RFC3339),
	}
}

func (a *volumeAPI) list(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "dangling", "driver", "label", "name")
	if err != nil {
		return err
	}
	dangling, set, err := f.boolean("dangling")
	if err != nil {
		return err
	}
	out := []apivolume.Volume{}
	for _, v := range a.volumes.List() {
		if set && dangling != (len(v.Users) == 0) || !f.labels(labelsOf(&v)) ||
			!f.match("name", v.Name) || !f.exact("driver", "local") {
			continue
		}
		out = append(out, volumeOf(&v))
	}
	return writeJSON(w, http.StatusOK, map[string]any{"Volumes": out, "Warnings": nil})
}

func (a *volumeAPI) inspect(w http.ResponseWriter, r *request) error {
	v, err := a.volumes.Get(r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, volumeOf(&v))
}

func (a *volumeAPI) create(w http.ResponseWriter, r *request) error {
	var req struct {
		Name, Driver       string
		DriverOpts, Labels map[string]string
	}
	if err := decode(r, &req); err != nil {
		return err
	}
	v, made, err := a.volumes.Create(
		volume.CreateOptions{
			Name: req.Name, Driver: req.Driver, Options: req.DriverOpts, Labels: req.Labels,
			Anonymous: req.Name == "",
		},
	)
	if err != nil {
		return err
	}
	if made {
		a.engine.PublishEvent(
			engine.Event{
				Type: "volume", Action: "create", ID: v.Name,
				Attributes: map[string]string{"driver": "local"},
			},
		)
	}
	return writeJSON(w, http.StatusCreated, volumeOf(&v))
}

func (a *volumeAPI) remove(w http.ResponseWriter, r *request) error {
	name := r.PathValue("name")
	err := a.volumes.Remove(name)
	if r.flag("force") && errors.Is(err, errdefs.ErrNotFound) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return err
	}
	a.engine.PublishEvent(
		engine.Event{
			Type: "volume", Action: "destroy", ID: name,
			Attributes: map[string]string{"driver": "local"},
		},
	)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// prune removes the anonymous volumes that no container uses, and with all=true the named ones.
// Before 1.42 it always removes both.
func (a *volumeAPI) prune(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "label", "label!", "all")
	if err != nil {
		return err
	}
	all, _, err := f.boolean("all")
	if err != nil {
		return err
	}
	deleted := []string{}
	for _, v := range a.volumes.List() {
		if len(v.Users) > 0 || !f.labels(labelsOf(&v)) || !all && !v.Anonymous && r.version >= 42 {
			continue
		}
		if err := a.volumes.Remove(v.Name); err != nil {
			continue // a container uses it since
		}
		deleted = append(deleted, v.Name)
	}
	return writeJSON(
		w, http.StatusOK, map[string]any{"VolumesDeleted": deleted, "SpaceReclaimed": 0},
	)
}
