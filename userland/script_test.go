package userland

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// TestMain lets the test binary be the applets: it may be linked under their names, as strake-base
// is in the image.
func TestMain(m *testing.M) {
	if a, ok := Lookup(filepath.Base(os.Args[0])); ok {
		os.Exit(
			a.Serve(
				context.Background(),
				&Call{
					Name: a.Name, Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout,
					Stderr: os.Stderr, Env: os.Environ(),
				},
			),
		)
	}
	os.Exit(m.Run())
}

// links makes a directory in which this program goes by the name of every applet.
func links(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return linksTo(t, self)
}

// build makes the program that the image has. Scripts start thousands of processes: as this program
// with the race detector in it, they would take minutes.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "strake-base")
	cmd := exec.CommandContext(
		t.Context(), "go", "build", "-o", program, "strake/userland/strake-base",
	)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

func linksTo(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	for _, a := range Applets() {
		if err := os.Symlink(program, filepath.Join(dir, a.Name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// busyboxLinks is links for busybox. It returns an empty string where that is not installed, and
// fails the test under `make test`, which installs it and sets STRAKE_TEST_STRICT.
func busyboxLinks(t *testing.T) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		if os.Getenv("STRAKE_TEST_STRICT") != "" {
			t.Fatal("needs busybox (package busybox-static), and STRAKE_TEST_STRICT is set")
		}
		return ""
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range strings.Fields(string(list)) {
		if err := os.Symlink(busybox, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// scriptCase is a case of a file in testdata:
//
//	=== NAME [# why busybox differs]
//	SCRIPT
//	--- [STATUS]
//	what it prints; "! " begins a line of standard error
type scriptCase struct {
	name, differs, script, want string
	line                        int
}

func readScripts(t *testing.T, name string) []scriptCase {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []scriptCase
	part := 0
	for i, l := range strings.SplitAfter(string(b), "\n") {
		switch {
		case strings.HasPrefix(l, "=== "):
			n, why, _ := strings.Cut(strings.TrimSpace(l[4:]), " # ")
			out = append(out, scriptCase{name: n, differs: why, line: i + 1})
			part = 1
		case strings.HasPrefix(l, "---") && part == 1:
			out[len(out)-1].want = l
			part = 2
		case part == 1:
			out[len(out)-1].script += l
		case part == 2:
			out[len(out)-1].want += l
		}
	}
	return out
}

// fixture makes the files that every script finds in its directory.
func fixture(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"fruit":      "pear\napple\nfig\napple\n",
		"numbers":    "10\n9\n100\n-1\n2.5\n",
		"table":      "root:0:/root\nbin:1:/bin\nann:1000:/home/ann\n",
		"long":       "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n",
		"noeol":      "one\ntwo",
		"empty":      "",
		"d/inner":    "inside\n",
		"d/e/deep":   "deeper\n",
		"d/.hidden":  "dot\n",
		"spaced out": "a b\n",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, name := range []string{
		"fruit", "numbers", "table", "long", "noeol", "empty", "d/inner", "d/e/deep", "d/.hidden",
		"d/e", "d", "spaced out",
	} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// outcome is what a script printed, in the form of testdata.
func outcome(stdout, stderr string, status int) string {
	var b strings.Builder
	b.WriteString("---")
	if status != 0 {
		fmt.Fprintf(&b, " %d", status)
	}
	b.WriteString("\n" + stdout)
	if stdout != "" && !strings.HasSuffix(stdout, "\n") {
		b.WriteString("%\n") // the missing newline, shown
	}
	for l := range strings.Lines(stderr) {
		b.WriteString("! " + strings.TrimSuffix(l, "\n") + "\n")
	}
	return b.String()
}

var stderrLine = regexp.MustCompile(`(?m)^! .*\n?`)

// TestScripts runs every script of testdata with this package's shell and commands and compares
// with what is written there. Where busybox is installed, it gets the same scripts and has to agree
// on output and status (messages are worded differently by everyone), so that the expectations are
// not merely what this package happens to do.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata: %v, %d files", err, len(files))
	}
	bin, peer := linksTo(t, build(t)), busyboxLinks(t)
	for _, file := range files {
		cases := readScripts(t, file)
		if *update {
			rewrite(t, file, cases, bin)
			continue
		}
		for _, tc := range cases {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				if got := runScript(t, filepath.Join(bin, "sh"), bin, tc.script); got != tc.want {
					t.Errorf("%s:%d:\n%sgot:\n%swant:\n%s", file, tc.line, tc.script, got, tc.want)
				}
				if peer == "" || tc.differs != "" {
					return
				}
				// A status is enough to tell that there was a message.
				got := stderrLine.ReplaceAllString(
					runScript(t, filepath.Join(peer, "sh"), peer, tc.script), "",
				)
				if want := stderrLine.ReplaceAllString(tc.want, ""); got != want {
					t.Errorf(
						"%s:%d: busybox disagrees:\n%sbusybox:\n%sexpected here:\n%s", file,
						tc.line, tc.script, got, want,
					)
				}
			})
		}
	}
}

func rewrite(t *testing.T, file string, cases []scriptCase, bin string) {
	t.Helper()
	var b strings.Builder
	for _, tc := range cases {
		head := "=== " + tc.name
		if tc.differs != "" {
			head += " # " + tc.differs
		}
		b.WriteString(
			head + "\n" + tc.script + runScript(t, filepath.Join(bin, "sh"), bin, tc.script),
		)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func runScript(t *testing.T, shell, path, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := fixture(t)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, shell, "-c", script)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = []string{"PATH=" + path, "HOME=" + dir, "TZ=UTC", "LC_ALL=C"}
	err := cmd.Run()
	var ee *exec.ExitError
	status := 0
	switch {
	case errors.As(err, &ee):
		if status = ee.ExitCode(); status < 0 {
			status = exitSignal + int(ee.Sys().(syscall.WaitStatus).Signal())
		}
	case err != nil:
		t.Fatal(err)
	}
	hide := strings.NewReplacer(dir, "$DIR", path, "$BIN")
	return outcome(hide.Replace(stdout.String()), hide.Replace(stderr.String()), status)
}
