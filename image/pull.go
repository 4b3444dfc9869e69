package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// PullOptions are the parameters of Pull.
type PullOptions struct {
	// Platform selects from multi-platform images; nil means this host's.
	Platform *ocispec.Platform
	Auth     *Auth
	Progress Progress
}

// Pull fetches an image from its registry (distribution-spec, "Pull") and unpacks it. Layers are
// fetched and unpacked in parallel; blobs that are here already are not fetched, interrupted ones
// are continued. Errors: ErrNotFound, ErrPermissionDenied, ErrInvalidArgument (the reference, or
// what the registry sent), and those of the network.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	named, err := parseNamed(ref)
	if err != nil {
		return Image{}, err
	}
	leased, done, err := s.begin(ctx)
	if err != nil {
		return Image{}, err
	}
	r := s.registry(leased, named, o.Auth)
	defer r.close()
	p := &pull{
		s: s, named: named, platform: o.Platform, report: &reporter{fn: o.Progress},
		unleased: s.context(ctx),
	}
	p.lease, _ = leases.FromContext(leased)
	if err := p.run(leased, r.resolver); err != nil {
		s.abandon(ctx, done)
		return Image{}, fmt.Errorf("pull %q: %w", reference.FamiliarString(named), err)
	}
	done()
	return s.Resolve(ctx, named.String())
}

// pull is the state of one Pull.
type pull struct {
	s        *Store
	named    reference.Named
	platform *ocispec.Platform
	report   *reporter
	// unleased is the operation's context without its lease: what is written under it outlives the
	// operation.
	unleased context.Context
	lease    string
	fetcher  remotes.Fetcher
}

func (p *pull) run(ctx context.Context, resolver remotes.Resolver) error {
	name, target, err := resolver.Resolve(ctx, p.named.String())
	if err != nil {
		return remoteError(err, p.named)
	}
	if d, ok := p.named.(reference.Digested); ok && d.Digest() != target.Digest {
		return fmt.Errorf(
			"registry resolved it to %s: %w", target.Digest, errdefs.ErrInvalidArgument,
		)
	}
	if p.fetcher, err = resolver.Fetcher(ctx, name); err != nil {
		return err
	}
	p.report.send(Event{ID: p.label(), Status: "Pulling from " + reference.Path(p.named)})
	n := newImage{target: slim(target), refs: []string{p.named.String()}}
	if byDigest, err := reference.WithDigest(
		reference.TrimNamed(p.named), target.Digest,
	); err == nil && byDigest.String() != p.named.String() {
		n.refs = append(n.refs, byDigest.String())
	}
	if n.manifest, err = p.choose(ctx, n.target, 0); err != nil {
		return err
	}
	fresh, err := p.image(ctx, &n)
	if err != nil {
		return remoteError(err, p.named)
	}
	if _, _, err := p.s.publish(ctx, n); err != nil {
		return err
	}
	p.report.send(Event{Status: "Digest: " + target.Digest.String()})
	status := "Status: Image is up to date for "
	if fresh {
		status = "Status: Downloaded newer image for "
	}
	p.report.send(Event{Status: status + reference.FamiliarString(p.named)})
	return nil
}

// label is what dockerd puts before the first line: the tag or digest.
func (p *pull) label() string {
	switch n := p.named.(type) {
	case reference.Tagged:
		return n.Tag()
	case reference.Digested:
		return n.Digest().String()
	}
	return ""
}

