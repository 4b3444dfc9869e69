package rootfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// fakeImages has images whose layers are given directories.
type fakeImages struct {
	lower  map[digest.Digest][]string
	unused []digest.Digest
}

func (f *fakeImages) Retain(id digest.Digest, hold func()) ([]string, error) {
	l, ok := f.lower[id]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	hold()
	return l, nil
}

func (f *fakeImages) Lower(id digest.Digest) ([]string, error) { return f.lower[id], nil }

func (f *fakeImages) Unused(id digest.Digest) error {
	f.unused = append(f.unused, id)
	return nil
}

// needRoot skips tests of directories that a user other than root cannot make.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: trusted.* attributes")
	}
	if err := unix.Setxattr(t.TempDir(), "trusted.strake", []byte("1"), 0); err != nil {
		t.Skipf("needs trusted.* attributes: %v", err)
	}
}

var layered, bare = digest.FromString("layered"), digest.FromString("bare")

func newImages(t *testing.T) *fakeImages {
	t.Helper()
	layer := t.TempDir()
	if err := os.Chmod(layer, 0o711); err != nil {
		t.Fatal(err)
	}
	return &fakeImages{lower: map[digest.Digest][]string{layered: {layer}, bare: nil}}
}

func open(t *testing.T, dir string, im Images, fault func(string)) *Table {
	t.Helper()
	if fault == nil {
		fault = func(string) {}
	}
	table, err := Open(dir, im, fault)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestKey(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ owner, name, want string }{
		{"", "c1", "c1"}, {"cri", "c1", "cri/c1"}, {"build-2", "A.b_c-d", "build-2/A.b_c-d"},
		{"", strings.Repeat("x", 128), strings.Repeat("x", 128)},
		{"", "", ""}, {"cri", "", ""}, {"", "a/b", ""}, {"", "..", ""}, {"", ".x", ""},
		{"", "a~b", ""}, {"", strings.Repeat("x", 129), ""}, {"CRI", "a", ""}, {"-a", "a", ""},
		{"a~", "a", ""}, {"..", "a", ""}, {"a/b", "c", ""}, {strings.Repeat("a", 33), "a", ""},
		{"", "a\n", ""},
	} {
		got, err := Key(tc.owner, tc.name)
		if got != tc.want || (err == nil) != (tc.want != "") ||
			err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("Key(%q, %q): got %q, %v; want %q", tc.owner, tc.name, got, err, tc.want)
		}
		if err != nil {
			continue
		}
		if owner, name, err := SplitKey(got); owner != tc.owner || name != tc.name || err != nil {
			t.Errorf("SplitKey(%q): %q, %q, %v", got, owner, name, err)
		}
		if e := element(got); strings.Contains(e, "/") {
			t.Errorf("%q on disk is %q, more than one path element", got, e)
		} else if back, err := keyOf(e); back != got || err != nil {
			t.Errorf("%q on disk is %q, read as %q, %v", got, e, back, err)
		}
	}
	for _, bad := range []string{"/a", "a/b/c", "A/b", "a/", ""} {
		if _, _, err := SplitKey(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("SplitKey(%q): %v", bad, err)
		}
	}
}

// TestOwners gives two owners and none the same name, across a reopen.
func TestOwners(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir, im := t.TempDir(), newImages(t)
	table := open(t, dir, im, nil)
	for _, key := range []string{"c1", "cri/c1", "build/c1", "cri/c2"} {
		r, err := table.Prepare(key, layered, Writable)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if st, err := os.Stat(r.Upper); err != nil || st.Mode().Perm() != 0o711 {
			t.Errorf("%s: the upper directory has not the root's mode: %v %v", key, st, err)
		}
		if err := os.WriteFile(filepath.Join(r.Upper, "who"), []byte(key), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := table.Prepare("cri/c1", layered, Writable); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second Prepare: %v", err)
	}
	table = open(t, dir, im, nil)
	for owner, want := range map[string][]string{
		"": {"c1"}, "cri": {"cri/c1", "cri/c2"}, "build": {"build/c1"}, "lxc": nil, "c1": nil,
	} {
		if got := slices.Sorted(maps.Keys(table.Keys(owner))); !slices.Equal(got, want) {
			t.Errorf("keys of %q: got %q, want %q", owner, got, want)
		}
	}
	if err := table.Release("cri/c1"); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"c1": true, "build/c1": true, "cri/c1": false} {
		r, err := table.Get(key)
		if (err == nil) != want || err != nil && !errdefs.IsNotFound(err) {
			t.Errorf("Get(%q) after the Release of cri/c1: %v", key, err)
		}
		if b, _ := os.ReadFile(filepath.Join(r.Upper, "who")); want && string(b) != key {
			t.Errorf("%s has the files of %q", key, b)
		}
	}
}

