package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"strake/cli/flagvalue"
	"strake/cli/format"
)

// Listing is the flags that all listings share.
type Listing struct {
	Format  string
	Output  string
	Quiet   bool
	NoTrunc bool
	filters []string
}

// ListingFlags declares them. filters are the keys that --filter takes here, for completion.
func ListingFlags(fs *pflag.FlagSet, quiet string, filters ...string) *Listing {
	l := &Listing{}
	fs.StringVar(
		&l.Format, "format", "",
		"Format output: 'table', 'table TEMPLATE', 'json' (one object a line), or a Go template",
	)
	fs.StringVarP(&l.Output, "output", "o", "", "Output form: 'json' (one array)")
	fs.BoolVarP(&l.Quiet, "quiet", "q", false, quiet)
	fs.BoolVar(&l.NoTrunc, "no-trunc", false, "Don't truncate output")
	if len(filters) > 0 {
		fs.VarP(
			flagvalue.Checked(&l.filters, "filter", checkFilter), "filter", "f",
			"Filter output based on conditions provided",
		)
		words := make([]string, len(filters))
		for i, f := range filters {
			words[i] = f + "="
		}
		CompleteFlag(fs, "filter", words...)
	}
	CompleteFlag(fs, "format", "json", "table")
	CompleteFlag(fs, "output", "json")
	return l
}

func checkFilter(s string) error {
	if key, _, ok := strings.Cut(s, "="); !ok || strings.TrimSpace(key) == "" {
		return errors.New("want NAME=VALUE")
	}
	return nil
}

// Filters returns --filter in the form of the API.
func (l *Listing) Filters() (string, error) { return Filters(l.filters) }

// Show writes rows. id is the field that --quiet shows, columns those of the default table.
func Show[T any](s *Session, l *Listing, id, columns string, rows []T) error {
	return ShowTo(s.Out, l, id, columns, rows)
}

// ShowTo is Show with another place to write to.
func ShowTo[T any](w io.Writer, l *Listing, id, columns string, rows []T) error {
	if l.Output != "" && l.Output != "json" {
		return Misused(fmt.Errorf("--output %q: want json", l.Output))
	}
	if l.Output != "" && (l.Format != "" || l.Quiet) {
		return Misused(errors.New("conflicting options: --output and --format or --quiet"))
	}
	return format.List(
		w,
		format.Options{
			Format: l.Format, JSON: l.Output == "json", Quiet: l.Quiet, ID: id, Columns: columns,
		},
		rows,
	)
}

// ID shortens an ID unless --no-trunc was given.
func (l *Listing) ID(id string) string {
	if l.NoTrunc {
		return id
	}
	return format.ShortID(id)
}

// InspectEach gets an object for every name and shows those that there are. Names that do not exist
// are told, and make the command fail.
func InspectEach(
	s *Session, text string, names []string, get func(name string) (json.RawMessage, error),
) error {
	var objects []json.RawMessage
	failed := false
	var late []error
	for _, name := range names {
		raw, err := get(name)
		if err != nil {
			failed = true
			late = append(late, err)
			continue
		}
		objects = append(objects, raw)
	}
	// Like Docker's, an array is an array also when it is empty.
	if len(objects) > 0 || text == "" {
		if err := format.Objects(s.Out, text, objects); err != nil {
			return err
		}
	}
	for _, err := range late {
		s.Tell(err)
	}
	if failed {
		return Exit(1)
	}
	return nil
}

// Timestamp turns what a person writes for a moment into seconds since 1970: a duration before now
// ("42m"), a date with as much of a time as given, in local time unless it names a zone, or seconds
// as they are. Empty stays empty.
func Timestamp(s string, now time.Time) (string, error) {
	if s == "" {
		return "", nil
	}
	unix := func(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
	if d, err := time.ParseDuration(s); err == nil {
		return unix(now.Add(-d)), nil
	}
	if strings.Trim(s, "0123456789.") == "" && strings.Count(s, ".") <= 1 {
		return s, nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
	} {
		if t, err := time.Parse(layout, s); err == nil {
			return unix(t), nil
		}
	}
	for _, layout := range []string{
		"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return unix(t), nil
		}
	}
	return "", fmt.Errorf(
		"%q: want a duration (42m), a date and time (2006-01-02T15:04:05Z) or seconds since 1970",
		s,
	)
}

// AddFilter adds a condition, as KEY=VALUE.
func (l *Listing) AddFilter(condition string) { l.filters = append(l.filters, condition) }

// Joined writes labels as one text, sorted.
func Joined(labels map[string]string) string {
	list := make([]string, 0, len(labels))
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// SortBy sorts rows by a text.
func SortBy[T any](rows []T, key func(T) string) {
	slices.SortStableFunc(rows, func(a, b T) int { return strings.Compare(key(a), key(b)) })
}
