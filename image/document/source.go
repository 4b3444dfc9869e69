// Package document is what an image consists of outside of any store: its documents (image-spec)
// and Source, the read-only view that everything which brings an image implements.
//
// Everything here but Read and Choose is a pure function of bytes.
//
// Not for: schema 1 manifests, which carry no verifiable configuration; artifacts that are no
// container images.
//
// Tested by tables of documents, of indexes with the platform that each wants, and by a fuzzer of
// the parsers.
package document

import (
	"context"
	"io"
)

// Source is one image, read-only: in a registry, in an archive, in a content store, or about to be
// made. An implementer gives the documents as they are and the layers as streams; what can be
// derived from those (digests, sizes, platform, chain IDs) is derived by those who read it.
//
// The slices belong to the source and must not be changed. Methods are called by one goroutine at a
// time, but Layer, which may be called concurrently for different layers.
type Source interface {
	// Manifest is the manifest that joins the other two. Its media type is set.
	Manifest(ctx context.Context) (Document, error)
	// Config is the configuration document.
	Config(ctx context.Context) ([]byte, error)
	// Layer opens the manifest's i-th layer blob at a byte offset. The caller closes it, and checks
	// that what it read has the size and the digest of the manifest.
	Layer(ctx context.Context, i int, offset int64) (io.ReadCloser, error)
}

// Indexed is a Source that was found through an index.
type Indexed interface {
	Source
	// Index lists the index documents above the manifest, from the one that the image's reference
	// names to the one that names the manifest; empty if the reference names the manifest.
	Index() []Document
}

// IndexOf is the Index of a source, empty for those that have none.
func IndexOf(s Source) []Document {
	if x, ok := s.(Indexed); ok {
		return x.Index()
	}
	return nil
}
