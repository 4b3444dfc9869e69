package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"strake/image/layer"
)

// upperLabel is where the overlay snapshotter reports a snapshot's directory.
const upperLabel = "containerd.io/snapshot/overlay.upperdir"

// pending is one layer on its way from blob to directory.
type pending struct {
	diff digest.Digest
	// open waits until the blob is there and opens the compressed archive.
	open func(ctx context.Context) (io.ReadCloser, error)
	// events; each may be nil.
	onStart func()
	onRead  func(n int64)
	onDone  func(existed bool)
}

// unpack turns an image's layers into overlay directories, several at once, each without regard to
// its parents, and chains them in order. It returns the layers' records by chain ID. ctx carries
// the lease that keeps them until they belong to an image.
func (s *Store) unpack(
	ctx context.Context, layers []pending,
) (map[digest.Digest]layerRecord, error) {
	diffs := make([]digest.Digest, len(layers))
	for i, l := range layers {
		diffs[i] = l.diff
	}
	chains := identity.ChainIDs(append([]digest.Digest(nil), diffs...))
	if err := s.hold(ctx, nil, chains); err != nil {
		return nil, err
	}
	records := make([]layerRecord, len(layers))
	ready := make([]chan struct{}, len(layers))
	g, ctx := errgroup.WithContext(ctx)
	for i := range layers {
		ready[i] = make(chan struct{})
		g.Go(func() (err error) {
			defer func() {
				if err == nil {
					close(ready[i])
				}
			}()
			u := unpacking{s: s, pending: layers[i], chain: chains[i]}
			if i > 0 {
				u.parent, u.parentReady = chains[i-1], ready[i-1]
			}
			u.below = func() []layerRecord { return records[:i] }
			records[i], err = u.run(ctx)
			if err != nil {
				return fmt.Errorf(
					"layer %d of %d (%s): %w", i+1, len(layers), short(layers[i].diff), err,
				)
			}
			// Ready means "this and everything below", also when the layer itself was there before.
			return u.awaitParent(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := map[digest.Digest]layerRecord{}
	for i, c := range chains {
		out[c] = records[i]
	}
	return out, nil
}

// short abbreviates a digest as clients show it.
func short(d digest.Digest) string {
	e := d.Encoded()
	if len(e) > 12 {
		return e[:12]
	}
	return e
}

// unpacking is the work on one layer.
type unpacking struct {
	pending
	s           *Store
	chain       digest.Digest
	parent      digest.Digest
	parentReady <-chan struct{} // nil for the base
	below       func() []layerRecord
}

func (u *unpacking) run(ctx context.Context) (layerRecord, error) {
	// Two images that share a layer unpack it once. The lock is taken before the slot: whoever
	// waits for somebody else's layer occupies none.
	unlock, err := u.s.flights.lockContext(ctx, "layer "+u.chain.String())
	if err != nil {
		return layerRecord{}, err
	}
	defer unlock()
	rec, err := u.existing(ctx)
	if err == nil || !errdefs.IsNotFound(err) {
		if err == nil && u.onDone != nil {
			u.onDone(true)
		}
		return rec, err
	}
	key := "unpack-" + rand.Text()
	rec, err = u.make(ctx, key)
	if err != nil {
		// The snapshot dies with the lease; removing it now gives the space back before that.
		if rerr := u.s.snaps.Remove(context.WithoutCancel(ctx), key); rerr != nil &&
			!errdefs.IsNotFound(rerr) {
			err = errors.Join(err, rerr)
		}
		return layerRecord{}, err
	}
	if u.onDone != nil {
		u.onDone(false)
	}
	return rec, nil
}

// existing finds the layer unpacked already.
func (u *unpacking) existing(ctx context.Context) (layerRecord, error) {
	info, err := u.s.snaps.Stat(ctx, u.chain.String())
	if err != nil {
		return layerRecord{}, err
	}
	u.s.mu.RLock()
	rec, ok := u.s.idx.layers[u.chain]
	u.s.mu.RUnlock()
	if ok {
		return rec, nil
	}
	// Unpacked by another program, or by us just before a crash: its size is not known.
	size, err := fileBytes(ctx, info.Labels[upperLabel])
	if err != nil {
		return layerRecord{}, err
	}
	return u.record(info, size)
}

func (u *unpacking) record(info snapshots.Info, size int64) (layerRecord, error) {
	rel, err := filepath.Rel(u.s.path("layers"), info.Labels[upperLabel])
	if err != nil || !filepath.IsLocal(rel) {
		return layerRecord{}, fmt.Errorf(
			"layer directory %q is not below %q: %w", info.Labels[upperLabel], u.s.path("layers"),
			errdefs.ErrInternal,
		)
	}
	return layerRecord{Diff: u.diff, Dir: rel, Size: size}, nil
}

func (u *unpacking) make(ctx context.Context, key string) (layerRecord, error) {
	u.s.cfg.Fault("layer: make directory")
	mounts, err := u.s.snaps.Prepare(ctx, key, "")
	if err != nil {
		return layerRecord{}, fmt.Errorf("prepare directory: %w", err)
	}
	dir, err := bindSource(mounts)
	if err != nil {
		return layerRecord{}, err
	}
	root, err := os.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		return layerRecord{}, err
	}
	defer root.Close()
	u.s.cfg.Fault("layer: unpack")
	res, err := u.apply(ctx, root, layer.Overlay)
	alone := !errors.Is(err, layer.ErrNeedsParents)
	if err != nil && alone {
		return layerRecord{}, err
	}
	if err := u.awaitParent(ctx); err != nil {
		return layerRecord{}, err
	}
	lower, err := u.openBelow()
	if err != nil {
		return layerRecord{}, err
	}
	defer closeAll(lower)
	if alone {
		err = layer.InheritDirs(root, lower, res.Implied)
	}
	if !alone || errors.Is(err, layer.ErrNeedsParents) {
		res, err = u.applyMerged(ctx, root, lower)
	}
	if err != nil {
		return layerRecord{}, err
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

func (u *unpacking) commit(ctx context.Context, key string, size int64) (layerRecord, error) {
	opts := []snapshots.Opt{
		snapshots.WithLabels(map[string]string{uncompressedLabel: u.diff.String()}),
	}
	if u.parent != "" {
		opts = append(opts, snapshots.WithParent(u.parent.String()))
	}
	u.s.cfg.Fault("layer: commit directory")
	if err := u.s.snaps.Commit(ctx, u.chain.String(), key, opts...); err != nil {
		return layerRecord{}, fmt.Errorf("commit layer: %w", err)
	}
	u.s.cfg.Fault("layer: committed")
	info, err := u.s.snaps.Stat(ctx, u.chain.String())
	if err != nil {
		return layerRecord{}, fmt.Errorf("commit layer: %w", err)
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

// openBelow opens the directories of the layers below, top first.
func (u *unpacking) openBelow() ([]*os.File, error) {
	var names []string
	for _, r := range u.below() {
		names = append([]string{filepath.Join(u.s.path("layers"), r.Dir)}, names...)
	}
	return openDirs(names)
}

// apply unpacks the archive below root and compares what was unpacked with the diff ID.
func (u *unpacking) apply(
	ctx context.Context, root *os.File, style layer.Style,
) (layer.Result, error) {
	blob, err := u.open(ctx)
	if err != nil {
		return layer.Result{}, err
	}
	defer blob.Close()
	// The slot is taken only now: a layer that still waits for its download must not hold up one
	// that does not.
	if err := u.s.unpacks.Acquire(ctx, 1); err != nil {
		return layer.Result{}, err
	}
	defer u.s.unpacks.Release(1)
	if u.onStart != nil {
		u.onStart()
	}
	var counted io.Reader = blob
	if u.onRead != nil {
		counted = &countReader{blob, u.onRead}
	}
	plain, _, err := layer.Decompress(counted)
	if err != nil {
		return layer.Result{}, err
	}
	defer plain.Close()
	return applyVerified(
		ctx, root, plain, u.diff, layer.Options{Style: style, Limits: u.s.cfg.LayerLimits},
	)
}

// applyVerified unpacks a plain archive while hashing it. An empty diff accepts any.
func applyVerified(
	ctx context.Context, root *os.File, plain io.Reader, diff digest.Digest, o layer.Options,
) (layer.Result, error) {
	algorithm := digest.Canonical
	if diff != "" {
		if err := diff.Validate(); err != nil {
			return layer.Result{}, fmt.Errorf(
				"diff ID %q: %w: %w", diff, err, errdefs.ErrInvalidArgument,
			)
		}
		algorithm = diff.Algorithm()
	}
	h := algorithm.Digester()
	ahead := layer.Ahead(io.TeeReader(plain, h.Hash()))
	res, err := layer.Apply(ctx, root, ahead, o)
	ahead.Close()
	if err != nil {
		return layer.Result{}, err
	}
	if got := h.Digest(); diff != "" && got != diff {
		return layer.Result{}, fmt.Errorf(
			"layer unpacks to %s, its image says %s: %w", got, diff, errdefs.ErrInvalidArgument,
		)
	}
	return res, nil
}

// applyMerged is for archives that cannot be unpacked without their parents: the layer's directory
// is emptied and becomes the upper directory of an overlay mount that nobody else can see
// (fsmount(2)); the kernel does the rest.
func (u *unpacking) applyMerged(
	ctx context.Context, root *os.File, lower []*os.File,
) (layer.Result, error) {
	if len(lower) == 0 {
		// Nothing below can hold what is missing. Applying in this style names the entry that is at
		// fault.
		if err := emptyDir(root); err != nil {
			return layer.Result{}, err
		}
		return u.apply(ctx, root, layer.Merged)
	}
	if err := emptyDir(root); err != nil {
		return layer.Result{}, err
	}
	// The merged root shows upper's attributes: an archive that says nothing about "./" leaves the
	// parent's.
	if err := layer.InheritDirs(root, lower, []string{"."}); err != nil {
		return layer.Result{}, err
	}
	work := strings.TrimSuffix(root.Name(), "/fs") + "/work"
	var parents []string
	for _, l := range lower {
		parents = append(parents, l.Name())
	}
	mount, err := MountOverlay(parents, root.Name(), work, 0)
	if err != nil {
		return layer.Result{}, fmt.Errorf("mount layer on its parents: %w", err)
	}
	// Directories are read through a descriptor that is open for reading.
	merged, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(mount.Fd())), unix.O_DIRECTORY, 0)
	mount.Close()
	if err != nil {
		return layer.Result{}, fmt.Errorf("mount layer on its parents: %w", err)
	}
	defer merged.Close()
	return u.apply(ctx, merged, layer.Merged)
}

func emptyDir(dir *os.File) error {
	names, err := os.ReadDir(dir.Name())
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := os.RemoveAll(filepath.Join(dir.Name(), n.Name())); err != nil {
			return err
		}
	}
	return nil
}

// openBlob opens a stored blob as a stream.
func (s *Store) openBlob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	ra, err := s.content.ReaderAt(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", desc.Digest, err)
	}
	return &blobReader{content.NewReader(ra), ra}, nil
}

type blobReader struct {
	io.Reader
	io.Closer
}

type countReader struct {
	r  io.Reader
	fn func(int64)
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		c.fn(int64(n))
	}
	return n, err
}
