package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/document"
	"strake/image/layer"
	"strake/image/name"
)

// Entry is an image to write.
type Entry struct {
	Source document.Source
	// Names are the complete tags that it gets in the archive.
	Names []string
}

// Write writes images as one uncompressed tar that is an OCI image layout (image-spec
// image-layout.md) and carries docker's manifest.json, so that OCI tools and every docker since
// 1.10 load it. Equal images give equal bytes.
func Write(ctx context.Context, w io.Writer, entries []Entry) error {
	v := &saver{tw: tar.NewWriter(w), written: map[string]bool{}, buf: make([]byte, 256<<10)}
	return v.run(ctx, entries)
}

// onlyWriter and onlyReader hide ReadFrom and WriteTo, so that io.CopyBuffer uses the buffer it is
// given.
type onlyWriter struct{ io.Writer }

type saver struct {
	tw      *tar.Writer
	written map[string]bool
	buf     []byte
}

func (v *saver) run(ctx context.Context, entries []Entry) error {
	if err := v.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	top := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
	}
	docker := []dockerItem{}
	for _, e := range entries {
		item, d, err := v.image(ctx, e)
		if err != nil {
			return err
		}
		docker = append(docker, item)
		if len(e.Names) == 0 {
			top.Manifests = append(top.Manifests, d)
		}
		for _, ref := range e.Names {
			named, err := reference.ParseNamed(ref)
			if err != nil {
				return err
			}
			d.Annotations = map[string]string{"io.containerd.image.name": ref}
			if t, ok := named.(reference.Tagged); ok {
				d.Annotations[ocispec.AnnotationRefName] = t.Tag()
			}
			top.Manifests = append(top.Manifests, d)
		}
	}
	for _, doc := range []struct {
		name string
		v    any
	}{{"manifest.json", docker}, {"index.json", top}} {
		b, err := json.Marshal(doc.v)
		if err != nil {
			return err
		}
		if err := v.file(doc.name, b); err != nil {
			return err
		}
	}
	return v.tw.Close()
}

// image writes the blobs of an image, and returns what manifest.json and index.json say of it.
func (v *saver) image(
	ctx context.Context, e Entry,
) (item dockerItem, d ocispec.Descriptor, err error) {
	manifest, err := e.Source.Manifest(ctx)
	if err != nil {
		return item, d, err
	}
	m, err := document.ParseManifest(manifest.Bytes)
	if err != nil {
		return item, d, err
	}
	config, err := e.Source.Config(ctx)
	if err != nil {
		return item, d, err
	}
	c, err := document.ParseConfig(config)
	if err != nil {
		return item, d, err
	}
	if len(m.Layers) != len(c.RootFS.DiffIDs) {
		return item, d, fmt.Errorf(
			"image has %d layers in its configuration and %d in its manifest: %w",
			len(c.RootFS.DiffIDs), len(m.Layers), errdefs.ErrInvalidArgument,
		)
	}
	item.Config = blobName(m.Config.Digest)
	for _, ref := range e.Names {
		item.RepoTags = append(item.RepoTags, name.Familiar(ref))
	}
	d = document.Slim(manifest.Descriptor)
	if err := v.file(blobName(d.Digest), manifest.Bytes); err != nil {
		return item, d, err
	}
	if err := v.file(item.Config, config); err != nil {
		return item, d, err
	}
	for i := range m.Layers {
		if err := v.layer(ctx, e.Source, i, m.Layers[i]); err != nil {
			return item, d, err
		}
	}
	for i := range m.Layers {
		name, err := v.dockerLayer(ctx, e.Source, i, m.Layers[i], c.RootFS.DiffIDs[i])
		if err != nil {
			return item, d, err
		}
		item.Layers = append(item.Layers, name)
	}
	platform := c.Platform()
	d.Platform = &platform
	return item, d, nil
}

// dockerLayer names a layer for manifest.json. Docker before 23 does not read zstd: such layers are
// added a second time, plain.
func (v *saver) dockerLayer(
	ctx context.Context, s document.Source, i int, d ocispec.Descriptor, diff digest.Digest,
) (string, error) {
	r, err := s.Layer(ctx, i, 0)
	if err != nil {
		return "", err
	}
	kind, err := detect(r)
	r.Close()
	if err != nil || kind != layer.Zstd {
		return blobName(d.Digest), err
	}
	name := blobName(diff)
	if v.written[name] {
		return name, nil
	}
	size, err := v.plain(ctx, s, i, io.Discard)
	if err != nil {
		return "", err
	}
	if err := v.header(name, size); err != nil {
		return "", err
	}
	_, err = v.plain(ctx, s, i, v.tw)
	return name, err
}

// plain writes a layer unpacked and returns its size.
func (v *saver) plain(ctx context.Context, s document.Source, i int, w io.Writer) (int64, error) {
	r, err := s.Layer(ctx, i, 0)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	p, _, err := layer.Decompress(r)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	return io.CopyBuffer(onlyWriter{w}, onlyReader{p}, v.buf)
}

// layer writes a layer's blob as it is.
func (v *saver) layer(ctx context.Context, s document.Source, i int, d ocispec.Descriptor) error {
	name := blobName(d.Digest)
	if v.written[name] {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := s.Layer(ctx, i, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := v.header(name, d.Size); err != nil {
		return err
	}
	_, err = io.CopyBuffer(onlyWriter{v.tw}, onlyReader{r}, v.buf)
	return err
}

// file writes a document, once.
func (v *saver) file(name string, b []byte) error {
	if v.written[name] {
		return nil
	}
	if err := v.header(name, int64(len(b))); err != nil {
		return err
	}
	_, err := v.tw.Write(b)
	return err
}

func (v *saver) header(name string, size int64) error {
	v.written[name] = true
	return v.tw.WriteHeader(
		&tar.Header{
			Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0),
			Format: tar.FormatPAX,
		},
	)
}
