package container

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/plan"
)

// The tests in this file are the published escapes from container runtimes. Each must have no
// effect on the host: either the container runs and finds nothing, or it does not start.

// TestSelfExe is CVE-2019-5736: an entrypoint, or a script interpreter, that leads through
// /proc/self/exe to the runtime's own executable.
func TestSelfExe(t *testing.T) {
	root := rootfs(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before := fileSum(t, self)
	script := filepath.Join(root, "bin/script")
	if err := os.WriteFile(script, []byte("#!/proc/self/exe\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"/proc/self/exe"}, {"/bin/script"}, {"script"}, {"/proc/thread-self/exe"}, {"/proc/1/exe"},
	} {
		t.Run("start "+args[0], func(t *testing.T) {
			s := config(root, "")
			s.Process.Args = args
			got, err := run(t, s)
			if err == nil {
				t.Errorf("executed: %v", got)
			}
			if !errors.Is(err, unix.ENOEXEC) && !errors.Is(err, unix.EACCES) &&
				!errors.Is(err, unix.ELOOP) {
				t.Errorf("got %v, want ENOEXEC: the interpreter's sealed image is no program", err)
			}
		})
	}
	t.Run("exec", func(t *testing.T) {
		_, ct, _ := create(t, config(root, "sleep 100"), nil)
		if err := ct.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		proc := *ct.Spec().Process
		proc.Args = []string{"/bin/script"}
		for range 20 {
			p, err := ct.Exec(context.Background(), ExecOptions{Process: &proc})
			if err == nil {
				p.Wait()
				p.Close()
				t.Error("executed")
			}
		}
	})
	if fileSum(t, self) != before {
		t.Error("the executable has changed")
	}
}

func fileSum(t *testing.T, file string) [32]byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(raw)
}

// TestWorkingDirectoryThroughDescriptor is CVE-2024-21626: a working directory that is a descriptor
// left open on a directory of the host.
func TestWorkingDirectoryThroughDescriptor(t *testing.T) {
	root := rootfs(t)
	leak, err := os.Open("/etc")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0) // as a careless caller would have it
	for fd := range 32 {
		s := config(root, "test -e ./shadow && echo ESCAPED; ls")
		s.Process.Cwd = "/proc/self/fd/" + strconv.Itoa(fd)
		got, err := run(t, s)
		if err == nil {
			t.Errorf("%s: started: %q", s.Process.Cwd, got.out)
		}
	}
	if err := os.Symlink(
		"/proc/self/fd/"+strconv.Itoa(int(leak.Fd())), filepath.Join(root, "link"),
	); err != nil {
		t.Fatal(err)
	}
	s := config(root, "ls")
	s.Process.Cwd = "/link"
	if got, err := run(t, s); err == nil {
		t.Errorf("through a link: started: %q", got.out)
	}
}

