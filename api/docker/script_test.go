package docker

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
)

// TestScripts sends the requests of testdata/script to an API with a backend of fakes and compares
// what happens with what is written there. A script consists of
//
//   - requests, one a line: method, path and, if there is one, the body;
//   - below each request, indented: the calls that change something in the backend or cost it
//     something, and the answer;
//   - "fail METHOD CLASS" (classes in fake_test.go), "header NAME VALUE" and "front JSON", which
//     hold for the next request;
//   - comments.
//
// -update rewrites what is indented. The time is that of testing/synctest and stands still.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "script", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			synctest.Test(t, func(t *testing.T) { got = run(t, string(raw)) })
			compareGolden(t, file, got)
		})
	}
}

// run executes a script and returns it as it should read.
func run(t *testing.T, script string) string {
	t.Helper()
	f := newFake(time.Now())
	header := http.Header{}
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSuffix(script, "\n"), "\n") {
		if strings.HasPrefix(line, "  ") {
			continue
		}
		fmt.Fprintln(&out, line)
		word, rest, _ := strings.Cut(line, " ")
		first, second, _ := strings.Cut(rest, " ")
		switch word {
		case "", "#":
		case "fail":
			err, ok := classes[second]
			if !ok {
				t.Fatalf("%q: no such class", line)
			}
			f.failures[first] = fmt.Errorf("%s: %w", first, err)
		case "header":
			header.Set(first, second)
		case "front":
			f.engine.front = []byte(rest)
		case http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodHead, http.MethodPut:
			out.WriteString(exchange(f, word, first, second, header))
			clear(f.failures)
			header, f.engine.front = http.Header{}, nil
		default:
			t.Fatalf("%q: no request", line)
		}
	}
	return out.String()
}

// exchange sends a request and describes what became of it.
func exchange(f *fakeBackend, method, path, body string, header http.Header) string {
	path = strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22", "|", "%7C").Replace(path)
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header = header
	w := httptest.NewRecorder()
	aborted := serve(f.h, w, r)
	var out strings.Builder
	for _, call := range f.taken() {
		fmt.Fprintf(&out, "  %s\n", call)
	}
	fmt.Fprintf(&out, "  %d", w.Code)
	if kind := w.Header().Get("Content-Type"); kind != "" && kind != "application/json" {
		fmt.Fprintf(&out, " (%s)", kind)
	}
	text := w.Body.String()
	if strings.IndexFunc(text, func(c rune) bool { return c != '\n' && !unicode.IsPrint(c) }) >= 0 {
		text = fmt.Sprintf("%q", text)
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if lines[0] != "" {
		out.WriteString(" " + lines[0])
	}
	out.WriteString("\n")
	for _, l := range lines[1:] {
		fmt.Fprintf(&out, "      %s\n", l)
	}
	if aborted {
		out.WriteString("  connection aborted\n")
	}
	return short(out.String())
}

// serve says whether the handler broke the connection off.
func serve(h http.Handler, w http.ResponseWriter, r *http.Request) (aborted bool) {
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			aborted = true
		}
	}()
	h.ServeHTTP(w, r)
	return false
}

// short writes IDs of one repeated digit as that digit.
func short(text string) string {
	for _, c := range "0123456789abcdef" {
		text = strings.ReplaceAll(text, strings.Repeat(string(c), 64), string(c)+"..")
	}
	return text
}
