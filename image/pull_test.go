package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/document"
	"strake/image/internal/testregistry"
)

// remoteImage is an image that a test put into a registry.
type remoteImage struct {
	ref      string
	id       digest.Digest
	manifest ocispec.Descriptor
	layers   []ocispec.Descriptor
}

// publish puts an image of gzip layers into a registry.
func publishTo(
	t testing.TB, g *testregistry.Registry, repo, tag string, layers ...[]byte,
) remoteImage {
	t.Helper()
	config := configJSON(
		t, RunConfig{ImageConfig: ocispec.ImageConfig{Cmd: []string{"sh"}}}, layers...,
	)
	p := remoteImage{ref: g.Host() + "/" + repo + ":" + tag, id: g.AddBlob(repo, config)}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
	}
	m.Config = ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageConfig, Digest: p.id, Size: int64(len(config)),
	}
	for _, l := range layers {
		mt := ocispec.MediaTypeImageLayerGzip
		if bytes.HasPrefix(l, []byte{0x28, 0xb5}) {
			mt = ocispec.MediaTypeImageLayerZstd
		}
		m.Layers = append(
			m.Layers,
			ocispec.Descriptor{MediaType: mt, Digest: g.AddBlob(repo, l), Size: int64(len(l))},
		)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	p.layers = m.Layers
	p.manifest = ocispec.Descriptor{
		MediaType: m.MediaType, Digest: g.AddManifest(repo, tag, m.MediaType, b),
		Size: int64(len(b)),
	}
	return p
}

func newRegistry(t testing.TB) *testregistry.Registry {
	t.Helper()
	g := testregistry.New()
	t.Cleanup(g.Close)
	return g
}

// noise is text that does not compress away.
func noise(n int) string {
	var b strings.Builder
	d := digest.FromString("noise")
	for b.Len() < n {
		d = digest.FromString(string(d))
		b.WriteString(d.Encoded())
	}
	return b.String()[:n]
}

func sampleLayers(t testing.TB) [][]byte {
	var zs bytes.Buffer
	w, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(tarOf(t, entry{name: "z", body: "zstd"}))
	w.Close()
	return [][]byte{
		gzipped(
			t,
			tarOf(
				t, entry{name: "etc/", mode: 0o750}, entry{name: "etc/a", body: noise(3 << 20)},
				entry{name: "lib", kind: '2', link: "etc"},
			),
		),
		gzipped(t, tarOf(t, entry{name: "etc/b", body: "b"})), // implies etc/
		// Reaches through the parent's link.
		gzipped(t, tarOf(t, entry{name: "lib/through", body: "link"})),
		zs.Bytes(),
	}
}

// errOf is the error of a call that has another result too.
func errOf[T any](_ T, err error) error { return err }

