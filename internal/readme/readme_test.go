// Package readme holds the test of the program in README.md.
package readme

import (
	"bytes"
	"errors"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"strake/internal/testneed"
)

// TestLibrary builds the program of README.md, "As a library", in a module outside of this one, the
// way that the section says, and runs it. The module cache has all that it needs.
func TestLibrary(t *testing.T) {
	t.Parallel()
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	section, code := library(t, repo)
	formatted, err := format.Source(code)
	if err != nil || !bytes.Equal(formatted, code) {
		t.Errorf("the program is not formatted by gofmt: %v", err)
	}

	dir := t.TempDir()
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("main.go", code)
	write("go.mod", []byte("module my-program\n\ngo "+goVersion(t, repo)+"\n"))
	sums, err := os.ReadFile(filepath.Join(repo, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	write("go.sum", sums)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		cmd.Env = append(
			os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off",
		)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	// The section says where a clone beside the program is.
	command := regexp.MustCompile(`(?m)^go mod edit .*$`).FindString(section)
	if !strings.Contains(command, "=../strake") {
		t.Fatalf("go mod edit is not in the section, or names another directory: %q", command)
	}
	run(strings.Fields(strings.ReplaceAll(command, "=../strake", "="+repo))...)
	run("go", "build", "-o", "my-program")
	runProgram(t, filepath.Join(dir, "my-program"))
}

// library returns the section of README.md and the Go program in it.
func library(t *testing.T, repo string) (section string, code []byte) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(repo, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(raw), "\n## As a library\n")
	if !ok {
		t.Fatal("README.md has no section \"As a library\"")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	_, rest, ok := strings.Cut(section, "\n```go\n")
	text, _, closed := strings.Cut(rest, "\n```\n")
	if !ok || !closed {
		t.Fatal("the section has no Go program")
	}
	return section, []byte(text + "\n")
}

// goVersion is the version of Go that the module asks for.
func goVersion(t *testing.T, repo string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(repo, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(raw)
	if m == nil {
		t.Fatal("go.mod asks for no version of Go")
	}
	return string(m[1])
}

// runProgram runs commands in a root file system of busybox.
func runProgram(t *testing.T, program string) {
	t.Helper()
	testneed.Root(t, "starts a container")
	busybox := testneed.File(t, "/bin/busybox", "busybox-static")
	const state = "/run/my-program" // as the program has it
	if _, err := os.Lstat(state); errors.Is(err, os.ErrNotExist) {
		// Fails, as it should, if a container is left.
		t.Cleanup(func() {
			if err := os.Remove(state); err != nil {
				t.Error(err)
			}
		})
	}
	rootfs := t.TempDir()
	raw, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "proc"} {
		if err := os.Mkdir(filepath.Join(rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(rootfs, "bin/busybox"), raw, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		script    string
		status    int
		out, errs string // errs is a part
	}{
		{"busybox hostname; echo $$", 0, "inside\n1\n", ""},
		{"echo x >/file", 1, "", "Read-only file system"},
		{"exit 7", 7, "", ""},
	} {
		t.Run(c.script, func(t *testing.T) {
			var out, errs bytes.Buffer
			cmd := exec.CommandContext(
				t.Context(), program, rootfs, "/bin/busybox", "sh", "-c", c.script,
			)
			cmd.Stdout, cmd.Stderr = &out, &errs
			var exit *exec.ExitError
			if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != c.status || out.String() != c.out ||
				!strings.Contains(errs.String(), c.errs) || c.errs == "" && errs.Len() > 0 {
				t.Errorf("status %d, output %q, errors %q; want %d, %q, %q", got, &out, &errs,
					c.status, c.out, c.errs)
			}
		})
	}
	t.Run("a command that does not exist", func(t *testing.T) {
		raw, err := exec.CommandContext(t.Context(), program, rootfs, "/nonesuch").CombinedOutput()
		if want := "my-program: process.args"; err == nil ||
			!strings.HasPrefix(string(raw), want) {
			t.Errorf("%v, %s; want an error that begins with %q", err, raw, want)
		}
	})
}
