package container

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/plan"
	"strake/container/program"
)

func TestRun(t *testing.T) {
	root := rootfs(t)
	// Only a process with this capability in the host's user namespace may lower a score.
	score := -500
	if !capable(t, unix.CAP_SYS_RESOURCE) {
		score = 500
	}
	for _, c := range []struct {
		name, script string
		edit         func(*specs.Spec)
		want         string
		status       int
	}{
		{name: "status", script: "exit 7", status: 7},
		{name: "pid 1", script: "echo $$", want: "1\n"},
		{name: "hostname", script: "hostname", want: "inside\n"},
		{name: "processes", script: "set -- /proc/[0-9]*; echo $#", want: "1\n"},
		{name: "interfaces", script: "cat /proc/net/dev | grep -c :", want: "1\n"},
		{name: "masked file", script: "head -c1 /proc/keys | wc -c", want: "0\n"},
		{name: "masked directory", script: "ls /sys/firmware | wc -l", want: "0\n"},
		{
			name: "readonly path", script: "echo x > /proc/sys/kernel/domainname; echo $?",
			want: "/bin/sh: can't create /proc/sys/kernel/domainname: Read-only file system\n1\n",
		},
		{name: "cgroup namespace", script: "grep -v ':/$' /proc/self/cgroup | wc -l", want: "0\n"},
		{
			name: "no capabilities", script: "grep CapEff /proc/self/status",
			want: "CapEff:\t0000000000000000\n",
		},
		{name: "user", script: "id", want: "uid=5 gid=6 groups=7\n", edit: func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7}}
		}},
		{
			name: "working directory is made", script: "pwd", want: "/a/b\n",
			edit: func(s *specs.Spec) { s.Process.Cwd = "/a/b" },
		},
		{
			name: "read-only root", script: "touch /x 2>&1; echo $?",
			want: "touch: /x: Read-only file system\n1\n",
			edit: func(s *specs.Spec) { s.Root.Readonly = true },
		},
		// The three streams and ls's own.
		{name: "descriptors", script: "ls /proc/self/fd | wc -l", want: "4\n"},
		{
			name: "search path",
			edit: func(s *specs.Spec) { s.Process.Args = []string{"echo", "found"} },
			want: "found\n",
		},
		{name: "limits", script: "ulimit -n", want: "99\n", edit: func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 100}}
		}},
		{name: "oom score", script: "cat /proc/self/oom_score_adj", want: "321\n",
			edit: func(s *specs.Spec) {
				n := 321
				s.Process.OOMScoreAdj = &n
			}},
		{name: "oom score in a user namespace", script: "cat /proc/self/oom_score_adj",
			want: itoa(score) + "\n", edit: func(s *specs.Spec) {
				s.Process.OOMScoreAdj = &score
				mapUsers(s)
			}},
		{name: "umask", script: "umask", want: "0077\n", edit: func(s *specs.Spec) {
			u := uint32(0o77)
			s.Process.User.Umask = &u
		}},
		{name: "user namespace", edit: mapUsers,
			script: "id -u; cat /proc/self/uid_map; " +
				"test -c /dev/null && echo x > /dev/null && echo ok",
			want: "0\n         0     100000      65536\nok\n"},
		{name: "sysctl", script: "cat /proc/sys/net/ipv4/ip_forward", want: "1\n",
			edit: func(s *specs.Spec) {
				s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
			}},
		{
			name: "no new privileges", script: "grep NoNewPrivs /proc/self/status",
			want: "NoNewPrivs:\t1\n",
			edit: func(s *specs.Spec) { s.Process.NoNewPrivileges = true },
		},
		{name: "time namespace", script: "cut -d. -f1 /proc/uptime | head -c 4", want: "1000",
			edit: func(s *specs.Spec) {
				s.Linux.Namespaces = append(
					s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace},
				)
				s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{
					"boottime": {Secs: 1000000000},
				}
			}},
		{
			name: "signals are open",
			edit: func(s *specs.Spec) {
				s.Process.Args = []string{"grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"}
			},
			want: "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := config(root, c.script)
			if c.edit != nil {
				c.edit(s)
			}
			got, err := run(t, s)
			if err != nil {
				t.Fatal(err)
			}
			if got.out != c.want || got.status.ExitStatus() != c.status {
				t.Errorf(
					"got %q with status %d, want %q with %d", got.out, got.status.ExitStatus(),
					c.want, c.status,
				)
			}
		})
	}
}

