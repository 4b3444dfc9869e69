package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// line is a row as the listings have it.
type line struct {
	ID     string `head:"ID"`
	Name   string `head:"NAME"`
	Status string `head:"STATUS"`

	labels  map[string]string
	heading bool
}

func (l line) Label(name string) string {
	if l.heading {
		return strings.ToUpper(name)
	}
	return l.labels[name]
}

func (l line) Heading() any {
	l.heading = true
	return l
}

var lines = []line{
	{ID: "1", Name: "web", Status: "Up", labels: map[string]string{"tier": "front"}},
	{ID: "22", Name: "a-very-long-name", Status: "Exited <1>"},
}

func TestList(t *testing.T) {
	t.Parallel()
	const noField, badTemplate = "no field Nmae: want one of ID, Name, Status", "template: --format"
	for name, c := range map[string]struct {
		opt   Options
		rows  []line
		want  string
		fails string
	}{
		"default": {
			Options{Columns: "ID Name"}, lines,
			"ID        NAME\n1         web\n22        a-very-long-name\n", "",
		},
		"columns are as wide as what is in them": {
			Options{Columns: "Name Status"}, lines,
			"NAME               STATUS\nweb                Up\na-very-long-name   Exited <1>\n", "",
		},
		"no rows":   {Options{Columns: "ID Name"}, nil, "ID        NAME\n", ""},
		"table":     {Options{Format: "table", Columns: "ID"}, lines[:1], "ID\n1\n", ""},
		"no column": {Options{Columns: "Nothing"}, lines, "", "no column Nothing"},
		"quiet":     {Options{Quiet: true, ID: "ID", Columns: "Name"}, lines, "1\n22\n", ""},
		"quiet, and a format of its own": {
			Options{Quiet: true, ID: "ID", Format: "{{.Name}}"}, lines,
			"web\na-very-long-name\n", "",
		},
		"one object a line": {
			Options{Format: "json"}, lines,
			`{"ID":"1","Name":"web","Status":"Up"}` + "\n" +
				`{"ID":"22","Name":"a-very-long-name","Status":"Exited <1>"}` + "\n", "",
		},
		"one array": {
			Options{JSON: true, Format: "{{.ID}}", Quiet: true}, lines[1:],
			`[{"ID":"22","Name":"a-very-long-name","Status":"Exited <1>"}]` + "\n", "",
		},
		"an empty array": {Options{JSON: true}, nil, "[]\n", ""},
		"no object":      {Options{Format: "json"}, nil, "", ""},
		"template": {
			Options{Format: ` {{.ID}}\t{{.Label "tier"}}\n `}, lines, "1\tfront\n\n22\t\n\n", "",
		},
		"table of a template": {
			Options{Format: `table {{.Name}}\t{{.Label "tier"}}`}, lines,
			"NAME               TIER\nweb                front\na-very-long-name   \n", "",
		},
		"table of a template, no rows": {
			Options{Format: `table {{.Name}}\t{{.ID}}`}, nil, "NAME      ID\n", "",
		},
		"no field":              {Options{Format: "{{.Nmae}}"}, lines, "", noField},
		"no field in a table":   {Options{Format: "table {{.Nmae}}"}, lines, "", noField},
		"no field, no rows":     {Options{Format: "{{.Nmae}}"}, nil, "", ""},
		"no template":           {Options{Format: "{{.ID"}, lines, "", badTemplate},
		"no template, as table": {Options{Format: "table {{end}}"}, lines, "", badTemplate},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			err := List(&b, c.opt, c.rows)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) || b.Len() != 0 {
					t.Errorf("got %v after %q, want an error with %q alone", err, &b, c.fails)
				}
				return
			}
			if err != nil || b.String() != c.want {
				t.Errorf("got %q, %v; want %q", &b, err, c.want)
			}
		})
	}
}

// broken is a writer that fails.
type broken struct{}

