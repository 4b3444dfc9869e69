package docker

import (
	"cmp"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
)

// server finds the handler of a request. It has no state beside its routes.
type server struct {
	log     *slog.Logger
	product string // what the header Server says
	routes  *http.ServeMux
	named   []namedRoute
}

// handler answers one request. An error becomes a JSON message with the status of its class.
type handler func(w http.ResponseWriter, r *request) error

// group is a set of endpoints that need the same parts of the backend.
type group interface {
	// routes are the handlers by the patterns of http.ServeMux.
	routes() map[string]handler
}

// newServer makes the routes of all groups.
func newServer(b Backend, h host) *server {
	if b.Log == nil {
		b.Log = slog.New(slog.DiscardHandler)
	}
	h.root = b.Root
	s := &server{
		log: b.Log, product: "strake/" + b.Version + " (" + runtime.GOOS + ")",
		routes: http.NewServeMux(),
	}
	s.add(groups(b, h))
	return s
}

// add makes the routes of groups.
func (s *server) add(list []group) {
	for _, g := range list {
		for pattern, h := range g.routes() {
			s.routes.HandleFunc(pattern, s.handle(h))
		}
		if g, ok := g.(interface{ named() []namedRoute }); ok {
			s.named = append(s.named, g.named()...)
		}
	}
}

// groups wires the groups of endpoints with what they need of the backend. An engine has the
// containers of one owner, so nothing here has to tell them apart.
func groups(b Backend, h host) []group {
	driver := cmp.Or(b.LogDriver, "json-file")
	return []group{
		&systemAPI{
			engine: b.Engine, images: b.Images, version: b.Version, gitCommit: b.GitCommit,
			name: b.Name, root: b.Root, logDriver: driver, insecure: b.Insecure, host: h,
		},
		&eventAPI{b.Engine},
		&usageAPI{b.Engine, b.Images, b.Volumes},
		&createAPI{b.Engine, b.Images, b.Builtin, h},
		&lifecycleAPI{b.Engine, h},
		&viewAPI{b.Engine, b.Images, b.Log, driver, h},
		&attachAPI{b.Engine},
		&execAPI{b.Engine},
		&imageAPI{b.Images, b.Engine},
		&transferAPI{b.Images, b.Engine, b.Builtin, b.Log},
		&commitAPI{b.Images, b.Engine},
		buildAPI{},
		&networkAPI{b.Networks, b.Engine},
		&volumeAPI{b.Volumes, b.Engine},
	}
}

// serve strips the version from the path, checks it, and hands over to the routes.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	v, path, err := splitVersion(r.URL.Path)
	if err != nil {
		s.fail(w, err)
		return
	}
	h := w.Header()
	h.Set("Api-Version", MaxVersion)
	h.Set("Docker-Experimental", "false")
	h.Set("Ostype", runtime.GOOS)
	h.Set("Server", s.product)
	r2 := r.Clone(contextWith(r.Context(), v))
	r2.URL.Path, r2.URL.RawPath = path, ""
	if handle, ok := s.imageRoute(r2.Method, path); ok {
		s.handle(handle)(w, r2)
		return
	}
	if _, pattern := s.routes.Handler(r2); pattern == "" {
		s.fail(w, unknown(r2.Method, path))
		return
	}
	s.routes.ServeHTTP(w, r2)
}

// handle makes an http.HandlerFunc of a handler.
func (s *server) handle(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, &request{Request: r, version: versionOf(r.Context())}); err != nil {
			s.fail(w, err)
		}
	}
}

// fail answers with an error, unless the handler has answered itself.
func (s *server) fail(w http.ResponseWriter, err error) {
	if errors.Is(err, errAnswered) {
		return
	}
	status := statusOf(err)
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	if status == http.StatusInternalServerError {
		s.log.Error("request failed", "error", err)
	}
	writeJSON(w, status, map[string]string{"message": sentence(err)})
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		http.Error(w, `{"message":"encode the answer"}`, http.StatusInternalServerError)
		return errAnswered
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(raw, '\n'))
	return nil
}
