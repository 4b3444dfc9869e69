package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/klauspost/compress/gzip"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"strake/image/backend"
	"strake/image/document"
	"strake/image/index"
	"strake/image/name"
	"strake/image/progress"
	"strake/image/registry"
)

// PushOptions are the parameters of Push.
type PushOptions struct {
	Auth     *Auth
	Progress Progress
}

// Pushed is what the registry now has.
type Pushed struct {
	Tag    string
	Digest digest.Digest
	// Size is that of the manifest in bytes.
	Size int64
}

// Push sends an image to the registry its name says (distribution-spec, "Push"), blobs in parallel,
// the manifest last. What was pulled or loaded with a manifest goes out byte for byte; a pulled
// index goes out whole when all of it is here, else the one manifest that is. Plain layers of
// images made here are packed with gzip once. ref is name[:tag].
func (s *Store) Push(ctx context.Context, ref string, o PushOptions) (Pushed, error) {
	tag, err := name.Tag(ref)
	if err != nil {
		return Pushed{}, err
	}
	local, tagged := s.index.Ref(tag.String())
	im, known := s.index.Image(local.ID)
	if !tagged || !known {
		return Pushed{}, fmt.Errorf(
			"an image does not exist locally with the tag: %s: %w", reference.FamiliarString(tag),
			errdefs.ErrNotFound,
		)
	}
	op, err := s.backend.Begin(ctx)
	if err != nil {
		return Pushed{}, err
	}
	p := &push{s: s, o: op, tag: tag, report: progress.New(o.Progress)}
	out, err := p.run(ctx, im, local, o.Auth)
	op.End(ctx)
	if p.packed {
		// The plain layers have served.
		if cerr := s.Collect(context.WithoutCancel(ctx)); cerr != nil {
			s.log.Warn("collect after packing layers", "error", cerr)
		}
	}
	if err != nil {
		return Pushed{}, fmt.Errorf("push %q: %w", reference.FamiliarString(tag), err)
	}
	return out, nil
}

// push is the state of one Push.
type push struct {
	s      *Store
	o      *backend.Operation
	tag    reference.NamedTagged
	report *progress.Reporter
	// packed says that plain layers were replaced by compressed ones.
	packed bool
}

func (p *push) run(
	ctx context.Context, im *index.Entry, r index.Ref, auth *Auth,
) (Pushed, error) {
	p.report.Send(progress.Event{
		Status: fmt.Sprintf("The push refers to repository [%s]", p.tag.Name()),
	})
	target, err := p.target(ctx, im, r.Target)
	if err != nil {
		return Pushed{}, err
	}
	byDigest, err := reference.WithDigest(reference.TrimNamed(p.tag), target.Digest)
	if err != nil {
		return Pushed{}, err
	}
	err = p.s.registry.Push(
		p.o.In(ctx), p.tag, target, p.s.backend.Stores().Content,
		registry.PushOptions{Auth: auth, Report: p.report},
	)
	if err != nil {
		return Pushed{}, err
	}
	// From now on the image can be pulled by this digest.
	if err := p.s.index.AddRef(ctx, im.ID, byDigest.String(), target); err != nil {
		return Pushed{}, err
	}
	p.report.Send(progress.Event{
		Status: fmt.Sprintf("%s: digest: %s size: %d", p.tag.Tag(), target.Digest, target.Size),
	})
	return Pushed{Tag: p.tag.Tag(), Digest: target.Digest, Size: target.Size}, nil
}

// target decides what to send, and holds all of it.
func (p *push) target(
	ctx context.Context, im *index.Entry, target ocispec.Descriptor,
) (ocispec.Descriptor, error) {
	if images.IsIndexType(target.MediaType) {
		err := p.holdTree(ctx, target, 0)
		if err == nil || !errdefs.IsNotFound(err) {
			return target, err
		}
		// Not all of the index is here.
	}
	if !images.IsManifestType(target.MediaType) || target.Digest == im.Rec.Manifest.Digest {
		var err error
		if target, err = p.pack(ctx, im); err != nil {
			return target, err
		}
	} // else: the form this tag came in
	return target, p.holdTree(ctx, target, 0)
}

