package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestListedPtmx lists devices that /dev has already, as engines do for privileged containers: the
// multiplexer stays the one of the container's own devpts.
func TestListedPtmx(t *testing.T) {
	root := rootfs(t)
	for _, user := range []string{"host", "mapped"} {
		t.Run(user, func(t *testing.T) {
			spec := config(
				root, "readlink /dev/ptmx; readlink /dev/fd; test -c /dev/fuse && echo fuse",
			)
			spec.Linux.Devices = []specs.LinuxDevice{
				{Path: "/dev/ptmx", Type: "c", Major: 5, Minor: 2},
				{Path: "/dev//ptmx", Type: "c", Major: 5, Minor: 2},
			}
			want := "pts/ptmx\n/proc/self/fd\n"
			if user == "mapped" {
				mapUsers(spec)
			} else {
				spec.Linux.Devices = append(spec.Linux.Devices, specs.LinuxDevice{
					Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229,
				})
				want += "fuse\n"
			}
			if got, err := run(t, spec); err != nil || got.out != want {
				t.Errorf("got %q, %v; want %q", got.out, err, want)
			}
		})
	}
}

// TestTmpfsMode mounts filesystems in memory on directories that exist, and on one that does not.
func TestTmpfsMode(t *testing.T) {
	root := rootfs(t)
	for name, mode := range map[string]os.FileMode{"plain": 0o710, "sticky": 0o755 | os.ModeSticky} {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	spec := config(root, "stat -c '%n %a' /plain /sticky /chosen /new /dev/new; "+
		"touch /plain/x && echo written; touch /sticky/x 2>/dev/null || echo refused; ls /sticky; "+
		"grep -c 'tmpfs /plain tmpfs .*mode=710' /proc/mounts")
	for _, m := range []specs.Mount{
		{Destination: "/plain"},
		{Destination: "/sticky", Options: []string{"ro"}},
		{Destination: "/sticky/below", Options: []string{"ro"}},
		{Destination: "/chosen", Options: []string{"mode=0700"}},
		{Destination: "/new"}, {Destination: "/dev/new"},
	} {
		m.Type, m.Source = "tmpfs", "tmpfs"
		spec.Mounts = append(spec.Mounts, m)
	}
	want := "/plain 710\n/sticky 1755\n/chosen 700\n/new 1777\n/dev/new 1777\n" +
		"written\nrefused\nbelow\n1\n"
	if got, err := run(t, spec); err != nil || got.out != want {
		t.Errorf("got %q, %v; want %q", got.out, err, want)
	}
	// The second start finds /new and /chosen, which the first one made.
	mapUsers(spec)
	want = "/plain 710\n/sticky 1755\n/chosen 700\n/new 755\n/dev/new 1777\n" +
		"written\nrefused\nbelow\n1\n"
	if got, err := run(t, spec); err != nil || got.out != want {
		t.Errorf("in a user namespace: got %q, %v; want %q", got.out, err, want)
	}
}

// TestTmpfsCopyUp mounts filesystems in memory that begin with what their directories hold, links
// that lead out of the image and a special file among it.
func TestTmpfsCopyUp(t *testing.T) {
	root := rootfs(t)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "var")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "deep/er"), 0o755),
		os.WriteFile(filepath.Join(dir, "deep/er/file"), []byte("content\n"), 0o640),
		os.Chown(filepath.Join(dir, "deep/er/file"), 5, 6),
		os.Chmod(filepath.Join(dir, "deep"), 0o750|os.ModeSticky),
		os.Chown(filepath.Join(dir, "deep"), 7, 8),
		os.Link(filepath.Join(dir, "deep/er/file"), filepath.Join(dir, "name")),
		os.Symlink(outside, filepath.Join(dir, "out")),
		os.Symlink("../../../../../../../../..", filepath.Join(dir, "up")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
		os.WriteFile(filepath.Join(dir, "tool"), []byte("#!"), 0o600),
		os.Chmod(filepath.Join(dir, "tool"), 0o755|os.ModeSetuid),
		unix.Setxattr(filepath.Join(dir, "tool"), "trusted.strake", []byte("kept"), 0),
		os.Chown(dir, 9, 10),
		os.Chmod(dir, 0o711),
		os.Symlink("/var", filepath.Join(root, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	script := `cd /var; stat -c '%n %F %a %u:%g %h' . deep deep/er/file name out up fifo tool | sort
readlink out; cat name out 2>/dev/null; touch new && echo writable; ls /bound; ls /link/new`
	want := `. directory 711 9:10 %h
deep directory 1750 7:8 %h
deep/er/file regular file 640 5:6 2
fifo fifo 600 0:0 1
name regular file 640 5:6 2
out symbolic link 777 0:0 1
tool regular file 4755 0:0 1
up symbolic link 777 0:0 1
` + outside + "\ncontent\nwritable\ninside\n/link/new\n"
	bound := t.TempDir()
	if err := os.WriteFile(filepath.Join(bound, "inside"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	spec := config(root, script)
	all := []string{"CAP_DAC_OVERRIDE"}
	spec.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding: all, Effective: all, Permitted: all,
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: "/bound", Type: "bind", Source: bound, Options: []string{"rbind"},
	}, specs.Mount{
		// What an earlier mount shows is what is copied.
		Destination: "/bound", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"},
	}, specs.Mount{
		Destination: "/link", Type: "tmpfs", Source: "tmpfs",
		Options: []string{"rw", "nosuid", "nodev", "tmpcopyup"},
	})
	links := regexp.MustCompile(`(?m)^(\.|deep)( directory.*) \d+$`)
	got, err := run(t, spec)
	if out := links.ReplaceAllString(got.out, "$1$2 %h"); err != nil || out != want {
		t.Errorf("got\n%s%v, want\n%s", out, err, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("written to the image")
	}

	// Owners that a user namespace does not have are shown as in the image.
	mapUsers(spec)
	spec.Process.Args[2] = "stat -c '%n %a %u:%g' /var/deep /var/name; cat /var/name"
	for _, name := range []string{".", "deep/er", "deep/er/file"} {
		if err := os.Chown(filepath.Join(dir, name), 100005, 100006); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := run(t, spec); err != nil ||
		got.out != "/var/deep 1750 65534:65534\n/var/name 640 5:6\ncontent\n" {
		t.Errorf("in a user namespace: %q, %v", got.out, err)
	}

	// What does not fit is an error of the start.
	spec = config(root, "true")
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: "/var", Type: "tmpfs", Source: "tmpfs",
		Options: []string{"tmpcopyup", "size=65536"},
	})
	if _, err := run(t, spec); !errors.Is(err, unix.ENOSPC) ||
		!strings.Contains(err.Error(), "mounts[4] (/var): tmpcopyup") {
		t.Errorf("too large: %v", err)
	}
}

// TestDanglingTargets mounts on links of the image that lead to nothing: the target is made where
// the link leads to from the container's root, and nowhere else.
func TestDanglingTargets(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	if err := os.WriteFile(src, []byte("mounted\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, target, made string
		links              map[string]string
		directory          bool
	}{
		{
			name: "file", target: "/etc/hosts", made: "tmp/foo/bar/hosts",
			links: map[string]string{"etc/hosts": "/tmp/foo/bar/hosts"},
		},
		{
			name: "out of the root", target: "/etc/hosts", made: "strake-dangling/hosts",
			links: map[string]string{"etc/hosts": "../../../../../../../strake-dangling/hosts"},
		},
		{
			name: "on the way", target: "/opt/a/b", made: "tmp/x/a/b",
			links: map[string]string{"opt": "/one", "one": "tmp/./x/y/.."},
		},
		{
			name: "directory", target: "/opt/a", made: "tmp/deep/dir", directory: true,
			links: map[string]string{"opt": "tmp", "tmp/a": "deep/dir"},
		},
	} {
		for _, user := range []string{"host", "mapped"} {
			t.Run(c.name+" "+user, func(t *testing.T) {
				root := rootfs(t)
				for name, to := range c.links {
					if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
						t.Fatal(err)
					}
				}
				m := specs.Mount{Destination: c.target, Source: src, Options: []string{"bind"}}
				spec := config(root, "cat "+c.target)
				want := "mounted\n"
				if c.directory {
					m = specs.Mount{Destination: c.target, Type: "tmpfs", Source: "tmpfs"}
					spec = config(root, "stat -L -c %a "+c.target)
					want = "1777\n"
				}
				if user == "mapped" {
					mapUsers(spec)
					if err := filepath.WalkDir(root, func(p string, _ os.DirEntry, _ error) error {
						return os.Lchown(p, 100000, 100000)
					}); err != nil {
						t.Fatal(err)
					}
				}
				spec.Mounts = append(spec.Mounts, m)
				if got, err := run(t, spec); err != nil || got.out != want {
					t.Errorf("got %q, %v", got.out, err)
				}
				var st unix.Stat_t
				if err := unix.Lstat(filepath.Join(root, c.made), &st); err != nil {
					t.Errorf("%s: %v", c.made, err)
				}
				if mapped := user == "mapped"; mapped != (st.Uid == 100000) {
					t.Errorf("%s belongs to %d", c.made, st.Uid)
				}
				if _, err := os.Lstat("/strake-dangling"); err == nil {
					t.Error("made outside of the root")
				}
			})
		}
	}
	root := rootfs(t)
	if err := os.Symlink("loop", filepath.Join(root, "loop")); err != nil {
		t.Fatal(err)
	}
	spec := config(root, "true")
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: "/loop/x", Source: src, Options: []string{"bind"},
	})
	if _, err := run(t, spec); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link to itself: %v", err)
	}
}

