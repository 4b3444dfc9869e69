package registry

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/document"
	"strake/image/progress"
)

// PullOptions are the parameters of Pull.
type PullOptions struct {
	// Platform selects from multi-platform images; nil means this host's.
	Platform *ocispec.Platform
	Auth     *Auth
	// Report gets an event before each pause between attempts to fetch a layer.
	Report *progress.Reporter
	// Local, if set, reads a document that is here already; any error means that it is not.
	Local func(ctx context.Context, d ocispec.Descriptor) ([]byte, error)
}

// Pull finds an image in its registry and fetches the documents that lead to it (distribution-spec,
// "Pull"); its layers are fetched as they are read. named is complete, with a tag or a digest. The
// caller closes the image. Errors, here and of the image's methods: ErrNotFound,
// ErrPermissionDenied, ErrInvalidArgument (what the registry sent), and those of the network.
func (c *Client) Pull(ctx context.Context, named reference.Named, o PullOptions) (*Image, error) {
	im := &Image{
		conn: c.connect(ctx, named, o.Auth), named: named, report: o.Report, local: o.Local,
		limit: c.cfg.StallTimeout, wait: c.cfg.RetryWait,
	}
	if err := im.find(ctx, o.Platform); err != nil {
		im.Close()
		return nil, err
	}
	return im, nil
}

// Image is one image in a registry; a document.Indexed.
type Image struct {
	conn    *connection
	named   reference.Named
	report  *progress.Reporter
	local   func(ctx context.Context, d ocispec.Descriptor) ([]byte, error)
	limit   time.Duration // Config.StallTimeout
	wait    time.Duration // Config.RetryWait
	fetcher remotes.Fetcher
	// docs are the documents from what the reference names down to the manifest.
	docs   []document.Document
	parsed ocispec.Manifest
}

// Close gives idle connections back.
func (im *Image) Close() { im.conn.close() }

// resolve asks what the reference names.
func (im *Image) resolve(ctx context.Context) (target ocispec.Descriptor, err error) {
	watched, await, stop := watch(ctx, im.limit)
	defer stop()
	after := await()
	name, target, err := im.conn.resolver.Resolve(watched, im.named.String())
	if err = after(err); err != nil {
		return target, explain(err, im.named)
	}
	if d, ok := im.named.(reference.Digested); ok && d.Digest() != target.Digest {
		return target, fmt.Errorf(
			"registry resolved it to %s: %w", target.Digest, errdefs.ErrInvalidArgument,
		)
	}
	im.fetcher, err = im.conn.resolver.Fetcher(ctx, name)
	return target, err
}

func (im *Image) find(ctx context.Context, platform *ocispec.Platform) error {
	target, err := im.resolve(ctx)
	if err != nil {
		return err
	}
	match := platforms.Default()
	if platform != nil {
		match = platforms.Only(*platform)
	}
	if im.docs, err = document.Choose(ctx, target, match, im.document); err != nil {
		return err
	}
	im.parsed, err = document.ParseImage(im.docs[len(im.docs)-1].Bytes)
	return err
}

// Target describes what the reference names: the manifest or an index.
func (im *Image) Target() ocispec.Descriptor { return im.docs[0].Descriptor }

// Index implements document.Indexed.
func (im *Image) Index() []document.Document { return im.docs[:len(im.docs)-1] }

// Manifest implements document.Source.
func (im *Image) Manifest(context.Context) (document.Document, error) {
	return im.docs[len(im.docs)-1], nil
}

// Config implements document.Source. It asks the registry also if the configuration is here.
func (im *Image) Config(ctx context.Context) ([]byte, error) {
	return im.fetch(ctx, im.parsed.Config)
}

// document gets a small blob or manifest from here, or else from the registry.
func (im *Image) document(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if im.local != nil {
		if b, err := im.local(ctx, d); err == nil {
			return b, nil
		}
	}
	return im.fetch(ctx, d)
}

