package container

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// joinAll makes a configuration join the namespaces of a running container, but for the view of
// files and those that are there already with a path.
func joinAll(s *specs.Spec, pid int) {
	files := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net"}
	for i := range s.Linux.Namespaces {
		ns := &s.Linux.Namespaces[i]
		if ns.Type == specs.MountNamespace || ns.Path != "" {
			continue
		}
		file := files[ns.Type]
		if file == "" {
			file = string(ns.Type)
		}
		ns.Path = "/proc/" + itoa(pid) + "/ns/" + file
	}
	s.Linux.UIDMappings, s.Linux.GIDMappings, s.Linux.TimeOffsets = nil, nil, nil
}

// started creates and starts a container of a test.
func started(t *testing.T, s *specs.Spec) *Container {
	t.Helper()
	_, c, _ := create(t, s, nil)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// execOutput executes a command in a container and returns what it prints.
func execOutputOf(t *testing.T, c *Container, args ...string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	proc := *c.Spec().Process
	proc.Args = args
	p, err := c.Exec(t.Context(), ExecOptions{Process: &proc, Stdio: &[3]*os.File{null, w, w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, _ := io.ReadAll(r)
	p.Wait()
	return string(out)
}

// mapAndShift gives a configuration a user namespace and a time namespace of its own.
func mapAndShift(s *specs.Spec) {
	mapUsers(s)
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1337}}
}

// TestJoinForeign joins all namespaces of a container that has users and a clock of its own, and
// the network of yet another one that belongs to the host's users.
func TestJoinForeign(t *testing.T) {
	root := rootfs(t)
	target := config(root, "sleep 100")
	mapAndShift(target)
	first := started(t, target)

	second := config(root, "sleep 100")
	mapAndShift(second)
	joinAll(second, first.Pid())
	second.Hostname = ""
	c := started(t, second)
	for _, x := range []*Container{first, c} {
		got := execOutputOf(t, x, "/bin/grep", "boottime", "/proc/self/timens_offsets")
		if f := strings.Fields(got); len(f) != 3 || f[1] != "1337" {
			t.Errorf("clock of %s: %q", x.ID(), got)
		}
	}
	same := func(what string, got *Container, want int, file string) {
		t.Helper()
		a, err := os.Readlink("/proc/" + itoa(got.Pid()) + "/ns/" + file)
		b, err2 := os.Readlink("/proc/" + itoa(want) + "/ns/" + file)
		if err != nil || err2 != nil || a != b {
			t.Errorf("%s: %s is %s, %v; want %s, %v", what, file, a, err, b, err2)
		}
	}
	for _, file := range []string{"user", "pid", "net", "ipc", "uts", "cgroup", "time"} {
		same("all joined", c, first.Pid(), file)
	}

	other := started(t, config(root, "sleep 100"))
	third := config(root, "sleep 100")
	mapUsers(third)
	third.Hostname, third.Mounts = "", third.Mounts[:3] // the network's sysfs is its owner's
	for i := range third.Linux.Namespaces {
		ns := &third.Linux.Namespaces[i]
		switch ns.Type {
		case specs.NetworkNamespace:
			ns.Path = "/proc/" + itoa(other.Pid()) + "/ns/net"
		case specs.UserNamespace:
			ns.Path = "/proc/" + itoa(first.Pid()) + "/ns/user"
		}
	}
	third.Linux.UIDMappings, third.Linux.GIDMappings = nil, nil
	c = started(t, third)
	same("another network", c, other.Pid(), "net")
	same("another network", c, first.Pid(), "user")
	if got := execOutputOf(t, c, "/bin/cat", "/proc/self/uid_map"); !strings.Contains(got, "100000") {
		t.Errorf("users of an added process: %q", got)
	}
}

// TestJoinedMappings: an id-mapped mount without mappings has those of the user namespace, also of
// one that is joined.
func TestJoinedMappings(t *testing.T) {
	root := rootfs(t)
	dir := filepath.Join(filepath.Dir(root), "shared")
	for _, d := range []string{dir, filepath.Join(root, "shared")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, 7, 8); err != nil {
		t.Fatal(err)
	}
	target := config(root, "sleep 100")
	mapUsers(target)
	first := started(t, target)
	for _, joined := range []bool{false, true} {
		spec := config(root, "stat -c %u:%g /shared")
		mapUsers(spec)
		if joined {
			for i := range spec.Linux.Namespaces {
				if ns := &spec.Linux.Namespaces[i]; ns.Type == specs.UserNamespace {
					ns.Path = "/proc/" + itoa(first.Pid()) + "/ns/user"
				}
			}
			spec.Linux.UIDMappings, spec.Linux.GIDMappings = nil, nil
		}
		spec.Mounts = append(spec.Mounts, specs.Mount{
			Source: dir, Destination: "/shared", Type: "bind", Options: []string{"bind", "idmap"},
		})
		got, err := run(t, spec)
		needMappable(t, err)
		if err != nil || got.out != "7:8\n" {
			t.Errorf("joined %v: got %q, %v", joined, got.out, err)
		}
	}
}

// TestJoinWithNewUsers joins namespaces of the host's users, the PID namespace among them, into
// which a container with users of its own is born.
func TestJoinWithNewUsers(t *testing.T) {
	root := rootfs(t)
	host := started(t, config(root, "sleep 100"))
	for _, types := range [][]specs.LinuxNamespaceType{
		{specs.NetworkNamespace}, {specs.IPCNamespace, specs.UTSNamespace},
		{specs.PIDNamespace, specs.NetworkNamespace},
	} {
		spec := config(root, "sleep 100")
		mapUsers(spec)
		adjust := 300
		spec.Process.OOMScoreAdj = &adjust
		spec.Hostname, spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = "", nil, nil
		spec.Mounts = spec.Mounts[1:3] // procfs and sysfs are their owners' to mount
		spec.Mounts = append(spec.Mounts, bindMount("/proc", "/tmp", false))
		for i := range spec.Linux.Namespaces {
			if ns := &spec.Linux.Namespaces[i]; slices.Contains(types, ns.Type) {
				file := string(ns.Type)
				if ns.Type == specs.NetworkNamespace {
					file = "net"
				}
				ns.Path = "/proc/" + itoa(host.Pid()) + "/ns/" + file
			}
		}
		c := started(t, spec)
		for _, file := range []string{"pid", "net", "ipc", "uts", "user", "mnt"} {
			a, err := os.Readlink("/proc/" + itoa(c.Pid()) + "/ns/" + file)
			b, err2 := os.Readlink("/proc/" + itoa(host.Pid()) + "/ns/" + file)
			kind := specs.LinuxNamespaceType(file)
			if file == "net" {
				kind = specs.NetworkNamespace
			}
			if err != nil || err2 != nil || (a == b) != slices.Contains(types, kind) {
				t.Errorf("%v: %s is %s, %v; the other's %s, %v", types, file, a, err, b, err2)
			}
		}
		raw, err := os.ReadFile("/proc/" + itoa(c.Pid()) + "/uid_map")
		if f := strings.Fields(string(raw)); err != nil || len(f) != 3 || f[1] != "100000" {
			t.Errorf("%v: users %q, %v", types, raw, err)
		}
		raw, err = os.ReadFile("/proc/" + itoa(c.Pid()) + "/oom_score_adj")
		if err != nil || strings.TrimSpace(string(raw)) != "300" {
			t.Errorf("%v: OOM score %q, %v", types, raw, err)
		}
		if got := execOutputOf(t, c, "/bin/id", "-u"); got != "0\n" {
			t.Errorf("%v: exec: %q", types, got)
		}
	}
}
