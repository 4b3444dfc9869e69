package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"strake/image/layer"
)

// Rootfs is a container's root file system as host paths for an overlay mount; the caller mounts it. Mount with redirect_dir=off, metacopy=off
// and index=off, so that the writable layer stays readable by Changes and Diff (Documentation/filesystems/overlayfs.rst).
type Rootfs struct {
	// Image is the ID of the image below.
	Image digest.Digest
	// Lower are the image's layers, top first; never empty.
	Lower []string
	// Upper and Work are the writable layer and overlayfs's scratch directory; empty for a View.
	Upper, Work string
}

// Usage is the disk space of a writable layer.
type Usage struct {
	// Bytes are allocated bytes, hard links counted once.
	Bytes int64
	// Inodes counts files of every kind.
	Inodes int64
}

var keyPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

const (
	upperName = "diff"
	workName  = "work"
	// imageName is a symbolic link whose text is the image's ID: the one durable record of what a container stands on.
	imageName = "image"
	newPrefix = ".new-"
	oldPrefix = ".old-"
)

// rootfsTable is the set of container directories below <root>/containers. The directories are the truth; the table is read from them at Open.
type rootfsTable struct {
	dir      string
	mu       sync.Mutex
	keys     map[string]digest.Digest // guarded by mu
	count    map[digest.Digest]int    // guarded by mu
	sequence keyed
}

func (t *rootfsTable) open(dir string) error {
	t.dir, t.keys, t.count = dir, map[string]digest.Digest{}, map[digest.Digest]int{}
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return fmt.Errorf("open container layers: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, ".empty"), 0o755); err != nil {
		return fmt.Errorf("open container layers: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("open container layers: %w", err)
	}
	for _, e := range names {
		n := e.Name()
		if strings.HasPrefix(n, newPrefix) || strings.HasPrefix(n, oldPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, n)); err != nil {
				return fmt.Errorf("remove unfinished container layer: %w", err)
			}
			continue
		}
		if !keyPattern.MatchString(n) {
			continue
		}
		id, err := os.Readlink(filepath.Join(dir, n, imageName))
		if err != nil {
			return fmt.Errorf("open container layer %q: %w", n, err)
		}
		t.add(n, digest.Digest(id))
	}
	return nil
}

func (t *rootfsTable) add(key string, id digest.Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys[key] = id
	t.count[id]++
}

func (t *rootfsTable) remove(key string) (id digest.Digest, last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, ok := t.keys[key]
	if !ok {
		return "", false
	}
	delete(t.keys, key)
	if t.count[id]--; t.count[id] > 0 {
		return id, false
	}
	delete(t.count, id)
	return id, true
}

func (t *rootfsTable) get(key string) (digest.Digest, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, ok := t.keys[key]
	return id, ok
}

func (t *rootfsTable) uses(id digest.Digest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count[id] > 0
}

// Prepare makes a writable layer on an image (full ID) under a key and keeps the image's layers until Release. It costs a handful of directory
// operations; the directories are not made durable one by one. Errors: ErrAlreadyExists, ErrNotFound (image), ErrInvalidArgument (key).
func (s *Store) Prepare(ctx context.Context, key string, id digest.Digest) (Rootfs, error) {
	return s.prepare(key, id, true)
}

// View is Prepare without a writable layer: only the image's layers, kept until Release.
func (s *Store) View(ctx context.Context, key string, id digest.Digest) (Rootfs, error) {
	return s.prepare(key, id, false)
}

