package layer

import (
	"archive/tar"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// meta is what an entry says about a file besides its content.
type meta struct {
	uid, gid int
	mode     uint32
	times    [2]unix.Timespec
	xattrs   map[string]string
	symlink  bool
}

const paxXattr = "SCHILY.xattr."

func metaOf(hdr *tar.Header) (meta, error) {
	const maxID = 1<<32 - 2 // 2^32-1 means "leave alone" to chown(2)
	if hdr.Uid < 0 || hdr.Uid > maxID || hdr.Gid < 0 || hdr.Gid > maxID {
		return meta{}, fmt.Errorf(
			"owner %d:%d out of range 0 to %d: %w", hdr.Uid, hdr.Gid, uint32(maxID),
			errdefs.ErrInvalidArgument,
		)
	}
	m := meta{uid: hdr.Uid, gid: hdr.Gid, mode: uint32(hdr.Mode & 0o7777)}
	at := hdr.AccessTime
	if at.IsZero() {
		at = hdr.ModTime
	}
	m.times = [2]unix.Timespec{timespec(at), timespec(hdr.ModTime)}
	for k, v := range hdr.PAXRecords {
		if name, ok := strings.CutPrefix(k, paxXattr); ok && KeepXattr(name) {
			if m.xattrs == nil {
				m.xattrs = map[string]string{}
			}
			m.xattrs[name] = v
		}
	}
	return m, nil
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// KeepXattr says whether an extended attribute belongs to an image: file capabilities and the
// user's own. overlayfs reads trusted.overlay.* and, mounted with userxattr, user.overlay.* as its
// own state; an archive that could set them would redirect lookups to other directories. Labels of
// security modules belong to the host.
func KeepXattr(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.") &&
		!strings.HasPrefix(name, "user.overlay.")
}

// applyFd sets everything on an open file; O_PATH descriptors are served through /proc. Owner
// first: chown(2) clears set-id bits and capabilities.
func (m *meta) applyFd(fd int, withTimes bool) error {
	p := procPath(fd)
	if err := unix.Chown(p, m.uid, m.gid); err != nil {
		return fmt.Errorf("chown to %d:%d: %w", m.uid, m.gid, err)
	}
	if err := unix.Chmod(p, m.mode); err != nil {
		return fmt.Errorf("chmod to %#o: %w", m.mode, err)
	}
	for k, v := range m.xattrs {
		if err := ignoreUnsupported(unix.Setxattr(p, k, []byte(v), 0)); err != nil {
			return fmt.Errorf("set attribute %q: %w", k, err)
		}
	}
	if !withTimes {
		return nil
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, m.times[:], 0)
}

// applyAt sets everything on parent/base without following it.
func (m *meta) applyAt(parent int, base string) error {
	if err := unix.Fchownat(parent, base, m.uid, m.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown to %d:%d: %w", m.uid, m.gid, err)
	}
	if !m.symlink {
		// The name was just made by this process as something other than a symbolic link, and no
		// other one writes here.
		if err := unix.Fchmodat(parent, base, m.mode, 0); err != nil {
			return fmt.Errorf("chmod to %#o: %w", m.mode, err)
		}
	}
	for k, v := range m.xattrs {
		if m.symlink && strings.HasPrefix(k, "user.") {
			continue // xattr(7): user attributes exist on files and directories only
		}
		err := ignoreUnsupported(unix.Lsetxattr(procPath(parent)+"/"+base, k, []byte(v), 0))
		if err != nil {
			return fmt.Errorf("set attribute %q: %w", k, err)
		}
	}
	return unix.UtimesNanoAt(parent, base, m.times[:], unix.AT_SYMLINK_NOFOLLOW)
}

// ignoreUnsupported accepts file systems without extended attributes, as every other unpacker does.
func ignoreUnsupported(err error) error {
	if err == unix.ENOTSUP {
		return nil
	}
	return err
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// setOpaque marks parent/base, or parent itself for an empty base, as hiding the lower directories
// of that name.
func setOpaque(parent int, base string) error {
	p := procPath(parent)
	if base == "" {
		if err := unix.Setxattr(p, opaqueXattr, []byte("y"), 0); err != nil {
			return fmt.Errorf("mark directory opaque: %w", err)
		}
		return nil
	}
	if err := unix.Lsetxattr(p+"/"+base, opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("mark %q opaque: %w", base, err)
	}
	return nil
}
