package docker

import (
	"encoding/json"
	"regexp"
	"sort"
	"strings"
	"time"
)

// filters is the parameter of the same name: lists of values by key.
type filters map[string][]string

// filtersOf reads the parameter in both forms that clients send, {"key":{"value":true}} and
// {"key":["value"]}, and refuses keys that the endpoint does not know.
func filtersOf(r *request, known ...string) (filters, error) {
	text := r.form("filters")
	out := filters{}
	if text == "" {
		return out, nil
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return nil, invalid("invalid filter: %v", err)
	}
	for key, value := range raw {
		ok := false
		for _, k := range known {
			ok = ok || k == key
		}
		if !ok {
			return nil, invalid("invalid filter '%s'", key)
		}
		var set map[string]bool
		var list []string
		if json.Unmarshal(value, &set) == nil {
			for v, on := range set {
				if on {
					list = append(list, v)
				}
			}
			sort.Strings(list)
		} else if err := json.Unmarshal(value, &list); err != nil {
			return nil, invalid("invalid filter '%s': %v", key, err)
		}
		out[key] = list
	}
	return out, nil
}

// has says whether the filter is set at all.
func (f filters) has(key string) bool { return len(f[key]) > 0 }

// exact reports whether one of the strings equals one of the filter's values. A filter without
// values matches everything.
func (f filters) exact(key string, got ...string) bool {
	want := f[key]
	if len(want) == 0 {
		return true
	}
	for _, w := range want {
		for _, g := range got {
			if w == g {
				return true
			}
		}
	}
	return false
}

// match reports whether one of the strings equals one of the filter's values or matches it as a
// regular expression, with or without the slash that names of containers begin with. A filter
// without values matches everything.
func (f filters) match(key string, got ...string) bool {
	want := f[key]
	if len(want) == 0 {
		return true
	}
	for _, w := range want {
		pattern, err := regexp.Compile(w)
		for _, g := range got {
			bare := strings.TrimPrefix(g, "/")
			if w == g || w == bare || err == nil &&
				(pattern.MatchString(g) || pattern.MatchString(bare)) {
				return true
			}
		}
	}
	return false
}

// labels applies the filters label and label!.
func (f filters) labels(have map[string]string) bool { return f.pairs("label", have) }

// pairs reports whether have contains all pairs of the filter key, given as "name" or "name=value",
// and none of the filter key with an exclamation mark.
func (f filters) pairs(key string, have map[string]string) bool {
	holds := func(l string) bool {
		key, value, ok := strings.Cut(l, "=")
		got, there := have[key]
		return there && (!ok || got == value)
	}
	for _, l := range f[key] {
		if !holds(l) {
			return false
		}
	}
	for _, l := range f[key+"!"] {
		if holds(l) {
			return false
		}
	}
	return true
}

// until reads the filter of that name, of which there may be one.
func (f filters) until() (time.Time, error) {
	if len(f["until"]) > 1 {
		return time.Time{}, invalid("more than one until filter specified")
	}
	return f.earliest()
}

// earliest reads the filter until: times, or ages such as 24h, of which the earliest counts because
// all of them have to hold.
func (f filters) earliest() (first time.Time, err error) {
	for _, text := range f["until"] {
		var t time.Time
		if d, err := time.ParseDuration(text); err == nil {
			t = time.Now().Add(-d)
		} else if t, err = timestamp(text); err != nil {
			return t, invalid("invalid until filter: %v", err)
		}
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	return first, nil
}

// boolean reads a filter of true or false.
func (f filters) boolean(key string) (value, set bool, err error) {
	list := f[key]
	if len(list) == 0 {
		return false, false, nil
	}
	switch strings.ToLower(list[0]) {
	case "1", "true":
		value = true
	case "0", "false":
	default:
		return false, false, invalid("invalid filter '%s=%s'", key, list[0])
	}
	return value, true, nil
}
