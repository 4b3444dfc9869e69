package spec

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"strake/cli/api"
)

// Environment is what --env-file and then -e say. A variable without "=" takes its value from the
// user's own environment. If it has none there, it stays as it is: from -e it then removes the
// image's variable, from a file it is left out, both as Docker does it.
func Environment(files, flags []string, src Source) ([]string, error) {
	var env []string
	for _, name := range files {
		lines, err := readLines("env-file", name, src)
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			key, _, ok := strings.Cut(line, "=")
			if key == "" || strings.ContainsFunc(key, unicode.IsSpace) {
				return nil, fmt.Errorf(
					"--env-file %s: %q: want NAME=value or NAME, and no space in the name", name,
					line,
				)
			}
			if !ok {
				v, set := src.LookupEnv(key)
				if !set {
					continue
				}
				line = key + "=" + v
			}
			env = append(env, line)
		}
	}
	for _, e := range flags {
		key, _, ok := strings.Cut(e, "=")
		if key == "" {
			return nil, fmt.Errorf("--env %q: want NAME=value or NAME", e)
		}
		if !ok {
			if v, set := src.LookupEnv(key); set {
				e = key + "=" + v
			}
		}
		env = append(env, e)
	}
	return env, nil
}

// labels is what --label-file and then --label say.
func labels(files, flags []string, src Source) (map[string]string, error) {
	var all []string
	for _, name := range files {
		lines, err := readLines("label-file", name, src)
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			if key, _, _ := strings.Cut(line, "="); key == "" ||
				strings.ContainsFunc(key, unicode.IsSpace) {
				return nil, fmt.Errorf(
					"--label-file %s: %q: want NAME=value, and no space in the name", name, line,
				)
			}
		}
		all = append(all, lines...)
	}
	return Labels(append(all, flags...))
}

// Labels reads KEY=VALUE or KEY.
func Labels(list []string) (map[string]string, error) {
	var m map[string]string
	for _, l := range list {
		key, v, _ := strings.Cut(l, "=")
		if key == "" {
			return nil, fmt.Errorf("--label %q: want NAME=value", l)
		}
		if m == nil {
			m = make(map[string]string, len(list))
		}
		m[key] = v
	}
	return m, nil
}

// Pairs reads the KEY=VALUE of a flag.
func Pairs(flag string, list []string) (map[string]string, error) {
	var m map[string]string
	for _, p := range list {
		key, v, ok := strings.Cut(p, "=")
		if key == "" || !ok {
			return nil, fmt.Errorf("--%s %q: want NAME=value", flag, p)
		}
		if m == nil {
			m = make(map[string]string, len(list))
		}
		m[key] = v
	}
	return m, nil
}

// readLines returns the lines of a file that are neither empty nor comments.
func readLines(flag, name string, src Source) ([]string, error) {
	raw, err := src.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf")) // the byte order mark of some editors
	var lines []string
	for i, line := range strings.Split(string(raw), "\n") {
		if !utf8.ValidString(line) {
			return nil, fmt.Errorf("--%s %s: line %d is not UTF-8", flag, name, i+1)
		}
		line = strings.TrimLeftFunc(strings.TrimSuffix(line, "\r"), unicode.IsSpace)
		if line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// RestartPolicy reads no, always, unless-stopped, on-failure or on-failure:N.
func RestartPolicy(s string) (*api.RestartPolicy, error) {
	bad := func() (*api.RestartPolicy, error) {
		return nil, fmt.Errorf(
			"--restart %q: want no, always, unless-stopped, on-failure or on-failure:MAX", s,
		)
	}
	name, count, counted := strings.Cut(s, ":")
	p := &api.RestartPolicy{Name: name}
	switch name {
	case "":
		if counted {
			return bad()
		}
		p.Name = "no"
	case "no", "always", "unless-stopped":
		if counted {
			return bad()
		}
	case "on-failure":
		if counted {
			n, err := strconv.Atoi(count)
			if err != nil || n < 0 {
				return bad()
			}
			p.MaximumRetryCount = n
		}
	default:
		return bad()
	}
	return p, nil
}
