// Package testregistry is a registry in memory for tests: the parts of the distribution
// specification that clients use, on loopback, with faults on demand. Push and pull of blobs and
// manifests, mounts, ranges, basic and token authentication. Not for: anything but tests; nothing
// is durable or collected. It is tested by the package that uses it.
package testregistry

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"

	digest "github.com/opencontainers/go-digest"
)

// Registry serves until Close. Fields are set before the first request.
type Registry struct {
	// User and Password protect everything when User is not empty: by basic authentication, or
	// through a token server when Token is set.
	User, Password string
	Token          string
	// Fault, when set, sees every request first and may answer it itself by returning true.
	Fault func(w http.ResponseWriter, r *http.Request) bool
	// BlobBody, when set, may change what a blob's GET returns.
	BlobBody func(d digest.Digest, b []byte) []byte

	srv *httptest.Server

	mu    sync.Mutex
	blobs map[string]map[digest.Digest][]byte // by repository; guarded by mu
	// manifests are by repository + ":" + tag or digest; guarded by mu
	manifests map[string]manifest
	requests  []string // guarded by mu
	ranges    []string // guarded by mu
	uploads   int      // guarded by mu
}

type manifest struct {
	mediaType string
	body      []byte
}

// New starts a registry.
func New() *Registry {
	g := &Registry{blobs: map[string]map[digest.Digest][]byte{}, manifests: map[string]manifest{}}
	g.srv = httptest.NewServer(g)
	return g
}

// Host is host:port.
func (g *Registry) Host() string { return strings.TrimPrefix(g.srv.URL, "http://") }

// Close ends the registry and waits for its requests.
func (g *Registry) Close() { g.srv.CloseClientConnections(); g.srv.Close() }

// AddBlob puts a blob into a repository.
func (g *Registry) AddBlob(repo string, b []byte) digest.Digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.addBlob(repo, b)
}

func (g *Registry) addBlob(repo string, b []byte) digest.Digest {
	d := digest.FromBytes(b)
	if g.blobs[repo] == nil {
		g.blobs[repo] = map[digest.Digest][]byte{}
	}
	g.blobs[repo][d] = b
	return d
}

// AddManifest puts a manifest into a repository, under its digest and, when not empty, a tag.
func (g *Registry) AddManifest(repo, tag, mediaType string, b []byte) digest.Digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.addManifest(repo, tag, mediaType, b)
}

func (g *Registry) addManifest(repo, tag, mediaType string, b []byte) digest.Digest {
	d := digest.FromBytes(b)
	m := manifest{mediaType, b}
	g.manifests[repo+":"+d.String()] = m
	if tag != "" {
		g.manifests[repo+":"+tag] = m
	}
	return d
}

// Manifest returns what a tag or digest names.
func (g *Registry) Manifest(repo, ref string) (mediaType string, b []byte, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.manifests[repo+":"+ref]
	return m.mediaType, m.body, ok
}

// Requests lists "METHOD path" of everything that was asked, in order.
func (g *Registry) Requests() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.requests...)
}

// Ranges lists the Range headers of blob requests.
func (g *Registry) Ranges() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.ranges...)
}

// Forget empties Requests and Ranges.
func (g *Registry) Forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests, g.ranges = nil, nil
}

var route = regexp.MustCompile(`^/v2/(.+)/(blobs|manifests|blobs/uploads)/([^/]*)$`)

// ServeHTTP implements http.Handler.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.requests = append(g.requests, r.Method+" "+r.URL.Path)
	g.mu.Unlock()
	if g.Fault != nil && g.Fault(w, r) {
		return
	}
	if r.URL.Path == "/token" {
		g.token(w, r)
		return
	}
	if !g.allowed(w, r) {
		return
	}
	if r.URL.Path == "/v2/" {
		return
	}
	m := route.FindStringSubmatch(r.URL.Path)
	if m == nil {
		fail(w, http.StatusNotFound, "NAME_UNKNOWN")
		return
	}
	repo, kind, ref := m[1], m[2], m[3]
	switch {
	case kind == "manifests":
		g.serveManifest(w, r, repo, ref)
	case kind == "blobs":
		g.serveBlob(w, r, repo, ref)
	default:
		g.upload(w, r, repo)
	}
}

func fail(w http.ResponseWriter, code int, what string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, what, strings.ToLower(what))
}

