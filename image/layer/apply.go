package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// earlyWriteback is the size from which a file's writeback is started at once.
const earlyWriteback = 1 << 20

const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	opaqueMarker   = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
)

// Apply writes the uncompressed tar stream r below root and reads r to its end, so that a hash
// taken on the way is complete. Root may be an O_PATH descriptor; it stays open. On error the tree
// is incomplete and the caller removes it. Errors caused by the archive wrap
// errdefs.ErrInvalidArgument. Formats: image-spec layer.md, tar(5).
func Apply(ctx context.Context, root *os.File, r io.Reader, o Options) (Result, error) {
	limits := o.Limits.withDefaults()
	a := &applier{
		tree:    newTree(root),
		style:   o.Style,
		limits:  limits,
		implied: map[string]struct{}{},
		buf:     make([]byte, 256<<10),
	}
	if o.Style == Merged {
		a.made = map[string]struct{}{}
	}
	defer a.tree.close()
	stream := &boundedReader{ctx: ctx, r: r, left: limits.Bytes}
	if err := a.run(ctx, stream); err != nil {
		return Result{}, err
	}
	res := Result{Bytes: a.bytes, Entries: a.entries}
	if !a.rootSeen {
		res.Implied = append(res.Implied, ".")
	}
	for p := range a.implied {
		res.Implied = append(res.Implied, p)
	}
	return res, nil
}

type applier struct {
	tree     *tree
	style    Style
	limits   Limits
	bytes    int64
	entries  int64
	rootSeen bool
	implied  map[string]struct{} // real paths of directories without an entry of their own
	// Merged only: what this archive made, which its opaque markers must spare
	made  map[string]struct{}
	times []dirTime
	buf   []byte
}

// dirTime remembers a directory's times until everything inside it is written.
type dirTime struct {
	name string
	ts   [2]unix.Timespec
}

func (a *applier) run(ctx context.Context, stream *boundedReader) error {
	tr := tar.NewReader(stream)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return archiveError(a.entries, "", err)
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if a.entries++; a.entries > a.limits.Entries {
			return fmt.Errorf(
				"layer has more than %d entries: %w", a.limits.Entries, errdefs.ErrInvalidArgument,
			)
		}
		if err := a.entry(hdr, tr); err != nil {
			return archiveError(a.entries, hdr.Name, err)
		}
	}
	if _, err := io.CopyBuffer(io.Discard, onlyReader{stream}, a.buf); err != nil {
		return archiveError(a.entries, "", err)
	}
	return a.finish()
}

