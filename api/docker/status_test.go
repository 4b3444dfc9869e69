package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/engine"
)

// endpoints has a request for each endpoint, by its pattern, which the backend has to answer.
// Requests that begin with "-" do not fail whatever the backend does.
var endpoints = map[string]string{
	"GET /_ping": "-/_ping", "HEAD /_ping": "-/_ping", "GET /version": "-/version",
	"GET /info": "/info", "POST /auth": `/auth {"serveraddress":"registry.test"}`,
	"GET /events":    "-/events?until=1",
	"GET /system/df": "/system/df",

	"POST /containers/create":         `/containers/create {"Image":"one"}`,
	"GET /containers/json":            "/containers/json",
	"POST /containers/prune":          "/containers/prune",
	"DELETE /containers/{name}":       "/containers/running",
	"GET /containers/{name}/json":     "/containers/running/json",
	"GET /containers/{name}/top":      "/containers/running/top",
	"GET /containers/{name}/logs":     "/containers/running/logs?stdout=1",
	"GET /containers/{name}/changes":  "/containers/running/changes",
	"GET /containers/{name}/stats":    "/containers/running/stats?stream=0&one-shot=1",
	"POST /containers/{name}/start":   "/containers/created/start",
	"POST /containers/{name}/stop":    "/containers/running/stop",
	"POST /containers/{name}/restart": "/containers/running/restart",
	"POST /containers/{name}/kill":    "/containers/running/kill",
	"POST /containers/{name}/pause":   "/containers/running/pause",
	"POST /containers/{name}/unpause": "/containers/paused/unpause",
	"POST /containers/{name}/wait":    "/containers/running/wait",
	"POST /containers/{name}/resize":  "/containers/running/resize?h=1&w=1",
	"POST /containers/{name}/rename":  "/containers/running/rename?name=x",
	"POST /containers/{name}/update":  "/containers/running/update {}",
	"POST /containers/{name}/attach":  "/containers/running/attach?stream=1&stdout=1",
	"POST /containers/{name}/exec":    `/containers/running/exec {"Cmd":["x"]}`,
	"GET /exec/{id}/json":             "/exec/plain/json",
	"POST /exec/{id}/start":           `/exec/plain/start {"Detach":true}`,
	"POST /exec/{id}/resize":          "/exec/plain/resize?h=1&w=1",

	"GET /images/json":    "/images/json",
	"POST /images/prune":  "/images/prune",
	"GET /images/get":     "/images/get?names=one",
	"POST /images/load":   "-/images/load",
	"POST /images/create": "/images/create?fromImage=one&tag=1",

	"GET /distribution/{path...}": "/distribution/team/one:1/json",
	"POST /commit":                "/commit?container=exited",
	"POST /build/prune":           "-/build/prune",

	"GET /networks":                    "/networks",
	"GET /networks/{$}":                "/networks/",
	"GET /networks/{name}":             "/networks/net",
	"POST /networks/create":            `/networks/create {"Name":"x"}`,
	"POST /networks/prune":             "/networks/prune",
	"DELETE /networks/{name}":          "/networks/net",
	"POST /networks/{name}/connect":    `/networks/net/connect {"Container":"running"}`,
	"POST /networks/{name}/disconnect": `/networks/net/disconnect {"Container":"running"}`,

	"GET /volumes":           "-/volumes",
	"GET /volumes/{name}":    "/volumes/data",
	"POST /volumes/create":   "/volumes/create {}",
	"POST /volumes/prune":    "-/volumes/prune",
	"DELETE /volumes/{name}": "/volumes/spare",

	"GET /images/NAME/json":    "/images/one/json",
	"GET /images/NAME/history": "/images/one/history",
	"POST /images/NAME/tag":    "/images/one/tag?repo=x",
	"DELETE /images/NAME":      "/images/one",
	"GET /images/NAME/get":     "/images/one/get",
	"POST /images/NAME/push":   "/images/one/push?tag=1",
}

// patterns are those of all endpoints of a backend.
func patterns(b Backend) (list []string) {
	for _, g := range groups(b, testHost) {
		for pattern := range g.routes() {
			list = append(list, pattern)
		}
		if g, ok := g.(interface{ named() []namedRoute }); ok {
			for _, route := range g.named() {
				list = append(list, route.method+" /images/NAME"+route.suffix)
			}
		}
	}
	return list
}

// endpointRequest is the request that endpoints has for a pattern, in a version.
func endpointRequest(t *testing.T, pattern, v string) (r *http.Request, fails bool) {
	t.Helper()
	text, ok := endpoints[pattern]
	if !ok {
		t.Fatalf("endpoints has no request for %s", pattern)
	}
	path, steady := strings.CutPrefix(text, "-")
	path, body, _ := strings.Cut(path, " ")
	method, _, _ := strings.Cut(pattern, " ")
	return httptest.NewRequest(method, "/v"+v+path, strings.NewReader(body)), !steady
}

