package lxc

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// made is a directory of a container in an lxcpath.
func made(t *testing.T, path, name string) *Container {
	t.Helper()
	c := &Container{path: &Path{dir: path}, name: name, dir: filepath.Join(path, name)}
	if err := os.MkdirAll(filepath.Join(c.dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDependents keeps LXC's records of who uses whose root file system.
func TestDependents(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	base, one, two := made(t, path, "base"), made(t, path, "one"), made(t, path, "two")
	record := filepath.Join(base.dir, dependentsFile)
	for range 2 {
		for _, c := range []*Container{one, two} {
			if err := depend(c, []owner{ownerOf(base)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	raw, err := os.ReadFile(record)
	if want := path + "\none\n" + path + "\ntwo\n"; err != nil || string(raw) != want {
		t.Errorf("%q, %v; want %q", raw, err, want)
	}
	if err := unused(base); !errdefs.IsFailedPrecondition(err) ||
		!strings.Contains(err.Error(), "one") {
		t.Errorf("two use it: %v", err)
	}

	// One is a copy that was killed: it is removed with its record when the other is gone.
	if err := os.WriteFile(
		filepath.Join(one.dir, partial), []byte(filepath.Join(one.dir, "rootfs")), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	if err := unused(base); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another still uses it: %v", err)
	}
	if _, err := os.Stat(one.dir); err != nil {
		t.Error("a copy was removed that may be under way")
	}
	if err := undepend(two); err != nil {
		t.Fatal(err)
	}
	if err := unused(base); err != nil {
		t.Errorf("only a killed copy uses it: %v", err)
	}
	for _, name := range []string{one.dir, record} {
		if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}

	// From before LXC 2 there is only a number.
	if err := os.WriteFile(record, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unused(base); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("one uses it: %v", err)
	}
	if err := undepend(two); err != nil {
		t.Fatal(err)
	}
	if err := unused(base); err != nil {
		t.Errorf("nobody uses it: %v", err)
	}
}

// TestSetHostname writes to a file in the tree only, whatever links the tree has.
func TestSetHostname(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	root := filepath.Join(dir, "root")
	if err := errors.Join(
		os.WriteFile(outside, []byte("host\n"), 0o644),
		os.MkdirAll(filepath.Join(root, "etc"), 0o755),
	); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{outside, "../../outside"} {
		name := filepath.Join(root, "etc/hostname")
		if err := os.Symlink(link, name); err != nil {
			t.Fatal(err)
		}
		if err := setHostname(root, "new"); err != nil {
			t.Error(err)
		}
		if got, _ := os.ReadFile(outside); string(got) != "host\n" {
			t.Fatalf("a link to %s: the host's file is %q", link, got)
		}
		os.Remove(name)
	}
	inside := filepath.Join(root, "etc/hostname")
	if err := os.WriteFile(inside, []byte("a-long-old-name\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := setHostname(root, "new"); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(inside); string(got) != "new\n" {
		t.Errorf("%q", got)
	}
}
