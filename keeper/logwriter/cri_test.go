package logwriter

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

const criTime = "2026-05-06T11:00:00.00000012Z"

func TestCRIExactBytes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine)
	for _, tc := range []struct {
		name   string
		writes []string
		want   []string
	}{
		{"a line", []string{"a \t\"\xff\r\n"}, []string{"F a \t\"\xff\r"}},
		{"an empty line", []string{"\n"}, []string{"F "}},
		{"one line in pieces", []string{"a", "b\nc"}, []string{"F ab", "F c"}},
		{"a piece and a bit", []string{long + "yy", "z\n"}, []string{"P " + long, "F yyz"}},
		{"exactly a piece", []string{long + "\n"}, []string{"P " + long, "F "}},
		{
			"three pieces, no newline", []string{long + long + "y"},
			[]string{"P " + long, "P " + long, "F y"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := open(t, Config{Format: CRI{}})
			for _, text := range tc.writes {
				w.Write(Stdout, []byte(text), noon)
			}
			w.Flush(Stdout, noon)
			var want strings.Builder
			for _, l := range tc.want {
				want.WriteString(criTime + " stdout " + l + "\n")
			}
			if got := content(t, w.cfg.Path); got != want.String() {
				t.Errorf("got  %.200q\nwant %.200q", got, want.String())
			}
		})
	}
	w := open(t, Config{Format: CRI{}})
	w.Write(Stderr, []byte("e\n"), noon)
	if got, want := content(t, w.cfg.Path), criTime+" stderr F e\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A record is never longer than the format says: repair relies on it.
func TestMaxRecord(t *testing.T) {
	t.Parallel()
	// The longest time, and the byte with the longest escape.
	at := time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)
	line := bytes.Repeat([]byte{1}, maxLine)
	attributes := `{"a":"` + strings.Repeat("x", maxAttributes-8) + `"}`
	for _, f := range []Format{JSON{}, JSON{attributes}, CRI{}} {
		for _, end := range []LineEnd{Newline, Split, EndOfStream} {
			if n := len(f.AppendRecord(nil, line, end, Stderr, at)); n > f.MaxRecord() {
				t.Errorf("%T: a record of %d bytes, at most %d are promised", f, n, f.MaxRecord())
			}
		}
	}
}

// The kubelet rotates a log by renaming it and asking for a new file.
func TestReopen(t *testing.T) {
	t.Parallel()
	w := open(t, Config{Format: CRI{}})
	w.Write(Stdout, []byte("1\nhalf "), noon)
	if err := os.Rename(w.cfg.Path, w.cfg.Path+".old"); err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, []byte("line\n"), noon) // still to the renamed file
	if err := w.Reopen(); err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, []byte("3\n"), noon)
	record := func(text string) string { return criTime + " stdout F " + text + "\n" }
	if got, want := content(t, w.cfg.Path+".old"), record("1")+record("half line"); got != want {
		t.Errorf("renamed file %q, want %q", got, want)
	}
	if got, want := content(t, w.cfg.Path), record("3"); got != want {
		t.Errorf("new file %q, want %q", got, want)
	}
}

func TestCRIRepair(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	whole := criTime + " stdout F a\n"
	if err := os.WriteFile(path, []byte(whole+criTime+" stdo"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, Config{Format: CRI{}, Path: path})
	if got := content(t, path); got != whole {
		t.Errorf("got %q, want %q", got, whole)
	}
}

func TestFormatIsRequired(t *testing.T) {
	t.Parallel()
	if _, err := Open(Config{Path: "/log"}, &Scratch{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}
