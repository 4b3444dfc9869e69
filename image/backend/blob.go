package backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"strake/image/document"
	"strake/image/progress"
)

// The labels by which containerd's collector walks from an index to its manifests, from a manifest
// to its blobs, and from a configuration to its layers.

// ManifestLabels keep what a manifest names.
func ManifestLabels(m ocispec.Manifest) map[string]string {
	l := map[string]string{"containerd.io/gc.ref.content.config": m.Config.Digest.String()}
	for i, b := range m.Layers {
		l[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = b.Digest.String()
	}
	return l
}

// IndexLabels keep what an index names, as far as it is here.
func IndexLabels(x ocispec.Index) map[string]string {
	l := map[string]string{}
	for i, m := range x.Manifests {
		l[fmt.Sprintf("containerd.io/gc.ref.content.m.%d", i)] = m.Digest.String()
	}
	return l
}

// ConfigLabels keep the layers that a configuration names.
func ConfigLabels(diffs []digest.Digest) map[string]string {
	if len(diffs) == 0 {
		return nil
	}
	chain := identity.ChainID(append([]digest.Digest(nil), diffs...))
	return map[string]string{"containerd.io/gc.ref.snapshot." + SnapshotterName: chain.String()}
}

// WriteDocument stores a small blob with garbage-collection labels. what names it in messages. A
// blob that is here gets the labels that it lacks.
func (o *Operation) WriteDocument(
	ctx context.Context, what string, b []byte, labels map[string]string,
) error {
	d := ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
	defer o.b.blobs.Lock(d.Digest.String())()
	if err := o.Hold(ctx, []digest.Digest{d.Digest}, nil); err != nil {
		return err
	}
	o.b.fault("image: write " + what)
	ctx = o.In(ctx)
	err := content.WriteBlob(
		ctx, o.b.stores.Content, what+"-"+d.Digest.String(), bytes.NewReader(b), d,
		content.WithLabels(labels),
	)
	if err != nil {
		if Full(err) {
			err = errors.Join(err, o.b.dropUnknownIngests())
		}
		return fmt.Errorf("store %s: %w", what, err)
	}
	return o.b.label(ctx, d.Digest, labels)
}

// label merges labels into those of a blob that may have been there before.
func (b *Backend) label(ctx context.Context, d digest.Digest, labels map[string]string) error {
	if len(labels) == 0 {
		return nil
	}
	info, err := b.stores.Content.Info(ctx, d)
	if err != nil {
		return err
	}
	var fields []string
	for k, v := range labels {
		if info.Labels[k] != v {
			fields = append(fields, "labels."+k)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	_, err = b.stores.Content.Update(ctx, content.Info{Digest: d, Labels: labels}, fields...)
	return err
}

// ReadDocument reads a small blob whole; see document.Read.
func (b *Backend) ReadDocument(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	return document.Read(Context(ctx), b.stores.Content, d)
}

// OpenBlob opens a stored blob at an offset. The caller closes it. An absent one is ErrNotFound.
func (b *Backend) OpenBlob(
	ctx context.Context, d ocispec.Descriptor, offset int64,
) (io.ReadCloser, error) {
	ra, err := b.stores.Content.ReaderAt(Context(ctx), d)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d.Digest, err)
	}
	return &blobReader{io.NewSectionReader(ra, offset, ra.Size()-offset), ra}, nil
}

type blobReader struct {
	io.Reader
	io.Closer
}

// openWriter begins or continues a blob. What the content store has made of a beginning that failed
// on a full disk is removed.
func (b *Backend) openWriter(
	ctx context.Context, opts ...content.WriterOpt,
) (content.Writer, error) {
	w, err := content.OpenWriter(ctx, b.stores.Content, opts...)
	if Full(err) {
		err = errors.Join(err, b.dropUnknownIngests())
	}
	return w, err
}

// Writer is a blob of unknown digest that is being written under an operation.
type Writer struct {
	io.Writer // to the blob
	o         *Operation
	w         content.Writer
	ref       string
	done      bool
}

// NewWriter begins a blob. The caller calls Close in any case.
func (o *Operation) NewWriter(ctx context.Context) (*Writer, error) {
	ref := "made-" + rand.Text()
	w, err := o.b.openWriter(o.In(ctx), content.WithRef(ref))
	if err != nil {
		return nil, fmt.Errorf("store blob: %w", err)
	}
	return &Writer{Writer: onlyWriter{w}, o: o, w: w, ref: ref}, nil
}

// onlyWriter hides ReadFrom, so that io.CopyBuffer uses the buffer it is given.
type onlyWriter struct{ io.Writer }

// Commit ends the blob and returns its digest and size.
func (w *Writer) Commit(
	ctx context.Context, labels func(digest.Digest) map[string]string,
) (ocispec.Descriptor, error) {
	st, err := w.w.Status()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{Digest: w.w.Digest(), Size: st.Offset}
	if err := w.o.Hold(ctx, []digest.Digest{d.Digest}, nil); err != nil {
		return d, err
	}
	var opts []content.Opt
	if labels != nil {
		opts = append(opts, content.WithLabels(labels(d.Digest)))
	}
	err = w.w.Commit(w.o.In(ctx), d.Size, d.Digest, opts...)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return d, fmt.Errorf("store blob: %w", err)
	}
	w.done = true
	return d, nil
}

// Close ends the writing, also when ctx is done; without a Commit before nothing is left.
func (w *Writer) Close(ctx context.Context) error {
	if w.done {
		return w.w.Close()
	}
	return w.o.b.discard(ctx, w.w, w.ref)
}

