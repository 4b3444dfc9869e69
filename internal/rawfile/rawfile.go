// Package rawfile reads and writes small files whole by plain system calls. Package os prepares
// every file for the poller, which costs four to five system calls for each regular file, /proc
// entry or control group file only to find out that it cannot be polled.
//
// Not for: large files, devices, pipes, files that may block.
//
// Tested with files that appear, grow, and are missing. Errors are *fs.PathError throughout.
package rawfile

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// open is open(2) with O_CLOEXEC.
func open(path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return fd, nil
	}
}

var buffers = sync.Pool{New: func() any { return new([4096]byte) }}

// Read reads a whole file.
func Read(path string) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	first := buffers.Get().(*[4096]byte) // most files fit, and their text is copied once
	defer buffers.Put(first)
	for b := first[:0]; ; {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0 && cap(b) == len(first):
			return append(make([]byte, 0, len(b)), b...), nil
		case n == 0:
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = append(make([]byte, 0, 2*cap(b)), b...)
		}
	}
}

// Write makes or truncates a file with a mode (umask(2) applies) and writes data.
func Write(path string, data []byte, mode uint32) error {
	fd, err := open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return write(fd, path, data)
}

func write(fd int, path string, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "write", Path: path, Err: err}
		}
		data = data[n:]
	}
	return nil
}

// Append adds data, which is not empty, to the end of a file, which it makes with a mode if it is
// missing, and returns the file's length. After an error a part of data may be there.
func Append(path string, data []byte, mode uint32) (size int64, err error) {
	fd, err := open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND, mode)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := write(fd, path, data); err != nil {
		return 0, err
	}
	if size, err = unix.Seek(fd, 0, unix.SEEK_CUR); err != nil {
		return 0, &fs.PathError{Op: "seek", Path: path, Err: err}
	}
	return size, nil
}

// Replace writes a file of a directory under a temporary name, which begins with a dot, and renames
// it, so that readers see one whole version or the other. Nothing is synced. On an error the old
// version stays and the temporary file is removed.
func Replace(dir, name string, data []byte, mode uint32) error {
	tmp, path := filepath.Join(dir, "."+name), filepath.Join(dir, name)
	err := Write(tmp, data, mode)
	if err == nil {
		if rerr := unix.Rename(tmp, path); rerr != nil {
			err = &fs.PathError{Op: "rename", Path: tmp, Err: rerr}
		}
	}
	if err != nil {
		if uerr := unix.Unlink(tmp); uerr != nil && uerr != unix.ENOENT {
			err = errors.Join(err, &fs.PathError{Op: "unlink", Path: tmp, Err: uerr})
		}
	}
	return err
}

// RemoveDir removes a directory with the files of it that are named. It is one call for each name and one
// for the directory, and says whether the directory is gone: something else may be in it.
func RemoveDir(dir string, names ...string) (gone bool) {
	for _, name := range names {
		unix.Unlink(filepath.Join(dir, name))
	}
	err := unix.Rmdir(dir)
	return err == nil || err == unix.ENOENT
}

// Spread tells the file system that the subdirectories of a directory have nothing to do with one
// another (FS_TOPDIR_FL, ioctl_iflags(2); attribute T of chattr(1)). ext4 then puts each into a
// block group of its own choice. Without it they share one, in which each new file makes ext4 pass
// over all inodes that were freed within five seconds, because it does not reuse those. File systems
// that do not know the hint are left as they are.
func Spread(dir string) error {
	fd, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&topDir != 0 {
		return nil // no flags here, or set before
	}
	_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|topDir))
	return nil
}

// topDir is FS_TOPDIR_FL of linux/fs.h.
const topDir = 0x00020000