func TestPullPush(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	g := newRegistry(t)
	p := publishTo(t, g, "team/app", "1", sampleLayers(t)...)
	s := openStore(t, t.TempDir())
	var mu sync.Mutex
	var seen []string
	im, err := s.Pull(ctx, p.ref, PullOptions{Progress: func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, strings.TrimSpace(e.ID+" "+e.Status))
	}})
	if err != nil {
		t.Fatal(err)
	}
	if im.ID != p.id || !slices.Equal(im.RepoTags, []string{p.ref}) || !slices.Equal(
		im.RepoDigests, []string{g.Host() + "/team/app@" + p.manifest.Digest.String()},
	) {
		t.Errorf("pulled %+v", im)
	}
	for _, want := range []string{
		"1 Pulling from team/app", document.Short(p.layers[0].Digest) + " Pulling fs layer",
		document.Short(p.layers[0].Digest) + " Download complete",
		document.Short(p.layers[0].Digest) + " Pull complete",
		"Digest: " + p.manifest.Digest.String(),
		"Status: Downloaded newer image for " + p.ref,
	} {
		if !slices.Contains(seen, want) {
			t.Errorf("no event %q in %q", want, seen)
		}
	}
	d, err := s.Inspect(ctx, p.ref)
	if err != nil {
		t.Fatal(err)
	}
	// The second layer says nothing about etc/: it shows the first one's mode.
	if st, err := os.Stat(filepath.Join(d.Dirs[1], "etc")); err != nil ||
		st.Mode().Perm() != 0o750 {
		t.Errorf("implied directory: %v %v", st, err)
	}
	if !exists(t, d.Dirs[2], "etc/through") || exists(t, d.Dirs[2], "lib") {
		t.Error("a name through the parent's symbolic link did not land behind it")
	}
	// Again: nothing but the manifest is asked for.
	g.Forget()
	again := func() string {
		t.Helper()
		seen = nil
		if _, err := s.Pull(ctx, p.ref, PullOptions{Progress: func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, e.Status)
		}}); err != nil {
			t.Fatal(err)
		}
		return seen[len(seen)-1]
	}
	if got, want := again(), "Status: Image is up to date for "+p.ref; got != want {
		t.Errorf("pulled again: %q, want %q", got, want)
	}
	// The tag is new to an image that is here under another name only.
	for _, err := range []error{
		s.Tag(ctx, p.ref, "kept:1"), errOf(s.Remove(ctx, p.ref, RemoveOptions{})),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, want := again(), "Status: Downloaded newer image for "+p.ref; got != want {
		t.Errorf("pulled after the tag was removed: %q, want %q", got, want)
	}
	for _, r := range g.Requests() {
		if strings.Contains(r, "/blobs/") {
			t.Errorf("second pull asked for %s", r)
		}
	}
	// Elsewhere, byte for byte.
	other := newRegistry(t)
	to := other.Host() + "/copy:2"
	if err := s.Tag(ctx, p.ref, to); err != nil {
		t.Fatal(err)
	}
	out, err := s.Push(ctx, to, PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if out.Digest != p.manifest.Digest || out.Size != p.manifest.Size {
		t.Errorf("pushed %+v, pulled %+v", out, p.manifest)
	}
	if _, b, ok := other.Manifest("copy", "2"); !ok || digest.FromBytes(b) != p.manifest.Digest {
		t.Error("the registry has another manifest")
	}
	if im, err := s.Resolve(ctx, other.Host()+"/copy@"+out.Digest.String()); err != nil ||
		im.ID != p.id {
		t.Errorf("pushed digest does not resolve: %v", err)
	}
	if _, err := s.Remove(ctx, p.id.String(), RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	assertEmpty(t, s)
}

func TestPushOfMadeImage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	g := newRegistry(t)
	s := openStore(t, t.TempDir())
	ref := g.Host() + "/made:1"
	id := mustImport(t, s, ref, entry{name: "f", body: strings.Repeat("compressible ", 1<<16)})
	out, err := s.Push(ctx, ref, PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Push(ctx, g.Host()+"/none:1", PushOptions{}); !errdefs.IsNotFound(err) ||
		!strings.Contains(err.Error(), "does not exist locally") {
		t.Errorf("push of nothing: %v", err)
	}
	again, err := s.Push(ctx, ref, PushOptions{})
	if err != nil || again.Digest != out.Digest {
		t.Errorf("second push: %+v %v, first %+v", again, err, out)
	}
	if u, err := s.DiskUsage(ctx); err != nil || u.BlobBytes >= u.LayerBytes/2 {
		t.Errorf("the plain layer stayed beside the packed one: %+v %v", u, err)
	}
	s2 := openStore(t, t.TempDir())
	im, err := s2.Pull(ctx, ref, PullOptions{})
	if err != nil || im.ID != id {
		t.Fatalf("pulled %v %v, want %s", im.ID, err, id)
	}
	u, err := s2.DiskUsage(ctx)
	if err != nil || u.BlobBytes >= u.LayerBytes/2 {
		t.Errorf("layer was pushed uncompressed: %+v %v", u, err)
	}
}

func TestPullIndex(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	g := newRegistry(t)
	mine := publishTo(t, g, "multi", "amd", gzipped(t, tarOf(t, entry{name: "mine"})))
	x := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
	}
	d := mine.manifest
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: "riscv64"}
	gone := ocispec.Descriptor{
		MediaType: d.MediaType, Digest: digest.FromString("not here"), Size: 8,
		Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"},
	}
	x.Manifests = []ocispec.Descriptor{gone, d}
	b, _ := json.Marshal(x)
	target := g.AddManifest("multi", "1", x.MediaType, b)
	s := openStore(t, t.TempDir())
	if _, err := s.Pull(
		ctx, g.Host()+"/multi:1",
		PullOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "mips"}},
	); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "no matching manifest") {
		t.Errorf("platform that is not there: %v", err)
	}
	assertEmpty(t, s)
	im, err := s.Pull(ctx, g.Host()+"/multi:1", PullOptions{Platform: d.Platform})
	if err != nil || im.ID != mine.id {
		t.Fatalf("%+v %v", im, err)
	}
	if want := g.Host() + "/multi@" + target.String(); !slices.Equal(
		im.RepoDigests, []string{want},
	) {
		t.Errorf("digests %q, want %q", im.RepoDigests, want)
	}
	// The index is incomplete here, so a push sends the one manifest.
	to := g.Host() + "/sub:1"
	if err := s.Tag(ctx, im.RepoTags[0], to); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Push(ctx, to, PushOptions{}); err != nil ||
		out.Digest != mine.manifest.Digest {
		t.Errorf("push: %+v %v", out, err)
	}
}