// TestProcIsNoDirectory is CVE-2019-16884, 2019-19921, 2023-27561 and 2023-28642: /proc or /sys of
// the image leads elsewhere, so that masks and label writes go astray.
func TestProcIsNoDirectory(t *testing.T) {
	for _, name := range []string{"proc", "sys"} {
		root := rootfs(t)
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("data", filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		_, err := run(t, config(root, "ls /data"))
		var step *plan.StepError
		if !errors.As(err, &step) || step.Errno != unix.ELOOP {
			t.Errorf("/%s is a link: got %v, want ELOOP", name, err)
		}
	}
}

// TestMountTargetLinks is CVE-2019-18837 and the class of CVE-2021-30465: mount targets that are
// links to the host.
func TestMountTargetLinks(t *testing.T) {
	root := rootfs(t)
	outside := t.TempDir()
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "mark"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{
		outside, "../../../../../../.." + outside, "/proc/1/root" + outside,
	} {
		at := filepath.Join(root, "target")
		os.Remove(at)
		if err := os.Symlink(link, at); err != nil {
			t.Fatal(err)
		}
		for _, dest := range []string{"/target", "/target/below"} {
			s := config(root, "ls "+outside+" 2>&1")
			s.Mounts = append(
				s.Mounts, specs.Mount{Destination: dest, Source: src, Options: []string{"bind"}},
			)
			run(t, s) // may start or not: what counts is the host
			entries, err := os.ReadDir(outside)
			if err != nil || len(entries) > 0 {
				t.Fatalf(
					"link %s, target %s: the host's directory holds %v, %v", link, dest, entries,
					err,
				)
			}
		}
	}
}

// TestMaskWithForeignNull is CVE-2025-31133: a /dev/null of the image's choice as the source of
// masks.
func TestMaskWithForeignNull(t *testing.T) {
	root := rootfs(t)
	os.RemoveAll(filepath.Join(root, "dev"))
	if err := os.MkdirAll(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(
		"/proc/sys/kernel/core_pattern", filepath.Join(root, "dev/null"),
	); err != nil {
		t.Fatal(err)
	}
	s := config(root, "stat -L -c %t:%T /proc/keys; head -c 10 /proc/keys | wc -c")
	s.Mounts = append(s.Mounts[:1:1], s.Mounts[3]) // without a /dev of our own
	got, err := run(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if want := "1:3\n0\n"; got.out != want {
		t.Errorf("the mask of /proc/keys: got %q, want %q, the null device", got.out, want)
	}
}

// TestDevIsLink is CVE-2026-41579: /dev of the image is a link to a directory of the host in which
// ptmx is removed and links are made.
func TestDevIsLink(t *testing.T) {
	root := rootfs(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "ptmx"), []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{outside, "../../../../../.." + outside} {
		os.RemoveAll(filepath.Join(root, "dev"))
		if err := os.Symlink(link, filepath.Join(root, "dev")); err != nil {
			t.Fatal(err)
		}
		s := config(root, "true")
		s.Mounts = s.Mounts[:1]
		s.Linux.MaskedPaths = nil
		run(t, s)
		raw, err := os.ReadFile(filepath.Join(outside, "ptmx"))
		entries, _ := os.ReadDir(outside)
		if err != nil || string(raw) != "host" || len(entries) != 1 {
			t.Errorf(
				"link %s: the host's directory has changed: %q, %v, %v", link, raw, entries, err,
			)
		}
	}
}

// TestRacingMountTarget is CVE-2021-30465 and 2024-45310 as a race: somebody who shares the volume
// swaps a directory on the path of a mount target with a link to the host while containers start.
func TestRacingMountTarget(t *testing.T) {
	root := rootfs(t)
	volume, outside, src := t.TempDir(), t.TempDir(), t.TempDir()
	dir, link := filepath.Join(volume, "dir"), filepath.Join(volume, "link")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		s := config(root, "true")
		s.Mounts = append(s.Mounts, specs.Mount{
			Destination: "/data", Source: volume, Options: []string{"bind"},
		},
			specs.Mount{
				Destination: "/data/dir/made/by/mount", Source: src, Options: []string{"bind"},
			},
			specs.Mount{Destination: "/data/dir/tmp", Type: "tmpfs"})
		run(t, s)
		if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
			t.Fatalf("the host's directory holds %v, %v", entries, err)
		}
	}
	close(stop)
	<-stopped
}

// TestJoiningProcessHoldsNothing is CVE-2016-9962: a process inside of the container that may
// ptrace looks at a joining process before it executes. It must not be dumpable, and hold no
// descriptor of the host.
func TestJoiningProcessHoldsNothing(t *testing.T) {
	root := rootfs(t)
	caps := []string{"CAP_SYS_PTRACE"}
	// Whatever it sees of other processes than itself is written down; a descriptor that leads out
	// of the container shows as a path of the host.
	s := config(
		root,
		`while true; do for p in /proc/[0-9]*; do test $p = /proc/1 && continue; `+
			`ls -l $p/fd $p/cwd $p/root $p/exe 2>/dev/null; done; done`,
	)
	s.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding: caps, Effective: caps, Permitted: caps,
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, ct, p := create(t, s, w)
	w.Close()
	if err := ct.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 1)
	go func() {
		raw, _ := io.ReadAll(r)
		seen <- string(raw)
	}()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		proc := *s.Process
		proc.Args, proc.Capabilities = []string{"/bin/true"}, nil
		e, err := ct.Exec(
			context.Background(),
			ExecOptions{Process: &proc, Stdio: &[3]*os.File{null, null, null}},
		)
		if err != nil {
			t.Fatal(err)
		}
		e.Wait()
		e.Close()
	}
	ct.Kill(context.Background(), unix.SIGKILL, false)
	p.Wait()
	listed := 0
	for line := range strings.Lines(<-seen) {
		_, to, _ := strings.Cut(strings.TrimSpace(line), " -> ")
		switch {
		case strings.HasPrefix(to, "/bin/busybox"):
			listed++
		case to == "", to == "/", to == "/null", to == "/dev/null",
			strings.HasPrefix(to, "socket:"), strings.HasPrefix(to, "pipe:"),
			strings.Contains(to, "memfd:strake-init"), strings.HasPrefix(to, "/proc/"):
		default:
			t.Errorf("a joining process shows %q", line)
		}
	}
	if listed == 0 {
		t.Error("the watcher saw no process")
	}
}

// TestInheritableIsEmpty is CVE-2022-29162 and its kin: capabilities in the inheritable set that
// nobody asked for.
func TestInheritableIsEmpty(t *testing.T) {
	s := config(rootfs(t), "grep -E 'Cap(Inh|Amb)' /proc/self/status")
	caps := []string{"CAP_CHOWN", "CAP_NET_RAW"}
	s.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding: caps, Effective: caps, Permitted: caps,
	}
	got, err := run(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if want := "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n"; got.out != want {
		t.Errorf("got %q, want %q", got.out, want)
	}
}

// TestMountOverProc refuses to mount on files in /proc, also through links of the image.
func TestMountOverProc(t *testing.T) {
	root := rootfs(t)
	if err := os.Symlink("proc/sys", filepath.Join(root, "innocent")); err != nil {
		t.Fatal(err)
	}
	src := t.TempDir()
	for _, dest := range []string{"/proc/sys", "/proc/self/attr", "/innocent", "/innocent/kernel"} {
		s := config(root, "true")
		s.Mounts = append(
			s.Mounts, specs.Mount{Destination: dest, Source: src, Options: []string{"bind"}},
		)
		if _, err := run(t, s); err == nil {
			t.Errorf("%s: started", dest)
		}
	}
}

