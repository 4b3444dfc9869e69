package testneed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recorder is a test that remembers how it was ended.
type recorder struct{ how string }

var errEnded = errors.New("the test was ended")

func (*recorder) Helper() {}

func (r *recorder) Skip(args ...any) {
	r.how = "skip: " + fmt.Sprint(args...)
	panic(errEnded)
}

func (r *recorder) Fatal(args ...any) {
	r.how = "fatal: " + fmt.Sprint(args...)
	panic(errEnded)
}

// record runs a need and returns how the test ended, empty if it goes on.
func record(t *testing.T, need func(T)) string {
	t.Helper()
	var r recorder
	func() {
		defer func() {
			if p := recover(); p != nil && p != errEnded {
				panic(p)
			}
		}()
		need(&r)
	}()
	return r.how
}

func TestNeeds(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "there")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	for _, c := range []struct {
		name string
		need func(T)
		lack string // empty if there is nothing to complain of
	}{
		{"a program", func(t T) {
			if got := Program(t, "there", "p"); got != program {
				panic(fmt.Sprintf("got %q, want %q", got, program))
			}
		}, ""},
		{"no program", func(t T) { Program(t, "strake-absent", "p") }, "strake-absent (package p)"},
		{"a file", func(t T) { File(t, program, "p") }, ""},
		{"no file", func(t T) { File(t, "/strake/absent", "p") }, "/strake/absent (package p)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(Strict, "")
			if got := record(t, c.need); c.lack == "" && got != "" ||
				c.lack != "" && got != "skip: needs "+c.lack {
				t.Errorf("not strict: %q; want a skip for %q", got, c.lack)
			}
			t.Setenv(Strict, "1")
			if got := record(t, c.need); c.lack == "" && got != "" ||
				c.lack != "" && !strings.HasPrefix(got, "fatal: needs "+c.lack) {
				t.Errorf("strict: %q; want a failure for %q", got, c.lack)
			}
		})
	}
}

func TestRoot(t *testing.T) {
	t.Setenv(Strict, "1")
	got := record(t, func(t T) { Root(t, "makes mounts") })
	if want := os.Geteuid() != 0; (got != "") != want {
		t.Errorf("as user %d: %q", os.Geteuid(), got)
	}
}
