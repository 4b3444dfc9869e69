package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

const (
	// namespace is containerd's unit of separation; one engine has one.
	namespace = "strake"
	// snapshotterName is part of containerd's garbage-collection labels.
	snapshotterName = "overlay"
	// leaseLabel marks leases that die with the process.
	leaseLabel = "strake/operation"
	// uncompressedLabel says on a blob which diff ID it unpacks to; containerd and BuildKit use the
	// same.
	uncompressedLabel = "containerd.io/uncompressed"
)

// Store is an open image store. All methods may be called concurrently.
type Store struct {
	cfg  Config
	log  *slog.Logger
	lock *os.File // held exclusively: one process per store
	dir  *os.File // Config.Root, for syncfs

	bolt    *bolt.DB
	meta    *metadata.DB
	content content.Store
	snaps   snapshots.Snapshotter
	overlay snapshots.Cleaner // the snapshotter below snaps
	images  images.Store
	leases  leases.Manager

	downloads *semaphore.Weighted
	uploads   *semaphore.Weighted
	unpacks   *semaphore.Weighted
	flights   keyed

	// gcMu keeps collections apart from each other; readers of content hold leases instead.
	gcMu sync.Mutex
	// commitMu admits one change of the index at a time: database first, memory second.
	commitMu sync.Mutex
	mu       sync.RWMutex
	idx      *index // guarded by mu

	rootfs rootfsTable
}

// Open opens or creates the store and removes what a crash left behind. A store that another
// process has open is errdefs.ErrUnavailable.
func Open(cfg Config) (_ *Store, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	quietLog() // before the first call of a library
	s := &Store{
		cfg: cfg, log: cfg.Logger, idx: newIndex(),
		downloads: semaphore.NewWeighted(int64(cfg.MaxConcurrentDownloads)),
		uploads:   semaphore.NewWeighted(int64(cfg.MaxConcurrentUploads)),
		unpacks:   semaphore.NewWeighted(int64(cfg.MaxConcurrentUnpacks)),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	// Set-user-ID files of images lie below: nobody but root passes (CVE-2021-41091). 0710 so that
	// a group can be let through deliberately.
	if err := os.MkdirAll(cfg.Root, 0o710); err != nil {
		return nil, fmt.Errorf("create image store: %w", err)
	}
	if err := os.Chmod(cfg.Root, 0o710); err != nil {
		return nil, fmt.Errorf("create image store: %w", err)
	}
	if s.dir, err = os.Open(cfg.Root); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if s.lock, err = lockFile(s.path("lock")); err != nil {
		return nil, err
	}
	if err := s.openBackends(); err != nil {
		return nil, err
	}
	if err := s.bolt.View(s.idx.load); err != nil {
		return nil, err
	}
	s.rootfs.fault = cfg.Fault
	if err := s.rootfs.open(s.path("containers")); err != nil {
		return nil, err
	}
	if err := s.recover(s.context(context.Background())); err != nil {
		return nil, fmt.Errorf("recover image store %q: %w", cfg.Root, err)
	}
	return s, nil
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

func (s *Store) openBackends() (err error) {
	// The list of free pages stays in the file: without it, opening would read the whole file into
	// memory to find them.
	s.bolt, err = bolt.Open(s.path("meta.db"), 0o600, &bolt.Options{
		Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoStatistics: true,
	})
	if err != nil {
		return fmt.Errorf("open image metadata: %w", err)
	}
	blobs, err := local.NewStore(s.path("content"))
	if err != nil {
		return fmt.Errorf("open image content: %w", err)
	}
	snaps, err := overlay.NewSnapshotter(s.path("layers"), overlay.WithUpperdirLabel)
	if err != nil {
		return fmt.Errorf("open image layers: %w", err)
	}
	s.meta = metadata.NewDB(s.bolt, blobs, map[string]snapshots.Snapshotter{snapshotterName: snaps})
	if err := s.meta.Init(s.context(context.Background())); err != nil {
		return fmt.Errorf("open image metadata: %w", err)
	}
	s.content = s.meta.ContentStore()
	s.snaps = s.meta.Snapshotter(snapshotterName)
	s.overlay, _ = snaps.(snapshots.Cleaner)
	s.images = metadata.NewImageStore(s.meta)
	s.leases = metadata.NewLeaseManager(s.meta)
	return nil
}

// Close releases the store. Operations must have ended. It is safe on a half-opened store and may
// be called twice.
func (s *Store) Close() error {
	var errs []error
	if s.snaps != nil {
		errs = append(errs, s.snaps.Close())
		s.snaps = nil
	}
	if s.bolt != nil {
		errs = append(errs, s.bolt.Close())
		s.bolt = nil
	}
	if s.lock != nil {
		// Not left to close(2): a child that another goroutine is just forking holds the
		// descriptor, and with it the lock, until it executes.
		errs = append(errs, unix.Flock(int(s.lock.Fd()), unix.LOCK_UN))
	}
	for _, f := range []**os.File{&s.dir, &s.lock} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.cfg.Root}, elem...)...)
}

