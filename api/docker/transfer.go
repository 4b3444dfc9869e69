package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image"
)

// transferAPI serves pulls, pushes, imports, and the loading and saving of archives.
type transferAPI struct {
	images  transferImages
	engine  publisher
	builtin Builtin
	log     *slog.Logger
}

// transferImages is what transferAPI needs of Images.
type transferImages interface {
	imageResolver
	imageLister
	Tags(ctx context.Context, repository string, auth *image.Auth) ([]string, error)
	Describe(ctx context.Context, ref string, auth *image.Auth) (image.Description, error)
	Pull(ctx context.Context, ref string, o image.PullOptions) (image.Image, error)
	Push(ctx context.Context, ref string, o image.PushOptions) (image.Pushed, error)
	Import(ctx context.Context, archive io.Reader, o image.ImportOptions) (digest.Digest, error)
	Load(ctx context.Context, archive io.Reader, o image.LoadOptions) ([]image.Loaded, error)
	Save(ctx context.Context, w io.Writer, refs []string) error
}

func (a *transferAPI) routes() map[string]handler {
	return map[string]handler{
		"GET /images/get":     a.saveSeveral,
		"POST /images/load":   a.load,
		"POST /images/create": a.create,

		"GET /distribution/{path...}": a.describe,
	}
}

// named are the endpoints below /images/NAME.
func (a *transferAPI) named() []namedRoute {
	return []namedRoute{
		{http.MethodGet, "/get", a.saveOne},
		{http.MethodPost, "/push", a.push},
	}
}

// authOf reads the credentials of the header X-Registry-Auth; nil if there are none.
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
		return nil, nil // old clients send invalid JSON for "no credentials"
	}
	if a.Username == "" && a.Password == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return nil, nil
	}
	return &image.Auth{
		Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken,
		RegistryToken: a.RegistryToken,
	}, nil
}

// describe answers GET /distribution/NAME/json with what the registry has under a name.
func (a *transferAPI) describe(w http.ResponseWriter, r *request) error {
	name, ok := strings.CutSuffix(r.PathValue("path"), "/json")
	if !ok || name == "" {
		return unknown(r.Method, r.URL.Path)
	}
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	d, err := a.images.Describe(r.Context(), name, auth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, registry.DistributionInspect{
		Descriptor: d.Target, Platforms: orEmpty(d.Platforms),
	})
}

