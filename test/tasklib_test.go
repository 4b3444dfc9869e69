package test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strake/container/cgroup"
	"strake/internal/testneed"
)

// TestTaskLibrary builds and runs the program in tasklib, which uses package task/host without the
// engine: the task goes on when its keeper replaces its program and when that is killed, no line of
// its log is missing, its exit status is known, and nothing of it is left on the host.
func TestTaskLibrary(t *testing.T) {
	bin := os.Getenv("STRAKE_BIN")
	if bin == "" {
		t.Skip("needs STRAKE_BIN, the directory of the built binaries (make test sets it)")
	}
	testneed.Root(t, "makes namespaces, mounts and control groups")
	busybox := testneed.File(t, "/bin/busybox", "busybox-static")
	groups, err := cgroup.Detect("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	build := t.TempDir()
	program, successor := filepath.Join(build, "tasklib"), filepath.Join(build, "successor")
	goBuild(t, "-o", program, "./tasklib")
	// The keeper's successor is another build of its program.
	goBuild(
		t, "-o", successor, "-ldflags", "-E strake/internal/early.entry -X main.version=next",
		"../cmd/strake-runtime",
	)
	for _, c := range []struct {
		name  string
		group bool
		look  string
	}{
		{"a root file system", false, "inside"},
		{"a group and a process", true, "in its group"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Socket paths are short by nature (unix(7)), names of test directories are not.
			dir, err := os.MkdirTemp("", "strake-it-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			boxRoot(t, busybox, filepath.Join(dir, "root"))
			own := ""
			if c.group {
				own = "/" + filepath.Base(dir) + "-task"
				t.Cleanup(func() { removeGroup(t, groups, own) }) // after a failure
			}
			all := newConfinement(t, dir)
			cmd := all.command(program, dir, filepath.Join(bin, "strake-runtime"), successor, own)
			var text bytes.Buffer
			cmd.Stdout, cmd.Stderr = &text, &text
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timeout := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
			timeout.Stop()
			all.expectEmpty()
			out := text.String()
			want := "demo: started\n" +
				"demo: another process in it says: " + c.look + "\n" +
				"keeper: the same process now runs successor\n" +
				"keeper: killed; under the next one another process says: " + c.look + "\n" +
				"log: 400 lines, none missing\n" +
				"demo: ended with status 7\n"
			if out != want {
				raw, _ := os.ReadFile(filepath.Join(dir, "keeper.log"))
				t.Errorf("the program says\n%s\nwant\n%s\nlog of the keeper:\n%s", out, want, raw)
			}
			left(t, groups, dir)
		})
	}
}

// goBuild builds a program of this module.
func goBuild(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"build"}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// boxRoot makes a root file system of busybox.
func boxRoot(t *testing.T, busybox, root string) {
	t.Helper()
	raw, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "proc", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), raw, 0o755); err != nil {
		t.Fatal(err)
	}
}

// left reports mounts below a directory and control groups that are named after it.
func left(t *testing.T, groups *cgroup.Host, dir string) {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, dir) {
			t.Errorf("a mount is left: %s", line)
		}
	}
	for _, h := range groups.Hierarchies() {
		group := filepath.Join(h.Mount, filepath.Base(dir)+"-task")
		if _, err := os.Stat(group); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the group %s is left: %v", group, err)
		}
	}
}
