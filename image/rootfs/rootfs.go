// Package rootfs keeps the writable layers of containers: for each key the directories of one
// overlay mount, and the image below them.
//
// Promises:
//
//   - The directories are the truth; a table of them is read at Open. Prepare and Release are a few
//     directory operations and touch no database.
//   - A root file system exists whole or not at all, whenever the process is killed.
//   - An image that a root file system stands on keeps its layers (Images).
//   - Owners do not see one another's keys.
//
// Locks, in order: the lock of a key (keylock), those of Images, Table.mu.
//
// Not for: mounting; the caller gets host paths.
//
// Tested by tables of keys, on directories with a fake in the place of images, and, through package
// image, by crashes at every step.
package rootfs

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
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"strake/image/internal/keylock"
	"strake/image/layer"
	"strake/internal/rawfile"
)

// Images are what root file systems stand on.
type Images interface {
	// Retain calls hold while an image is visible, and returns the directories of its layers, top
	// first; none for an image without layers. From the call of hold on the layers stay until
	// Unused. An image that is not visible is ErrNotFound.
	Retain(id digest.Digest, hold func()) (lower []string, err error)
	// Lower returns the directories of an image that is retained.
	Lower(id digest.Digest) (lower []string, err error)
	// Unused is told that no root file system stands on an image any more.
	Unused(id digest.Digest) error
}

// Rootfs is a root file system as host paths for an overlay mount; the caller mounts it. Mount with
// redirect_dir=off, metacopy=off and index=off, so that the writable layer stays readable by
// Changes and Diff (Documentation/filesystems/overlayfs.rst).
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

// Below <root>/containers there are three directories, each with one entry per key. An entry in
// image is what makes a container layer exist: a symbolic link whose text says what it stands on.
// It is made last and removed first, so whatever diff or work holds beside it is a leftover.
const (
	upperName = "diff"
	workName  = "work"
	imageName = "image"
	emptyName = "empty" // the lower directory of images without layers
)

// Table is the set of root file systems. All methods may be called concurrently.
type Table struct {
	dir      string
	fault    func(step string) // Config.Fault; constant
	mu       sync.Mutex
	keys     map[string]digest.Digest // guarded by mu
	count    map[digest.Digest]int    // guarded by mu
	images   Images
	sequence keylock.Set
}

func (t *Table) path(kind, key string) string { return filepath.Join(t.dir, kind, element(key)) }

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

// Open opens or creates the table in a directory of its own and removes what a crash left
// unfinished. fault is called before each step that changes the disk.
func Open(dir string, images Images, fault func(step string)) (*Table, error) {
	t := &Table{
		dir: dir, images: images, fault: fault, keys: map[string]digest.Digest{},
		count: map[digest.Digest]int{},
	}
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return nil, fmt.Errorf("open container layers: %w", err)
	}
	for name, mode := range map[string]os.FileMode{
		upperName: 0o710, workName: 0o710, imageName: 0o710, emptyName: 0o755,
	} {
		if err := os.Mkdir(filepath.Join(dir, name), mode); err != nil &&
			!errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("open container layers: %w", err)
		}
	}
	for _, name := range []string{upperName, workName} {
		if err := rawfile.Spread(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("open container layers: %w", err)
		}
	}
	if err := t.readLinks(); err != nil {
		return nil, err
	}
	return t, t.removeUnfinished()
}

// readLinks fills the table.
func (t *Table) readLinks() error {
	names, err := os.ReadDir(filepath.Join(t.dir, imageName))
	if err != nil {
		return fmt.Errorf("open container layers: %w", err)
	}
	for _, e := range names {
		key, err := keyOf(e.Name())
		if err != nil {
			return fmt.Errorf("open container layer %q: %w", e.Name(), err)
		}
		text, err := os.Readlink(t.path(imageName, key))
		if err != nil {
			return fmt.Errorf("open container layer %q: %w", e.Name(), err)
		}
		id, err := parseLinkText(text)
		if err != nil {
			return fmt.Errorf("open container layer %q: %w", e.Name(), err)
		}
		t.add(key, id)
	}
	return nil
}

