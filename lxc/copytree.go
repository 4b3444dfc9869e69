package lxc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// treeCopy copies one directory tree. What is copied of a file: owner, mode, times, extended
// attributes with access control lists and capabilities, holes, and which names are hard links of
// one file. File systems that are mounted in the tree are left out; their mount points are copied.
type treeCopy struct {
	ctx  context.Context
	root int // the new tree
	// links are the new names of files with several names, by device and inode.
	links map[[3]uint64]string
}

// copyTree copies what a directory has into another, which exists and gets the attributes of the
// first. The descriptors stay the caller's.
func copyTree(ctx context.Context, from, to int) error {
	t := &treeCopy{ctx: ctx, root: to, links: map[[3]uint64]string{}}
	return t.dir(from, to, "")
}

// copyDir is copyTree for a directory and one that is made.
func copyDir(ctx context.Context, from, to string) error {
	const flags = unix.O_DIRECTORY | unix.O_CLOEXEC
	src, err := unix.Open(from, flags, 0)
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	defer unix.Close(src)
	return copyDirFrom(ctx, src, to)
}

// copyDirFrom is copyDir for an open directory.
func copyDirFrom(ctx context.Context, src int, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	dst, err := unix.Open(to, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("copy to %q: %w", to, err)
	}
	defer unix.Close(dst)
	return copyTree(ctx, src, dst)
}

// at opens or examines one name: no link is followed.
const at = unix.O_NOFOLLOW | unix.O_CLOEXEC

func (t *treeCopy) dir(from, to int, name string) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	// A descriptor of its own, because os.File closes it.
	list, err := unix.Openat(from, ".", unix.O_DIRECTORY|at, 0)
	if err != nil {
		return fmt.Errorf("copy /%s: %w", name, err)
	}
	f := os.NewFile(uintptr(list), name)
	entries, err := f.Readdirnames(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("copy /%s: %w", name, err)
	}
	slices.Sort(entries)
	for _, e := range entries {
		child := filepath.Join(name, e)
		if err := t.entry(from, to, e, child); err != nil {
			var inside *copyError
			if errors.As(err, &inside) || t.ctx.Err() != nil {
				return err
			}
			return &copyError{child, err}
		}
	}
	var st unix.Statx_t
	if err := unix.Statx(from, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return fmt.Errorf("copy /%s: %w", name, err)
	}
	if err := attributes(proc(from), proc(to), &st); err != nil {
		return fmt.Errorf("copy /%s: %w", name, err)
	}
	return nil
}

// copyError names the file of the tree that could not be copied.
type copyError struct {
	name string
	err  error
}

func (e *copyError) Error() string { return fmt.Sprintf("copy /%s: %v", e.name, e.err) }
func (e *copyError) Unwrap() error { return e.err }

// proc is a path of an open file, or of a name in an open directory.
func proc(fd int, name ...string) string {
	return filepath.Join(append([]string{fmt.Sprintf("/proc/self/fd/%d", fd)}, name...)...)
}

// entry copies one name of a directory.
func (t *treeCopy) entry(from, to int, name, whole string) error {
	var st unix.Statx_t
	if err := unix.Statx(
		from, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st,
	); err != nil {
		return err
	}
	directory := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !directory && st.Nlink > 1 {
		id := [3]uint64{uint64(st.Dev_major), uint64(st.Dev_minor), st.Ino}
		if first, ok := t.links[id]; ok {
			return unix.Linkat(t.root, first, to, name, 0)
		}
		t.links[id] = whole
	}
	mounted := st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFDIR:
		return t.subdir(from, to, name, whole, &st, mounted)
	case unix.S_IFREG:
		return t.file(from, to, name, &st, mounted)
	case unix.S_IFLNK:
		link, err := os.Readlink(proc(from, name))
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(link, to, name); err != nil {
			return err
		}
	default:
		dev := unix.Mkdev(st.Rdev_major, st.Rdev_minor)
		if err := unix.Mknodat(to, name, uint32(kind)|0o600, int(dev)); err != nil {
			return err
		}
	}
	return attributes(proc(from, name), proc(to, name), &st)
}

