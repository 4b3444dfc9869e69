package registry

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// TestTagsAndLogin asks a registry that wants a password and answers in pages.
func TestTagsAndLogin(t *testing.T) {
	t.Parallel()
	pages := map[string]string{
		"": `{"name":"a/b","tags":["v1","v2"]}`, "v2": `{"name":"a/b","tags":["v3"]}`,
		"bad": `{"tags":["no tag"]}`,
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="tests"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		last := r.URL.Query().Get("last")
		switch {
		case r.URL.Path == "/v2/":
		case r.URL.Path == "/v2/a/bad/tags/list":
			fmt.Fprint(w, pages["bad"])
		case r.URL.Path == "/v2/a/endless/tags/list":
			w.Header().Set("Link", `</v2/a/endless/tags/list?last=v`+last+`>; rel="next"`)
			fmt.Fprintf(w, `{"tags":[%s"v"]}`, strings.Repeat(`"v",`, 30_000))
		case r.URL.Path != "/v2/a/b/tags/list":
			w.WriteHeader(http.StatusNotFound)
		default:
			if last == "" {
				// Only the query is followed: a registry does not send its client elsewhere.
				w.Header().Set(
					"Link", `<http://elsewhere.invalid/v2/a/b/tags/list?last=v2&n=2>; rel="next"`,
				)
			}
			fmt.Fprint(w, pages[last])
		}
	}))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	s := New(Config{}, 1)
	right, wrong := Auth{Username: "me", Password: "secret"}, Auth{
		Username: "me", Password: "other",
	}
	if err := s.Login(t.Context(), host, right); err != nil {
		t.Errorf("login: %v", err)
	}
	if err := s.Login(t.Context(), srv.URL+"/v1/", right); err != nil {
		t.Errorf("login by URL: %v", err)
	}
	if err := s.Login(t.Context(), host, wrong); !errdefs.IsUnauthorized(err) {
		t.Errorf("login with a wrong password: %v", err)
	}
	for _, server := range []string{"", "no host", "http://"} {
		if err := s.Login(t.Context(), server, right); !errdefs.IsInvalidArgument(err) {
			t.Errorf("login to %q: %v", server, err)
		}
	}
	got, err := s.Tags(t.Context(), host+"/a/b:ignored", &right)
	if want := []string{"v1", "v2", "v3"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("tags: got %q, %v; want %q", got, err, want)
	}
	for _, c := range []struct {
		name, repository string
		auth             *Auth
		class            func(error) bool
	}{
		{"absent", "a/absent", &right, errdefs.IsNotFound},
		{"no password", "a/b", nil, errdefs.IsPermissionDenied},
		{"wrong password", "a/b", &wrong, errdefs.IsPermissionDenied},
		{"not a tag", "a/bad", &right, errdefs.IsInvalidArgument},
		{"without end", "a/endless", &right, errdefs.IsResourceExhausted},
		{"no name", "A", &right, errdefs.IsInvalidArgument},
	} {
		if got, err := s.Tags(t.Context(), host+"/"+c.repository, c.auth); !c.class(err) {
			t.Errorf("%s: got %d tags, %v", c.name, len(got), err)
		}
	}
}

// TestSilence has a registry that takes requests and never answers.
func TestSilence(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	c := New(Config{StallTimeout: 10 * time.Millisecond}, 1)
	named, err := reference.ParseNormalizedNamed(host + "/a/b:1")
	if err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func() error{
		"login": func() error { return c.Login(t.Context(), host, Auth{}) },
		"tags":  func() error { _, err := c.Tags(t.Context(), host+"/a/b", nil); return err },
		"pull":  func() error { _, err := c.Pull(t.Context(), named, PullOptions{}); return err },
	} {
		var stalled errStalled
		if err := ask(); !errors.As(err, &stalled) || stalled.limit != 10*time.Millisecond {
			t.Errorf("%s: error %v, want one that says how long nothing came", name, err)
		}
	}
}
