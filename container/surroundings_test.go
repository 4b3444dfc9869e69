package container

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestOwnPipes: a process of another user can open its streams by their names, and what is not a
// pipe keeps its owner.
func TestOwnPipes(t *testing.T) {
	spec := config(rootfs(t), "echo out >/dev/stdout; stat -c %u:%g /proc/self/fd/1 >/dev/stderr")
	spec.Process.User = specs.User{UID: 1000, GID: 100}
	if got, err := run(t, spec); err != nil || got.out != "out\n1000:100\n" {
		t.Errorf("got %q, %v", got.out, err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := run(t, spec, func(o *CreateOptions) { o.Stdio[0] = file }); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("a file belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
}

// TestMapSelf: a user namespace without mappings has the caller, as root.
func TestMapSelf(t *testing.T) {
	spec := config(rootfs(t), "cat /proc/self/uid_map /proc/self/gid_map; id -u")
	spec.Linux.Namespaces = append(
		spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace},
	)
	want := fmt.Sprintf("%10d %10d %10d\n", 0, os.Geteuid(), 1) +
		fmt.Sprintf("%10d %10d %10d\n", 0, os.Getegid(), 1) + "0\n"
	if got, err := run(t, spec); err != nil || got.out != want {
		t.Errorf("got %q, %v, want %q", got.out, err, want)
	}
	if len(spec.Linux.UIDMappings) > 0 {
		t.Error("the caller's configuration was changed")
	}
	spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 10}}
	if _, err := run(t, spec); err == nil {
		t.Error("mappings of users without mappings of groups are accepted")
	}
}

// TestCreating: a container of which only the directory is there yet is being created, not stopped.
func TestCreating(t *testing.T) {
	rt := runtimeFor(t)
	spec := config("/", "")
	b := &birth{rt: rt, spec: spec, opt: &CreateOptions{ID: name(t), Spec: spec}}
	if err := b.makeState(); err != nil {
		t.Fatal(err)
	}
	c, err := rt.Load(b.opt.ID)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := c.State(); err != nil || s.Status != specs.StateCreating || s.Pid != 0 {
		t.Errorf("got %+v, %v", s, err)
	}
	if err := c.Start(t.Context()); err == nil {
		t.Error("it can be started")
	}
	// Its creator may have been killed.
	if err := c.Delete(t.Context(), false); err != nil {
		t.Error(err)
	}
	clean(t, rt, b.opt.ID)
}

// TestMappedDevice: in a user namespace a device that the host has not got by this name exists with
// the owner and the mode of the configuration; one whose owner is not mapped is the host's.
func TestMappedDevice(t *testing.T) {
	spec := config(
		rootfs(t), "stat -c '%F %t:%T %u:%g %a' /dev/own /dev/zero; head -c 3 /dev/own | wc -c; "+
			"grep -E ' /dev/(own|null) ' /proc/self/mountinfo | grep -c nosuid,noexec",
	)
	mapUsers(spec)
	uid, gid, mode, out := uint32(10), uint32(11), os.FileMode(0o644), uint32(70000)
	spec.Linux.Devices = []specs.LinuxDevice{
		{
			Path: "/dev/own", Type: "c", Major: 1, Minor: 5, UID: &uid, GID: &gid, FileMode: &mode,
		},
		{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5, UID: &out, FileMode: &mode},
	}
	const want = "character special file 1:5 10:11 644\n" +
		"character special file 1:5 65534:65534 666\n3\n2\n"
	got, err := run(t, spec)
	if errdefs.IsNotFound(err) && !clonesDetached(t) {
		t.Skip("needs mounts of parts of a filesystem that is attached nowhere: Linux 6.15")
	}
	if err != nil || got.out != want {
		t.Errorf("got %q, %v, want %q", got.out, err, want)
	}
}

// clonesDetached tells whether the kernel makes mounts of files on a filesystem that is attached
// nowhere.
func clonesDetached(t *testing.T) bool {
	t.Helper()
	ctx, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		t.Fatal(err)
	}
	fs, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	if err := unix.Mkdirat(fs, "d", 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.OpenTree(fs, "d", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}
