package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"strake/image/document"
	"strake/image/layer"
)

// needOverlay skips tests that cannot make overlay layers here.
func needOverlay(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: trusted.* attributes, chown and device nodes")
	}
	dir := t.TempDir()
	if err := unix.Setxattr(dir, "trusted.strake", []byte("1"), 0); err != nil {
		t.Skipf("needs trusted.* attributes on %s: %v", dir, err)
	}
}

func openStore(t testing.TB, root string, change ...func(*Config)) *Store {
	t.Helper()
	needOverlay(t)
	c := Config{Root: root}
	for _, f := range change {
		f(&c)
	}
	s, err := Open(c)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// entry is one tar entry in short.
type entry struct {
	name string
	body string
	kind byte // default TypeReg, or TypeDir for a trailing slash
	link string
	mode int64
	uid  int
	pax  map[string]string
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	b, err := tarBytes(entries...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// epoch is when everything that tests make was made.
var epoch = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)

func tarBytes(entries ...entry) ([]byte, error) {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{
			Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Uid: e.uid,
			Size: int64(len(e.body)), ModTime: time.Unix(1e9, 0), PAXRecords: e.pax,
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(e.name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := tw.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(tw, e.body); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// dockerItem is an element of manifest.json in an archive of docker save.
type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerArchive builds what docker save of the 20.10 era writes: one directory per layer, symbolic
// links for repeated layers.
func dockerArchive(t testing.TB, run RunConfig, tags []string, layers ...[]byte) []byte {
	t.Helper()
	config := configJSON(t, run, layers...)
	configName := digest.FromBytes(config).Encoded() + ".json"
	var entries []entry
	item := dockerItem{Config: configName, RepoTags: tags}
	seen := map[digest.Digest]string{}
	for i, l := range layers {
		name := fmt.Sprintf("%064d/layer.tar", i)
		if first, ok := seen[digest.FromBytes(l)]; ok {
			entries = append(entries, entry{name: name, kind: tar.TypeSymlink, link: "../" + first})
		} else {
			entries = append(entries, entry{name: name, body: string(l)})
			seen[digest.FromBytes(l)] = name
		}
		item.Layers = append(item.Layers, name)
	}
	list, err := json.Marshal([]dockerItem{item})
	if err != nil {
		t.Fatal(err)
	}
	entries = append(entries, entry{name: configName, body: string(config)}, entry{
		name: "manifest.json", body: string(list),
	},
		entry{name: "repositories", body: "{}"})
	return tarOf(t, entries...)
}

func configJSON(t testing.TB, run RunConfig, layers ...[]byte) []byte {
	t.Helper()
	created := epoch
	c := document.NewConfig(ocispec.Platform{}, created, run)
	for i, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, plainDigest(t, l))
		c.History = append(
			c.History, ocispec.History{Created: &created, CreatedBy: fmt.Sprintf("step %d", i)},
		)
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func plainDigest(t testing.TB, b []byte) digest.Digest {
	t.Helper()
	r, _, err := layer.Decompress(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d, err := digest.FromReader(r)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustLoad(t testing.TB, s *Store, archive []byte) []Loaded {
	t.Helper()
	l, err := s.Load(context.Background(), bytes.NewReader(archive), LoadOptions{})
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return l
}

func mustImport(t testing.TB, s *Store, ref string, entries ...entry) digest.Digest {
	t.Helper()
	id, err := s.Import(
		context.Background(), bytes.NewReader(tarOf(t, entries...)), ImportOptions{Ref: ref},
	)
	if err != nil {
		t.Fatalf("Import %q: %v", ref, err)
	}
	return id
}

// assertEmpty checks that nothing of any image is on disk any more.
func assertEmpty(t testing.TB, s *Store) {
	t.Helper()
	for _, dir := range []string{"layers/snapshots", "content/blobs/sha256"} {
		names, err := os.ReadDir(filepath.Join(s.cfg.Root, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, n := range names {
			t.Errorf("%s/%s was left behind", dir, n.Name())
		}
	}
	u, err := s.DiskUsage(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	u.PartialBytes = 0
	if u != (DiskUsage{}) {
		t.Errorf("disk usage is %+v, want nothing", u)
	}
}

func exists(t testing.TB, parts ...string) bool {
	t.Helper()
	_, err := os.Lstat(filepath.Join(parts...))
	return err == nil
}
