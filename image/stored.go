package image

import (
	"context"
	"io"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/backend"
	"strake/image/document"
	"strake/image/index"
)

// stored is an image whose blobs are here and kept by an operation; a document.Indexed.
type stored struct {
	b        *backend.Backend
	docs     []document.Document // from what a reference names down to the manifest
	manifest ocispec.Manifest
}

// openStored takes the documents of an image, and holds what the manifest names.
func openStored(
	ctx context.Context, b *backend.Backend, o *backend.Operation, docs []document.Document,
) (*stored, error) {
	m, err := document.ParseManifest(docs[len(docs)-1].Bytes)
	if err != nil {
		return nil, err
	}
	blobs := append(document.Digests(m.Layers), m.Config.Digest)
	return &stored{b: b, docs: docs, manifest: m}, o.Hold(ctx, blobs, nil)
}

// openImage is openStored for an image of the index.
func (s *Store) openImage(
	ctx context.Context, o *backend.Operation, im *index.Entry,
) (*stored, error) {
	b, err := readHeld(ctx, s.backend, o, im.Rec.Manifest)
	if err != nil {
		return nil, err
	}
	return openStored(
		ctx, s.backend, o, []document.Document{{Descriptor: im.Rec.Manifest, Bytes: b}},
	)
}

// readHeld holds and reads a document that has to be here. Only its digest counts: records of older
// versions may have the size that an archive said.
func readHeld(
	ctx context.Context, from *backend.Backend, o *backend.Operation, d ocispec.Descriptor,
) ([]byte, error) {
	if err := o.Hold(ctx, []digest.Digest{d.Digest}, nil); err != nil {
		return nil, err
	}
	return from.ReadDocument(ctx, d)
}

// Manifest implements document.Source.
func (st *stored) Manifest(context.Context) (document.Document, error) {
	return st.docs[len(st.docs)-1], nil
}

// Index implements document.Indexed.
func (st *stored) Index() []document.Document { return st.docs[:len(st.docs)-1] }

// Config implements document.Source.
func (st *stored) Config(ctx context.Context) ([]byte, error) {
	return st.b.ReadDocument(ctx, st.manifest.Config)
}

// Layer implements document.Source.
func (st *stored) Layer(ctx context.Context, i int, offset int64) (io.ReadCloser, error) {
	return st.b.OpenBlob(ctx, st.manifest.Layers[i], offset)
}
