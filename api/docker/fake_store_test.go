package docker

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image"
	"strake/volume"
)

// imageID is the ID of the image "one", danglingID that of one without a name.
var (
	imageID    = "sha256:" + strings.Repeat("5", 64)
	danglingID = "sha256:" + strings.Repeat("6", 64)
)

// fakeImages has the images one:latest and one without a name.
type fakeImages struct {
	*recorder
	list []image.Summary
	tags []string
	env  []string // of the image's configuration
	// refusal is what Import and Load return before they read anything, if it is not nil.
	refusal error
}

func newFakeImages(r *recorder) *fakeImages {
	return &fakeImages{recorder: r, tags: []string{"1", "2"}, list: []image.Summary{
		{Image: image.Image{
			ID: digest.Digest(imageID), RepoTags: []string{"one:latest", "one:2"}, Size: 100,
			Created: then, Labels: map[string]string{"k": "v"},
			Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"},
			Manifest: ocispec.Descriptor{
				MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(imageID), Size: 3,
			},
		}, SharedSize: 40},
		{Image: image.Image{
			ID: digest.Digest(danglingID), Size: 7, Created: then,
			Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		}, SharedSize: -1, Dangling: true},
		{Image: image.Image{
			ID: digest.Digest("sha256:" + strings.Repeat("7", 64)), Size: 3, Created: then,
			RepoTags: []string{"two:b", "two:a"},
			Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"},
		}, SharedSize: -1},
	}}
}

// loadBuiltin puts the image that is built in on the list.
func (s *fakeImages) loadBuiltin(context.Context) error {
	err := s.do("builtin.Load")
	if err == nil {
		s.list = append(s.list, image.Summary{Image: image.Image{
			ID: digest.Digest("sha256:" + strings.Repeat("8", 64)), Created: then,
			RepoTags: []string{"product/base", "product/base:latest"},
			Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"},
		}})
	}
	return err
}

func (s *fakeImages) Resolve(_ context.Context, ref string) (image.Image, error) {
	if err := s.read("images.Resolve"); err != nil {
		return image.Image{}, err
	}
	for i := range s.list {
		for _, name := range append(s.list[i].RepoTags, s.list[i].ID.String(), "one") {
			if name == ref {
				return s.list[i].Image, nil
			}
		}
	}
	return image.Image{}, missing("image", ref)
}

func (s *fakeImages) Prune(context.Context) (int64, error) { return 0, nil }

func (s *fakeImages) List(_ context.Context, f image.Filter) ([]image.Summary, error) {
	err := s.do("images.List", f)
	var out []image.Summary
	for _, m := range s.list {
		if f.Dangling == nil || *f.Dangling == m.Dangling {
			out = append(out, m)
		}
	}
	return out, err
}

func (s *fakeImages) Inspect(ctx context.Context, ref string) (image.Detail, error) {
	m, err := s.Resolve(ctx, ref)
	if err == nil {
		err = s.read("images.Inspect")
	}
	return image.Detail{
		Image: m, Author: "me", Comment: "c",
		Dirs: []string{"/upper", "/lower", "/lowest"},
		Config: image.RunConfig{
			ImageConfig: ocispec.ImageConfig{
				Cmd: []string{"sh"}, Entrypoint: []string{"init"}, StopSignal: "INT",
				Env:    s.env,
				Labels: map[string]string{"image": "1", "state": "image"},
				Volumes: map[string]struct{}{
					"/v": {},
				},
				ExposedPorts: map[string]struct{}{"443/tcp": {}, "rubbish": {}},
			},
		},
		Target: ocispec.Descriptor{Digest: digest.Digest(imageID), Size: 3},
	}, err
}

func (s *fakeImages) History(_ context.Context, ref string) ([]image.HistoryEntry, error) {
	return []image.HistoryEntry{
		{ID: digest.Digest(imageID), Created: then, CreatedBy: "CMD", Tags: []string{"one:latest"}},
		{Created: then, CreatedBy: "ADD", Size: 100},
	}, s.do("images.History", ref)
}

func (s *fakeImages) Tag(_ context.Context, src, ref string) error {
	err := s.do("images.Tag", src, ref)
	if err == nil {
		s.list[0].RepoTags = append(s.list[0].RepoTags, ref)
	}
	return err
}

func (s *fakeImages) Remove(
	_ context.Context, ref string, o image.RemoveOptions,
) ([]image.Removed, error) {
	if err := s.do("images.Remove", ref, o); err != nil {
		return nil, err
	}
	return []image.Removed{{Untagged: "one:latest"}, {Deleted: imageID}}, nil
}

func (s *fakeImages) Tags(_ context.Context, repo string, a *image.Auth) ([]string, error) {
	return s.tags, s.do("images.Tags", repo, a)
}

func (s *fakeImages) Pull(
	_ context.Context, ref string, o image.PullOptions,
) (image.Image, error) {
	if err := s.do("images.Pull", ref, o.Platform, o.Auth); err != nil {
		return image.Image{}, err
	}
	o.Progress(image.Event{Status: "Pulling from " + ref})
	o.Progress(image.Event{ID: "layer", Status: "Waiting"})
	o.Progress(image.Event{ID: "layer", Status: "Downloading", Current: 1500, Total: 3000})
	o.Progress(image.Event{ID: "layer", Status: "Extracting", Current: 7})
	return s.list[0].Image, s.read("images.Pull.after")
}

