package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/document"
)

// item is one image of an archive.
type item struct {
	config   file
	layers   []file
	manifest document.Document   // the original manifest, when the archive has it
	index    []document.Document // from the one that index.json names down to the manifest
	names    []string
}

// dockerItem is an element of manifest.json (moby: image/tarexport).
type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (a *files) items(ctx context.Context, want *ocispec.Platform) ([]item, error) {
	switch {
	case a.has("manifest.json"):
		return a.dockerItems(ctx)
	case a.has("index.json"):
		return a.layoutItems(ctx, want)
	case a.has("repositories"):
		return nil, fmt.Errorf(
			"archive has the form of docker before 1.10 (repositories without manifest.json), "+
				"which carries no verifiable configuration: %w",
			errdefs.ErrInvalidArgument,
		)
	}
	return nil, fmt.Errorf(
		"archive holds neither manifest.json nor index.json: %w", errdefs.ErrInvalidArgument,
	)
}

func (a *files) dockerItems(ctx context.Context) ([]item, error) {
	var list []dockerItem
	if err := a.document(ctx, "manifest.json", &list); err != nil {
		return nil, err
	}
	originals := a.originals(ctx)
	var out []item
	for _, d := range list {
		it := item{names: d.RepoTags}
		var err error
		if it.config, err = a.get(d.Config); err != nil {
			return nil, err
		}
		for _, l := range d.Layers {
			f, err := a.get(l)
			if err != nil {
				return nil, err
			}
			it.layers = append(it.layers, f)
		}
		if o, ok := originals[it.config.desc.Digest]; ok {
			it.manifest, it.index, it.layers = o.manifest, o.index, o.layers
		}
		out = append(out, it)
	}
	return out, nil
}

// originals maps configurations to the manifests of an OCI layout in the same archive, so that
// loading keeps the digests the images had.
func (a *files) originals(ctx context.Context) map[digest.Digest]item {
	out := map[digest.Digest]item{}
	if !a.has("index.json") {
		return out
	}
	var top ocispec.Index
	if a.document(ctx, "index.json", &top) != nil {
		return out // manifest.json suffices
	}
	for _, d := range top.Manifests {
		for _, it := range a.walk(ctx, d, nil) {
			if _, dup := out[it.config.desc.Digest]; !dup {
				out[it.config.desc.Digest] = it
			}
		}
	}
	return out
}

func (a *files) layoutItems(
	ctx context.Context, want *ocispec.Platform,
) ([]item, error) {
	var top ocispec.Index
	if err := a.document(ctx, "index.json", &top); err != nil {
		return nil, err
	}
	match := platforms.Default()
	if want != nil {
		match = platforms.Only(*want)
	}
	var out []item
	for _, d := range top.Manifests {
		found := a.walk(ctx, d, nil)
		best := -1
		for i, it := range found {
			p := platformOf(ctx, a, it)
			if !match.Match(p) {
				continue
			}
			if best < 0 || match.Less(p, platformOf(ctx, a, found[best])) {
				best = i
			}
		}
		if best < 0 {
			// A single manifest of another platform was saved on purpose.
			if len(found) != 1 || want != nil {
				continue
			}
			best = 0
		}
		it := found[best]
		if n := layoutName(d); n != "" {
			it.names = []string{n}
		}
		out = append(out, it)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf(
			"archive's index.json names no complete image for this platform: %w",
			errdefs.ErrInvalidArgument,
		)
	}
	return out, nil
}

// layoutName is the name an OCI layout gives an image: containerd's annotation, or the standard one
// when it is more than a tag.
func layoutName(d ocispec.Descriptor) string {
	if n := d.Annotations["io.containerd.image.name"]; n != "" {
		return n
	}
	n := d.Annotations[ocispec.AnnotationRefName]
	if strings.ContainsAny(n, ":/") {
		return n
	}
	return ""
}

func platformOf(ctx context.Context, a *files, it item) ocispec.Platform {
	b, err := a.bytes(ctx, it.config)
	if err != nil {
		return ocispec.Platform{}
	}
	c, err := document.ParseConfig(b)
	if err != nil {
		return ocispec.Platform{}
	}
	return platforms.Normalize(c.Platform())
}

// walk lists the complete images below a descriptor, which the documents above name.
func (a *files) walk(
	ctx context.Context, d ocispec.Descriptor, above []document.Document,
) []item {
	if len(above) > document.MaxIndexDepth || d.Digest.Validate() != nil {
		return nil
	}
	f, err := a.get(blobName(d.Digest))
	if err != nil || f.desc.Digest != d.Digest {
		return nil
	}
	b, err := a.bytes(ctx, f)
	if err != nil {
		return nil
	}
	var x ocispec.Index
	if json.Unmarshal(b, &x) == nil && len(x.Manifests) > 0 {
		var out []item
		for _, m := range x.Manifests {
			here := document.Document{Descriptor: described(d, b), Bytes: b}
			out = append(out, a.walk(ctx, m, append(above[:len(above):len(above)], here))...)
		}
		return out
	}
	m, err := document.ParseManifest(b)
	if err != nil {
		return nil
	}
	it := item{
		manifest: document.Document{Descriptor: described(d, b), Bytes: b}, index: above,
	}
	if it.manifest.Descriptor.MediaType == "" {
		it.manifest.Descriptor.MediaType = m.MediaType
	}
	if it.config, err = a.get(blobName(m.Config.Digest)); err != nil ||
		it.config.desc.Digest != m.Config.Digest {
		return nil
	}
	for _, l := range m.Layers {
		f, err := a.get(blobName(l.Digest))
		if err != nil || f.desc.Digest != l.Digest {
			return nil
		}
		it.layers = append(it.layers, f)
	}
	return []item{it}
}

func blobName(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

// described is the descriptor of a document with its real size, which an archive may say wrongly.
func described(d ocispec.Descriptor, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: int64(len(b))}
}