// choose walks from what a reference names to the manifest for the wanted platform, storing the
// index documents on the way.
func (p *pull) choose(
	ctx context.Context, d ocispec.Descriptor, depth int,
) (ocispec.Descriptor, error) {
	if images.IsManifestType(d.MediaType) {
		return d, nil
	}
	if !images.IsIndexType(d.MediaType) || depth > 3 {
		return d, fmt.Errorf(
			"registry names media type %q, which is no image this engine can run: %w", d.MediaType,
			errdefs.ErrInvalidArgument,
		)
	}
	b, err := p.document(ctx, d)
	if err != nil {
		return d, remoteError(err, p.named)
	}
	var x ocispec.Index
	if err := json.Unmarshal(b, &x); err != nil {
		return d, fmt.Errorf("index %s: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	if _, err := p.s.writeBlob(ctx, "index", b, indexLabels(x)); err != nil {
		return d, err
	}
	match := platforms.Default()
	if p.platform != nil {
		match = platforms.Only(*p.platform)
	}
	best, err := selectManifest(x.Manifests, match)
	if err != nil {
		return d, err
	}
	return p.choose(ctx, slim(best), depth+1)
}

// selectManifest picks the best match. Attestations ("unknown/unknown") match no platform.
func selectManifest(
	ms []ocispec.Descriptor, match platforms.MatchComparer,
) (ocispec.Descriptor, error) {
	var fit []ocispec.Descriptor
	for _, m := range ms {
		if !images.IsManifestType(m.MediaType) && !images.IsIndexType(m.MediaType) ||
			m.Digest.Validate() != nil {
			continue
		}
		if m.Platform == nil && len(ms) == 1 || m.Platform != nil && match.Match(*m.Platform) {
			fit = append(fit, m)
		}
	}
	if len(fit) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf(
			"no matching manifest for the platform in the manifest list entries: %w",
			errdefs.ErrNotFound,
		)
	}
	slices.SortStableFunc(fit, func(a, b ocispec.Descriptor) int {
		switch {
		case a.Platform == nil || b.Platform == nil:
			return 0
		case match.Less(*a.Platform, *b.Platform):
			return -1
		case match.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return fit[0], nil
}

// document fetches a small blob or manifest whole, from the store when it is there, and verifies
// it.
func (p *pull) document(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if err := p.s.hold(ctx, []digest.Digest{d.Digest}, nil); err != nil {
		return nil, err
	}
	if b, err := p.s.readBlob(ctx, d); err == nil {
		return b, nil
	}
	if d.Size > maxJSON {
		return nil, fmt.Errorf(
			"%s has %d bytes where a document of at most %d belongs: %w", d.Digest, d.Size, maxJSON,
			errdefs.ErrInvalidArgument,
		)
	}
	var b []byte
	err := p.retry(ctx, "", func() error {
		rc, err := p.fetcher.Fetch(ctx, d)
		if err != nil {
			return err
		}
		defer rc.Close()
		b, err = io.ReadAll(io.LimitReader(rc, maxJSON))
		return err
	})
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest {
		return nil, fmt.Errorf(
			"registry sent a document with digest %s for %s: %w", got, d.Digest,
			errdefs.ErrInvalidArgument,
		)
	}
	return b, nil
}

// image fetches everything below the manifest. It reports whether anything was new.
func (p *pull) image(ctx context.Context, n *newImage) (fresh bool, err error) {
	mb, err := p.document(ctx, n.manifest)
	if err != nil {
		return false, err
	}
	m, err := parseManifest(mb)
	if err != nil {
		return false, err
	}
	if !images.IsConfigType(m.Config.MediaType) {
		return false, fmt.Errorf(
			"manifest's configuration has media type %q, which is no container image: %w",
			m.Config.MediaType, errdefs.ErrInvalidArgument,
		)
	}
	cb, err := p.document(ctx, m.Config)
	if err != nil {
		return false, err
	}
	if n.blob, err = parseConfig(cb); err != nil {
		return false, err
	}
	if n.blob.OS != "linux" {
		return false, fmt.Errorf(
			"image is for operating system %q, this engine runs linux: %w", n.blob.OS,
			errdefs.ErrInvalidArgument,
		)
	}
	if len(m.Layers) != len(n.blob.RootFS.DiffIDs) {
		return false, fmt.Errorf(
			"manifest has %d layers, its configuration %d: %w", len(m.Layers),
			len(n.blob.RootFS.DiffIDs), errdefs.ErrInvalidArgument,
		)
	}
	n.config = slim(m.Config)
	p.s.mu.RLock()
	old, known := p.s.idx.images[m.Config.Digest]
	p.s.mu.RUnlock()
	fresh = !known || old.rec.Removed
	if n.layers, err = p.layers(ctx, m.Layers, n.blob.RootFS.DiffIDs); err != nil {
		return false, err
	}
	if _, err := p.s.writeBlob(ctx, "config", cb, configLabels(n.blob.RootFS.DiffIDs)); err != nil {
		return false, err
	}
	_, err = p.s.writeBlob(ctx, "manifest", mb, manifestLabels(m))
	return fresh, err
}

// layers fetches and unpacks all layers at once; unpacking one starts when its blob is complete.
func (p *pull) layers(
	ctx context.Context, layers []ocispec.Descriptor, diffs []digest.Digest,
) (map[digest.Digest]layerRecord, error) {
	g, gctx := errgroup.WithContext(p.unleased)
	work := make([]pending, len(layers))
	for i, d := range layers {
		// Descriptors may name other places to fetch from; an image does not get to choose whom
		// this host talks to.
		d.URLs = nil
		id, ready := short(d.Digest), make(chan struct{})
		var existed atomic.Bool
		p.report.send(Event{ID: id, Status: "Pulling fs layer"})
		g.Go(func() error {
			have, err := p.blob(gctx, d)
			if err != nil {
				return fmt.Errorf("layer %s: %w", id, err)
			}
			existed.Store(have)
			close(ready)
			return nil
		})
		m := &meter{r: p.report, id: id, status: "Extracting", total: d.Size}
		work[i] = pending{
			diff: diffs[i],
			open: func(ctx context.Context) (io.ReadCloser, error) {
				select {
				case <-ready:
					return p.s.openBlob(ctx, d)
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			},
			onRead: m.add,
			onDone: func(unpacked bool) {
				// The blob may still be on its way when the directory was there before.
				if unpacked {
					select {
					case <-ready:
					case <-gctx.Done():
						return
					}
				}
				if unpacked && existed.Load() {
					p.report.send(Event{ID: id, Status: "Already exists"})
					return
				}
				p.report.send(Event{ID: id, Status: "Pull complete"})
			},
		}
	}
	var recs map[digest.Digest]layerRecord
	g.Go(func() (err error) {
		recs, err = p.s.unpack(leases.WithLease(gctx, p.lease), work)
		return err
	})
	return recs, g.Wait()
}

// blob makes a layer's blob exist locally and reports whether it did before.
func (p *pull) blob(ctx context.Context, d ocispec.Descriptor) (existed bool, err error) {
	unlock, err := p.s.flights.lockContext(ctx, "blob "+d.Digest.String())
	if err != nil {
		return false, err
	}
	defer unlock()
	leased := leases.WithLease(ctx, p.lease)
	if err := p.s.hold(leased, []digest.Digest{d.Digest}, nil); err != nil {
		return false, err
	}
	if _, err := p.s.content.Info(ctx, d.Digest); err == nil {
		return true, nil
	}
	if err := p.s.downloads.Acquire(ctx, 1); err != nil {
		return false, err
	}
	defer p.s.downloads.Release(1)
	id := short(d.Digest)
	err = p.retry(ctx, id, func() error { return p.download(ctx, leased, d) })
	if err == nil {
		p.report.send(Event{ID: id, Status: "Download complete"})
	}
	return false, err
}

// download fetches a blob once, from where an earlier attempt or an earlier process stopped. The
// unfinished file belongs to no lease, so that it outlives this operation (by at most 24 hours,
// containerd's bound); the finished blob belongs to ours.
func (p *pull) download(ctx, leased context.Context, d ocispec.Descriptor) error {
	ref := "download-" + d.Digest.String()
	w, err := content.OpenWriter(ctx, p.s.content, content.WithRef(ref), content.WithDescriptor(d))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	st, err := w.Status()
	if err != nil {
		return err
	}
	if st.Offset > d.Size {
		return p.spoiled(
			ctx, w, ref,
			fmt.Errorf(
				"has %d bytes instead of %d: %w", st.Offset, d.Size, errdefs.ErrInvalidArgument,
			),
		)
	}
	if st.Offset < d.Size {
		rc, err := p.fetcher.Fetch(ctx, d)
		if err != nil {
			return err
		}
		defer rc.Close()
		if st.Offset > 0 {
			sk, ok := rc.(io.Seeker)
			if !ok {
				return fmt.Errorf(
					"fetcher cannot continue at %d: %w", st.Offset, errdefs.ErrInternal,
				)
			}
			if _, err := sk.Seek(st.Offset, io.SeekStart); err != nil {
				return err
			}
		}
		m := &meter{
			r: p.report, id: short(d.Digest), status: "Downloading", total: d.Size,
			current: st.Offset,
		}
		n, err := io.CopyBuffer(onlyWriter{w}, &countReader{rc, m.add}, make([]byte, 256<<10))
		if err != nil {
			return err
		}
		if st.Offset+n != d.Size {
			return fmt.Errorf("got %d of %d bytes: %w", st.Offset+n, d.Size, io.ErrUnexpectedEOF)
		}
	}
	p.report.send(Event{ID: short(d.Digest), Status: "Verifying Checksum"})
	labels := map[string]string{
		"containerd.io/distribution.source." + reference.Domain(p.named): reference.Path(p.named),
	}
	err = w.Commit(leased, d.Size, d.Digest, content.WithLabels(labels))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return p.spoiled(ctx, w, ref, err)
	}
	return nil
}

// spoiled throws a download away whose bytes are wrong: continuing it could never succeed.
func (p *pull) spoiled(ctx context.Context, w content.Writer, ref string, cause error) error {
	err := errors.Join(fmt.Errorf("blob: %w", cause), w.Close())
	if aerr := p.s.content.Abort(context.WithoutCancel(ctx), ref); aerr != nil &&
		!errdefs.IsNotFound(aerr) {
		err = errors.Join(err, aerr)
	}
	return err
}

// attempts bounds how often one transfer is tried; the waits between double from half a second.
const attempts = 5

// retry repeats what failed by the network's or the registry's fault. What a registry refuses or
// sends wrong is not asked for again, but for one spoiled download, which may have been continued
// wrongly.
func (p *pull) retry(ctx context.Context, id string, fn func() error) error {
	return retry(ctx, p.report, id, fn)
}

func retry(ctx context.Context, report *reporter, id string, fn func() error) error {
	wait := 500 * time.Millisecond
	spoiled := false
	for n := 1; ; n++ {
		err := fn()
		switch {
		case err == nil, ctx.Err() != nil, n == attempts,
			errdefs.IsNotFound(err), errdefs.IsPermissionDenied(err), errdefs.IsUnauthorized(err),
			spoiled && errdefs.IsFailedPrecondition(err),
			errdefs.IsInvalidArgument(err), refused(err):
			return err
		}
		spoiled = spoiled || errdefs.IsFailedPrecondition(err)
		if id != "" {
			report.send(Event{ID: id, Status: fmt.Sprintf("Retrying in %s", wait)})
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		wait *= 2
	}
}

// refused recognises client errors of HTTP other than the two that ask to come back, and
// credentials that are missing or wrong.
func refused(err error) bool {
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		return true
	}
	c := statusOf(err)
	return c >= 400 && c < 500 && c != http.StatusRequestTimeout && c != http.StatusTooManyRequests
}
