package docker

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestImportURL: an import of an address has what its server sends; what that refuses has the status
// of the refusal.
func TestImportURL(t *testing.T) {
	t.Parallel()
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.EscapedPath()
		switch r.URL.Path {
		case "/data/a.tar":
			io.WriteString(w, "archive")
		case "/denied":
			w.WriteHeader(http.StatusForbidden)
		case "/broken":
			w.WriteHeader(http.StatusBadGateway)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	bare := strings.TrimPrefix(server.URL, "http://")
	for _, tt := range []struct {
		src, path, want string
		status          int
	}{
		{server.URL + "/data/a.tar", "/data/a.tar", `images.Import "archive"`, 200},
		{bare + "/data/a.tar", "/data/a.tar", `images.Import "archive"`, 200},
		{bare + "/%2Fnone.tar", "/%2Fnone.tar", "failed to GET", 404},
		{server.URL + "/none.tar", "/none.tar", "with status 404", 404},
		{bare + "/denied", "/denied", "with status 403", 403},
		{bare + "/broken", "/broken", "with status 502", 500},
		{"%2Fdata%2Fa.tar", "", "invalid URL escape", 400},
		{"ftp://" + bare, "", "want - or the URL of an archive", 400},
	} {
		asked = ""
		f := newFake(then)
		w := httptest.NewRecorder()
		f.h.ServeHTTP(w, httptest.NewRequest(
			http.MethodPost, "/images/create?repo=x&fromSrc="+url.QueryEscape(tt.src), nil,
		))
		got := strings.Join(append(f.taken(), w.Body.String()), "\n")
		if w.Code != tt.status || asked != tt.path || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %d, asked for %q: %s", tt.src, w.Code, asked, got)
		}
	}
}
