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
	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Recover ends the operations of a dead process and reports whether there were any. Sweep and
// Collect remove what they left. The beginnings of blobs that the database does not know are
// removed in any case: the content store makes and removes their directories inside of
// transactions, and a process may die, or the disk be full, between the two.
func (b *Backend) Recover(ctx context.Context) (found bool, err error) {
	if err := b.dropUnknownIngests(); err != nil {
		return false, err
	}
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

// Sweep removes what a crash left on disk that the database does not know. No operation may run.
// On a full disk it removes what it can and returns ENOSPC; the next Collect that finds space then
// removes the rest.
func (b *Backend) Sweep(ctx context.Context) error {
	ctx = Context(ctx)
	// First the directories whose transaction never came: the snapshotter will give the same
	// numbers out again and not overwrite them.
	if err := b.sweepDirs(ctx); err != nil {
		return err
	}
	// What the database knows goes next. It may be what the disk is full of.
	if err := b.CollectMarked(ctx); err != nil {
		return err
	}
	b.gcMu.Lock()
	b.unswept = true
	b.gcMu.Unlock()
	return b.CollectMarked(ctx)
}

// sweepDirs removes layer directories that the snapshotter's database does not know.
func (b *Backend) sweepDirs(ctx context.Context) error {
	if b.overlay == nil {
		return nil
	}
	err := b.overlay.Cleanup(ctx)
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

// dropUnknownIngests removes beginnings of blobs that the database does not know, or that lack a
// part. It may be called at any time: directories and records of them change together while a
// transaction holds the database's lock, which this takes too.
func (b *Backend) dropUnknownIngests() error {
	dir := b.path("content", "ingest")
	begun, err := os.ReadDir(dir)
	if len(begun) == 0 {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	tx, err := b.bolt.Begin(true)
	if err != nil {
		return fmt.Errorf("read image metadata: %w", err)
	}
	defer tx.Rollback() // nothing is written
	if begun, err = os.ReadDir(dir); err != nil {
		return err
	}
	known := ingestDirs(tx)
	var errs []error
	for _, e := range begun {
		path := filepath.Join(dir, e.Name())
		ref, err := os.ReadFile(filepath.Join(path, "ref"))
		_, derr := os.Stat(filepath.Join(path, "data"))
		if err == nil && derr == nil && len(ref) > 0 && known[e.Name()] {
			continue
		}
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// ingestDirs are the names of the directories of the unfinished blobs that the database knows
// (containerd's core/metadata/buckets.go and plugins/content/local/store.go have the layout).
func ingestDirs(tx *bolt.Tx) map[string]bool {
	known := map[string]bool{}
	bucket := tx.Bucket([]byte("v1"))
	for _, name := range []string{Namespace, "content", "ingests"} {
		if bucket == nil {
			return known
		}
		bucket = bucket.Bucket([]byte(name))
	}
	if bucket == nil {
		return known
	}
	bucket.ForEachBucket(func(ref []byte) error {
		if in := bucket.Bucket(ref).Get([]byte("ref")); len(in) > 0 {
			known[digest.FromBytes(in).Encoded()] = true
		}
		return nil
	})
	return known
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

// CollectMarked is Collect for callers that have not recorded that there is something to collect.
// As long as its lease is there, a process that is killed between the database's transaction and the
// removal of the files is one whose leftovers the next one looks for.
func (b *Backend) CollectMarked(ctx context.Context) error {
	if o, err := b.Begin(ctx); err == nil {
		defer o.End(ctx)
	} else if !Full(err) {
		return err
	}
	return b.Collect(ctx)
}

// Collect removes blobs and layers that neither a root reaches nor a lease keeps.
func (b *Backend) Collect(ctx context.Context) error {
	b.gcMu.Lock()
	defer b.gcMu.Unlock()
	b.fault("collect: begin")
	if b.unswept {
		if err := b.provokeSweep(ctx); err != nil {
			return fmt.Errorf("collect unused image data: %w", err)
		}
		b.unswept = false
	}
	if _, err := b.meta.GarbageCollect(Context(ctx)); err != nil {
		return fmt.Errorf("collect unused image data: %w", err)
	}
	b.fault("collect: done")
	return nil
}

// Prune removes the beginnings of blobs that no Fetch is at work on, which a later one could have
// continued, and returns how many bytes they had. Beginnings of others than Fetch are left alone.
func (b *Backend) Prune(ctx context.Context) (freed int64, err error) {
	if err := b.dropUnknownIngests(); err != nil {
		return 0, fmt.Errorf("prune downloads: %w", err)
	}
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
