package test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"strake/container/cgroup"
)

// confinement is a control group in which a test runs a program: a process that outlives the
// program is found there under whatever name, such as the keeper and its guard.
type confinement struct {
	t testing.TB
	g *cgroup.Group
}

// newConfinement makes a group that is named after a directory of the test's own, and removed, with
// what is left in it, at the end of the test.
func newConfinement(t testing.TB, dir string) *confinement {
	t.Helper()
	host, err := cgroup.Detect("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	name := "/" + filepath.Base(dir) + "-all"
	g, err := host.Create(name, nil, cgroup.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Close()
		removeGroup(t, host, name)
	})
	return &confinement{t, g}
}

// removeGroup removes a group, if it exists, with the processes in it.
func removeGroup(t testing.TB, host *cgroup.Host, name string) {
	t.Helper()
	g, err := host.At(name)
	if err == nil {
		err = g.Remove(context.Background())
	}
	if err != nil {
		t.Error(err)
	}
}

// command is a program that runs in the group: a shell enters it and becomes the program.
func (c *confinement) command(program ...string) *exec.Cmd {
	var dirs []string
	for _, d := range c.g.Paths() {
		dirs = append(dirs, d)
	}
	script := `for d in $0; do echo $$ >$d/cgroup.procs || exit 125; done; exec "$@"`
	args := append([]string{"sh", "-c", script, strings.Join(dirs, " ")}, program...)
	return exec.Command("/bin/busybox", args...)
}

// expectEmpty waits for the last process to end: the keeper ends after it has answered, and its
// guard after the keeper.
func (c *confinement) expectEmpty() {
	c.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; runtimeYield() {
		pids, err := c.g.Pids(cgroup.Recursive)
		switch {
		case err != nil:
			c.t.Error(err)
			return
		case len(pids) == 0:
			return
		case time.Now().After(end):
			c.t.Errorf("processes are left: %s", names(pids))
			return
		}
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
