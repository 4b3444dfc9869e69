package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/testneed"
)

func TestBelow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, step := range []error{
		os.MkdirAll(filepath.Join(dir, "a/b"), 0o755),
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o644),
		os.Symlink("a/b", filepath.Join(dir, "good")),
		os.Symlink("/", filepath.Join(dir, "root")),
		os.Symlink("root", filepath.Join(dir, "bad")),
		os.Symlink("../../..", filepath.Join(dir, "a/up")),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	for sub, want := range map[string]string{
		"a/b": "a/b", "good": "a/b", "a/../file": "file", "file": "file",
		"root": "!escapes the base directory", "bad": "!escapes the base directory",
		"a/up": "!escapes the base directory", "../x": "!escapes the base directory",
		"/": "!escapes the base directory", "none": "!cannot access path", "file/x": "!cannot access path",
	} {
		f, err := Below(dir, sub, unix.O_PATH)
		if words, fails := strings.CutPrefix(want, "!"); fails {
			class := errdefs.IsInvalidArgument(err) && strings.Contains(words, "escapes") ||
				errdefs.IsNotFound(err) && strings.Contains(words, "cannot")
			if err == nil || !class || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: got %v, want %q", sub, err, words)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", sub, err)
			continue
		}
		has, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		wanted, err := os.Stat(filepath.Join(dir, want))
		if err != nil || !os.SameFile(has, wanted) {
			t.Errorf("%s is not %s: %v", sub, want, err)
		}
		f.Close()
	}
}

func TestFillBelow(t *testing.T) {
	t.Parallel()
	testneed.Root(t, "copies owners")
	from := t.TempDir()
	if err := os.WriteFile(filepath.Join(from, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	s := open(t, t.TempDir())
	v, _, err := s.Acquire(CreateOptions{Name: "vol"}, "c")
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"empty", "full/x"} {
		if err := os.MkdirAll(filepath.Join(v.Path, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for sub, want := range map[string]bool{"empty": true, "full": false, "none": false} {
		if err := s.FillBelow("vol", sub, src); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(v.Path, sub, "f"))
		if got := err == nil && string(raw) == "x"; got != want {
			t.Errorf("%s: filled %v, want %v", sub, got, want)
		}
	}
}
