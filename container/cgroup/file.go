package cgroup

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// writeFile writes an existing file in one piece, as cgroup filesystems want it.
func writeFile(name string, value []byte) error {
	var f series
	defer f.close()
	return f.write(name, value)
}

// series writes several values, each in one piece. The file stays open as long as the next value is
// for the same one: a group on version 1 gets some fifteen rules about devices. The zero value is
// ready; close ends it.
type series struct {
	name string
	fd   int
}

func (f *series) close() {
	if f.name != "" {
		unix.Close(f.fd)
		f.name = ""
	}
}

func (f *series) write(name string, value []byte) error {
	if f.name != name {
		f.close()
		fd, err := unix.Open(name, unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
		if err != nil {
			return &fs.PathError{Op: "open", Path: name, Err: err}
		}
		f.name, f.fd = name, fd
	}
	fd := f.fd
	for {
		_, err := unix.Write(fd, value)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "write", Path: name, Err: err}
		}
		return nil
	}
}
