package docker

import (
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"strake/image"
)

// changesOf applies Dockerfile instructions to a configuration (docker import --change, commit
// --change), in their order.
func changesOf(c image.RunConfig, lines []string) (image.RunConfig, error) {
	d := changed{RunConfig: c}
	for _, line := range lines {
		for _, one := range strings.Split(line, "\n") {
			if one = strings.TrimSpace(one); one == "" {
				continue
			}
			if err := d.change(one); err != nil {
				return c, err
			}
		}
	}
	return d.RunConfig, nil
}

// changed is a configuration to which instructions are applied.
type changed struct {
	image.RunConfig
	cmdSet bool // by an instruction
}

func (c *changed) change(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	if rest == "" {
		return invalid("change %q: an argument is missing", line)
	}
	env := c.Env // one instruction sees what was there before it
	value := func() (string, error) { return expandWord(rest, env) }
	switch strings.ToUpper(word) {
	case "CMD":
		c.Cmd, c.cmdSet = c.command(rest), true
	case "ENTRYPOINT":
		c.Entrypoint = c.command(rest)
		if !c.cmdSet {
			c.Cmd = nil // those were arguments of the former entrypoint
		}
	case "ENV":
		pairs, err := pairsOf(rest, env)
		if err != nil {
			return invalid("change %q: %v", line, err)
		}
		c.setEnv(pairs)
	case "LABEL":
		pairs, err := pairsOf(rest, env)
		if err != nil {
			return invalid("change %q: %v", line, err)
		}
		for _, p := range pairs {
			setEntry(&c.Labels, p[0], p[1])
		}
	case "USER":
		return assign(&c.User, value)
	case "WORKDIR":
		dir, err := value()
		if err != nil {
			return invalid("change %q: %v", line, err)
		}
		if !path.IsAbs(dir) {
			dir = path.Join("/", c.WorkingDir, dir)
		}
		c.WorkingDir = path.Clean(dir)
	case "STOPSIGNAL":
		return assign(&c.StopSignal, value)
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	case "HEALTHCHECK":
		return c.healthcheck(line, rest)
	case "EXPOSE":
		ports, err := value()
		if err != nil {
			return invalid("change %q: %v", line, err)
		}
		c.expose(strings.Fields(ports))
	case "VOLUME":
		for _, v := range listOrWords(rest) {
			v, err := expandWord(v, env)
			if err != nil {
				return invalid("change %q: %v", line, err)
			}
			setEntry(&c.Volumes, v, struct{}{})
		}
	default:
		return invalid(
			"change %q: %s is not a valid change command; want CMD, ENTRYPOINT, ENV, EXPOSE, "+
				"HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR",
			line, word,
		)
	}
	return nil
}

func (c *changed) expose(ports []string) {
	for _, p := range ports {
		if !strings.Contains(p, "/") {
			p += "/tcp"
		}
		setEntry(&c.ExposedPorts, p, struct{}{})
	}
}

// setEnv sets variables, those that are there in their places.
func (c *changed) setEnv(pairs [][2]string) {
	c.Env = slices.Clone(c.Env)
	for _, p := range pairs {
		i := slices.IndexFunc(c.Env, func(have string) bool {
			return strings.HasPrefix(have, p[0]+"=")
		})
		if i < 0 {
			i, c.Env = len(c.Env), append(c.Env, "")
		}
		c.Env[i] = p[0] + "=" + p[1]
	}
}

// setEntry sets one entry of a map, which may be nil.
func setEntry[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = value
}

// assign sets a string to a value that may be an error.
func assign(to *string, value func() (string, error)) error {
	text, err := value()
	if err != nil {
		return invalid("change: %v", err)
	}
	*to = text
	return nil
}

// healthcheck reads HEALTHCHECK NONE or HEALTHCHECK [OPTIONS] CMD command
// (docs.docker.com/reference/dockerfile).
func (c *changed) healthcheck(line, rest string) error {
	bad := func(why string) error { return invalid("change %q: %s", line, why) }
	if strings.EqualFold(rest, "NONE") {
		c.Healthcheck = &image.Healthcheck{Test: []string{"NONE"}}
		return nil
	}
	var h image.Healthcheck
	for strings.HasPrefix(rest, "--") {
		option, more, _ := strings.Cut(rest, " ")
		rest = strings.TrimSpace(more)
		name, value, _ := strings.Cut(strings.TrimPrefix(option, "--"), "=")
		if name == "retries" {
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 {
				return bad("--retries: want a number from 0 on")
			}
			h.Retries = n
			continue
		}
		to := map[string]*time.Duration{
			"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod,
			"start-interval": &h.StartInterval,
		}[name]
		if to == nil {
			return bad("unknown option --" + name)
		}
		d, err := time.ParseDuration(value)
		if err != nil || d != 0 && d < container.MinimumDuration {
			return bad("--" + name + ": want 0 or a duration of at least 1ms, as 30s")
		}
		*to = d
	}
	word, test, _ := strings.Cut(rest, " ")
	if test = strings.TrimSpace(test); !strings.EqualFold(word, "CMD") || test == "" {
		return bad("want NONE, or CMD and a command")
	}
	var list []string
	if strings.HasPrefix(test, "[") && json.Unmarshal([]byte(test), &list) == nil {
		h.Test = append([]string{"CMD"}, list...)
	} else {
		h.Test = []string{"CMD-SHELL", test}
	}
	c.Healthcheck = &h
	return nil
}

// command reads a command in the JSON form, or wraps one in the shell form with the image's shell.
func (c *changed) command(text string) []string {
	var list []string
	if strings.HasPrefix(text, "[") && json.Unmarshal([]byte(text), &list) == nil {
		return list
	}
	if len(c.Shell) > 0 {
		return append(slices.Clone(c.Shell), text)
	}
	return []string{"/bin/sh", "-c", text}
}

func listOrWords(text string) []string {
	var list []string
	if strings.HasPrefix(text, "[") && json.Unmarshal([]byte(text), &list) == nil {
		return list
	}
	return strings.Fields(text)
}