// create pulls (fromImage) or imports (fromSrc).
func (a *transferAPI) create(w http.ResponseWriter, r *request) error {
	platform, err := platformOf(r.form("platform"))
	if err != nil {
		return err
	}
	if src := r.form("fromSrc"); src != "" {
		return a.importArchive(w, r, src, platform)
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
	p := newProgress(w)
	if platform == nil {
		here, err := a.builtin.restore(r.Context(), a.images, ref)
		if err == nil && here {
			p.send(map[string]string{"status": "Status: Image is up to date for " + ref})
		}
		if err != nil || here {
			return p.end(err)
		}
	}
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	refs := []string{ref}
	// A name without a tag means all tags of the repository: clients that want one send "latest".
	if name, err := reference.ParseNormalizedNamed(ref); err == nil && reference.IsNameOnly(name) {
		tags, err := a.images.Tags(r.Context(), ref, auth)
		if err != nil {
			return pullDenied(ref, err)
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
		if _, err := a.images.Pull(
			r.Context(), ref, image.PullOptions{Platform: platform, Auth: auth, Progress: p.event},
		); err != nil {
			return p.end(pullDenied(ref, err))
		}
		imageEvent(a.engine, "pull", ref, ref)
	}
	return p.end(nil)
}

// pullDenied is dockerd's answer where a registry refuses a pull: it may have no such image, and
// says so to those only who may see it.
func pullDenied(ref string, err error) error {
	if !errdefs.IsPermissionDenied(err) {
		return err
	}
	if named, perr := reference.ParseNormalizedNamed(ref); perr == nil {
		ref = reference.FamiliarName(named)
	}
	return plainError{errdefs.ErrNotFound, fmt.Sprintf(
		"pull access denied for %s, repository does not exist or may require 'docker login': %v",
		ref, err,
	)}
}

func (a *transferAPI) importArchive(
	w http.ResponseWriter, r *request, src string, platform *ocispec.Platform,
) error {
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
	if opt.Config, err = changesOf(image.RunConfig{}, r.URL.Query()["changes"]); err != nil {
		return err
	}
	archive := r.Body
	if src != "-" {
		if archive, err = fetch(r, src); err != nil {
			return err
		}
		defer archive.Close()
	}
	id, err := a.images.Import(r.Context(), archive, opt)
	p := newProgress(w)
	if err != nil {
		drain(w, r)
	} else {
		imageEvent(a.engine, "import", id.String(), opt.Ref)
		p.send(map[string]string{"status": id.String()})
	}
	return p.end(err)
}

func (a *transferAPI) push(w http.ResponseWriter, r *request, name string) error {
	if tag := r.form("tag"); tag != "" {
		name += ":" + tag
	}
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	names := []string{name}
	// A name without a tag means all tags, as with pull.
	if ref, err := reference.ParseNormalizedNamed(name); err == nil && reference.IsNameOnly(ref) {
		if names, err = a.tagsHere(r, ref); err != nil {
			return err
		}
	}
	if r.version >= 46 {
		for _, name := range names {
			if err := ofPlatform(r, a.images, name, "platform"); err != nil {
				return err
			}
		}
	}
	p := newProgress(w)
	for _, name := range names {
		out, err := a.images.Push(
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
		imageEvent(a.engine, "push", name, name)
	}
	return p.end(nil)
}

// tagsHere lists the references of a repository in the store, sorted.
func (a *transferAPI) tagsHere(r *request, repository reference.Named) ([]string, error) {
	list, err := a.images.List(r.Context(), image.Filter{})
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

func (a *transferAPI) load(w http.ResponseWriter, r *request) error {
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
	list, err := a.images.Load(r.Context(), r.Body, opt)
	for _, l := range list {
		for _, ref := range l.Refs {
			p.send(map[string]string{"stream": "Loaded image: " + ref + "\n"})
		}
		if len(l.Refs) == 0 {
			p.send(map[string]string{"stream": "Loaded image ID: " + l.ID.String() + "\n"})
		}
		imageEvent(a.engine, "load", l.ID.String(), l.ID.String())
	}
	if err != nil {
		drain(w, r)
		return p.fail(err) // clients read what is wrong with an archive from the stream alone
	}
	return p.end(nil)
}

// drainTime bounds how long an error waits for the rest of a request's body.
const drainTime = 10 * time.Second

// drain reads the rest of a request's body before an error is sent: many clients look for an answer
// only after they have sent everything, and report a broken pipe if they cannot.
func drain(w http.ResponseWriter, r *request) {
	if http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainTime)) == nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

func (a *transferAPI) saveOne(w http.ResponseWriter, r *request, name string) error {
	return a.save(w, r, []string{name})
}

func (a *transferAPI) saveSeveral(w http.ResponseWriter, r *request) error {
	names := r.URL.Query()["names"]
	if len(names) == 0 {
		return invalid("names is missing: at least one image")
	}
	return a.save(w, r, names)
}

// savedNames replaces each name without a tag by the tags that the repository has here. What is
// the name of no repository may be an ID.
func (a *transferAPI) savedNames(r *request, names []string) (out []string, err error) {
	for _, n := range names {
		refs := []string{n}
		if ref, perr := reference.ParseNormalizedNamed(n); perr == nil &&
			reference.IsNameOnly(ref) {
			tags, err := a.tagsHere(r, ref)
			switch {
			case err == nil:
				refs = tags
			case !errdefs.IsNotFound(err):
				return nil, err
			}
		}
		out = append(out, refs...)
	}
	return out, nil
}

func (a *transferAPI) save(w http.ResponseWriter, r *request, names []string) error {
	if _, err := archivePlatforms(r); err != nil {
		return err
	}
	names, err := a.savedNames(r, names)
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, err := a.images.Resolve(r.Context(), n); err != nil {
			return err
		}
		if r.version >= 48 {
			if err := ofPlatform(r, a.images, n, "platform"); err != nil {
				return err
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := a.images.Save(r.Context(), w, names); err != nil {
		a.log.Error("save images", "names", names, "error", err)
		// The status has been sent. Only a broken connection tells the client that the archive is
		// incomplete.
		panic(http.ErrAbortHandler)
	}
	return nil
}
