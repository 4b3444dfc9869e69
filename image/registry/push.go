package registry

import (
	"context"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"strake/image/document"
	"strake/image/progress"
)

// SourceLabel is the label on a blob that lists the repositories of a registry which have it, so
// that a push to the same registry need not send it.
func SourceLabel(named reference.Named) string {
	return "containerd.io/distribution.source." + reference.Domain(named)
}

// PushOptions are the parameters of Push.
type PushOptions struct {
	Auth   *Auth
	Report *progress.Reporter
}

// Push sends a manifest or an index, and what is below it, to the registry that a tag names
// (distribution-spec, "Push"): blobs in parallel, each document after what it names. All of it is
// in from and stays there. Blobs that the registry has are not sent. Errors: ErrNotFound,
// ErrPermissionDenied, and those of the network.
func (c *Client) Push(
	ctx context.Context, tag reference.NamedTagged, target ocispec.Descriptor,
	from content.InfoReaderProvider, o PushOptions,
) error {
	r := c.connect(ctx, tag, o.Auth)
	defer r.close()
	p := &push{tag: tag, from: from, report: o.Report, uploads: c.uploads, wait: r.wait, limit: r.limit}
	var err error
	p.pusher, err = r.resolver.Pusher(ctx, tag.String()+"@"+target.Digest.String())
	if err == nil {
		err = p.tree(ctx, target, 0)
	}
	return explain(err, tag)
}

// push is the state of one Push.
type push struct {
	tag     reference.NamedTagged
	from    content.InfoReaderProvider
	report  *progress.Reporter
	pusher  remotes.Pusher
	uploads *semaphore.Weighted
	wait    time.Duration // Config.RetryWait
	limit   time.Duration // Config.StallTimeout
}

// tree sends what is below a descriptor and then the document itself.
func (p *push) tree(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if depth > document.MaxIndexDepth {
		return fmt.Errorf("index documents nest too deeply: %w", errdefs.ErrInvalidArgument)
	}
	b, err := document.Read(ctx, p.from, d)
	if err != nil {
		return err
	}
	if images.IsIndexType(d.MediaType) {
		x, err := document.ParseIndex(b)
		if err != nil {
			return err
		}
		for _, m := range x.Manifests {
			if err := p.tree(ctx, document.Slim(m), depth+1); err != nil {
				return err
			}
		}
		return p.send(ctx, d, nil)
	}
	m, err := document.ParseManifest(b)
	if err != nil {
		return err
	}
	for _, l := range m.Layers {
		p.report.Send(progress.Event{ID: document.Short(l.Digest), Status: "Preparing"})
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
			if err := p.uploads.Acquire(gctx, 1); err != nil {
				return err
			}
			defer p.uploads.Release(1)
			return p.send(
				gctx, l,
				&progress.Meter{
					Reporter: p.report, ID: document.Short(l.Digest), Status: "Pushing",
					Total: l.Size,
				},
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
func (p *push) send(ctx context.Context, d ocispec.Descriptor, m *progress.Meter) error {
	id := ""
	if m != nil {
		id = m.ID
	}
	d = p.withSource(ctx, d)
	status := "Pushed"
	err := retry(ctx, p.wait, p.report, id, func() error {
		err := p.upload(ctx, d, m)
		if errdefs.IsAlreadyExists(err) {
			status = "Layer already exists"
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", kindOf(d), document.Short(d.Digest), err)
	}
	if m != nil {
		p.report.Send(progress.Event{ID: id, Status: status})
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
	key := SourceLabel(p.tag)
	info, err := p.from.Info(ctx, d.Digest)
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

func (p *push) upload(ctx context.Context, d ocispec.Descriptor, m *progress.Meter) error {
	watched, await, stop := watch(ctx, p.limit)
	defer stop()
	after := await()
	to, err := p.pusher.Push(watched, d)
	if err = after(err); err != nil {
		return err
	}
	w := patientWriter{to, await}
	defer w.Close()
	ra, err := p.from.ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	defer ra.Close()
	var r io.Reader = io.NewSectionReader(ra, 0, ra.Size())
	if m != nil {
		m.Restart()
		r = &progress.CountReader{R: r, Fn: m.Add}
	}
	// content.Copy starts the stream again when the pusher says that the connection was replaced.
	return content.Copy(
		watched, w,
		&rewinder{
			Reader: r,
			at: func(off int64) io.Reader {
				return io.NewSectionReader(ra, off, ra.Size()-off)
			},
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

// patientWriter waits as long as watch lets it for the registry to take each piece of a blob, and for
// its answer.
type patientWriter struct {
	content.Writer
	await func() func(error) error
}

func (w patientWriter) Write(b []byte) (int, error) {
	after := w.await()
	n, err := w.Writer.Write(b)
	return n, after(err)
}

func (w patientWriter) Commit(
	ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt,
) error {
	after := w.await()
	return after(w.Writer.Commit(ctx, size, expected, opts...))
}