// context adds what containerd's libraries look for in a context.
func (s *Store) context(ctx context.Context) context.Context { return storeContext(ctx) }

func storeContext(ctx context.Context) context.Context {
	return log.WithLogger(namespaces.WithNamespace(ctx, namespace), quietLog())
}

// change is one transaction on the index.
type change struct {
	layers   map[digest.Digest]layerRecord
	images   map[digest.Digest]imageRecord
	refs     map[string]refRecord
	dropRefs []string
	drop     []digest.Digest // images
}

// apply commits a change: one transaction that is the point where it becomes visible, then the
// memory. Callers hold commitMu. It returns the layers that lost their last image.
func (s *Store) apply(ctx context.Context, c change) (orphans []digest.Digest, err error) {
	dropped := map[digest.Digest]bool{}
	for _, id := range c.drop {
		dropped[id] = true
	}
	// Which layers go is known before the transaction: nobody else changes the index meanwhile.
	for _, id := range c.drop {
		for _, o := range s.orphansOf(id, dropped) {
			if !slices.Contains(orphans, o) {
				orphans = append(orphans, o)
			}
		}
	}
	s.cfg.Fault("image: transaction")
	err = s.meta.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		for k, v := range c.layers {
			if err := putJSON(tx, bucketLayers, k.String(), v); err != nil {
				return err
			}
		}
		for id, rec := range c.images {
			if err := putJSON(tx, bucketImages, id.String(), rec); err != nil {
				return err
			}
			if err := s.putRoot(ctx, id.String(), rec.Target); err != nil {
				return err
			}
		}
		for ref, r := range c.refs {
			if err := putJSON(tx, bucketRefs, ref, r); err != nil {
				return err
			}
			if err := s.putRoot(ctx, ref, r.Target); err != nil {
				return err
			}
		}
		for _, ref := range c.dropRefs {
			if err := deleteKey(tx, bucketRefs, ref); err != nil {
				return err
			}
			if err := s.dropRoot(ctx, ref); err != nil {
				return err
			}
		}
		for _, id := range c.drop {
			if err := deleteKey(tx, bucketImages, id.String()); err != nil {
				return err
			}
			if err := s.dropRoot(ctx, id.String()); err != nil {
				return err
			}
		}
		for _, o := range orphans {
			if err := deleteKey(tx, bucketLayers, o.String()); err != nil {
				return err
			}
		}
		if len(c.drop)+len(c.dropRefs) > 0 {
			return setDirty(tx, true)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("record image change: %w", err)
	}
	s.cfg.Fault("image: recorded")
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range c.layers {
		s.idx.putLayer(k, v)
	}
	for id, rec := range c.images {
		s.idx.putImage(id, rec)
	}
	for ref, r := range c.refs {
		s.idx.putRef(ref, r)
	}
	for _, ref := range c.dropRefs {
		s.idx.dropRef(ref)
	}
	for _, id := range c.drop {
		s.idx.dropImage(id)
	}
	return orphans, nil
}

