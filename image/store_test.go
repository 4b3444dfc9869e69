package image

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestImportPrepareRelease(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	ctx := context.Background()
	if st, err := os.Stat(s.cfg.Root); err != nil || st.Mode().Perm() != 0o710 {
		t.Errorf("the store's directory lets others in: %v %v", st.Mode(), err)
	}
	id := mustImport(
		t, s, "strake/base", entry{name: "etc/"}, entry{name: "etc/motd", body: "hello"},
		entry{name: "./", mode: 0o711, uid: 7},
	)
	im, err := s.Resolve(ctx, "strake/base")
	if err != nil || im.ID != id || im.RepoTags[0] != "strake/base:latest" ||
		im.Ref != "docker.io/strake/base:latest" {
		t.Fatalf("Resolve: %+v, %v", im, err)
	}
	r, err := s.Prepare(ctx, "c1", id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(r.Lower[0], "etc/motd"))
	if err != nil || string(b) != "hello" {
		t.Errorf("layer content %q, %v", b, err)
	}
	if st, err := os.Stat(r.Upper); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("upper directory has not the root's mode: %v %v", st, err)
	}
	if _, err := s.Prepare(ctx, "c1", id); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second Prepare: %v", err)
	}
	for _, bad := range []string{
		"", "../x", ".new-x", "A/b", "a/b/c", "/b", "a~b", strings.Repeat("x", 129),
	} {
		if _, err := s.Prepare(ctx, bad, id); !errdefs.IsInvalidArgument(err) {
			t.Errorf("Prepare %q: %v", bad, err)
		}
	}
	if got, err := s.Rootfs(ctx, "c1"); err != nil || got.Upper != r.Upper || len(got.Lower) != 1 {
		t.Errorf("Rootfs: %+v %v", got, err)
	}
	key, err := Key("cri", "c1")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := s.View(ctx, key, id); err != nil || v.Upper != "" || len(v.Lower) != 1 {
		t.Errorf("View: %+v %v", v, err)
	}
	if err := s.Diff(ctx, key, io.Discard); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("Diff of a view: %v", err)
	}
	if bare, own := s.RootfsKeys(""), s.RootfsKeys("cri"); len(bare) != 1 || bare["c1"] != id ||
		len(own) != 1 || own["cri/c1"] != id {
		t.Errorf("keys without owner %v, of cri %v", bare, own)
	}
	if err := s.Release(ctx, key); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(ctx, "c1"); !errdefs.IsNotFound(err) {
		t.Errorf("second Release: %v", err)
	}
	if exists(t, r.Upper) || exists(t, r.Work) {
		t.Error("directory survived Release")
	}
	if _, err := s.Remove(ctx, "strake/base", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	assertEmpty(t, s)
}

func TestLoadSaveRoundTrip(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := tarOf(
		t, entry{name: "a/"}, entry{name: "a/one", body: "1"},
		entry{name: "a/two", body: strings.Repeat("2", 1<<20)},
	)
	top := tarOf(t, entry{name: "a/"}, entry{name: "a/.wh.one"}, entry{name: "b", body: "b"})
	for _, tc := range []struct {
		name    string
		archive []byte
	}{
		{"plain layers", dockerArchive(t, RunConfig{}, []string{"x/y:1", "x/y:2"}, base, top)},
		{
			"packed layers",
			dockerArchive(
				t, RunConfig{}, []string{"x/y:1", "x/y:2"}, gzipped(t, base), gzipped(t, top),
			),
		},
		{
			"packed archive",
			gzipped(t, dockerArchive(t, RunConfig{}, []string{"x/y:1", "x/y:2"}, base, top)),
		},
		{
			"repeated layer",
			dockerArchive(t, RunConfig{}, []string{"x/y:1", "x/y:2"}, base, top, base),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			l := mustLoad(t, s, tc.archive)
			if len(l) != 1 || strings.Join(l[0].Refs, " ") != "x/y:1 x/y:2" {
				t.Fatalf("loaded %+v", l)
			}
			var out bytes.Buffer
			if err := s.Save(ctx, &out, []string{"x/y"}); err != nil {
				t.Fatal(err)
			}
			s2 := openStore(t, t.TempDir())
			l2 := mustLoad(t, s2, out.Bytes())
			if len(l2) != 1 || l2[0].ID != l[0].ID || len(l2[0].Refs) != 2 {
				t.Fatalf("loaded again %+v, want %s", l2, l[0].ID)
			}
			d1, err1 := s.Inspect(ctx, "x/y:1")
			d2, err2 := s2.Inspect(ctx, "x/y:2")
			if err1 != nil || err2 != nil || d1.Manifest.Digest != d2.Manifest.Digest ||
				d1.Size != d2.Size || d1.Size == 0 {
				t.Errorf("round trip changed the image: %v %v %+v %+v", err1, err2, d1, d2)
			}
			if !exists(t, d2.Dirs[0], "a/two") {
				t.Error("layer content is missing")
			}
			if _, err := s2.Remove(ctx, l[0].ID.String(), RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			assertEmpty(t, s2)
		})
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	ctx := context.Background()
	func() {
		needOverlay(t)
		s, err := Open(Config{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := Open(Config{Root: root}); !errdefs.IsUnavailable(err) {
			t.Errorf("second Open: %v", err)
		}
		id := mustImport(t, s, "kept:1", entry{name: "f", body: "x"})
		if _, err := s.Prepare(ctx, "c", id); err != nil {
			t.Fatal(err)
		}
		if out, err := s.Remove(ctx, "kept:1", RemoveOptions{Force: true}); err != nil ||
			len(out) < 2 {
			t.Fatalf("Remove: %v %v", out, err)
		}
	}()
	s := openStore(t, root)
	if l, _ := s.List(ctx, Filter{All: true}); len(l) != 0 {
		t.Errorf("a removed image is listed: %+v", l)
	}
	r, err := s.Rootfs(ctx, "c")
	if err != nil || !exists(t, r.Lower[0], "f") {
		t.Fatalf("container lost its image: %+v %v", r, err)
	}
	if err := s.Release(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	assertEmpty(t, s)
}
