package layer

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// InheritDirs gives the directories that an archive only implied (Result.Implied) the mode, owner,
// times and attributes that the topmost parent layer has for them: overlayfs shows a merged
// directory with its uppermost layer's attributes. Parents come top first. It returns
// ErrNeedsParents when a parent has something else than a directory under such a name, because then
// the archive's content belongs elsewhere.
func InheritDirs(upper *os.File, parents []*os.File, implied []string) error {
	for _, name := range implied {
		from, err := lookup(parents, name)
		if err != nil {
			return fmt.Errorf("look up %q in parent layers: %w", name, err)
		}
		if from.kind == absent {
			continue
		}
		if from.kind != unix.S_IFDIR {
			return fmt.Errorf("%q is no directory in the parent layers: %w", name, ErrNeedsParents)
		}
		if err := copyDirMeta(upper, parents[from.layer], name); err != nil {
			return err
		}
	}
	return nil
}

const absent = 0

// found is what a stack of layers shows under a name: its type (S_IFMT bits, absent for nothing)
// and the layer it comes from.
type found struct {
	layer int
	kind  uint32
	st    unix.Stat_t
}

// lookup resolves a name in a stack of overlay layers, top first, component by component and
// without following links: a link on the way is reported as what the name is, since a caller that
// asked for something below it has to think again.
func lookup(layers []*os.File, name string) (found, error) {
	parts := []string{}
	if name != "." {
		parts = strings.Split(name, "/")
	}
	for i, l := range layers {
		f, goOn, err := lookupOne(int(l.Fd()), parts)
		if err != nil {
			return found{}, err
		}
		if f.kind != absent || !goOn {
			f.layer = i
			return f, nil
		}
	}
	return found{}, nil
}

// lookupOne says what one layer has and whether the layers below still count.
func lookupOne(root int, parts []string) (f found, goOn bool, err error) {
	goOn = true
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return f, false, err
	}
	if len(parts) == 0 {
		return found{kind: st.Mode & unix.S_IFMT, st: st}, true, nil
	}
	for n := 1; n <= len(parts); n++ {
		fd, err := openat2(
			root, strings.Join(parts[:n], "/"), unix.O_PATH|unix.O_NOFOLLOW,
			unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS,
		)
		if err == unix.ENOENT {
			return f, goOn, nil
		}
		if err != nil {
			return f, false, err
		}
		err = unix.Fstat(fd, &st)
		opaque := false
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && n < len(parts) {
			opaque = isOpaque(fd)
		}
		unix.Close(fd)
		if err != nil {
			return f, false, err
		}
		switch {
		case isWhiteout(&st):
			return f, false, nil
		case n == len(parts), st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return found{kind: st.Mode & unix.S_IFMT, st: st}, false, nil
		case opaque:
			goOn = false
		}
	}
	return f, goOn, nil
}

func isOpaque(fd int) bool {
	var b [1]byte
	n, err := unix.Getxattr(procPath(fd), opaqueXattr, b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

func copyDirMeta(upper, lower *os.File, name string) error {
	src, err := openat2(
		int(lower.Fd()), name, unix.O_PATH|unix.O_DIRECTORY,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS,
	)
	if err != nil {
		return fmt.Errorf("open parent's %q: %w", name, err)
	}
	defer unix.Close(src)
	dst, err := openat2(
		int(upper.Fd()), name, unix.O_PATH|unix.O_DIRECTORY,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS,
	)
	if err != nil {
		return fmt.Errorf("open %q: %w", name, err)
	}
	defer unix.Close(dst)
	return CopyDirMeta(dst, src)
}

// CopyDirMeta gives directory dst the owner, mode, kept attributes and times of directory src. Both
// may be O_PATH descriptors.
func CopyDirMeta(dst, src int) error {
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	x, err := readXattrs(procPath(src))
	if err != nil {
		return err
	}
	m := meta{
		uid: int(st.Uid), gid: int(st.Gid), mode: st.Mode & 0o7777,
		times: [2]unix.Timespec{st.Atim, st.Mtim}, xattrs: x,
	}
	return m.applyFd(dst, true)
}

// readXattrs reads the attributes that belong to an image. The path is followed: it names an open
// descriptor.
func readXattrs(p string) (map[string]string, error) {
	return xattrs(func(b []byte) (int, error) { return unix.Listxattr(p, b) },
		func(k string, b []byte) (int, error) { return unix.Getxattr(p, k, b) })
}

func lreadXattrs(p string) (map[string]string, error) {
	return xattrs(func(b []byte) (int, error) { return unix.Llistxattr(p, b) },
		func(k string, b []byte) (int, error) { return unix.Lgetxattr(p, k, b) })
}

func xattrs(
	list func([]byte) (int, error), get func(string, []byte) (int, error),
) (map[string]string, error) {
	names := make([]byte, 4096)
	n, err := list(names)
	if err == unix.ERANGE { // xattr(7): a list has at most 64 KiB
		names = make([]byte, 64<<10)
		n, err = list(names)
	}
	if err == unix.ENOTSUP || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	var out map[string]string
	for _, k := range strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if !KeepXattr(k) {
			continue
		}
		v := make([]byte, 64<<10) // xattr(7): XATTR_SIZE_MAX
		m, err := get(k, v)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read attribute %q: %w", k, err)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = string(v[:m])
	}
	return out, nil
}