func TestBindMounts(t *testing.T) {
	root := rootfs(t)
	src := t.TempDir()
	os.Chmod(src, 0o755)
	if err := os.WriteFile(filepath.Join(src, "f"), []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, script, want string
		mount              specs.Mount
	}{
		{
			"directory", "cat /data/f", "content\n",
			specs.Mount{Destination: "/data", Source: src, Options: []string{"rbind"}},
		},
		{
			"file on a missing path", "cat /new/deep/file", "content\n",
			specs.Mount{
				Destination: "/new/deep/file", Source: filepath.Join(src, "f"),
				Options: []string{"bind"},
			},
		},
		{
			"read-only", "echo x > /data/f; echo $?",
			"/bin/sh: can't create /data/f: Read-only file system\n1\n",
			specs.Mount{Destination: "/data", Source: src, Options: []string{"bind", "ro"}},
		},
		{"id-mapped", "stat -c %u /data/f", "77\n", specs.Mount{
			Destination: "/data", Source: src, Options: []string{"bind", "idmap"},
			UIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 77, Size: 10}},
			GIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 77, Size: 10}},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := config(root, c.script)
			s.Mounts = append(s.Mounts, c.mount)
			got, err := run(t, s)
			needMappable(t, err)
			if err != nil {
				t.Fatal(err)
			}
			if got.out != c.want {
				t.Errorf("got %q, want %q", got.out, c.want)
			}
		})
	}
}

// TestFailures checks that what cannot start says which step of which field failed.
func TestFailures(t *testing.T) {
	root := rootfs(t)
	if err := os.WriteFile(
		filepath.Join(root, "etc/text"), []byte("no program\n"), 0o644,
	); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		edit func(*specs.Spec)
		want string
		code int
	}{
		{
			"missing program", func(s *specs.Spec) { s.Process.Args = []string{"/bin/nothing"} },
			"process.args (/bin/nothing): execve: ENOENT", 127,
		},
		{
			"missing program in PATH", func(s *specs.Spec) { s.Process.Args = []string{"nothing"} },
			`process.args (nothing): check: ENOENT: exec: "nothing": ` +
				"executable file not found in $PATH", 127,
		},
		{
			"not executable", func(s *specs.Spec) { s.Process.Args = []string{"/etc/text"} },
			"process.args (/etc/text): execve: EACCES", 126,
		},
		{"missing source", func(s *specs.Spec) {
			s.Mounts = append(
				s.Mounts,
				specs.Mount{
					Destination: "/data", Source: "/does/not/exist", Options: []string{"bind"},
				},
			)
		}, `mounts[4] (/data): open_tree "/does/not/exist"`, 0},
		{
			"unknown filesystem",
			func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "nofs"})
			},
			"mounts[4] (/data): fsopen: ENODEV", 128,
		},
		{"bad option", func(s *specs.Spec) {
			s.Mounts = append(
				s.Mounts,
				specs.Mount{Destination: "/data", Type: "tmpfs", Options: []string{"sise=1"}},
			)
		}, "mounts[4] (/data): fsconfig: EINVAL", 128},
		{
			"file as working directory", func(s *specs.Spec) { s.Process.Cwd = "/etc/text" },
			"process.cwd (/etc/text): chdir: ENOTDIR", 128,
		},
		{
			"unknown sysctl",
			func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.nothing": "1"} },
			"linux.sysctl[net.nothing]: openat2: ENOENT", 128,
		},
		{
			"namespace of another type",
			func(s *specs.Spec) { s.Linux.Namespaces[4].Path = "/proc/self/ns/uts" },
			"linux.namespaces[4] (network): ", 0,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := config(root, "exit 0")
			c.edit(s)
			_, err := run(t, s)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Fatalf("got error %v, want one that begins with %q", err, c.want)
			}
			var step *plan.StepError
			if errors.As(err, &step) != (c.code != 0) || c.code != 0 && step.ExitCode() != c.code {
				t.Errorf("%v: want exit status %d", err, c.code)
			}
		})
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("children left: %v", left)
	}
}