func (t *treeCopy) subdir(from, to int, name, whole string, st *unix.Statx_t, mounted bool) error {
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return err
	}
	dst, err := unix.Openat(to, name, unix.O_DIRECTORY|at, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if mounted {
		return attributes("", proc(dst), st)
	}
	src, err := unix.Openat(from, name, unix.O_DIRECTORY|at, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	return t.dir(src, dst, whole)
}

func (t *treeCopy) file(from, to int, name string, st *unix.Statx_t, mounted bool) error {
	dst, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|at, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if mounted {
		return attributes("", proc(dst), st)
	}
	// Another kind of file may have taken the place of this one; a FIFO would block.
	src, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NONBLOCK|at, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	if err := unix.Statx(src, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("it has become another kind of file")
	}
	if st.Size > 0 {
		if err := t.data(src, dst, int64(st.Size)); err != nil {
			return err
		}
	}
	return attributes(proc(src), proc(dst), st)
}

// data copies what a file has: by sharing its blocks where the file system can (ioctl_ficlone(2)),
// otherwise in the kernel, without its holes.
func (t *treeCopy) data(src, dst int, size int64) error {
	if unix.IoctlFileClone(dst, src) == nil {
		return nil
	}
	if err := unix.Ftruncate(dst, size); err != nil {
		return err
	}
	for off := int64(0); off < size; {
		begin, err := unix.Seek(src, off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil
		}
		end := size
		if err != nil {
			begin = off // A file system that does not know holes.
		} else if end, err = unix.Seek(src, begin, unix.SEEK_HOLE); err != nil {
			return err
		}
		if err := t.extent(src, dst, begin, min(end, size)); err != nil {
			return err
		}
		off = end
	}
	return nil
}

// extent copies a part of a file that has no hole.
func (t *treeCopy) extent(src, dst int, off, end int64) error {
	const step = 64 << 20
	for off < end {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		in, out := off, off
		n, err := unix.CopyFileRange(src, &in, dst, &out, int(min(end-off, step)), 0)
		switch {
		case err == unix.EINTR:
		case err == unix.EXDEV, err == unix.EINVAL, err == unix.EOPNOTSUPP, err == unix.ENOSYS:
			// Two file systems that do not copy between each other.
			return throughMemory(src, dst, off, end-off)
		case err != nil:
			return err
		case n == 0:
			return nil // The file has become shorter.
		}
		off += int64(max(n, 0))
	}
	return nil
}

// fdAt reads and writes a descriptor without changing its offset.
type fdAt int

func (f fdAt) ReadAt(b []byte, off int64) (int, error) {
	n, err := unix.Pread(int(f), b, off)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

func (f fdAt) WriteAt(b []byte, off int64) (int, error) {
	n, err := unix.Pwrite(int(f), b, off)
	return max(n, 0), err
}

func throughMemory(src, dst int, off, n int64) error {
	_, err := io.CopyBuffer(
		io.NewOffsetWriter(fdAt(dst), off), io.NewSectionReader(fdAt(src), off, n),
		make([]byte, 1<<20),
	)
	return err
}

// attributes gives a file the owner, extended attributes, mode and times of another; from is "" for
// none of the extended attributes. The paths lead through descriptors of their directories or are
// descriptors themselves.
func attributes(from, to string, st *unix.Statx_t) error {
	link := st.Mode&unix.S_IFMT == unix.S_IFLNK
	// The owner first: to change it clears set-user-ID bits and capabilities.
	chown := os.Chown
	if !isDescriptor(to) {
		chown = os.Lchown
	}
	if err := chown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if from != "" {
		if err := copyXattrs(from, to); err != nil {
			return err
		}
	}
	flags := 0
	if !isDescriptor(to) {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	if !link {
		// No link can have this name: the tree is ours alone until it is complete.
		if err := unix.Fchmodat(unix.AT_FDCWD, to, uint32(st.Mode)&0o7777, 0); err != nil {
			return err
		}
	}
	times := []unix.Timespec{
		{Sec: st.Atime.Sec, Nsec: int64(st.Atime.Nsec)},
		{Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)},
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, times, flags)
}

// isDescriptor says whether a path of proc is a descriptor, which is a link, and not a name in one.
func isDescriptor(path string) bool { return strings.Count(path, "/") == 4 }

// overlayPrivate are attributes that overlayfs finds a particular file by: a copy is another file.
var overlayPrivate = []string{
	"trusted.overlay.origin", "trusted.overlay.uuid", "trusted.overlay.nlink",
	"trusted.overlay.upper",
}

// copyXattrs copies extended attributes, access control lists among them.
func copyXattrs(from, to string) error {
	list, get, set := unix.Llistxattr, unix.Lgetxattr, unix.Lsetxattr
	if isDescriptor(from) {
		list, get, set = unix.Listxattr, unix.Getxattr, unix.Setxattr
	}
	names := make([]byte, 1<<10)
	n, err := list(from, names)
	if err == unix.ERANGE {
		names = make([]byte, 64<<10) // XATTR_LIST_MAX
		n, err = list(from, names)
	}
	if err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" || slices.Contains(overlayPrivate, name) {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := get(from, name, value)
		if err == unix.ENODATA {
			continue
		}
		if err == nil {
			err = set(to, name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	return nil
}
