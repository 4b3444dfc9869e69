package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Adopt makes an image visible whose blobs somebody else wrote into Backends, as a build does.
// target is its manifest, or an index with a manifest for this host; refs are the tags it gets and
// takes from other images, none for an image without a name. Adopt returns when the image is
// durable; a crash before that leaves no trace of the image, and the caller's lease and what it
// keeps as they were.
//
// All documents and layer blobs must exist with the size that the manifest says: one that does not
// is ErrNotFound or ErrInvalidArgument. A layer is taken from the committed snapshot that has its
// chain ID as name, the chain ID below as parent and its plain archive's digest in the
// configuration; a layer without one is unpacked from its blob. Another snapshot of that name is
// ErrFailedPrecondition. The caller's lease is no longer needed afterwards.
func (s *Store) Adopt(
	ctx context.Context, target ocispec.Descriptor, refs []string,
) (Image, error) {
	var full []string
	for _, r := range refs {
		t, err := parseTag(r)
		if err != nil {
			return Image{}, err
		}
		full = append(full, t.String())
	}
	if err := target.Digest.Validate(); err != nil {
		return Image{}, fmt.Errorf(
			"adopt image %q: %w: %w", target.Digest, err, errdefs.ErrInvalidArgument,
		)
	}
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return Image{}, err
	}
	a := adoption{s: s, n: newImage{target: slim(target), refs: full}}
	id, err := a.run(ctx)
	if err != nil {
		s.abandon(ctx, done)
		return Image{}, fmt.Errorf("adopt image %s: %w", target.Digest, err)
	}
	done()
	return s.Resolve(ctx, id.String())
}

// adoption is the state of one Adopt.
type adoption struct {
	s *Store
	n newImage
}

func (a *adoption) run(ctx context.Context) (digest.Digest, error) {
	manifest, b, err := a.choose(ctx, a.n.target, 0)
	if err != nil {
		return "", err
	}
	a.n.manifest = manifest
	m, err := parseManifest(b)
	if err != nil {
		return "", err
	}
	if !images.IsConfigType(m.Config.MediaType) {
		return "", fmt.Errorf(
			"manifest's configuration has media type %q, which is no container image: %w",
			m.Config.MediaType, errdefs.ErrInvalidArgument,
		)
	}
	raw, err := a.document(ctx, m.Config)
	if err != nil {
		return "", err
	}
	if a.n.blob, err = parseConfig(raw); err != nil {
		return "", err
	}
	a.n.config = slim(m.Config)
	if err := a.layers(ctx, m); err != nil {
		return "", err
	}
	a.s.cfg.Fault("image: label")
	if err := a.s.label(
		ctx, m.Config.Digest, configLabels(a.n.blob.RootFS.DiffIDs),
	); err != nil {
		return "", err
	}
	if err := a.s.label(ctx, manifest.Digest, manifestLabels(m)); err != nil {
		return "", err
	}
	id, _, err := a.s.publish(ctx, a.n)
	return id, err
}

// choose walks from the target to the manifest for this host and labels the index documents on the
// way.
func (a *adoption) choose(
	ctx context.Context, d ocispec.Descriptor, depth int,
) (ocispec.Descriptor, []byte, error) {
	b, err := a.document(ctx, d)
	if err != nil || images.IsManifestType(d.MediaType) {
		return d, b, err
	}
	if !images.IsIndexType(d.MediaType) || depth > 3 {
		return d, nil, fmt.Errorf(
			"media type %q is neither a manifest nor an index: %w", d.MediaType,
			errdefs.ErrInvalidArgument,
		)
	}
	var x ocispec.Index
	if err := json.Unmarshal(b, &x); err != nil {
		return d, nil, fmt.Errorf("index %s: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	best, err := selectManifest(x.Manifests, platforms.Default())
	if err != nil {
		return d, nil, err
	}
	if err := a.s.label(ctx, d.Digest, indexLabels(x)); err != nil {
		return d, nil, err
	}
	return a.choose(ctx, slim(best), depth+1)
}

// document holds and reads a document that has to be here.
func (a *adoption) document(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if err := a.blob(ctx, d); err != nil {
		return nil, err
	}
	return a.s.readBlob(ctx, d)
}

// blob holds a blob that has to be here with the size of its descriptor.
func (a *adoption) blob(ctx context.Context, d ocispec.Descriptor) error {
	if err := a.s.hold(ctx, []digest.Digest{d.Digest}, nil); err != nil {
		return err
	}
	info, err := a.s.content.Info(ctx, d.Digest)
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if info.Size != d.Size {
		return fmt.Errorf(
			"blob %s has %d bytes, its descriptor says %d: %w", d.Digest, info.Size, d.Size,
			errdefs.ErrInvalidArgument,
		)
	}
	return nil
}

// layers checks the blobs and directories of all layers and unpacks those without a directory.
func (a *adoption) layers(ctx context.Context, m ocispec.Manifest) error {
	diffs := a.n.blob.RootFS.DiffIDs
	if len(m.Layers) != len(diffs) {
		return fmt.Errorf(
			"manifest has %d layers, its configuration %d: %w", len(m.Layers), len(diffs),
			errdefs.ErrInvalidArgument,
		)
	}
	chains := identity.ChainIDs(append([]digest.Digest(nil), diffs...))
	if err := a.s.hold(ctx, nil, chains); err != nil {
		return err
	}
	work := make([]pending, len(diffs))
	for i, d := range m.Layers {
		if err := a.blob(ctx, d); err != nil {
			return fmt.Errorf("layer %d of %d: %w", i+1, len(diffs), err)
		}
		below := ""
		if i > 0 {
			below = chains[i-1].String()
		}
		info, err := a.s.snaps.Stat(ctx, chains[i].String())
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		if err == nil && (info.Kind != snapshots.KindCommitted || info.Parent != below) {
			return fmt.Errorf(
				"snapshot %s is a %s one on %q, want a committed one on %q: %w", chains[i],
				info.Kind, info.Parent, below, errdefs.ErrFailedPrecondition,
			)
		}
		work[i] = pending{
			diff: diffs[i],
			open: func(ctx context.Context) (io.ReadCloser, error) { return a.s.openBlob(ctx, d) },
		}
	}
	var err error
	a.n.layers, err = a.s.unpack(ctx, work)
	return err
}
