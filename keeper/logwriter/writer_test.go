package logwriter

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 120, time.FixedZone("", 3600))

func open(t *testing.T, cfg Config) *Writer {
	t.Helper()
	if cfg.Format == nil {
		cfg.Format = JSON{}
	}
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "log")
	}
	w, err := Open(cfg, &Scratch{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type record struct {
	Log, Stream string
	Time        time.Time
}

func records(t *testing.T, text string) []record {
	t.Helper()
	var list []record
	for line := range strings.Lines(text) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, r)
	}
	return list
}

func TestExactBytes(t *testing.T) {
	t.Parallel()
	w := open(t, Config{})
	w.Write(Stdout, []byte("a\t\"b\\ <&>\x1b[0m\xff\u2028é\r\n"), noon)
	w.Write(Stderr, []byte("half"), noon)
	w.Flush(Stderr, noon)
	w.Flush(Stderr, noon)
	want := `{"log":"a\u0009\"b\\ \u003c\u0026\u003e\u001b[0m\ufffd\u2028é\r\n",` +
		`"stream":"stdout","time":"2026-05-06T11:00:00.00000012Z"}` + "\n" +
		`{"log":"half","stream":"stderr","time":"2026-05-06T11:00:00.00000012Z"}` + "\n"
	if got := content(t, w.cfg.Path); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, tc := range []struct {
		name   string
		writes []string
		want   []string
	}{
		{"one line in pieces", []string{"a", "b", "c\nd"}, []string{"abc\n", "d"}},
		{"empty lines", []string{"\n\n", "\n"}, []string{"\n", "\n", "\n"}},
		{
			"one byte less than a piece", []string{long(maxLine-1) + "\n"},
			[]string{long(maxLine-1) + "\n"},
		},
		{
			"exactly a piece, its newline alone", []string{long(maxLine) + "\nb\n"},
			[]string{long(maxLine), "\n", "b\n"},
		},
		{
			"a piece and a bit", []string{long(maxLine + 5), "y\n"},
			[]string{long(maxLine), "xxxxxy\n"},
		},
		{
			"three pieces in odd writes", []string{long(10000), long(10000), long(20000) + "\n"},
			[]string{long(maxLine), long(maxLine), long(40000-2*maxLine) + "\n"},
		},
		{
			"much at once", []string{strings.Repeat(long(999)+"\n", 300)},
			slices.Repeat([]string{long(999) + "\n"}, 300),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := open(t, Config{})
			for _, s := range tc.writes {
				w.Write(Stdout, []byte(s), noon)
			}
			w.Flush(Stdout, noon)
			var got []string
			for _, r := range records(t, content(t, w.cfg.Path)) {
				got = append(got, r.Log)
			}
			if strings.Join(got, "|") != strings.Join(tc.want, "|") {
				t.Errorf("got %d records, want %d: %.200q", len(got), len(tc.want), got)
			}
		})
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	w := open(t, Config{MaxBytes: 200, MaxFiles: 3})
	// A record is 71 bytes: three fill a file.
	for _, s := range []string{"1\n2\n3\n", "4\n", "5\n6\n7\n8\n9\n"} {
		w.Write(Stdout, []byte(s), noon)
	}
	var got []string
	for _, suffix := range []string{".2", ".1", ""} {
		for _, r := range records(t, content(t, w.cfg.Path+suffix)) {
			got = append(got, r.Log)
		}
		got = append(got, "|")
	}
	if want := "1\n2\n3\n|4\n5\n6\n|7\n8\n9\n|"; strings.Join(got, "") != want {
		t.Errorf("got %q, want %q", strings.Join(got, ""), want)
	}
	w.Write(Stdout, []byte("10\n"), noon)
	if got := records(t, content(t, w.cfg.Path+".2"))[0].Log; got != "4\n" {
		t.Errorf("the oldest file begins with %q, want 4", got)
	}
	if _, err := os.Stat(w.cfg.Path + ".3"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a fourth file: %v", err)
	}
	if n, size := w.Position(); n != 3 || size != int64(len(content(t, w.cfg.Path))) {
		t.Errorf("position %d, %d", n, size)
	}
}

func TestRotationSingleFile(t *testing.T) {
	t.Parallel()
	w := open(t, Config{MaxBytes: 100, MaxFiles: 1})
	w.Write(Stdout, []byte("1\n2\n3\n"), noon)
	if got := records(t, content(t, w.cfg.Path)); len(got) != 1 || got[0].Log != "3\n" {
		t.Errorf("got %v, want only 3", got)
	}
}

// A rotation that fails loses nothing: the old file goes on.
func TestRotationFails(t *testing.T) {
	t.Parallel()
	w := open(t, Config{MaxBytes: 100, MaxFiles: 2})
	if err := os.Mkdir(w.cfg.Path+".1", 0o755); err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, []byte("1\n2\n3\n4\n"), noon)
	if got := records(t, content(t, w.cfg.Path)); len(got) != 4 {
		t.Errorf("got %v, want four records", got)
	}
	if l, ok := w.TakeLoss(); !ok || l.Lines != 0 || !errors.Is(l.Reason, unix.EISDIR) {
		t.Errorf("loss %v %v, want EISDIR and no line", l, ok)
	}
	if left, _ := filepath.Glob(w.cfg.Path + ".new"); left != nil {
		t.Errorf("left over: %v", left)
	}
}