func (s *Store) prepare(key string, id digest.Digest, writable bool) (_ Rootfs, err error) {
	t := &s.rootfs
	if !keyPattern.MatchString(key) {
		return Rootfs{}, fmt.Errorf("container layer key %q, want %s: %w", key, keyPattern, errdefs.ErrInvalidArgument)
	}
	defer t.sequence.lock(key)()
	if _, ok := t.get(key); ok {
		return Rootfs{}, fmt.Errorf("container layer %q: %w", key, errdefs.ErrAlreadyExists)
	}
	r, err := s.retain(key, id)
	if err != nil {
		return Rootfs{}, err
	}
	tmp, final := filepath.Join(t.dir, newPrefix+key), filepath.Join(t.dir, key)
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp), s.dropKey(key))
		}
	}()
	if err := os.Mkdir(tmp, 0o710); err != nil {
		return Rootfs{}, fmt.Errorf("make container layer %q: %w", key, err)
	}
	if writable {
		if err := makeUpper(tmp, r.Lower[0]); err != nil {
			return Rootfs{}, fmt.Errorf("make container layer %q: %w", key, err)
		}
		r.Upper, r.Work = filepath.Join(final, upperName), filepath.Join(final, workName)
	}
	if err := os.Symlink(id.String(), filepath.Join(tmp, imageName)); err != nil {
		return Rootfs{}, fmt.Errorf("make container layer %q: %w", key, err)
	}
	if err := os.Rename(tmp, final); err != nil {
		return Rootfs{}, fmt.Errorf("make container layer %q: %w", key, err)
	}
	return r, nil
}

// retain counts key as a user of the image in the same critical section that sees the image alive; Remove looks the other way round.
func (s *Store) retain(key string, id digest.Digest) (Rootfs, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	im, ok := s.idx.images[id]
	if !ok || im.rec.Removed {
		return Rootfs{}, notFoundError{id.String()}
	}
	s.rootfs.add(key, id)
	return Rootfs{Image: id, Lower: s.lowerLocked(im)}, nil
}

// lowerLocked lists an image's layer directories. Callers hold mu.
func (s *Store) lowerLocked(im *image) []string {
	if len(im.rec.Layers) == 0 {
		return []string{filepath.Join(s.rootfs.dir, ".empty")}
	}
	return s.idx.dirs(s.path("layers"), im)
}

// makeUpper makes diff and work below dir. A merged root directory shows the upper layer's attributes, so they are copied from the image.
func makeUpper(dir, top string) error {
	if err := os.Mkdir(filepath.Join(dir, workName), 0o710); err != nil {
		return err
	}
	upper := filepath.Join(dir, upperName)
	if err := os.Mkdir(upper, 0o755); err != nil {
		return err
	}
	src, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open layer %q: %w", top, err)
	}
	defer unix.Close(src)
	dst, err := unix.Open(upper, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	return layer.CopyDirMeta(dst, src)
}

// Rootfs finds what Prepare or View made, also after a restart. Errors: ErrNotFound.
func (s *Store) Rootfs(ctx context.Context, key string) (Rootfs, error) {
	id, ok := s.rootfs.get(key)
	if !ok {
		return Rootfs{}, fmt.Errorf("container layer %q: %w", key, errdefs.ErrNotFound)
	}
	s.mu.RLock()
	im, ok := s.idx.images[id]
	if !ok {
		s.mu.RUnlock()
		return Rootfs{}, fmt.Errorf("container layer %q: image %s: %w", key, id, errdefs.ErrNotFound)
	}
	r := Rootfs{Image: id, Lower: s.lowerLocked(im)}
	s.mu.RUnlock()
	dir := filepath.Join(s.rootfs.dir, key)
	if _, err := os.Lstat(filepath.Join(dir, upperName)); err == nil {
		r.Upper, r.Work = filepath.Join(dir, upperName), filepath.Join(dir, workName)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Rootfs{}, fmt.Errorf("container layer %q: %w", key, err)
	}
	return r, nil
}

// RootfsKeys lists the keys of all container layers with the image each stands on.
func (s *Store) RootfsKeys() map[string]digest.Digest {
	s.rootfs.mu.Lock()
	defer s.rootfs.mu.Unlock()
	out := make(map[string]digest.Digest, len(s.rootfs.keys))
	for k, v := range s.rootfs.keys {
		out[k] = v
	}
	return out
}

