package container

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDebugLines follows a container through Runtime.Debug.
func TestDebugLines(t *testing.T) {
	spec := config(rootfs(t), "sleep 100")
	rt, c, p := create(t, spec, nil)
	var lines []string
	debug := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	rt.Debug = debug
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	proc := *spec.Process
	proc.Args = []string{"/bin/true"}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	added, err := c.Exec(
		t.Context(), ExecOptions{Process: &proc, Stdio: &[3]*os.File{null, null, null}},
	)
	if err != nil {
		t.Fatal(err)
	}
	added.Wait()
	added.Close()
	if err := c.Kill(t.Context(), unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	if err := c.Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{
		fmt.Sprintf("process %d: executes", c.Pid()),
		fmt.Sprintf("cloned, joins container %q", c.ID()), "program of ",
		fmt.Sprintf("process %d: executes", added.Pid),
		fmt.Sprintf("process %d: signal 9", c.Pid()), "cgroup " + c.rec.CgroupPath + ": removed",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}
