package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// liar is a registry with one image, of which any answer may be another one.
type liar struct {
	t   *testing.T
	srv *httptest.Server
	// ref is what the image is pulled as.
	ref string

	// layer, config and manifest are what the honest answers are made of.
	layer, config []byte
	manifest      ocispec.Manifest
	raw           []byte // of the manifest
	mediaType     string

	// What answers the requests for each; nil for the honest answer.
	onTag, onDigest, onConfig, onLayer, onToken http.HandlerFunc
	// token makes the registry ask for one.
	token bool
	ended chan struct{} // closed when the pull has ended
}

// newLiar starts a registry that tells the truth.
func newLiar(t *testing.T) *liar {
	l := &liar{t: t, ended: make(chan struct{}), mediaType: ocispec.MediaTypeImageManifest}
	l.srv = httptest.NewServer(l)
	t.Cleanup(l.srv.Close)
	l.ref = l.host() + "/lie:1"
	l.holds(gzipped(t, tarOf(t, entry{name: "f", body: noise(64 << 10)})))
	return l
}

func (l *liar) host() string { return strings.TrimPrefix(l.srv.URL, "http://") }

// holds makes an image of one layer.
func (l *liar) holds(layer []byte) {
	l.t.Helper()
	l.layer = layer
	l.configured(configJSON(l.t, RunConfig{}, layer))
}

// holdsRaw makes an image of one layer of which the configuration has a digest that is chosen.
func (l *liar) holdsRaw(layer []byte, diff digest.Digest) {
	l.t.Helper()
	l.layer = layer
	l.configured([]byte(fmt.Sprintf(
		`{"architecture":%q,"os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`,
		runtime.GOARCH, diff,
	)))
}

// configured makes the manifest of the layer and a configuration.
func (l *liar) configured(config []byte) {
	l.t.Helper()
	l.config = config
	l.manifest = ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config),
			Size: int64(len(config)),
		},
		Layers: []ocispec.Descriptor{{
			MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(l.layer),
			Size: int64(len(l.layer)),
		}},
	}
	l.pack()
}

// pack encodes the manifest.
func (l *liar) pack() {
	l.t.Helper()
	raw, err := json.Marshal(l.manifest)
	if err != nil {
		l.t.Fatal(err)
	}
	l.raw = raw
}

// edit changes the manifest.
func (l *liar) edit(f func(m *ocispec.Manifest)) {
	f(&l.manifest)
	l.pack()
}

// replace changes the text of the manifest.
func (l *liar) replace(old, new string) {
	l.t.Helper()
	if !bytes.Contains(l.raw, []byte(old)) {
		l.t.Fatalf("the manifest %s has no %q", l.raw, old)
	}
	l.raw = bytes.ReplaceAll(l.raw, []byte(old), []byte(new))
}

// ServeHTTP implements http.Handler.
func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := l.onTag
	switch path := r.URL.Path; {
	case path == "/token":
		if answer = l.onToken; answer == nil {
			answer = sends("application/json", []byte(`{"token":"t","expires_in":300}`))
		}
	case l.token && r.Header.Get("Authorization") != "Bearer t":
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+l.srv.URL+`/token",service="s"`)
		http.Error(w, "", http.StatusUnauthorized)
		return
	case strings.HasSuffix(path, string(l.manifest.Config.Digest)):
		if answer = l.onConfig; answer == nil {
			answer = sends("", l.config)
		}
	case strings.Contains(path, "/blobs/"):
		if answer = l.onLayer; answer == nil {
			answer = sends("", l.layer)
		}
	case strings.Contains(path, "/manifests/sha"):
		if answer = l.onDigest; answer == nil {
			answer = sends(l.mediaType, l.raw)
		}
	case answer == nil:
		answer = sends(l.mediaType, l.raw)
	}
	answer(w, r)
}

// sends answers with a body, or a part of it if one is asked for.
func sends(mediaType string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if mediaType == "" {
			mediaType = "application/octet-stream"
		} else {
			w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
		}
		w.Header().Set("Content-Type", mediaType)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}
}

// status answers with a status.
func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// redirect sends a client elsewhere.
func redirect(to string) http.HandlerFunc { return status(http.StatusFound, "Location", to) }

// endless sends bytes, with a media type if it is not empty, until the client goes.
func endless(mediaType string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if mediaType != "" {
			w.Header().Set("Content-Type", mediaType)
		}
		for block := bytes.Repeat([]byte{' '}, 32<<10); ; {
			if _, err := w.Write(block); err != nil || r.Method == http.MethodHead {
				return
			}
		}
	}
}

// part sends the beginning of a body whose whole length it announces, and then does what follows.
func part(body []byte, n int, then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body[:n])
		w.(http.Flusher).Flush()
		then(w, r)
	}
}

// stall sends nothing until the client goes.
func (l *liar) stall(w http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-l.ended:
	}
}

// drip sends a byte now and then.
func (l *liar) drip(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			io.WriteString(w, " ")
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		case <-l.ended:
			return
		}
	}
}

// raw sends bytes that need not be HTTP, and closes the connection.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, text)
	}
}

// pull has a store pull the image and looks at what that costs.
func (l *liar) pull(s *Store) error {
	l.t.Helper()
	goroutines := runtime.NumGoroutine()
	var before, m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var peak atomic.Uint64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), m.HeapAlloc))
			case <-stop:
				return
			}
		}
	}()
	// Without an end of its own the pull would be cut off here, with another error.
	ctx, cancel := context.WithTimeout(l.t.Context(), 2*time.Minute)
	defer cancel()
	_, err := s.Pull(ctx, l.ref, PullOptions{})
	close(l.ended)
	close(stop)
	<-stopped
	if grown := int64(peak.Load()) - int64(before.HeapAlloc); grown > 96<<20 {
		l.t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	l.srv.CloseClientConnections()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines+2; {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			l.t.Errorf(
				"%d goroutines are left, there were %d\n%s", runtime.NumGoroutine(), goroutines,
				stacks[:runtime.Stack(stacks, true)],
			)
			break
		}
		runtime.Gosched()
	}
	return err
}