// Release removes a container's layer, which must not be mounted, and the image's layers with it when the image was removed meanwhile and this was
// its last user. Once it has begun, a crash finishes it at the next Open. Errors: ErrNotFound.
func (s *Store) Release(ctx context.Context, key string) error {
	t := &s.rootfs
	defer t.sequence.lock(key)()
	if _, ok := t.get(key); !ok {
		return fmt.Errorf("container layer %q: %w", key, errdefs.ErrNotFound)
	}
	old := filepath.Join(t.dir, oldPrefix+rand.Text())
	if err := os.Rename(filepath.Join(t.dir, key), old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release container layer %q: %w", key, err)
	}
	err := s.dropKey(key)
	if rerr := os.RemoveAll(old); rerr != nil {
		err = errors.Join(err, fmt.Errorf("release container layer %q: %w", key, rerr))
	}
	return err
}

// dropKey uncounts a key and lets a removed image go with its last user.
func (s *Store) dropKey(key string) error {
	id, last := s.rootfs.remove(key)
	if !last {
		return nil
	}
	s.mu.RLock()
	im, ok := s.idx.images[id]
	s.mu.RUnlock()
	if !ok || !im.rec.Removed {
		return nil
	}
	ctx := s.context(context.Background())
	if err := s.forget(ctx, id); err != nil {
		return err
	}
	return s.collect(ctx)
}

// forget drops a removed image that no container uses.
func (s *Store) forget(ctx context.Context, id digest.Digest) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.mu.RLock()
	im, ok := s.idx.images[id]
	s.mu.RUnlock()
	if !ok || !im.rec.Removed || s.rootfs.uses(id) {
		return nil // loaded again meanwhile
	}
	_, err := s.apply(ctx, change{drop: []digest.Digest{id}})
	return err
}

// Usage walks a container's writable layer.
func (s *Store) Usage(ctx context.Context, key string) (Usage, error) {
	r, err := s.Rootfs(ctx, key)
	if err != nil || r.Upper == "" {
		return Usage{}, err
	}
	return treeUsage(ctx, r.Upper)
}

func treeUsage(ctx context.Context, dir string) (Usage, error) {
	var u Usage
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed while we look
		}
		if err != nil {
			return err
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		u.Inodes++
		u.Bytes += st.Blocks * 512
		return nil
	})
	if err != nil {
		return Usage{}, fmt.Errorf("measure %q: %w", dir, err)
	}
	return u, nil
}

// Changes lists how a container's writable layer differs from its image.
func (s *Store) Changes(ctx context.Context, key string) ([]layer.Change, error) {
	upper, lower, done, err := s.openLayers(ctx, key)
	if err != nil || upper == nil {
		return nil, err
	}
	defer done()
	return layer.Changes(ctx, upper, lower)
}

// Diff writes a container's writable layer as an uncompressed layer archive.
func (s *Store) Diff(ctx context.Context, key string, w io.Writer) error {
	upper, _, done, err := s.openLayers(ctx, key)
	if err != nil {
		return err
	}
	if upper == nil {
		return fmt.Errorf("container layer %q is read-only: %w", key, errdefs.ErrFailedPrecondition)
	}
	defer done()
	return layer.Tar(ctx, upper, layer.Overlay, w)
}

// openLayers opens a container's directories; upper is nil for a View.
func (s *Store) openLayers(ctx context.Context, key string) (upper *os.File, lower []*os.File, done func(), err error) {
	r, err := s.Rootfs(ctx, key)
	if err != nil || r.Upper == "" {
		return nil, nil, nil, err
	}
	files, err := openDirs(append([]string{r.Upper}, r.Lower...))
	if err != nil {
		return nil, nil, nil, err
	}
	return files[0], files[1:], func() { closeAll(files) }, nil
}

func openDirs(names []string) ([]*os.File, error) {
	var files []*os.File
	for _, n := range names {
		fd, err := unix.Open(n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("open layer directory %q: %w", n, err)
		}
		files = append(files, os.NewFile(uintptr(fd), n))
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