// TestEndpoints: endpoints has exactly the endpoints that there are.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	f := newFake(then)
	have := map[string]bool{}
	for _, p := range patterns(f.b) {
		have[p] = true
	}
	for p := range endpoints {
		if !have[p] {
			t.Errorf("there is no endpoint %s", p)
		}
	}
	for p := range have {
		if endpoints[p] == "" {
			t.Errorf("no request for endpoint %s", p)
		}
	}
}

// TestStatusOfClass: each class of error has one status, whichever endpoint and version is asked,
// and a JSON body with the text of the error.
func TestStatusOfClass(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		err    error
		status int
	}{
		{"not found", errdefs.ErrNotFound, 404},
		{"invalid argument", errdefs.ErrInvalidArgument, 400},
		{"out of range", errdefs.ErrOutOfRange, 400},
		{"conflict", errdefs.ErrConflict, 409},
		{"already exists", errdefs.ErrAlreadyExists, 409},
		{"failed precondition", errdefs.ErrFailedPrecondition, 409},
		{"unauthenticated", errdefs.ErrUnauthenticated, 401},
		{"permission denied", errdefs.ErrPermissionDenied, 403},
		{"not implemented", errdefs.ErrNotImplemented, 501},
		{"unavailable", errdefs.ErrUnavailable, 503},
		{"no class", errors.New("disk full"), 500},
		{"process not found", &engine.ExecError{Code: 127, Err: errors.New("x")}, 400},
		{"process not executable", &engine.ExecError{Code: 126, Err: errors.New("x")}, 400},
		{"process not started", &engine.ExecError{Code: 128, Err: errors.New("x")}, 500},
		{"process not prepared", &engine.ExecError{Code: 125, Err: errdefs.ErrConflict}, 409},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(then)
			f.failures["*"] = fmt.Errorf("from the backend: %w", c.err)
			for _, p := range patterns(f.b) {
				for _, v := range []string{"1.21", "1.40", "1.56"} {
					r, fails := endpointRequest(t, p, v)
					if !fails {
						continue
					}
					w := httptest.NewRecorder()
					f.h.ServeHTTP(w, r)
					want, words := c.status, "from the backend"
					if p == "POST /images/create" && want == 403 {
						want, words = 404, "pull access denied" // as dockerd has it
					}
					if w.Code != want {
						t.Errorf("%s, %s: %d, want %d: %s", p, v, w.Code, want, w.Body)
					}
					var body map[string]string
					err := json.Unmarshal(w.Body.Bytes(), &body)
					if err != nil || len(body) != 1 ||
						!strings.HasPrefix(body["message"], words) {
						t.Errorf("%s, %s: %v: %s", p, v, err, w.Body)
					}
					if kind := w.Header().Get("Content-Type"); kind != "application/json" {
						t.Errorf("%s, %s: content of type %q", p, v, kind)
					}
				}
			}
		})
	}
}

// TestNotModified has no body: RFC 9110, section 15.4.5.
func TestNotModified(t *testing.T) {
	t.Parallel()
	f := newFake(then)
	f.failures["*"] = errdefs.ErrNotModified
	for _, p := range patterns(f.b) {
		if r, fails := endpointRequest(t, p, "1.56"); fails {
			w := httptest.NewRecorder()
			f.h.ServeHTTP(w, r)
			if w.Code != http.StatusNotModified || w.Body.Len() != 0 {
				t.Errorf("%s: %d %q", p, w.Code, w.Body)
			}
		}
	}
}

// TestSuccess: each endpoint succeeds if its backend does, with the headers that every answer has.
// Attaching, which takes the connection over, is in stream_test.go.
func TestSuccess(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"1.21", "1.40", "1.56"} {
		f := newFake(then)
		for _, p := range patterns(f.b) {
			if p == "POST /containers/{name}/attach" {
				continue
			}
			r, _ := endpointRequest(t, p, v)
			w := httptest.NewRecorder()
			f.h.ServeHTTP(w, r)
			if w.Code < 200 || w.Code > 299 {
				t.Errorf("%s, %s: %d %s", p, v, w.Code, w.Body)
			}
			for name, want := range map[string]string{
				"Api-Version": MaxVersion, "Docker-Experimental": "false", "Ostype": "linux",
				"Server": "strake/1 (linux)",
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: header %s: %q, want %q", p, name, got, want)
				}
			}
		}
	}
}
