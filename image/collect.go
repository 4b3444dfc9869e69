package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// recover removes the leftovers of operations that did not end. When the last process ended in
// order it only reads.
func (s *Store) recover(ctx context.Context) error {
	left, err := s.leases.List(ctx, `labels."`+leaseLabel+`"`)
	if err != nil {
		return err
	}
	dirty := len(left) > 0
	for _, l := range left {
		if err := s.leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	if err := s.bolt.View(func(tx *bolt.Tx) error { dirty = dirty || isDirty(tx); return nil }); err != nil {
		return err
	}
	for id, im := range s.idx.images {
		if im.rec.Removed && !s.rootfs.uses(id) {
			if err := s.forget(ctx, id); err != nil {
				return err
			}
			dirty = true
		}
	}
	if !dirty {
		return nil
	}
	s.log.Info("collecting what an interrupted image operation left behind")
	// First the directories whose transaction never came: the snapshotter will give the same
	// numbers out again and not overwrite them.
	if err := s.sweepDirs(ctx); err != nil {
		return err
	}
	if err := s.provokeSweep(ctx); err != nil {
		return err
	}
	return s.collect(ctx)
}

// sweepDirs removes layer directories that the snapshotter's database does not know, and beginnings
// of blobs that a crash left without their data or without a name to continue them by, which the
// content store passes over.
func (s *Store) sweepDirs(ctx context.Context) error {
	ingest := s.path("content", "ingest")
	begun, err := os.ReadDir(ingest)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, b := range begun {
		ref, err := os.ReadFile(filepath.Join(ingest, b.Name(), "ref"))
		_, derr := os.Stat(filepath.Join(ingest, b.Name(), "data"))
		if err == nil && derr == nil && len(ref) > 0 {
			continue
		}
		if err := os.RemoveAll(filepath.Join(ingest, b.Name())); err != nil {
			return err
		}
	}
	if s.overlay == nil {
		return nil
	}
	err = s.overlay.Cleanup(ctx)
	if !errdefs.IsNotFound(err) {
		return err
	}
	// Not one snapshot was ever committed: the database has no table of them, and every directory
	// is a leftover.
	dir := s.path("layers", "snapshots")
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
func (s *Store) provokeSweep(ctx context.Context) error {
	lease, done, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	if _, err := s.writeBlob(lease, "sweep", []byte("sweep "+rand.Text()), nil); err != nil {
		return err
	}
	_, err = s.snaps.Prepare(lease, "sweep-"+rand.Text(), "")
	return err
}

// begin opens a lease that keeps everything made under the returned context. done gives it up;
// whatever no image holds by then is garbage.
func (s *Store) begin(ctx context.Context) (context.Context, func(), error) {
	ctx = s.context(ctx)
	s.cfg.Fault("image: begin")
	l, err := s.leases.Create(ctx, func(l *leases.Lease) error {
		l.ID = "operation-" + rand.Text()
		l.Labels = map[string]string{leaseLabel: "1"}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("begin image operation: %w", err)
	}
	return leases.WithLease(ctx, l.ID), func() {
		s.cfg.Fault("image: end")
		if err := s.leases.Delete(context.WithoutCancel(ctx), l); err != nil {
			s.log.Warn("end image operation", "error", err)
		}
	}, nil
}

// abandon ends a failed operation: what it made is collected at once.
func (s *Store) abandon(ctx context.Context, done func()) {
	done()
	if err := s.collect(context.WithoutCancel(s.context(ctx))); err != nil {
		s.log.Warn("collect after a failed image operation", "error", err)
	}
}

// hold adds existing blobs and layers to the lease of ctx. What is named need not exist; the order
// "hold, then look" is what makes a later look reliable.
func (s *Store) hold(ctx context.Context, blobs, chains []digest.Digest) error {
	id, ok := leases.FromContext(ctx)
	if !ok || len(blobs)+len(chains) == 0 {
		return nil
	}
	return s.meta.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		for _, d := range blobs {
			if err := s.leases.AddResource(
				ctx, leases.Lease{ID: id}, leases.Resource{ID: d.String(), Type: "content"},
			); err != nil {
				return err
			}
		}
		for _, c := range chains {
			if err := s.leases.AddResource(
				ctx, leases.Lease{ID: id},
				leases.Resource{ID: c.String(), Type: "snapshots/" + snapshotterName},
			); err != nil {
				return err
			}
		}
		return nil
	})
}

// collect removes blobs and layers that nothing refers to.
func (s *Store) collect(ctx context.Context) error {
	s.gcMu.Lock()
	defer s.gcMu.Unlock()
	s.cfg.Fault("collect: begin")
	if _, err := s.meta.GarbageCollect(ctx); err != nil {
		return fmt.Errorf("collect unused image data: %w", err)
	}
	s.cfg.Fault("collect: done")
	if err := s.meta.Update(func(tx *bolt.Tx) error { return setDirty(tx, false) }); err != nil {
		return fmt.Errorf("collect unused image data: %w", err)
	}
	return nil
}
