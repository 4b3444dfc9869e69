package image

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"strake/image/backend"
	"strake/image/document"
	"strake/image/index"
	"strake/image/progress"
	"strake/image/unpack"
)

// publication brings one document.Source into the store: layers and documents under the lease of an
// operation, then everything durable, then the image visible in one transaction.
type publication struct {
	s   *Store
	o   *backend.Operation
	src document.Source

	// What the image gets besides its source. All may be empty.
	refs   []string // complete references
	parent digest.Digest
	// made are layers that are unpacked already, by index.
	made map[int]index.Layer

	// How layers are fetched and what is said about it. report may be silent, but is set.
	slots  *semaphore.Weighted
	labels map[string]string
	report *progress.Reporter
	words  words
}

// words are the statuses of events about a layer; an empty one sends none.
type words struct {
	begun, fetching, verifying, fetched string
	unpacking, existed, done            string
	// byDiff names layers by their diff IDs instead of their blobs.
	byDiff bool
}

// published is what became visible.
type published struct {
	id digest.Digest
	// moved are references that named another image before, with its ID.
	moved map[string]digest.Digest
}

// run publishes. What the source got wrong is ErrInvalidArgument.
func (p *publication) run(ctx context.Context) (published, error) {
	manifest, err := p.src.Manifest(ctx)
	if err != nil {
		return published{}, err
	}
	m, err := document.ParseImage(manifest.Bytes)
	if err != nil {
		return published{}, err
	}
	// One transaction for all that is looked for from here on.
	if err := p.o.Hold(
		ctx, append(document.Digests(m.Layers), m.Config.Digest, manifest.Descriptor.Digest), nil,
	); err != nil {
		return published{}, err
	}
	raw, err := p.config(ctx, m.Config)
	if err != nil {
		return published{}, err
	}
	config, err := document.ParseConfig(raw)
	if err != nil {
		return published{}, err
	}
	if err := fits(m, config); err != nil {
		return published{}, err
	}
	out := published{id: m.Config.Digest}
	layers, err := p.layers(ctx, m.Layers, config.RootFS.DiffIDs)
	if err != nil {
		return published{}, err
	}
	target, err := p.documents(ctx, raw, config, m, manifest)
	if err != nil {
		return published{}, err
	}
	if err := p.s.backend.Barrier(); err != nil {
		return published{}, err
	}
	out.moved, err = p.s.index.Publish(ctx, index.New{
		ID: out.id, Layers: layers, Refs: p.refs,
		Record: index.Record{
			Target: target, Manifest: document.Slim(manifest.Descriptor),
			Platform: config.Platform(), Created: config.CreatedAt(),
			Labels: config.Config.Labels, Parent: p.parent,
			Layers: identity.ChainIDs(append([]digest.Digest(nil), config.RootFS.DiffIDs...)),
		},
	})
	return out, err
}

// config is the configuration document, which is held, from here if it is here.
func (p *publication) config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if b, err := p.s.backend.ReadDocument(ctx, d); err == nil {
		return b, nil
	}
	b, err := p.src.Config(ctx)
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest {
		return nil, fmt.Errorf(
			"configuration has digest %s, its manifest says %s: %w", got, d.Digest,
			errdefs.ErrInvalidArgument,
		)
	}
	return b, nil
}

// fits checks what a manifest and its configuration say of one another and of this engine.
func fits(m ocispec.Manifest, c document.Config) error {
	if c.OS != "" && c.OS != "linux" { // empty means linux, as dockerd reads it
		return fmt.Errorf(
			"image is for operating system %q, this engine runs linux: %w", c.OS,
			errdefs.ErrInvalidArgument,
		)
	}
	if len(m.Layers) != len(c.RootFS.DiffIDs) {
		return fmt.Errorf(
			"image has %d layers in its configuration and %d in its manifest: %w",
			len(c.RootFS.DiffIDs), len(m.Layers), errdefs.ErrInvalidArgument,
		)
	}
	return nil
}

