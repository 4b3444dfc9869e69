package docker

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"strake/engine"
)

// ownedBy is an API over a backend of which the owners of containers are given by their names; ""
// is the owner of the others.
func ownedBy(f *fakeBackend, owners map[string]string) http.Handler {
	s := newServer(f.b, testHost)
	s.routes, s.named = http.NewServeMux(), nil
	s.add(groups(f.b, testHost, func(c *engine.Info) string { return owners[c.Spec.Name] }))
	return http.HandlerFunc(s.serve)
}

// TestForeignContainers: what another front end created is neither listed nor found, whatever is
// asked of it, and nothing happens to it.
func TestForeignContainers(t *testing.T) {
	t.Parallel()
	f := newFake(then)
	h := ownedBy(f, map[string]string{"running": "cri", "created": "cri", "tty": owner})
	for _, p := range patterns(f.b) {
		if !strings.Contains(p, "/containers/{name}") && !strings.Contains(p, "connect") {
			continue
		}
		r, _ := endpointRequest(t, p, "1.56")
		// The requests name different containers; here all of them mean the foreign one.
		r.URL.Path = strings.Replace(r.URL.Path, "/paused/", "/running/", 1)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusNotFound ||
			!strings.Contains(w.Body.String(), "No such container") {
			t.Errorf("%s: %d %s", p, w.Code, w.Body)
		}
		if calls := f.taken(); len(calls) != 0 {
			t.Errorf("%s: calls %q", p, calls)
		}
	}
	w := get(t.Context(), h, "/v1.56/containers/json?all=1")
	for name, want := range map[string]bool{
		`"/running"`: false, `"/created"`: false, `"/tty"`: true, `"/exited"`: true,
	} {
		if got := strings.Contains(w.Body.String(), name); got != want {
			t.Errorf("list: %s is there: %t, want %t", name, got, want)
		}
	}
	for _, name := range []string{"tty", "exited"} {
		if w := get(t.Context(), h, "/v1.56/containers/"+name+"/json"); w.Code != 200 {
			t.Errorf("inspect %s: %d %s", name, w.Code, w.Body)
		}
	}
}

// TestForeignUses: an image or a network that only a foreign container uses is in use.
func TestForeignUses(t *testing.T) {
	t.Parallel()
	f := newFake(then)
	f.engine.list = f.engine.list[:1]
	h := ownedBy(f, map[string]string{"running": "cri"})
	for _, c := range []struct{ path, never string }{
		{"/v1.56/networks/prune", `networks.Remove "` + strings.Repeat("d", 64)},
		{`/v1.56/images/prune?filters=%7B"dangling":["false"]%7D`, `images.Remove "` + imageID},
	} {
		path := strings.ReplaceAll(c.path, `"`, "%22")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		calls := strings.Join(f.taken(), "\n")
		if w.Code != 200 || !strings.Contains(calls, ".Remove ") ||
			strings.Contains(calls, c.never) {
			t.Errorf("%s: %d %s\n%s", path, w.Code, w.Body, calls)
		}
	}
}
