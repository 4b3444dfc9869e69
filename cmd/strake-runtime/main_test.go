package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestLog: the file of --log is there after each command, and has errors and warnings in the form
// that engines read.
func TestLog(t *testing.T) {
	dir := t.TempDir()
	do := func(words ...string) (code int, errors string) {
		var b bytes.Buffer
		args := append([]string{"strake-runtime", "--root", filepath.Join(dir, "root")}, words...)
		return run(t.Context(), args, io.Discard, &b), b.String()
	}
	if err := os.Mkdir(filepath.Join(dir, "root"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "log")
	read := func() string {
		t.Helper()
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	if code, _ := do("--log", file, "list"); code != 0 || read() != "" {
		t.Errorf("list: exit code %d, log %q", code, read())
	}
	code, shown := do("--log", file, "--log-format", "json", "state", "x\"y")
	if code != 1 || !strings.HasPrefix(shown, "strake-runtime: ") {
		t.Errorf("state: exit code %d, %q", code, shown)
	}
	var entry struct {
		Level, Msg string
		Time       time.Time
	}
	if err := json.Unmarshal([]byte(read()), &entry); err != nil || entry.Level != "error" ||
		entry.Time.IsZero() || "strake-runtime: "+entry.Msg+"\n" != shown {
		t.Errorf("json: %q, %v", read(), err)
	}
	if err := os.Truncate(file, 0); err != nil {
		t.Fatal(err)
	}
	do("--log", file, "state", "none")
	want := regexp.MustCompile(`^time="[0-9TZ:-]+" level=error msg="container \\"none\\" .*"\n$`)
	if !want.MatchString(read()) {
		t.Errorf("text: %q", read())
	}
	if code, shown := do("--log", dir, "list"); code != 1 || !strings.Contains(shown, "--log") {
		t.Errorf("a directory as the log: exit code %d, %q", code, shown)
	}
}

// TestDebug: what --debug says goes to standard error, or to the log alone.
func TestDebug(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "log")
	for _, c := range []struct {
		app  app
		want string
	}{
		{app{logFormat: "text", debug: true}, `^time="[^"]+" level=debug msg="step 7"\n$`},
		{app{logFormat: "json", debug: true, logFile: file},
			`^{"level":"debug","msg":"step 7","time":"[^"]+"}\n$`},
		{app{logFormat: "text"}, `^$`},
	} {
		var shown bytes.Buffer
		c.app.err = &shown
		if err := c.app.openLog(); err != nil {
			t.Fatal(err)
		}
		if c.app.rt.Debug != nil {
			c.app.rt.Debug("step %d", 7)
		}
		got := shown.String()
		if c.app.logTo != nil {
			raw, err := os.ReadFile(file)
			if err != nil || got != "" {
				t.Errorf("%v, %q on standard error", err, got)
			}
			got = string(raw)
			c.app.logTo.Close()
		}
		if !regexp.MustCompile(c.want).MatchString(got) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestNearFlag: a mistyped option is answered with the one that was perhaps meant.
func TestNearFlag(t *testing.T) {
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"update", "--memroy", "5", "x"}, "unknown flag: --memroy; did you mean --memory?"},
		{[]string{"--lgo", "x", "list"}, "unknown flag: --lgo; did you mean --log?"},
		{[]string{"run", "--detahc", "x"}, "did you mean --detach?"},
		{[]string{"run", "--nothing-like-it", "x"}, "flag provided but not defined"},
	} {
		var shown bytes.Buffer
		args := append([]string{"strake-runtime"}, c.words...)
		if code := run(t.Context(), args, io.Discard, &shown); code == 0 ||
			!strings.Contains(shown.String(), c.want) {
			t.Errorf("%q: exit code %d, %q; want %q", c.words, code, shown.String(), c.want)
		}
	}
}

// TestCgroupManager: crun's option is taken with the value that says what is done anyway.
func TestCgroupManager(t *testing.T) {
	for value, want := range map[string]int{"cgroupfs": 0, "systemd": 1, "disabled": 1} {
		args := []string{"strake-runtime", "--cgroup-manager=" + value, "--root", t.TempDir(), "list"}
		var shown bytes.Buffer
		if code := run(t.Context(), args, io.Discard, &shown); code != want {
			t.Errorf("%s: exit code %d, %q", value, code, shown.String())
		}
	}
}
