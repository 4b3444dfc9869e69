package progress_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"strake/cli/progress"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const pulling = `{"status":"Pulling from library/thing","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Waiting","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Downloading","progressDetail":{"current":1500000,"total":12400000},"progress":"x","id":"aaaaaaaaaaaa"}
{"status":"Downloading","progressDetail":{"current":12400000,"total":12400000},"id":"aaaaaaaaaaaa"}
{"status":"Extracting","progressDetail":{"current":3,"units":"s"},"id":"aaaaaaaaaaaa"}
{"status":"Pull complete","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Downloading","progressDetail":{"current":77},"id":"bbbbbbbbbbbb"}
{"status":"Pull complete","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Digest: sha256:1234"}
{"aux":{"Tag":"latest"}}
`

// screen is a terminal of a width that understands what progress writes. It fails the test if a
// line reaches the last column.
type screen struct {
	t       *testing.T
	columns int
	lines   []string
	row     int
	frames  []string
}

func (s *screen) Write(p []byte) (int, error) {
	text := string(p)
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\x1b[J"):
			s.lines = s.lines[:s.row]
			text = text[3:]
		case strings.HasPrefix(text, "\x1b["):
			var n int
			fmt.Sscanf(text, "\x1b[%dA", &n)
			s.row -= n
			if s.row < 0 {
				s.t.Error("the cursor left the screen")
				s.row = 0
			}
			_, text, _ = strings.Cut(text, "A")
		default:
			var line string
			line, text, _ = strings.Cut(text, "\n")
			line = strings.TrimSuffix(strings.TrimPrefix(line, "\r"), "\x1b[K")
			if n := len([]rune(line)); n >= s.columns {
				s.t.Errorf("a line of %d columns on a terminal of %d: %q", n, s.columns, line)
			}
			for len(s.lines) <= s.row {
				s.lines = append(s.lines, "")
			}
			s.lines[s.row] = line
			s.row++
		}
	}
	s.frames = append(s.frames, strings.Join(s.lines, "\n"))
	return len(p), nil
}

// clock goes on a second with every look.
func clock() func() time.Time {
	t := time.Unix(0, 0)
	return func() time.Time { t = t.Add(time.Second); return t }
}

func TestOnTerminals(t *testing.T) {
	t.Parallel()
	for _, size := range [][2]int{{200, 50}, {80, 24}, {40, 24}, {12, 24}, {80, 3}, {1, 1}} {
		name := fmt.Sprintf("%dx%d", size[0], size[1])
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &screen{t: t, columns: max(size[0], 2)}
			err := progress.Show(strings.NewReader(pulling), progress.Options{
				Out: s, Now: clock(), Size: func() (int, int) { return size[0], size[1] },
				Status: func(string) bool { return true },
			})
			if err != nil {
				t.Fatal(err)
			}
			golden := "testdata/" + name + ".txt"
			got := strings.Join(s.frames, "\n----\n") + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestInPipe(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	var aux string
	err := progress.Show(
		strings.NewReader(pulling),
		progress.Options{
			Out: &out, Now: clock(), Aux: func(raw json.RawMessage) { aux = string(raw) },
		},
	)
	want := "latest: Pulling from library/thing\naaaaaaaaaaaa: Pulling fs layer\nbbbbbbbbbbbb: " +
		"Waiting\naaaaaaaaaaaa: Pull complete\nbbbbbbbbbbbb: Pull complete\nDigest: sha256:1234\n"
	if err != nil || out.String() != want || aux != `{"Tag":"latest"}` {
		t.Errorf("got %v, aux %s:\n%s\nwant:\n%s", err, aux, out.String(), want)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"status":"x","id":"a"}{"error":"old form"}`:                            "old form",
		`{"errorDetail":{"code":1,"message":"it broke"},"error":"it broke too"}`: "it broke",
		`{"status":"x"`: "unexpected EOF",
		`nonsense`:      "read the engine's progress",
	} {
		var out strings.Builder
		err := progress.Show(
			strings.NewReader(in), progress.Options{Out: &out, Now: clock(), Quiet: true},
		)
		if err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%s: got %v and %q, want %q", in, err, out.String(), want)
		}
		var stream *progress.StreamError
		if strings.Contains(in, "error") && !errors.As(err, &stream) {
			t.Errorf("%s: got %T", in, err)
		}
	}
}

func TestRedrawsAreLimited(t *testing.T) {
	t.Parallel()
	var in strings.Builder
	for i := range 1000 {
		fmt.Fprintf(
			&in, `{"status":"Downloading","progressDetail":{"current":%d,"total":1000},"id":"a"}`,
			i+1,
		)
	}
	s := &screen{t: t, columns: 80}
	at := time.Unix(0, 0)
	err := progress.Show(
		strings.NewReader(in.String()),
		progress.Options{Out: s, Size: func() (int, int) { return 80, 24 }, Now: func() time.Time {
			at = at.Add(time.Millisecond)
			return at
		}},
	)
	if err != nil || len(s.frames) > 20 {
		t.Errorf("%d redraws in a second, %v", len(s.frames), err)
	}
	if last := s.frames[len(s.frames)-1]; !strings.Contains(last, "1kB/1kB") {
		t.Errorf("the end is not shown: %q", last)
	}
}
