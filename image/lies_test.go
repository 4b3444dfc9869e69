package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/layer"
)

// lie is something that a registry may tell.
type lie struct {
	name string
	tell func(l *liar)
	// want is what the error has to say.
	want string
	// missing says that something is not there, and that the error says so.
	missing bool
	// silent says that the registry is to be given up after a short silence.
	silent bool
	// partial says that the beginning of a blob stays, for the next pull to continue.
	partial bool
}

// TestLies pulls from registries that lie. Each pull ends soon, in bounded memory, in one error
// that names the image and says what is wrong, and leaves nothing behind.
func TestLies(t *testing.T) {
	lies := append(append(append(append(
		liesAboutBytes(t), liesAboutDocuments(t)...), liesAboutTime()...), liesOfServers()...),
		liesAboutLayers(t)...)
	if len(lies) < 40 {
		t.Errorf("%d lies, want 40", len(lies))
	}
	names := map[string]bool{}
	for _, tc := range lies {
		if names[tc.name] {
			t.Errorf("two lies are called %q", tc.name)
		}
		names[tc.name] = true
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), func(c *Config) {
				c.Registries.StallTimeout = 5 * time.Second
				if tc.silent {
					c.Registries.StallTimeout = 300 * time.Millisecond
				}
				c.Registries.RetryWait = time.Millisecond
				c.LayerLimits = layer.Limits{Bytes: 32 << 20, Entries: 10_000}
			})
			l := newLiar(t)
			tc.tell(l)
			err := l.pull(s)
			if err == nil {
				t.Fatal("the pull succeeded")
			}
			text := err.Error()
			if !strings.Contains(text, tc.want) || !strings.Contains(text, l.ref) ||
				strings.Contains(text, "\n") || len(text) > 1000 {
				t.Errorf("error %q, want one line with %q and %q", text, l.ref, tc.want)
			}
			if strings.Contains(text, "not found") != tc.missing {
				t.Errorf("error %q; something is missing: %v", text, tc.missing)
			}
			u, err := s.DiskUsage(context.Background())
			if err != nil || (u.PartialBytes > 0) != tc.partial {
				t.Errorf("unfinished blobs have %d bytes, %v", u.PartialBytes, err)
			}
			if _, err := s.Prune(context.Background()); err != nil {
				t.Error(err)
			}
			assertEmpty(t, s)
		})
	}
}

// TestTruths pulls from registries that are only peculiar.
func TestTruths(t *testing.T) {
	for name, tell := range map[string]func(l *liar){
		"plain":                       func(l *liar) {},
		"a token":                     func(l *liar) { l.token = true },
		"a media type with a charset": func(l *liar) { l.mediaType += "; charset=utf-8" },
		"a redirected layer":          func(l *liar) { l.onLayer = redirect("/blobs/elsewhere") },
		"bytes after the layer": func(l *liar) {
			l.onLayer = func(w http.ResponseWriter, r *http.Request) {
				w.Write(l.layer)
				endless("")(w, r)
			}
		},
		"no answer to HEAD": func(l *liar) {
			l.onTag = func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					w.WriteHeader(http.StatusMethodNotAllowed)
					return
				}
				sends(l.mediaType, l.raw)(w, r)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			l := newLiar(t)
			tell(l)
			if name == "a redirected layer" {
				n := 0
				l.onLayer = func(w http.ResponseWriter, r *http.Request) {
					if n++; n == 1 {
						redirect("/v2/lie/blobs/elsewhere")(w, r)
						return
					}
					sends("", l.layer)(w, r)
				}
			}
			if err := l.pull(s); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRedirectedCredentials sends a client with credentials to another host, which must not see
// them, although it is only another port.
func TestRedirectedCredentials(t *testing.T) {
	l := newLiar(t)
	l.token = true
	seen := make(chan string, 10)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("Authorization")
		sends("", l.layer)(w, r)
	}))
	t.Cleanup(other.Close)
	l.onLayer = redirect(other.URL)
	if err := l.pull(openStore(t, t.TempDir())); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "" {
		t.Errorf("the other host got %q", got)
	}
}

