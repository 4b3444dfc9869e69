package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/document"
)

// memory keeps blobs in memory.
type memory map[digest.Digest][]byte

func (m memory) Put(
	_ context.Context, r io.Reader, size int64, _ []byte,
) (ocispec.Descriptor, error) {
	b, err := io.ReadAll(io.LimitReader(r, size))
	if err == nil && int64(len(b)) < size {
		err = io.ErrUnexpectedEOF
	}
	d := ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
	m[d.Digest] = b
	return d, err
}

func (m memory) Open(
	_ context.Context, d ocispec.Descriptor, offset int64,
) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m[d.Digest][offset:])), nil
}

// plainImage is a Source of documents and layers in memory.
type plainImage struct {
	manifest document.Document
	config   []byte
	layers   [][]byte
}

func (p plainImage) Manifest(context.Context) (document.Document, error) { return p.manifest, nil }
func (p plainImage) Config(context.Context) ([]byte, error)              { return p.config, nil }

func (p plainImage) Layer(_ context.Context, i int, offset int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(p.layers[i][offset:])), nil
}

// newImage makes an image of layers, given plain and as they are stored.
func newImage(t testing.TB, arch string, plain, stored [][]byte) plainImage {
	t.Helper()
	c := document.Config{OS: "linux", Architecture: arch, RootFS: ocispec.RootFS{Type: "layers"}}
	var layers []ocispec.Descriptor
	for i, l := range plain {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
		kind, err := detect(bytes.NewReader(stored[i]))
		if err != nil {
			t.Fatal(err)
		}
		mediaType, err := layerMediaType(kind)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, ocispec.Descriptor{
			MediaType: mediaType, Digest: digest.FromBytes(stored[i]), Size: int64(len(stored[i])),
		})
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	m, err := document.NewManifest(raw, layers)
	if err != nil {
		t.Fatal(err)
	}
	return plainImage{manifest: m, config: raw, layers: stored}
}

func pack(t testing.TB, b []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := open(&out)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	return pack(t, b, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
}

func zstded(t testing.TB, b []byte) []byte {
	return pack(t, b, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
}

// tarFile is an entry of a tar: a regular file, or a link if it has one.
type tarFile struct {
	name, body, link string
}

func tarOf(t testing.TB, files ...tarFile) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Size: int64(len(f.body)), Mode: 0o644, Linkname: f.link}
		if f.link != "" {
			h.Typeflag = tar.TypeSymlink
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func namesIn(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := out[h.Name]; twice {
			t.Errorf("%s is in the archive twice", h.Name)
		}
		out[h.Name] = string(b)
	}
}

var readOptions = ReadOptions{MaxFileBytes: 1 << 20}

// TestRoundTrip writes images and reads them again, by their original manifests and, as docker
// before OCI layouts, by manifest.json alone.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	shared := []byte("a layer of both " + strings.Repeat("x", smallFile))
	own, zst := []byte("own"), []byte("zstd")
	a := newImage(t, "amd64", [][]byte{shared, own}, [][]byte{shared, gzipped(t, own)})
	b := newImage(t, "amd64", [][]byte{shared, zst}, [][]byte{shared, zstded(t, zst)})
	entries := []Entry{
		{Source: a, Names: []string{"docker.io/library/a:1", "host.example/a:2"}}, {Source: b},
	}
	var out, again bytes.Buffer
	for _, w := range []io.Writer{&out, &again} {
		if err := Write(t.Context(), w, entries); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Error("equal images give different bytes")
	}
	files := namesIn(t, out.Bytes())
	if files[blobName(digest.FromString("zstd"))] != "zstd" {
		t.Error("a zstd layer is not there a second time, plain")
	}
	var old []tarFile
	for name, body := range files {
		if name != "index.json" && name != "oci-layout" {
			old = append(old, tarFile{name: name, body: body})
		}
	}
	for form, archive := range map[string][]byte{
		"both": out.Bytes(), "packed": gzipped(t, out.Bytes()), "manifest.json": tarOf(t, old...),
	} {
		list, err := Read(t.Context(), bytes.NewReader(archive), memory{}, readOptions)
		if err != nil || len(list) != 2 {
			t.Fatalf("%s: %d images, %v", form, len(list), err)
		}
		refs, shown, err := list[0].Refs()
		if err != nil || strings.Join(refs, " ") != "docker.io/library/a:1 host.example/a:2" ||
			strings.Join(shown, " ") != "a:1 host.example/a:2" {
			t.Errorf("%s: names %q, %q, %v", form, refs, shown, err)
		}
		for i, want := range []plainImage{a, b} {
			checkImage(t, form, list[i], want, form != "manifest.json")
		}
	}
}

