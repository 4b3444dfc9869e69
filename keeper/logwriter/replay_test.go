package logwriter

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What the dead Writer had before its last Write, and what that was given.
const replayedBefore = "old\nbegun, "

func replayedData() []byte {
	return []byte(
		strings.Repeat("x", 2*maxLine+7) + "\n\n" + strings.Repeat("y\n", 9) + "half",
	)
}

// A Write is repeated after the Writer was killed at any record of it: the log is what it would
// have been, with long lines, and a line that was begun before.
func TestReplay(t *testing.T) {
	t.Parallel()
	for _, format := range []Format{JSON{}, CRI{}} {
		w := open(t, Config{Format: format})
		w.Write(Stdout, []byte(replayedBefore), noon)
		mark := w.Mark(Stdout)
		w.Write(Stdout, replayedData(), noon)
		written := strings.SplitAfter(strings.TrimSuffix(content(t, w.cfg.Path), "\n"), "\n")
		w.Flush(Stdout, noon)
		want := content(t, w.cfg.Path)
		// If nothing was written, the beginning of the line is lost with the Writer.
		w = open(t, Config{Format: format})
		w.Write(Stdout, []byte("old\n"), noon)
		w.Write(Stdout, replayedData(), noon)
		w.Flush(Stdout, noon)
		wantWhole := content(t, w.cfg.Path)
		for killed := 1; killed <= len(written); killed++ {
			path := filepath.Join(t.TempDir(), "log")
			text := strings.TrimSuffix(strings.Join(written[:killed], ""), "\n") + "\n"
			if err := os.WriteFile(path, []byte(text+"{cut off"), 0o600); err != nil {
				t.Fatal(err)
			}
			w := open(t, Config{Format: format, Path: path})
			at := mark
			at.File = w.Mark(Stdout).File
			w.Replay(Stdout, replayedData(), &at, noon)
			if n := len(w.Pending(Stdout)); n != len("half") {
				t.Errorf("%T: killed after %d records: %d bytes pending", format, killed, n)
			}
			w.Flush(Stdout, noon)
			wanted := want
			if killed == 1 {
				wanted = wantWhole
			}
			if got := content(t, path); got != wanted {
				t.Errorf(
					"%T: killed after %d records: %d bytes, want %d", format, killed, len(got),
					len(wanted),
				)
			}
		}
	}
}

// A Write that was finished writes nothing again, however many files it has begun.
func TestReplayAfterRotation(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{Format: CRI{}, MaxBytes: 40000, MaxFiles: 3},
		{Format: CRI{}, MaxBytes: 300, MaxFiles: 50},
		{Format: JSON{}, MaxBytes: 1000, MaxFiles: 1},
	} {
		w := open(t, cfg)
		w.Write(Stdout, []byte(replayedBefore), noon)
		mark := w.Mark(Stdout)
		w.Write(Stdout, replayedData(), noon)
		list := func() string {
			var all strings.Builder
			for i := range max(cfg.MaxFiles, 1) {
				name := w.cfg.Path
				if i > 0 {
					name += "." + strconv.Itoa(i)
				}
				text, err := os.ReadFile(name)
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				all.Write(text)
				all.WriteString("|")
			}
			return all.String()
		}
		before := list()
		cfg.Path = w.cfg.Path
		w.Close()
		again := open(t, cfg)
		again.Replay(Stdout, replayedData(), &mark, noon)
		if after := list(); cfg.MaxFiles > 1 && after != before {
			t.Errorf("%+v: %d bytes became %d", cfg, len(before), len(after))
		}
		if got := string(again.Pending(Stdout)); got != "half" {
			t.Errorf("%+v: %.40q is pending", cfg, got)
		}
	}
}

// A Write that had not begun is repeated whole, and so is one of which nothing can be found out.
func TestReplayWhole(t *testing.T) {
	t.Parallel()
	w := open(t, Config{})
	w.Write(Stdout, []byte("1\n"), noon)
	w.Replay(Stdout, []byte("2\n3"), nil, noon)
	w.Replay(Stdout, []byte("\n4\n"), &Mark{File: w.file, Size: 1 << 40}, noon)
	w.Replay(Stdout, []byte("5\n"), &Mark{File: 1}, noon)
	w.Replay(Stdout, nil, &Mark{File: w.file, Pending: 1 << 40}, noon)
	var got strings.Builder
	for _, r := range records(t, content(t, w.cfg.Path)) {
		got.WriteString(r.Log)
	}
	if got.String() != "1\n2\n3\n4\n5\n" {
		t.Errorf("got %q", got.String())
	}
}
