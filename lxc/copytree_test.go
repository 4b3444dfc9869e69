package lxc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/internal/testneed"
)

// TestCopyTree copies every kind of file with everything that a copy keeps.
func TestCopyTree(t *testing.T) {
	t.Parallel()
	testneed.Root(t, "makes devices and other users' files")
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "new")
	in := func(name string) string { return filepath.Join(from, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(in("dir/sub"), 0o755))
	must(os.WriteFile(in("dir/file"), []byte("data"), 0o644))
	must(os.Chown(in("dir/file"), 1234, 5678))
	must(os.Chmod(in("dir/file"), 0o4751))
	must(unix.Setxattr(in("dir/file"), "trusted.some", []byte("value"), 0))
	must(os.Link(in("dir/file"), in("other-name")))
	must(os.Symlink("/etc/shadow", in("dir/link")))
	must(os.Lchown(in("dir/link"), 7, 8))
	must(unix.Mknod(in("null"), unix.S_IFCHR|0o622, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(in("fifo"), unix.S_IFIFO|0o640, 0))
	must(unix.Mknod(in("socket"), unix.S_IFSOCK|0o600, 0))
	must(os.Chmod(in("dir/sub"), os.ModeSticky|0o711))
	sparse, err := os.Create(in("sparse"))
	must(err)
	_, err = sparse.WriteAt(bytes.Repeat([]byte("x"), 4096), 8<<20)
	must(err)
	must(sparse.Truncate(16 << 20))
	must(sparse.Close())
	must(os.Mkdir(in("mnt"), 0o755))
	must(unix.Mount("none", in("mnt"), "tmpfs", 0, ""))
	defer unix.Unmount(in("mnt"), 0)
	must(os.WriteFile(in("mnt/not-copied"), nil, 0o644))
	old := time.Unix(1_000_000_000, 123)
	for _, name := range []string{"dir/file", "dir/sub", "dir"} {
		must(os.Chtimes(in(name), old, old))
	}

	must(copyDir(t.Context(), from, to))

	for _, name := range []string{
		"", "dir", "dir/sub", "dir/file", "dir/link", "null", "fifo", "socket", "sparse",
	} {
		if got, want := describe(t, filepath.Join(to, name)), describe(t, in(name)); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	a, _ := os.Lstat(filepath.Join(to, "dir/file"))
	b, _ := os.Lstat(filepath.Join(to, "other-name"))
	if !os.SameFile(a, b) {
		t.Error("two names of one file have become two files")
	}
	if link, _ := os.Readlink(filepath.Join(to, "dir/link")); link != "/etc/shadow" {
		t.Errorf("link to %q", link)
	}
	if _, err := os.Stat(filepath.Join(to, "mnt/not-copied")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of another file system was copied: %v", err)
	}
	var value [16]byte
	n, err := unix.Getxattr(filepath.Join(to, "dir/file"), "trusted.some", value[:])
	if err != nil || string(value[:n]) != "value" {
		t.Errorf("extended attribute: %q, %v", value[:max(n, 0)], err)
	}
	got, err := os.ReadFile(filepath.Join(to, "sparse"))
	want, _ := os.ReadFile(in("sparse"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the data of the file with holes differ, %v", err)
	}
}

// describe is what a copy of a file has in common with it.
func describe(t *testing.T, name string) string {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%o %d:%d dev %d", st.Mode, st.Uid, st.Gid, st.Rdev)
	if st.Mode&syscall.S_IFMT == syscall.S_IFREG || st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		text += info.ModTime().String()
	}
	if info.Mode().IsRegular() {
		text += fmt.Sprintf(" %d bytes, %d blocks", st.Size, st.Blocks)
	}
	return text
}