// orphansOf lists, top first, the layers of an image that only images in gone use.
func (s *Store) orphansOf(id digest.Digest, gone map[digest.Digest]bool) []digest.Digest {
	s.mu.RLock()
	defer s.mu.RUnlock()
	im, ok := s.idx.images[id]
	if !ok {
		return nil
	}
	uses := map[digest.Digest]int{}
	for g := range gone {
		if o, ok := s.idx.images[g]; ok {
			for _, c := range o.rec.Layers {
				uses[c]++
			}
		}
	}
	var out []digest.Digest
	for i := len(im.rec.Layers) - 1; i >= 0; i-- {
		if c := im.rec.Layers[i]; s.idx.layerUse[c] == uses[c] {
			out = append(out, c)
		}
	}
	return out
}

// putRoot makes a descriptor a garbage-collection root under a name.
func (s *Store) putRoot(ctx context.Context, name string, target ocispec.Descriptor) error {
	im := images.Image{
		Name: name,
		Target: ocispec.Descriptor{
			MediaType: target.MediaType, Digest: target.Digest, Size: target.Size,
		},
	}
	_, err := s.images.Create(ctx, im)
	if errdefs.IsAlreadyExists(err) {
		_, err = s.images.Update(ctx, im, "target")
	}
	return err
}

func (s *Store) dropRoot(ctx context.Context, name string) error {
	if err := s.images.Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// barrier makes everything written so far durable: file data and metadata of every layer in one go
// (syncfs(2)).
func (s *Store) barrier() error {
	s.cfg.Fault("image: make durable")
	if err := unix.Syncfs(int(s.dir.Fd())); err != nil {
		return fmt.Errorf("make image layers durable: %w", err)
	}
	return nil
}

// writeBlob stores a small blob and returns its descriptor without media type. Labels are
// containerd's references for garbage collection.
func (s *Store) writeBlob(
	ctx context.Context, what string, b []byte, labels map[string]string,
) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
	unlock := s.flights.lock("blob " + desc.Digest.String())
	defer unlock()
	if err := s.hold(ctx, []digest.Digest{desc.Digest}, nil); err != nil {
		return desc, err
	}
	s.cfg.Fault("image: write " + what)
	err := content.WriteBlob(
		ctx, s.content, what+"-"+desc.Digest.String(), strings.NewReader(string(b)), desc,
		content.WithLabels(labels),
	)
	if err != nil {
		return desc, fmt.Errorf("store %s: %w", what, err)
	}
	return desc, s.label(ctx, desc.Digest, labels)
}

// label merges labels into those of a blob that may have been there before.
func (s *Store) label(ctx context.Context, d digest.Digest, labels map[string]string) error {
	if len(labels) == 0 {
		return nil
	}
	info, err := s.content.Info(ctx, d)
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
	_, err = s.content.Update(ctx, content.Info{Digest: d, Labels: labels}, fields...)
	return err
}

// maxJSON bounds manifests and configurations (distribution-spec, "Pushing Manifests", asks
// registries for 4 MiB).
const maxJSON = 16 << 20

// readBlob reads a small blob whole.
func (s *Store) readBlob(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	ra, err := s.content.ReaderAt(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d.Digest, err)
	}
	defer ra.Close()
	if ra.Size() > maxJSON {
		return nil, fmt.Errorf(
			"blob %s has %d bytes where a document of at most %d belongs: %w", d.Digest, ra.Size(),
			maxJSON, errdefs.ErrInvalidArgument,
		)
	}
	b := make([]byte, ra.Size())
	if _, err := io.ReadFull(io.NewSectionReader(ra, 0, ra.Size()), b); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d.Digest, err)
	}
	return b, nil
}