func (g *Registry) allowed(w http.ResponseWriter, r *http.Request) bool {
	if g.User == "" {
		return true
	}
	if g.Token != "" {
		if r.Header.Get("Authorization") == "Bearer "+g.Token {
			return true
		}
		w.Header().Set(
			"WWW-Authenticate",
			fmt.Sprintf(
				`Bearer realm="%s/token",service="test",scope="repository:x:pull,push"`, g.srv.URL,
			),
		)
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return false
	}
	if u, p, ok := r.BasicAuth(); ok && u == g.User && p == g.Password {
		return true
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
	return false
}

func (g *Registry) token(w http.ResponseWriter, r *http.Request) {
	u, p, _ := r.BasicAuth()
	if r.Method == http.MethodPost {
		u, p = r.PostFormValue("username"), r.PostFormValue("password")
	}
	if u != g.User || p != g.Password {
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return
	}
	json.NewEncoder(w).Encode(
		map[string]any{"token": g.Token, "access_token": g.Token, "expires_in": 300},
	)
}

func (g *Registry) serveManifest(w http.ResponseWriter, r *http.Request, repo, ref string) {
	if r.Method == http.MethodPut {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		d := digest.FromBytes(b)
		if strings.Contains(ref, ":") && ref != d.String() {
			fail(w, http.StatusBadRequest, "DIGEST_INVALID")
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if missing := g.missing(repo, b); missing != "" {
			fail(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN")
			return
		}
		g.addManifest(repo, ref, r.Header.Get("Content-Type"), b)
		w.Header().Set("Docker-Content-Digest", d.String())
		w.WriteHeader(http.StatusCreated)
		return
	}
	g.mu.Lock()
	m, ok := g.manifests[repo+":"+ref]
	g.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		return
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(m.body).String())
	w.Header().Set("Content-Length", fmt.Sprint(len(m.body)))
	if r.Method != http.MethodHead {
		w.Write(m.body)
	}
}

// missing names a blob or manifest that a manifest refers to and the repository lacks. Callers hold
// mu.
func (g *Registry) missing(repo string, b []byte) string {
	var m struct {
		Config    *struct{ Digest digest.Digest }
		Layers    []struct{ Digest digest.Digest }
		Manifests []struct{ Digest digest.Digest }
	}
	if json.Unmarshal(b, &m) != nil {
		return "manifest"
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, l := range m.Layers {
		if _, ok := g.blobs[repo][l.Digest]; !ok {
			return l.Digest.String()
		}
	}
	for _, c := range m.Manifests {
		if _, ok := g.manifests[repo+":"+c.Digest.String()]; !ok {
			return c.Digest.String()
		}
	}
	return ""
}

func (g *Registry) serveBlob(w http.ResponseWriter, r *http.Request, repo, ref string) {
	g.mu.Lock()
	b, ok := g.blobs[repo][digest.Digest(ref)]
	if rng := r.Header.Get("Range"); rng != "" {
		g.ranges = append(g.ranges, rng)
	}
	g.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	if g.BlobBody != nil {
		b = g.BlobBody(digest.Digest(ref), b)
	}
	w.Header().Set("Docker-Content-Digest", ref)
	start := 0
	if rng := r.Header.Get("Range"); rng != "" {
		if _, err := fmt.Sscanf(rng, "bytes=%d-", &start); err != nil || start > len(b) {
			fail(w, http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID")
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(b)-1, len(b)))
		w.Header().Set("Content-Length", fmt.Sprint(len(b)-start))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	}
	if r.Method != http.MethodHead {
		w.Write(b[start:])
	}
}

func (g *Registry) upload(w http.ResponseWriter, r *http.Request, repo string) {
	switch r.Method {
	case http.MethodPost:
		g.mu.Lock()
		defer g.mu.Unlock()
		q := r.URL.Query()
		if from, d := q.Get("from"), digest.Digest(q.Get("mount")); from != "" {
			if b, ok := g.blobs[from][d]; ok {
				g.addBlob(repo, b)
				w.Header().Set("Location", "/v2/"+repo+"/blobs/"+d.String())
				w.WriteHeader(http.StatusCreated)
				return
			}
		}
		g.uploads++
		w.Header().Set("Location", fmt.Sprintf("/v2/%s/blobs/uploads/%d", repo, g.uploads))
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPut:
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		want := digest.Digest(r.URL.Query().Get("digest"))
		if digest.FromBytes(b) != want {
			fail(w, http.StatusBadRequest, "DIGEST_INVALID")
			return
		}
		g.AddBlob(repo, b)
		w.Header().Set("Docker-Content-Digest", want.String())
		w.WriteHeader(http.StatusCreated)
	default:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
	}
}