// checkImage compares an image with what was written: the same configuration, layers that unpack to
// the same, and, if it had it, the same manifest.
func checkImage(t *testing.T, form string, got *Image, want plainImage, original bool) {
	t.Helper()
	m, err := got.Manifest(t.Context())
	if err != nil || original && m.Descriptor.Digest != want.manifest.Descriptor.Digest {
		t.Errorf("%s: manifest %s, %v", form, m.Bytes, err)
	}
	config, err := got.Config(t.Context())
	if err != nil || !bytes.Equal(config, want.config) {
		t.Errorf("%s: configuration %s, %v", form, config, err)
	}
	parsed, err := document.ParseImage(m.Bytes)
	if err != nil || len(parsed.Layers) != len(want.layers) {
		t.Fatalf("%s: %d layers, %v", form, len(parsed.Layers), err)
	}
	for i, d := range parsed.Layers {
		for _, offset := range []int64{0, 2} {
			r, err := got.Layer(t.Context(), i, offset)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil || int64(len(b)) != d.Size-offset ||
				offset == 0 && digest.FromBytes(b) != d.Digest {
				t.Errorf("%s: layer %d from %d: %d bytes, %v", form, i, offset, len(b), err)
			}
			r.Close()
		}
	}
	if len(got.Index()) != 0 {
		t.Errorf("%s: index documents %v", form, got.Index())
	}
}

// TestLayout reads OCI layouts, whose images are found through indexes.
func TestLayout(t *testing.T) {
	t.Parallel()
	var files []tarFile
	add := func(mediaType string, b []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{
			MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b)),
		}
		files = append(files, tarFile{name: blobName(d.Digest), body: string(b)})
		return d
	}
	index := func(ms ...ocispec.Descriptor) []byte {
		b, err := json.Marshal(ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
			Manifests: ms,
		})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var ms []ocispec.Descriptor
	for _, arch := range []string{"s390x", "mips64le"} {
		im := newImage(t, arch, [][]byte{[]byte(arch)}, [][]byte{[]byte(arch)})
		add(ocispec.MediaTypeImageConfig, im.config)
		add(ocispec.MediaTypeImageLayer, im.layers[0])
		ms = append(ms, add(ocispec.MediaTypeImageManifest, im.manifest.Bytes))
	}
	absent := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"),
	}
	wrong := ms[0]
	wrong.Size = 1
	fat := add(ocispec.MediaTypeImageIndex, index(absent, ms[0], ms[1]))
	fat.Annotations = map[string]string{ocispec.AnnotationRefName: "host.example/fat:1"}
	for _, tc := range []struct {
		name, arch string
		top        []byte
		want       *ocispec.Descriptor
		docs       int
		text       string
	}{
		{"by platform", "mips64le", index(fat), &ms[1], 1, ""},
		{"the only one", "", index(ms[0]), &ms[0], 0, ""},
		{"wrong size", "", index(wrong), &ms[0], 0, ""},
		{"not this platform", "", index(fat), nil, 0, "no complete image for this platform"},
		{"another platform", "arm64", index(ms[0]), nil, 0, "no complete image for this platform"},
		{"incomplete", "", index(absent), nil, 0, "no complete image"},
		{"no JSON", "", []byte("{"), nil, 0, "index.json"},
	} {
		o := readOptions
		if tc.arch != "" {
			o.Platform = &ocispec.Platform{OS: "linux", Architecture: tc.arch}
		}
		archive := tarOf(t, append(files, tarFile{name: "index.json", body: string(tc.top)})...)
		list, err := Read(t.Context(), bytes.NewReader(archive), memory{}, o)
		if tc.text != "" {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%s: error %v, want %q", tc.name, err, tc.text)
			}
			continue
		}
		if err != nil || len(list) != 1 {
			t.Errorf("%s: %d images, %v", tc.name, len(list), err)
			continue
		}
		m, err := list[0].Manifest(t.Context())
		if err != nil || m.Descriptor.Digest != tc.want.Digest ||
			m.Descriptor.Size != tc.want.Size || len(list[0].Index()) != tc.docs {
			t.Errorf("%s: %+v %v", tc.name, m.Descriptor, err)
		}
		if refs, _, err := list[0].Refs(); tc.docs > 0 &&
			(err != nil || fmt.Sprint(refs) != "[host.example/fat:1]") {
			t.Errorf("%s: names %q %v", tc.name, refs, err)
		}
	}
}

