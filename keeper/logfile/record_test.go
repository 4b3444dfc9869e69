package logfile

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"strake/keeper/logwriter"
)

func cri(n int, stream, tag, text string) string {
	at := base.Add(time.Duration(n) * time.Second).Format(time.RFC3339Nano)
	return at + " " + stream + " " + tag + " " + text + "\n"
}

func TestReadCRI(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path+".1", cri(1, "stdout", "F", "a")+cri(2, "stderr", "F", "b  b"))
	write(
		t, path,
		cri(3, "stdout", "P", "c")+cri(4, "stdout", "F", "d")+strings.Repeat("\x00", 50)+
			cri(5, "stderr", "F:more:tags", "")+
			cri(6, "stdout", "X", "no tag")+cri(6, "stdlog", "F", "no stream")+
			"yesterday stdout F no time\n"+"short\n"+"\n"+
			entry(7, "stdout", "another format\n")+
			"2026-01-01T00:00:09Z stdout F unfin",
	)
	var got strings.Builder
	for _, o := range []Options{
		{Stdout: true, Stderr: true, Tail: -1},
		{Stderr: true, Tail: 1},
		{Stdout: true, Tail: -1, Since: base.Add(4 * time.Second)},
	} {
		err := Read(t.Context(), path, o, func(l Line) error {
			got.WriteString(l.Text)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString("|")
	}
	if want := "a\nb  b\ncd\n\nanother format\n|\n|d\nanother format\n|"; got.String() != want {
		t.Errorf("got %q, want %q", got.String(), want)
	}
}

// What the keeper's writer writes, in either format, is read as it was written.
func FuzzRead(f *testing.F) {
	f.Add([]byte("a\nb\xff\x00\"\\\r\n\n"), uint8(3), false)
	f.Add(bytes.Repeat([]byte("x"), 40000), uint8(255), true)
	f.Fuzz(func(t *testing.T, data []byte, step uint8, asCRI bool) {
		if step == 0 || len(data)/int(step) > 5000 {
			return
		}
		cfg := logwriter.Config{
			Format: logwriter.JSON{}, Path: filepath.Join(t.TempDir(), "log"),
			MaxBytes: 1 << 20, MaxFiles: 3,
		}
		if asCRI {
			cfg.Format = logwriter.CRI{}
		}
		w, err := logwriter.Open(cfg, &logwriter.Scratch{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for rest := data; len(rest) > 0; {
			n := min(int(step), len(rest))
			w.Write(logwriter.Stdout, rest[:n], base)
			rest = rest[n:]
		}
		w.Flush(logwriter.Stdout, base)
		var got bytes.Buffer
		read := func(l Line) error { got.WriteString(l.Text); return nil }
		o := Options{Stdout: true, Tail: -1}
		if err := Read(context.Background(), cfg.Path, o, read); err != nil {
			t.Fatal(err)
		}
		const piece = 16 << 10
		want := data
		if asCRI {
			last := data[bytes.LastIndexByte(data, '\n')+1:]
			if len(last)%piece != 0 { // the format cannot say that the newline is missing
				want = append(bytes.Clone(data), '\n')
			}
		} else if !utf8.Valid(data) || len(data) > piece {
			return // JSON cannot hold it; the writer's own test says what becomes of it
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("got %d bytes, want %d", got.Len(), len(want))
		}
	})
}

// Hostile records are skipped or delivered, and never more than what they hold.
func FuzzParse(f *testing.F) {
	f.Add([]byte(cri(1, "stdout", "P:x", "text")))
	f.Add([]byte(entry(1, "stderr", "text\n")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, ok := parse(raw)
		if ok && l.Stream != "" && raw[0] != '{' && len(l.Text) > len(raw) {
			t.Errorf("%q: text of %d bytes", raw, len(l.Text))
		}
	})
}
