package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/layer"
)

// LoadOptions are the parameters of Load.
type LoadOptions struct {
	// Platform selects from multi-platform archives; zero means this host's.
	Platform *ocispec.Platform
	Progress Progress
}

// Loaded is one image that a Load made available.
type Loaded struct {
	ID digest.Digest
	// Refs are the familiar tags it got; empty for archives without names.
	Refs []string
	// Moved are tags taken from other images, with the ID each named before.
	Moved map[string]digest.Digest
}

// Load reads an archive of images: what docker save writes (every form since manifest.json exists,
// docker 1.10), an OCI image layout (image-spec image-layout.md) in a tar, or both in one, plain or
// compressed. Images appear one by one, each whole. Errors of the archive wrap
// errdefs.ErrInvalidArgument.
func (s *Store) Load(ctx context.Context, archive io.Reader, o LoadOptions) ([]Loaded, error) {
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	out, err := s.load(ctx, archive, o)
	if err != nil {
		s.abandon(ctx, done)
		return out, fmt.Errorf("load images: %w", err)
	}
	done()
	return out, nil
}

func (s *Store) load(ctx context.Context, archive io.Reader, o LoadOptions) ([]Loaded, error) {
	plain, _, err := layer.Decompress(archive)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	a := &archiveFiles{s: s, files: map[string]archiveFile{}, links: map[string]string{}}
	if err := a.read(ctx, plain); err != nil {
		return nil, err
	}
	items, err := a.items(ctx, o.Platform)
	if err != nil {
		return nil, err
	}
	progress := &reporter{fn: o.Progress}
	var out []Loaded
	for _, it := range items {
		l, err := s.loadItem(ctx, a, it, progress)
		if err != nil {
			return out, err
		}
		out = append(out, l)
	}
	return out, nil
}

const (
	smallFile       = 64 << 10
	maxSmallFiles   = 64 << 20
	maxArchiveFiles = 1 << 17
)

// loadItem is one image of an archive.
type archiveItem struct {
	config   archiveFile
	layers   []archiveFile
	manifest []byte             // the original manifest, when the archive has it
	desc     ocispec.Descriptor // of manifest
	target   ocispec.Descriptor // of the index it came from, or like desc
	index    [][]byte           // documents between target and manifest
	names    []string
}

// dockerItem is an element of manifest.json (moby: image/tarexport).
type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (a *archiveFiles) items(ctx context.Context, want *ocispec.Platform) ([]archiveItem, error) {
	switch {
	case a.has("manifest.json"):
		return a.dockerItems(ctx)
	case a.has("index.json"):
		return a.layoutItems(ctx, want)
	case a.has("repositories"):
		return nil, fmt.Errorf(
			"archive has the form of docker before 1.10 (repositories without manifest.json), which carries no verifiable configuration: %w",
			errdefs.ErrInvalidArgument,
		)
	}
	return nil, fmt.Errorf(
		"archive holds neither manifest.json nor index.json: %w", errdefs.ErrInvalidArgument,
	)
}

func (a *archiveFiles) dockerItems(ctx context.Context) ([]archiveItem, error) {
	var list []dockerItem
	if err := a.document(ctx, "manifest.json", &list); err != nil {
		return nil, err
	}
	originals := a.originals(ctx)
	var out []archiveItem
	for _, d := range list {
		it := archiveItem{names: d.RepoTags}
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
			it.manifest, it.desc, it.target, it.index = o.manifest, o.desc, o.target, o.index
			it.layers = o.layers
		}
		out = append(out, it)
	}
	return out, nil
}

// originals maps configurations to the manifests of an OCI layout in the same archive, so that
// loading keeps the digests the images had.
func (a *archiveFiles) originals(ctx context.Context) map[digest.Digest]archiveItem {
	out := map[digest.Digest]archiveItem{}
	if !a.has("index.json") {
		return out
	}
	var top ocispec.Index
	if a.document(ctx, "index.json", &top) != nil {
		return out // manifest.json suffices
	}
	for _, d := range top.Manifests {
		for _, it := range a.walk(ctx, d, d, nil, 0) {
			if _, dup := out[it.config.desc.Digest]; !dup {
				out[it.config.desc.Digest] = it
			}
		}
	}
	return out
}