// TestIDsAreNoPaths refuses IDs that would lead out of the state directory.
func TestIDsAreNoPaths(t *testing.T) {
	for _, id := range []string{
		"", ".", "..", "../x", "a/b", ".hidden", "a b", "a\x00b", "ä", strings.Repeat("a", 2000),
	} {
		if err := CheckID(id); err == nil {
			t.Errorf("%q is accepted", id)
		}
	}
	for _, id := range []string{"a", "A-b_c+d.e", "0"} {
		if err := CheckID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// TestCreatedHoldsNothing: a container that waits to be started has nothing open but what its
// process will have, and a socket. What it opened before the masks were there, of procfs and of the
// host, would otherwise be reached through /proc/1/fd by a process that is added to it.
func TestCreatedHoldsNothing(t *testing.T) {
	root := rootfs(t)
	for _, tt := range []struct {
		name string
		edit func(s *specs.Spec)
		opt  func(o *CreateOptions)
	}{
		{name: "plain"},
		{name: "with a terminal", edit: func(s *specs.Spec) { s.Process.Terminal = true }, opt: func(o *CreateOptions) {
			o.Stdio = nil
			o.Terminal = func(master *os.File) error {
				t.Cleanup(func() { master.Close() })
				return nil
			}
		}},
		{name: "with a reaper", opt: func(o *CreateOptions) { o.Reaper = true }},
		{name: "with a mount", edit: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{
				Destination: "/data", Source: t.TempDir(), Options: []string{"bind", "ro"},
			})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := config(root, "sleep 100")
			if tt.edit != nil {
				tt.edit(s)
			}
			_, ct, p := create(t, s, nil, func(o *CreateOptions) {
				if tt.opt != nil {
					tt.opt(o)
				}
			})
			dir := "/proc/" + strconv.Itoa(p.Pid) + "/fd"
			list, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			sockets := 0
			for _, e := range list {
				n, _ := strconv.Atoi(e.Name())
				to, err := os.Readlink(filepath.Join(dir, e.Name()))
				if strings.HasPrefix(to, "socket:") {
					sockets++
				} else if to == "anon_inode:[signalfd]" {
					if f, err := os.Open(filepath.Join(dir, e.Name())); err == nil {
						t.Error("a signalfd can be opened through procfs")
						f.Close()
					}
				} else if n > 2 || err != nil {
					t.Errorf("descriptor %s is %q, %v", e.Name(), to, err)
				}
			}
			if sockets != 1 {
				t.Errorf("%d sockets, want that on which it waits", sockets)
			}
			if err := ct.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestNestedProc: a user namespace made in the container mounts no procfs of its own, which would
// show what is masked and let write what is read-only. Without pivot_root(2) the host's procfs must
// not stay below the root.
func TestNestedProc(t *testing.T) {
	root := rootfs(t)
	if err := os.Symlink("busybox", filepath.Join(root, "bin/unshare")); err != nil {
		t.Fatal(err)
	}
	src := t.TempDir()
	caps := []string{"CAP_SETFCAP", "CAP_SETUID", "CAP_SETGID"}
	for _, noPivot := range []bool{false, true} {
		for _, users := range []bool{false, true} {
			s := config(root, "unshare -m -U -r -p -f sh -c "+
				"'mount -t proc none /data 2>/dev/null && echo MOUNTED; echo tried'; "+
				"mount -t sysfs none /data 2>/dev/null && echo MOUNTED")
			s.Process.Capabilities = &specs.LinuxCapabilities{
				Bounding: caps, Effective: caps, Permitted: caps,
			}
			if users {
				s.Linux.Namespaces = append(
					s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace},
				)
				m := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
				s.Linux.UIDMappings, s.Linux.GIDMappings = m, m
			}
			s.Mounts = append(s.Mounts, specs.Mount{
				Destination: "/tmp", Source: src, Options: []string{"bind"},
			})
			got, err := run(t, s, func(o *CreateOptions) { o.NoPivot = noPivot })
			if err != nil || got.out != "tried\n" {
				t.Errorf("no pivot %t, user namespace %t: %q, %v", noPivot, users, got.out, err)
			}
		}
	}
}

func TestWholeMounts(t *testing.T) {
	t.Parallel()
	got := wholeMounts([]byte(`21 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw
22 1 0:21 / /sys rw - sysfs sysfs rw
23 1 0:22 / /srv/a\040b\134/proc rw - proc proc rw
24 1 0:22 / /bundle/rootfs/proc rw - proc proc rw
25 1 0:22 / /bundle/rootfs2/proc rw - proc proc rw
26 21 0:23 / /proc/sys/fs/binfmt_misc rw - binfmt_misc none rw
`), "/bundle/rootfs")
	want := []string{"/proc", "/sys", `/srv/a b\/proc`, "/bundle/rootfs2/proc"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
