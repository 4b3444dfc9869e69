// Package docker speaks the Docker Engine API (moby/moby/api, swagger.yaml) for an engine: it
// translates requests into calls on package engine and back, and does nothing else.
//
// Every version of the API from MinVersion to MaxVersion is answered in its own form, because old
// clients read fields that new ones dropped. An endpoint of the API that is not served answers 501
// and its name; it never pretends.
//
// Not for: deciding anything about containers, access control (the socket's mode is that), TLS.
//
// Tested by requests against a fake engine, with golden answers per version, and by the real docker
// clients in test/.
package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/image"
	"strake/volume"
)

// MinVersion and MaxVersion bound the versions of the API that are spoken. compose 1.29 pins 1.21
// for its oldest files and pays no attention to negotiation.
const (
	MinVersion = "1.21"
	MaxVersion = "1.56"
)

// Backend is what the API is served from. Engine and Images are required.
type Backend struct {
	Engine   Engine
	Images   *image.Store
	Networks Networks
	Volumes  *volume.Store
	Log      *slog.Logger
	// Version is the product's version, Name the host's.
	Version, GitCommit, Name string
	// Root is the engine's data root.
	Root string
	// LogDriver is the default one.
	LogDriver string
	Insecure  []string
}

// Engine is what the API wants of an engine; *engine.Engine has it.
type Engine interface {
	engine.Containers
	Events(engine.EventQuery) (past []engine.Event, live <-chan engine.Event, cancel func())
	PublishEvent(engine.Event)
}

// server carries the backend through the handlers. It has no state of its own.
type server struct {
	Backend
	routes *http.ServeMux
}

// handler answers one request. An error becomes a JSON message with the status of its class.
type handler func(w http.ResponseWriter, r *request) error

// request is an API request with its version.
type request struct {
	*http.Request
	version version
}

// form returns a query parameter.
func (r *request) form(name string) string { return r.URL.Query().Get(name) }

// flag returns a boolean query parameter as dockerd reads one: anything but these words is true.
func (r *request) flag(name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.form(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// flagOr is flag with a default for a parameter that is absent.
func (r *request) flagOr(name string, absent bool) bool {
	if !r.URL.Query().Has(name) {
		return absent
	}
	return r.flag(name)
}

// version is an API version, minor number only: the major one is 1.
type version int

func (v version) String() string { return "1." + strconv.Itoa(int(v)) }

func parseVersion(s string) (version, bool) {
	major, minor, ok := strings.Cut(s, ".")
	if !ok || major != "1" {
		return 0, false
	}
	n, err := strconv.Atoi(minor)
	return version(n), err == nil && n >= 0 && n < 1000
}

func mustVersion(s string) version {
	v, _ := parseVersion(s)
	return v
}

// Handler serves the API.
func Handler(b Backend) http.Handler {
	if b.Log == nil {
		b.Log = slog.New(slog.DiscardHandler)
	}
	s := &server{Backend: b, routes: http.NewServeMux()}
	s.register()
	return http.HandlerFunc(s.serve)
}

// serve strips the version from the path, checks it, and hands over to the routes.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	v := mustVersion(MaxVersion)
	path := r.URL.Path
	if rest, ok := strings.CutPrefix(path, "/v"); ok && len(rest) > 0 && rest[0] >= '0' &&
		rest[0] <= '9' {
		number, tail, _ := strings.Cut(rest, "/")
		asked, ok := parseVersion(number)
		switch {
		case !ok:
			s.fail(
				w,
				fmt.Errorf(
					"API version %q: want a number as 1.40: %w", number, errdefs.ErrInvalidArgument,
				),
			)
			return
		case asked > v:
			s.fail(
				w,
				plainError{
					errdefs.ErrInvalidArgument,
					fmt.Sprintf(
						"client version %s is too new. Maximum supported API version is %s", number,
						MaxVersion,
					),
				},
			)
			return
		case asked < mustVersion(MinVersion):
			s.fail(
				w,
				plainError{
					errdefs.ErrInvalidArgument,
					fmt.Sprintf(
						"client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version",
						number, MinVersion,
					),
				},
			)
			return
		}
		v = asked
		path = "/" + tail
	}
	h := w.Header()
	h.Set("Api-Version", MaxVersion)
	h.Set("Docker-Experimental", "false")
	h.Set("Ostype", runtime.GOOS)
	h.Set("Server", "strake/"+s.Version+" ("+runtime.GOOS+")")
	r2 := r.Clone(contextWith(r.Context(), v))
	r2.URL.Path, r2.URL.RawPath = path, ""
	if handle, ok := s.imageRoute(r2.Method, path); ok {
		s.handle(handle)(w, r2)
		return
	}
	if _, pattern := s.routes.Handler(r2); pattern == "" {
		s.unknown(w, r2)
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

// plainError has a class without showing it in its text: the text is what users and clients read.
type plainError struct {
	class error
	text  string
}

func (e plainError) Error() string { return e.text }
func (e plainError) Unwrap() error { return e.class }

func invalid(format string, args ...any) error {
	return plainError{errdefs.ErrInvalidArgument, fmt.Sprintf(format, args...)}
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
		s.Log.Error("request failed", "error", err)
	}
	writeJSON(w, status, map[string]string{"message": sentence(err)})
}

// errAnswered is returned by handlers that have told the client about their error themselves.
var errAnswered = errors.New("answered")

// statusOf derives the HTTP status from the class of an error.
func statusOf(err error) int {
	var exec *engine.ExecError
	switch {
	case errors.Is(err, errdefs.ErrNotModified):
		return http.StatusNotModified
	case errors.As(err, &exec) && exec.Code != 125 && exec.Code != 128:
		return http.StatusBadRequest
	case errors.Is(err, errdefs.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, errdefs.ErrInvalidArgument), errors.Is(err, errdefs.ErrOutOfRange):
		return http.StatusBadRequest
	case errors.Is(err, errdefs.ErrConflict), errors.Is(err, errdefs.ErrAlreadyExists),
		errors.Is(err, errdefs.ErrFailedPrecondition):
		return http.StatusConflict
	case errors.Is(err, errdefs.ErrUnauthenticated):
		return http.StatusUnauthorized
	case errors.Is(err, errdefs.ErrPermissionDenied):
		return http.StatusForbidden
	case errors.Is(err, errdefs.ErrNotImplemented):
		return http.StatusNotImplemented
	case errors.Is(err, errdefs.ErrUnavailable):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
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

// maxBody bounds JSON bodies; the largest ones are container configurations with long environments.
const maxBody = 8 << 20

// decode reads a JSON body. An empty one leaves v as it is.
func decode(r *request, v any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return invalid("invalid JSON: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return invalid("invalid JSON: unexpected content after the request")
	}
	return nil
}
