package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"strake/image/index"
	"strake/image/layer"
	"strake/image/overlay"
	"strake/image/rootfs"
)

// Prepare makes a writable layer on an image (full ID) under a key, "owner/name" or a bare name
// (see Key), and keeps the image's layers until Release. It costs a handful of directory
// operations; the directories are not made durable one by one. Errors: ErrAlreadyExists,
// ErrNotFound (image), ErrInvalidArgument (key).
func (s *Store) Prepare(ctx context.Context, key string, id digest.Digest) (Rootfs, error) {
	return s.rootfs.Prepare(key, id, rootfs.Writable)
}

// View is Prepare without a writable layer: only the image's layers, kept until Release.
func (s *Store) View(ctx context.Context, key string, id digest.Digest) (Rootfs, error) {
	return s.rootfs.Prepare(key, id, rootfs.ReadOnly)
}

// Rootfs finds what Prepare or View made, also after a restart. Errors: ErrNotFound.
func (s *Store) Rootfs(ctx context.Context, key string) (Rootfs, error) { return s.rootfs.Get(key) }

// RootfsKeys lists the keys of one owner, complete as Prepare got them, with the image that each
// stands on. An empty owner lists the bare keys alone.
func (s *Store) RootfsKeys(owner string) map[string]digest.Digest { return s.rootfs.Keys(owner) }

// Release removes a container's layer, which must not be mounted, and the image's layers with it
// when the image was removed meanwhile and this was its last user. Once it has begun, a crash
// finishes it at the next Open. Errors: ErrNotFound.
func (s *Store) Release(ctx context.Context, key string) error { return s.rootfs.Release(key) }

// Usage walks a container's writable layer.
func (s *Store) Usage(ctx context.Context, key string) (Usage, error) {
	return s.rootfs.Usage(ctx, key)
}

// Changes lists how a container's writable layer differs from its image.
func (s *Store) Changes(ctx context.Context, key string) ([]layer.Change, error) {
	return s.rootfs.Changes(ctx, key)
}

// Diff writes a container's writable layer as an uncompressed layer archive. A View is
// ErrFailedPrecondition.
func (s *Store) Diff(ctx context.Context, key string, w io.Writer) error {
	return s.rootfs.Diff(ctx, key, w)
}

// MountOverlay mounts layers on one another where no mount namespace shows it; see overlay.Mount.
func MountOverlay(lower []string, upper, work string, attrs int) (*os.File, error) {
	return overlay.Mount(lower, upper, work, attrs)
}

// dirs lists the directories of layers, which come base first, top first.
func (s *Store) dirs(layers []index.Layer) []string {
	out := make([]string, len(layers))
	for i, l := range layers {
		out[len(layers)-1-i] = filepath.Join(s.backend.LayersDir(), l.Dir)
	}
	return out
}

// lowerImages are the store's images as package rootfs sees them.
type lowerImages struct{ s *Store }

// Retain implements rootfs.Images.
func (l lowerImages) Retain(id digest.Digest, hold func()) ([]string, error) {
	layers, err := l.s.index.Retain(id, hold)
	return l.s.dirs(layers), err
}

// Lower implements rootfs.Images.
func (l lowerImages) Lower(id digest.Digest) ([]string, error) {
	im, ok := l.s.index.Image(id)
	if !ok {
		return nil, fmt.Errorf("image %s: %w", id, errdefs.ErrNotFound)
	}
	return l.s.dirs(l.s.index.Layers(im)), nil
}

// Unused implements rootfs.Images: a removed image goes with its last user.
func (l lowerImages) Unused(id digest.Digest) error {
	im, ok := l.s.index.Image(id)
	if !ok || !im.Rec.Removed {
		return nil
	}
	ctx := context.Background()
	dropped, err := l.s.index.Forget(ctx, id, l.s.users())
	if err != nil || !dropped {
		return err
	}
	return l.s.Collect(ctx)
}