// removeUnfinished removes directories without a link.
func (t *Table) removeUnfinished() error {
	for _, kind := range []string{upperName, workName} {
		names, err := os.ReadDir(filepath.Join(t.dir, kind))
		if err != nil {
			return fmt.Errorf("open container layers: %w", err)
		}
		for _, e := range names {
			if key, err := keyOf(e.Name()); err == nil {
				if _, ok := t.get(key); ok {
					continue
				}
			}
			if err := os.RemoveAll(filepath.Join(t.dir, kind, e.Name())); err != nil {
				return fmt.Errorf("remove unfinished container layer: %w", err)
			}
		}
	}
	return nil
}

// removeTree removes a directory: by one call where a container has written nothing, or by one for
// each of the empty directories that overlayfs has left, those of a volatile mount first.
func removeTree(dir string) error {
	if rawfile.RemoveDir(dir) {
		return nil
	}
	if unix.Rmdir(dir+"/work") == unix.ENOTEMPTY {
		unix.Unlink(dir + "/work/incompat/volatile/dirty")
		unix.Rmdir(dir + "/work/incompat/volatile")
		unix.Rmdir(dir + "/work/incompat")
		unix.Rmdir(dir + "/work")
	}
	if rawfile.RemoveDir(dir) {
		return nil
	}
	return os.RemoveAll(dir)
}

