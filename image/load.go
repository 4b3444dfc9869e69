package image

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/archive"
	"strake/image/backend"
	"strake/image/name"
	"strake/image/progress"
)

// LoadOptions are the parameters of Load.
type LoadOptions struct {
	// Platform selects from multi-platform archives; nil means this host's.
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

// maxFileBytes bounds a file of an archive when Config.LayerLimits does not.
const maxFileBytes = 128 << 30

// Load reads an archive of images: what docker save writes (every form since manifest.json exists,
// docker 1.10), an OCI image layout (image-spec image-layout.md) in a tar, or both in one, plain or
// compressed. Images appear one by one, each whole. Errors of the archive are ErrInvalidArgument.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	var out []Loaded
	err := s.run(ctx, func(ctx context.Context, op *backend.Operation) error {
		limit := s.cfg.LayerLimits.Bytes
		if limit <= 0 {
			limit = maxFileBytes
		}
		list, err := archive.Read(
			ctx, r, archiveBlobs{op, s.backend},
			archive.ReadOptions{Platform: o.Platform, MaxFileBytes: limit},
		)
		if err != nil {
			return err
		}
		report := progress.New(o.Progress)
		for _, im := range list {
			l, err := s.loadOne(ctx, op, im, report)
			if err != nil {
				return err
			}
			out = append(out, l)
		}
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("load images: %w", err)
	}
	return out, nil
}

func (s *Store) loadOne(
	ctx context.Context, op *backend.Operation, im *archive.Image, report *progress.Reporter,
) (Loaded, error) {
	refs, shown, err := im.Refs()
	if err != nil {
		return Loaded{}, err
	}
	p := publication{
		s: s, o: op, src: im, refs: refs, report: report,
		words: words{unpacking: "Loading layer", byDiff: true},
	}
	out, err := p.run(ctx)
	if err != nil {
		return Loaded{}, err
	}
	l := Loaded{ID: out.id, Refs: shown, Moved: map[string]digest.Digest{}}
	for ref, old := range out.moved {
		l.Moved[name.Familiar(ref)] = old
	}
	return l, nil
}

// archiveBlobs is the store as package archive sees it.
type archiveBlobs struct {
	*backend.Operation
	b *backend.Backend
}

// Open implements archive.Blobs.
func (a archiveBlobs) Open(
	ctx context.Context, d ocispec.Descriptor, offset int64,
) (io.ReadCloser, error) {
	return a.b.OpenBlob(ctx, d, offset)
}

// Save writes images as one uncompressed tar that is an OCI image layout (image-spec
// image-layout.md) and carries docker's manifest.json, so that OCI tools and every docker since
// 1.10 load it. A reference by name keeps that name, one by ID keeps none. Equal images give equal
// bytes.
func (s *Store) Save(ctx context.Context, w io.Writer, refs []string) error {
	if len(refs) == 0 {
		return fmt.Errorf("save images: no image named: %w", errdefs.ErrInvalidArgument)
	}
	chosen, err := s.index.Select(refs)
	if err != nil {
		return err
	}
	// A lease keeps the blobs while they are read, whatever is removed meanwhile.
	o, err := s.backend.Begin(ctx)
	if err != nil {
		return err
	}
	defer o.End(ctx)
	var entries []archive.Entry
	for _, c := range chosen {
		src, err := s.openImage(ctx, o, c.Image)
		if err != nil {
			return fmt.Errorf("save images: %w", err)
		}
		entries = append(entries, archive.Entry{Source: src, Names: c.Tags})
	}
	if err := archive.Write(ctx, w, entries); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}
