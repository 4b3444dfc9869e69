package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"strake/internal/inroot"
)

// copyUp copies what is in the directory src to the directory dst, the root of a filesystem that no
// other process has: files, directories, links, devices, FIFOs and sockets with their owners,
// modes, times and extended attributes. Both are handles (O_PATH). With owner, dst gets the owner
// of src.
//
// Everything in src is reached by its name in a directory that is open already, never through a
// link, and a file is opened only when a handle of it has shown that it is a regular one. What
// vanishes meanwhile is left out.
func copyUp(ctx context.Context, src, dst int, owner bool) error {
	from, err := reopen(src, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := reopen(dst, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer to.Close()
	var root unix.Stat_t
	if err := unix.Fstat(dst, &root); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	c := &copier{
		ctx: ctx, top: int(to.Fd()), uid: int(root.Uid), gid: int(root.Gid),
		linked: make(map[inode]string),
	}
	if err := c.directory(from, to, ""); err != nil {
		return err
	}
	if !owner {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	return mapped(unix.Fchown(int(to.Fd()), int(st.Uid), int(st.Gid)))
}

// reopen opens what a handle refers to.
func reopen(fd, flags int) (*os.File, error) {
	name := "/proc/self/fd/" + strconv.Itoa(fd)
	n, err := unix.Open(name, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return os.NewFile(uintptr(n), name), nil
}

// mapped forgives the refusal of an owner that the user namespace of the filesystem does not have:
// such a file stays its root's.
func mapped(err error) error {
	if err == unix.EINVAL || err == unix.EOVERFLOW {
		return nil
	}
	return err
}

type inode struct{ dev, ino uint64 }

// copier is one copy of a tree.
type copier struct {
	ctx context.Context
	top int // the directory that the copy is below
	// uid and gid are the owner of top, who may make files in it, also in the filesystem of a user
	// namespace. The owner of each copy is set afterwards.
	uid, gid int
	// linked are the copies of files with several names.
	linked map[inode]string
}

// directory copies what is in a directory, whose name from the top is at.
func (c *copier) directory(from, to *os.File, at string) error {
	for {
		names, err := from.Readdirnames(256)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			if err := c.entry(int(from.Fd()), int(to.Fd()), name, at); err != nil {
				return fmt.Errorf("%s: %w", path.Join("/", at, name), err)
			}
		}
	}
}

// entry copies one name.
func (c *copier) entry(from, to int, name, at string) error {
	fd, err := unix.Openat(from, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if id := (inode{st.Dev, st.Ino}); kind != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := c.linked[id]; ok {
			err := c.act(func() error { return unix.Linkat(c.top, first, to, name, 0) })
			if err != unix.EPERM {
				return err
			}
			// The owner of a user namespace's filesystem may not link another user's file
			// (proc_sys_fs(5), protected_hardlinks): it becomes a copy of its own.
		}
		c.linked[id] = path.Join(at, name)
	}
	switch kind {
	case unix.S_IFDIR:
		err = c.subdirectory(fd, to, name, at, &st)
	case unix.S_IFREG:
		err = c.file(fd, to, name, &st)
	case unix.S_IFLNK:
		var link string
		if link, err = inroot.ReadLink(fd); err == nil {
			err = c.act(func() error { return unix.Symlinkat(link, to, name) })
		}
	default:
		made, err := c.special(to, name, &st)
		if err != nil || !made {
			return err
		}
	}
	if err != nil {
		return err
	}
	return dress(to, name, &st)
}

func (c *copier) act(f func() error) error { return actAs(c.uid, c.gid, f) }

// special copies a device, a FIFO or a socket. A device that a user namespace may not have is left
// out.
func (c *copier) special(to int, name string, st *unix.Stat_t) (made bool, err error) {
	mknod := func() error { return unix.Mknodat(to, name, st.Mode, int(st.Rdev)) }
	err = c.act(mknod)
	if err == unix.EPERM {
		if err = mknod(); err == unix.EOVERFLOW {
			return false, nil
		}
	}
	return err == nil, err
}

func (c *copier) subdirectory(fd, to int, name, at string, st *unix.Stat_t) error {
	from, err := reopen(fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := c.act(func() error { return unix.Mkdirat(to, name, 0o700) }); err != nil {
		return err
	}
	n, err := unix.Openat(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	into := os.NewFile(uintptr(n), name)
	defer into.Close()
	if err := c.directory(from, into, path.Join(at, name)); err != nil {
		return err
	}
	return copyAttributes(from, into, st)
}

// file copies a regular file.
func (c *copier) file(fd, to int, name string, st *unix.Stat_t) error {
	from, err := reopen(fd, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer from.Close()
	var n int
	err = c.act(func() (err error) {
		n, err = unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	into := os.NewFile(uintptr(n), name)
	defer into.Close()
	if _, err := io.Copy(into, from); err != nil {
		return err
	}
	return copyAttributes(from, into, st)
}

// copyAttributes copies the owner and then the extended attributes, of which a change of the owner
// would remove the capabilities.
func copyAttributes(from, to *os.File, st *unix.Stat_t) error {
	if err := mapped(unix.Fchown(int(to.Fd()), int(st.Uid), int(st.Gid))); err != nil {
		return err
	}
	size, err := unix.Flistxattr(int(from.Fd()), nil)
	if err != nil || size == 0 {
		return nil // filesystems without attributes
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(int(from.Fd()), list); err != nil {
		return nil
	}
	value := make([]byte, 64<<10) // the largest there is (xattr(7))
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00") {
		if name == "security.selinux" {
			continue // the new filesystem's own
		}
		n, err := unix.Fgetxattr(int(from.Fd()), name, value)
		if err != nil {
			continue
		}
		// What this filesystem or its user namespace cannot have is left out.
		_ = unix.Fsetxattr(int(to.Fd()), name, value[:n], 0)
	}
	return nil
}

// dress gives a copy its owner, its mode and its times.
func dress(dir int, name string, st *unix.Stat_t) error {
	link := st.Mode&unix.S_IFMT == unix.S_IFLNK
	if file := st.Mode & unix.S_IFMT; file != unix.S_IFREG && file != unix.S_IFDIR {
		if err := mapped(
			unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW),
		); err != nil {
			return err
		}
	}
	if !link {
		if err := unix.Fchmodat(dir, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(
		dir, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW,
	)
}