// TestHostile reads archives that lead elsewhere, never end or are too large.
func TestHostile(t *testing.T) {
	t.Parallel()
	one := `[{"Config":"c","Layers":[]}]`
	list := func(body string) tarFile { return tarFile{name: "manifest.json", body: body} }
	for _, tc := range []struct {
		name    string
		archive []byte
		text    string
	}{
		{"empty", nil, "empty"},
		{"no tar", []byte(strings.Repeat("noise", 500)), "no tar archive"},
		{
			"link outside", tarOf(t, tarFile{name: "c", link: "/etc/passwd"}, list(one)),
			"does not hold",
		},
		{"link upwards", tarOf(t, tarFile{name: "c", link: "../../c"}, list(one)), "does not hold"},
		{"link to itself", tarOf(t, tarFile{name: "c", link: "c"}, list(one)), "does not hold"},
		{
			"path outside", tarOf(t, list(`[{"Config":"../../etc/passwd","Layers":[]}]`)),
			"does not hold",
		},
		{
			"large file", tarOf(t, tarFile{name: "c", body: strings.Repeat("x", 1<<20+1)}),
			"1048577 bytes, at most 1048576",
		},
		{"truncated", tarOf(t, list(one))[:520], "truncated"},
		{"old", tarOf(t, tarFile{name: "repositories", body: "{}"}), "before 1.10"},
		{"other", tarOf(t, tarFile{name: "x"}), "neither manifest.json nor index.json"},
	} {
		_, err := Read(t.Context(), bytes.NewReader(tc.archive), memory{}, readOptions)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.text)
		}
	}
	// Names and layers are looked at when the image is asked for them.
	bad := tarOf(
		t, tarFile{name: "c", body: "{}"}, tarFile{name: "l", body: "BZh9"},
		list(`[{"Config":"c","RepoTags":["BAD:1"],"Layers":["l"]}]`),
	)
	images, err := Read(t.Context(), bytes.NewReader(bad), memory{}, readOptions)
	if err != nil || len(images) != 1 {
		t.Fatalf("%d images, %v", len(images), err)
	}
	if _, _, err := images[0].Refs(); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad name: %v", err)
	}
	if _, err := images[0].Manifest(t.Context()); !errdefs.IsInvalidArgument(err) ||
		!strings.Contains(err.Error(), "no media type") {
		t.Errorf("layer packed with bzip2: %v", err)
	}
}

// FuzzRead reads any bytes: an error or images, never a panic and never a file of its name.
func FuzzRead(f *testing.F) {
	im := newImage(f, "amd64", [][]byte{[]byte("l")}, [][]byte{[]byte("l")})
	var b bytes.Buffer
	if err := Write(context.Background(), &b, []Entry{{Source: im}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(tarOf(f, tarFile{name: "c", link: "c"}, tarFile{name: "manifest.json", body: `[{}]`}))
	f.Fuzz(func(t *testing.T, archive []byte) {
		list, err := Read(t.Context(), bytes.NewReader(archive), memory{}, readOptions)
		if err != nil {
			return
		}
		for _, im := range list {
			if m, err := im.Manifest(t.Context()); err == nil {
				if _, err := document.ParseManifest(m.Bytes); err != nil {
					t.Errorf("manifest %s: %v", m.Bytes, err)
				}
			}
		}
	})
}
