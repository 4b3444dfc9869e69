package group

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/internal/testneed"
	"strake/task"
)

// lab is an instance of the test's own on this host's control groups.
type lab struct {
	t        *testing.T
	host     *cgroup.Host
	instance string
	started  []*exec.Cmd
}

func newLab(t *testing.T) *lab {
	t.Helper()
	testneed.Root(t, "makes control groups")
	h, err := cgroup.Detect("")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, host: h, instance: fmt.Sprintf("/strake-gt-%d-%s", os.Getpid(), t.Name())}
	t.Cleanup(func() {
		for _, name := range []string{l.instance, l.foreign()} {
			// The test's own context has ended.
			if err := Remove(context.Background(), h, name); err != nil {
				t.Error(err)
			}
		}
		l.want("removed")
		// Only now: a process that is frozen does not end before its group is removed.
		for _, cmd := range l.started {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return l
}

// foreign is a parent that a user chose.
func (l *lab) foreign() string { return l.instance + "-x" }

func (l *lab) owner(name string) *Groups { return New(l.host, l.instance, name) }

func (l *lab) create(g *Groups, parent, name string, res *specs.LinuxResources) task.Group {
	l.t.Helper()
	if res == nil {
		res = &specs.LinuxResources{}
	}
	made, err := g.Create(l.t.Context(), parent, name, res)
	if err != nil {
		l.t.Fatal(err)
	}
	return made
}

// want compares the groups that exist, in any hierarchy, with paths below the instance and the
// foreign parent; a path that is wanted has to exist in every hierarchy that the host uses.
func (l *lab) want(when string, paths ...string) {
	l.t.Helper()
	got := map[string]int{}
	for _, h := range l.host.Hierarchies() {
		for _, root := range []string{l.instance, l.foreign()} {
			for _, depth := range []string{"", "/*", "/*/*"} {
				names, err := filepath.Glob(h.Mount + root + depth)
				if err != nil {
					l.t.Fatal(err)
				}
				for _, n := range names {
					if st, err := os.Stat(n); err == nil && st.IsDir() {
						got[n[len(h.Mount):]]++
					}
				}
			}
		}
	}
	if g := slices.Sorted(maps.Keys(got)); !slices.Equal(g, slices.Sorted(slices.Values(paths))) {
		l.t.Errorf("%s: got %q, want %q", when, g, paths)
	}
	for p, n := range got {
		if n < max(1, l.host.Tasks()) {
			l.t.Errorf("%s: %s exists in %d hierarchies of %d", when, p, n, l.host.Tasks())
		}
	}
}

// enter starts a process that waits for input, and puts it into a group by the group's Entry.
func (l *lab) enter(g task.Group, script string) (cmd *exec.Cmd, goOn io.Closer) {
	l.t.Helper()
	cmd = exec.Command("/bin/sh", "-c", "read x; "+script)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.started = append(l.started, cmd)
	entry, release, err := g.Entry()
	if err != nil {
		l.t.Fatal(err)
	}
	defer release()
	write := func(dir int, name string) {
		fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_, err = unix.Write(fd, []byte(strconv.Itoa(cmd.Process.Pid)))
			unix.Close(fd)
		}
		if err != nil {
			l.t.Fatalf("enter %q: %v", name, err)
		}
	}
	for _, name := range entry.Tasks {
		write(entry.Root, name)
	}
	if entry.Born >= 0 {
		write(entry.Born, "cgroup.procs")
	}
	if len(entry.Tasks) == 0 && entry.Born < 0 {
		l.t.Fatal("the group cannot be entered")
	}
	return cmd, in
}

func TestPath(t *testing.T) {
	t.Parallel()
	g := New(nil, "/strake", "cri")
	for _, tt := range []struct{ parent, want string }{
		{"", "/strake/cri/a"}, {"/x", "/x/a"}, {"/x/y", "/x/y/a"}, {"/", "/a"}, {"x", ""},
		{"/x/", ""}, {"/x/../y", ""}, {"..", ""}, {"/x//y", ""}, {"/./x", ""},
		{"system.slice", ""},
	} {
		got, err := g.Path(tt.parent, "a")
		if got != tt.want || (err == nil) != (tt.want != "") ||
			err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("parent %q: got %q %v, want %q", tt.parent, got, err, tt.want)
		}
	}
	if _, err := g.Create(t.Context(), "x", "a", nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("create below a relative parent: %v", err)
	}
}

