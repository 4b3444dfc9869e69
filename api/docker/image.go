package docker

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	apiimage "github.com/moby/moby/api/types/image"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/engine"
	"strake/image"
)

// imageEvent publishes what happened to an image.
func (s *server) imageEvent(action, id, name string) {
	s.Engine.PublishEvent(
		engine.Event{
			Type: "image", Action: action, ID: id, Attributes: map[string]string{"name": name},
		},
	)
}

func (s *server) listImages(w http.ResponseWriter, r *request) error {
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
	if q.Until, err = f.until(); err != nil {
		return err
	}
	list, err := s.Images.List(r.Context(), q)
	if err != nil {
		return err
	}
	uses := map[string]int{}
	if r.version >= 51 {
		containers, err := s.Engine.List(r.Context())
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

func (s *server) history(w http.ResponseWriter, r *request, name string) error {
	if r.version >= 48 {
		if err := s.ofPlatform(r, name, "platform"); err != nil {
			return err
		}
	}
	list, err := s.Images.History(r.Context(), name)
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

func (s *server) tagImage(w http.ResponseWriter, r *request, name string) error {
	target := r.form("repo")
	if tag := r.form("tag"); tag != "" {
		target += ":" + tag
	}
	if err := s.Images.Tag(r.Context(), name, target); err != nil {
		return err
	}
	if img, err := s.Images.Resolve(r.Context(), target); err == nil {
		s.imageEvent("tag", img.ID.String(), target)
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *server) removeImage(w http.ResponseWriter, r *request, name string) error {
	if r.version >= 50 { // an image here is of one platform: it goes, or it is not meant
		if err := s.ofPlatform(r, name, "platforms"); err != nil {
			return err
		}
	}
	list, err := s.Images.Remove(
		r.Context(), name, image.RemoveOptions{Force: r.flag("force"), NoPrune: r.flag("noprune")},
	)
	if err != nil {
		return err
	}
	out := make([]apiimage.DeleteResponse, len(list))
	for i, d := range list {
		out[i] = apiimage.DeleteResponse{Deleted: d.Deleted, Untagged: d.Untagged}
		if d.Deleted != "" {
			s.imageEvent("delete", d.Deleted, d.Deleted)
		} else {
			s.imageEvent("untag", name, d.Untagged)
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// progress writes a stream of JSON messages, the form of everything that takes its time. Errors
// after the first message go into the stream.
type progress struct {
	mu    sync.Mutex
	enc   *json.Encoder
	begun bool
	w     http.ResponseWriter
}

func newProgress(w http.ResponseWriter) *progress {
	return &progress{enc: json.NewEncoder(newFlusher(w)), w: w}
}

func (p *progress) send(v any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.begun {
		p.begun = true
		p.w.Header().Set("Content-Type", "application/json")
		p.w.WriteHeader(http.StatusOK)
	}
	p.enc.Encode(v)
}

func (p *progress) event(e image.Event) {
	m := map[string]any{"status": e.Status}
	if e.ID != "" {
		m["id"] = e.ID
	}
	if e.Total > 0 || e.Current > 0 {
		detail := map[string]int64{"current": e.Current}
		if e.Total > 0 {
			detail["total"] = e.Total
		}
		m["progressDetail"] = detail
		m["progress"] = bar(e.Current, e.Total)
	} else if e.ID != "" {
		m["progressDetail"] = struct{}{}
	}
	p.send(m)
}

// bar is the text that clients without a bar of their own show.
func bar(current, total int64) string {
	if total <= 0 || current > total {
		return byteText(current)
	}
	n := int(50 * current / total)
	line := strings.Repeat("=", n)
	if n < 50 {
		line += ">" + strings.Repeat(" ", 49-n)
	}
	return fmt.Sprintf("[%s] %9s/%s", line, byteText(current), byteText(total))
}

func byteText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	return fmt.Sprintf("%.4g%s", v, units[i])
}

// end finishes the stream: with an error in it, or as an answer of its own if nothing has been
// sent.
func (p *progress) end(err error) error {
	if err == nil {
		if !p.begun {
			p.w.Header().Set("Content-Type", "application/json")
			p.w.WriteHeader(http.StatusOK)
		}
		return nil
	}
	if !p.begun {
		return err
	}
	p.send(
		map[string]any{
			"errorDetail": map[string]any{"message": sentence(err)}, "error": sentence(err),
		},
	)
	return errAnswered
}

// authOf reads the credentials that clients send along.
func authOf(r *request) (*image.Auth, error) {
	text := r.Header.Get("X-Registry-Auth")
	if text == "" {
		return nil, nil
	}
	raw, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		if raw, err = base64.StdEncoding.DecodeString(text); err != nil {
			if raw, err = base64.RawURLEncoding.DecodeString(text); err != nil {
				return nil, invalid("X-Registry-Auth: not base64")
			}
		}
	}
	var a struct{ Username, Password, Auth, IdentityToken, RegistryToken string }
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, nil // old clients send rubbish for "none"
	}
	if a.Username == "" && a.Password == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return nil, nil
	}
	return &image.Auth{
		Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken,
		RegistryToken: a.RegistryToken,
	}, nil
}

// createImage pulls (fromImage) or imports (fromSrc).
func (s *server) createImage(w http.ResponseWriter, r *request) error {
	platform, err := platformOf(r.form("platform"))
	if err != nil {
		return err
	}
	if src := r.form("fromSrc"); src != "" {
		return s.importImage(w, r, src, platform)
	}
	ref := r.form("fromImage")
	if ref == "" {
		return invalid("fromImage or fromSrc is missing")
	}
	if tag := r.form("tag"); tag != "" {
		if strings.Contains(tag, ":") {
			ref += "@" + tag
		} else {
			ref += ":" + tag
		}
	}
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	p := newProgress(w)
	refs := []string{ref}
	// A name alone means all of its tags: clients that want one say "latest".
	if name, err := reference.ParseNormalizedNamed(ref); err == nil && reference.IsNameOnly(name) {
		tags, err := s.Images.Tags(r.Context(), ref, auth)
		if err != nil {
			return err
		}
		if len(tags) == 0 {
			return plainError{errdefs.ErrNotFound, fmt.Sprintf("no tags in repository %s", ref)}
		}
		refs = refs[:0]
		for _, t := range tags {
			refs = append(refs, ref+":"+t)
		}
	}
	for _, ref := range refs {
		if _, err := s.Images.Pull(
			r.Context(), ref, image.PullOptions{Platform: platform, Auth: auth, Progress: p.event},
		); err != nil {
			return p.end(err)
		}
		s.imageEvent("pull", ref, ref)
	}
	return p.end(nil)
}

func (s *server) importImage(
	w http.ResponseWriter, r *request, src string, platform *ocispec.Platform,
) error {
	if src != "-" {
		return invalid("fromSrc %q: strake imports what is sent to it (-); fetch it first", src)
	}
	opt := image.ImportOptions{Message: r.form("message")}
	if platform != nil {
		opt.Platform = *platform
	}
	if repo := r.form("repo"); repo != "" {
		opt.Ref = repo
		if tag := r.form("tag"); tag != "" {
			opt.Ref += ":" + tag
		}
	}
	var err error
	if opt.Config, err = changesOf(r.URL.Query()["changes"]); err != nil {
		return err
	}
	id, err := s.Images.Import(r.Context(), r.Body, opt)
	p := newProgress(w)
	if err == nil {
		s.imageEvent("import", id.String(), opt.Ref)
		p.send(map[string]string{"status": id.String()})
	}
	return p.end(err)
}

func (s *server) pushImage(w http.ResponseWriter, r *request, name string) error {
	if tag := r.form("tag"); tag != "" {
		name += ":" + tag
	}
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	names := []string{name}
	// As with pull: clients that want one tag say which.
	if ref, err := reference.ParseNormalizedNamed(name); err == nil && reference.IsNameOnly(ref) {
		if names, err = s.tagsHere(r, ref); err != nil {
			return err
		}
	}
	if r.version >= 46 {
		for _, name := range names {
			if err := s.ofPlatform(r, name, "platform"); err != nil {
				return err
			}
		}
	}
	p := newProgress(w)
	for _, name := range names {
		out, err := s.Images.Push(
			r.Context(), name, image.PushOptions{Auth: auth, Progress: p.event},
		)
		if err != nil {
			return p.end(err)
		}
		p.send(
			map[string]any{
				"progressDetail": struct{}{},
				"aux": map[string]any{
					"Tag": out.Tag, "Digest": out.Digest.String(), "Size": out.Size,
				},
			},
		)
		s.imageEvent("push", name, name)
	}
	return p.end(nil)
}

// tagsHere lists the references that a repository has here.
func (s *server) tagsHere(r *request, repository reference.Named) ([]string, error) {
	list, err := s.Images.List(r.Context(), image.Filter{})
	if err != nil {
		return nil, err
	}
	var refs []string
	for i := range list {
		for _, t := range list[i].RepoTags {
			if ref, err := reference.ParseNormalizedNamed(t); err == nil &&
				ref.Name() == repository.Name() {
				refs = append(refs, t)
			}
		}
	}
	if len(refs) == 0 {
		return nil, plainError{
			errdefs.ErrNotFound,
			"An image does not exist locally with the tag: " + reference.FamiliarName(repository),
		}
	}
	slices.Sort(refs)
	return refs, nil
}

func (s *server) loadImages(w http.ResponseWriter, r *request) error {
	platforms, err := archivePlatforms(r)
	if err != nil {
		return err
	}
	var opt image.LoadOptions
	switch len(platforms) {
	case 0:
	case 1:
		opt.Platform = &platforms[0]
	default:
		return plainError{
			errdefs.ErrNotImplemented, "strake loads one platform of an image, not several",
		}
	}
	p := newProgress(w)
	if !r.flag("quiet") {
		opt.Progress = p.event
	}
	list, err := s.Images.Load(r.Context(), r.Body, opt)
	for _, l := range list {
		for _, ref := range l.Refs {
			p.send(map[string]string{"stream": "Loaded image: " + ref + "\n"})
		}
		if len(l.Refs) == 0 {
			p.send(map[string]string{"stream": "Loaded image ID: " + l.ID.String() + "\n"})
		}
		s.imageEvent("load", l.ID.String(), l.ID.String())
	}
	return p.end(err)
}

func (s *server) saveImage(w http.ResponseWriter, r *request, name string) error {
	return s.save(w, r, []string{name})
}

func (s *server) saveImages(w http.ResponseWriter, r *request) error {
	names := r.URL.Query()["names"]
	if len(names) == 0 {
		return invalid("names is missing: at least one image")
	}
	return s.save(w, r, names)
}

func (s *server) save(w http.ResponseWriter, r *request, names []string) error {
	if _, err := archivePlatforms(r); err != nil {
		return err
	}
	for _, n := range names {
		if _, err := s.Images.Resolve(r.Context(), n); err != nil {
			return err
		}
		if r.version >= 48 {
			if err := s.ofPlatform(r, n, "platform"); err != nil {
				return err
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := s.Images.Save(r.Context(), w, names); err != nil {
		s.Log.Error("save images", "names", names, "error", err)
		// The status line is gone; a connection that breaks off is the one way left to say that the
		// archive is not whole.
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (s *server) pruneImages(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "dangling", "label", "label!", "until")
	if err != nil {
		return err
	}
	dangling, set, err := f.boolean("dangling")
	if err != nil {
		return err
	}
	q := image.Filter{Labels: f["label"], NotLabels: f["label!"]}
	if q.Until, err = f.until(); err != nil {
		return err
	}
	if !set || dangling {
		yes := true
		q.Dangling = &yes
	}
	list, err := s.Images.List(r.Context(), q)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	containers, err := s.Engine.List(r.Context())
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
		removed, err := s.Images.Remove(
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
	partial, err := s.Images.Prune(r.Context())
	if err != nil {
		return err
	}
	out.SpaceReclaimed += uint64(partial)
	return writeJSON(w, http.StatusOK, out)
}

// commit makes an image of a container.
func (s *server) commit(w http.ResponseWriter, r *request) error {
	info, err := s.Engine.Inspect(r.Context(), r.form("container"))
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
		if err := s.Engine.Pause(r.Context(), info.ID); err != nil {
			return err
		}
		defer s.Engine.Unpause(r.Context(), info.ID)
	}
	id, err := s.Images.Commit(r.Context(), info.ID, opt)
	if err != nil {
		return err
	}
	s.Engine.PublishEvent(engine.Event{Type: "container", Action: "commit", ID: info.ID, Attributes: map[string]string{
		"comment": opt.Comment, "image": info.Spec.Image, "imageID": id.String(),
		"imageRef": opt.Ref, "name": info.Spec.Name,
	}})
	s.imageEvent("create", id.String(), id.String())
	return writeJSON(w, http.StatusCreated, map[string]digest.Digest{"Id": id})
}
