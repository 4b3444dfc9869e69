package userland

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// extraction puts members below root; os.Root sees to it that no name and no link leads out.
type extraction struct {
	t    *tarCall
	root *os.Root
	// their modes and times are set last, when nothing is written into them any more
	dirs []*tar.Header
}

func (x *extraction) extract(ctx context.Context, h *tar.Header, r io.Reader) error {
	name, ok := stripped(h.Name, x.t.strip)
	if !ok {
		return nil
	}
	if name == "." {
		return nil
	}
	if up := path.Dir(name); up != "." {
		if err := x.root.MkdirAll(up, 0o777); err != nil {
			return err
		}
	}
	keep := x.t.o.has('k')
	if h.Typeflag != tar.TypeDir {
		if st, err := x.root.Lstat(name); err == nil {
			if keep {
				return os.ErrExist
			}
			if st.IsDir() {
				return unix.EISDIR
			}
			if err := x.root.Remove(name); err != nil {
				return err
			}
		}
	}
	mode := fs.FileMode(h.Mode & 0o777)
	switch h.Typeflag {
	case tar.TypeDir:
		if err := x.root.Mkdir(name, mode|0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		copied := *h
		copied.Name = name
		x.dirs = append(x.dirs, &copied)
		return nil
	case tar.TypeReg:
		f, err := x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode|0o200)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, ctxReader{ctx, r})
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := x.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
	case tar.TypeLink:
		target, ok := stripped(h.Linkname, x.t.strip)
		if !ok {
			return fmt.Errorf("link target %q is stripped away", h.Linkname)
		}
		return x.root.Link(target, name)
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		if err := x.node(name, h); err != nil {
			return err
		}
	default:
		return fmt.Errorf("member type %q is not supported", h.Typeflag)
	}
	return x.attributes(name, h)
}

// stripped drops leading components; not ok when nothing is left.
func stripped(name string, n int) (string, bool) {
	clean := path.Clean(name)
	for range n {
		_, rest, more := strings.Cut(strings.TrimLeft(clean, "/"), "/")
		if !more {
			return "", false
		}
		clean = rest
	}
	return clean, true
}

// node makes a device or fifo beside a directory handle, as os.Root has no call for it.
func (x *extraction) node(name string, h *tar.Header) error {
	dir, err := x.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Mknodat(
		int(dir.Fd()), path.Base(name), uint32(h.Mode&0o777)|kindOf(h),
		int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))),
	)
}

// attributes sets the owner (for root), the mode and the time. Without -p the umask of who extracts
// counts, except for root.
func (x *extraction) attributes(name string, h *tar.Header) error {
	root := os.Geteuid() == 0
	if root && !x.t.o.has('o') {
		if err := x.root.Lchown(name, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	mode := h.FileInfo().Mode()
	if !root && !x.t.o.has('p') {
		mode = fs.FileMode(uint32(mode.Perm()) &^ currentUmask())
	}
	if err := x.root.Chmod(
		name, mode&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky),
	); err != nil {
		return err
	}
	if x.t.o.has('m') {
		return nil
	}
	return x.root.Chtimes(name, h.ModTime, h.ModTime)
}

func (x *extraction) finish() {
	for i := len(x.dirs) - 1; i >= 0; i-- {
		if err := x.attributes(x.dirs[i].Name, x.dirs[i]); err != nil {
			x.t.status = x.t.c.fault(x.dirs[i].Name, err)
		}
	}
}