func TestPullResumes(t *testing.T) {
	t.Parallel()
	g := newRegistry(t)
	body := gzipped(t, tarOf(t, entry{name: "f", body: noise(4 << 20)}))
	p := publishTo(t, g, "big", "1", body)
	blob := p.layers[0].Digest
	ctx, cancel := context.WithCancel(context.Background())
	var cut atomic.Bool
	cut.Store(true)
	g.Fault = func(w http.ResponseWriter, r *http.Request) bool {
		if !cut.Load() || r.Method != http.MethodGet ||
			!strings.HasSuffix(r.URL.Path, blob.String()) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		<-r.Context().Done() // hold the rest until the client gives up
		return true
	}
	root := t.TempDir()
	func() {
		needOverlay(t)
		s, err := Open(Config{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Pull(ctx, p.ref, PullOptions{Progress: func(e Event) {
			if e.Status == "Downloading" && e.Current >= 512<<10 {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("Pull: %v", err)
		}
		if u, err := s.DiskUsage(context.Background()); err != nil || u.PartialBytes == 0 {
			t.Errorf("nothing kept: %+v %v", u, err)
		}
	}()
	cut.Store(false)
	g.Forget()
	s := openStore(t, root) // the download survives the process
	if _, err := s.Pull(context.Background(), p.ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if r := g.Ranges(); len(r) != 1 || !strings.HasPrefix(r[0], "bytes=") ||
		strings.HasPrefix(r[0], "bytes=0-") {
		t.Errorf("ranges %q, want one that continues", r)
	}
}

func TestPullFaults(t *testing.T) {
	t.Parallel()
	layers := [][]byte{gzipped(t, tarOf(t, entry{name: "f", body: noise(1 << 20)}))}
	for _, tc := range []struct {
		name  string
		setup func(t *testing.T, g *testregistry.Registry, p *remoteImage) *Auth
		want  func(error) bool // nil: the pull succeeds
		text  string
	}{
		{"missing tag", func(t *testing.T, g *testregistry.Registry, p *remoteImage) *Auth {
			p.ref += "x"
			return nil
		}, errdefs.IsNotFound, "manifest unknown"},
		{"wrong bytes", func(t *testing.T, g *testregistry.Registry, p *remoteImage) *Auth {
			g.BlobBody = func(d digest.Digest, b []byte) []byte {
				if d == p.layers[0].Digest {
					b = append([]byte(nil), b...)
					b[len(b)/2] ^= 1
				}
				return b
			}
			return nil
		}, errdefs.IsFailedPrecondition, "unexpected commit digest"},
		{"server error once", func(t *testing.T, g *testregistry.Registry, p *remoteImage) *Auth {
			var n atomic.Int32
			g.Fault = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/blobs/") && n.Add(1) == 1 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return true
				}
				return false
			}
			return nil
		}, nil, ""},
		{"connection cut once", func(t *testing.T, g *testregistry.Registry, p *remoteImage) *Auth {
			var n atomic.Int32
			g.Fault = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, p.layers[0].Digest.String()) && n.Add(1) == 1 {
					w.Header().Set("Content-Length", fmt.Sprint(len(layers[0])))
					w.Write(layers[0][:1000])
					panic(http.ErrAbortHandler)
				}
				return false
			}
			return nil
		}, nil, ""},
		{"no credentials", func(t *testing.T, g *testregistry.Registry, p *remoteImage) *Auth {
			g.User, g.Password = "u", "p"
			return nil
		}, errdefs.IsPermissionDenied, "access denied"},
		{"basic", func(t *testing.T, g *testregistry.Registry, p *remoteImage) *Auth {
			g.User, g.Password = "u", "p"
			return &Auth{Username: "u", Password: "p"}
		}, nil, ""},
		{"token", func(t *testing.T, g *testregistry.Registry, p *remoteImage) *Auth {
			g.User, g.Password, g.Token = "u", "p", "secret"
			return &Auth{Username: "u", Password: "p"}
		}, nil, ""},
		{"registry token", func(t *testing.T, g *testregistry.Registry, p *remoteImage) *Auth {
			g.User, g.Token = "u", "secret"
			return &Auth{RegistryToken: "secret"}
		}, nil, ""},
		{"wrong password", func(t *testing.T, g *testregistry.Registry, p *remoteImage) *Auth {
			g.User, g.Password, g.Token = "u", "p", "secret"
			return &Auth{Username: "u", Password: "no"}
		}, errdefs.IsPermissionDenied, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g := newRegistry(t)
			p := publishTo(t, g, "r/x", "1", layers...)
			auth := tc.setup(t, g, &p)
			s := openStore(t, t.TempDir())
			_, err := s.Pull(context.Background(), p.ref, PullOptions{Auth: auth})
			if tc.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				if auth != nil {
					if _, err := s.Push(
						context.Background(), p.ref, PushOptions{Auth: auth},
					); err != nil {
						t.Errorf("push: %v", err)
					}
				}
				return
			}
			if !tc.want(err) || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("error %v", err)
			}
			assertEmpty(t, s)
		})
	}
}

