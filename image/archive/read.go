package archive

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/document"
	"strake/image/layer"
	"strake/image/name"
)

// Blobs is where the large files of an archive go, and where they are read again.
type Blobs interface {
	// Put stores size bytes as a blob of whatever digest they have; buf is used to copy.
	Put(ctx context.Context, r io.Reader, size int64, buf []byte) (ocispec.Descriptor, error)
	// Open opens a stored blob at an offset. The caller closes it.
	Open(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// ReadOptions are the parameters of Read.
type ReadOptions struct {
	// Platform selects from multi-platform archives; nil means this host's.
	Platform *ocispec.Platform
	// MaxFileBytes bounds each file.
	MaxFileBytes int64
}

// Read reads an archive of images: what docker save writes (every form since manifest.json exists,
// docker 1.10), an OCI image layout (image-spec image-layout.md) in a tar, or both in one, plain or
// compressed. The images live as long as blobs keeps what Read put there. Errors of the archive are
// ErrInvalidArgument; those that concern one image come from its methods.
func Read(ctx context.Context, r io.Reader, blobs Blobs, o ReadOptions) ([]*Image, error) {
	plain, _, err := layer.Decompress(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	a := &files{
		blobs: blobs, limit: o.MaxFileBytes, files: map[string]file{}, links: map[string]string{},
	}
	if err := a.read(ctx, plain); err != nil {
		return nil, err
	}
	items, err := a.items(ctx, o.Platform)
	if err != nil {
		return nil, err
	}
	var out []*Image
	for _, it := range items {
		out = append(out, &Image{a: a, item: it})
	}
	return out, nil
}

// Image is one image of an archive; a document.Indexed.
type Image struct {
	a    *files
	item item
}

// Refs are the names that the archive gives the image, complete and as docker shows them. docker
// ignores none, so a bad one is ErrInvalidArgument.
func (im *Image) Refs() (refs, shown []string, err error) {
	for _, n := range im.item.names {
		t, err := name.Tag(n)
		if err != nil {
			return nil, nil, fmt.Errorf("archive: %w", err)
		}
		refs, shown = append(refs, t.String()), append(shown, reference.FamiliarString(t))
	}
	return refs, shown, nil
}

// Index implements document.Indexed.
func (im *Image) Index() []document.Document { return im.item.index }

// Config implements document.Source.
func (im *Image) Config(ctx context.Context) ([]byte, error) {
	return im.a.bytes(ctx, im.item.config)
}

// Layer implements document.Source.
func (im *Image) Layer(ctx context.Context, i int, offset int64) (io.ReadCloser, error) {
	return im.a.open(ctx, im.item.layers[i], offset)
}

// Manifest implements document.Source: the one in the archive, or one made from what manifest.json
// says.
func (im *Image) Manifest(ctx context.Context) (document.Document, error) {
	if im.item.manifest.Bytes != nil {
		return im.item.manifest, nil
	}
	var layers []ocispec.Descriptor
	for _, f := range im.item.layers {
		d := f.desc
		kind, err := im.a.compression(ctx, f)
		if err != nil {
			return document.Document{}, err
		}
		if d.MediaType, err = layerMediaType(kind); err != nil {
			return document.Document{}, err
		}
		layers = append(layers, d)
	}
	config, err := im.Config(ctx)
	if err != nil {
		return document.Document{}, err
	}
	return document.NewManifest(config, layers)
}

// compression looks at the first bytes of a layer.
func (a *files) compression(ctx context.Context, f file) (layer.Compression, error) {
	r, err := a.open(ctx, f, 0)
	if err != nil {
		return layer.Plain, err
	}
	defer r.Close()
	return detect(r)
}

// detect looks at the first bytes of a stream.
func detect(r io.Reader) (layer.Compression, error) {
	var head [6]byte
	n, err := io.ReadFull(r, head[:])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
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
		"layer is packed with %s, for which images have no media type (want plain, gzip or "+
			"zstd): %w",
		c, errdefs.ErrInvalidArgument,
	)
}
