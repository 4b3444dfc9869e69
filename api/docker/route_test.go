package docker

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestSlashedName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, kind, name string
		ok               bool
	}{
		{"/containers/host/deep/name:v1/json", "container", "host/deep/name:v1", true},
		{"/containers/a/b", "container", "a/b", true},
		{"/networks/a/b", "network", "a/b", true},
		{"/volumes/a/b", "volume", "a/b", true},
		{"/containers/a/archive", "container", "a", false}, // an endpoint
		{"/containers/a", "container", "a", false},
		{"/images/a/b/json", "", "a/b", false},
		{"/containers", "container", "", false},
	} {
		kind, name, ok := slashedName(c.path)
		if kind != c.kind || name != c.name || ok != c.ok {
			t.Errorf(
				"%s: got %q, %q, %t; want %q, %q, %t", c.path, kind, name, ok, c.kind, c.name, c.ok,
			)
		}
	}
}

// TestUnknown: what is not served is 501 with its name, what cannot exist 404.
func TestUnknown(t *testing.T) {
	t.Parallel()
	h := Handler(Backend{})
	for _, c := range []struct {
		method, path string
		status       int
		text         string
	}{
		{
			"GET", "/v1.41/containers/a/archive", http.StatusNotImplemented,
			"GET /containers/a/archive",
		},
		{"POST", "/v1.41/build", http.StatusNotImplemented, "POST /build"},
		{"GET", "/v1.41/containers/a/b/json", http.StatusNotFound, "No such container: a/b"},
		{"GET", "/v1.41/plugins/a/json", http.StatusNotFound, `plugin \"a\" not found`},
		{"GET", "/v1.41/services/a", http.StatusServiceUnavailable, "not a swarm manager"},
		{"POST", "/v1.41/swarm/init", http.StatusNotImplemented, "no swarm mode"},
		{"POST", "/v1.41/swarm/leave", http.StatusServiceUnavailable, "not part of a swarm"},
		{"GET", "/nothing", http.StatusNotFound, "page not found"},
		{"GET", "/v1.999/version", http.StatusBadRequest, "too new"},
		{"GET", "/v1.1/version", http.StatusBadRequest, "too old"},
		{"GET", "/v1x/version", http.StatusBadRequest, "API version"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if body := w.Body.String(); w.Code != c.status || !strings.Contains(body, c.text) {
			t.Errorf(
				"%s %s: %d %s; want %d with %q", c.method, c.path, w.Code, body, c.status, c.text,
			)
		}
	}
}

func TestFilterMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"web", "/web", true}, {"we", "/web", true}, {"^/?w", "/web", true},
		{"^web$", "/web", true}, {"^/web$", "/web", true}, {"^eb", "/web", false},
		{"b$", "/web", true}, {"w.b", "/web", true}, {"web2", "/web", false}, {"(", "/web", false},
		{"a+b", "a+b", true},
	} {
		if got := (filters{"name": {c.want}}).match("name", c.got); got != c.ok {
			t.Errorf("%q on %q: got %t, want %t", c.want, c.got, got, c.ok)
		}
	}
	if !(filters{}).match("name", "/web") {
		t.Error("no filter lets nothing through")
	}
}

// TestContentType: a body of another type than JSON is refused; a request without a type is taken.
func TestContentType(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ kind, want string }{
		{"", ""},
		{"application/json", ""},
		{"application/json; charset=utf-8", ""},
		{"text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"},
		{"a/b/c", "malformed Content-Type header (a/b/c)"},
	} {
		for _, path := range []string{"/volumes/create", "/commit?container=exited"} {
			f := newFake(then)
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("{}"))
			r.Header.Set("Content-Type", tt.kind)
			w := httptest.NewRecorder()
			f.h.ServeHTTP(w, r)
			ok := w.Code == http.StatusCreated
			if ok != (tt.want == "") || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("%s with %q: %d %s", path, tt.kind, w.Code, w.Body)
			}
		}
	}
}