func TestMirrorThroughHostsDirectory(t *testing.T) {
	t.Parallel()
	g := newRegistry(t)
	p := publishTo(t, g, "library/thing", "1", sampleLayers(t)...)
	dir := t.TempDir()
	write := filepath.Join(dir, "far.example")
	if err := os.Mkdir(write, 0o755); err != nil {
		t.Fatal(err)
	}
	toml := fmt.Sprintf(
		"server = \"http://127.0.0.1:1\"\n[host.\"http://%s\"]\n  capabilities = [\"pull\", "+
			"\"resolve\"]\n",
		g.Host(),
	)
	if err := os.WriteFile(filepath.Join(write, "hosts.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, t.TempDir(), func(c *Config) {
		c.Registries.HostsDirs = []string{dir}
		c.Registries.Mirrors = []string{"http://" + g.Host()}
	})
	for _, ref := range []string{"far.example/library/thing:1", "thing:1"} {
		im, err := s.Pull(context.Background(), ref, PullOptions{})
		if err != nil || im.ID != p.id {
			t.Errorf("pull %s through a mirror: %v", ref, err)
		}
	}
}

func TestParallelPullsShareLayers(t *testing.T) {
	t.Parallel()
	g := newRegistry(t)
	layers := sampleLayers(t)
	var refs []string
	for i := range 4 {
		own := gzipped(t, tarOf(t, entry{name: fmt.Sprint("own", i), body: fmt.Sprint(i)}))
		refs = append(refs, publishTo(t, g, "par", fmt.Sprint(i), append(layers[:3:3], own)...).ref)
	}
	s := openStore(t, t.TempDir())
	var wg sync.WaitGroup
	for _, ref := range refs {
		wg.Go(func() {
			if _, err := s.Pull(context.Background(), ref, PullOptions{}); err != nil {
				t.Errorf("%s: %v", ref, err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, r := range g.Requests() {
		if r == "GET /v2/par/blobs/"+digest.FromBytes(layers[0]).String() {
			n++
		}
	}
	if n != 1 {
		t.Errorf("shared layer was fetched %d times", n)
	}
	if u, err := s.DiskUsage(context.Background()); err != nil || u.Layers != 7 || u.Images != 4 {
		t.Errorf("usage %+v %v", u, err)
	}
}
