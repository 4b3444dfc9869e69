package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strake/cli/api"
)

// TestMain lets the test binary be a credential helper, when it goes by the name of one.
func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), "docker-credential-"); ok {
		os.Exit(helper(name, os.Args[1], os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// helper is a credential helper (docker/docker-credential-helpers:credentials/credentials.go,
// Serve): the verb is its argument, the server or the login comes from standard input, and what
// went wrong goes to standard output. The one called file keeps logins below HELPER_DIR; each of
// the others does one thing wrong.
func helper(name, verb string, in io.Reader, out io.Writer) int {
	raw, err := io.ReadAll(in)
	if err != nil {
		return 1
	}
	fail := func(format string, args ...any) int {
		fmt.Fprintf(out, format+"\n", args...)
		return 1
	}
	type login struct{ ServerURL, Username, Secret string }
	file := func(server string) string {
		return filepath.Join(
			os.Getenv("HELPER_DIR"), base64.RawURLEncoding.EncodeToString([]byte(server)),
		)
	}
	switch name {
	case "locked":
		return fail("the keychain is locked")
	case "chatty":
		return fail("%s", strings.Repeat("x", 100_000))
	case "echo":
		return fail("cannot parse %s", raw)
	case "answers":
		return fail(`{"Username": "me", "Secret": "swordfish"}`)
	case "garbage":
		fmt.Fprint(out, `{"Username": "me", "Secret": swordfish`)
		return 0
	case "types":
		fmt.Fprint(out, `{"Username": "me", "Secret": 12345}`)
		return 0
	case "empty":
		fmt.Fprint(out, `{}`)
		return 0
	}
	switch verb {
	case "store":
		var l login
		if err := json.Unmarshal(raw, &l); err != nil {
			return fail("%v", err)
		}
		if err := os.WriteFile(file(l.ServerURL), raw, 0o600); err != nil {
			return fail("%v", err)
		}
	case "get":
		stored, err := os.ReadFile(file(string(raw)))
		if err != nil {
			return fail("credentials not found in native keychain")
		}
		out.Write(stored)
	case "erase":
		if os.Remove(file(string(raw))) != nil {
			return fail("credentials not found in native keychain")
		}
	case "list":
		entries, err := os.ReadDir(os.Getenv("HELPER_DIR"))
		if err != nil {
			return fail("%v", err)
		}
		list := map[string]string{}
		for _, e := range entries {
			server, _ := base64.RawURLEncoding.DecodeString(e.Name())
			list[string(server)] = ""
		}
		json.NewEncoder(out).Encode(list)
	default:
		return fail("unknown verb %q", verb)
	}
	return 0
}

// directory makes a directory with a config.json, and credential helpers of these names.
func directory(t *testing.T, config string, helpers ...string) (dir string, env []string) {
	t.Helper()
	dir = t.TempDir()
	if config != "" {
		path := filepath.Join(dir, "config.json")
		if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "kept"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range helpers {
		if err := os.Symlink(self, filepath.Join(dir, "bin", "docker-credential-"+h)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, []string{
		"PATH=" + filepath.Join(dir, "bin"), "HELPER_DIR=" + filepath.Join(dir, "kept"),
	}
}

func load(t *testing.T, dir string, env []string) *Config {
	t.Helper()
	c, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.Env = env
	return c
}

const secret = "swordfish"

// TestLogins keeps, reads and forgets logins in the file and with helpers.
func TestLogins(t *testing.T) {
	t.Parallel()
	const server = "registry.example:5000"
	for name, c := range map[string]struct {
		config string
		inFile bool // the secret is in config.json, not with a helper
		auth   api.AuthConfig
	}{
		"no file": {"", true, api.AuthConfig{Username: "me", Password: secret}},
		"in the file": {
			`{"auths": {}, "detachKeys": "ctrl-x"}`, true,
			api.AuthConfig{Username: "me", Password: secret + ":with colon"},
		},
		"a token in the file": {`{}`, true, api.AuthConfig{IdentityToken: secret}},
		"by a helper for all": {
			`{"credsStore": "file", "detachKeys": "ctrl-x"}`, false,
			api.AuthConfig{Username: "me", Password: secret},
		},
		"by a helper for the server": {
			`{"credsStore": "locked", "credHelpers": {"registry.example:5000": "file"}}`, false,
			api.AuthConfig{Username: "me", Password: secret},
		},
		"a token by a helper": {
			`{"credsStore": "file"}`, false, api.AuthConfig{IdentityToken: secret},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, env := directory(t, c.config, "file", "locked")
			path := filepath.Join(dir, "config.json")
			login := c.auth
			login.ServerAddress = server
			if got, err := load(t, dir, env).Get(t.Context(), server); err != nil ||
				got != (api.AuthConfig{}) {
				t.Errorf("before: %+v, %v; want no login", got, err)
			}
			if err := load(t, dir, env).Put(t.Context(), login); err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
			}
			encoded := base64.StdEncoding.EncodeToString([]byte("me:" + login.Password))
			text := string(raw)
			if inFile := strings.Contains(text, secret) ||
				login.Password != "" && strings.Contains(text, encoded); inFile != c.inFile {
				t.Errorf("the secret is in the file: %v, want %v\n%s", inFile, c.inFile, text)
			}
			if strings.Contains(c.config, "detachKeys") &&
				load(t, dir, env).DetachKeys() != "ctrl-x" {
				t.Errorf("the file lost what it held beside logins: %s", text)
			}
			if got, err := load(t, dir, env).Get(t.Context(), server); err != nil || got != login {
				t.Errorf("got %+v, %v; want %+v", got, err, login)
			}
			for _, want := range []bool{true, false} {
				if found, err := load(t, dir, env).Remove(t.Context(), server); err != nil ||
					found != want {
					t.Errorf("Remove: %v, %v; want %v", found, err, want)
				}
			}
			if got, err := load(t, dir, env).Get(t.Context(), server); err != nil ||
				got != (api.AuthConfig{}) {
				t.Errorf("after: %+v, %v; want no login", got, err)
			}
		})
	}
}

// TestHelperFails gives errors that say which helper failed and how, without the secret.
func TestHelperFails(t *testing.T) {
	t.Parallel()
	login := api.AuthConfig{ServerAddress: "r.example", Username: "me", Password: secret}
	get := func(ctx context.Context, c *Config) error {
		_, err := c.Get(ctx, "r.example")
		return err
	}
	put := func(ctx context.Context, c *Config) error { return c.Put(ctx, login) }
	remove := func(ctx context.Context, c *Config) error {
		_, err := c.Remove(ctx, "r.example")
		return err
	}
	for _, c := range []struct {
		helper string
		do     func(context.Context, *Config) error
		want   []string
	}{
		{"locked", get, []string{"docker-credential-locked get", "keychain is locked"}},
		{"locked", put, []string{"docker-credential-locked store", "keychain is locked"}},
		{"locked", remove, []string{"docker-credential-locked erase", "keychain is locked"}},
		{"absent", get, []string{"docker-credential-absent is not in PATH", "config.json"}},
		{"../bin/locked", get, []string{"want a name without slashes"}},
		{"chatty", get, []string{"docker-credential-chatty get", "xxx…"}},
		{"echo", put, []string{"docker-credential-echo store", "not shown"}},
		{"answers", get, []string{"docker-credential-answers get", "not shown"}},
		{"garbage", get, []string{`"garbage"`, "no object with Username and Secret"}},
		{"types", get, []string{`"types"`, "no object with Username and Secret"}},
		{"empty", get, []string{`"empty"`, "no object with Username and Secret"}},
	} {
		t.Run(c.helper, func(t *testing.T) {
			t.Parallel()
			dir, env := directory(
				t, fmt.Sprintf(`{"credsStore": %q}`, c.helper), "locked", "chatty", "echo",
				"answers", "garbage", "types", "empty",
			)
			err := c.do(t.Context(), load(t, dir, env))
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
			for _, s := range []string{secret, "12345"} {
				if strings.Contains(err.Error(), s) {
					t.Errorf("the error holds the secret: %v", err)
				}
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if raw, err := os.ReadFile(filepath.Join(dir, "config.json")); err != nil ||
				strings.Contains(string(raw), "auths") {
				t.Errorf("a login that failed was noted: %s, %v", raw, err)
			}
		})
	}
}

// TestShown: a secret that JSON writes in another way is found as well.
func TestShown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, secret, want string }{
		{"plain", "", "plain"},
		{"plain", "secret", "plain"},
		{`got {"a": "q\"\u003c"}`, `q"<`, "(its output is not shown: it holds a secret)"},
		{`got q"<`, `q"<`, "(its output is not shown: it holds a secret)"},
		{`{"Secret": "x"}`, "", "(its output is not shown: it holds a secret)"},
		{strings.Repeat("é", 200), "", strings.Repeat("é", 150) + "…"},
		{"a" + strings.Repeat("é", 200), "", "a" + strings.Repeat("é", 149) + "…"},
	} {
		if got := shown(c.text, c.secret); got != c.want {
			t.Errorf("shown(%q, %q): got %q, want %q", c.text, c.secret, got, c.want)
		}
	}
}

func TestHelperEndsWithTheContext(t *testing.T) {
	t.Parallel()
	dir, env := directory(t, `{"credsStore": "file"}`, "file")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := load(t, dir, env).Get(ctx, "r.example"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	auth := base64.StdEncoding.EncodeToString([]byte("me:" + secret))
	for name, c := range map[string]struct {
		config, server string
		want           api.AuthConfig
		fails          string // of Load
		getFails       string
	}{
		"empty file": {config: " \n", server: "r.example"},
		"another server": {
			config: `{"auths":{"r.example":{"auth":"` + auth + `"}}}`, server: "o.example",
		},
		"by the host in an address": {
			config: `{"auths":{"https://r.example/v1/":{"auth":"` + auth + `"}}}`,
			server: "r.example",
			want:   api.AuthConfig{Username: "me", Password: secret, ServerAddress: "r.example"},
		},
		"the exact name first": {
			config: `{"auths":{"https://r.example/v1/":{},"r.example":{"auth":"` + auth + `"}}}`,
			server: "r.example",
			want:   api.AuthConfig{Username: "me", Password: secret, ServerAddress: "r.example"},
		},
		"name and password apart": {
			config: `{"auths":{"r.example":{"username":"me","password":"` + secret + `"}}}`,
			server: "r.example",
			want:   api.AuthConfig{Username: "me", Password: secret, ServerAddress: "r.example"},
		},
		"auths that are null": {config: `{"auths":null}`, server: "r.example"},
		"no JSON":             {config: `{"auths"`, fails: "config.json: "},
		"auths of a wrong type": {
			config: `{"auths":{"r.example":"` + secret + `"}}`, fails: "config.json: auths: ",
		},
		"auth that is not base64": {
			config: `{"auths":{"r.example":{"auth":"` + secret + `!"}}}`, server: "r.example",
			getFails: "auths: r.example: auth is not the base64 form of user:password",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, env := directory(t, c.config)
			config, err := Load(dir)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) ||
					strings.Contains(err.Error(), secret) {
					t.Errorf("got %v, want an error with %q and no secret", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			config.Env = env
			got, err := config.Get(t.Context(), c.server)
			if c.getFails != "" {
				if err == nil || !strings.Contains(err.Error(), c.getFails) ||
					strings.Contains(err.Error(), secret) {
					t.Errorf("got %v, want an error with %q and no secret", err, c.getFails)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "absent")); err != nil {
		t.Errorf("a file that does not exist: %v", err)
	}
	broken := t.TempDir()
	if err := os.Mkdir(filepath.Join(broken, "config.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(broken); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that cannot be read: %v, want an error", err)
	}
}

// TestSaveFollowsALink: a config.json that is a link, as managers of such files make it, stays one.
func TestSaveFollowsALink(t *testing.T) {
	t.Parallel()
	dir, _ := directory(t, "")
	real := filepath.Join(dir, "real.json")
	if err := os.WriteFile(real, []byte(`{"a": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.json", filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	c := load(t, dir, nil)
	if err := c.Put(
		t.Context(), api.AuthConfig{ServerAddress: "r.example", Username: "a", Password: "b"},
	); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "config.json")); err != nil ||
		info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	raw, err := os.ReadFile(real)
	if err != nil || !strings.Contains(string(raw), "r.example") ||
		!strings.Contains(string(raw), `"a": 1`) {
		t.Errorf("%s, %v", raw, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".config-*")); len(left) != 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}
