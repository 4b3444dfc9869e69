package docker

import (
	"cmp"
	"strconv"

	"github.com/moby/moby/api/types/container"

	"strake/engine"
)

// logOf reads the log driver and its options.
func logOf(s *engine.Spec, l *container.LogConfig) error {
	switch l.Type {
	case "", "json-file", "local", "none":
		s.Log.Driver = l.Type
	default:
		return invalid(
			"logger: no log driver named '%s' is registered; want json-file, local or none", l.Type,
		)
	}
	texts := map[string]*string{
		"labels": &s.Log.Labels, "labels-regex": &s.Log.LabelsRegex, "env": &s.Log.Env,
		"env-regex": &s.Log.EnvRegex, "tag": &s.Log.Tag,
	}
	for key, value := range l.Config {
		if to, ok := texts[key]; ok {
			*to = value
			continue
		}
		switch key {
		case "max-size":
			n, err := parseSize(value)
			if err != nil {
				return invalid("log option max-size %q: %v", value, err)
			}
			s.Log.MaxBytes = n
		case "max-file":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return invalid("log option max-file %q: want a number from 1 on", value)
			}
			s.Log.MaxFiles = n
		case "mode", "max-buffer-size", "compress":
			// Accepted and ignored. In both modes, writing the log never blocks a container.
		default:
			driver := cmp.Or(l.Type, "json-file")
			return invalid("unknown log opt '%s' for %s log driver", key, driver)
		}
	}
	return nil
}
