package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/klauspost/compress/gzip"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
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
	tag, err := parseTag(ref)
	if err != nil {
		return Pushed{}, err
	}
	s.mu.RLock()
	local, tagged := s.idx.refs[tag.String()]
	im, known := s.idx.images[local.ID]
	s.mu.RUnlock()
	if !tagged || !known {
		return Pushed{}, fmt.Errorf(
			"an image does not exist locally with the tag: %s: %w", reference.FamiliarString(tag),
			errdefs.ErrNotFound,
		)
	}
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return Pushed{}, err
	}
	r := s.registry(ctx, tag, o.Auth)
	defer r.close()
	p := &push{s: s, tag: tag, report: &reporter{fn: o.Progress}}
	out, err := p.run(ctx, r.resolver, im, local)
	done()
	if p.packed {
		// The plain layers have served.
		if cerr := s.collect(context.WithoutCancel(ctx)); cerr != nil {
			s.log.Warn("collect after packing layers", "error", cerr)
		}
	}
	if err != nil {
		return Pushed{}, fmt.Errorf(
			"push %q: %w", reference.FamiliarString(tag), remoteError(err, tag),
		)
	}
	return out, nil
}

// push is the state of one Push.
type push struct {
	s      *Store
	tag    reference.NamedTagged
	report *reporter
	pusher remotes.Pusher
	// packed says that plain layers were replaced by compressed ones.
	packed bool
}

func (p *push) run(
	ctx context.Context, resolver remotes.Resolver, im *image, r refRecord,
) (Pushed, error) {
	p.report.send(Event{Status: fmt.Sprintf("The push refers to repository [%s]", p.tag.Name())})
	target, err := p.target(ctx, im, r.Target)
	if err != nil {
		return Pushed{}, err
	}
	if p.pusher, err = resolver.Pusher(ctx, p.tag.String()+"@"+target.Digest.String()); err != nil {
		return Pushed{}, err
	}
	if err := p.tree(ctx, target, 0); err != nil {
		return Pushed{}, err
	}
	byDigest, err := reference.WithDigest(reference.TrimNamed(p.tag), target.Digest)
	if err != nil {
		return Pushed{}, err
	}
	if err := p.remember(ctx, im.id, byDigest.String(), target); err != nil {
		return Pushed{}, err
	}
	p.report.send(
		Event{
			Status: fmt.Sprintf("%s: digest: %s size: %d", p.tag.Tag(), target.Digest, target.Size),
		},
	)
	return Pushed{Tag: p.tag.Tag(), Digest: target.Digest, Size: target.Size}, nil
}

// remember records the digest under which the image can be pulled from now on.
func (p *push) remember(
	ctx context.Context, id digest.Digest, ref string, target ocispec.Descriptor,
) error {
	p.s.commitMu.Lock()
	defer p.s.commitMu.Unlock()
	p.s.mu.RLock()
	_, known := p.s.idx.images[id]
	p.s.mu.RUnlock()
	if !known {
		return nil // removed while it was pushed
	}
	_, err := p.s.apply(
		ctx, change{refs: map[string]refRecord{ref: {ID: id, Target: slim(target)}}},
	)
	return err
}

// target decides what to send.
func (p *push) target(
	ctx context.Context, im *image, target ocispec.Descriptor,
) (ocispec.Descriptor, error) {
	if images.IsIndexType(target.MediaType) && p.complete(ctx, target, 0) {
		return target, nil
	}
	if images.IsManifestType(target.MediaType) && target.Digest != im.rec.Manifest.Digest {
		return target, nil // the form this tag came in
	}
	d, err := p.s.packed(ctx, im)
	p.packed = err == nil && d.Digest != im.rec.Manifest.Digest
	return d, err
}

// complete says whether everything below an index is stored here.
func (p *push) complete(ctx context.Context, d ocispec.Descriptor, depth int) bool {
	if depth > 4 {
		return false
	}
	b, err := p.s.readBlob(ctx, d)
	if err != nil {
		return false
	}
	if images.IsIndexType(d.MediaType) {
		var x ocispec.Index
		if json.Unmarshal(b, &x) != nil {
			return false
		}
		for _, m := range x.Manifests {
			if !p.complete(ctx, m, depth+1) {
				return false
			}
		}
		return true
	}
	m, err := parseManifest(b)
	if err != nil {
		return false
	}
	for _, l := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if _, err := p.s.content.Info(ctx, l.Digest); err != nil {
			return false
		}
	}
	return true
}