// archiveError names the entry and classifies: whatever is not a failure of this machine is the
// archive's fault.
func archiveError(n int64, name string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	what := "layer archive"
	if name != "" {
		if len(name) > 256 {
			name = name[:256] + "…"
		}
		what = fmt.Sprintf("layer entry %d %q", n, name)
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: archive is truncated: %w: %w", what, err, errdefs.ErrInvalidArgument)
	case errors.Is(err, tar.ErrHeader), errors.Is(err, unix.ENAMETOOLONG),
		errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: %w: %w", what, err, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// cleanName makes an entry's name relative to the root, lexically. Leading slashes go as tar(1)
// drops them; a name that climbs out is refused.
func cleanName(name string) (string, error) {
	c := path.Clean(strings.TrimLeft(name, "/"))
	if c == ".." || strings.HasPrefix(c, "../") {
		return "", fmt.Errorf("name leads outside the layer's root: %w", errdefs.ErrInvalidArgument)
	}
	return c, nil
}

func (a *applier) entry(hdr *tar.Header, r io.Reader) error {
	name, err := cleanName(hdr.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if hdr.Typeflag != tar.TypeDir {
			return fmt.Errorf("the root is not a directory: %w", errdefs.ErrInvalidArgument)
		}
		return a.rootEntry(hdr)
	}
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if dir == "" {
		dir = "."
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return a.whiteout(dir, base)
	}
	// overlayfs keeps its whiteouts in this form; in an archive it can only mean the same.
	if hdr.Typeflag == tar.TypeChar && hdr.Devmajor == 0 && hdr.Devminor == 0 {
		return a.hide(dir, base)
	}
	parent, err := a.parent(dir)
	if err != nil {
		return err
	}
	if a.made != nil {
		a.made[name] = struct{}{}
	}
	m, err := metaOf(hdr)
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse: // TypeRegA arrives as TypeReg or TypeDir
		return a.regular(parent, base, hdr, m, r)
	case tar.TypeDir:
		return a.directory(parent, dir, base, m)
	case tar.TypeSymlink:
		if err := a.create(
			parent, base, func() error { return unix.Symlinkat(hdr.Linkname, parent, base) },
		); err != nil {
			return err
		}
		m.symlink = true
		return m.applyAt(parent, base)
	case tar.TypeLink:
		return a.hardlink(parent, base, hdr.Linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		mode := uint32(unix.S_IFIFO)
		switch hdr.Typeflag {
		case tar.TypeChar:
			mode = unix.S_IFCHR
		case tar.TypeBlock:
			mode = unix.S_IFBLK
		}
		if hdr.Devmajor < 0 || hdr.Devminor < 0 || hdr.Devmajor > math.MaxUint32 ||
			hdr.Devminor > math.MaxUint32 {
			return fmt.Errorf(
				"device number %d:%d out of range: %w", hdr.Devmajor, hdr.Devminor,
				errdefs.ErrInvalidArgument,
			)
		}
		dev := int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
		if err := a.create(
			parent, base, func() error { return unix.Mknodat(parent, base, mode|0o600, dev) },
		); err != nil {
			return err
		}
		return m.applyAt(parent, base)
	}
	return fmt.Errorf(
		"entry type %q is none a layer can hold: %w", hdr.Typeflag, errdefs.ErrInvalidArgument,
	)
}

// rootEntry applies "./" to the root itself.
func (a *applier) rootEntry(hdr *tar.Header) error {
	m, err := metaOf(hdr)
	if err != nil {
		return err
	}
	a.rootSeen = true
	a.times = append(a.times, dirTime{".", m.times})
	fd, err := a.tree.openDir(".")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return m.applyFd(fd, false)
}

// create runs mk and, when the name is taken, removes the older entry and runs it again: later
// entries win (tar(1), extraction).
func (a *applier) create(parent int, base string, mk func() error) error {
	err := mk()
	if err != unix.EEXIST {
		return err
	}
	if err := a.tree.removeAll(parent, base); err != nil {
		return err
	}
	return mk()
}

func (a *applier) directory(parent int, dir, base string, m meta) error {
	name := path.Join(dir, base)
	var st unix.Stat_t
	err := unix.Mkdirat(parent, base, 0o700)
	if err == unix.EEXIST {
		if err = unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			hidden := isWhiteout(&st)
			if err = a.tree.removeAll(parent, base); err != nil {
				return err
			}
			if err = unix.Mkdirat(parent, base, 0o700); err == nil && hidden && a.style == Overlay {
				// The name was whited out before it was made: nothing of the parents' directory
				// shines through.
				err = setOpaque(parent, base)
			}
		}
	}
	if err != nil {
		return err
	}
	if real, err := a.tree.realPath(parent, base); err == nil {
		delete(a.implied, real)
	}
	if err := m.applyAt(parent, base); err != nil {
		return err
	}
	a.times = append(a.times, dirTime{name, m.times})
	return nil
}

func (a *applier) regular(parent int, base string, hdr *tar.Header, m meta, r io.Reader) error {
	if hdr.Size < 0 || hdr.Size > a.limits.Bytes-a.bytes {
		return fmt.Errorf(
			"layer holds more than %d bytes: %w", a.limits.Bytes, errdefs.ErrInvalidArgument,
		)
	}
	a.bytes += hdr.Size
	fd := -1
	err := a.create(parent, base, func() (err error) {
		fd, err = unix.Openat(
			parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC,
			0o600,
		)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := a.copy(fd, r, hdr); err != nil {
		return err
	}
	if hdr.Size >= earlyWriteback {
		// Only advice: the disk may begin now with what the barrier at the end waits for
		// (sync_file_range(2)).
		_ = unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	return m.applyFd(fd, true)
}

// copy writes one file. Holes of sparse files stay holes.
func (a *applier) copy(fd int, r io.Reader, hdr *tar.Header) error {
	sparse := hdr.Typeflag == tar.TypeGNUSparse || hdr.PAXRecords["GNU.sparse.major"] != "" ||
		hdr.PAXRecords["GNU.sparse.map"] != ""
	var off int64
	for off < hdr.Size {
		n, err := io.ReadFull(r, a.buf[:min(int64(len(a.buf)), hdr.Size-off)])
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if !sparse || !allZero(a.buf[:n]) {
			for b, at := a.buf[:n], off; len(b) > 0; {
				w, err := unix.Pwrite(fd, b, at)
				if err == unix.EINTR {
					continue
				}
				if err != nil {
					return err
				}
				b, at = b[w:], at+int64(w)
			}
		}
		off += int64(n)
	}
	if sparse {
		return unix.Ftruncate(fd, hdr.Size)
	}
	return nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// hardlink links to another name inside the root. The last component of the target is never
// followed, as link(2) does not.
func (a *applier) hardlink(parent int, base, target string) error {
	t, err := cleanName(target)
	if err != nil {
		return fmt.Errorf("hard link target %q: %w", target, err)
	}
	if t == "." {
		return fmt.Errorf("hard link to the root: %w", errdefs.ErrInvalidArgument)
	}
	tdir, tbase := path.Split(t)
	// The target's directory is looked up only, never made: a link cannot bring its own target.
	tfd, err := a.tree.openDir(path.Clean("./" + tdir))
	if err != nil {
		return a.needsParents(fmt.Errorf("hard link target %q: %w", target, err))
	}
	defer unix.Close(tfd)
	var st unix.Stat_t
	if err := unix.Fstatat(tfd, tbase, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil ||
		isWhiteout(&st) {
		if err == nil {
			err = unix.ENOENT
		}
		return a.needsParents(fmt.Errorf("hard link target %q: %w", target, err))
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf(
			"hard link target %q is a directory: %w", target, errdefs.ErrInvalidArgument,
		)
	}
	var pst unix.Stat_t
	if unix.Fstatat(parent, base, &pst, unix.AT_SYMLINK_NOFOLLOW) == nil && pst.Ino == st.Ino &&
		pst.Dev == st.Dev {
		return nil // a link to itself: removing the old name would remove the target
	}
	return a.create(parent, base, func() error { return unix.Linkat(tfd, tbase, parent, base, 0) })
}

// needsParents marks a failed lookup in a layer applied alone: the parents may hold what is
// missing.
func (a *applier) needsParents(err error) error {
	if a.style == Overlay && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST)) {
		return fmt.Errorf("%w: %w", err, ErrNeedsParents)
	}
	return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
}

// parent returns a descriptor of a directory by its name in the archive, making what is missing. It
// belongs to the tree's cache.
func (a *applier) parent(dir string) (int, error) {
	fd, err := a.tree.dir(dir)
	if err == nil || err != unix.ENOENT || dir == "." {
		return fd, err
	}
	up, base := path.Split(dir)
	pfd, err := a.parent(path.Clean("./" + up))
	if err != nil {
		return -1, err
	}
	if err := unix.Mkdirat(pfd, base, 0o755); err != nil {
		if err == unix.EEXIST { // a symbolic link that leads nowhere, here
			return -1, a.needsParents(
				fmt.Errorf("directory %q is a dangling symbolic link: %w", dir, unix.EEXIST),
			)
		}
		return -1, err
	}
	real, err := a.tree.realPath(pfd, base)
	if err != nil {
		return -1, err
	}
	a.implied[real] = struct{}{}
	return a.tree.dir(dir)
}

// finish sets the directories' times, deepest last made first. A directory that a later entry
// replaced is skipped.
func (a *applier) finish() error {
	for i := len(a.times) - 1; i >= 0; i-- {
		t := a.times[i]
		fd, err := a.tree.openDir(t.name)
		if err != nil {
			if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
				continue
			}
			return fmt.Errorf("set times of %q: %w", t.name, err)
		}
		err = unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), t.ts[:], 0)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("set times of %q: %w", t.name, err)
		}
	}
	return nil
}

// boundedReader ends a stream that is longer than its limit or whose context is done.
type boundedReader struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("archive is longer than its limit: %w", errdefs.ErrInvalidArgument)
	}
	return n, err
}

type onlyReader struct{ io.Reader }
