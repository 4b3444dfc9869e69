package image

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/backend"
	"strake/image/document"
	"strake/image/name"
	"strake/image/progress"
)

// Adopt makes an image visible whose blobs another program wrote into Backends, as a build does.
// target is its manifest, or an index with a manifest for this host; refs are the tags it gets and
// takes from other images, none for an image without a name. Adopt returns when the image is
// durable; a crash before that leaves no trace of the image, and the caller's lease and what it
// keeps as they were.
//
// All documents and layer blobs must exist with the size that the manifest says: one that does not
// is ErrNotFound or ErrInvalidArgument. A layer is taken from the committed snapshot that has its
// chain ID as name and the chain ID below as parent; a layer without one is unpacked from its blob.
// Another snapshot of that name is ErrFailedPrecondition. The caller's lease is no longer needed
// afterwards.
func (s *Store) Adopt(
	ctx context.Context, target ocispec.Descriptor, refs []string,
) (Image, error) {
	full, err := tagList(refs...)
	if err != nil {
		return Image{}, err
	}
	if err := target.Digest.Validate(); err != nil {
		return Image{}, fmt.Errorf(
			"adopt image %q: %w: %w", target.Digest, err, errdefs.ErrInvalidArgument,
		)
	}
	var id digest.Digest
	err = s.run(ctx, func(ctx context.Context, o *backend.Operation) error {
		docs, err := document.Choose(ctx, target, platforms.Default(),
			func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
				b, err := readHeld(ctx, s.backend, o, d)
				if err == nil && int64(len(b)) != d.Size {
					err = fmt.Errorf(
						"blob %s has %d bytes, its descriptor says %d: %w", d.Digest, len(b),
						d.Size, errdefs.ErrInvalidArgument,
					)
				}
				return b, err
			},
		)
		if err != nil {
			return err
		}
		src, err := openStored(ctx, s.backend, o, docs)
		if err != nil {
			return err
		}
		p := publication{s: s, o: o, src: src, refs: full, report: progress.New(nil)}
		out, err := p.run(ctx)
		id = out.id
		return err
	})
	if err != nil {
		return Image{}, fmt.Errorf("adopt image %s: %w", target.Digest, err)
	}
	return s.Resolve(ctx, id.String())
}

// tagList completes tags; empty ones are left out.
func tagList(refs ...string) ([]string, error) {
	var out []string
	for _, ref := range refs {
		if ref == "" {
			continue
		}
		t, err := name.Tag(ref)
		if err != nil {
			return nil, err
		}
		out = append(out, t.String())
	}
	return out, nil
}
