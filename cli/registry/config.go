// Package registry is a user's logins at registries, and the requests that need them: pull and
// push.
//
// Logins are kept where Docker's clients keep them: in config.json, or with the programs that it
// names (docker/docker-credential-helpers:README.md, "Development"); both can be used side by side.
// Everything else that the file holds stays in it. No error of this package contains a password or
// a token.
//
// Not for: speaking with registries, which the engine does.
//
// Tested with files and a small program in the place of a credential helper.
package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"strake/cli/api"
	"strake/cli/launch"
	"strake/internal/early"
)

// Config is config.json. Not safe for concurrent use.
type Config struct {
	path    string
	rest    map[string]json.RawMessage // everything, as it was read
	auths   map[string]entry
	store   string
	helpers map[string]string
	// Env is the environment of credential helpers. Its PATH is where they are looked for.
	Env []string
}

type entry struct {
	Auth          string `json:"auth,omitempty"` // base64 of user:password
	IdentityToken string `json:"identitytoken,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
}

// Load reads config.json in a directory. One that does not exist is empty.
func Load(dir string) (*Config, error) {
	c := &Config{
		path: filepath.Join(dir, "config.json"), rest: map[string]json.RawMessage{},
		auths: map[string]entry{},
	}
	raw, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read logins: %w", err)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(raw, &c.rest); err != nil {
		return nil, fmt.Errorf("%s: %w", c.path, err)
	}
	for key, to := range map[string]any{
		"auths": &c.auths, "credsStore": &c.store, "credHelpers": &c.helpers,
	} {
		if field, ok := c.rest[key]; ok {
			if err := json.Unmarshal(field, to); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", c.path, key, err)
			}
		}
	}
	if c.auths == nil {
		c.auths = map[string]entry{}
	}
	return c, nil
}

// Empty says whether there are no logins at all, so that the engine need not be asked which
// registry is meant.
func (c *Config) Empty() bool { return len(c.auths) == 0 && c.store == "" && len(c.helpers) == 0 }

// DetachKeys is what the file says about them, or "".
func (c *Config) DetachKeys() string {
	var keys string
	json.Unmarshal(c.rest["detachKeys"], &keys)
	return keys
}

// Get returns the login at a server. The zero value is no login.
func (c *Config) Get(ctx context.Context, server string) (api.AuthConfig, error) {
	auth := api.AuthConfig{ServerAddress: server}
	if helper := c.helper(server); helper != "" {
		out, err := c.run(ctx, helper, "get", server, "")
		if errors.Is(err, errNoCredentials) {
			return api.AuthConfig{}, nil
		}
		if err != nil {
			return auth, err
		}
		var got struct{ Username, Secret string }
		if json.Unmarshal(out, &got) != nil || got.Username == "" && got.Secret == "" {
			// The answer may hold a secret: it is not repeated, nor is an error about it.
			return auth, fmt.Errorf(
				"credential helper %q: its answer to get is no object with Username and Secret",
				helper,
			)
		}
		auth.Username, auth.Password = got.Username, got.Secret
		if got.Username == "<token>" {
			auth.Username, auth.Password, auth.IdentityToken = "", "", got.Secret
		}
		return auth, nil
	}
	e, ok := c.auths[server]
	for key, other := range c.auths {
		if !ok && Hostname(key) == Hostname(server) {
			e, ok = other, true
		}
	}
	if !ok {
		return api.AuthConfig{}, nil
	}
	auth.Username, auth.Password, auth.IdentityToken = e.Username, e.Password, e.IdentityToken
	if e.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(e.Auth)
		user, password, ok := strings.Cut(string(raw), ":")
		if err != nil || !ok {
			return auth, fmt.Errorf(
				"%s: auths: %s: auth is not the base64 form of user:password", c.path, server,
			)
		}
		auth.Username, auth.Password = user, strings.TrimRight(password, "\x00")
	}
	return auth, nil
}

// Put keeps a login.
func (c *Config) Put(ctx context.Context, auth api.AuthConfig) error {
	if helper := c.helper(auth.ServerAddress); helper != "" {
		user, secret := auth.Username, auth.Password
		if auth.IdentityToken != "" {
			user, secret = "<token>", auth.IdentityToken
		}
		raw, err := json.Marshal(
			map[string]string{"ServerURL": auth.ServerAddress, "Username": user, "Secret": secret},
		)
		if err != nil {
			return err
		}
		if _, err := c.run(ctx, helper, "store", string(raw), secret); err != nil {
			return err
		}
		c.auths[auth.ServerAddress] = entry{} // names the registry, without a secret
		return c.save()
	}
	e := entry{IdentityToken: auth.IdentityToken}
	if auth.IdentityToken == "" {
		e.Auth = base64.StdEncoding.EncodeToString([]byte(auth.Username + ":" + auth.Password))
	}
	c.auths[auth.ServerAddress] = e
	return c.save()
}

// Remove forgets the login at a server and says whether there was one.
func (c *Config) Remove(ctx context.Context, server string) (bool, error) {
	found := false
	if helper := c.helper(server); helper != "" {
		_, err := c.run(ctx, helper, "erase", server, "")
		if err != nil && !errors.Is(err, errNoCredentials) {
			return false, err
		}
		found = err == nil
	}
	for key := range c.auths {
		if key == server || Hostname(key) == Hostname(server) {
			delete(c.auths, key)
			found = true
		}
	}
	if !found {
		return false, nil
	}
	return true, c.save()
}

// Hostname is the host of a registry's address, without scheme and path.
func Hostname(server string) string {
	server = strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	host, _, _ := strings.Cut(server, "/")
	return host
}

// save replaces the file, or the one it is a link to.
func (c *Config) save() error {
	raw, err := json.Marshal(c.auths)
	if err != nil {
		return err
	}
	c.rest["auths"] = raw
	if raw, err = json.MarshalIndent(c.rest, "", "\t"); err != nil {
		return err
	}
	name := c.path
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("keep the login: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".config-*.json") // mode 0600
	if err != nil {
		return fmt.Errorf("keep the login: %w", err)
	}
	_, err = tmp.Write(append(raw, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("keep the login: %w", err)
	}
	return nil
}

func (c *Config) helper(server string) string {
	if h, ok := c.helpers[server]; ok {
		return h
	}
	if h, ok := c.helpers[Hostname(server)]; ok {
		return h
	}
	return c.store
}

// errNoCredentials is what helpers answer about a server for which they have no login.
var errNoCredentials = errors.New("credentials not found")

// run calls a credential helper. secret is what the input holds and no error may repeat.
func (c *Config) run(ctx context.Context, helper, verb, input, secret string) ([]byte, error) {
	name := "docker-credential-" + helper
	if strings.ContainsAny(helper, "/\x00") {
		return nil, fmt.Errorf(
			"%s: credential helper %q: want a name without slashes", c.path, helper,
		)
	}
	var path string
	for _, e := range c.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	program, err := launch.Find(name, "", path)
	if err != nil {
		return nil, fmt.Errorf("%s: credential helper %q: %w", c.path, helper, err)
	}
	defer early.Lock()()
	cmd := exec.CommandContext(ctx, program, verb)
	cmd.Env = c.Env
	cmd.Stdin = strings.NewReader(input)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	text := strings.TrimSpace(string(out) + complaint.String())
	if strings.Contains(text, errNoCredentials.Error()) {
		return nil, errNoCredentials
	}
	return nil, fmt.Errorf("credential helper %s %s: %w: %s", name, verb, err, shown(text, secret))
}

// complaintBytes is how much of what a failed helper wrote an error shows.
const complaintBytes = 300

// shown returns the part of a failed helper's output that an error may repeat. Helpers write the
// reason to standard output, where an answer with a secret would be as well.
func shown(text, secret string) string {
	raw, _ := json.Marshal(secret)
	encoded := strings.Trim(string(raw), `"`)
	if strings.Contains(text, `"Secret"`) || secret != "" &&
		(strings.Contains(text, secret) || strings.Contains(text, encoded)) {
		return "(its output is not shown: it holds a secret)"
	}
	if len(text) > complaintBytes {
		text = strings.ToValidUTF8(text[:complaintBytes], "") + "…"
	}
	return text
}

// Server is the registry's part of a reference, or "" if it has none and the engine's default is
// meant (distribution/reference, "domain").
func Server(ref string) string {
	first, _, ok := strings.Cut(ref, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost" ||
		strings.ToLower(first) != first) {
		return first
	}
	return ""
}

// Split separates the tag or digest from a reference. The tag may be empty.
func Split(ref string) (name, tag string) {
	if name, digest, ok := strings.Cut(ref, "@"); ok {
		return name, digest
	}
	i := strings.LastIndexByte(ref, ':')
	if i < 0 || strings.Contains(ref[i:], "/") {
		return ref, ""
	}
	return ref[:i], ref[i+1:]
}

// isDefault says whether a server is the one that an index address of the engine
// ("https://index.EXAMPLE/v1/") stands for.
func isDefault(server, index string) bool {
	u, err := url.Parse(index)
	return err == nil && (server == "" || server == u.Host || "index."+server == u.Host)
}
