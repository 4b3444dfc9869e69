package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/layer"
)

// Save writes images as one uncompressed tar that is an OCI image layout (image-spec
// image-layout.md) and carries docker's manifest.json, so that OCI tools and every docker since
// 1.10 load it. A reference by name keeps that name, one by ID keeps none. Equal images give equal
// bytes.
func (s *Store) Save(ctx context.Context, w io.Writer, refs []string) error {
	if len(refs) == 0 {
		return fmt.Errorf("save images: no image named: %w", errdefs.ErrInvalidArgument)
	}
	saved, err := s.savedImages(refs)
	if err != nil {
		return err
	}
	// A lease keeps the blobs while they are read, whatever is removed meanwhile.
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	sv := &saver{s: s, tw: tar.NewWriter(w), written: map[string]bool{}, buf: make([]byte, 256<<10)}
	if err := sv.run(ctx, saved); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

// savedImage is an image to save with the names it is saved under.
type savedImage struct {
	im   *image
	refs []string // complete tags
}

// savedImages resolves what was asked for, each image once. A bare repository name means all its
// tags, as docker save has it.
func (s *Store) savedImages(refs []string) ([]*savedImage, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*savedImage
	byID := map[digest.Digest]*savedImage{}
	add := func(im *image, ref string) {
		e, ok := byID[im.id]
		if !ok {
			e = &savedImage{im: im}
			byID[im.id] = e
			out = append(out, e)
		}
		if ref == "" || slices.Contains(e.refs, ref) {
			return
		}
		if named, err := reference.ParseNamed(ref); err == nil {
			if _, tagged := named.(reference.NamedTagged); tagged {
				e.refs = append(e.refs, ref)
			}
		}
	}
	for _, ref := range refs {
		if named, err := reference.ParseNormalizedNamed(ref); err == nil &&
			reference.IsNameOnly(named) {
			found := false
			for _, full := range s.idx.tagsOf(named.Name()) {
				if im, ok := s.idx.images[s.idx.refs[full].ID]; ok && !im.rec.Removed {
					add(im, full)
					found = true
				}
			}
			if found {
				continue
			}
		}
		im, matched, err := s.idx.find(ref)
		if err != nil {
			return nil, err
		}
		add(im, matched)
	}
	return out, nil
}

// tagsOf lists the complete tags of a repository, sorted.
func (x *index) tagsOf(repo string) []string {
	var out []string
	for ref := range x.refs {
		named, err := reference.ParseNamed(ref)
		if err != nil || named.Name() != repo {
			continue
		}
		if _, tagged := named.(reference.NamedTagged); tagged {
			out = append(out, ref)
		}
	}
	slices.Sort(out)
	return out
}

type saver struct {
	s       *Store
	tw      *tar.Writer
	written map[string]bool
	buf     []byte
}

func (v *saver) run(ctx context.Context, saved []*savedImage) error {
	if err := v.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	top := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
	}
	docker := []dockerItem{}
	for _, e := range saved {
		item, err := v.image(ctx, e)
		if err != nil {
			return err
		}
		docker = append(docker, item)
		platform := e.im.rec.Platform
		d := slim(e.im.rec.Manifest)
		d.Platform = &platform
		if len(e.refs) == 0 {
			top.Manifests = append(top.Manifests, d)
		}
		for _, ref := range e.refs {
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

func (v *saver) image(ctx context.Context, e *savedImage) (dockerItem, error) {
	m, err := v.s.manifestOf(ctx, e.im.rec.Manifest)
	if err != nil {
		return dockerItem{}, err
	}
	config, err := v.s.configOf(ctx, e.im)
	if err != nil {
		return dockerItem{}, err
	}
	if err := v.s.hold(
		ctx, append(digestsOf(m.Layers), e.im.id, e.im.rec.Manifest.Digest), nil,
	); err != nil {
		return dockerItem{}, err
	}
	item := dockerItem{Config: blobName(e.im.id)}
	for _, ref := range e.refs {
		item.RepoTags = append(item.RepoTags, familiar(ref))
	}
	for _, d := range append([]ocispec.Descriptor{slim(e.im.rec.Manifest), m.Config}, m.Layers...) {
		if err := v.blob(ctx, d); err != nil {
			return dockerItem{}, err
		}
	}
	for i, d := range m.Layers {
		name, err := v.dockerLayer(ctx, d, config.RootFS.DiffIDs[i])
		if err != nil {
			return dockerItem{}, err
		}
		item.Layers = append(item.Layers, name)
	}
	return item, nil
}

func digestsOf(ds []ocispec.Descriptor) []digest.Digest {
	out := make([]digest.Digest, 0, len(ds))
	for _, d := range ds {
		out = append(out, d.Digest)
	}
	return out
}

// dockerLayer names a layer for manifest.json. Docker before 23 does not read zstd: such layers are
// added a second time, plain.
func (v *saver) dockerLayer(
	ctx context.Context, d ocispec.Descriptor, diff digest.Digest,
) (string, error) {
	kind, err := v.s.compressionOf(ctx, archiveFile{desc: d})
	if err != nil || kind != layer.Zstd {
		return blobName(d.Digest), err
	}
	name := blobName(diff)
	if v.written[name] {
		return name, nil
	}
	size, err := v.plain(ctx, d, io.Discard)
	if err != nil {
		return "", err
	}
	if err := v.header(name, size); err != nil {
		return "", err
	}
	_, err = v.plain(ctx, d, v.tw)
	return name, err
}

func (v *saver) plain(ctx context.Context, d ocispec.Descriptor, w io.Writer) (int64, error) {
	r, err := v.s.openBlob(ctx, d)
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

func (v *saver) blob(ctx context.Context, d ocispec.Descriptor) error {
	name := blobName(d.Digest)
	if v.written[name] {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ra, err := v.s.content.ReaderAt(ctx, d)
	if err != nil {
		return fmt.Errorf("read blob %s: %w", d.Digest, err)
	}
	defer ra.Close()
	if err := v.header(name, ra.Size()); err != nil {
		return err
	}
	_, err = io.CopyBuffer(
		onlyWriter{v.tw}, onlyReader{io.NewSectionReader(ra, 0, ra.Size())}, v.buf,
	)
	return err
}

func (v *saver) file(name string, b []byte) error {
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
