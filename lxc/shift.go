package lxc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lxc/config"
)

// shiftTree gives a root file system that the host's root has made the owners that it has for the
// container: those that lxc.idmap maps the present ones to. A root that is mounted with
// idmap=container keeps its own. On an error a part of it is shifted.
func shiftTree(root string, cfg *config.Config) error {
	if len(cfg.IDMap) == 0 ||
		slices.Contains(strings.Split(cfg.Rootfs.Options, ","), "idmap=container") {
		return nil
	}
	s := &shifting{list: cfg.IDMap, seen: map[inode]bool{}}
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return s.file(name)
	})
}

type inode struct{ dev, ino uint64 }

// shifting is one tree under way.
type shifting struct {
	list []config.IDMap
	seen map[inode]bool // files with several names
}

// shifted are the extended attributes that have numbers of users in them.
var shifted = [...]struct {
	name string
	to   func(s *shifting, value []byte) ([]byte, error)
}{
	{"security.capability", (*shifting).capability}, {"system.posix_acl_access", (*shifting).acl},
	{"system.posix_acl_default", (*shifting).acl},
}

// file shifts one file. The kernel takes setuid bits and capabilities away when the owner changes.
func (s *shifting) file(name string) error {
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() && st.Nlink > 1 {
		at := inode{st.Dev, st.Ino}
		if s.seen[at] {
			return nil
		}
		s.seen[at] = true
	}
	uid, err := s.id('u', st.Uid)
	if err != nil {
		return fmt.Errorf("owner of %q: %w", name, err)
	}
	gid, err := s.id('g', st.Gid)
	if err != nil {
		return fmt.Errorf("group of %q: %w", name, err)
	}
	values := [len(shifted)][]byte{}
	link := info.Mode()&fs.ModeSymlink != 0
	var list [1024]byte
	n := 0
	if !link {
		// One call for the many files that have none.
		if n, err = unix.Llistxattr(name, list[:]); err == unix.ERANGE {
			n, err = 1, nil
		} else if errors.Is(err, unix.ENOTSUP) {
			n, err = 0, nil
		}
		if err != nil {
			return fmt.Errorf("extended attributes of %q: %w", name, err)
		}
	}
	for i, a := range shifted {
		if n == 0 {
			break
		}
		value, err := attribute(name, a.name)
		if err == nil && value != nil {
			values[i], err = a.to(s, value)
		}
		if err != nil {
			return fmt.Errorf("%s of %q: %w", a.name, name, err)
		}
	}
	if err := os.Lchown(name, int(uid), int(gid)); err != nil {
		return err
	}
	if link {
		return nil
	}
	if st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		if err := unix.Chmod(name, st.Mode&^unix.S_IFMT); err != nil {
			return &fs.PathError{Op: "chmod", Path: name, Err: err}
		}
	}
	for i, value := range values {
		if value == nil {
			continue
		}
		if err := unix.Lsetxattr(name, shifted[i].name, value, 0); err != nil {
			return fmt.Errorf("set %s of %q: %w", shifted[i].name, name, err)
		}
	}
	return nil
}

// attribute reads an extended attribute; nil if the file has none.
func attribute(file, name string) ([]byte, error) {
	buf := make([]byte, 64)
	for {
		n, err := unix.Lgetxattr(file, name, buf)
		switch {
		case err == unix.ERANGE && len(buf) < 1<<16: // XATTR_SIZE_MAX
			buf = make([]byte, 1<<16)
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
			return nil, nil
		case err != nil:
			return nil, err
		default:
			return buf[:n], nil
		}
	}
}

// id is the number on the host of a user or group.
func (s *shifting) id(kind byte, id uint32) (uint32, error) {
	for _, m := range s.list {
		other := byte(m.Kind) != kind && (m.Kind == 'u' || m.Kind == 'g')
		if !other && id >= m.Container && id-m.Container < m.Count {
			return m.Host + (id - m.Container), nil
		}
	}
	return 0, fmt.Errorf(
		"lxc.idmap: no line for %c %d: %w", kind, id, errdefs.ErrInvalidArgument,
	)
}

// capability makes capabilities hold in the user namespace whose root is the container's
// (linux/capability.h, vfs_ns_cap_data).
func (s *shifting) capability(value []byte) ([]byte, error) {
	const (
		size2, size3 = 20, 24
		revisions    = 0xff000000
		revision3    = 0x03000000
	)
	if len(value) != size2 && len(value) != size3 {
		return nil, fmt.Errorf("%d bytes: %w", len(value), errdefs.ErrInvalidArgument)
	}
	root := uint32(0)
	if len(value) == size3 {
		root = binary.LittleEndian.Uint32(value[size2:])
	}
	root, err := s.id('u', root)
	if err != nil {
		return nil, err
	}
	out := slices.Grow(slices.Clone(value[:size2]), 4)
	magic := binary.LittleEndian.Uint32(out)
	binary.LittleEndian.PutUint32(out, magic&^revisions|revision3)
	return binary.LittleEndian.AppendUint32(out, root), nil
}

// acl shifts the users and groups of a list (linux/posix_acl_xattr.h).
func (s *shifting) acl(value []byte) ([]byte, error) {
	const (
		header, entry = 4, 8
		user, group   = 0x02, 0x08
	)
	out := slices.Clone(value)
	for at := header; at+entry <= len(out); at += entry {
		kind := byte(0)
		switch binary.LittleEndian.Uint16(out[at:]) {
		case user:
			kind = 'u'
		case group:
			kind = 'g'
		default:
			continue
		}
		to, err := s.id(kind, binary.LittleEndian.Uint32(out[at+4:]))
		if err != nil {
			return nil, err
		}
		binary.LittleEndian.PutUint32(out[at+4:], to)
	}
	return out, nil
}
