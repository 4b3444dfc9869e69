package docker

import (
	"encoding/json"
	"strings"

	"strake/image"
)

// changesOf applies Dockerfile instructions to an image's configuration (docker import --change,
// commit --change).
func changesOf(lines []string) (image.RunConfig, error) {
	var c image.RunConfig
	for _, line := range lines {
		for _, one := range strings.Split(line, "\n") {
			if one = strings.TrimSpace(one); one == "" {
				continue
			}
			if err := change(&c, one); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

func change(c *image.RunConfig, line string) error {
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	if rest == "" {
		return invalid("change %q: an argument is missing", line)
	}
	switch strings.ToUpper(word) {
	case "CMD":
		c.Cmd = command(rest)
	case "ENTRYPOINT":
		c.Entrypoint = command(rest)
	case "ENV":
		key, value, ok := strings.Cut(rest, "=")
		if !ok {
			key, value, _ = strings.Cut(rest, " ")
		}
		c.Env = append(c.Env, key+"="+strings.Trim(value, `"`))
	case "LABEL":
		key, value, ok := strings.Cut(rest, "=")
		if !ok {
			return invalid("change %q: want LABEL key=value", line)
		}
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		c.Labels[strings.Trim(key, `"`)] = strings.Trim(value, `"`)
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = rest
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	case "EXPOSE":
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		for _, p := range strings.Fields(rest) {
			if !strings.Contains(p, "/") {
				p += "/tcp"
			}
			c.ExposedPorts[p] = struct{}{}
		}
	case "VOLUME":
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		for _, v := range listOrWords(rest) {
			c.Volumes[v] = struct{}{}
		}
	default:
		return invalid(
			"change %q: %s is not a valid change command; want CMD, ENTRYPOINT, ENV, EXPOSE, "+
				"LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR",
			line, word,
		)
	}
	return nil
}

// command reads a command in the JSON form, or wraps one in the shell form with /bin/sh -c.
func command(text string) []string {
	var list []string
	if strings.HasPrefix(text, "[") && json.Unmarshal([]byte(text), &list) == nil {
		return list
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
