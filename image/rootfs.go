package image

import (
	"context"
	"encoding/base64"
	"encoding/hex"
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

// Rootfs is a container's root file system as host paths for an overlay mount; the caller mounts
// it. Mount with redirect_dir=off, metacopy=off and index=off, so that the writable layer stays
// readable by Changes and Diff (Documentation/filesystems/overlayfs.rst).
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

// Below <root>/containers there are three directories, each with one entry per key. An entry in
// image is what makes a container layer exist: a symbolic link whose text says what it stands on.
// It is made last and removed first, so whatever diff or work holds beside it is a leftover.
const (
	upperName = "diff"
	workName  = "work"
	imageName = "image"
	emptyName = "empty" // the lower directory of images without layers
)

// rootfsTable is the set of container layers. The directories are the truth; the table is read from
// them at Open.
type rootfsTable struct {
	dir      string
	fault    func(step string) // Config.Fault; constant
	mu       sync.Mutex
	keys     map[string]digest.Digest // guarded by mu
	count    map[digest.Digest]int    // guarded by mu
	sequence keyed
}

func (t *rootfsTable) path(kind, key string) string { return filepath.Join(t.dir, kind, key) }

// linkText packs an ID into less than 60 bytes, which ext4 keeps in the inode: longer links cost a
// block each.
func linkText(id digest.Digest) (string, error) {
	b, err := hex.DecodeString(id.Encoded())
	if err != nil {
		return "", fmt.Errorf("image ID %q: %w: %w", id, err, errdefs.ErrInvalidArgument)
	}
	return string(id.Algorithm()) + "-" + base64.RawURLEncoding.EncodeToString(b), nil
}

func parseLinkText(s string) (digest.Digest, error) {
	algorithm, text, _ := strings.Cut(s, "-")
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return "", fmt.Errorf("image link %q: %w", s, err)
	}
	id := digest.NewDigestFromBytes(digest.Algorithm(algorithm), b)
	return id, id.Validate()
}

func (t *rootfsTable) open(dir string) error {
	t.dir, t.keys, t.count = dir, map[string]digest.Digest{}, map[digest.Digest]int{}
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return fmt.Errorf("open container layers: %w", err)
	}
	for name, mode := range map[string]os.FileMode{
		upperName: 0o710, workName: 0o710, imageName: 0o710, emptyName: 0o755,
	} {
		if err := os.Mkdir(filepath.Join(dir, name), mode); err != nil &&
			!errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("open container layers: %w", err)
		}
	}
	names, err := os.ReadDir(filepath.Join(dir, imageName))
	if err != nil {
		return fmt.Errorf("open container layers: %w", err)
	}
	for _, e := range names {
		text, err := os.Readlink(t.path(imageName, e.Name()))
		if err != nil {
			return fmt.Errorf("open container layer %q: %w", e.Name(), err)
		}
		id, err := parseLinkText(text)
		if err != nil {
			return fmt.Errorf("open container layer %q: %w", e.Name(), err)
		}
		t.add(e.Name(), id)
	}
	for _, kind := range []string{upperName, workName} {
		names, err := os.ReadDir(filepath.Join(dir, kind))
		if err != nil {
			return fmt.Errorf("open container layers: %w", err)
		}
		for _, e := range names {
			if _, ok := t.keys[e.Name()]; ok {
				continue
			}
			if err := os.RemoveAll(t.path(kind, e.Name())); err != nil {
				return fmt.Errorf("remove unfinished container layer: %w", err)
			}
		}
	}
	return nil
}

