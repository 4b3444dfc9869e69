package volume

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/testneed"
)

func open(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVolumes(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	v, made, err := s.Create(CreateOptions{Name: "data", Labels: map[string]string{"a": "b"}})
	if err != nil || !made {
		t.Fatal(made, err)
	}
	if again, made, err := s.Create(CreateOptions{Name: "data"}); err != nil || made ||
		again.Labels["a"] != "b" {
		t.Fatal(again, made, err)
	}
	if _, _, err := s.Create(
		CreateOptions{Name: "data", Options: map[string]string{"o": "bind", "device": "/srv"}},
	); !errdefs.IsAlreadyExists(err) {
		t.Errorf("other options: %v", err)
	}
	anon, _, err := s.Acquire(CreateOptions{Anonymous: true}, "c1")
	if err != nil || len(anon.Name) != 64 || !reflect.DeepEqual(anon.Users, []string{"c1"}) {
		t.Fatal(anon, err)
	}
	if err := s.Remove(anon.Name); !errdefs.IsAlreadyExists(err) {
		t.Errorf("remove in use: %v", err)
	}
	bind, _, err := s.Create(
		CreateOptions{
			Name:    "bound",
			Options: map[string]string{"type": "none", "o": "bind,rw", "device": "/srv"},
		},
	)
	if err != nil || bind.Path != "/srv" {
		t.Errorf("bind volume: %+v %v", bind, err)
	}

	// A crash in the middle of create or remove, then the next process.
	for _, dir := range []string{"half/_data", ".gone-x/_data", "data/_stage/x"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, root)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"half", ".gone-x", "data/_stage"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", gone, err)
		}
	}
	got, err := s.Get("data")
	if err != nil || !got.Created.Equal(v.Created) || got.Labels["a"] != "b" ||
		got.Path != filepath.Join(root, "data", "_data") {
		t.Errorf("after reopening: %+v %v", got, err)
	}
	if n := len(s.List()); n != 3 {
		t.Errorf("%d volumes, want 3", n)
	}
	if _, err := s.Adopt(anon.Name, "c1"); err != nil {
		t.Fatal(err)
	}
	s.Release(anon.Name, "c1")
	s.Release(anon.Name, "c1")
	if err := s.Remove(anon.Name); err != nil {
		t.Error(err)
	}
	if err := s.Remove(anon.Name); !errdefs.IsNotFound(err) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := os.Lstat(anon.Path); !os.IsNotExist(err) {
		t.Errorf("data of a removed volume: %v", err)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	for name, o := range map[string]CreateOptions{
		"climbing":      {Name: "../x"},
		"hidden":        {Name: ".x"},
		"slash":         {Name: "a/b"},
		"short":         {Name: "a"},
		"option":        {Name: "ok", Options: map[string]string{"size": "1"}},
		"type":          {Name: "ok", Options: map[string]string{"type": "nfs", "o": "addr=x", "device": ":/x"}},
		"no bind":       {Name: "ok", Options: map[string]string{"device": "/x"}},
		"relative path": {Name: "ok", Options: map[string]string{"o": "bind", "device": "x"}},
	} {
		if _, _, err := s.Create(o); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := s.Create(
		CreateOptions{Name: "ok", Driver: "rexray"},
	); !errdefs.IsNotFound(err) {
		t.Errorf("driver: %v", err)
	}
	if n := len(s.List()); n != 0 {
		t.Errorf("%d volumes were made", n)
	}
}

func TestFill(t *testing.T) {
	testneed.Root(t, "copies owners and device nodes")
	t.Parallel()
	src := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(t.TempDir(), "secret")
	must(os.WriteFile(secret, []byte("host"), 0o600))
	must(os.MkdirAll(filepath.Join(src, "sub/deep"), 0o755))
	must(os.WriteFile(filepath.Join(src, "sub/file"), []byte("hello"), 0o640))
	must(os.Chown(filepath.Join(src, "sub/file"), 12, 34))
	must(os.Chmod(filepath.Join(src, "sub/file"), 0o640|os.ModeSetuid))
	must(os.Link(filepath.Join(src, "sub/file"), filepath.Join(src, "link")))
	must(os.Symlink(secret, filepath.Join(src, "sym")))
	must(unix.Mknod(filepath.Join(src, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mkfifo(filepath.Join(src, "fifo"), 0o600))
	must(os.Chown(src, 77, 78))
	must(os.Chmod(src, 0o751))
	dir, err := os.Open(src)
	must(err)
	defer dir.Close()

	s := open(t, t.TempDir())
	v, _, err := s.Acquire(CreateOptions{Name: "filled"}, "c")
	must(err)
	must(s.Fill("filled", "c", dir))
	var st, link unix.Stat_t
	must(unix.Lstat(filepath.Join(v.Path, "sub/file"), &st))
	must(unix.Lstat(filepath.Join(v.Path, "link"), &link))
	if st.Uid != 12 || st.Gid != 34 || st.Mode&0o7777 != 0o4640 || st.Ino != link.Ino {
		t.Errorf(
			"file: uid %d gid %d mode %o; hard link kept: %v", st.Uid, st.Gid, st.Mode,
			st.Ino == link.Ino,
		)
	}
	must(unix.Lstat(v.Path, &st))
	if st.Uid != 77 || st.Mode&0o7777 != 0o751 {
		t.Errorf("top: uid %d mode %o", st.Uid, st.Mode)
	}
	if to, err := os.Readlink(filepath.Join(v.Path, "sym")); err != nil || to != secret {
		t.Errorf("symbolic link: %q %v", to, err)
	}
	must(unix.Lstat(filepath.Join(v.Path, "null"), &st))
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("device: mode %o number %x", st.Mode, st.Rdev)
	}
	// A volume that has something is left alone.
	must(os.Remove(filepath.Join(v.Path, "link")))
	must(s.Fill("filled", "c", dir))
	if _, err := os.Lstat(filepath.Join(v.Path, "link")); !os.IsNotExist(err) {
		t.Error("filled again")
	}
	// A volume that another container uses is filled in place, for that one may hold it mounted.
	v, _, err = s.Acquire(CreateOptions{Name: "shared"}, "other")
	must(err)
	var before unix.Stat_t
	must(unix.Lstat(v.Path, &before))
	_, err = s.Adopt("shared", "c")
	must(err)
	must(s.Fill("shared", "c", dir))
	must(unix.Lstat(v.Path, &st))
	if st.Ino != before.Ino {
		t.Error("the directory of a volume in use was replaced")
	}
	if _, err := os.Lstat(filepath.Join(v.Path, "sub/file")); err != nil {
		t.Error(err)
	}
}

// TestPending: what was made for a container that never came into being goes with the next process,
// everything else stays.
func TestPending(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	acquire := func(name, container string) {
		t.Helper()
		if _, _, err := s.Acquire(CreateOptions{Name: name}, container); err != nil {
			t.Fatal(err)
		}
	}
	acquire("lost", "never")
	acquire("kept", "done")
	if err := s.Confirm("kept", "done"); err != nil {
		t.Fatal(err)
	}
	acquire("adopted", "late") // its container was recorded, the volume not yet confirmed
	acquire("asked", "never")
	if _, made, err := s.Create(CreateOptions{Name: "asked"}); err != nil || made {
		t.Fatal(made, err)
	}
	acquire("shared", "never")
	acquire("shared", "other")
	if err := s.Confirm("shared", "other"); err != nil { // not the one that it was made for
		t.Fatal(err)
	}
	for range 2 {
		s = open(t, root)
		for volume, container := range map[string]string{"adopted": "late", "shared": "other"} {
			if _, err := s.Adopt(volume, container); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Settle(); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, v := range s.List() {
			names = append(names, v.Name)
		}
		if want := []string{"adopted", "asked", "kept", "shared"}; !reflect.DeepEqual(names, want) {
			t.Errorf("volumes %q, want %q", names, want)
		}
	}
	// Confirmed by now, they stay without their containers.
	s = open(t, root)
	if err := s.Settle(); err != nil || len(s.List()) != 4 {
		t.Errorf("%d volumes, %v; want 4", len(s.List()), err)
	}
}
