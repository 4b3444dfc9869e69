package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/leader"
	"strake/container/plan"
	"strake/container/program"
	"strake/container/spawn"
)

// rootfs makes a directory with a static busybox. Tests that use it need root and /bin/busybox.
func rootfs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs /bin/busybox (package busybox-static)")
	}
	root := t.TempDir()
	for _, d := range []string{"bin", "proc", "dev", "data"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), box, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("busybox", filepath.Join(root, "bin/sh")); err != nil {
		t.Fatal(err)
	}
	return root
}

// config is a container of a shell command in new mount, pid and uts namespaces.
func config(root, script string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: root},
		Process: &specs.Process{
			Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"},
		},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.UTSNamespace},
		}},
	}
}

var options = plan.Options{Host: plan.Host{LastCap: 40}, Stdio: plan.Pipes}

// descriptors counts what this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func machine(t *testing.T) *spawn.Machine {
	t.Helper()
	m, err := spawn.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// started is a process whose output is read.
type started struct {
	child *spawn.Child
	out   *os.File
}

// start runs what a Launch has prepared. With remote it is run as a keeper does: from the
// bytes and the names. The Launch is closed when the program has ended, as it may be.
func start(t *testing.T, m *spawn.Machine, l *Launch, remote bool) (*started, error) {
	t.Helper()
	defer l.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	defer w.Close()
	l.Streams(int(null.Fd()), int(w.Fd()), int(w.Fd()))
	req := l.Request()
	if remote {
		names := l.Inputs().Names()
		uid, gid := l.IDMaps()
		img, err := program.Parse(l.Encode())
		if err != nil {
			t.Fatal(err)
		}
		req = &spawn.Request{
			Image: img, CgroupFD: l.Born(), UIDMap: uid, GIDMap: gid, TimeOffsets: l.TimeOffsets(),
			Input: func(name string) (int, error) {
				if fd, ok := names[name]; ok {
					return fd, nil
				}
				return -1, errdefs.ErrNotFound
			},
		}
	}
	child, err := m.Start(req)
	if err != nil {
		return nil, err
	}
	if _, err := child.Next(); err != nil {
		child.Kill()
		return nil, l.Explain(err)
	}
	child.Release()
	return &started{child, r}, nil
}

// end reads the output to its end and reaps the process.
func (s *started) end(t *testing.T) (string, unix.WaitStatus) {
	t.Helper()
	out, err := io.ReadAll(s.out)
	if err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(s.child.Pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	unix.Close(s.child.PidFD)
	return string(out), ws
}

// finish is start and end of a Launch that must succeed.
func finish(t *testing.T, m *spawn.Machine, l *Launch, remote bool) string {
	t.Helper()
	s, err := start(t, m, l, remote)
	if err != nil {
		t.Fatal(err)
	}
	out, ws := s.end(t)
	if ws != 0 {
		t.Errorf("wait status %#x, want 0", int(ws))
	}
	return out
}

func TestInit(t *testing.T) {
	root := rootfs(t)
	m := machine(t)
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	mapping := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 77, Size: 10}}
	for _, c := range []struct {
		name, script, want string
		edit               func(*specs.Spec)
	}{
		{name: "plain", script: "echo $$", want: "1\n"},
		{name: "bind mount", script: "busybox cat /data/f", want: "content\n",
			edit: func(s *specs.Spec) {
				s.Mounts = append(
					s.Mounts,
					specs.Mount{Destination: "/data", Source: src, Options: []string{"bind"}},
				)
			}},
		{
			name: "id-mapped", script: "busybox stat -c %u /data/f", want: "77\n",
			edit: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{
					Destination: "/data", Source: src, Options: []string{"bind", "idmap"},
					UIDMappings: mapping, GIDMappings: mapping,
				})
			},
		},
		{
			name: "user namespace", script: "busybox cat /proc/self/gid_map",
			edit: func(s *specs.Spec) {
				s.Linux.Namespaces = append(
					s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace},
				)
				s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 0, Size: 4000}}
				s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: 0, Size: 5000}}
			}, want: "         0          0       5000\n",
		},
		{
			name: "time namespace", script: "busybox cut -c1-4 /proc/uptime",
			edit: func(s *specs.Spec) {
				s.Linux.Namespaces = append(
					s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace},
				)
				s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{
					"boottime": {Secs: 1000000000},
				}
			}, want: "1000\n",
		},
	} {
		for _, remote := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, keeper %t", c.name, remote), func(t *testing.T) {
				before := descriptors(t)
				s := config(root, c.script)
				if c.edit != nil {
					c.edit(s)
				}
				l, err := Init(nil, s, options, Nowhere())
				if err != nil && strings.Contains(err.Error(), "not support id-mapped mounts") {
					t.Skipf("needs a filesystem with id-mapped mounts below %s", os.TempDir())
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := finish(t, m, l, remote); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
				if left := descriptors(t) - before - 1; left != 0 { // the pipe of the output
					t.Errorf("%d descriptors are left", left)
				}
			})
		}
	}
}