// TestRelativeSource binds a directory of the bundle by a path that is relative to the bundle.
func TestRelativeSource(t *testing.T) {
	root := rootfs(t)
	bundle := filepath.Dir(root)
	if err := os.Mkdir(filepath.Join(bundle, "source"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(
		filepath.Join(bundle, "source/file"), []byte("content\n"), 0o644,
	); err != nil {
		t.Fatal(err)
	}
	for _, m := range []specs.Mount{
		{Source: "source", Type: "bind"},
		{Source: "./source", Type: "none", Options: []string{"rbind", "ro"}},
		{Source: "../" + filepath.Base(bundle) + "/source", Options: []string{"bind"}},
	} {
		spec := config(root, "cat /data/file")
		spec.Root.Path = filepath.Base(root)
		m.Destination = "/data"
		spec.Mounts = append(spec.Mounts, m)
		got, err := run(t, spec, func(o *CreateOptions) { o.Bundle = bundle })
		if err != nil || got.out != "content\n" {
			t.Errorf("%s: got %q, %v", m.Source, got.out, err)
		}
		if spec.Mounts[len(spec.Mounts)-1].Source != m.Source {
			t.Error("the caller's configuration was changed")
		}
	}

	// Another process that starts the container, and has to explain why it could not be executed,
	// reads the configuration again.
	if err := os.WriteFile(
		filepath.Join(root, "bin/later"), []byte("#!/bin/nowhere\n"), 0o755,
	); err != nil {
		t.Fatal(err)
	}
	spec := config(root[1:], "")
	spec.Process.Args = []string{"/bin/later"}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: "/data", Source: filepath.Join(bundle, "source")[1:], Type: "bind",
	})
	rt, held, _ := create(t, spec, nil) // in the bundle "/"
	again, err := rt.Load(held.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Start(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "process.args (/bin/later): execve: ENOENT") {
		t.Errorf("start: %v", err)
	}
}

// TestLoopback: lo is up in a network namespace that was made for a container, and left as it is in
// one that is joined.
func TestLoopback(t *testing.T) {
	root := rootfs(t)
	up := func(name string, spec *specs.Spec, want string) {
		t.Helper()
		if got, err := run(t, spec); err != nil || got.out != want {
			t.Errorf("%s: got %q, %v; want %q", name, got.out, err, want)
		}
	}
	const script = "cat /sys/class/net/lo/flags"
	up("new", config(root, script), "0x9\n")
	spec := config(root, script+"; echo x | nc -w 1 127.0.0.1 9 2>&1")
	up("new, with its address", spec, "0x9\nnc: can't connect to remote host (127.0.0.1): "+
		"Connection refused\n")
	spec = config(root, script)
	mapUsers(spec)
	up("new, of a user namespace", spec, "0x9\n")

	// A namespace in which lo is down, kept by a thread that ends with the goroutine.
	path, done := make(chan string), make(chan struct{})
	defer close(done)
	go func() {
		runtime.LockOSThread()
		name := ""
		if unix.Unshare(unix.CLONE_NEWNET) == nil {
			name = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		}
		path <- name
		<-done
	}()
	ns := <-path
	if ns == "" {
		t.Fatal("no network namespace")
	}
	spec = config(root, script)
	for i := range spec.Linux.Namespaces {
		if spec.Linux.Namespaces[i].Type == specs.NetworkNamespace {
			spec.Linux.Namespaces[i].Path = ns
		}
	}
	up("joined", spec, "0x8\n")
}

// TestRepeatedPaths: a path that is named twice, or in two spellings, is covered once.
func TestRepeatedPaths(t *testing.T) {
	root := rootfs(t)
	spec := config(root, "grep -c ' /data ' /proc/mounts; grep -c ' /etc ' /proc/mounts")
	spec.Linux.MaskedPaths = append(spec.Linux.MaskedPaths, "/data", "/data", "/data/", "data")
	spec.Linux.ReadonlyPaths = append(spec.Linux.ReadonlyPaths, "/etc", "//etc", "/etc")
	if got, err := run(t, spec); err != nil || got.out != "1\n1\n" {
		t.Errorf("got %q, %v", got.out, err)
	}
}

// TestAmbientBeyondInheritable: ambient capabilities that the kernel would not raise are warned of
// and left out, and the others are raised.
func TestAmbientBeyondInheritable(t *testing.T) {
	spec := config(rootfs(t), "grep CapAmb /proc/self/status")
	list := []string{"CAP_CHOWN", "CAP_KILL"}
	spec.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding: list, Permitted: list, Effective: list, Ambient: list,
		Inheritable: []string{"CAP_KILL"},
	}
	var warned []string
	got, err := run(t, spec, func(o *CreateOptions) {
		o.Log = func(format string, args ...any) {
			warned = append(warned, fmt.Sprintf(format, args...))
		}
	})
	if err != nil || got.out != "CapAmb:\t0000000000000020\n" {
		t.Errorf("got %q, %v", got.out, err)
	}
	if len(warned) != 1 ||
		!strings.Contains(warned[0], "can't raise ambient capability CAP_CHOWN: ") {
		t.Errorf("warnings: %q", warned)
	}
}

// TestNoAgent: a filter that asks an agent that is not there is an error in runc's words.
func TestNoAgent(t *testing.T) {
	spec := config(rootfs(t), "true")
	spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: filepath.Join(t.TempDir(), "none"),
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}},
	}
	_, err := run(t, spec)
	if err == nil || !strings.Contains(err.Error(), "failed to connect with seccomp agent") {
		t.Errorf("got %v", err)
	}
}
