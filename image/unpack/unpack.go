// Package unpack turns layer archives into overlay directories.
//
// Layers of an image are unpacked several at once, each without regard to its parents, and chained
// in order afterwards; one that cannot be unpacked alone is unpacked on a mount of its parents that
// only this process sees. Promises:
//
//   - What was unpacked has the diff ID that the image's configuration says.
//   - Two images that share a layer unpack it once, also at the same time.
//   - A failure leaves no directory behind.
//
// Locks: a layer's chain ID (keylock), taken before a slot for unpacking.
//
// Not for: what archives may contain; package layer decides.
//
// Tested through package image, with layers that need their parents, shared ones and hostile ones.
package unpack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"strake/image/backend"
	"strake/image/document"
	"strake/image/index"
	"strake/image/internal/keylock"
	"strake/image/layer"
)

// upperLabel is where the overlay snapshotter reports a snapshot's directory.
const upperLabel = "containerd.io/snapshot/overlay.upperdir"

// Unpacker unpacks layers into the directories of a backend. All methods may be called
// concurrently.
type Unpacker struct {
	backend *backend.Backend
	// known finds layers that belong to an image.
	known  func(chain digest.Digest) (index.Layer, bool)
	limits layer.Limits
	slots  *semaphore.Weighted
	chains keylock.Set
}

// New returns an unpacker. known finds layers that belong to an image; slots bounds how many
// archives are read at once.
func New(
	b *backend.Backend, known func(chain digest.Digest) (index.Layer, bool), limits layer.Limits,
	slots int,
) *Unpacker {
	return &Unpacker{
		backend: b, known: known, limits: limits, slots: semaphore.NewWeighted(int64(slots)),
	}
}

// Slot waits for the right to work on one archive, and returns the function that gives it back.
func (u *Unpacker) Slot(ctx context.Context) (release func(), err error) {
	if err := u.slots.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { u.slots.Release(1) }, nil
}

// Pending is one layer on its way from blob to directory.
type Pending struct {
	// Diff is the digest of the plain archive.
	Diff digest.Digest
	// Known is the directory, if the caller has it and the operation keeps it.
	Known *index.Layer
	// Open waits until the blob is there and opens the archive, plain or compressed.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// OnRead, if set, counts bytes of the blob as they are unpacked. OnDone, if set, is called once
	// when the directory is there and is told whether it was before.
	OnRead func(n int64)
	OnDone func(existed bool)
}