// TestOldKeys reads what the store wrote before keys had owners.
func TestOldKeys(t *testing.T) {
	t.Parallel()
	dir, im := t.TempDir(), newImages(t)
	text, err := linkText(bare)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"diff/old", "work/old", "image"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(text, filepath.Join(dir, "image/old")); err != nil {
		t.Fatal(err)
	}
	table := open(t, dir, im, nil)
	if keys := table.Keys(""); len(keys) != 1 || keys["old"] != bare || !table.Uses(bare) {
		t.Errorf("keys %v", keys)
	}
	r, err := table.Get("old")
	if want := filepath.Join(dir, "diff/old"); err != nil || r.Upper != want ||
		len(r.Lower) != 1 || filepath.Base(r.Lower[0]) != emptyName {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestUses says when an image has lost its last root file system.
func TestUses(t *testing.T) {
	t.Parallel()
	needRoot(t)
	im := newImages(t)
	table := open(t, t.TempDir(), im, nil)
	absent := digest.FromString("absent")
	if _, err := table.Prepare("x", absent, Writable); !errdefs.IsNotFound(err) {
		t.Errorf("absent image: %v", err)
	}
	r, err := table.Prepare("view", layered, ReadOnly)
	if err != nil || r.Upper != "" || r.Work != "" {
		t.Fatalf("view: %+v %v", r, err)
	}
	if u, err := table.Usage(t.Context(), "view"); err != nil || u != (Usage{}) {
		t.Errorf("usage of a view: %+v %v", u, err)
	}
	if err := table.Diff(t.Context(), "view", io.Discard); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("diff of a view: %v", err)
	}
	if _, err := table.Prepare("a/w", layered, Writable); err != nil {
		t.Fatal(err)
	}
	for i, key := range []string{"view", "a/w"} {
		if !table.Uses(layered) {
			t.Error("in use, and not known to be")
		}
		if err := table.Release(key); err != nil {
			t.Fatal(err)
		}
		if len(im.unused) != i {
			t.Errorf("after %d releases: unused %v", i+1, im.unused)
		}
	}
	if table.Uses(layered) || !slices.Equal(im.unused, []digest.Digest{layered}) {
		t.Errorf("unused %v", im.unused)
	}
	if err := table.Release("view"); !errdefs.IsNotFound(err) {
		t.Errorf("second Release: %v", err)
	}
}

// TestLayer looks at what was written into a writable layer.
func TestLayer(t *testing.T) {
	t.Parallel()
	needRoot(t)
	table := open(t, t.TempDir(), newImages(t), nil)
	r, err := table.Prepare("cri/c", layered, Writable)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Upper, "new"), []byte("123"), 0o644); err != nil {
		t.Fatal(err)
	}
	if ch, err := table.Changes(t.Context(), "cri/c"); err != nil || len(ch) != 1 ||
		ch[0].Path != "/new" {
		t.Errorf("changes %v %v", ch, err)
	}
	if u, err := table.Usage(t.Context(), "cri/c"); err != nil || u.Inodes != 2 || u.Bytes == 0 {
		t.Errorf("usage %+v %v", u, err)
	}
	var b bytes.Buffer
	if err := table.Diff(t.Context(), "cri/c", &b); err != nil ||
		!bytes.Contains(b.Bytes(), []byte("123")) {
		t.Errorf("diff: %v", err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := table.Usage(done, "cri/c"); !errors.Is(err, context.Canceled) {
		t.Errorf("usage without a context: %v", err)
	}
}

// TestCrash stops Prepare and Release at each of their steps, as a kill would, and opens the table
// again.
func TestCrash(t *testing.T) {
	t.Parallel()
	needRoot(t)
	steps := 0
	count := open(t, t.TempDir(), newImages(t), func(string) { steps++ })
	work := func(table *Table) error {
		if _, err := table.Prepare("cri/c", layered, Writable); err != nil {
			return err
		}
		return table.Release("cri/c")
	}
	if err := work(count); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= steps; at++ {
		dir, im, n, last := t.TempDir(), newImages(t), 0, ""
		table := open(t, dir, im, func(step string) {
			if n++; n == at {
				last = step
				panic(step)
			}
		})
		func() {
			defer func() { _ = recover() }()
			if err := work(table); err != nil {
				t.Error(err)
			}
		}()
		table = open(t, dir, im, nil)
		for key := range table.Keys("cri") {
			r, err := table.Get(key)
			if err == nil {
				_, err = os.Stat(r.Upper)
			}
			if err == nil {
				_, err = os.Stat(r.Work)
			}
			if err != nil {
				t.Errorf("after %q: half a root file system is left: %v", last, err)
			}
			if err := table.Release(key); err != nil {
				t.Errorf("after %q: %v", last, err)
			}
		}
		for _, kind := range []string{upperName, workName, imageName} {
			if names, err := os.ReadDir(filepath.Join(dir, kind)); err != nil || len(names) > 0 {
				t.Errorf("after %q: %s holds %v %v", last, kind, names, err)
			}
		}
	}
}