// discard removes an unfinished blob. Its bytes go first: on a full disk the database may have
// no room for the record that it is gone. A writer whose Commit failed has closed its file already
// and cannot be truncated.
func (b *Backend) discard(ctx context.Context, w content.Writer, ref string) error {
	_ = w.Truncate(0)
	errs := []error{w.Close()}
	err := b.stores.Content.Abort(context.WithoutCancel(Context(ctx)), ref)
	if err != nil && !errdefs.IsNotFound(err) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Put stores size bytes as a blob of whatever digest they have; buf is used to copy.
func (o *Operation) Put(
	ctx context.Context, r io.Reader, size int64, buf []byte,
) (_ ocispec.Descriptor, err error) {
	w, err := o.NewWriter(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, w.Close(ctx)) }()
	n, err := io.CopyBuffer(w.Writer, io.LimitReader(r, size), buf)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return w.Commit(ctx, nil)
}

// Origin is where Fetch gets a blob from. All but Open may be nil.
type Origin struct {
	// Open opens the blob at an offset. Bytes after the blob's size are not read.
	Open func(ctx context.Context, offset int64) (io.ReadCloser, error)
	// Slots bound how many are fetched at once.
	Slots *semaphore.Weighted
	// Labels are put on the blob.
	Labels map[string]string
	// OnStart is told how many bytes are here, before the first OnRead; again when the blob is
	// fetched a second time. OnRead counts bytes as they come; OnVerify is called after the last.
	OnStart  func(offset int64)
	OnRead   func(n int64)
	OnVerify func()
}

// partialPrefix begins the names of unfinished blobs that Fetch continues.
const partialPrefix = "download-"

// Fetch makes a blob exist, kept by the operation, and reports whether it did before. It goes on
// where an earlier Fetch or an earlier process stopped. Bytes that do not have the descriptor's
// digest are fetched a second time, because the first part may have come from elsewhere, and then
// are ErrFailedPrecondition. Errors of Open and of its reader are returned as they are, as is
// ENOSPC, after which no byte of the blob is left.
func (o *Operation) Fetch(
	ctx context.Context, d ocispec.Descriptor, from Origin,
) (existed bool, err error) {
	unlock, err := o.b.blobs.LockContext(ctx, d.Digest.String())
	if err != nil {
		return false, err
	}
	defer unlock()
	if err := o.Hold(ctx, []digest.Digest{d.Digest}, nil); err != nil {
		return false, err
	}
	if info, err := o.b.stores.Content.Info(Context(ctx), d.Digest); err == nil {
		if info.Size != d.Size {
			err = fmt.Errorf(
				"blob %s has %d bytes, its descriptor says %d: %w", d.Digest, info.Size, d.Size,
				errdefs.ErrInvalidArgument,
			)
		}
		return true, err
	}
	if from.Slots != nil {
		if err := from.Slots.Acquire(ctx, 1); err != nil {
			return false, err
		}
		defer from.Slots.Release(1)
	}
	o.b.fault("image: fetch blob")
	if err = o.fetch(ctx, d, from); errdefs.IsFailedPrecondition(err) {
		err = o.fetch(ctx, d, from)
	}
	return false, err
}

// fetch is one attempt of Fetch. The unfinished file belongs to no lease, so that it outlives this
// operation (by at most 24 hours, containerd's bound); the finished blob belongs to ours.
func (o *Operation) fetch(ctx context.Context, d ocispec.Descriptor, from Origin) error {
	ctx = Context(ctx)
	ref := partialPrefix + d.Digest.String()
	w, err := o.b.openWriter(ctx, content.WithRef(ref), content.WithDescriptor(d))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	spoiled, err := o.receive(ctx, w, d, from)
	if spoiled {
		return errors.Join(err, o.b.discard(ctx, w, ref))
	}
	return errors.Join(err, w.Close())
}

// receive fills and commits a blob. spoiled says that what has come is of no use to another
// attempt.
func (o *Operation) receive(
	ctx context.Context, w content.Writer, d ocispec.Descriptor, from Origin,
) (spoiled bool, err error) {
	st, err := w.Status()
	if err != nil {
		return false, err
	}
	if st.Offset > d.Size {
		return true, fmt.Errorf(
			"blob %s has %d bytes instead of %d: %w", d.Digest, st.Offset, d.Size,
			errdefs.ErrFailedPrecondition,
		)
	}
	if from.OnStart != nil {
		from.OnStart(st.Offset)
	}
	if st.Offset < d.Size {
		if n, err := copyFrom(ctx, w, st.Offset, d.Size, from); err != nil {
			return st.Offset+n == 0 || Full(err), err
		}
	}
	if from.OnVerify != nil {
		from.OnVerify()
	}
	err = w.Commit(o.In(ctx), d.Size, d.Digest, content.WithLabels(from.Labels))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return true, fmt.Errorf("blob: %w", err)
	}
	return false, nil
}

// copyFrom writes the bytes from an offset on and returns how many came.
func copyFrom(
	ctx context.Context, w io.Writer, offset, size int64, from Origin,
) (n int64, err error) {
	rc, err := from.Open(ctx, offset)
	if err != nil {
		return 0, err
	}
	defer rc.Close()
	var r io.Reader = io.LimitReader(rc, size-offset)
	if from.OnRead != nil {
		r = &progress.CountReader{R: r, Fn: from.OnRead}
	}
	n, err = io.CopyBuffer(onlyWriter{w}, r, make([]byte, 256<<10))
	if err == nil && offset+n != size {
		err = fmt.Errorf("got %d of %d bytes: %w", offset+n, size, io.ErrUnexpectedEOF)
	}
	return n, err
}

// Full recognises the error of a disk or quota without room.
func Full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