// drop removes the directories of a key; the link goes first.
func (t *rootfsTable) drop(key string) error {
	t.fault("container layer: remove link")
	if err := os.Remove(t.path(imageName, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	t.fault("container layer: remove directories")
	return errors.Join(os.RemoveAll(t.path(upperName, key)), os.RemoveAll(t.path(workName, key)))
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

// Prepare makes a writable layer on an image (full ID) under a key and keeps the image's layers
// until Release. It costs a handful of directory operations; the directories are not made durable
// one by one. Errors: ErrAlreadyExists, ErrNotFound (image), ErrInvalidArgument (key).
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
		return Rootfs{}, fmt.Errorf(
			"container layer key %q, want %s: %w", key, keyPattern, errdefs.ErrInvalidArgument,
		)
	}
	defer t.sequence.lock(key)()
	if _, ok := t.get(key); ok {
		return Rootfs{}, fmt.Errorf("container layer %q: %w", key, errdefs.ErrAlreadyExists)
	}
	r, err := s.retain(key, id)
	if err != nil {
		return Rootfs{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(
				fmt.Errorf("make container layer %q: %w", key, err), t.drop(key), s.dropKey(key),
			)
		}
	}()
	s.cfg.Fault("container layer: make directories")
	if writable {
		if r.Upper, r.Work, err = t.makeUpper(key, r.Lower[0]); err != nil {
			return Rootfs{}, err
		}
	}
	text, err := linkText(id)
	if err != nil {
		return Rootfs{}, err
	}
	s.cfg.Fault("container layer: link")
	if err := os.Symlink(text, t.path(imageName, key)); err != nil {
		return Rootfs{}, err
	}
	return r, nil
}

// retain counts key as a user of the image in the same critical section that sees the image alive;
// Remove looks the other way round.
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
		return []string{filepath.Join(s.rootfs.dir, emptyName)}
	}
	return s.idx.dirs(s.path("layers"), im)
}

// makeUpper makes the upper and work directories of a key. A merged root directory shows the upper
// layer's attributes, so they are copied from the image.
func (t *rootfsTable) makeUpper(key, top string) (upper, work string, err error) {
	upper, work = t.path(upperName, key), t.path(workName, key)
	if err := os.Mkdir(work, 0o710); err != nil {
		return "", "", err
	}
	if err := os.Mkdir(upper, 0o755); err != nil {
		return "", "", err
	}
	return upper, work, copyRootMeta(upper, top)
}

func copyRootMeta(upper, top string) error {
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
		return Rootfs{}, fmt.Errorf(
			"container layer %q: image %s: %w", key, id, errdefs.ErrNotFound,
		)
	}
	r := Rootfs{Image: id, Lower: s.lowerLocked(im)}
	s.mu.RUnlock()
	upper := s.rootfs.path(upperName, key)
	if _, err := os.Lstat(upper); err == nil {
		r.Upper, r.Work = upper, s.rootfs.path(workName, key)
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

// Release removes a container's layer, which must not be mounted, and the image's layers with it
// when the image was removed meanwhile and this was its last user. Once it has begun, a crash
// finishes it at the next Open. Errors: ErrNotFound.
func (s *Store) Release(ctx context.Context, key string) error {
	t := &s.rootfs
	defer t.sequence.lock(key)()
	if _, ok := t.get(key); !ok {
		return fmt.Errorf("container layer %q: %w", key, errdefs.ErrNotFound)
	}
	if err := t.drop(key); err != nil {
		// Still counted: the engine may try again.
		return fmt.Errorf("release container layer %q: %w", key, err)
	}
	return s.dropKey(key)
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
	err := walkInodes(ctx, dir, func(st *unix.Stat_t) {
		u.Inodes++
		u.Bytes += st.Blocks * 512
	})
	return u, err
}

// fileBytes is the sum of the sizes of the regular files below dir, as layers are measured when they
// are unpacked.
func fileBytes(ctx context.Context, dir string) (n int64, err error) {
	err = walkInodes(ctx, dir, func(st *unix.Stat_t) {
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			n += st.Size
		}
	})
	return n, err
}

// walkInodes calls fn once for each inode of a tree.
func walkInodes(ctx context.Context, dir string, fn func(*unix.Stat_t)) error {
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
		fn(&st)
		return nil
	})
	if err != nil {
		return fmt.Errorf("measure %q: %w", dir, err)
	}
	return nil
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
func (s *Store) openLayers(
	ctx context.Context, key string,
) (upper *os.File, lower []*os.File, done func(), err error) {
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
