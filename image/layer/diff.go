package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kind of a change, with the numbers of the Docker Engine API (GET /containers/{id}/changes).
type Kind int

// The kinds of change.
const (
	Modified Kind = 0
	Added    Kind = 1
	Deleted  Kind = 2
)

// Change is one path that differs from the parents. Path is absolute inside the container.
type Change struct {
	Path string
	Kind Kind
}

// Changes lists, sorted by path, how the overlay layer upper differs from its parents (top first).
// A directory counts as modified when something inside it changed. The overlay must have been
// mounted with redirect_dir=off and metacopy=off, so that upper holds complete files.
func Changes(ctx context.Context, upper *os.File, parents []*os.File) ([]Change, error) {
	var out []Change
	err := walk(ctx, upper, func(name string, st *unix.Stat_t, fd int) error {
		c := Change{Path: "/" + name, Kind: Added}
		if isWhiteout(st) {
			c.Kind = Deleted
		}
		f, err := lookup(parents, name)
		if err != nil {
			return fmt.Errorf("look up %q in parent layers: %w", name, err)
		}
		// A file under a parent's link or file cannot be seen by lookup as its own; it is new then.
		if f.kind != absent && f.whole(name, parents) {
			if c.Kind == Added {
				c.Kind = Modified
			}
		} else if c.Kind == Deleted {
			return nil // hides nothing
		}
		out = append(out, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// whole says whether lookup reached the last component of name rather than something on the way.
func (f found) whole(name string, layers []*os.File) bool {
	var st unix.Stat_t
	fd, err := openat2(
		int(layers[f.layer].Fd()), name, unix.O_PATH|unix.O_NOFOLLOW,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS,
	)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Fstat(fd, &st) == nil && st.Ino == f.st.Ino
}

// walk visits everything below root in lexical order, parents first. The descriptor given to fn is
// that of the containing directory.
func walk(
	ctx context.Context, root *os.File, fn func(name string, st *unix.Stat_t, dirfd int) error,
) error {
	return walkDir(ctx, int(root.Fd()), "", fn)
}

func walkDir(
	ctx context.Context, at int, prefix string, fn func(string, *unix.Stat_t, int) error,
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	fd, err := unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", prefix, err)
	}
	dir := os.NewFile(uintptr(fd), prefix)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", prefix, err)
	}
	slices.Sort(names)
	for _, n := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if err == unix.ENOENT {
				continue // a running container removed it meanwhile
			}
			return err
		}
		name := path.Join(prefix, n)
		if err := fn(name, &st, fd); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		sub, err := unix.Openat(
			fd, n, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0,
		)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return err
		}
		err = walkDir(ctx, sub, name, fn)
		unix.Close(sub)
		if err != nil {
			return err
		}
	}
	return nil
}

// Tar writes the tree below root as an uncompressed layer archive (image-spec layer.md). In Overlay
// style root is an overlay upper directory and its whiteouts and opaque marks are translated; in
// Merged style root is a plain tree, as `docker export` and `docker import` use. Entries are sorted
// and carry no names of owners, so equal trees give equal archives. Sockets are left out.
func Tar(ctx context.Context, root *os.File, style Style, w io.Writer) error {
	tw := tar.NewWriter(w)
	links := map[[2]uint64]string{}
	buf := make([]byte, 128<<10)
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return err
	}
	if style == Overlay {
		if err := writeEntry(tw, int(root.Fd()), ".", "./", &st, links, buf); err != nil {
			return err
		}
		if isOpaque(int(root.Fd())) {
			if err := writeMarker(tw, opaqueMarker, &st); err != nil {
				return err
			}
		}
	}
	err := walk(ctx, root, func(name string, st *unix.Stat_t, dirfd int) error {
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return nil
		}
		if style == Overlay && isWhiteout(st) {
			dir, base := path.Split(name)
			return writeMarker(tw, dir+whiteoutPrefix+base, st)
		}
		if err := writeEntry(tw, dirfd, path.Base(name), name, st, links, buf); err != nil {
			return fmt.Errorf("archive %q: %w", name, err)
		}
		if style == Overlay && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			fd, err := unix.Openat(
				dirfd, path.Base(name), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0,
			)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if isOpaque(fd) {
				return writeMarker(tw, name+"/"+opaqueMarker, st)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func writeMarker(tw *tar.Writer, name string, st *unix.Stat_t) error {
	return tw.WriteHeader(
		&tar.Header{
			Typeflag: tar.TypeReg, Name: name, Mode: 0o600, ModTime: time.Unix(st.Mtim.Sec, 0),
			Format: tar.FormatPAX,
		},
	)
}

func writeEntry(
	tw *tar.Writer, dirfd int, base, name string, st *unix.Stat_t, links map[[2]uint64]string,
	buf []byte,
) error {
	hdr := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec), Format: tar.FormatPAX,
	}
	kind := st.Mode & unix.S_IFMT
	var file *os.File
	switch kind {
	case unix.S_IFDIR:
		hdr.Typeflag = tar.TypeDir
		if !strings.HasSuffix(hdr.Name, "/") {
			hdr.Name += "/"
		}
	case unix.S_IFLNK:
		hdr.Typeflag = tar.TypeSymlink
		target := make([]byte, 4096)
		n, err := unix.Readlinkat(dirfd, base, target)
		if err != nil {
			return err
		}
		hdr.Linkname = string(target[:n])
	case unix.S_IFCHR, unix.S_IFBLK:
		hdr.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	case unix.S_IFREG:
		hdr.Typeflag = tar.TypeReg
		fd, err := unix.Openat(
			dirfd, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0,
		)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), name)
		defer file.Close()
		hdr.Size = st.Size
	default:
		return fmt.Errorf("file type %#o has no place in an archive", kind)
	}
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := [2]uint64{st.Dev, st.Ino}
		if first, ok := links[key]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
			return tw.WriteHeader(hdr)
		}
		links[key] = name
	}
	x, err := lreadXattrs(procPath(dirfd) + "/" + base)
	if err != nil {
		return err
	}
	for k, v := range x {
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords[paxXattr+k] = v
	}
	if err := tw.WriteHeader(hdr); err != nil {
		return err
	}
	if file == nil {
		return nil
	}
	// A file that grew meanwhile is cut at the size in its header; one that shrank is filled with
	// zeros, as tar(1) does.
	n, err := io.CopyBuffer(onlyWriter{tw}, io.LimitReader(file, st.Size), buf)
	if err != nil {
		return err
	}
	_, err = io.CopyN(tw, zeros{}, st.Size-n)
	return err
}

type onlyWriter struct{ io.Writer }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
