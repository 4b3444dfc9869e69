package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sync/semaphore"

	"strake/image/backend"
	"strake/image/index"
	"strake/image/internal/keylock"
	"strake/image/registry"
	"strake/image/rootfs"
	"strake/image/unpack"
)

// Store is an open image store. All methods may be called concurrently.
type Store struct {
	cfg       Config
	log       *slog.Logger
	backend   *backend.Backend
	index     *index.Index
	unpack    *unpack.Unpacker
	rootfs    *rootfs.Table
	registry  *registry.Client
	downloads *semaphore.Weighted
	packing   keylock.Set // image IDs
}

// Open opens or creates the store and removes what a crash left behind. A store that another
// process has open is errdefs.ErrUnavailable.
func Open(cfg Config) (_ *Store, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	// Set-user-ID files of images lie below: root alone passes (CVE-2021-41091). 0710 so that a
	// group can be let through deliberately.
	if err := os.MkdirAll(cfg.Root, 0o710); err != nil {
		return nil, fmt.Errorf("create image store: %w", err)
	}
	if err := os.Chmod(cfg.Root, 0o710); err != nil {
		return nil, fmt.Errorf("create image store: %w", err)
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger,
		registry:  registry.New(cfg.Registries, cfg.MaxConcurrentUploads),
		downloads: semaphore.NewWeighted(int64(cfg.MaxConcurrentDownloads)),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.backend, err = backend.Open(cfg.Root, cfg.Logger, cfg.Fault); err != nil {
		return nil, err
	}
	if s.index, err = index.Open(s.backend, cfg.Fault); err != nil {
		return nil, err
	}
	s.unpack = unpack.New(s.backend, s.index.Layer, cfg.LayerLimits, cfg.MaxConcurrentUnpacks)
	s.rootfs, err = rootfs.Open(filepath.Join(cfg.Root, "containers"), lowerImages{s}, cfg.Fault)
	if err != nil {
		return nil, err
	}
	if err := s.recover(context.Background()); err != nil {
		return nil, fmt.Errorf("recover image store %q: %w", cfg.Root, err)
	}
	return s, nil
}

// Close releases the store. Operations must have ended. It may be called twice.
func (s *Store) Close() error {
	if s.backend == nil {
		return nil
	}
	return s.backend.Close()
}

// recover removes the leftovers of operations that did not end. When the last process ended in
// order it only reads. A disk that is full is no reason not to open: it is removals that are needed
// then.
func (s *Store) recover(ctx context.Context) error {
	err := s.removeLeftovers(ctx)
	if backend.Full(err) {
		s.log.Warn("remove what an interrupted image operation left behind", "error", err)
		return nil
	}
	return err
}

func (s *Store) removeLeftovers(ctx context.Context) error {
	interrupted, err := s.backend.Recover(ctx)
	if err != nil {
		return err
	}
	dirty, err := s.index.Dirty()
	if err != nil {
		return err
	}
	dirty = dirty || interrupted
	for _, id := range s.index.Concealed() {
		dropped, err := s.index.Forget(ctx, id, s.users())
		if err != nil {
			return err
		}
		dirty = dirty || dropped
	}
	if !dirty {
		return nil
	}
	s.log.Info("collecting what an interrupted image operation left behind")
	return s.index.Clean(ctx, s.backend.Sweep)
}

// run carries out an operation under a lease that keeps what it makes. What a failed one made is
// collected at once.
func (s *Store) run(
	ctx context.Context, fn func(context.Context, *backend.Operation) error,
) error {
	o, err := s.backend.Begin(ctx)
	if err != nil {
		return err
	}
	err = fn(ctx, o)
	o.End(ctx)
	if err != nil {
		if cerr := s.Collect(context.WithoutCancel(ctx)); cerr != nil {
			s.log.Warn("collect after a failed image operation", "error", cerr)
		}
	}
	return err
}

// users says who uses images, for removals.
func (s *Store) users() index.Users {
	return index.Users{InUse: s.cfg.InUse, Held: s.rootfs.Uses}
}