// liesAboutBytes are wrong digests, sizes and ends.
func liesAboutBytes(t *testing.T) []lie {
	wrong := func(b []byte) []byte {
		c := bytes.Clone(b)
		c[len(c)/2] ^= 1
		return c
	}
	header := func(value string) func(l *liar) {
		return func(l *liar) {
			l.onTag = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", l.mediaType)
				w.Header().Set("Docker-Content-Digest", value)
				w.Header().Set("Content-Length", fmt.Sprint(len(l.raw)))
			}
		}
	}
	return []lie{
		{name: "digest header of something else", tell: header(string(digest.FromString("x"))),
			want: "registry sent a document with digest"},
		{name: "digest header that is none", tell: header("sha256:xyz"),
			want: "not a valid digest"},
		{name: "digest header of an unknown algorithm",
			tell: header("md5:" + strings.Repeat("0", 32)),
			want: "not a valid digest"},
		{name: "another manifest for a digest", tell: func(l *liar) {
			l.ref = l.host() + "/lie@" + string(digest.FromString("x"))
		}, want: "registry sent a document with digest"},
		{name: "another manifest than was resolved", tell: func(l *liar) {
			l.onDigest = func(w http.ResponseWriter, r *http.Request) {
				sends(l.mediaType, wrong(l.raw))(w, r)
			}
		}, want: "registry sent a document with digest"},
		{name: "another configuration", tell: func(l *liar) {
			l.onConfig = sends("", wrong(l.config))
		}, want: "registry sent a document with digest"},
		{name: "short configuration", tell: func(l *liar) {
			l.onConfig = sends("", l.config[:10])
		}, want: "another number of bytes than"},
		{name: "long configuration", tell: func(l *liar) {
			l.onConfig = sends("", append(bytes.Clone(l.config), ' '))
		}, want: "more bytes than belong to"},
		{name: "size of the configuration is wrong", tell: func(l *liar) {
			l.edit(func(m *ocispec.Manifest) { m.Config.Size++ })
		}, want: "another number of bytes than"},
		{name: "endless configuration", tell: func(l *liar) { l.onConfig = endless("") },
			want: "more bytes than belong to"},
		{name: "another layer", tell: func(l *liar) { l.onLayer = sends("", wrong(l.layer)) },
			want: "unexpected commit digest"},
		{name: "short layer", tell: func(l *liar) { l.onLayer = sends("", l.layer[:1000]) },
			want: "fewer bytes of sha256:", partial: true},
		{name: "endless layer of something else", tell: func(l *liar) { l.onLayer = endless("") },
			want: "unexpected commit digest"},
		{name: "layer is cut", tell: func(l *liar) {
			l.onLayer = part(l.layer, 1000, func(http.ResponseWriter, *http.Request) {})
		}, want: "unexpected EOF", partial: true},
		{name: "layer larger than anything", tell: func(l *liar) {
			l.edit(func(m *ocispec.Manifest) { m.Layers[0].Size = 1 << 60 })
		}, want: "fewer bytes of sha256:", partial: true},
		{name: "empty layer with bytes", tell: func(l *liar) {
			l.edit(func(m *ocispec.Manifest) { m.Layers[0].Size = 0 })
		}, want: "unexpected commit digest"},
		{name: "configuration that inflates", tell: func(l *liar) {
			l.onConfig = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(bomb(t, 64<<20))
			}
		}, want: "more bytes than belong to"},
		{name: "unknown encoding", tell: func(l *liar) {
			l.onConfig = status(200, "Content-Encoding", "rot13")
		}, want: "unsupported Content-Encoding"},
		{name: "a part that was not asked for", tell: func(l *liar) {
			l.onLayer = func(w http.ResponseWriter, r *http.Request) {
				r.Header.Set("Range", "bytes=1000-")
				sends("", l.layer)(w, r)
			}
		}, want: "unexpected commit digest"},
		{name: "another part than was asked for", tell: func(l *liar) {
			first := true
			l.onLayer = func(w http.ResponseWriter, r *http.Request) {
				if first {
					first = false
					part(l.layer, 1000, func(http.ResponseWriter, *http.Request) {})(w, r)
					return
				}
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/*", len(l.layer)-1))
				w.Write(l.layer[5:])
			}
		}, want: "unhandled content range", partial: true},
	}
}

// bomb is a gzip stream of so many zeros.
func bomb(t *testing.T, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	for block := make([]byte, 1<<20); size > 0; size -= len(block) {
		w.Write(block)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// liesAboutDocuments are manifests, indexes and configurations that are something else.
func liesAboutDocuments(t *testing.T) []lie {
	as := func(mediaType, body string) func(l *liar) {
		return func(l *liar) { l.mediaType, l.raw = mediaType, []byte(body) }
	}
	const manifest, index = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex
	child := func(d digest.Digest, size int, arch, mediaType string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,`+
			`"platform":{"architecture":%q,"os":"linux"}}]}`, mediaType, d, size, arch)
	}
	arch := ocispec.Platform{}.Architecture
	if err := json.Unmarshal(configJSON(t, RunConfig{}), &struct {
		Architecture *string `json:"architecture"`
	}{&arch}); err != nil {
		t.Fatal(err)
	}
	config := func(body string) func(l *liar) {
		return func(l *liar) { l.configured([]byte(body)) }
	}
	return []lie{
		{name: "a page", tell: as("text/html", "<html>"), want: `media type "text/html"`},
		{name: "a page as a manifest", tell: as(manifest, "<html>"),
			want: "manifest: invalid character"},
		{name: "a page as an index", tell: as(index, "<html>"), want: "index: invalid character"},
		{name: "a deep manifest", tell: as(
			manifest, strings.Repeat(`{"config":`, 200_000),
		), want: "exceeded max depth"},
		{name: "a manifest that is an index too", tell: func(l *liar) {
			l.replace(`{"schemaVersion":2`, `{"manifests":[],"schemaVersion":2`)
		}, want: `field "manifests"`},
		{name: "schema 1", tell: as(manifest, `{"schemaVersion":1,"fsLayers":[]}`),
			want: "schema version 1"},
		{name: "an artifact", tell: func(l *liar) {
			l.edit(func(m *ocispec.Manifest) { m.Config.MediaType = "application/vnd.cake" })
		}, want: "no container image"},
		{name: "a manifest of 20 MB", tell: as(manifest, strings.Repeat(" ", 20<<20)),
			want: "manifest of 20971520 bytes"},
		{name: "a manifest of 20 MB that is announced as small", tell: func(l *liar) {
			honest := sends(l.mediaType, l.raw)
			l.onTag = func(w http.ResponseWriter, r *http.Request) { honest(w, r) }
			l.onDigest = endless(manifest)
		}, want: "more bytes than belong to"},
		{name: "an endless manifest", tell: func(l *liar) { l.onTag = endless(manifest) },
			want: "manifest of more than"},
		{name: "a manifest of 100,000 layers", tell: manyLayers(100_000), want: "manifest of "},
		{name: "a manifest of 20,000 layers", tell: manyLayers(20_000), want: "20000 layers"},
		{name: "a negative size", tell: func(l *liar) {
			l.edit(func(m *ocispec.Manifest) { m.Layers[0].Size = -1 })
		}, want: "has size -1"},
		{name: "a size beyond all numbers", tell: func(l *liar) {
			l.replace(`"size":`, `"size":1e30,"x":`)
		}, want: "manifest: json: cannot unmarshal number"},
		{name: "a digest of an unknown algorithm", tell: func(l *liar) {
			l.replace(string(l.manifest.Layers[0].Digest), "md4:"+strings.Repeat("0", 32))
		}, want: "unsupported digest algorithm"},
		{name: "an index of itself", tell: func(l *liar) {
			body := child(digest.FromString("x"), 300, arch, index)
			l.mediaType, l.raw = index, []byte(body+strings.Repeat(" ", 300-len(body)))
		}, want: "registry sent a document with digest"},
		{name: "an index of an index of an index", tell: func(l *liar) {
			docs := map[string][]byte{}
			body := []byte(child(digest.FromString("x"), 1, arch, index))
			for range 10 {
				d := digest.FromBytes(body)
				docs[d.String()] = body
				body = []byte(child(d, len(body), arch, index))
			}
			l.mediaType, l.raw = index, body
			docs[digest.FromBytes(body).String()] = body
			l.onDigest = func(w http.ResponseWriter, r *http.Request) {
				sends(index, docs[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]])(w, r)
			}
		}, want: "nest"},
		{name: "an index without this platform", tell: as(
			index, child(digest.FromString("x"), 1, "s390x", manifest),
		), want: "no matching manifest", missing: true},
		{name: "an index of what is not there", tell: func(l *liar) {
			l.mediaType = index
			l.raw = []byte(child(digest.FromString("x"), 300, arch, manifest))
			raw := l.raw
			l.onDigest = func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, string(digest.FromBytes(raw))) {
					sends(index, raw)(w, r)
					return
				}
				http.NotFound(w, r)
			}
		}, want: "does not have " + string(digest.FromString("x")), missing: true},
		{name: "a configuration that is a page", tell: config("<html>"), want: "invalid character"},
		{name: "a configuration without layers", tell: config(
			`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`,
		), want: "0 layers in its configuration and 1 in its manifest"},
		{name: "another operating system", tell: config(
			`{"architecture":"amd64","os":"windows","rootfs":{"type":"layers","diff_ids":[]}}`,
		), want: `operating system "windows"`},
		{name: "no manifest", tell: func(l *liar) { l.onTag = http.NotFound },
			want: "not found: manifest unknown", missing: true},
		{name: "no configuration", tell: func(l *liar) { l.onConfig = http.NotFound },
			want: "does not have sha256:", missing: true},
		{name: "no layer", tell: func(l *liar) { l.onLayer = http.NotFound },
			want: "does not have sha256:", missing: true},
		{name: "a layer that is elsewhere", tell: func(l *liar) {
			elsewhere := httptest.NewServer(http.HandlerFunc(
				func(w http.ResponseWriter, r *http.Request) { l.t.Error("elsewhere was asked") },
			))
			l.t.Cleanup(elsewhere.Close)
			l.edit(func(m *ocispec.Manifest) {
				m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
				m.Layers[0].URLs = []string{elsewhere.URL}
			})
			l.onLayer = http.NotFound
		}, want: "does not have sha256:", missing: true},
	}
}

// manyLayers is an image of so many layers, all the same.
func manyLayers(n int) func(l *liar) {
	return func(l *liar) {
		diff := plainDigest(l.t, l.layer)
		ids := strings.Repeat(fmt.Sprintf("%q,", diff), n)
		l.configured([]byte(fmt.Sprintf(
			`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%s]}}`,
			strings.TrimSuffix(ids, ","),
		)))
		l.edit(func(m *ocispec.Manifest) {
			one := m.Layers[0]
			for range n - 1 {
				m.Layers = append(m.Layers, one)
			}
		})
	}
}