// Layers unpacks the layers of an image, base first, and returns them by chain ID. The operation
// keeps them. What an archive does wrong is ErrInvalidArgument.
func (u *Unpacker) Layers(
	ctx context.Context, o *backend.Operation, layers []Pending,
) (map[digest.Digest]index.Layer, error) {
	diffs := make([]digest.Digest, len(layers))
	for i, l := range layers {
		diffs[i] = l.Diff
	}
	chains := identity.ChainIDs(append([]digest.Digest(nil), diffs...))
	if err := o.Hold(ctx, nil, chains); err != nil {
		return nil, err
	}
	records := make([]index.Layer, len(layers))
	ready := make([]chan struct{}, len(layers))
	g, ctx := errgroup.WithContext(o.In(ctx))
	for i := range layers {
		ready[i] = make(chan struct{})
		g.Go(func() (err error) {
			defer func() {
				if err == nil {
					close(ready[i])
				}
			}()
			w := unpacking{u: u, Pending: layers[i], chain: chains[i]}
			if i > 0 {
				w.parent, w.parentReady = chains[i-1], ready[i-1]
			}
			w.below = func() []index.Layer { return records[:i] }
			records[i], err = w.run(ctx)
			if err != nil {
				return fmt.Errorf(
					"layer %d of %d (%s): %w", i+1, len(layers), document.Short(layers[i].Diff),
					err,
				)
			}
			// Ready means "this and everything below", also when the layer itself was there before.
			return w.awaitParent(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := map[digest.Digest]index.Layer{}
	for i, c := range chains {
		out[c] = records[i]
	}
	return out, nil
}

// unpacking is the work on one layer.
type unpacking struct {
	Pending
	u           *Unpacker
	chain       digest.Digest
	parent      digest.Digest
	parentReady <-chan struct{} // nil for the base
	below       func() []index.Layer
}

func (u *unpacking) snaps() snapshots.Snapshotter { return u.u.backend.Stores().Snapshots }

func (u *unpacking) run(ctx context.Context) (index.Layer, error) {
	if u.Known != nil {
		return *u.Known, nil
	}
	// Two images that share a layer unpack it once. The lock is taken before the slot: a goroutine
	// that waits for another one's layer occupies none.
	unlock, err := u.u.chains.LockContext(ctx, u.chain.String())
	if err != nil {
		return index.Layer{}, err
	}
	defer unlock()
	rec, err := u.existing(ctx)
	if err == nil || !errdefs.IsNotFound(err) {
		if err == nil && u.OnDone != nil {
			u.OnDone(true)
		}
		return rec, err
	}
	key := "unpack-" + rand.Text()
	rec, err = u.make(ctx, key)
	if err != nil {
		// The snapshot dies with the lease; removing it now gives the space back before that.
		if rerr := u.snaps().Remove(context.WithoutCancel(ctx), key); rerr != nil &&
			!errdefs.IsNotFound(rerr) {
			err = errors.Join(err, rerr)
		}
		return index.Layer{}, err
	}
	if u.OnDone != nil {
		u.OnDone(false)
	}
	return rec, nil
}

// existing finds the layer unpacked already.
func (u *unpacking) existing(ctx context.Context) (index.Layer, error) {
	info, err := u.snaps().Stat(ctx, u.chain.String())
	if err != nil {
		return index.Layer{}, err
	}
	if info.Kind != snapshots.KindCommitted || info.Parent != u.parent.String() {
		return index.Layer{}, fmt.Errorf(
			"snapshot %s is a %s one on %q, want a committed one on %q: %w", u.chain, info.Kind,
			info.Parent, u.parent, errdefs.ErrFailedPrecondition,
		)
	}
	if rec, ok := u.u.known(u.chain); ok {
		return rec, nil
	}
	// Unpacked by another program, or by us just before a crash: its size is not known.
	size, err := layer.Measure(ctx, info.Labels[upperLabel])
	if err != nil {
		return index.Layer{}, err
	}
	return u.record(info, size.Files)
}

func (u *unpacking) record(info snapshots.Info, size int64) (index.Layer, error) {
	rel, err := filepath.Rel(u.u.backend.LayersDir(), info.Labels[upperLabel])
	if err != nil || !filepath.IsLocal(rel) {
		return index.Layer{}, fmt.Errorf(
			"layer directory %q is not below %q: %w", info.Labels[upperLabel],
			u.u.backend.LayersDir(),
			errdefs.ErrInternal,
		)
	}
	return index.Layer{Diff: u.Diff, Dir: rel, Size: size}, nil
}

func (u *unpacking) make(ctx context.Context, key string) (index.Layer, error) {
	u.u.backend.Fault("layer: make directory")
	mounts, err := u.snaps().Prepare(ctx, key, "")
	if err != nil {
		return index.Layer{}, fmt.Errorf("prepare directory: %w", err)
	}
	dir, err := bindSource(mounts)
	if err != nil {
		return index.Layer{}, err
	}
	root, err := os.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		return index.Layer{}, err
	}
	defer root.Close()
	u.u.backend.Fault("layer: unpack")
	res, err := u.apply(ctx, root, layer.Overlay)
	alone := !errors.Is(err, layer.ErrNeedsParents)
	if err != nil && alone {
		return index.Layer{}, err
	}
	if err := u.awaitParent(ctx); err != nil {
		return index.Layer{}, err
	}
	lower, err := u.openBelow()
	if err != nil {
		return index.Layer{}, err
	}
	defer layer.CloseAll(lower)
	if alone {
		err = layer.InheritDirs(root, lower, res.Implied)
	}
	if !alone || errors.Is(err, layer.ErrNeedsParents) {
		res, err = u.applyMerged(ctx, root, lower)
	}
	if err != nil {
		return index.Layer{}, err
	}
	return u.commit(ctx, key, res.Bytes)
}

func (u *unpacking) awaitParent(ctx context.Context) error {
	if u.parentReady == nil {
		return nil
	}
	select {
	case <-u.parentReady:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (u *unpacking) commit(ctx context.Context, key string, size int64) (index.Layer, error) {
	opts := []snapshots.Opt{
		snapshots.WithLabels(map[string]string{backend.UncompressedLabel: u.Diff.String()}),
	}
	if u.parent != "" {
		opts = append(opts, snapshots.WithParent(u.parent.String()))
	}
	u.u.backend.Fault("layer: commit directory")
	if err := u.snaps().Commit(ctx, u.chain.String(), key, opts...); err != nil {
		return index.Layer{}, fmt.Errorf("commit layer: %w", err)
	}
	u.u.backend.Fault("layer: committed")
	info, err := u.snaps().Stat(ctx, u.chain.String())
	if err != nil {
		return index.Layer{}, fmt.Errorf("commit layer: %w", err)
	}
	return u.record(info, size)
}

// bindSource is the directory of a snapshot without parents.
func bindSource(mounts []mount.Mount) (string, error) {
	if len(mounts) != 1 || mounts[0].Type != "bind" {
		return "", fmt.Errorf(
			"snapshot without parents has mounts %v, want one bind mount: %w", mounts,
			errdefs.ErrInternal,
		)
	}
	return mounts[0].Source, nil
}
