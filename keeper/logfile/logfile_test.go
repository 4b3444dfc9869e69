package logfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var base = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func entry(n int, stream, text string) string {
	return fmt.Sprintf(
		"{\"log\":%q,\"stream\":%q,\"time\":%q}\n", text, stream,
		base.Add(time.Duration(n)*time.Second).Format(time.RFC3339Nano),
	)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func collect(t *testing.T, path string, o Options) string {
	t.Helper()
	var out []string
	err := Read(t.Context(), path, o, func(l Line) error {
		out = append(out, strings.TrimSuffix(l.Text, "\n"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c-json.log")
	write(t, path+".2", entry(1, "stdout", "a\n")+entry(2, "stderr", "b\n"))
	write(
		t, path+".1",
		entry(3, "stdout", "c\n")+"garbage\n"+strings.Repeat("\x00", 100)+entry(4, "stderr", "d\n"),
	)
	write(
		t, path,
		entry(5, "stdout", "e\n")+entry(6, "stdout", "f")+entry(
			7, "stderr", strings.Repeat("g", 100<<10),
		)+entry(8, "stdout", "h\n")+`{"log":"unfin`,
	)
	g := strings.Repeat("g", 100<<10)
	all := Options{Stdout: true, Stderr: true, Tail: -1}
	for _, tt := range []struct {
		name, want string
		o          func(*Options)
	}{
		{"all", "a b c d e f " + g + " h", func(o *Options) {}},
		{"stdout", "a c e f h", func(o *Options) { o.Stderr = false }},
		{"none", "", func(o *Options) { o.Stdout, o.Stderr = false, false }},
		{"tail 0", "", func(o *Options) { o.Tail = 0 }},
		{"tail 1", "h", func(o *Options) { o.Tail = 1 }},
		{"tail 2 across a block", g + " h", func(o *Options) { o.Tail = 2 }},
		{"tail 5 across files", "d e f " + g + " h", func(o *Options) { o.Tail = 5 }},
		{"tail 3 of a stream", "c e f h", func(o *Options) { o.Tail = 4; o.Stderr = false }},
		{
			"tail of more than there is", "a b c d e f " + g + " h",
			func(o *Options) { o.Tail = 100 },
		},
		{"since", "e f " + g + " h", func(o *Options) { o.Since = base.Add(5 * time.Second) }},
		{"until", "a b c", func(o *Options) { o.Until = base.Add(3 * time.Second) }},
		{"window", "b c", func(o *Options) {
			o.Since, o.Until = base.Add(2*time.Second), base.Add(3*time.Second)
		}},
	} {
		o := all
		tt.o(&o)
		if got := collect(t, path, o); got != tt.want {
			t.Errorf("%s: got %.200q (%d bytes), want %.200q", tt.name, got, len(got), tt.want)
		}
	}
	if got := collect(t, path+"-missing", all); got != "" {
		t.Errorf("missing log: %q", got)
	}
	stop := errors.New("enough")
	if err := Read(t.Context(), path, all, func(Line) error { return stop }); err != stop {
		t.Errorf("emit's error: %v", err)
	}
}

func TestDamagedFileIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	write(
		t, path,
		entry(1, "stdout", "first\n")+strings.Repeat("\x00", 3*MaxLine)+"\n"+entry(
			2, "stdout", "last\n",
		),
	)
	for _, tail := range []int{-1, 2} {
		if got := collect(t, path, Options{Stdout: true, Tail: tail}); got != "first last" {
			t.Errorf("tail %d: %q", tail, got)
		}
	}
}

// TestFollow writes, rotates and truncates under a follower's eyes.
func TestFollow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, entry(1, "stdout", "old\n")+entry(2, "stdout", "1\n"))
	done := make(chan struct{})
	lines := make(chan string, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- Read(context.Background(), path, Options{
			Stdout: true, Stderr: true, Tail: 1, Follow: true, Done: done,
		}, func(l Line) error {
			lines <- strings.TrimSpace(l.Text)
			return nil
		})
	}()
	expect := func(want ...string) {
		t.Helper()
		var got []string
		for range want {
			select {
			case l := <-lines:
				got = append(got, l)
			case <-time.After(10 * time.Second):
				t.Fatalf("got %q, then nothing; want %q", got, want)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	rotate := func() {
		os.Rename(path+".1", path+".2")
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
	}
	expect("1")
	two := entry(3, "stderr", "2\n")
	write(t, path, two[:10])
	write(t, path, two[10:])
	expect("2")
	write(t, path, entry(4, "stdout", "3\n"))
	rotate()
	write(t, path, entry(5, "stdout", "4\n"))
	rotate()
	write(t, path, entry(6, "stdout", "5\n"))
	expect("3", "4", "5")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	expectNothing := len(lines)
	write(t, path, entry(7, "stdout", "6\n"))
	expect("6")
	write(t, path, entry(8, "stdout", "last\n"))
	close(done)
	expect("last")
	if err := <-ended; err != nil || expectNothing != 0 || len(lines) != 0 {
		t.Errorf("ended with %v, %d lines too many", err, expectNothing+len(lines))
	}
}

func TestFollowEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Read(ctx, path, Options{Stdout: true, Tail: -1, Follow: true}, func(Line) error {
			cancel()
			return nil
		})
	}()
	write(t, path, entry(1, "stdout", "x\n")) // the log may begin to exist later
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a cancelled follower goes on")
	}
	err := Read(t.Context(), path, Options{
		Stdout: true, Tail: -1, Follow: true, Until: time.Now().Add(50 * time.Millisecond),
	}, func(Line) error {
		return nil
	})
	if err != nil {
		t.Errorf("until in the future: %v", err)
	}
}