func TestExec(t *testing.T) {
	m := machine(t)
	s := config(rootfs(t), "exec busybox sleep 100")
	s.Hostname = "inside"
	l, err := Init(m, s, options, Nowhere())
	if err != nil {
		t.Fatal(err)
	}
	first, err := start(t, m, l, false)
	if err != nil {
		t.Fatal(err)
	}
	defer first.child.Kill()
	proc := *s.Process
	proc.Args = []string{"/bin/sh", "-c", "busybox hostname"}
	opt := plan.ExecOptions{
		Options: options, Flags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS,
	}
	files := &leader.Joint{FD: -1, Files: make(map[uint64]int)}
	for flag, name := range map[uint64]string{
		unix.CLONE_NEWNS: "mnt", unix.CLONE_NEWPID: "pid", unix.CLONE_NEWUTS: "uts",
	} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", first.child.Pid, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files.Files[flag] = int(f.Fd())
	}
	for _, init := range []*leader.Joint{leader.At(first.child.PidFD), files} {
		l, err = Exec(s, &proc, opt, init, Nowhere())
		if err != nil {
			t.Fatal(err)
		}
		if got := finish(t, m, l, true); got != "inside\n" {
			t.Errorf("exec by %+v: got %q, want the container's host name", init, got)
		}
	}
	hook := &specs.Hook{Path: "/bin/busybox", Args: []string{"busybox", "hostname"}}
	if l, err = Hook(hook, "/", opt.Flags, first.child.PidFD); err != nil {
		t.Fatal(err)
	}
	if got := finish(t, m, l, false); got != "inside\n" {
		t.Errorf("hook: got %q, want the container's host name", got)
	}
}

// TestErrors lists what cannot be opened or run. Nothing stays open.
func TestErrors(t *testing.T) {
	root := rootfs(t)
	m := machine(t)
	for _, c := range []struct {
		name string
		edit func(*specs.Spec)
		want string
		is   error
	}{
		{
			"invalid", func(s *specs.Spec) { s.Process.Cwd = "x" }, "process.cwd: ",
			errdefs.ErrInvalidArgument,
		},
		{"source", func(s *specs.Spec) {
			s.Mounts = append(
				s.Mounts,
				specs.Mount{
					Destination: "/data", Source: "/does/not/exist", Options: []string{"bind"},
				},
			)
		}, `mounts[1] (/data): open_tree "/does/not/exist": `, errdefs.ErrNotFound},
		{
			"namespace", func(s *specs.Spec) { s.Linux.Namespaces[2].Path = "/proc/self/ns/none" },
			`linux.namespaces[2] (uts): open "/proc/self/ns/none": `, errdefs.ErrNotFound,
		},
		{
			"type", func(s *specs.Spec) { s.Linux.Namespaces[2].Path = "/proc/self/ns/net" },
			`linux.namespaces[2] (uts): `, errdefs.ErrInvalidArgument,
		},
		{
			"program", func(s *specs.Spec) { s.Process.Args = []string{"/bin/none"} },
			"process.args (/bin/none): execve: ENOENT", unix.ENOENT,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := descriptors(t)
			s := config(root, "exit 0")
			c.edit(s)
			l, err := Init(m, s, options, Nowhere())
			pipe := 0
			if err == nil {
				pipe = 1
				_, err = start(t, m, l, false)
			}
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || !errors.Is(err, c.is) {
				t.Errorf("got error %v, want one that begins with %q and is %v", err, c.want, c.is)
			}
			if left := descriptors(t) - before - pipe; left != 0 {
				t.Errorf("%d descriptors are left", left)
			}
		})
	}
}

// TestEntry compiles each way into groups.
func TestEntry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		entry Entry
		want  []string // inputs
	}{
		{"nowhere", Nowhere(), nil},
		{
			"below a directory", Entry{Born: -1, Tasks: []string{"pids/x/tasks"}, Root: 7},
			[]string{"cgroups"},
		},
		{
			"open files", Entry{Born: -1, Files: []int{8, 9}},
			[]string{"cgroup.tasks/0", "cgroup.tasks/1"},
		},
		{"born", Entry{Born: 9}, nil},
	} {
		l := &Launch{born: c.entry.Born}
		l.inputs.enter(&c.entry)
		if len(l.inputs.fds) != len(c.want) || l.Born() != c.entry.Born {
			t.Errorf("%s: inputs %v, born %d", c.name, l.inputs.fds, l.Born())
		}
		for _, name := range c.want {
			if _, err := l.inputs.Get(name); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		opt := c.entry.Options(plan.Options{})
		if opt.Tasks != len(c.entry.Files) || len(opt.TaskPaths) != len(c.entry.Tasks) ||
			!opt.Grouped {
			t.Errorf("%s: options %+v", c.name, opt)
		}
	}
}
