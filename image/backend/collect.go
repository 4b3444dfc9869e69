package backend

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
)

// Recover ends the operations of a dead process and reports whether there were any. Sweep and
// Collect remove what they left.
func (b *Backend) Recover(ctx context.Context) (found bool, err error) {
	ctx = Context(ctx)
	left, err := b.stores.Leases.List(ctx, `labels."`+leaseLabel+`"`)
	if err != nil {
		return false, err
	}
	for _, l := range left {
		if err := b.stores.Leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return false, err
		}
	}
	return len(left) > 0, nil
}

// Sweep removes what a crash left on disk that the database does not know, and makes the next
// Collect look for more. No operation may run.
func (b *Backend) Sweep(ctx context.Context) error {
	ctx = Context(ctx)
	// First the directories whose transaction never came: the snapshotter will give the same
	// numbers out again and not overwrite them.
	if err := b.sweepDirs(ctx); err != nil {
		return err
	}
	return b.provokeSweep(ctx)
}

// sweepDirs removes layer directories that the snapshotter's database does not know, and beginnings
// of blobs that a crash left without their data or without a name to continue them by, which the
// content store passes over.
func (b *Backend) sweepDirs(ctx context.Context) error {
	ingest := b.path("content", "ingest")
	begun, err := os.ReadDir(ingest)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range begun {
		ref, err := os.ReadFile(filepath.Join(ingest, e.Name(), "ref"))
		_, derr := os.Stat(filepath.Join(ingest, e.Name(), "data"))
		if err == nil && derr == nil && len(ref) > 0 {
			continue
		}
		if err := os.RemoveAll(filepath.Join(ingest, e.Name())); err != nil {
			return err
		}
	}
	if b.overlay == nil {
		return nil
	}
	err = b.overlay.Cleanup(ctx)
	if !errdefs.IsNotFound(err) {
		return err
	}
	// Not one snapshot was ever committed: the database has no table of them, and every directory
	// is a leftover.
	dir := filepath.Join(b.LayersDir(), "snapshots")
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := os.RemoveAll(filepath.Join(dir, n.Name())); err != nil {
			return err
		}
	}
	return nil
}

// provokeSweep makes the next collection compare both backends with the metadata. containerd's
// database only does so after it removed something itself, and a crash between a backend's commit
// and its own leaves something it never knew.
func (b *Backend) provokeSweep(ctx context.Context) error {
	o, err := b.Begin(ctx)
	if err != nil {
		return err
	}
	defer o.End(ctx)
	if err := o.WriteDocument(ctx, "sweep", []byte("sweep "+rand.Text()), nil); err != nil {
		return err
	}
	_, err = b.stores.Snapshots.Prepare(o.In(ctx), "sweep-"+rand.Text(), "")
	return err
}

// Collect removes blobs and layers that neither a root reaches nor a lease keeps.
func (b *Backend) Collect(ctx context.Context) error {
	b.gcMu.Lock()
	defer b.gcMu.Unlock()
	b.fault("collect: begin")
	if _, err := b.meta.GarbageCollect(Context(ctx)); err != nil {
		return fmt.Errorf("collect unused image data: %w", err)
	}
	b.fault("collect: done")
	return nil
}

// Prune removes the beginnings of blobs that no Fetch is at work on, which a later one could have
// continued, and returns how many bytes they had. Beginnings of others than Fetch are left alone.
func (b *Backend) Prune(ctx context.Context) (freed int64, err error) {
	ctx = Context(ctx)
	partial, err := b.stores.Content.ListStatuses(ctx)
	if err != nil {
		return 0, fmt.Errorf("prune downloads: %w", err)
	}
	for _, p := range partial {
		d, ours := strings.CutPrefix(p.Ref, partialPrefix)
		if !ours {
			continue
		}
		unlock, idle := b.blobs.TryLock(d)
		if !idle {
			continue
		}
		b.fault("collect: remove partial blob")
		err := b.stores.Content.Abort(ctx, p.Ref)
		unlock()
		if err != nil && !errdefs.IsNotFound(err) {
			return freed, fmt.Errorf("prune downloads: %w", err)
		}
		freed += p.Offset
	}
	return freed, nil
}

// Usage counts stored blobs and their bytes, and the bytes of unfinished ones.
func (b *Backend) Usage(ctx context.Context) (blobs int, bytes, partialBytes int64, err error) {
	ctx = Context(ctx)
	err = b.stores.Content.Walk(ctx, func(i content.Info) error {
		blobs++
		bytes += i.Size
		return nil
	})
	if err != nil {
		return 0, 0, 0, fmt.Errorf("measure images: %w", err)
	}
	partial, err := b.stores.Content.ListStatuses(ctx)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("measure images: %w", err)
	}
	for _, p := range partial {
		partialBytes += p.Offset
	}
	return blobs, bytes, partialBytes, nil
}
