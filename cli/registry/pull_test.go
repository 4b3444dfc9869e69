package registry

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"strake/cli/api"
	"strake/cli/command"
)

func TestReference(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ ref, server, name, tag string }{
		{"alpine", "", "alpine", ""},
		{"alpine:3", "", "alpine", "3"},
		{"library/alpine:3", "", "library/alpine", "3"},
		{"r.example/a/b", "r.example", "r.example/a/b", ""},
		{"r.example:5000/a", "r.example:5000", "r.example:5000/a", ""},
		{"r.example:5000/a:1", "r.example:5000", "r.example:5000/a", "1"},
		{"localhost/a:1", "localhost", "localhost/a", "1"},
		{"LOCAL/a", "LOCAL", "LOCAL/a", ""},
		{"a@sha256:00", "", "a", "sha256:00"},
		{"r.example/a@sha256:00", "r.example", "r.example/a", "sha256:00"},
	} {
		if got := Server(c.ref); got != c.server {
			t.Errorf("Server(%q): got %q, want %q", c.ref, got, c.server)
		}
		if name, tag := Split(c.ref); name != c.name || tag != c.tag {
			t.Errorf("Split(%q): got %q, %q; want %q, %q", c.ref, name, tag, c.name, c.tag)
		}
	}
}

func TestHostname(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"r.example": "r.example", "https://r.example/v1/": "r.example",
		"http://r.example:5000": "r.example:5000", "": "",
	} {
		if got := Hostname(in); got != want {
			t.Errorf("Hostname(%q): got %q, want %q", in, got, want)
		}
	}
}

func TestIsDefault(t *testing.T) {
	t.Parallel()
	const index = "https://index.hub.example/v1/"
	for server, want := range map[string]bool{
		"": true, "index.hub.example": true, "hub.example": true, "r.example": false,
		"example": false,
	} {
		if got := isDefault(server, index); got != want {
			t.Errorf("isDefault(%q): got %v, want %v", server, got, want)
		}
	}
	if isDefault("", ":not an address") {
		t.Error("an index that is no address is the default")
	}
}

func TestPlatformJSON(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"linux/arm64":    `{"architecture":"arm64","os":"linux"}`,
		"linux/arm64/v8": `{"architecture":"arm64","os":"linux","variant":"v8"}`,
		"linux":          "", "": "", "a/b/c/d": "", "/amd64": "", "linux/": "",
	} {
		got, err := platformJSON(in)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("platformJSON(%q): got %s, %v; want %s", in, got, err, want)
		}
	}
}

// TestHeader sends the login for a reference, and asks the engine which registry is the default.
func TestHeader(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config, index, ref string
		want               api.AuthConfig
		asks               int
		fails              string
	}{
		"no login at all": {config: `{}`, index: "https://index.hub.example/v1/", ref: "alpine"},
		"the default registry": {
			config: `{"auths":{"https://index.hub.example/v1/":{"username":"a","password":"b"}}}`,
			index:  "https://index.hub.example/v1/", ref: "alpine", asks: 1,
			want: api.AuthConfig{
				Username: "a", Password: "b", ServerAddress: "https://index.hub.example/v1/",
			},
		},
		"another registry": {
			config: `{"auths":{"r.example":{"username":"a","password":"b"}}}`,
			index:  "https://index.hub.example/v1/", ref: "r.example/x", asks: 1,
			want: api.AuthConfig{Username: "a", Password: "b", ServerAddress: "r.example"},
		},
		"no login there": {
			config: `{"auths":{"r.example":{"username":"a","password":"b"}}}`,
			index:  "https://index.hub.example/v1/", ref: "alpine", asks: 1,
		},
		"no default registry": {
			config: `{"auths":{"r.example":{}}}`, ref: "alpine", asks: 1,
			fails: "no default registry",
		},
		"a broken file": {config: `{`, ref: "alpine", fails: "config.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			engine := httptest.NewServer(http.HandlerFunc(
				func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "/info") {
						asked++
					}
					json.NewEncoder(w).Encode(map[string]string{"IndexServerAddress": c.index})
				},
			))
			defer engine.Close()
			dir, env := directory(t, c.config)
			s := &command.Session{
				Env: command.Env{
					LookupEnv: func(string) (string, bool) { return "", false }, Environ: env,
				},
				Host: "tcp://" + engine.Listener.Addr().String(), ConfigDir: dir,
			}
			defer s.Close()
			header, err := Header(t.Context(), s, c.ref)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v, want an error with %q", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got api.AuthConfig
			if header != nil {
				raw, err := base64.URLEncoding.DecodeString(header["X-Registry-Auth"])
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(raw, &got); err != nil {
					t.Fatal(err)
				}
			}
			if got != c.want || asked != c.asks {
				t.Errorf(
					"got %+v after %d questions, want %+v after %d",
					got,
					asked,
					c.want,
					c.asks,
				)
			}
		})
	}
}
