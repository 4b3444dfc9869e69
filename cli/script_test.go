package cli_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"strake/cli"
	"strake/cli/command"
	"strake/cli/internal/verbtest"
)

var update = flag.Bool("update", false, "rewrite the transcripts")

// environment is that of a command in tests.
func environment(t *testing.T, host string) command.Env {
	t.Helper()
	dir := t.TempDir()
	vars := map[string]string{"HOME": dir, "DOCKER_HOST": host}
	return command.Env{
		DefaultHost: host,
		In:          strings.NewReader(""), Out: io.Discard, Err: io.Discard,
		LookupEnv: func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
		Environ:   []string{"HOME=" + dir, "HOSTILE=1"}, Dir: dir,
		Executable: filepath.Join(dir, "bin", "strake"), UID: 0,
		Version: "1.2.3", Commit: "abc",
		Notify: func(chan<- os.Signal, ...os.Signal) {}, StopNotify: func(chan<- os.Signal) {},
		Now: func() time.Time { return now },
		Exec: func(path string, argv, _ []string) error {
			return fmt.Errorf("would execute %s %q", path, argv[1:])
		},
	}
}

// locked is a buffer that goroutines share.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestScripts runs the transcripts in testdata: commands after "$ ", their standard input after "<
// ", then their standard output as it is, their standard error after "! ", "exit N" if that is not
// 0, and after "> " the requests that were made if "requests" follows the command.
func TestScripts(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(raw))
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(raw) {
				t.Errorf("transcript differs:\n%s", difference(got, string(raw)))
			}
		})
	}
}

func play(t *testing.T, script string) string {
	t.Helper()
	e := newEngine(t)
	env := environment(t, "unix://"+e.socket)
	os.WriteFile(filepath.Join(env.Dir, "archive.tar"), []byte("twelve bytes"), 0o644)
	var out strings.Builder
	lines := strings.Split(script, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if strings.HasPrefix(line, "#") {
			out.WriteString(line + "\n")
		}
		text, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		if out.Len() > 0 && !strings.HasSuffix(out.String(), "\n\n") {
			out.WriteString("\n")
		}
		out.WriteString(line + "\n")
		stdin, requests := "", false
		for ; i+1 < len(lines) &&
			(strings.HasPrefix(lines[i+1], "< ") || lines[i+1] == "requests"); i++ {
			out.WriteString(lines[i+1] + "\n")
			if lines[i+1] == "requests" {
				requests = true
			} else {
				stdin += lines[i+1][2:] + "\n"
			}
		}
		args := verbtest.Words(text)
		var stdout, stderr locked
		env := env
		env.In, env.Out, env.Err = strings.NewReader(stdin), &stdout, &stderr
		e.take()
		code := cli.Main(context.Background(), append([]string{"strake"}, args...), env)
		if requests {
			for _, r := range e.take() {
				out.WriteString("> " + r + "\n")
			}
		}
		clean := strings.NewReplacer(
			env.Dir, "HOME", e.socket, "SOCKET", strings.Repeat("1", 64), "ID1",
			strings.Repeat("2", 64), "ID2", strings.Repeat("3", 64), "ID3",
		)
		out.WriteString(clean.Replace(stdout.String()))
		if s := stdout.String(); s != "" && !strings.HasSuffix(s, "\n") {
			out.WriteString("\n")
		}
		for l := range strings.Lines(clean.Replace(stderr.String())) {
			out.WriteString("! " + strings.TrimSuffix(l, "\n") + "\n")
		}
		if code != 0 {
			fmt.Fprintf(&out, "exit %d\n", code)
		}
	}
	return out.String()
}

// difference shows the first line that differs, with those before it.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			return fmt.Sprintf(
				"line %d\ngot:\n%s\nwant:\n%s", i+1,
				strings.Join(g[max(0, i-4):min(len(g), i+4)], "\n"),
				strings.Join(w[max(0, min(i, len(w))-4):min(len(w), i+4)], "\n"),
			)
		}
	}
	return "the transcript ends earlier"
}
