// Package logattr finds what is written beside each line of a container's log: labels, variables
// and a tag, as the options labels, labels-regex, env, env-regex and tag of Docker's json-file log
// driver ask for them (moby/moby, daemon/logger/loginfo.go).
//
// Not for: writing logs.
//
// Tested by tables.
package logattr

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"text/template"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/internal/message"
)

// maxBytes bounds the attributes of a line as they are written (keeper, LogConfig.Attributes).
const maxBytes = 8192

// Check refuses expressions and templates that cannot be evaluated (errdefs.ErrInvalidArgument).
func Check(c *engine.LogConfig) error {
	for name, text := range map[string]string{
		"labels-regex": c.LabelsRegex, "env-regex": c.EnvRegex,
	} {
		if _, err := regexp.Compile(text); err != nil {
			return message.New(errdefs.ErrInvalidArgument, "log option %s: %w", name, err)
		}
	}
	_, err := Text(nil, c.Tag, &Container{
		FullID: strings.Repeat("0", 64), Name: "name",
		ImageFullID: "sha256:" + strings.Repeat("0", 64), ImageName: "name",
	})
	return err
}

// Select returns the labels, and the variables of env ("NAME=value"), that are asked for. The map
// is the caller's. The configuration has passed Check.
func Select(c *engine.LogConfig, labels map[string]string, env []string) map[string]string {
	out := map[string]string{}
	pick(out, labels, c.Labels, c.LabelsRegex)
	if c.Env == "" && c.EnvRegex == "" {
		return out
	}
	vars := map[string]string{}
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok {
			vars[name] = value
		}
	}
	pick(out, vars, c.Env, c.EnvRegex)
	return out
}

// pick copies what is named in a list separated by commas, or matches an expression.
func pick(to, from map[string]string, list, expression string) {
	for name := range strings.SplitSeq(list, ",") {
		if value, ok := from[name]; ok && name != "" {
			to[name] = value
		}
	}
	if expression == "" {
		return
	}
	re, err := regexp.Compile(expression)
	if err != nil {
		return // Check has refused it
	}
	for name, value := range from {
		if re.MatchString(name) {
			to[name] = value
		}
	}
}

// Container is what the template of a tag can name: {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageID}},
// {{.ImageFullID}}, {{.ImageName}}, {{.DaemonName}} and {{.Hostname}}.
type Container struct {
	FullID, Name, ImageFullID, ImageName string
}

// ID is the short form of the container's ID.
func (c *Container) ID() string { return short(c.FullID) }

// ImageID is the short form of the image's ID.
func (c *Container) ImageID() string { return short(c.ImageFullID) }

// DaemonName is what dockerd calls itself.
func (c *Container) DaemonName() string { return "docker" }

// Hostname is the name of the host.
func (c *Container) Hostname() (string, error) { return os.Hostname() }

func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}

// functions are those of dockerd's templates.
var functions = template.FuncMap{
	"json": func(v any) (string, error) {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err := e.Encode(v)
		return strings.TrimSpace(b.String()), err
	},
	"split": strings.Split,
	"join":  strings.Join,
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"pad": func(s string, before, after int) string {
		if s == "" {
			return s
		}
		return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
	},
	"truncate": func(s string, n int) string { return s[:min(max(n, 0), len(s))] },
}

// Text is the JSON object that is written beside each line: the selected attributes and, unless its
// template is empty, the tag. It is empty if there is nothing to write. A template that cannot be
// evaluated, and more than 8 KiB, are errdefs.ErrInvalidArgument.
func Text(selected map[string]string, tag string, c *Container) (string, error) {
	attrs := make(map[string]string, len(selected)+1)
	for name, value := range selected {
		attrs[name] = value
	}
	if tag != "" {
		t, err := template.New("tag").Funcs(functions).Parse(tag)
		if err != nil {
			return "", message.New(errdefs.ErrInvalidArgument, "log option tag: %w", err)
		}
		var b strings.Builder
		if err := t.Execute(&b, c); err != nil {
			return "", message.New(errdefs.ErrInvalidArgument, "log option tag: %w", err)
		}
		if b.Len() > 0 {
			attrs["tag"] = b.String()
		}
	}
	if len(attrs) == 0 {
		return "", nil
	}
	raw, err := json.Marshal(attrs)
	if err != nil {
		return "", err
	}
	if len(raw) > maxBytes {
		return "", message.New(
			errdefs.ErrInvalidArgument,
			"log options labels, env and tag: %d bytes for each line, at most %d are possible",
			len(raw), maxBytes,
		)
	}
	return string(raw), nil
}
