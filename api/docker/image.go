package docker

import (
	"context"
	"errors"
	"net/http"

	"github.com/containerd/errdefs"
	apiimage "github.com/moby/moby/api/types/image"

	"strake/engine"
	"strake/image"
)

// imageAPI serves the images of the store.
type imageAPI struct {
	images imageStore
	engine interface {
		lister
		publisher
	}
}

// imageStore is what imageAPI needs of Images.
type imageStore interface {
	imageResolver
	imageLister
	Inspect(ctx context.Context, ref string) (image.Detail, error)
	History(ctx context.Context, ref string) ([]image.HistoryEntry, error)
	Tag(ctx context.Context, src, ref string) error
	Remove(ctx context.Context, ref string, o image.RemoveOptions) ([]image.Removed, error)
	// Prune gives up the beginnings of downloads and returns how many bytes those had.
	Prune(ctx context.Context) (partialBytes int64, err error)
}

func (a *imageAPI) routes() map[string]handler {
	return map[string]handler{
		"GET /images/json":   a.list,
		"POST /images/prune": a.prune,
	}
}

// named are the endpoints below /images/NAME.
func (a *imageAPI) named() []namedRoute {
	return []namedRoute{
		{http.MethodGet, "/json", a.inspect},
		{http.MethodGet, "/history", a.history},
		{http.MethodPost, "/tag", a.tag},
		{http.MethodDelete, "", a.remove},
	}
}

// imageEvent publishes what happened to an image.
func imageEvent(to publisher, action, id, name string) {
	to.PublishEvent(
		engine.Event{
			Type: "image", Action: action, ID: id, Attributes: map[string]string{"name": name},
		},
	)
}

func (a *imageAPI) list(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "dangling", "label", "label!", "before", "since", "reference", "until")
	if err != nil {
		return err
	}
	q := image.Filter{
		All: r.flag("all"), Labels: f["label"], NotLabels: f["label!"], References: f["reference"],
		SharedSize: r.version >= 42 && r.flag("shared-size"),
	}
	if v := r.form("filter"); v != "" && r.version < 41 {
		q.References = append(q.References, v)
	}
	if r.version >= 54 && r.flag("identity") && !r.flag("manifests") {
		return invalid("conflicting options: identity requires manifests=1")
	}
	if value, set, err := f.boolean("dangling"); err != nil {
		return err
	} else if set {
		q.Dangling = &value
	}
	if f.has("before") {
		q.Before = f["before"][0]
	}
	if f.has("since") {
		q.Since = f["since"][0]
	}
	if q.Until, err = f.earliest(); err != nil {
		return err
	}
	list, err := a.images.List(r.Context(), q)
	if err != nil {
		return err
	}
	uses := map[string]int{}
	if r.version >= 51 {
		containers, err := a.engine.List(r.Context())
		if err != nil {
			return err
		}
		uses = usesOf(containers)
	}
	out := make([]map[string]any, 0, len(list))
	for i := range list {
		m := &list[i]
		labels := m.Labels
		if labels == nil {
			labels = map[string]string{}
		}
		item := map[string]any{
			"Id": m.ID.String(), "ParentId": m.Parent.String(), "RepoTags": orEmpty(m.RepoTags),
			"RepoDigests": orEmpty(m.RepoDigests),
			"Created":     m.Created.Unix(), "Size": m.Size, "SharedSize": m.SharedSize,
			"Labels": labels, "Containers": -1,
		}
		if r.version >= 51 {
			item["Containers"] = uses[m.ID.String()]
		}
		if r.version < 44 {
			item["VirtualSize"] = m.Size
		}
		if r.version < 43 && len(m.RepoTags) == 0 && len(m.RepoDigests) == 0 {
			item["RepoTags"], item["RepoDigests"] = []string{"<none>:<none>"}, []string{
				"<none>@<none>",
			}
		}
		out = append(out, item)
	}
	return writeJSON(w, http.StatusOK, out)
}

// usesOf counts the containers of each image.
func usesOf(containers []engine.Info) map[string]int {
	uses := map[string]int{}
	for i := range containers {
		uses[containers[i].ImageID]++
	}
	return uses
}

func (a *imageAPI) history(w http.ResponseWriter, r *request, name string) error {
	if r.version >= 48 {
		if err := ofPlatform(r, a.images, name, "platform"); err != nil {
			return err
		}
	}
	list, err := a.images.History(r.Context(), name)
	if err != nil {
		return err
	}
	out := make([]apiimage.HistoryResponseItem, len(list))
	for i, h := range list {
		id := h.ID.String()
		if id == "" {
			id = "<missing>"
		}
		out[i] = apiimage.HistoryResponseItem{
			ID: id, Created: h.Created.Unix(), CreatedBy: h.CreatedBy, Comment: h.Comment,
			Size: h.Size, Tags: h.Tags,
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

func (a *imageAPI) tag(w http.ResponseWriter, r *request, name string) error {
	target := r.form("repo")
	if tag := r.form("tag"); tag != "" {
		target += ":" + tag
	}
	if err := a.images.Tag(r.Context(), name, target); err != nil {
		return err
	}
	if img, err := a.images.Resolve(r.Context(), target); err == nil {
		imageEvent(a.engine, "tag", img.ID.String(), target)
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (a *imageAPI) remove(w http.ResponseWriter, r *request, name string) error {
	if r.version >= 50 { // an image has one platform; for another one it is not found
		if err := ofPlatform(r, a.images, name, "platforms"); err != nil {
			return err
		}
	}
	list, err := a.images.Remove(
		r.Context(), name, image.RemoveOptions{Force: r.flag("force"), NoPrune: r.flag("noprune")},
	)
	if err != nil {
		return err
	}
	out := make([]apiimage.DeleteResponse, len(list))
	for i, d := range list {
		out[i] = apiimage.DeleteResponse{Deleted: d.Deleted, Untagged: d.Untagged}
		if d.Deleted != "" {
			imageEvent(a.engine, "delete", d.Deleted, d.Deleted)
		} else {
			imageEvent(a.engine, "untag", name, d.Untagged)
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

func (a *imageAPI) prune(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "dangling", "label", "label!", "until")
	if err != nil {
		return err
	}
	dangling, set, err := f.boolean("dangling")
	if err != nil {
		return err
	}
	q := image.Filter{Labels: f["label"], NotLabels: f["label!"]}
	if q.Until, err = f.earliest(); err != nil {
		return err
	}
	if !set || dangling {
		yes := true
		q.Dangling = &yes
	}
	list, err := a.images.List(r.Context(), q)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	containers, err := a.engine.List(r.Context())
	if err != nil {
		return err
	}
	for i := range containers {
		used[containers[i].ImageID] = true
	}
	var out struct {
		ImagesDeleted  []apiimage.DeleteResponse
		SpaceReclaimed uint64
	}
	for i := range list {
		if used[list[i].ID.String()] {
			continue
		}
		removed, err := a.images.Remove(
			r.Context(), list[i].ID.String(), image.RemoveOptions{Force: true},
		)
		if errors.Is(err, errdefs.ErrConflict) || errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		for _, d := range removed {
			out.ImagesDeleted = append(
				out.ImagesDeleted,
				apiimage.DeleteResponse{Deleted: d.Deleted, Untagged: d.Untagged},
			)
		}
		out.SpaceReclaimed += uint64(list[i].Size)
	}
	partial, err := a.images.Prune(r.Context())
	if err != nil {
		return err
	}
	out.SpaceReclaimed += uint64(partial)
	return writeJSON(w, http.StatusOK, out)
}