// tree sends what is below a descriptor and then the document itself.
func (p *push) tree(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if err := p.s.hold(ctx, []digest.Digest{d.Digest}, nil); err != nil {
		return err
	}
	b, err := p.s.readBlob(ctx, d)
	if err != nil {
		return err
	}
	if images.IsIndexType(d.MediaType) {
		var x ocispec.Index
		if err := json.Unmarshal(b, &x); err != nil {
			return err
		}
		for _, m := range x.Manifests {
			if err := p.tree(ctx, slim(m), depth+1); err != nil {
				return err
			}
		}
		return p.send(ctx, d, nil)
	}
	m, err := parseManifest(b)
	if err != nil {
		return err
	}
	if err := p.s.hold(ctx, append(digestsOf(m.Layers), m.Config.Digest), nil); err != nil {
		return err
	}
	for _, l := range m.Layers {
		p.report.send(Event{ID: short(l.Digest), Status: "Preparing"})
	}
	g, gctx := errgroup.WithContext(ctx)
	sent := map[digest.Digest]bool{}
	for _, l := range m.Layers {
		if sent[l.Digest] {
			continue
		}
		sent[l.Digest] = true
		l.URLs = nil
		g.Go(func() error {
			if err := p.s.uploads.Acquire(gctx, 1); err != nil {
				return err
			}
			defer p.s.uploads.Release(1)
			return p.send(
				gctx, l, &meter{r: p.report, id: short(l.Digest), status: "Pushing", total: l.Size},
			)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := p.send(ctx, m.Config, nil); err != nil {
		return err
	}
	return p.send(ctx, d, nil)
}

// send sends one blob or document unless the registry has it. Events are for layers only.
func (p *push) send(ctx context.Context, d ocispec.Descriptor, m *meter) error {
	id := ""
	if m != nil {
		id = m.id
	}
	d = p.withSource(ctx, d)
	status := "Pushed"
	err := retry(ctx, p.report, id, func() error {
		err := p.upload(ctx, d, m)
		if errdefs.IsAlreadyExists(err) {
			status = "Layer already exists"
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", kindOf(d), short(d.Digest), err)
	}
	if m != nil {
		p.report.send(Event{ID: id, Status: status})
	}
	return nil
}

func kindOf(d ocispec.Descriptor) string {
	switch {
	case images.IsManifestType(d.MediaType), images.IsIndexType(d.MediaType):
		return "manifest"
	case images.IsConfigType(d.MediaType):
		return "configuration"
	}
	return "layer"
}

// withSource tells the pusher from which repositories of the same registry a blob came, so that it
// can be mounted instead of sent (distribution-spec, "Mounting a blob from another repository").
func (p *push) withSource(ctx context.Context, d ocispec.Descriptor) ocispec.Descriptor {
	key := "containerd.io/distribution.source." + reference.Domain(p.tag)
	info, err := p.s.content.Info(ctx, d.Digest)
	if err != nil || info.Labels[key] == "" {
		return d
	}
	d.Annotations = maps.Clone(d.Annotations)
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[key] = info.Labels[key]
	return d
}

func (p *push) upload(ctx context.Context, d ocispec.Descriptor, m *meter) error {
	w, err := p.pusher.Push(ctx, d)
	if err != nil {
		return err
	}
	defer w.Close()
	ra, err := p.s.content.ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	defer ra.Close()
	var r io.Reader = io.NewSectionReader(ra, 0, ra.Size())
	if m != nil {
		m.current, m.sent = 0, 0
		r = &countReader{r, m.add}
	}
	// content.Copy starts the stream again when the pusher says that the connection was replaced.
	return content.Copy(
		ctx, w,
		&rewinder{
			Reader: r,
			at:     func(off int64) io.Reader { return io.NewSectionReader(ra, off, ra.Size()-off) },
		},
		d.Size, d.Digest,
	)
}

// rewinder is a reader that content.Copy can set back.
type rewinder struct {
	io.Reader
	at func(off int64) io.Reader
}

func (r *rewinder) Seek(off int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, fmt.Errorf("seek whence %d: %w", whence, errdefs.ErrInvalidArgument)
	}
	r.Reader = r.at(off)
	return off, nil
}

// packed returns an image's manifest with all layers compressed. Images made here keep plain layers
// until they are first pushed; the packed form then replaces the plain one. The ID stays, it is the
// configuration's digest.
func (s *Store) packed(ctx context.Context, im *image) (ocispec.Descriptor, error) {
	unlock, err := s.flights.lockContext(ctx, "pack "+im.id.String())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer unlock()
	s.mu.RLock()
	if now, ok := s.idx.images[im.id]; ok {
		im = now // another push may have packed it meanwhile
	}
	received := false
	for ref, r := range s.idx.refs {
		if r.ID != im.id || r.Target.Digest != im.rec.Manifest.Digest {
			continue
		}
		if named, err := reference.ParseNamed(ref); err == nil {
			_, byDigest := named.(reference.Digested)
			received = received || byDigest
		}
	}
	s.mu.RUnlock()
	m, err := s.manifestOf(ctx, im.rec.Manifest)
	if err != nil || received {
		return im.rec.Manifest, err
	}
	if err := s.hold(
		ctx, append(digestsOf(m.Layers), m.Config.Digest, im.rec.Manifest.Digest), nil,
	); err != nil {
		return ocispec.Descriptor{}, err
	}
	layers := append([]ocispec.Descriptor{}, m.Layers...)
	changed := false
	g, gctx := errgroup.WithContext(ctx)
	for i, l := range layers {
		if l.MediaType != ocispec.MediaTypeImageLayer &&
			l.MediaType != images.MediaTypeDockerSchema2Layer {
			continue
		}
		changed = true
		g.Go(func() (err error) {
			layers[i], err = s.pack(gctx, l)
			return err
		})
	}
	if err := g.Wait(); err != nil || !changed {
		return im.rec.Manifest, err
	}
	m.Layers, m.Versioned = layers, specs.Versioned{SchemaVersion: 2}
	b, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := s.writeBlob(ctx, "manifest", b, manifestLabels(m))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d.MediaType = im.rec.Manifest.MediaType
	return d, s.replaceManifest(ctx, im, d)
}

// replaceManifest makes the packed form the image's own wherever the plain one was.
func (s *Store) replaceManifest(ctx context.Context, im *image, d ocispec.Descriptor) error {
	if err := s.barrier(); err != nil {
		return err
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.mu.RLock()
	now, known := s.idx.images[im.id]
	c := change{images: map[digest.Digest]imageRecord{}, refs: map[string]refRecord{}}
	if known {
		rec, old := now.rec, now.rec.Manifest.Digest
		for ref, r := range s.idx.refs {
			if r.ID == im.id && r.Target.Digest == old {
				c.refs[ref] = refRecord{ID: im.id, Target: d}
			}
		}
		if rec.Target.Digest == old {
			rec.Target = d
		}
		rec.Manifest = d
		c.images[im.id] = rec
	}
	s.mu.RUnlock()
	if !known {
		return nil
	}
	_, err := s.apply(ctx, c)
	return err
}

// pack compresses one plain layer. Equal layers give equal blobs: no time, no name.
func (s *Store) pack(
	ctx context.Context, plain ocispec.Descriptor,
) (_ ocispec.Descriptor, err error) {
	if err := s.unpacks.Acquire(ctx, 1); err != nil {
		return plain, err
	}
	defer s.unpacks.Release(1)
	r, err := s.openBlob(ctx, plain)
	if err != nil {
		return plain, err
	}
	defer r.Close()
	ref := "pack-" + plain.Digest.String() + fmt.Sprint(time.Now().UnixNano())
	w, err := content.OpenWriter(ctx, s.content, content.WithRef(ref))
	if err != nil {
		return plain, err
	}
	defer func() {
		w.Close()
		if err != nil {
			if aerr := s.content.Abort(context.WithoutCancel(ctx), ref); aerr != nil &&
				!errdefs.IsNotFound(aerr) {
				err = errors.Join(err, aerr)
			}
		}
	}()
	zw := gzip.NewWriter(w)
	if _, err := io.CopyBuffer(
		onlyWriter{zw}, onlyReader{contextReader{ctx, r}}, make([]byte, 256<<10),
	); err != nil {
		return plain, err
	}
	if err := zw.Close(); err != nil {
		return plain, err
	}
	st, err := w.Status()
	if err != nil {
		return plain, err
	}
	d := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayerGzip, Digest: w.Digest(), Size: st.Offset,
	}
	if plain.MediaType == images.MediaTypeDockerSchema2Layer {
		d.MediaType = images.MediaTypeDockerSchema2LayerGzip
	}
	if err := s.hold(ctx, []digest.Digest{d.Digest}, nil); err != nil {
		return plain, err
	}
	err = w.Commit(
		ctx, d.Size, d.Digest,
		content.WithLabels(map[string]string{uncompressedLabel: plain.Digest.String()}),
	)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return plain, err
	}
	return d, nil
}

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
