package volume

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/message"
)

// Below opens what is at the path sub in the directory of a volume, with flags of open(2). No
// symbolic link leads out of the directory: where one would, the error is
// errdefs.ErrInvalidArgument; it is errdefs.ErrNotFound where there is nothing. The words are
// dockerd's (moby/moby, daemon/volume/safepath). The caller closes the file.
func Below(dir, sub string, flags int) (*os.File, error) {
	base, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	fd, err := unix.Openat2(int(base.Fd()), sub, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP):
		return nil, message.New(
			errdefs.ErrInvalidArgument,
			"path concatenation escapes the base directory, base: %s, subpath: %s", dir, sub,
		)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil, message.New(errdefs.ErrNotFound, "cannot access path %s/%s: %w", dir, sub, err)
	case err != nil:
		return nil, fmt.Errorf("open %q below %q: %w", sub, dir, err)
	}
	return os.NewFile(uintptr(fd), dir+"/"+sub), nil
}

// FillBelow copies the directory src into the directory at the path sub of a volume, if that is
// empty and the volume is owned by the store. What is missing stays so. Errors are those of Below.
func (s *Store) FillBelow(name, sub string, src *os.File) error {
	s.mu.Lock()
	e, err := s.find(name)
	s.mu.Unlock()
	if err != nil || e.rec.Options["device"] != "" {
		return err
	}
	e.fill.Lock()
	defer e.fill.Unlock()
	dst, err := Below(s.public(e).Path, sub, unix.O_RDONLY|unix.O_DIRECTORY)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dst.Close()
	switch _, err := dst.Readdirnames(1); {
	case err == nil:
		return nil
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("fill volume %q: %w", name, err)
	}
	if err := copyTo(dst, src); err != nil {
		return fmt.Errorf("fill volume %q: %w", name, err)
	}
	return nil
}
