// Package backend holds containerd's stores in this process: blobs, layer directories, leases,
// garbage-collection roots, and the database above them. There is no daemon and no RPC.
//
// Promises:
//
//   - What is written under an Operation is kept until its end; then only what a root reaches, or
//     what another lease keeps, survives the next Collect.
//   - Recover removes what operations of a dead process left, and nothing that another lease keeps.
//   - An interrupted Fetch is continued by the next one of the same blob, also after a restart, for
//     24 hours or until Prune. One that failed because the disk is full leaves nothing.
//
// Locks, in order: the name of a blob (keylock), Operation.mu; gcMu apart from them.
//
// Not for: knowing what an image is; package image and its index do.
//
// Tested by blobs that come whole, broken, wrong and onto a full disk, by operations that end and
// that a dead process left, and through package image by crashes at every step.
package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"strake/image/index"
	"strake/image/internal/keylock"
)

const (
	// Namespace is containerd's unit of separation; one engine has one.
	Namespace = "strake"
	// SnapshotterName is part of containerd's garbage-collection labels.
	SnapshotterName = "overlay"
	// UncompressedLabel says on a blob which diff ID it unpacks to; containerd and BuildKit use the
	// same.
	UncompressedLabel = "containerd.io/uncompressed"
	// leaseLabel marks leases that die with the process.
	leaseLabel = "strake/operation"
)

// Backend is the open set of stores. All methods may be called concurrently but Close.
type Backend struct {
	root  string
	log   *slog.Logger
	fault func(step string)
	lock  *os.File // held exclusively: one process per store
	dir   *os.File // root, for syncfs

	bolt    *bolt.DB
	meta    *metadata.DB
	overlay snapshots.Cleaner // the snapshotter below Stores.Snapshots
	stores  Stores

	blobs keylock.Set
	// gcMu keeps collections apart from each other; readers of content hold leases instead.
	gcMu    sync.Mutex
	unswept bool // guarded by gcMu; Sweep could not look for everything
}

// Stores are containerd's stores below a Backend.
type Stores struct {
	Content   content.Store
	Snapshots snapshots.Snapshotter
	Leases    leases.Manager
	Images    images.Store
	DB        *metadata.DB
}

// Open opens or creates the stores below an existing directory, which no other process may have
// open: that is ErrUnavailable. fault is called before each step that changes the disk.
func Open(root string, logger *slog.Logger, fault func(step string)) (_ *Backend, err error) {
	quietLog() // before the first call of a library
	b := &Backend{root: root, log: logger, fault: fault}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if b.dir, err = os.Open(root); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if b.lock, err = lockFile(b.path("lock")); err != nil {
		return nil, err
	}
	// The list of free pages stays in the file: without it, opening would read the whole file into
	// memory to find them.
	b.bolt, err = bolt.Open(b.path("meta.db"), 0o600, &bolt.Options{
		Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoStatistics: true,
	})
	if err != nil {
		return nil, fmt.Errorf("open image metadata: %w", err)
	}
	blobs, err := local.NewStore(b.path("content"))
	if err != nil {
		return nil, fmt.Errorf("open image content: %w", err)
	}
	snaps, err := overlay.NewSnapshotter(b.LayersDir(), overlay.WithUpperdirLabel)
	if err != nil {
		return nil, fmt.Errorf("open image layers: %w", err)
	}
	b.meta = metadata.NewDB(b.bolt, blobs, map[string]snapshots.Snapshotter{SnapshotterName: snaps})
	if err := b.meta.Init(Context(context.Background())); err != nil {
		return nil, errors.Join(fmt.Errorf("open image metadata: %w", err), snaps.Close())
	}
	b.overlay, _ = snaps.(snapshots.Cleaner)
	b.stores = Stores{
		Content: b.meta.ContentStore(), Snapshots: b.meta.Snapshotter(SnapshotterName),
		Leases: metadata.NewLeaseManager(b.meta), Images: metadata.NewImageStore(b.meta),
		DB: b.meta,
	}
	return b, nil
}

func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock image store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf(
			"image store is open in another process (lock %q): %w: %w", name, err,
			errdefs.ErrUnavailable,
		)
	}
	return f, nil
}

// Close releases the stores. Operations must have ended. It is safe on a half-opened Backend and
// may be called twice.
func (b *Backend) Close() error {
	var errs []error
	if b.stores.Snapshots != nil {
		errs = append(errs, b.stores.Snapshots.Close())
		b.stores.Snapshots = nil
	}
	if b.bolt != nil {
		errs = append(errs, b.bolt.Close())
		b.bolt = nil
	}
	if b.lock != nil {
		// Not left to close(2): a child that another goroutine is just forking holds the
		// descriptor, and with it the lock, until it executes.
		errs = append(errs, unix.Flock(int(b.lock.Fd()), unix.LOCK_UN))
	}
	for _, f := range []**os.File{&b.dir, &b.lock} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

func (b *Backend) path(elem ...string) string {
	return filepath.Join(append([]string{b.root}, elem...)...)
}

// LayersDir is the directory that the directories of layers are in.
func (b *Backend) LayersDir() string { return b.path("layers") }

// Stores returns containerd's stores. Calls of them need a context of Context.
func (b *Backend) Stores() Stores { return b.stores }

// Fault names a step that is about to change the disk; see Open.
func (b *Backend) Fault(step string) { b.fault(step) }

// Context adds what containerd's libraries look for in a context: the namespace and a logger, which
// is silent.
func Context(ctx context.Context) context.Context {
	return log.WithLogger(namespaces.WithNamespace(ctx, Namespace), quietLog())
}

// View reads the database; it implements index.DB.
func (b *Backend) View(fn func(*bolt.Tx) error) error { return b.bolt.View(fn) }

// Update changes the database and the garbage-collection roots in one transaction; it implements
// index.DB.
func (b *Backend) Update(ctx context.Context, fn func(*bolt.Tx, index.Roots) error) error {
	return b.meta.Update(func(tx *bolt.Tx) error {
		return fn(tx, roots{boltutil.WithTransaction(Context(ctx), tx), b.stores.Images})
	})
}

// roots are containerd's image records in one transaction.
type roots struct {
	ctx    context.Context // carries the transaction and ends with it
	images images.Store
}

func (r roots) Put(name string, target ocispec.Descriptor) error {
	im := images.Image{
		Name: name,
		Target: ocispec.Descriptor{
			MediaType: target.MediaType, Digest: target.Digest, Size: target.Size,
		},
	}
	_, err := r.images.Create(r.ctx, im)
	if errdefs.IsAlreadyExists(err) {
		_, err = r.images.Update(r.ctx, im, "target")
	}
	return err
}

func (r roots) Drop(name string) error {
	if err := r.images.Delete(r.ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// Barrier makes everything written so far durable: file data and metadata of every layer in one go
// (syncfs(2)).
func (b *Backend) Barrier() error {
	b.fault("image: make durable")
	if err := unix.Syncfs(int(b.dir.Fd())); err != nil {
		return fmt.Errorf("make image layers durable: %w", err)
	}
	return nil
}
