package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestFilters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list []string
		want string
	}{
		{nil, ""},
		{[]string{"name=web"}, `{"name":{"web":true}}`},
		{[]string{"label=a=b", "label=c"}, `{"label":{"a=b":true,"c":true}}`},
		{[]string{" Name = web "}, `{"name":{"web":true}}`},
		{[]string{"name="}, `{"name":{"":true}}`},
		{[]string{"name"}, "!"},
		{[]string{"=web"}, "!"},
	} {
		got, err := Filters(c.list)
		if c.want == "!" {
			var status *StatusError
			if !errors.As(err, &status) || !status.Usage ||
				!strings.Contains(err.Error(), "--filter") {
				t.Errorf("%q: got %q, %v; want an error of the command line", c.list, got, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q: got %q, %v; want %q", c.list, got, err, c.want)
		}
	}
}

func TestStartStatus(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]int{
		`exec: "nonesuch": executable file not found in $PATH`: NotFound,
		"stat /nonesuch: no such file or directory":            NotFound,
		`exec: "/etc": is a directory`:                         NotExecutable,
		"exec /etc/passwd: permission denied":                  NotExecutable,
		"exec /text: exec format error":                        NotExecutable,
		"address already in use":                               EngineFailed,
		"":                                                     EngineFailed,
	} {
		if got := StartStatus(message); got != want {
			t.Errorf("%q: got %d, want %d", message, got, want)
		}
	}
}

func TestStatusError(t *testing.T) {
	t.Parallel()
	if err := Exit(0); err != nil {
		t.Errorf("Exit(0): %v, want nil", err)
	}
	var status *StatusError
	if err := Exit(7); !errors.As(err, &status) || status.Code != 7 || status.Err != nil ||
		err.Error() != "exit status 7" {
		t.Errorf("Exit(7): %#v", err)
	}
	err := Misused(io.ErrUnexpectedEOF)
	if !errors.As(err, &status) || status.Code != EngineFailed || !status.Usage ||
		!errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != io.ErrUnexpectedEOF.Error() {
		t.Errorf("Misused: %#v", err)
	}
}

// session is a session whose streams are texts.
func session(in string) (s *Session, out, errs *strings.Builder) {
	out, errs = &strings.Builder{}, &strings.Builder{}
	return &Session{Env: Env{
		In: strings.NewReader(in), Out: out, Err: errs,
		LookupEnv: func(string) (string, bool) { return "", false },
	}}, out, errs
}

func TestEach(t *testing.T) {
	t.Parallel()
	s, out, errs := session("")
	err := Each(s, []string{"good", "bad", "absent", "fine"}, func(name string) error {
		switch name {
		case "bad":
			return errors.New("bad is broken")
		case "absent":
			return fmt.Errorf("absent: %w", ErrAbsent)
		}
		return nil
	})
	var status *StatusError
	if !errors.As(err, &status) || status.Code != 1 || status.Err != nil {
		t.Errorf("got %v, want exit status 1", err)
	}
	if out.String() != "good\nfine\n" || errs.String() != "strake: bad is broken\n" {
		t.Errorf("output %q, errors %q", out, errs)
	}
	if err := Each(s, []string{"a"}, func(string) error { return nil }); err != nil {
		t.Errorf("all worked: %v", err)
	}
}

func TestInspectEach(t *testing.T) {
	t.Parallel()
	get := func(name string) (json.RawMessage, error) {
		if name == "absent" {
			return nil, errors.New("no such thing: absent")
		}
		return json.RawMessage(`{"Name":"` + name + `"}`), nil
	}
	for name, c := range map[string]struct {
		format    string
		names     []string
		out, errs string
		code      int
	}{
		"all": {"", []string{"a"}, "[\n    {\n        \"Name\": \"a\"\n    }\n]\n", "", 0},
		"one is absent": {
			"json", []string{"absent", "b"}, "{\"Name\":\"b\"}\n",
			"strake: no such thing: absent\n", 1,
		},
		"none": {"", []string{"absent"}, "[]\n", "strake: no such thing: absent\n", 1},
		"none, in a format": {
			"{{.Name}}", []string{"absent"}, "", "strake: no such thing: absent\n", 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, out, errs := session("")
			code := 0
			var status *StatusError
			if err := InspectEach(s, c.format, c.names, get); errors.As(err, &status) {
				code = status.Code
			} else if err != nil {
				t.Fatal(err)
			}
			if out.String() != c.out || errs.String() != c.errs || code != c.code {
				t.Errorf("output %q, errors %q, status %d; want %q, %q, %d", out, errs, code, c.out,
					c.errs, c.code)
			}
		})
	}
}

