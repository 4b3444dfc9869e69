package container

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rootfs makes a directory with a static busybox and the directories that containers need. Tests
// that use it need root and /bin/busybox.
func rootfs(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs /bin/busybox (package busybox-static)")
	}
	dir := t.TempDir()
	// A mapped user must be able to reach it.
	for d := dir; d != "/" && strings.HasPrefix(d, os.TempDir()); d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "root", "data"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), box, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range strings.Fields(
		"sh cat ls true false id hostname sleep echo stat readlink grep mount ps test touch " +
			"head wc env kill tty stty mkdir nc",
	) {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// config is a configuration as runc writes it, of a shell command.
func config(root, script string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: root}, Hostname: "inside",
		Process: &specs.Process{
			Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{
				Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
				Options: []string{"nosuid", "mode=755", "size=65536k"},
			},
			{
				Destination: "/dev/pts", Type: "devpts", Source: "devpts",
				Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"},
			},
			{
				Destination: "/sys", Type: "sysfs", Source: "sysfs",
				Options: []string{"nosuid", "noexec", "nodev", "ro"},
			},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.CgroupNamespace},
			},
			MaskedPaths:   []string{"/proc/kcore", "/proc/keys", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/sys"},
		},
	}
}

// runtimeFor is a Runtime of the test's own. What it leaves behind is an error of the test.
func runtimeFor(t testing.TB) *Runtime {
	t.Helper()
	return &Runtime{Root: filepath.Join(t.TempDir(), "state")}
}

var counter = make(chan int, 1)

func init() { counter <- 0 }

// name is an ID that no other test of this process or another one uses.
func name(t testing.TB) string {
	n := <-counter
	counter <- n + 1
	return fmt.Sprintf("sk-test-%d-%d", os.Getpid(), n)
}

// outcome is what came of a container.
type outcome struct {
	out    string
	status unix.WaitStatus
}

// run executes a container to its end and deletes it.
func run(t testing.TB, spec *specs.Spec, edit ...func(*CreateOptions)) (outcome, error) {
	t.Helper()
	rt := runtimeFor(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	opt := CreateOptions{
		ID: name(t), Bundle: filepath.Dir(spec.Root.Path), Spec: spec,
		Stdio: &[3]*os.File{null, w, w},
	}
	for _, f := range edit {
		f(&opt)
	}
	got := make(chan string, 1)
	go func() {
		var b bytes.Buffer
		io.Copy(&b, r)
		got <- b.String()
	}()
	ctx := context.Background()
	c, p, err := rt.Create(ctx, opt)
	w.Close()
	if err != nil {
		<-got
		r.Close()
		clean(t, rt, opt.ID)
		return outcome{}, err
	}
	ws, err := p.Wait()
	p.Close()
	if err != nil {
		t.Fatal(err)
	}
	out := <-got
	r.Close()
	if err := c.Delete(ctx, false); err != nil {
		t.Errorf("delete: %v", err)
	}
	clean(t, rt, opt.ID)
	return outcome{out, ws}, nil
}

// clean fails the test if anything of a container is left.
func clean(t testing.TB, rt *Runtime, id string) {
	t.Helper()
	if left := leftovers(rt, id); len(left) > 0 {
		t.Errorf("left behind by %s: %s", id, strings.Join(left, ", "))
	}
}

// leftovers looks for the container's name in everything that it could have left.
func leftovers(rt *Runtime, id string) (left []string) {
	if _, err := os.Stat(filepath.Join(rt.Root, id)); err == nil {
		left = append(left, "state directory")
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/strake-runtime-" + id)
	more, _ := filepath.Glob("/sys/fs/cgroup/strake-runtime-" + id)
	left = append(left, append(groups, more...)...)
	if raw, err := os.ReadFile("/proc/self/mountinfo"); err == nil &&
		strings.Contains(string(raw), id) {
		left = append(left, "mount")
	}
	return left
}

// children lists the processes whose parent is this one.
func children(t testing.TB) (pids []string) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tasks {
		raw, err := os.ReadFile(f)
		if err == nil {
			pids = append(pids, strings.Fields(string(raw))...)
		}
	}
	return pids
}

func mapUsers(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
}

// capable says whether this process has a capability.
func capable(t testing.TB, n int) bool {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[n/32].Effective&(1<<(n%32)) != 0
}

func itoa(n int) string { return fmt.Sprint(n) }

// needMappable skips a test where the filesystem of its files has no id-mapped mounts, as tmpfs
// before Linux 6.3.
func needMappable(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), "does not support id-mapped mounts") {
		t.Skipf("needs a filesystem with id-mapped mounts below %s", os.TempDir())
	}
}
