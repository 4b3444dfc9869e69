package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/internal/testneed"
	"strake/lmctfy"
	"strake/lmctfy/cli"
)

// mode says, in the environment, what the test program does instead of testing.
const (
	mode     = "STRAKE_LMCTFY_TEST"
	baseName = "STRAKE_LMCTFY_TEST_BASE"
)

func TestMain(m *testing.M) {
	switch os.Getenv(mode) {
	case "lmctfy":
		os.Exit(program())
	case "threads":
		threads()
	case "memory":
		use()
	default:
		os.Exit(m.Run())
	}
}

// program is the command lmctfy.
func program() int {
	return cli.Main(context.Background(), os.Args[1:], cli.System{
		Out: os.Stdout, Err: os.Stderr, Version: "test", Parent: os.Getppid(),
		Environ: os.Environ(), ReadFile: os.ReadFile,
		OpenOutput: func(fd int) io.Writer { return os.NewFile(uintptr(fd), "output") },
		Config:     lmctfy.Config{Base: os.Getenv(baseName)},
	})
}

// threads prints the numbers of two threads and stays until its input ends.
func threads() {
	for found := 0; found < 2; {
		tid := make(chan int)
		go func() {
			runtime.LockOSThread()
			tid <- unix.Gettid()
			select {}
		}()
		// The first thread of the process may be given to a goroutine too.
		if n := <-tid; n != os.Getpid() {
			fmt.Println(n)
			found++
		}
	}
	io.Copy(io.Discard, os.Stdin)
}

// use writes to as many bytes of memory as its argument says.
func use() {
	n, _ := strconv.Atoi(os.Args[1])
	raw, err := unix.Mmap(
		-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE,
	)
	if err != nil {
		os.Exit(1)
	}
	for i := 0; i < n; i += 4096 {
		raw[i] = 1
	}
}

// rig is a root container for one test, which is removed after it.
type rig struct {
	t    testing.TB
	base string
	dir  string // of the test's files
}

var serial atomic.Int64

// newRig is for a host whose controllers are those of a version.
func newRig(t testing.TB, version int) *rig {
	t.Helper()
	testneed.Root(t, "it makes control groups")
	r := &rig{t: t, dir: t.TempDir()}
	r.base = fmt.Sprintf("/strake-lmctfy-test-%d-%d", os.Getpid(), serial.Add(1))
	h, err := cgroup.Detect("")
	if err != nil {
		t.Skip(err)
	}
	if h.Version() != version {
		t.Skipf("the controllers of this host are not those of version %d", version)
	}
	t.Cleanup(func() {
		g, err := h.At(r.base)
		if err == nil {
			err = g.Remove(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	return r
}

// program is a command of the test program in a mode.
func (r *rig) program(what string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), mode+"="+what, baseName+"="+r.base)
	return cmd
}

// words splits a command line at spaces outside of single quotes.
func words(line string) (list []string) {
	quoted, word, has := false, "", false
	for _, c := range line {
		switch {
		case c == '\'':
			quoted, has = !quoted, true
		case c == ' ' && !quoted:
			if has {
				list = append(list, word)
			}
			word, has = "", false
		default:
			word, has = word+string(c), true
		}
	}
	if has {
		list = append(list, word)
	}
	return list
}

// expand replaces $DIR, $BASE and $LMCTFY, a command for a shell.
func (r *rig) expand(text string) string {
	self, _ := os.Executable()
	return strings.NewReplacer("$DIR", r.dir, "$BASE", r.base, "$LMCTFY", self).Replace(text)
}

// run runs a command line and returns what it prints, and its exit status.
func (r *rig) run(line string) (stdout, stderr string, code int) {
	r.t.Helper()
	cmd := r.program("lmctfy", words(r.expand(line))...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is run for lines that have to succeed. It returns the output.
func (r *rig) must(lines ...string) (stdout string) {
	r.t.Helper()
	for _, line := range lines {
		out, errs, code := r.run(line)
		if code != 0 {
			r.t.Fatalf("lmctfy %s: exit status %d: %s", line, code, errs)
		}
		stdout = out
	}
	return stdout
}

// file reads a file of a group in a tree.
func (r *rig) file(tree, group, file string) string {
	r.t.Helper()
	raw, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", tree, r.base, group, file))
	if err != nil {
		r.t.Error(err)
	}
	return strings.TrimSpace(string(raw))
}

// groups are the groups below the root container, "TREE/PATH", sorted.
func (r *rig) groups() (list []string) {
	trees, _ := filepath.Glob("/sys/fs/cgroup/*" + r.base)
	for _, top := range trees {
		filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && p != top {
				p, _ = filepath.Rel("/sys/fs/cgroup", p)
				list = append(list, strings.Replace(p, r.base, "", 1))
			}
			return nil
		})
	}
	return list
}

// start starts a program that the test ends, in the background.
func (r *rig) start(cmd *exec.Cmd) *exec.Cmd {
	r.t.Helper()
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

// until polls a condition of another process.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			r.t.Fatalf("it does not happen: %s", what)
		}
		unix.Select(0, nil, nil, nil, &unix.Timeval{Usec: 5000})
	}
}