func (s *fakeImages) Push(
	_ context.Context, ref string, o image.PushOptions,
) (image.Pushed, error) {
	if err := s.do("images.Push", ref, o.Auth); err != nil {
		return image.Pushed{}, err
	}
	o.Progress(image.Event{ID: "layer", Status: "Pushed"})
	return image.Pushed{Tag: "latest", Digest: digest.Digest(imageID), Size: 3},
		s.read("images.Push.after")
}

func (s *fakeImages) Describe(
	_ context.Context, ref string, auth *image.Auth,
) (image.Description, error) {
	return image.Description{
		Target: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageIndex, Digest: digest.Digest(imageID), Size: 9,
		},
		Platforms: []ocispec.Platform{{OS: "linux", Architecture: "arm64", Variant: "v8"}},
	}, s.do("images.Describe", ref, auth)
}

func (s *fakeImages) Import(
	_ context.Context, r io.Reader, o image.ImportOptions,
) (digest.Digest, error) {
	if s.refusal != nil {
		return "", s.refusal
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	return digest.Digest(imageID), s.do(
		"images.Import", string(raw), o.Ref, o.Message, o.Config, o.Platform,
	)
}

func (s *fakeImages) Load(
	_ context.Context, r io.Reader, o image.LoadOptions,
) ([]image.Loaded, error) {
	if s.refusal != nil {
		return nil, s.refusal
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if err := s.do("images.Load", string(raw), o.Platform, o.Progress != nil); err != nil {
		return nil, err
	}
	return []image.Loaded{
		{ID: digest.Digest(imageID), Refs: []string{"one:latest"}}, {ID: digest.Digest(danglingID)},
	}, s.read("images.Load.after")
}

func (s *fakeImages) Save(_ context.Context, w io.Writer, refs []string) error {
	if err := s.do("images.Save", refs); err != nil {
		return err
	}
	_, err := io.WriteString(w, "archive")
	return err
}

func (s *fakeImages) Commit(
	_ context.Context, key string, o image.CommitOptions,
) (digest.Digest, error) {
	return digest.Digest(imageID), s.do("images.Commit", key, o.Ref, o.Author, o.Comment, o.Config)
}

func (s *fakeImages) DiskUsage(context.Context) (image.DiskUsage, error) {
	return image.DiskUsage{LayerBytes: 107, BlobBytes: 50, PartialBytes: 3},
		s.read("images.DiskUsage")
}

func (s *fakeImages) Login(_ context.Context, server string, auth image.Auth) error {
	return s.do("images.Login", server, auth)
}

// fakeNetworks has the networks of stillNetworks.
type fakeNetworks struct {
	stillNetworks
	*recorder
}

func (n fakeNetworks) Create(_ context.Context, s NetworkSpec) (string, []string, error) {
	return "new", []string{"first", "second"}, n.do("networks.Create", s)
}

func (n fakeNetworks) Remove(_ context.Context, name string) error {
	return n.do("networks.Remove", name)
}

func (n fakeNetworks) List(ctx context.Context) ([]NetworkInfo, error) {
	list, _ := n.stillNetworks.List(ctx)
	list = append(list, NetworkInfo{
		ID: "dd" + strings.Repeat("0", 62), Created: then,
		NetworkSpec: NetworkSpec{Name: "unused", Driver: "bridge"},
	})
	return list, n.read("networks.List")
}

// fakeVolumes has a volume that is used, one that is not, and one that nobody named.
type fakeVolumes struct{ *recorder }

func (fakeVolumes) List() []volume.Volume {
	return []volume.Volume{
		{Name: "data", Created: then, Users: []string{"1"}, Labels: map[string]string{"k": "v"}},
		{Name: "spare", Created: then, Options: map[string]string{"device": "/elsewhere"}},
		{Name: "unnamed", Created: then, Anonymous: true},
	}
}

func (v fakeVolumes) Get(name string) (volume.Volume, error) {
	if err := v.read("volumes.Get"); err != nil {
		return volume.Volume{}, err
	}
	for _, one := range v.List() {
		if one.Name == name {
			return one, nil
		}
	}
	return volume.Volume{}, plainError{errdefs.ErrNotFound, "get " + name + ": no such volume"}
}

func (v fakeVolumes) Create(o volume.CreateOptions) (volume.Volume, bool, error) {
	if o.Name == "" {
		o.Name = "chosen"
	}
	return volume.Volume{Name: o.Name, Labels: o.Labels, Created: time.Unix(0, 0)},
		o.Name != "data", v.do("volumes.Create", o)
}

func (v fakeVolumes) Remove(name string) error {
	if err := v.do("volumes.Remove", name); err != nil {
		return err
	}
	_, err := v.Get(name)
	return err
}

// namedLikeID has a network more, the first, whose name is the ID of another one.
type namedLikeID struct {
	fakeNetworks
	name string
}

func (n namedLikeID) List(ctx context.Context) ([]NetworkInfo, error) {
	list, err := n.fakeNetworks.List(ctx)
	first := NetworkInfo{
		ID: strings.Repeat("a", 64), NetworkSpec: NetworkSpec{Name: n.name, Driver: "bridge"},
	}
	return append([]NetworkInfo{first}, list...), err
}