// layers fetches and unpacks all layers at once; unpacking one starts when its blob is complete.
func (p *publication) layers(
	ctx context.Context, layers []ocispec.Descriptor, diffs []digest.Digest,
) (map[digest.Digest]index.Layer, error) {
	g, ctx := errgroup.WithContext(ctx)
	work := make([]unpack.Pending, len(layers))
	for i, d := range layers {
		l := &incoming{
			p: p, i: i, desc: d, id: document.Short(d.Digest), ready: make(chan struct{}),
		}
		if p.words.byDiff {
			l.id = document.Short(diffs[i])
		}
		l.say(p.words.begun)
		g.Go(func() error { return l.fetch(ctx) })
		work[i] = l.pending(ctx, diffs[i])
	}
	var out map[digest.Digest]index.Layer
	g.Go(func() (err error) {
		out, err = p.s.unpack.Layers(ctx, p.o, work)
		return err
	})
	return out, g.Wait()
}

// documents writes the configuration, the manifest and the index documents, and returns what the
// image's references name.
func (p *publication) documents(
	ctx context.Context, raw []byte, config document.Config, m ocispec.Manifest,
	manifest document.Document,
) (target ocispec.Descriptor, err error) {
	err = p.o.WriteDocument(ctx, "config", raw, backend.ConfigLabels(config.RootFS.DiffIDs))
	if err != nil {
		return target, err
	}
	err = p.o.WriteDocument(ctx, "manifest", manifest.Bytes, backend.ManifestLabels(m))
	if err != nil {
		return target, err
	}
	above := document.IndexOf(p.src)
	for _, d := range above {
		x, err := document.ParseIndex(d.Bytes)
		if err != nil {
			return target, err
		}
		if err := p.o.WriteDocument(
			ctx, "index", d.Bytes, backend.IndexLabels(x),
		); err != nil {
			return target, err
		}
	}
	if len(above) > 0 {
		return document.Slim(above[0].Descriptor), nil
	}
	return document.Slim(manifest.Descriptor), nil
}

// incoming is one layer on its way into the store.
type incoming struct {
	p       *publication
	i       int
	desc    ocispec.Descriptor
	id      string        // in events
	ready   chan struct{} // closed when the blob is here
	existed atomic.Bool   // the blob was here before
}

func (l *incoming) say(status string) {
	if status != "" {
		l.p.report.Send(progress.Event{ID: l.id, Status: status})
	}
}

// meter counts bytes of the blob; nil without a status to say.
func (l *incoming) meter(status string) *progress.Meter {
	if status == "" {
		return nil
	}
	return &progress.Meter{
		Reporter: l.p.report, ID: l.id, Status: status, Total: l.desc.Size,
	}
}

// fetch makes the blob exist here.
func (l *incoming) fetch(ctx context.Context) error {
	from := backend.Origin{
		Open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			return l.p.src.Layer(ctx, l.i, offset)
		},
		Slots: l.p.slots, Labels: l.p.labels,
		OnVerify: func() { l.say(l.p.words.verifying) },
	}
	if m := l.meter(l.p.words.fetching); m != nil {
		from.OnStart = func(offset int64) { m.Restart(); m.Current = offset }
		from.OnRead = m.Add
	}
	existed, err := l.p.o.Fetch(ctx, l.desc, from)
	if err != nil {
		return fmt.Errorf("layer %s: %w", l.id, err)
	}
	if !existed {
		l.say(l.p.words.fetched)
	}
	l.existed.Store(existed)
	close(l.ready)
	return nil
}

// pending is what is left to do with the layer once its blob is here.
func (l *incoming) pending(ctx context.Context, diff digest.Digest) unpack.Pending {
	w := unpack.Pending{
		Diff: diff,
		Open: func(ctx context.Context) (io.ReadCloser, error) {
			select {
			case <-l.ready:
				return l.p.s.backend.OpenBlob(ctx, l.desc, 0)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		OnDone: func(unpacked bool) { l.done(ctx, unpacked) },
	}
	if made, ok := l.p.made[l.i]; ok {
		w.Known = &made
	}
	if m := l.meter(l.p.words.unpacking); m != nil {
		w.OnRead = m.Add
	}
	return w
}

// done says how the layer came to be here. Its blob may still be on its way when its directory was
// there before.
func (l *incoming) done(ctx context.Context, unpacked bool) {
	if unpacked {
		select {
		case <-l.ready:
		case <-ctx.Done():
			return
		}
	}
	if unpacked && l.existed.Load() {
		l.say(l.p.words.existed)
		return
	}
	l.say(l.p.words.done)
}
