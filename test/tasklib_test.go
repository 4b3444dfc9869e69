package test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
				t.Cleanup(func() { remove(t, groups, own) }) // after a failure
			}
			out := confined(t, groups, "/"+filepath.Base(dir)+"-all",
				program, dir, filepath.Join(bin, "strake-runtime"), successor, own)
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

// confined runs a command in a control group of its own, which is how a process that outlives it
// is found whatever that calls itself, and returns its output.
func confined(t *testing.T, groups *cgroup.Host, name string, command ...string) string {
	t.Helper()
	g, err := groups.Create(name, nil, cgroup.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	t.Cleanup(func() { remove(t, groups, name) })
	// The shell enters the group and becomes the command.
	script := `for d in $0; do echo $$ >$d/cgroup.procs || exit 125; done; exec "$@"`
	var dirs []string
	for _, d := range g.Paths() {
		dirs = append(dirs, d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := append([]string{"sh", "-c", script, strings.Join(dirs, " ")}, command...)
	out, err := exec.CommandContext(ctx, "/bin/busybox", args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v", command[0], err)
	}
	// The keeper ends after it has answered, and the guard with the keeper.
	for end := time.Now().Add(10 * time.Second); ; runtimeYield() {
		pids, err := g.Pids(cgroup.Recursive)
		if err == nil && len(pids) == 0 {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Errorf("processes left: %s %v", names(pids), err)
			break
		}
	}
	return string(out)
}

// remove removes a group, if it exists, with the processes in it.
func remove(t *testing.T, groups *cgroup.Host, name string) {
	t.Helper()
	g, err := groups.At(name)
	if err == nil {
		err = g.Remove(context.Background())
	}
	if err != nil {
		t.Error(err)
	}
}

// names are the names of processes.
func names(pids []int) string {
	var list []string
	for _, pid := range pids {
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if err == nil {
			list = append(list, strings.TrimSpace(string(raw)))
		}
	}
	return strings.Join(list, ", ")
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
