package layer

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is a directory seen through its descriptor. It caches descriptors of directories inside,
// because the entries of an archive come in runs of the same directory. Not safe for concurrent
// use.
type tree struct {
	root  *os.File
	cache map[string]int
}

// cacheSize bounds the open descriptors per layer; several layers are unpacked at once.
const cacheSize = 32

func newTree(root *os.File) *tree { return &tree{root: root, cache: map[string]int{}} }

func (t *tree) close() { t.forget() }

// forget drops the cache. It must run before any directory or symbolic link goes away, since names
// may then mean something else.
func (t *tree) forget() {
	for k, fd := range t.cache {
		unix.Close(fd)
		delete(t.cache, k)
	}
}

const resolveFlags = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openat2 retries EAGAIN, which the kernel returns when a concurrent rename makes ".." ambiguous
// (openat2(2), RESOLVE_IN_ROOT).
func openat2(dirfd int, name string, flags int, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	for i := 0; ; i++ {
		fd, err := unix.Openat2(dirfd, name, &how)
		if (err == unix.EAGAIN || err == unix.EINTR) && i < 128 {
			continue
		}
		return fd, err
	}
}

// openDir opens a directory by name; symbolic links lead to places inside the root. The caller
// closes it.
func (t *tree) openDir(name string) (int, error) {
	return openat2(int(t.root.Fd()), name, unix.O_PATH|unix.O_DIRECTORY, resolveFlags)
}

// dir is openDir through the cache. The descriptor stays valid until the next call of dir or
// forget.
func (t *tree) dir(name string) (int, error) {
	if fd, ok := t.cache[name]; ok {
		return fd, nil
	}
	fd, err := t.openDir(name)
	if err != nil {
		return -1, err
	}
	if len(t.cache) >= cacheSize {
		t.forget()
	}
	t.cache[name] = fd
	return fd, nil
}

// names lists a directory.
func (t *tree) names(name string) ([]string, error) {
	fd, err := openat2(int(t.root.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY, resolveFlags)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return f.Readdirnames(-1)
}

// removeAll removes parent/base whatever it is. The cached descriptors survive only if nothing but
// a plain file went.
func (t *tree) removeAll(parent int, base string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		// The parent itself may sit in the cache that is dropped: hold a descriptor of our own. Its
		// entries for other directories only get slower, not wrong, so they are replaced rather
		// than closed under the caller.
		err := os.RemoveAll(procPath(parent) + "/" + base)
		t.forgetBut(parent)
		return err
	case unix.S_IFLNK:
		defer t.forgetBut(parent)
	}
	return unix.Unlinkat(parent, base, 0)
}

// forgetBut drops the cache except one descriptor that the caller is still using. Its name stays
// right: it was resolved before and the thing removed lies below it.
func (t *tree) forgetBut(keep int) {
	for k, fd := range t.cache {
		if fd != keep {
			unix.Close(fd)
			delete(t.cache, k)
		}
	}
}

// realPath says where parent/base lies below the root once symbolic links are resolved.
func (t *tree) realPath(parent int, base string) (string, error) {
	p, err := os.Readlink(procPath(parent))
	if err != nil {
		return "", err
	}
	r, err := os.Readlink(procPath(int(t.root.Fd())))
	if err != nil {
		return "", err
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(p, r), "/")
	return filepath.Join(rel, base), nil
}

// procPath names an open descriptor for the system calls that take no O_PATH descriptor. It is a
// magic link to that very file, not a path that could be exchanged.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
