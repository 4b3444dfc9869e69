package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	"strake/cli/api"
	"strake/cli/client"
	"strake/cli/command"
	"strake/cli/progress"
	"strake/cli/terminal"
)

// Header is the header that carries the login for a reference; nil if there is none.
func Header(ctx context.Context, s *command.Session, ref string) (map[string]string, error) {
	c, err := Load(s.ConfigDir)
	if err != nil || c.Empty() {
		return nil, err
	}
	c.Env = s.Environ
	server, err := Address(ctx, s, Server(ref))
	if err != nil {
		return nil, err
	}
	auth, err := c.Get(ctx, server)
	if err != nil || auth == (api.AuthConfig{}) {
		return nil, err
	}
	raw, err := json.Marshal(auth)
	if err != nil {
		return nil, err
	}
	return map[string]string{"X-Registry-Auth": base64.URLEncoding.EncodeToString(raw)}, nil
}

// Address is the name under which logins at a server are kept. The engine knows which registry is
// the default one.
func Address(ctx context.Context, s *command.Session, server string) (string, error) {
	var info struct{ IndexServerAddress string }
	if err := s.Get(ctx, "/info", nil, &info); err != nil {
		return "", err
	}
	if info.IndexServerAddress != "" && isDefault(server, info.IndexServerAddress) {
		return info.IndexServerAddress, nil
	}
	if server == "" {
		return "", fmt.Errorf("the engine has no default registry: name one")
	}
	return server, nil
}

// Pull asks the engine to pull one image, or all tags of a name. Progress goes to s.Err.
func Pull(ctx context.Context, s *command.Session, ref, platform string, all, quiet bool) error {
	name, tag := Split(ref)
	if tag == "" && !all {
		tag = "latest"
	}
	header, err := Header(ctx, s, ref)
	if err != nil {
		return err
	}
	resp, err := s.Do(ctx, client.Request{
		Method: "POST", Path: "/images/create",
		Query: command.Query("fromImage", name, "tag", tag, "platform", platform), Header: header,
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	opt := Progress(s)
	opt.Quiet = quiet
	return progress.Show(resp.Body, opt)
}

// Push asks the engine to push one image, or all tags of a name. What was pushed goes to s.Out.
func Push(ctx context.Context, s *command.Session, ref, platform string, all, quiet bool) error {
	name, tag := Split(ref)
	if strings.Contains(ref, "@") {
		return command.Misused(fmt.Errorf("%q: cannot push a digest reference: name a tag", ref))
	}
	if all && tag != "" {
		return command.Misused(fmt.Errorf("%q: tag can't be used with --all-tags/-a", ref))
	}
	if tag == "" && !all {
		tag = "latest"
	}
	header, err := Header(ctx, s, ref)
	if err != nil {
		return err
	}
	if header == nil {
		// The engine refuses a push without the header; this is an anonymous login.
		header = map[string]string{
			"X-Registry-Auth": base64.URLEncoding.EncodeToString([]byte("{}")),
		}
	}
	q := url.Values{}
	if tag != "" {
		q.Set("tag", tag)
	}
	if platform != "" {
		raw, err := platformJSON(platform)
		if err != nil {
			return err
		}
		q.Set("platform", raw)
	}
	resp, err := s.Do(
		ctx,
		client.Request{
			Method: "POST", Path: client.Path("images", name, "push"), Query: q, Header: header,
		},
	)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	opt := Progress(s)
	opt.Quiet = quiet
	opt.Status = func(text string) bool {
		// "TAG: digest: DIGEST size: N" is what the push was for.
		if !strings.Contains(text, ": digest: ") {
			return false
		}
		if !quiet {
			fmt.Fprintln(s.Out, text)
		}
		return true
	}
	if err := progress.Show(resp.Body, opt); err != nil {
		return err
	}
	if quiet {
		fmt.Fprintln(s.Out, ref)
	}
	return nil
}

// platformJSON is the form in which push takes OS/ARCH[/VARIANT].
func platformJSON(s string) (string, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return "", command.Misused(fmt.Errorf("--platform %q: want OS/ARCH[/VARIANT]", s))
	}
	p := map[string]string{"os": parts[0], "architecture": parts[1]}
	if len(parts) == 3 {
		p["variant"] = parts[2]
	}
	raw, err := json.Marshal(p)
	return string(raw), err
}

// Progress says how progress is shown in a session: on its Err.
func Progress(s *command.Session) progress.Options {
	opt := progress.Options{
		Out: s.Err, Now: s.Now, Stream: func(text string) { io.WriteString(s.Out, text) },
	}
	if _, _, ok := terminal.Size(s.Err); ok {
		opt.Size = func() (int, int) {
			columns, rows, ok := terminal.Size(s.Err)
			if !ok {
				return 80, 24
			}
			return columns, rows
		}
	}
	return opt
}