func TestOwnersShareAnInstance(t *testing.T) {
	l := newLab(t)
	docker, cri := l.owner("docker"), l.owner("cri")
	own := l.create(docker, "", "a", nil)
	l.create(docker, "", "b", nil)
	l.create(cri, "", "a", nil)
	l.create(docker, l.foreign(), "a", nil)
	if want := l.instance + "/docker/a"; own.Path() != want {
		t.Errorf("path %q, want %q", own.Path(), want)
	}
	i, x := l.instance, l.foreign()
	others := []string{i, i + "/cri", i + "/cri/a", x, x + "/a"}
	l.want("created", append(slices.Clone(others), i+"/docker", i+"/docker/a", i+"/docker/b")...)
	// A process in a group that is swept ends with it.
	process, in := l.enter(l.at(docker, i+"/docker/b"), "true")
	if err := docker.Sweep(t.Context(), func(name string) bool { return name == "a" }); err != nil {
		t.Fatal(err)
	}
	in.Close() // otherwise it ends by itself
	process.Wait()
	if st, ok := process.ProcessState.Sys().(interface{ Signaled() bool }); !ok || !st.Signaled() {
		t.Errorf("the process in a swept group: %v", process.ProcessState)
	}
	l.want("swept", append(slices.Clone(others), i+"/docker", i+"/docker/a")...)
	if err := docker.Sweep(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	l.want("swept with its parent", others...)
	if err := docker.Sweep(t.Context(), nil); err != nil {
		t.Errorf("sweep what is not there: %v", err)
	}
	if err := own.Remove(t.Context()); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
	if err := Remove(t.Context(), l.host, l.instance); err != nil {
		t.Fatal(err)
	}
	l.want("the instance is removed", x, x+"/a")
	if err := l.at(docker, x+"/a").Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.want("the group below the foreign parent is removed", x)
}

// frozen asks the kernel (freezer-subsystem.rst; cgroup-v2.rst, cgroup.events).
func (l *lab) frozen(g task.Group) bool {
	l.t.Helper()
	name, want := "cgroup.events", "frozen 1"
	if l.host.Version() == 1 {
		name, want = "freezer.state", "FROZEN"
	}
	for _, h := range l.host.Hierarchies() {
		raw, err := os.ReadFile(filepath.Join(h.Mount+g.Path(), name))
		if err == nil && strings.Contains(string(raw), want) {
			return true
		}
	}
	return false
}

func (l *lab) at(g *Groups, path string) task.Group {
	l.t.Helper()
	at, err := g.At(path)
	if err != nil {
		l.t.Fatal(err)
	}
	return at
}

// A creation that fails leaves no group of its name in any hierarchy.
func TestCreateFails(t *testing.T) {
	l := newLab(t)
	g := l.owner("docker")
	cpus := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}}
	if made, err := g.Create(t.Context(), "", "a", cpus); err == nil {
		t.Fatalf("a group with a processor that does not exist: %v", made.Path())
	}
	for _, h := range l.host.Hierarchies() {
		if _, err := os.Stat(h.Mount + l.instance + "/docker/a"); !os.IsNotExist(err) {
			t.Errorf("in %s: %v", h.Name, err)
		}
	}
}

func TestGroup(t *testing.T) {
	l := newLab(t)
	limit, pids := int64(32<<20), int64(50)
	g := l.create(l.owner("docker"), "", "a", &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids},
	})
	if got, err := g.Pids(); err != nil || len(got) != 0 {
		t.Errorf("an empty group has %v %v", got, err)
	}
	cmd, in := l.enter(g, "exec dd if=/dev/zero of=/dev/null bs=64M count=1")
	if got, err := g.Pids(); err != nil || !slices.Equal(got, []int{cmd.Process.Pid}) {
		t.Errorf("pids %v %v, want %d", got, err, cmd.Process.Pid)
	}
	stats := func() task.Stats {
		t.Helper()
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := stats(); s.Pids != 1 || s.PidsMax != 50 || s.Memory.Limit != uint64(limit) ||
		len(s.Memory.Stat) == 0 {
		t.Errorf("statistics %+v", s)
	}
	pids = 60
	if err := g.Update(t.Context(), &specs.LinuxResources{
		Pids: &specs.LinuxPids{Limit: &pids},
	}); err != nil || stats().PidsMax != 60 {
		t.Errorf("updated: %v, %+v", err, stats())
	}
	if n := len(g.Hierarchies()); n != len(l.host.Hierarchies()) {
		t.Errorf("%d hierarchies, want %d", n, len(l.host.Hierarchies()))
	}
	for _, h := range g.Hierarchies() {
		if want := filepath.Join(l.host.Root(), h.Dir) + g.Path(); h.Path != want {
			t.Errorf("hierarchy %+v, want the path %q", h, want)
		}
	}
	if n, err := g.OOMKills(); err != nil || n != 0 {
		t.Errorf("killed before it allocated: %d %v", n, err)
	}
	if err := g.Freeze(t.Context()); err != nil || !l.frozen(g) {
		t.Errorf("frozen: %v, error %v", l.frozen(g), err)
	}
	in.Close()
	if err := g.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.frozen(g) {
		t.Fatal("the group is still frozen")
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a process that needs twice its limit ended well")
	}
	if n, err := g.OOMKills(); err != nil || n != 1 {
		t.Errorf("killed for want of memory: %d %v, want 1", n, err)
	}
	if s := stats(); s.Pids != 0 || s.CPU.TotalNanos == 0 {
		t.Errorf("statistics after the end %+v", s)
	}
}

// An instance is removed with what is frozen in it.
func TestRemoveFrozen(t *testing.T) {
	l := newLab(t)
	g := l.create(l.owner("docker"), "", "a", nil)
	l.enter(g, "true")
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := Remove(ctx, l.host, l.instance); err != nil {
		g.Thaw(t.Context())
		t.Fatal(err)
	}
	l.want("removed")
}

func TestEnforced(t *testing.T) {
	t.Parallel()
	h, err := cgroup.Detect("")
	if err != nil {
		t.Skip(err)
	}
	swappiness, yes := uint64(10), true
	given := &specs.LinuxMemory{Swappiness: &swappiness, DisableOOMKiller: &yes}
	res := &specs.LinuxResources{Memory: given}
	warnings := New(h, "/strake", "docker").Enforced(res)
	want := 0
	if h.Version() == 2 {
		want = 2
	}
	if len(warnings) != want || (res.Memory.Swappiness == nil) != (want > 0) ||
		(res.Memory.DisableOOMKiller == nil) != (want > 0) {
		t.Errorf("version %d: warnings %q, limits %+v", h.Version(), warnings, res.Memory)
	}
	if given.Swappiness == nil || given.DisableOOMKiller == nil {
		t.Error("the caller's limits were changed in place")
	}
	if got := New(h, "/strake", "docker").Enforced(&specs.LinuxResources{}); got != nil {
		t.Errorf("without limits: %q", got)
	}
}