// drop removes the directories of a key; the link goes first.
func (t *Table) drop(key string) error {
	t.fault("container layer: remove link")
	if err := os.Remove(t.path(imageName, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	t.fault("container layer: remove directories")
	return errors.Join(removeTree(t.path(upperName, key)), removeTree(t.path(workName, key)))
}

func (t *Table) add(key string, id digest.Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys[key] = id
	t.count[id]++
}

func (t *Table) remove(key string) (id digest.Digest, last bool) {
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

func (t *Table) get(key string) (digest.Digest, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, ok := t.keys[key]
	return id, ok
}

// Uses says whether a root file system stands on an image.
func (t *Table) Uses(id digest.Digest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count[id] > 0
}

// Mode says what Prepare makes.
type Mode int

const (
	// Writable has a writable layer.
	Writable Mode = iota
	// ReadOnly has only the image's layers.
	ReadOnly
)

// Prepare makes a root file system on an image (full ID) under a key (see Key) and keeps the
// image's layers until Release. It costs a handful of directory operations; the directories are not
// made durable one by one. Errors: ErrAlreadyExists, ErrNotFound (image), ErrInvalidArgument (key).
func (t *Table) Prepare(key string, id digest.Digest, mode Mode) (_ Rootfs, err error) {
	if _, _, err := SplitKey(key); err != nil {
		return Rootfs{}, err
	}
	defer t.sequence.Lock(key)()
	if _, ok := t.get(key); ok {
		return Rootfs{}, fmt.Errorf("container layer %q: %w", key, errdefs.ErrAlreadyExists)
	}
	lower, err := t.images.Retain(id, func() { t.add(key, id) })
	if err != nil {
		return Rootfs{}, err
	}
	r := Rootfs{Image: id, Lower: t.orEmpty(lower)}
	defer func() {
		if err != nil {
			err = errors.Join(
				fmt.Errorf("make container layer %q: %w", key, err), t.drop(key), t.dropKey(key),
			)
		}
	}()
	t.fault("container layer: make directories")
	if mode == Writable {
		if r.Upper, r.Work, err = t.makeUpper(key, r.Lower[0]); err != nil {
			return Rootfs{}, err
		}
	}
	text, err := linkText(id)
	if err != nil {
		return Rootfs{}, err
	}
	t.fault("container layer: link")
	if err := os.Symlink(text, t.path(imageName, key)); err != nil {
		return Rootfs{}, err
	}
	return r, nil
}

// orEmpty puts an empty directory in the place of the layers of an image without any.
func (t *Table) orEmpty(lower []string) []string {
	if len(lower) == 0 {
		return []string{filepath.Join(t.dir, emptyName)}
	}
	return lower
}

// makeUpper makes the upper and work directories of a key. A merged root directory shows the upper
// layer's attributes, so they are copied from the image.
func (t *Table) makeUpper(key, top string) (upper, work string, err error) {
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

// Get finds what Prepare made, also after a restart. Errors: ErrNotFound.
func (t *Table) Get(key string) (Rootfs, error) {
	id, ok := t.get(key)
	if !ok {
		return Rootfs{}, fmt.Errorf("container layer %q: %w", key, errdefs.ErrNotFound)
	}
	lower, err := t.images.Lower(id)
	if err != nil {
		return Rootfs{}, fmt.Errorf("container layer %q: %w", key, err)
	}
	r := Rootfs{Image: id, Lower: t.orEmpty(lower)}
	upper := t.path(upperName, key)
	if _, err := os.Lstat(upper); err == nil {
		r.Upper, r.Work = upper, t.path(workName, key)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Rootfs{}, fmt.Errorf("container layer %q: %w", key, err)
	}
	return r, nil
}

// Keys lists the keys of one owner, complete as Prepare got them, with the image each stands on; an
// empty owner lists bare keys.
func (t *Table) Keys(owner string) map[string]digest.Digest {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]digest.Digest, len(t.keys))
	for k, v := range t.keys {
		if o, _, owned := strings.Cut(k, "/"); owned && o == owner || !owned && owner == "" {
			out[k] = v
		}
	}
	return out
}

// Release removes a root file system, which must not be mounted, and the image's layers with it
// when the image was removed meanwhile and this was its last user. Once it has begun, a crash
// finishes it at the next Open. Errors: ErrNotFound.
func (t *Table) Release(key string) error {
	defer t.sequence.Lock(key)()
	if _, ok := t.get(key); !ok {
		return fmt.Errorf("container layer %q: %w", key, errdefs.ErrNotFound)
	}
	if err := t.drop(key); err != nil {
		// Still counted: the engine may try again.
		return fmt.Errorf("release container layer %q: %w", key, err)
	}
	return t.dropKey(key)
}

// dropKey uncounts a key and reports an image that lost its last one.
func (t *Table) dropKey(key string) error {
	if id, last := t.remove(key); last {
		return t.images.Unused(id)
	}
	return nil
}

// Usage walks a writable layer. That of a read-only root file system is zero.
func (t *Table) Usage(ctx context.Context, key string) (Usage, error) {
	r, err := t.Get(key)
	if err != nil || r.Upper == "" {
		return Usage{}, err
	}
	size, err := layer.Measure(ctx, r.Upper)
	return Usage{Bytes: size.Allocated, Inodes: size.Inodes}, err
}

// Changes lists how a writable layer differs from its image; a read-only root file system does not.
func (t *Table) Changes(ctx context.Context, key string) ([]layer.Change, error) {
	upper, lower, done, err := t.openLayers(key)
	if err != nil || upper == nil {
		return nil, err
	}
	defer done()
	return layer.Changes(ctx, upper, lower)
}

// Diff writes a writable layer as an uncompressed layer archive. A read-only root file system is
// ErrFailedPrecondition.
func (t *Table) Diff(ctx context.Context, key string, w io.Writer) error {
	upper, _, done, err := t.openLayers(key)
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
func (t *Table) openLayers(
	key string,
) (upper *os.File, lower []*os.File, done func(), err error) {
	r, err := t.Get(key)
	if err != nil || r.Upper == "" {
		return nil, nil, nil, err
	}
	files, err := layer.OpenDirs(append([]string{r.Upper}, r.Lower...))
	if err != nil {
		return nil, nil, nil, err
	}
	return files[0], files[1:], func() { layer.CloseAll(files) }, nil
}
