package container

import (
	"io/fs"
	"path/filepath"
	"strconv"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// The files here are small and are read or written once in the life of a short process: plain
// system calls, without the poller that package os sets up for every file.

// readFile reads a whole file. Errors are *fs.PathError.
func readFile(path string) ([]byte, error) {
	fd, err := openFile(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 4096)
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = append(make([]byte, 0, 2*cap(b)), b...)
		}
	}
}

func openFile(path string, flags int, mode uint32) (int, error) {
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

// writeFile replaces a file of the state directory in one step. The directory lies on a tmpfs:
// there is nothing to sync.
func writeFile(dir, name string, data []byte) error {
	tmp := filepath.Join(dir, "."+name)
	fd, err := openFile(tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			unix.Close(fd)
			return &fs.PathError{Op: "write", Path: tmp, Err: err}
		}
		data = data[n:]
	}
	unix.Close(fd)
	if err := unix.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return &fs.PathError{Op: "rename", Path: tmp, Err: err}
	}
	return nil
}

// encode is the record as JSON. It is written out because preparing encoding/json for one use takes
// longer than the use.
func (r *record) encode() []byte {
	b := make([]byte, 0, 512)
	text := func(name, value string) {
		b = append(b, `,"`...)
		b = append(b, name...)
		b = appendJSON(append(b, `":`...), value)
	}
	number := func(name string, value uint64) {
		b = append(b, `,"`...)
		b = append(b, name...)
		b = strconv.AppendUint(append(b, `":`...), value, 10)
	}
	b = strconv.AppendUint(append(b, `{"version":`...), uint64(r.Version), 10)
	text("ociVersion", r.OCIVersion)
	text("id", r.ID)
	number("pid", uint64(r.Pid))
	number("pidStartTicks", r.PidStart)
	text("bundle", r.Bundle)
	text("rootfs", r.Rootfs)
	text("created", r.Created.Format(time.RFC3339Nano))
	text("owner", r.Owner)
	text("cgroupPath", r.CgroupPath)
	number("namespaceFlags", r.Flags)
	if len(r.Annotations) > 0 {
		sep := `,"annotations":{`
		for name, value := range r.Annotations {
			b = appendJSON(append(b, sep...), name)
			b = appendJSON(append(b, ':'), value)
			sep = ","
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendJSON appends a JSON string (RFC 8259, section 7). Bytes that are not UTF-8 become U+FFFD,
// as in encoding/json.
func appendJSON(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// removeState removes a state directory with what this package puts there.
func removeState(dir string) error {
	for _, name := range []string{stateFile, configFile, optionsFile, startFIFO, statusFIFO} {
		unix.Unlink(filepath.Join(dir, name))
	}
	return unix.Rmdir(dir)
}