func (a *archiveFiles) layoutItems(
	ctx context.Context, want *ocispec.Platform,
) ([]archiveItem, error) {
	var top ocispec.Index
	if err := a.document(ctx, "index.json", &top); err != nil {
		return nil, err
	}
	match := platforms.Default()
	if want != nil {
		match = platforms.Only(*want)
	}
	var out []archiveItem
	for _, d := range top.Manifests {
		found := a.walk(ctx, d, d, nil, 0)
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
			// A single manifest of another platform is what somebody saved on purpose.
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

func platformOf(ctx context.Context, a *archiveFiles, it archiveItem) ocispec.Platform {
	b, err := a.bytes(ctx, it.config)
	if err != nil {
		return ocispec.Platform{}
	}
	c, err := parseConfig(b)
	if err != nil {
		return ocispec.Platform{}
	}
	return platforms.Normalize(c.platform())
}

// walk lists the complete images below a descriptor. Index documents nest at most four deep.
func (a *archiveFiles) walk(
	ctx context.Context, d, target ocispec.Descriptor, index [][]byte, depth int,
) []archiveItem {
	if depth > 4 || d.Digest.Validate() != nil {
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
		var out []archiveItem
		for _, m := range x.Manifests {
			out = append(
				out, a.walk(ctx, m, target, append(index[:len(index):len(index)], b), depth+1)...,
			)
		}
		return out
	}
	m, err := parseManifest(b)
	if err != nil {
		return nil
	}
	it := archiveItem{manifest: b, desc: slim(d), target: slim(target), index: index}
	if it.desc.MediaType == "" {
		it.desc.MediaType = m.MediaType
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
	return []archiveItem{it}
}

func blobName(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

func (s *Store) loadItem(
	ctx context.Context, a *archiveFiles, it archiveItem, progress *reporter,
) (Loaded, error) {
	raw, err := a.bytes(ctx, it.config)
	if err != nil {
		return Loaded{}, err
	}
	blob, err := parseConfig(raw)
	if err != nil {
		return Loaded{}, err
	}
	if len(blob.RootFS.DiffIDs) != len(it.layers) {
		return Loaded{}, fmt.Errorf("image %s has %d layers in its configuration and %d in the archive: %w",
			short(it.config.desc.Digest), len(blob.RootFS.DiffIDs), len(it.layers), errdefs.ErrInvalidArgument)
	}
	refs, shown, err := loadNames(it.names)
	if err != nil {
		return Loaded{}, err
	}
	descs, work, err := s.loadLayers(ctx, a, it, blob, progress)
	if err != nil {
		return Loaded{}, err
	}
	recs, err := s.unpack(ctx, work)
	if err != nil {
		return Loaded{}, err
	}
	n := newImage{blob: blob, layers: recs, refs: refs}
	if it.manifest == nil {
		n.manifest, n.config, err = s.writeManifest(ctx, raw, blob, descs)
		n.target = n.manifest
	} else {
		err = s.keepOriginal(ctx, it, raw, &n)
	}
	if err != nil {
		return Loaded{}, err
	}
	id, moved, err := s.publish(ctx, n)
	if err != nil {
		return Loaded{}, err
	}
	l := Loaded{ID: id, Refs: shown, Moved: map[string]digest.Digest{}}
	for ref, old := range moved {
		l.Moved[familiar(ref)] = old
	}
	return l, nil
}

// loadNames turns an archive's names into references; docker ignores none, so a bad one is an
// error.
func loadNames(names []string) (refs, shown []string, err error) {
	for _, n := range names {
		t, err := parseTag(n)
		if err != nil {
			return nil, nil, fmt.Errorf("archive: %w", err)
		}
		refs, shown = append(refs, t.String()), append(shown, reference.FamiliarString(t))
	}
	return refs, shown, nil
}

// loadLayers makes blobs of the layers and describes the unpacking.
func (s *Store) loadLayers(
	ctx context.Context, a *archiveFiles, it archiveItem, blob configBlob, progress *reporter,
) ([]ocispec.Descriptor, []pending, error) {
	var descs []ocispec.Descriptor
	var work []pending
	for i, f := range it.layers {
		if f.data != nil {
			if _, err := s.writeBlob(ctx, "layer", f.data, nil); err != nil {
				return nil, nil, err
			}
		}
		d := f.desc
		kind, err := s.compressionOf(ctx, f)
		if err != nil {
			return nil, nil, err
		}
		if d.MediaType, err = layerMediaType(kind); err != nil {
			return nil, nil, err
		}
		descs = append(descs, d)
		diff := blob.RootFS.DiffIDs[i]
		m := &meter{r: progress, id: short(diff), status: "Loading layer", total: d.Size}
		work = append(work, pending{
			diff:   diff,
			open:   func(ctx context.Context) (io.ReadCloser, error) { return s.openBlob(ctx, d) },
			onRead: m.add,
		})
	}
	return descs, work, nil
}

// compressionOf looks at the first bytes of a stored layer.
func (s *Store) compressionOf(ctx context.Context, f archiveFile) (layer.Compression, error) {
	if f.data != nil {
		return layer.Detect(f.data), nil
	}
	ra, err := s.content.ReaderAt(ctx, f.desc)
	if err != nil {
		return layer.Plain, err
	}
	defer ra.Close()
	var head [6]byte
	n, err := ra.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return layer.Plain, err
	}
	return layer.Detect(head[:n]), nil
}

func layerMediaType(c layer.Compression) (string, error) {
	switch c {
	case layer.Plain:
		return ocispec.MediaTypeImageLayer, nil
	case layer.Gzip:
		return ocispec.MediaTypeImageLayerGzip, nil
	case layer.Zstd:
		return ocispec.MediaTypeImageLayerZstd, nil
	}
	return "", fmt.Errorf(
		"layer is packed with %s, for which images have no media type (want plain, gzip or zstd): %w",
		c, errdefs.ErrInvalidArgument,
	)
}

// keepOriginal stores the manifest, and the index documents above it, as they came.
func (s *Store) keepOriginal(
	ctx context.Context, it archiveItem, config []byte, n *newImage,
) (err error) {
	m, err := parseManifest(it.manifest)
	if err != nil {
		return err
	}
	if n.config, err = s.writeBlob(
		ctx, "config", config, configLabels(n.blob.RootFS.DiffIDs),
	); err != nil {
		return err
	}
	if _, err = s.writeBlob(ctx, "manifest", it.manifest, manifestLabels(m)); err != nil {
		return err
	}
	n.manifest, n.target = it.desc, it.target
	for _, b := range it.index {
		var x ocispec.Index
		if err := json.Unmarshal(b, &x); err != nil {
			return err
		}
		if _, err := s.writeBlob(ctx, "index", b, indexLabels(x)); err != nil {
			return err
		}
	}
	return nil
}
