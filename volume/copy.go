package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// copier copies one tree. All paths are single names below descriptors, and no symbolic link is
// ever followed.
type copier struct {
	// links maps inodes with several names to a copy: its path below root.
	links map[[2]uint64]string
	root  int
}

func copyInto(target string, src *os.File) error {
	dst, err := os.OpenFile(target, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	return copyTo(dst, src)
}

// copyTo copies what is in the directory src, and its attributes, to the directory dst.
func copyTo(dst, src *os.File) error {
	c := &copier{links: map[[2]uint64]string{}, root: int(dst.Fd())}
	if err := c.dir(int(src.Fd()), int(dst.Fd()), "."); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	return attributes(int(src.Fd()), int(dst.Fd()), "", &st)
}

// dir copies what is in src into dst; rel is dst's path below the root.
func (c *copier) dir(src, dst int, rel string) error {
	// A second descriptor: the directory's read position is its own.
	fd, err := unix.Openat(src, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", rel, err)
	}
	list := os.NewFile(uintptr(fd), rel)
	defer list.Close()
	for {
		names, err := list.Readdirnames(256)
		for _, name := range names {
			if err := c.entry(src, dst, name, filepath.Join(rel, name)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %q: %w", rel, err)
		}
	}
}

func (c *copier) entry(src, dst int, name, rel string) error {
	fail := func(err error) error { return fmt.Errorf("copy %q: %w", rel, err) }
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fail(err)
	}
	key := [2]uint64{st.Dev, st.Ino}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := c.links[key]; ok {
			if err := unix.Linkat(c.root, first, dst, name, 0); err != nil {
				return fail(err)
			}
			return nil
		}
		c.links[key] = rel
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(dst, name, 0o700); err != nil {
			return fail(err)
		}
		from, err := unix.Openat(
			src, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0,
		)
		if err != nil {
			return fail(err)
		}
		defer unix.Close(from)
		to, err := unix.Openat(
			dst, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0,
		)
		if err != nil {
			return fail(err)
		}
		defer unix.Close(to)
		if err := c.dir(from, to, rel); err != nil {
			return err
		}
		if err := attributes(from, to, "", &st); err != nil {
			return fail(err)
		}
	case unix.S_IFREG:
		if err := regular(src, dst, name, &st); err != nil {
			return fail(err)
		}
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src, name, buf)
		if err != nil {
			return fail(err)
		}
		if err := unix.Symlinkat(string(buf[:n]), dst, name); err != nil {
			return fail(err)
		}
		if err := attributes(-1, dst, name, &st); err != nil {
			return fail(err)
		}
	case unix.S_IFSOCK:
		// A socket without its process is nothing.
	default: // FIFO, character and block device
		if err := unix.Mknodat(dst, name, st.Mode, int(st.Rdev)); err != nil {
			return fail(err)
		}
		if err := attributes(-1, dst, name, &st); err != nil {
			return fail(err)
		}
	}
	return nil
}

func regular(src, dst int, name string, st *unix.Stat_t) error {
	from, err := unix.Openat(
		src, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0,
	)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(from), name)
	defer in.Close()
	to, err := unix.Openat(
		dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600,
	)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(to), name)
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil { // copy_file_range(2)
		return err
	}
	return attributes(from, to, "", st)
}

// attributes copies owner, mode, extended attributes and times to the file dst, or to name below
// dst. from is -1 for what cannot be opened; such files keep no extended attributes.
func attributes(from, dst int, name string, st *unix.Stat_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), flags); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if from >= 0 {
		if err := xattrs(from, dst); err != nil {
			return err
		}
	}
	// After chown, which clears set-ID bits.
	switch {
	case name == "":
		if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	case st.Mode&unix.S_IFMT != unix.S_IFLNK:
		if err := unix.Fchmodat(dst, name, st.Mode&0o7777, 0); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if name == "" {
		name, flags = fmt.Sprintf("/proc/self/fd/%d", dst), 0
	}
	if err := unix.UtimesNanoAt(dst, name, times, flags&unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

func xattrs(from, to int) error {
	size, err := unix.Flistxattr(from, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil
	}
	buf := make([]byte, size+1024)
	if err == nil {
		size, err = unix.Flistxattr(from, buf)
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	for _, name := range strings.Split(string(buf[:size]), "\x00") {
		// Attributes of overlayfs itself say something about the layers, not about the file.
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(from, name, value)
		if err != nil {
			return fmt.Errorf("read extended attribute %q: %w", name, err)
		}
		if err := unix.Fsetxattr(to, name, value[:n], 0); err != nil &&
			!errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("set extended attribute %q: %w", name, err)
		}
	}
	return nil
}