// TestBrokenAtEveryOperation breaks the start at each operation of the program, once by an error
// and once by sudden death, and looks for what is left.
func TestBrokenAtEveryOperation(t *testing.T) {
	root := rootfs(t)
	spec := config(root, "exit 0")
	ops := 0
	if _, err := run(t, spec, func(o *CreateOptions) {
		o.breakImage = func(img *program.Image) *program.Image { ops = img.Ops(); return img }
	}); err != nil {
		t.Fatal(err)
	}
	for i := range ops - 1 { // not the guard at the end
		for _, errno := range []uint16{uint16(unix.EIO), 0} {
			got, err := run(t, spec, func(o *CreateOptions) {
				o.breakImage = func(img *program.Image) *program.Image {
					return img.Broken(i, errno)
				}
			})
			switch {
			case err == nil && got.status.ExitStatus() == 0:
				// The operation lies out of the straight line.
			case errno == 0 && (err != nil || got.status.ExitStatus() != 137):
				t.Errorf("operation %d dies: got %v, %v", i, got, err)
			case errno != 0 && !errors.Is(err, unix.EIO):
				t.Errorf("operation %d fails: got %v, want EIO", i, err)
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("children left: %v", left)
	}
	t.Logf("broke each of %d operations", ops)
}

// create makes a held container.
func create(
	t *testing.T, spec *specs.Spec, out *os.File, edit ...func(*CreateOptions),
) (*Runtime, *Container, *Process) {
	t.Helper()
	rt := runtimeFor(t)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if out == nil {
		out = null
	}
	id := name(t)
	opt := CreateOptions{
		ID: id, Bundle: "/", Spec: spec, Hold: true, Stdio: &[3]*os.File{null, out, out},
	}
	for _, f := range edit {
		f(&opt)
	}
	c, p, err := rt.Create(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c, err := rt.Load(id); err == nil {
			c.Delete(context.Background(), true)
		}
		p.Wait()
		p.Close()
		clean(t, rt, id)
	})
	return rt, c, p
}

func TestLifecycle(t *testing.T) {
	ctx := context.Background()
	rt, c, p := create(t, config(rootfs(t), "sleep 100"), nil)
	expect := func(want specs.ContainerState) {
		t.Helper()
		if got, err := c.Status(); err != nil || got != want {
			t.Fatalf("status %s, %v; want %s", got, err, want)
		}
	}
	expect(specs.StateCreated)
	if exe, err := os.Readlink("/proc/" + itoa(c.Pid()) + "/exe"); err != nil ||
		!strings.HasPrefix(exe, "/memfd:strake-init") {
		t.Errorf("/proc/PID/exe of a created container is %q, %v", exe, err)
	}
	again, err := rt.Load(c.ID())
	if err != nil || again.Pid() != c.Pid() {
		t.Fatalf("load: %v", err)
	}
	if _, _, err := rt.Create(
		ctx, CreateOptions{ID: c.ID(), Bundle: "/", Spec: c.Spec()},
	); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second create: %v, want ErrAlreadyExists", err)
	}
	if err := again.Start(ctx); err != nil {
		t.Fatal(err)
	}
	expect(specs.StateRunning)
	if err := again.Start(ctx); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("second start: %v, want ErrFailedPrecondition", err)
	}
	if err := c.Delete(ctx, false); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("delete of a running container: %v, want ErrFailedPrecondition", err)
	}
	if err := c.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	expect(StatePaused)
	if err := c.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	expect(specs.StateRunning)
	if err := c.Kill(ctx, unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if ws, err := p.Wait(); err != nil || ws.Signal() != unix.SIGKILL {
		t.Errorf("wait: %v, %v", ws, err)
	}
	expect(specs.StateStopped)
	if err := c.Kill(ctx, unix.SIGKILL, false); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("kill of a stopped container: %v, want ErrFailedPrecondition", err)
	}
}