// Somebody else may empty the file; it then grows to its full size again.
func TestEmptiedByOthers(t *testing.T) {
	t.Parallel()
	w := open(t, Config{MaxBytes: 200, MaxFiles: 2})
	w.Write(Stdout, []byte("1\n2\n"), noon)
	if err := os.Truncate(w.cfg.Path, 0); err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, []byte("3\n4\n"), noon)
	if got := records(t, content(t, w.cfg.Path)); len(got) != 2 || got[0].Log != "3\n" {
		t.Errorf("got %v", got)
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("strake-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	w := open(t, Config{Path: filepath.Join(dir, "log")})
	line := bytes.Repeat([]byte("x"), 999)
	line = append(line, '\n')
	const total = 100
	for range total {
		w.Write(Stdout, line, noon)
	}
	l, ok := w.TakeLoss()
	if !ok || !errors.Is(l.Reason, unix.ENOSPC) || l.Lines == 0 {
		t.Fatalf("loss %v %v, want ENOSPC", l, ok)
	}
	before := records(t, content(t, w.cfg.Path)) // all of them whole
	if uint64(len(before))+l.Lines != total {
		t.Errorf("%d written and %d lost of %d", len(before), l.Lines, total)
	}
	if err := os.Truncate(w.cfg.Path, 0); err != nil {
		t.Fatal(err)
	}
	w.Write(Stderr, []byte("again\n"), noon)
	got := records(t, content(t, w.cfg.Path))
	if len(got) != 2 || !strings.HasPrefix(got[0].Log, "strake: ") ||
		!strings.Contains(got[0].Log, "no space left") || got[1].Log != "again\n" {
		t.Errorf("after recovery: %v", got)
	}
	if l, ok := w.TakeLoss(); !ok || l.Reason != nil {
		t.Errorf("recovery is not reported: %v %v", l, ok)
	}
	if _, ok := w.TakeLoss(); ok {
		t.Error("recovery is reported twice")
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		cfg  Config
		want error
	}{
		{"relative", Config{Path: "log"}, errdefs.ErrInvalidArgument},
		{"negative size", Config{Path: "/log", MaxBytes: -1}, errdefs.ErrInvalidArgument},
		{"negative files", Config{Path: "/log", MaxFiles: -1}, errdefs.ErrInvalidArgument},
		{"fifo", Config{Path: fifo}, errdefs.ErrInvalidArgument},
		{"directory", Config{Path: dir}, unix.EISDIR},
		{"symbolic link", Config{Path: link}, unix.ELOOP},
		{"no directory", Config{Path: dir + "/no/log"}, unix.ENOENT},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cfg.Format = JSON{}
			if _, err := Open(tc.cfg, &Scratch{}); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// A record that a crash has cut off is removed; foreign files are left alone.
func TestRepair(t *testing.T) {
	t.Parallel()
	whole := `{"log":"a\n","stream":"stdout","time":"2026-05-06T11:00:00Z"}` + "\n"
	foreign := strings.Repeat("z", 2*JSON{}.MaxRecord())
	for _, tc := range []struct{ name, before, want string }{
		{"whole", whole, whole},
		{"cut off", whole + `{"log":"b`, whole},
		{"only a beginning", `{"log":"b`, ""},
		{"no record of ours", foreign, foreign},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(tc.before), 0o600); err != nil {
				t.Fatal(err)
			}
			open(t, Config{Path: path})
			if got := content(t, path); got != tc.want {
				t.Errorf("got %.80q, want %.80q", got, tc.want)
			}
		})
	}
}

// Whatever comes, the records are JSON and together are the input.
func FuzzWrite(f *testing.F) {
	f.Add([]byte("a\nb\xff\x00\"\\"), 3)
	f.Add(bytes.Repeat([]byte("ü"), maxLine), 1000)
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		if step <= 0 || len(data)/step > 5000 {
			t.Skip()
		}
		w := open(t, Config{})
		for rest := data; len(rest) > 0; {
			n := min(step, len(rest))
			w.Write(Stdout, rest[:n], noon)
			rest = rest[n:]
		}
		w.Flush(Stdout, noon)
		var got, want strings.Builder
		for _, r := range records(t, content(t, w.cfg.Path)) {
			got.WriteString(r.Log)
		}
		for rest := data; len(rest) > 0; { // pieces are cut without regard to characters
			n := bytes.IndexByte(rest, '\n') + 1
			if n == 0 || n > maxLine {
				n = min(maxLine, len(rest))
			}
			want.WriteString(string([]rune(string(rest[:n]))))
			rest = rest[n:]
		}
		if got.String() != want.String() {
			t.Errorf("got %d bytes, want %d", got.Len(), want.Len())
		}
	})
}

// TestAttributes: they stand where Docker's json-file has them, and what was written with longer
// ones is found whole.
func TestAttributes(t *testing.T) {
	t.Parallel()
	long := JSON{`{"a":"` + strings.Repeat("x", maxAttributes-8) + `"}`}
	w := open(t, Config{Format: long})
	w.Write(Stdout, bytes.Repeat([]byte{1}, maxLine), noon)
	w.Write(Stdout, []byte("\n"), noon)
	before := content(t, w.cfg.Path)
	w = open(t, Config{Format: JSON{`{"b":"c"}`}, Path: w.cfg.Path})
	w.Write(Stderr, []byte("line\n"), noon)
	want := before + `{"log":"line\n","stream":"stderr","attrs":{"b":"c"},"time":"` + criTime + "\"}\n"
	if got := content(t, w.cfg.Path); got != want {
		t.Errorf("got %q", strings.TrimPrefix(got, before))
	}
}
