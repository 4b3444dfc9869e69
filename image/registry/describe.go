package registry

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/document"
)

// Description is what a registry says of an image.
type Description struct {
	// Target is the manifest or index that the reference names.
	Target ocispec.Descriptor
	// Platforms are those of the image, in the order of its index.
	Platforms []ocispec.Platform
}

// Describe asks a registry for an image without getting its layers. named is complete, with a tag
// or a digest. Errors are those of Pull.
func (c *Client) Describe(
	ctx context.Context, named reference.Named, auth *Auth,
) (Description, error) {
	im := &Image{
		conn: c.connect(ctx, named, auth), named: named,
		limit: c.cfg.StallTimeout, wait: c.cfg.RetryWait,
	}
	defer im.Close()
	target, err := im.resolve(ctx)
	if err != nil {
		return Description{}, err
	}
	raw, err := im.fetch(ctx, target)
	if err != nil {
		return Description{}, err
	}
	out := Description{Target: document.Slim(target)}
	if images.IsIndexType(target.MediaType) {
		x, err := document.ParseIndex(raw)
		if err != nil {
			return Description{}, fmt.Errorf("%s: %w", target.Digest, err)
		}
		for _, m := range x.Manifests {
			if m.Platform != nil {
				out.Platforms = append(out.Platforms, *m.Platform)
			}
		}
		return out, nil
	}
	m, err := document.ParseImage(raw)
	if err != nil {
		return Description{}, fmt.Errorf("%s: %w", target.Digest, err)
	}
	if raw, err = im.fetch(ctx, m.Config); err != nil {
		return Description{}, err
	}
	config, err := document.ParseConfig(raw)
	if err != nil {
		return Description{}, fmt.Errorf("%s: %w", m.Config.Digest, err)
	}
	out.Platforms = []ocispec.Platform{config.Platform()}
	return out, nil
}
