package document

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxBytes bounds manifests and configurations (distribution-spec, "Pushing Manifests", asks
// registries for 4 MiB).
const MaxBytes = 16 << 20

// Document is a manifest or an index as it came, with the descriptor that names it.
type Document struct {
	Descriptor ocispec.Descriptor
	Bytes      []byte
}

// Read reads a small blob whole. One of more than MaxBytes is ErrInvalidArgument, an absent one
// ErrNotFound.
func Read(ctx context.Context, from content.Provider, d ocispec.Descriptor) ([]byte, error) {
	ra, err := from.ReaderAt(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d.Digest, err)
	}
	defer ra.Close()
	if err := CheckSize(d.Digest, ra.Size()); err != nil {
		return nil, err
	}
	b := make([]byte, ra.Size())
	if _, err := io.ReadFull(io.NewSectionReader(ra, 0, ra.Size()), b); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d.Digest, err)
	}
	return b, nil
}

// CheckSize refuses a document of more than MaxBytes with ErrInvalidArgument.
func CheckSize(d digest.Digest, size int64) error {
	if size > MaxBytes {
		return fmt.Errorf(
			"%s has %d bytes where a document of at most %d belongs: %w", d, size, MaxBytes,
			errdefs.ErrInvalidArgument,
		)
	}
	return nil
}

// ParseManifest reads a manifest (image-spec manifest.md, or docker's schema 2). Schema 1, an index
// and malformed digests or sizes are ErrInvalidArgument.
func ParseManifest(b []byte) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	var shape struct {
		SchemaVersion int             `json:"schemaVersion"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(b, &shape); err != nil {
		return m, fmt.Errorf("manifest: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	switch {
	case shape.FSLayers != nil || shape.SchemaVersion == 1:
		return m, fmt.Errorf(
			"manifest has schema version 1, which carries no verifiable configuration; the "+
				"image must be pushed anew in a current form: %w",
			errdefs.ErrInvalidArgument,
		)
	case shape.Manifests != nil: // one document must not be readable as two things (CVE-2021-41190)
		return m, fmt.Errorf(
			"manifest has a field \"manifests\", which belongs to an index: %w",
			errdefs.ErrInvalidArgument,
		)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("manifest: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := d.Digest.Validate(); err != nil {
			return m, fmt.Errorf(
				"manifest: digest %q: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument,
			)
		}
		if d.Size < 0 {
			return m, fmt.Errorf(
				"manifest: blob %s has size %d: %w", d.Digest, d.Size, errdefs.ErrInvalidArgument,
			)
		}
	}
	return m, nil
}

// ParseImage is ParseManifest for a manifest that has to be that of a container image: artifacts
// are ErrInvalidArgument too.
func ParseImage(b []byte) (ocispec.Manifest, error) {
	m, err := ParseManifest(b)
	if err == nil && !images.IsConfigType(m.Config.MediaType) {
		err = fmt.Errorf(
			"manifest's configuration has media type %q, which is no container image: %w",
			m.Config.MediaType, errdefs.ErrInvalidArgument,
		)
	}
	return m, err
}

// ParseIndex reads an index (image-spec image-index.md) or a manifest list. Errors are
// ErrInvalidArgument.
func ParseIndex(b []byte) (ocispec.Index, error) {
	var x ocispec.Index
	if err := json.Unmarshal(b, &x); err != nil {
		return x, fmt.Errorf("index: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return x, nil
}

// NewManifest joins a configuration with layers.
func NewManifest(config []byte, layers []ocispec.Descriptor) (Document, error) {
	if layers == nil {
		layers = []ocispec.Descriptor{} // the field is required
	}
	return Encode(ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Layers: layers,
		Config: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config),
			Size: int64(len(config)),
		},
	})
}

// Encode is the document of a manifest, whose media type has to be set.
func Encode(m ocispec.Manifest) (Document, error) {
	m.Versioned = specs.Versioned{SchemaVersion: 2}
	b, err := json.Marshal(m)
	if err != nil {
		return Document{}, err
	}
	return Document{
		Descriptor: ocispec.Descriptor{
			MediaType: m.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b)),
		},
		Bytes: b,
	}, nil
}

// MaxIndexDepth bounds how many index documents lead to a manifest, one below the other.
const MaxIndexDepth = 4

// Choose walks from what a reference names to the manifest for a platform and returns the documents
// on the way, the manifest last. read gets each of them. A target that is neither manifest nor
// index is ErrInvalidArgument; an index without a fitting manifest is ErrNotFound.
func Choose(
	ctx context.Context, target ocispec.Descriptor, match platforms.MatchComparer,
	read func(context.Context, ocispec.Descriptor) ([]byte, error),
) ([]Document, error) {
	var out []Document
	for d := Slim(target); ; {
		isManifest := images.IsManifestType(d.MediaType)
		if len(out) > MaxIndexDepth || len(out) == MaxIndexDepth && !isManifest {
			return nil, fmt.Errorf(
				"index documents nest more than %d deep: %w", MaxIndexDepth,
				errdefs.ErrInvalidArgument,
			)
		}
		if !isManifest && !images.IsIndexType(d.MediaType) {
			return nil, fmt.Errorf(
				"media type %q is that of no image this engine can run: %w", d.MediaType,
				errdefs.ErrInvalidArgument,
			)
		}
		b, err := read(ctx, d)
		if err != nil {
			return nil, err
		}
		out = append(out, Document{Descriptor: d, Bytes: b})
		if isManifest {
			return out, nil
		}
		x, err := ParseIndex(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Digest, err)
		}
		best, err := Select(x.Manifests, match)
		if err != nil {
			return nil, err
		}
		d = Slim(best)
	}
}

// Select picks the best match of an index. Attestations ("unknown/unknown") match no platform. No
// match is ErrNotFound.
func Select(
	ms []ocispec.Descriptor, match platforms.MatchComparer,
) (ocispec.Descriptor, error) {
	var fit []ocispec.Descriptor
	for _, m := range ms {
		if !images.IsManifestType(m.MediaType) && !images.IsIndexType(m.MediaType) ||
			m.Digest.Validate() != nil {
			continue
		}
		if m.Platform == nil && len(ms) == 1 || m.Platform != nil && match.Match(*m.Platform) {
			fit = append(fit, m)
		}
	}
	if len(fit) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf(
			"no matching manifest for the platform in the manifest list entries: %w",
			errdefs.ErrNotFound,
		)
	}
	slices.SortStableFunc(fit, func(a, b ocispec.Descriptor) int {
		switch {
		case a.Platform == nil || b.Platform == nil:
			return 0
		case match.Less(*a.Platform, *b.Platform):
			return -1
		case match.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return fit[0], nil
}

// Slim keeps what identifies a descriptor.
func Slim(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// Digests lists the digests of descriptors, in their order.
func Digests(ds []ocispec.Descriptor) []digest.Digest {
	out := make([]digest.Digest, 0, len(ds))
	for _, d := range ds {
		out = append(out, d.Digest)
	}
	return out
}

// Short abbreviates a digest as docker's clients show it.
func Short(d digest.Digest) string {
	e := d.Encoded()
	if len(e) > 12 {
		return e[:12]
	}
	return e
}