// fetch gets a small blob or manifest whole and verifies it.
func (im *Image) fetch(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if err := document.CheckSize(d.Digest, d.Size); err != nil {
		return nil, err
	}
	var b []byte
	err := retry(ctx, im.wait, im.report, "", func() (err error) {
		watched, await, stop := watch(ctx, im.limit)
		defer stop()
		after := await()
		rc, err := im.fetcher.Fetch(watched, d)
		if err = after(err); err != nil {
			return err
		}
		defer rc.Close()
		patient := patientReader{r: rc, await: await, limit: im.limit}
		b, err = io.ReadAll(io.LimitReader(&patient, d.Size+1))
		return err
	})
	if err != nil {
		return nil, explainBlob(err, im.named, d.Digest)
	}
	if int64(len(b)) != d.Size {
		return nil, fmt.Errorf(
			"registry sent another number of bytes than %d for %s: %w", d.Size, d.Digest,
			errdefs.ErrInvalidArgument,
		)
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest {
		return nil, fmt.Errorf(
			"registry sent a document with digest %s for %s: %w", got, d.Digest,
			errdefs.ErrInvalidArgument,
		)
	}
	return b, nil
}

// Layer implements document.Source. The reader goes on by itself where the network cut it, a few
// times.
func (im *Image) Layer(ctx context.Context, i int, offset int64) (io.ReadCloser, error) {
	d := im.parsed.Layers[i]
	// Descriptors may name other places to fetch from; an image does not get to choose whom this
	// host talks to.
	d.URLs = nil
	return &layerReader{ctx: ctx, im: im, desc: d, at: offset}, nil
}

// layerReader reads a layer's blob in one or more requests.
type layerReader struct {
	ctx  context.Context // of the Layer call, as with http.Request
	im   *Image
	desc ocispec.Descriptor
	at   int64 // bytes that were read

	attempt int   // failed ones
	last    error // of the first one, and of those like it
	wait    time.Duration
	// The request at work; body is nil between two.
	body    io.ReadCloser
	patient patientReader // of body
	stop    func()
}

func (l *layerReader) Read(p []byte) (int, error) {
	if l.at >= l.desc.Size {
		return 0, io.EOF
	}
	for {
		n, err := l.readOnce(p)
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		l.Close()
		if l.last != nil && l.last.Error() != err.Error() {
			err = fmt.Errorf("%v; then %w", l.last, err)
		} else {
			l.last = err
		}
		if l.attempt++; l.ctx.Err() != nil || l.attempt == attempts || final(err) {
			return 0, explainBlob(err, l.im.named, l.desc.Digest)
		}
		l.wait = max(l.im.wait, 2*l.wait)
		if err := pause(l.ctx, l.im.report, document.Short(l.desc.Digest), l.wait); err != nil {
			return 0, err
		}
	}
}

// readOnce reads from the request at work, or from a new one.
func (l *layerReader) readOnce(p []byte) (int, error) {
	if l.body == nil {
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	n, err := l.patient.Read(p)
	n = int(min(int64(n), l.desc.Size-l.at))
	l.at += int64(n)
	if err == io.EOF {
		err = fmt.Errorf("got %d of %d bytes: %w", l.at, l.desc.Size, io.ErrUnexpectedEOF)
	}
	return n, err
}

// open asks for the rest of the layer.
func (l *layerReader) open() error {
	watched, await, stop := watch(l.ctx, l.im.limit)
	after := await()
	body, err := l.im.fetcher.Fetch(watched, l.desc)
	if err == nil && l.at > 0 {
		if sk, ok := body.(io.Seeker); !ok {
			err = fmt.Errorf("fetcher cannot continue at %d: %w", l.at, errdefs.ErrInternal)
		} else {
			_, err = sk.Seek(l.at, io.SeekStart)
		}
	}
	if err = after(err); err != nil {
		if body != nil {
			body.Close()
		}
		stop()
		return err
	}
	l.body, l.stop = body, stop
	l.patient = patientReader{r: body, await: await, limit: l.im.limit}
	return nil
}

// Close ends the request at work.
func (l *layerReader) Close() error {
	if l.body == nil {
		return nil
	}
	err := l.body.Close()
	l.stop()
	l.body = nil
	return err
}