// TestStartFails holds a container whose program vanishes before it is started.
func TestStartFails(t *testing.T) {
	root := rootfs(t)
	s := config(root, "")
	s.Process.Args = []string{"/bin/later"}
	later := filepath.Join(root, "bin/later")
	if err := os.WriteFile(later, []byte("#!/bin/nowhere\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, c, p := create(t, s, nil)
	err := c.Start(context.Background())
	var step *plan.StepError
	if !errors.As(err, &step) || step.ExitCode() != 127 ||
		!strings.Contains(err.Error(), "process.args (/bin/later): execve: ENOENT") {
		t.Errorf("start: %v, want ENOENT of execve", err)
	}
	if ws, err := p.Wait(); err != nil || ws.ExitStatus() != 127 {
		t.Errorf("wait: %v, %v; want status 127", ws, err)
	}
}

func TestExecJoinsEverything(t *testing.T) {
	root := rootfs(t)
	for _, c := range []struct {
		name string
		edit func(*specs.Spec)
		uid  string
	}{{"plain", func(*specs.Spec) {}, "0"}, {"user namespace", mapUsers, "0"}} {
		t.Run(c.name, func(t *testing.T) {
			s := config(root, "sleep 100")
			c.edit(s)
			_, ct, _ := create(t, s, nil)
			if err := ct.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			proc := *s.Process
			proc.Args = []string{
				"/bin/sh", "-c",
				"hostname; id -u; for n in pid net mnt ipc uts user cgroup; do " +
					"test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) || " +
					"echo $n differs; done; ls /proc/self/fd | wc -l; exit 3",
			}
			// Reading /proc/1/ns wants the rights of ptrace.
			proc.Capabilities = &specs.LinuxCapabilities{
				Bounding: []string{"CAP_SYS_PTRACE"}, Effective: []string{"CAP_SYS_PTRACE"},
				Permitted: []string{"CAP_SYS_PTRACE"},
			}
			null, _ := os.Open(os.DevNull)
			defer null.Close()
			p, err := ct.Exec(
				context.Background(), ExecOptions{Process: &proc, Stdio: &[3]*os.File{null, w, w}},
			)
			w.Close()
			if err != nil {
				t.Fatal(err)
			}
			out, _ := io.ReadAll(r)
			ws, err := p.Wait()
			p.Close()
			if err != nil || ws.ExitStatus() != 3 {
				t.Errorf("wait: %v, %v; want status 3", ws, err)
			}
			if want := "inside\n" + c.uid + "\n4\n"; string(out) != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
}

func TestTerminal(t *testing.T) {
	for _, plain := range []bool{false, true} {
		want := "/dev/pts/0\r\n33 99\r\nyes\r\nc\r\n"
		if plain {
			want = strings.ReplaceAll(want, "\r", "")
		}
		if got := terminalOutput(t, plain); got != want {
			t.Errorf("plain %v: got %q, want %q", plain, got, want)
		}
	}
}

func terminalOutput(t *testing.T, plain bool) string {
	s := config(rootfs(t), "tty; stty size; test -t 0 && echo yes; ls -l /dev/console | cut -c1")
	s.Process.Terminal = true
	s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
	var master *os.File
	rt := runtimeFor(t)
	id := name(t)
	take := func(f *os.File) error {
		master = f
		return nil
	}
	c, p, err := rt.Create(
		context.Background(), CreateOptions{
			ID: id, Bundle: "/", Spec: s, Terminal: take, PlainTerminal: plain,
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(master) // ends with EIO when the other side is closed
	master.Close()
	p.Wait()
	p.Close()
	if err := c.Delete(context.Background(), true); err != nil {
		t.Error(err)
	}
	clean(t, rt, id)
	return string(out)
}

// TestReaper runs an orphan behind a PID 1 of ours, which reaps it and ends with the status of the
// payload.
func TestReaper(t *testing.T) {
	s := config(
		rootfs(t), "echo $$; (sleep 0.1 &) ; sleep 0.3; set -- /proc/[0-9]*; echo $#; "+
			"cat /proc/1/cmdline; exit 5",
	)
	got, err := run(t, s, func(o *CreateOptions) { o.Reaper = true })
	if err != nil {
		t.Fatal(err)
	}
	// PID 1 and the shell: no zombie.
	want := "2\n2\nstrake-init\x00--\x00/bin/sh\x00-c\x00" + s.Process.Args[2]
	if strings.TrimRight(got.out, "\x00") != want || got.status.ExitStatus() != 5 {
		t.Errorf("got %q with status %d, want %q with 5", got.out, got.status.ExitStatus(), want)
	}
}

func TestHooks(t *testing.T) {
	root := rootfs(t)
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	uts, err := os.Readlink("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	hook := func(text string) []specs.Hook {
		return []specs.Hook{
			{
				Path: "/bin/sh",
				Args: []string{
					"sh", "-c",
					"cat >/dev/null; test $(readlink /proc/self/ns/uts) = $HOST && echo " + text +
						" outside >> " + log + " || echo " + text + " inside >> " + log,
				},
				Env: []string{"PATH=/usr/bin:/bin", "HOST=" + uts},
			},
		}
	}
	s := config(root, "sleep 100")
	s.Hooks = &specs.Hooks{
		CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"),
		Poststart: hook("poststart"), Poststop: hook("poststop"),
	}
	s.Hooks.StartContainer = []specs.Hook{{Path: "/bin/touch", Args: []string{"touch", "/started"}}}
	_, c, p := create(t, s, nil)
	ctx := context.Background()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "started")); err != nil {
		t.Errorf("startContainer hook: %v", err)
	}
	c.Kill(ctx, unix.SIGKILL, false)
	p.Wait()
	if err := c.Delete(ctx, false); err != nil {
		t.Fatal(err)
	}
	raw, _ := os.ReadFile(log)
	want := "createRuntime outside\ncreateContainer inside\npoststart outside\npoststop outside\n"
	if string(raw) != want {
		t.Errorf("got %q, want %q", raw, want)
	}
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
	if _, err := run(t, s); err == nil ||
		!strings.HasPrefix(err.Error(), "hooks.createRuntime[0] (/bin/false): ") {
		t.Errorf("failing hook: %v", err)
	}
	second := 1
	s.Hooks = &specs.Hooks{
		CreateContainer: []specs.Hook{
			{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Timeout: &second},
		},
	}
	begin := time.Now()
	if _, err := run(t, s); err == nil || !strings.Contains(err.Error(), "no end within 1 s") ||
		time.Since(begin) > 30*time.Second {
		t.Errorf("hanging hook: %v", err)
	}
}
