package docker

import (
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

// newServer wires the groups of endpoints with what they need of the backend.
func newServer(b Backend, h host) *server {
	if b.Log == nil {
		b.Log = slog.New(slog.DiscardHandler)
	}
	if b.LogDriver == "" {
		b.LogDriver = "json-file"
	}
	own := ownContainers{b.Engine, ownerOf}
	images := &imageAPI{b.Images, b.Engine}
	transfers := &transferAPI{b.Images, own, b.Log}
	s := &server{
		log: b.Log, product: "strake/" + b.Version + " (" + runtime.GOOS + ")",
		routes: http.NewServeMux(),
		named:  append(images.named(), transfers.named()...),
	}
	s.register(
		(&systemAPI{
			engine: own, images: b.Images, version: b.Version, gitCommit: b.GitCommit,
			name: b.Name, root: b.Root, logDriver: b.LogDriver, insecure: b.Insecure, host: h,
		}).routes(),
		(&eventAPI{own}).routes(),
		(&usageAPI{own, b.Images, b.Volumes}).routes(),
		(&createAPI{own, b.Images, h}).routes(),
		(&lifecycleAPI{own, h}).routes(),
		(&viewAPI{own, b.Images, b.Log, b.LogDriver}).routes(),
		(&attachAPI{own}).routes(),
		(&execAPI{own}).routes(),
		images.routes(),
		transfers.routes(),
		(&commitAPI{b.Images, own}).routes(),
		buildAPI{}.routes(),
		(&networkAPI{b.Networks, b.Engine, own}).routes(),
		(&volumeAPI{b.Volumes, own}).routes(),
	)
	return s
}

// register adds the endpoints of groups.
func (s *server) register(groups ...map[string]handler) {
	for _, group := range groups {
		for pattern, h := range group {
			s.routes.HandleFunc(pattern, s.handle(h))
		}
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

// handle adapts a handler.
func (s *server) handle(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, &request{Request: r, version: versionOf(r.Context())}); err != nil {
			s.fail(w, err)
		}
	}
}

// fail writes an error. It does nothing if the answer has begun already (hijacked or streamed).
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
