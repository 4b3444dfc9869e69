package layer

import (
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func (a *applier) whiteout(dir, base string) error {
	switch {
	case base == opaqueMarker:
		return a.opaque(dir)
	case strings.HasPrefix(base, whiteoutMeta):
		return nil // bookkeeping of aufs, never content
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf(
			"whiteout hides no name a directory can hold: %w", errdefs.ErrInvalidArgument,
		)
	}
	return a.hide(dir, name)
}

// hide makes the parents' dir/base invisible.
func (a *applier) hide(dir, base string) error {
	if a.style == Merged {
		parent, err := a.tree.dir(dir)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			return nil
		}
		if err != nil {
			return err
		}
		if _, ours := a.made[path.Join(dir, base)]; ours {
			return a.spare(dir, base)
		}
		return a.tree.removeAll(parent, base)
	}
	parent, err := a.parent(dir)
	if err != nil {
		return err
	}
	err = unix.Mknodat(parent, base, unix.S_IFCHR, 0)
	if err != unix.EEXIST {
		return err
	}
	// Made earlier by this same layer: a whiteout concerns parents only (image-spec layer.md,
	// "Whiteouts").
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return setOpaque(parent, base)
	}
	return nil
}

// spare removes from a directory this archive made everything that it did not make.
func (a *applier) spare(dir, base string) error {
	parent, err := a.tree.dir(dir)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil ||
		st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	return a.opaque(path.Join(dir, base))
}

// opaque hides everything the parents have in dir.
func (a *applier) opaque(dir string) error {
	fd, err := a.parent(dir)
	if err != nil {
		return err
	}
	if a.style == Overlay {
		return setOpaque(fd, "")
	}
	names, err := a.tree.names(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		p := path.Join(dir, n)
		if _, ours := a.made[p]; ours {
			if err := a.spare(dir, n); err != nil {
				return err
			}
			continue
		}
		if fd, err = a.tree.dir(dir); err != nil {
			return err
		}
		if err := a.tree.removeAll(fd, n); err != nil {
			return err
		}
	}
	return nil
}
