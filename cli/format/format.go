// Package format shows lists and objects: as a table, through a Go template, or as JSON.
//
// It promises Docker's forms (docker/cli:docs at "Format command and log output"): --format takes
// "table", "table TEMPLATE", "json" (one object a line), or a template with the functions json,
// join, lower, pad, split, title, truncate and upper. -o json is one array.
//
// A row is a struct of strings. Its field names are what templates and JSON use (keep them sorted,
// as Docker's JSON is); the tag `head` is the heading of the column. Methods of the row may be used
// in templates as well.
//
// A table needs no template: text/template costs time that `strake ps` has better use for.
//
// Not for: deciding what is in the rows.
//
// Tested by tables.
package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode"
)

// Options are a listing's flags.
type Options struct {
	// Format is --format; empty is a table of the default columns.
	Format string
	// JSON is -o json; it comes before all others.
	JSON bool
	// Quiet shows the column ID names alone, unless Format asks for something else.
	Quiet bool
	// ID is the field that Quiet shows.
	ID string
	// Columns are the fields of the default table, separated by spaces.
	Columns string
}

// List writes rows.
func List[T any](w io.Writer, opt Options, rows []T) error {
	if opt.JSON {
		if rows == nil {
			rows = []T{}
		}
		raw, err := marshal(rows)
		if err != nil {
			return err
		}
		_, err = w.Write(raw)
		return err
	}
	switch text := unescape(opt.Format); {
	case text == "" || text == "table":
		if opt.Quiet {
			return columns(w, rows, []string{opt.ID}, false)
		}
		return columns(w, rows, strings.Fields(opt.Columns), true)
	case text == "json":
		return eachJSON(w, rows)
	case strings.HasPrefix(text, "table"):
		return templateTable(
			w, strings.TrimLeftFunc(strings.TrimPrefix(text, "table"), unicode.IsSpace), rows,
		)
	default:
		t, err := Parse(text)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		for _, r := range rows {
			if err := t.Execute(&b, r); err != nil {
				return noField(err, r)
			}
			b.WriteByte('\n')
		}
		_, err = w.Write(b.Bytes())
		return err
	}
}

func eachJSON[T any](w io.Writer, rows []T) error {
	var b bytes.Buffer
	for _, r := range rows {
		raw, err := marshal(r)
		if err != nil {
			return err
		}
		b.Write(raw)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// unescape reads the \t and \n that a shell leaves in quotes.
func unescape(s string) string {
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.TrimSpace(s))
}

// Table returns a writer of aligned columns, which are separated by tabs. Flush ends it.
func Table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 10, 1, 3, ' ', 0) }

func columns[T any](w io.Writer, rows []T, names []string, heading bool) error {
	var b bytes.Buffer
	row := reflect.TypeFor[T]()
	index := make([][]int, len(names))
	for i, name := range names {
		f, ok := row.FieldByName(name)
		if !ok {
			return fmt.Errorf("no column %s", name)
		}
		index[i] = f.Index
		if heading {
			b.WriteString(f.Tag.Get("head"))
			b.WriteByte("\t\n"[btoi(i == len(names)-1)])
		}
	}
	for _, r := range rows {
		v := reflect.ValueOf(r)
		for i := range index {
			b.WriteString(v.FieldByIndex(index[i]).String())
			b.WriteByte("\t\n"[btoi(i == len(names)-1)])
		}
	}
	if !heading {
		_, err := w.Write(b.Bytes())
		return err
	}
	t := Table(w)
	if _, err := t.Write(b.Bytes()); err != nil {
		return err
	}
	return t.Flush()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Headed is a row whose methods also know what stands above them.
type Headed interface{ Heading() any }

func templateTable[T any](w io.Writer, text string, rows []T) error {
	t, err := Parse(text)
	if err != nil {
		return err
	}
	var head T
	v := reflect.ValueOf(&head).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String && f.CanSet() {
			f.SetString(v.Type().Field(i).Tag.Get("head"))
		}
	}
	out := Table(w)
	var first any = head
	if h, ok := first.(Headed); ok {
		first = h.Heading()
	}
	for i := -1; i < len(rows); i++ {
		row := first
		if i >= 0 {
			row = rows[i]
		}
		if err := t.Execute(out, row); err != nil {
			return noField(err, row)
		}
		out.Write([]byte("\n"))
	}
	return out.Flush()
}

// noField says which fields there are to an error about one that there is not.
func noField(err error, row any) error {
	_, what, ok := strings.Cut(err.Error(), "can't evaluate field ")
	if !ok {
		return err
	}
	name, _, _ := strings.Cut(what, " ")
	var names []string
	for f := range reflect.TypeOf(row).Fields() {
		if f.IsExported() {
			names = append(names, f.Name)
		}
	}
	return fmt.Errorf("--format: no field %s: want one of %s", name, strings.Join(names, ", "))
}

// Parse reads a template with Docker's functions. A field that does not exist is an error when it
// is executed.
func Parse(text string) (*template.Template, error) {
	t, err := template.New("--format").Option("missingkey=error").Funcs(template.FuncMap{
		"json": func(v any) (string, error) {
			raw, err := marshal(v)
			return string(bytes.TrimRight(raw, "\n")), err
		},
		"join":     joinAny,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"split":    strings.Split,
		"title":    title,
		"pad":      pad,
		"truncate": truncate,
	}).Parse(text)
	return t, err
}

// joinAny joins lists of strings and, because what comes from JSON has no types, of anything.
func joinAny(list any, sep string) (string, error) {
	switch l := list.(type) {
	case nil:
		return "", nil
	case []string:
		return strings.Join(l, sep), nil
	case []any:
		parts := make([]string, len(l))
		for i, v := range l {
			parts[i] = fmt.Sprint(v)
		}
		return strings.Join(parts, sep), nil
	}
	return "", fmt.Errorf("join: %T is not a list", list)
}

func title(s string) string {
	before := ' '
	return strings.Map(func(r rune) rune {
		begins := !unicode.IsLetter(before) && !unicode.IsDigit(before) && before != '_' &&
			before != '\''
		before = r
		if begins {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
}

func truncate(s string, n int) string {
	if n >= 0 && len(s) > n {
		return s[:n]
	}
	return s
}

// marshal is JSON for people and shells: < and > stay as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b.Bytes(), nil
}