// holdTree holds a manifest or index and all below it. What is not here is ErrNotFound.
func (p *push) holdTree(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if depth > document.MaxIndexDepth {
		return fmt.Errorf("index documents nest too deeply: %w", errdefs.ErrNotFound)
	}
	if err := p.o.Hold(ctx, []digest.Digest{d.Digest}, nil); err != nil {
		return err
	}
	b, err := p.s.backend.ReadDocument(ctx, d)
	if err != nil {
		return err
	}
	if images.IsIndexType(d.MediaType) {
		x, err := document.ParseIndex(b)
		if err != nil {
			return err
		}
		for _, m := range x.Manifests {
			if err := p.holdTree(ctx, m, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	m, err := document.ParseManifest(b)
	if err != nil {
		return err
	}
	blobs := append(document.Digests(m.Layers), m.Config.Digest)
	if err := p.o.Hold(ctx, blobs, nil); err != nil {
		return err
	}
	for _, b := range blobs {
		if _, err := p.s.backend.Stores().Content.Info(p.o.In(ctx), b); err != nil {
			return fmt.Errorf("blob %s: %w", b, err)
		}
	}
	return nil
}

// pack returns an image's manifest with all layers compressed. Images made here keep plain layers
// until they are first pushed; the packed form then replaces the plain one. The ID stays, it is the
// configuration's digest.
func (p *push) pack(ctx context.Context, im *index.Entry) (ocispec.Descriptor, error) {
	unlock, err := p.s.packing.LockContext(ctx, im.ID.String())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer unlock()
	if now, ok := p.s.index.Image(im.ID); ok {
		im = now // another push may have packed it meanwhile
	}
	if p.s.index.Received(im) {
		return im.Rec.Manifest, nil
	}
	src, err := p.s.openImage(ctx, p.o, im)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m := src.manifest
	m.Layers = slices.Clone(m.Layers)
	var changed atomic.Bool
	g, gctx := errgroup.WithContext(ctx)
	for i, l := range m.Layers {
		if l.MediaType != ocispec.MediaTypeImageLayer &&
			l.MediaType != images.MediaTypeDockerSchema2Layer {
			continue
		}
		g.Go(func() (err error) {
			m.Layers[i], err = p.compress(gctx, l)
			changed.Store(true)
			return err
		})
	}
	if err := g.Wait(); err != nil || !changed.Load() {
		return im.Rec.Manifest, err
	}
	doc, err := document.Encode(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	doc.Descriptor.MediaType = im.Rec.Manifest.MediaType
	if err := p.o.WriteDocument(
		ctx, "manifest", doc.Bytes, backend.ManifestLabels(m),
	); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := p.s.backend.Barrier(); err != nil {
		return ocispec.Descriptor{}, err
	}
	p.packed = true
	return doc.Descriptor, p.s.index.Repack(ctx, im.ID, doc.Descriptor)
}

// compress stores a plain layer compressed. Equal layers give equal blobs: no time, no name.
func (p *push) compress(
	ctx context.Context, plain ocispec.Descriptor,
) (_ ocispec.Descriptor, err error) {
	release, err := p.s.unpack.Slot(ctx)
	if err != nil {
		return plain, err
	}
	defer release()
	r, err := p.s.backend.OpenBlob(ctx, plain, 0)
	if err != nil {
		return plain, err
	}
	defer r.Close()
	w, err := p.o.NewWriter(ctx)
	if err != nil {
		return plain, err
	}
	defer func() { err = errors.Join(err, w.Close(ctx)) }()
	zw := gzip.NewWriter(w)
	if _, err := io.CopyBuffer(zw, contextReader{ctx, r}, make([]byte, 256<<10)); err != nil {
		return plain, err
	}
	if err := zw.Close(); err != nil {
		return plain, err
	}
	d, err := w.Commit(ctx, func(digest.Digest) map[string]string {
		return map[string]string{backend.UncompressedLabel: plain.Digest.String()}
	})
	d.MediaType = ocispec.MediaTypeImageLayerGzip
	if plain.MediaType == images.MediaTypeDockerSchema2Layer {
		d.MediaType = images.MediaTypeDockerSchema2LayerGzip
	}
	return d, err
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
