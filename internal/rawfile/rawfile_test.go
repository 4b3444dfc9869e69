package rawfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriteRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	for _, want := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("long"), 5000), []byte("y")} {
		if err := Write(path, want, 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d bytes %v, want %d", len(got), err, len(want))
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o640 {
		t.Errorf("mode %v %v, want 0640", st.Mode(), err)
	}
	if raw, err := Read("/proc/self/stat"); err != nil || len(raw) == 0 {
		t.Errorf("a file without a size: %q %v", raw, err)
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := Read(filepath.Join(dir, "none"))
	var pe *fs.PathError
	if !errors.As(err, &pe) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read: %v, want a path error that says that it does not exist", err)
	}
	if err := Write(filepath.Join(dir, "none", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("write: %v", err)
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"one", "one two", "one two three"} {
		before, _ := os.ReadFile(path)
		n, err := Append(path, []byte(want[len(before):]), 0o640)
		if err != nil || n != int64(len(want)) {
			t.Errorf("%d bytes %v, want %d", n, err, len(want))
		}
		if got, err := Read(path); err != nil || string(got) != want {
			t.Errorf("got %q %v, want %q", got, err, want)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o640 {
		t.Errorf("mode %v %v, want 0640", st.Mode(), err)
	}
	if _, err := Append("/dev/full", []byte("x"), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full device: %v", err)
	}
	if _, err := Append(path+"/f", nil, 0o600); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, want := range []string{"first", "second"} {
		if err := Replace(dir, "f", []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(filepath.Join(dir, "f")); err != nil || string(got) != want {
			t.Errorf("got %q %v, want %q", got, err, want)
		}
	}
	// A directory is in the way of the rename: the temporary file goes, the directory stays.
	if err := os.MkdirAll(filepath.Join(dir, "d", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(dir, "d", nil, 0o600); err == nil {
		t.Error("a directory is replaced by a file")
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 2 {
		t.Errorf("left: %v %v, want d and f", list, err)
	}
}

func TestRemoveDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if err := Write(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if RemoveDir(dir, "a", "none") {
		t.Error("a directory with a file in it is said to be gone")
	}
	for _, what := range []string{"an empty directory", "no directory"} {
		if !RemoveDir(dir, "b") {
			t.Errorf("%s is said to be there", what)
		}
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory: %v", err)
	}
}

// TestSpread checks the hint where a file system has it, and that others are no error.
func TestSpread(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 {
		if err := Spread(dir); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.EXT4_SUPER_MAGIC {
		flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
		if err != nil || flags&topDir == 0 {
			t.Errorf("flags %#x %v, want FS_TOPDIR_FL", flags, err)
		}
	}
	if err := Spread("/proc/self"); err != nil {
		t.Errorf("a file system without flags: %v", err)
	}
	if err := Spread(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}
