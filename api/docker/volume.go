package docker

import (
	"net/http"
	"time"

	apivolume "github.com/moby/moby/api/types/volume"

	"strake/engine"
	"strake/volume"
)

func volumeOf(v *volume.Volume) apivolume.Volume {
	labels := v.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	return apivolume.Volume{
		Name: v.Name, Driver: "local", Scope: "local", Mountpoint: v.Path, Labels: labels,
		Options: v.Options, CreatedAt: v.Created.UTC().Format(time.RFC3339),
	}
}

func (s *server) listVolumes(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "dangling", "driver", "label", "name")
	if err != nil {
		return err
	}
	dangling, set, err := f.boolean("dangling")
	if err != nil {
		return err
	}
	out := []apivolume.Volume{}
	for _, v := range s.Volumes.List() {
		if set && dangling != (len(v.Users) == 0) || !f.labels(v.Labels) ||
			!f.match("name", v.Name) || !f.exact("driver", "local") {
			continue
		}
		out = append(out, volumeOf(&v))
	}
	return writeJSON(w, http.StatusOK, map[string]any{"Volumes": out, "Warnings": nil})
}

func (s *server) inspectVolume(w http.ResponseWriter, r *request) error {
	v, err := s.Volumes.Get(r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, volumeOf(&v))
}

func (s *server) createVolume(w http.ResponseWriter, r *request) error {
	var req struct {
		Name, Driver       string
		DriverOpts, Labels map[string]string
	}
	if err := decode(r, &req); err != nil {
		return err
	}
	v, made, err := s.Volumes.Create(
		volume.CreateOptions{
			Name: req.Name, Driver: req.Driver, Options: req.DriverOpts, Labels: req.Labels,
			Anonymous: req.Name == "",
		},
	)
	if err != nil {
		return err
	}
	if made {
		s.Engine.PublishEvent(
			engine.Event{
				Type: "volume", Action: "create", ID: v.Name,
				Attributes: map[string]string{"driver": "local"},
			},
		)
	}
	return writeJSON(w, http.StatusCreated, volumeOf(&v))
}

func (s *server) removeVolume(w http.ResponseWriter, r *request) error {
	name := r.PathValue("name")
	if err := s.Volumes.Remove(name); err != nil {
		return err
	}
	s.Engine.PublishEvent(
		engine.Event{
			Type: "volume", Action: "destroy", ID: name,
			Attributes: map[string]string{"driver": "local"},
		},
	)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// pruneVolumes removes anonymous volumes that nobody uses, and with all=true named ones too.
func (s *server) pruneVolumes(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "label", "label!", "all")
	if err != nil {
		return err
	}
	all, _, err := f.boolean("all")
	if err != nil {
		return err
	}
	deleted := []string{}
	for _, v := range s.Volumes.List() {
		if len(v.Users) > 0 || !f.labels(v.Labels) || !all && !v.Anonymous && r.version >= 42 {
			continue
		}
		if err := s.Volumes.Remove(v.Name); err != nil {
			continue // taken into use meanwhile
		}
		deleted = append(deleted, v.Name)
	}
	return writeJSON(
		w, http.StatusOK, map[string]any{"VolumesDeleted": deleted, "SpaceReclaimed": 0},
	)
}
