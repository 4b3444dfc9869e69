package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/ulikunitz/xz"
)

func TestImportForms(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	plain := tarOf(t, entry{name: "f", body: "x"})
	pack := func(open func(io.Writer) (io.WriteCloser, error)) []byte {
		var b bytes.Buffer
		w, err := open(&b)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(plain)
		w.Close()
		return b.Bytes()
	}
	gz := pack(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
	s := openStore(t, t.TempDir())
	for _, tc := range []struct {
		name string
		data []byte
		bad  bool
	}{
		{"plain", plain, false},
		{"gzip", gz, false},
		{
			"zstd", pack(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
			false,
		},
		{"xz", pack(func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }), false},
		{"truncated gzip", gz[:len(gz)-12], true},
		{"truncated tar", plain[:512], true},
		{"noise", []byte(noise(5000)), true},
		{"escape", tarOf(t, entry{name: "../x", body: "x"}), true},
	} {
		id, err := s.Import(
			ctx, bytes.NewReader(tc.data),
			ImportOptions{
				Ref: "im:1", Message: "m",
				Config: RunConfig{ImageConfig: ocispec.ImageConfig{Cmd: []string{"c"}}},
			},
		)
		if tc.bad {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: error %v", tc.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		d, err := s.Inspect(ctx, "im:1")
		if err != nil || d.ID != id || d.Comment != "m" || d.Config.Cmd[0] != "c" ||
			!exists(t, d.Dirs[0], "f") || d.Size != 1 {
			t.Errorf("%s: %+v %v", tc.name, d, err)
		}
		if _, err := s.Remove(ctx, "im:1", RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
	assertEmpty(t, s)
	if _, err := s.Import(
		ctx, bytes.NewReader(plain), ImportOptions{Ref: "BAD"},
	); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad name: %v", err)
	}
}

func TestCommitHistoryChanges(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := openStore(t, t.TempDir())
	base := mustImport(t, s, "base:1", entry{name: "etc/"}, entry{name: "etc/a", body: "1"})
	r, err := s.Prepare(ctx, "c", base)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.Upper, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Upper, "etc/b"), []byte("22"), 0o644); err != nil {
		t.Fatal(err)
	}
	if ch, err := s.Changes(ctx, "c"); err != nil || fmt.Sprint(ch) != "[{/etc 0} {/etc/b 1}]" {
		t.Errorf("changes %v %v", ch, err)
	}
	if u, err := s.Usage(ctx, "c"); err != nil || u.Inodes != 3 || u.Bytes == 0 {
		t.Errorf("usage %+v %v", u, err)
	}
	id, err := s.Commit(
		ctx, "c",
		CommitOptions{
			Ref: "top:1", Author: "me", Comment: "why", CreatedBy: "sh", Created: time.Unix(1e9, 0),
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Inspect(ctx, "top:1")
	if err != nil || d.ID != id || d.Parent != base || len(d.Dirs) != 2 || d.Author != "me" ||
		d.Size != 3 || !exists(t, d.Dirs[1], "etc/b") {
		t.Errorf("committed %+v %v", d, err)
	}
	h, err := s.History(ctx, "top:1")
	if err != nil || len(h) != 2 || h[0].ID != id || h[0].Size != 2 || h[0].CreatedBy != "sh" ||
		h[1].ID != base || h[1].Size != 1 {
		t.Errorf("history %+v %v", h, err)
	}
	if _, err := s.Remove(
		ctx, base.String(), RemoveOptions{Force: true},
	); !errdefs.IsConflict(err) {
		t.Errorf("removal of a parent: %v", err)
	}
	if _, err := s.Remove(ctx, "base:1", RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if err := s.Release(ctx, "c"); err != nil {
		t.Error(err)
	}
	out, err := s.Remove(ctx, "top:1", RemoveOptions{Later: true})
	if err != nil || len(out) != 5 { // tag, two images, two layers
		t.Errorf("removed %v %v", out, err)
	}
	if !exists(t, d.Dirs[0]) {
		t.Error("Later did not leave the bytes")
	}
	if err := s.Collect(ctx); err != nil {
		t.Error(err)
	}
	assertEmpty(t, s)
}

func TestLoadFaults(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := openStore(t, t.TempDir())
	layer := tarOf(t, entry{name: "big", body: noise(200 << 10)})
	good := dockerArchive(t, RunConfig{}, []string{"x:1"}, layer)
	config := configJSON(t, RunConfig{}, layer)
	for _, tc := range []struct {
		name string
		data []byte
		text string
	}{
		{"empty", nil, "empty"},
		{"nothing in it", tarOf(t, entry{name: "x"}), "neither manifest.json nor index.json"},
		{"old form", tarOf(t, entry{name: "repositories", body: "{}"}), "docker before 1.10"},
		{"truncated", good[:len(good)/2], "truncated"},
		{
			"file outside",
			tarOf(
				t,
				entry{name: "manifest.json", body: `[{"Config":"../../etc/passwd","Layers":[]}]`},
			),
			"does not hold it",
		},
		{
			"link outside",
			tarOf(
				t, entry{name: "c", kind: '2', link: "/etc/passwd"},
				entry{name: "manifest.json", body: `[{"Config":"c","Layers":[]}]`},
			),
			"does not hold it",
		},
		{
			"link loop",
			tarOf(
				t, entry{name: "c", kind: '2', link: "c"},
				entry{name: "manifest.json", body: `[{"Config":"c","Layers":[]}]`},
			),
			"does not hold it",
		},
		{
			"wrong layer",
			tarOf(
				t, entry{name: "c", body: string(config)},
				entry{name: "l", body: string(tarOf(t, entry{name: "other"}))},
				entry{name: "manifest.json", body: `[{"Config":"c","Layers":["l"]}]`},
			),
			"its image says",
		},
		{
			"layers missing",
			tarOf(
				t, entry{name: "c", body: string(config)},
				entry{name: "manifest.json", body: `[{"Config":"c","Layers":[]}]`},
			),
			"1 layers in its configuration and 0",
		},
		{"bad tag", dockerArchive(t, RunConfig{}, []string{"BAD:1"}, layer), "BAD"},
		{"no JSON", tarOf(t, entry{name: "manifest.json", body: `{`}), "manifest.json"},
	} {
		_, err := s.Load(ctx, bytes.NewReader(tc.data), LoadOptions{})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: error %v", tc.name, err)
		}
		assertEmpty(t, s)
	}
	boom := errors.New("boom")
	if _, err := s.Load(
		ctx, io.MultiReader(bytes.NewReader(good[:1000]), errReader{boom}), LoadOptions{},
	); !errors.Is(err, boom) {
		t.Errorf("reader's error: %v", err)
	}
	assertEmpty(t, s)
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestLayersThatNeedTheirParents(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	base := tarOf(
		t, entry{name: "usr/lib/"}, entry{name: "usr/lib/a", body: "a"},
		entry{name: "lib", kind: '2', link: "usr/lib"}, entry{name: "drop/x", body: "x"},
	)
	mid := tarOf(t, entry{name: "mid", body: "m"})
	top := tarOf(
		t, entry{name: "lib/b", body: "b"}, entry{name: "hard", kind: '1', link: "usr/lib/a"},
		entry{name: ".wh.drop"}, entry{name: "usr/lib/.wh.none"},
	)
	l := mustLoad(t, s, dockerArchive(t, RunConfig{}, []string{"m:1"}, base, mid, top))
	d, err := s.Inspect(context.Background(), l[0].ID.String())
	if err != nil {
		t.Fatal(err)
	}
	if !exists(t, d.Dirs[2], "usr/lib/b") || exists(t, d.Dirs[2], "lib") {
		t.Error("a file below a parent's link is not behind it")
	}
	if b, err := os.ReadFile(filepath.Join(d.Dirs[2], "hard")); err != nil || string(b) != "a" {
		t.Errorf("hard link to a parent's file: %q %v", b, err)
	}
	if st, err := os.Lstat(filepath.Join(d.Dirs[2], "drop")); err != nil ||
		st.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("whiteout: %v %v", st, err)
	}
	// The same at the bottom, where no parent can help, is the archive's fault.
	bad := tarOf(t, entry{name: "h", kind: '1', link: "nowhere"})
	if _, err := s.Load(
		context.Background(), bytes.NewReader(dockerArchive(t, RunConfig{}, nil, bad)),
		LoadOptions{},
	); !errdefs.IsInvalidArgument(err) {
		t.Errorf("dangling hard link: %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		c    Config
		text string
	}{
		{Config{Root: "relative"}, "Root"},
		{Config{Root: "/x", MaxConcurrentUnpacks: -1}, "MaxConcurrentUnpacks"},
		{Config{Root: "/x", Registries: Registries{Mirrors: []string{"ftp://x"}}}, "Mirrors"},
		{Config{Root: "/x", Registries: Registries{Insecure: []string{"http://x"}}}, "Insecure"},
	} {
		if err := tc.c.Validate(); !errdefs.IsInvalidArgument(err) ||
			!strings.Contains(err.Error(), tc.text) {
			t.Errorf("%+v: %v", tc.c, err)
		}
	}
}

func BenchmarkPrepareRelease(b *testing.B) {
	s := openStore(b, b.TempDir())
	id := mustImport(b, s, "x:1", entry{name: "./"}, entry{name: "f", body: "x"})
	ctx := context.Background()
	for b.Loop() {
		if _, err := s.Prepare(ctx, "c", id); err != nil {
			b.Fatal(err)
		}
		if err := s.Release(ctx, "c"); err != nil {
			b.Fatal(err)
		}
	}
}
