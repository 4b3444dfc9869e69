package container

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/container/cgroup"
)

// TestExecSubgroups executes processes in groups below a container's, of one controller and of all,
// and names groups that are not there.
func TestExecSubgroups(t *testing.T) {
	root := rootfs(t)
	host, err := cgroup.Detect("")
	if err != nil {
		t.Fatal(err)
	}
	spec := config(root, "sleep 100")
	_, c, _ := create(t, spec, nil)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	inside := func(groups map[string]string) (string, error) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		proc := *spec.Process
		proc.Args = []string{"/bin/cat", "/proc/self/cgroup"}
		null, _ := os.Open(os.DevNull)
		defer null.Close()
		p, err := c.Exec(
			t.Context(),
			ExecOptions{Process: &proc, Cgroups: groups, Stdio: &[3]*os.File{null, w, w}},
		)
		w.Close()
		if err != nil {
			return "", err
		}
		defer p.Close()
		out, _ := io.ReadAll(r)
		p.Wait()
		return string(out), nil
	}
	for _, h := range host.Hierarchies() {
		if err := os.Mkdir(h.Mount+c.rec.CgroupPath+"/all", 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			dir := h.Mount + c.rec.CgroupPath
			raw, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil || host.Version() != 1 {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, "all", file), raw, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := inside(map[string]string{"": "all"})
	for line := range strings.Lines(out) {
		if !strings.HasSuffix(line, ":/all\n") {
			t.Errorf("in all groups: %q", line)
		}
	}
	if err != nil || out == "" {
		t.Errorf("in all groups: %q, %v", out, err)
	}
	for _, bad := range []struct {
		groups map[string]string
		class  error
		words  string
	}{
		{map[string]string{"": ".."}, errdefs.ErrInvalidArgument, "bad sub cgroup path"},
		{map[string]string{"": "none"}, errdefs.ErrNotFound, "no such file or directory"},
		{map[string]string{"wrong": "/"}, errdefs.ErrInvalidArgument, "unknown controller wrong"},
	} {
		out, err := inside(bad.groups)
		if !errors.Is(err, bad.class) || !strings.Contains(err.Error(), bad.words) {
			t.Errorf("%v: %q, %v; want %q", bad.groups, out, err, bad.words)
		}
	}
	if host.Version() != 1 {
		return
	}
	dir, _ := filepath.Glob("/sys/fs/cgroup/pids" + c.rec.CgroupPath)
	if len(dir) == 0 {
		t.Skip("needs the pids controller of version 1")
	}
	if err := os.Mkdir(dir[0]+"/one", 0o755); err != nil {
		t.Fatal(err)
	}
	out, err = inside(map[string]string{"pids": "one"})
	for line := range strings.Lines(out) {
		if strings.HasSuffix(line, ":/one\n") != strings.Contains(line, ":pids:") {
			t.Errorf("in one group of pids: %q", line)
		}
	}
	if err != nil || !strings.Contains(out, ":pids:/one\n") {
		t.Errorf("in one group of pids: %q, %v", out, err)
	}
	if _, err := inside(map[string]string{"pids": "none"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a missing group of pids: %v", err)
	}
}
