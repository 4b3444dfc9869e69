package base

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/containerd/errdefs"

	"strake/internal/testneed"
)

func TestArchiveThatIsNotBuiltIn(t *testing.T) {
	t.Parallel()
	if _, err := Archive("none"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("Archive: got %v, want ErrNotFound", err)
	}
	if _, err := Mark("none"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("Mark: got %v, want ErrNotFound", err)
	}
}

// TestArchive compares what this package says of the archive with the archive, which another module
// makes.
func TestArchive(t *testing.T) {
	t.Parallel()
	raw, err := Archive(runtime.GOARCH)
	if errors.Is(err, errdefs.ErrNotFound) {
		testneed.Lack(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var manifest []struct{ RepoTags []string }
	var length uint32
	counted := io.TeeReader(z, counter{&length})
	for r := tar.NewReader(counted); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "manifest.json" {
			if err := json.NewDecoder(r).Decode(&manifest); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || len(manifest[0].RepoTags) != 1 || manifest[0].RepoTags[0] != Ref {
		t.Errorf("manifest %+v; want one image with the name %s", manifest, Ref)
	}
	// RFC 1952, 2.3.1: the length of what was compressed, modulo 2^32, ends the file.
	mark, err := Mark(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	want := hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, length))
	if len(mark) != 16 || mark[8:] != want {
		t.Errorf("mark %s; want a checksum and the length %s", mark, want)
	}
}

// counter counts the bytes that are written to it.
type counter struct{ n *uint32 }

func (c counter) Write(p []byte) (int, error) {
	*c.n += uint32(len(p))
	return len(p), nil
}

// TestEmbeddedNames: each embedded archive has a name that File returns.
func TestEmbeddedNames(t *testing.T) {
	t.Parallel()
	entries, err := files.ReadDir("embed")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "README.md", File("amd64"), File("arm64"):
		default:
			t.Errorf("%s is embedded; no architecture's archive has that name",
				filepath.Join("embed", e.Name()))
		}
	}
}
