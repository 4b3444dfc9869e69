package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// request is an API request with its version.
type request struct {
	*http.Request
	version version
}

// form returns a query parameter.
func (r *request) form(name string) string { return r.URL.Query().Get(name) }

// flag returns a boolean query parameter as dockerd reads one: every value but these words is true.
func (r *request) flag(name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.form(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// flagOr is flag with a default for a parameter that is absent.
func (r *request) flagOr(name string, absent bool) bool {
	if !r.URL.Query().Has(name) {
		return absent
	}
	return r.flag(name)
}

// maxBody bounds JSON bodies; the largest ones are container configurations with long environments.
const maxBody = 8 << 20

// isJSON refuses a body that its request says to be of another type. A request that names no type
// is taken.
func isJSON(r *request) error {
	text := r.Header.Get("Content-Type")
	if text == "" {
		return nil
	}
	kind, _, err := mime.ParseMediaType(text)
	if err != nil {
		return invalid("malformed Content-Type header (%s): %v", text, err)
	}
	if kind != "application/json" {
		return invalid("unsupported Content-Type header (%s): must be 'application/json'", text)
	}
	return nil
}

// decode reads a JSON body. An empty one leaves v as it is.
func decode(r *request, v any) error {
	if err := isJSON(r); err != nil {
		return err
	}
	d := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return invalid("invalid JSON: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return invalid("unexpected content after JSON")
	}
	return nil
}

// timestamp reads Unix seconds with an optional fraction, or a time as in RFC 3339. Empty and 0
// mean none, which is the zero time.
func timestamp(text string) (time.Time, error) {
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	sec, frac, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		t, terr := time.Parse(time.RFC3339Nano, text)
		if terr != nil {
			return time.Time{}, fmt.Errorf("%q is no time", text)
		}
		return t, nil
	}
	var nanos int64
	if frac != "" {
		frac = (frac + "000000000")[:9]
		if nanos, err = strconv.ParseInt(frac, 10, 64); err != nil {
			return time.Time{}, fmt.Errorf("%q is no time", text)
		}
	}
	return time.Unix(n, nanos), nil
}

// timeout reads t, in seconds; absent means the container's own.
func timeout(r *request) (*int, error) {
	text := r.form("t")
	if text == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, invalid("parameter t %q: want a number of seconds", text)
	}
	return &n, nil
}

// cells reads a side of a terminal, in characters.
func cells(side, text string) (uint16, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil && (n < 0 || n >= 1<<16) {
		err = strconv.ErrRange
	}
	if err != nil {
		// The cause alone: what strconv adds is its own name.
		for cause := errors.Unwrap(err); cause != nil; cause = errors.Unwrap(err) {
			err = cause
		}
		return 0, invalid("invalid resize %s %q: %v", side, text, err)
	}
	return uint16(n), nil
}

// sizeOf reads the size of a terminal.
func sizeOf(r *request) (width, height uint16, err error) {
	if height, err = cells("height", r.form("h")); err == nil {
		width, err = cells("width", r.form("w"))
	}
	return width, height, err
}

// version is an API version, minor number only: the major one is 1.
type version int

func (v version) String() string { return "1." + strconv.Itoa(int(v)) }

func parseVersion(s string) (version, bool) {
	major, minor, ok := strings.Cut(s, ".")
	if !ok || major != "1" {
		return 0, false
	}
	n, err := strconv.Atoi(minor)
	return version(n), err == nil && n >= 0 && n < 1000
}

func mustVersion(s string) version {
	v, _ := parseVersion(s)
	return v
}

type versionKey struct{}

func contextWith(ctx context.Context, v version) context.Context {
	return context.WithValue(ctx, versionKey{}, v)
}

func versionOf(ctx context.Context) version {
	v, _ := ctx.Value(versionKey{}).(version)
	return v
}

// splitVersion splits the version off the front of a path. Without one the version is the newest.
func splitVersion(path string) (version, string, error) {
	rest, ok := strings.CutPrefix(path, "/v")
	if !ok || rest == "" || rest[0] < '0' || rest[0] > '9' {
		return mustVersion(MaxVersion), path, nil
	}
	number, tail, _ := strings.Cut(rest, "/")
	asked, ok := parseVersion(number)
	switch {
	case !ok:
		return 0, "", invalid("API version %q: want a number as 1.40", number)
	case asked > mustVersion(MaxVersion):
		return 0, "", invalid(
			"client version %s is too new. Maximum supported API version is %s", number, MaxVersion,
		)
	case asked < mustVersion(MinVersion):
		return 0, "", invalid(
			"client version %s is too old. Minimum supported API version is %s, "+
				"please upgrade your client to a newer version",
			number, MinVersion,
		)
	}
	return asked, "/" + tail, nil
}