func TestTimestamp(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("east", 2*60*60)
	now := time.Date(2026, 1, 2, 12, 0, 0, 5, zone)
	at := func(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
	for in, want := range map[string]string{
		"":                          "",
		"42m":                       at(now.Add(-42 * time.Minute)),
		"1h30m":                     at(now.Add(-90 * time.Minute)),
		"1767323045":                "1767323045",
		"1767323045.5":              "1767323045.5",
		"2026-01-02":                at(time.Date(2026, 1, 2, 0, 0, 0, 0, zone)),
		"2026-01-02T03":             at(time.Date(2026, 1, 2, 3, 0, 0, 0, zone)),
		"2026-01-02T03:04":          at(time.Date(2026, 1, 2, 3, 4, 0, 0, zone)),
		"2026-01-02T03:04:05":       at(time.Date(2026, 1, 2, 3, 4, 5, 0, zone)),
		"2026-01-02T03:04:05.25":    at(time.Date(2026, 1, 2, 3, 4, 5, 250_000_000, zone)),
		"2026-01-02Z":               at(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)),
		"2026-01-02T03:04Z":         at(time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)),
		"2026-01-02T03:04:05-01:00": at(time.Date(2026, 1, 2, 4, 4, 5, 0, time.UTC)),
		"yesterday":                 "!",
		"2026-13-01":                "!",
		"1.2.3":                     "!",
	} {
		got, err := Timestamp(in, now)
		if want == "!" {
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", in)) {
				t.Errorf("%q: got %q, %v; want an error that names it", in, got, err)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestListing(t *testing.T) {
	t.Parallel()
	type row struct {
		ID   string `head:"ID"`
		Name string `head:"NAME"`
	}
	rows := []row{{"1", "one"}}
	for name, c := range map[string]struct {
		args  []string
		want  string
		fails string
	}{
		"table":      {nil, "NAME\none\n", ""},
		"quiet":      {[]string{"-q"}, "1\n", ""},
		"array":      {[]string{"-o", "json"}, `[{"ID":"1","Name":"one"}]` + "\n", ""},
		"template":   {[]string{"--format", "{{.ID}}"}, "1\n", ""},
		"no form":    {[]string{"-o", "yaml"}, "", `--output "yaml": want json`},
		"two forms":  {[]string{"-o", "json", "-q"}, "", "conflicting options"},
		"and format": {[]string{"-o", "json", "--format", "x"}, "", "conflicting options"},
		"no filter":  {[]string{"-f", "name"}, "", "want NAME=VALUE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := pflag.NewFlagSet("ls", pflag.ContinueOnError)
			l := ListingFlags(fs, "Only show IDs", "name", "label")
			s, out, _ := session("")
			err := fs.Parse(c.args)
			if err == nil {
				err = Show(s, l, "ID", "Name", rows)
			}
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v, want an error with %q", err, c.fails)
				}
				return
			}
			if err != nil || out.String() != c.want {
				t.Errorf("got %q, %v; want %q", out, err, c.want)
			}
		})
	}
	fs := pflag.NewFlagSet("ls", pflag.ContinueOnError)
	l := ListingFlags(fs, "Only show IDs", "name", "label")
	if err := fs.Parse([]string{"-f", "name=a", "--no-trunc"}); err != nil {
		t.Fatal(err)
	}
	l.AddFilter("label=b")
	if got, err := l.Filters(); err != nil || got != `{"label":{"b":true},"name":{"a":true}}` {
		t.Errorf("Filters: %q, %v", got, err)
	}
	const id = "sha256:0123456789abcdef"
	if got := l.ID(id); got != id {
		t.Errorf("ID with --no-trunc: %q", got)
	}
	if got := (&Listing{}).ID(id); got != "0123456789ab" {
		t.Errorf("ID: %q", got)
	}
	if got := FlagChoices(fs.Lookup("filter")); strings.Join(got, " ") != "name= label=" {
		t.Errorf("what completes --filter: %q", got)
	}
	CompleteFlag(fs, "no-such-flag", "x") // declares nothing, and does not fail
}

func TestTexts(t *testing.T) {
	t.Parallel()
	if got := Joined(map[string]string{"b": "2", "a": "1", "c": ""}); got != "a=1,b=2,c=" {
		t.Errorf("Joined: %q", got)
	}
	if got := Query("a", "1", "b", "", "a", "2", "odd").Encode(); got != "a=1&a=2" {
		t.Errorf("Query: %q", got)
	}
	if If(true) != "1" || If(false) != "" {
		t.Errorf("If: %q, %q", If(true), If(false))
	}
	rows := []string{"b1", "a1", "b0", "a0"}
	SortBy(rows, func(s string) string { return s[:1] })
	if got := strings.Join(rows, " "); got != "a1 a0 b1 b0" {
		t.Errorf("SortBy: %s, want a stable order", got)
	}
}