var errBroken = errors.New("broken")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestListToABrokenWriter(t *testing.T) {
	t.Parallel()
	for _, opt := range []Options{
		{Columns: "ID"}, {JSON: true}, {Format: "json"}, {Format: "{{.ID}}"},
		{Format: "table {{.ID}}"}, {Quiet: true, ID: "ID"},
	} {
		if err := List(broken{}, opt, lines); !errors.Is(err, errBroken) {
			t.Errorf("%+v: got %v, want the writer's error", opt, err)
		}
	}
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	data := map[string]any{
		"Text": "hello wORLD's end-to_end", "List": []string{"a", "b"},
		"Any": []any{"a", int64(2), nil}, "Nil": nil, "Empty": "",
	}
	for template, want := range map[string]string{
		`{{json .List}}`:               `["a","b"]`,
		`{{json "<&>"}}`:               `"<&>"`,
		`{{join .List "-"}}`:           "a-b",
		`{{join .Any "-"}}`:            "a-2-<nil>",
		`{{join .Nil "-"}}`:            "",
		`{{lower .Text}}`:              "hello world's end-to_end",
		`{{upper .Text}}`:              "HELLO WORLD'S END-TO_END",
		`{{title .Text}}`:              "Hello WORLD's End-To_end",
		`{{split "a,b" ","}}`:          "[a b]",
		`{{pad "x" 1 2}}`:              " x  ",
		`{{pad .Empty 1 2}}`:           "",
		`{{pad "x" -1 0}}`:             "x",
		`{{truncate .Text 5}}`:         "hello",
		`{{truncate .Text 500}}`:       "hello wORLD's end-to_end",
		`{{truncate .Text -1}}`:        "hello wORLD's end-to_end",
		`{{.Text | upper | len}}`:      "24",
		`{{join .Text "-"}}`:           "!join: string is not a list",
		`{{.Nothing}}`:                 "!map has no entry for key",
		`{{range .List}}{{.}};{{end}}`: "a;b;",
	} {
		parsed, err := Parse(template)
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		var b strings.Builder
		err = parsed.Execute(&b, data)
		if fault, ok := strings.CutPrefix(want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%s: got %q, %v; want the error %q", template, &b, err, fault)
			}
			continue
		}
		if err != nil || b.String() != want {
			t.Errorf("%s: got %q, %v; want %q", template, &b, err, want)
		}
	}
}

func TestObjects(t *testing.T) {
	t.Parallel()
	objects := []json.RawMessage{
		json.RawMessage(`{"Id": "sha256:1", "Size": 12345678901, "Half": 0.5, "Tags": ["a"]}`),
		json.RawMessage("{\"Id\": \"sha256:2\", \"Size\": 1,\n \"Half\": 1.5, \"Tags\": []}\n"),
	}
	for name, c := range map[string]struct{ text, want, fails string }{
		"array": {
			"", `[
    {
        "Id": "sha256:1",
        "Size": 12345678901,
        "Half": 0.5,
        "Tags": [
            "a"
        ]
    },
    {
        "Id": "sha256:2",
        "Size": 1,
        "Half": 1.5,
        "Tags": []
    }
]
`, "",
		},
		"json": {
			"json", `{"Id":"sha256:1","Size":12345678901,"Half":0.5,"Tags":["a"]}` + "\n" +
				`{"Id":"sha256:2","Size":1,"Half":1.5,"Tags":[]}` + "\n", "",
		},
		"template":         {`{{.Id}}\t{{.Size}}`, "sha256:1\t12345678901\nsha256:2\t1\n", ""},
		"whole numbers":    {"{{eq .Size 1}} {{gt .Half 1.0}}", "false false\ntrue true\n", ""},
		"name of moby's":   {"{{.ID}}", "sha256:1\nsha256:2\n", ""},
		"both names":       {"{{.ID}} {{.Id}}", "sha256:1 sha256:1\nsha256:2 sha256:2\n", ""},
		"no entry":         {"{{.Nothing}}", "", `map has no entry for key "Nothing"`},
		"no template":      {"{{", "", "template: --format"},
		"a function fails": {`{{join .Id ","}}`, "", "join: string is not a list"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			err := Objects(&b, c.text, objects)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) || b.Len() != 0 {
					t.Errorf("got %v after %q, want an error with %q alone", err, &b, c.fails)
				}
				return
			}
			if err != nil || b.String() != c.want {
				t.Errorf("got %q, %v; want %q", &b, err, c.want)
			}
		})
	}
	var b bytes.Buffer
	if err := Objects(&b, "", nil); err != nil || b.String() != "[]\n" {
		t.Errorf("no objects: %q, %v", &b, err)
	}
	for _, text := range []string{"", "json", "{{.Id}}"} {
		if err := Objects(&b, text, []json.RawMessage{json.RawMessage(`{"Id"`)}); err == nil {
			t.Errorf("format %q of what is no JSON: no error", text)
		}
	}
}

func TestObject(t *testing.T) {
	t.Parallel()
	raw := json.RawMessage(`{"Host": {"NCPU": 2, "ApiVersion": "1.51"}, "List": [{"Id": "x"}]}`)
	for text, want := range map[string]string{
		"json": `{"Host":{"ApiVersion":"1.51","NCPU":2},` +
			`"List":[{"Id":"x"}]}`,
		"{{.Host.NumCPU}}":                 "2",
		"{{.Host.APIVersion}}":             "1.51",
		"{{range .List}}{{.ID}}{{end}}":    "x",
		"{{.Host.NCPU}}":                   "2",
		"{{json .Host.NCPU}} {{.List}}":    "2 [map[Id:x]]",
		`{{if eq .Host.NCPU 2}}two{{end}}`: "two",
	} {
		var b bytes.Buffer
		if err := Object(&b, text, raw); err != nil || b.String() != want+"\n" {
			t.Errorf("%s: got %q, %v; want %q", text, &b, err, want)
		}
	}
	var b bytes.Buffer
	if err := Object(&b, "{{.Nothing}}", raw); err == nil || b.Len() != 0 {
		t.Errorf("no entry: %q, %v; want an error alone", &b, err)
	}
}
