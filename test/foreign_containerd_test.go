package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"strake/internal/testneed"
)

// containerd starts Debian's containerd, without its kubernetes part.
func (f *foreign) containerd() {
	f.t.Helper()
	program := testneed.Program(f.t, "containerd", "containerd")
	f.forget(
		"/run/containerd/s", "/run/containerd/runc", "/run/containerd/fifo", "/run/containerd",
	)
	config := f.write("containerd.toml", fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = %q
`, f.path("cd"), f.path("cds"), f.path("cd.sock")), 0o600)
	f.daemon(f.path("cd.sock"), program, "--config", config)
}

// TestContainerdOnRuntime: Debian's containerd, asked by ctr, does with strake-runtime what it does
// with runc.
func TestContainerdOnRuntime(t *testing.T) {
	f := newForeign(t)
	ctr := testneed.Program(t, "ctr", "containerd")
	f.containerd()
	f.command = func(rt runtimeUnder, args ...string) *exec.Cmd {
		if args[0] == "run" {
			args = slices.Insert(
				slices.Clone(args), 1, "--runtime", "io.containerd.runc.v2", "--runc-binary",
				rt.program, "--runc-root", f.path("state-"+rt.name), "--snapshotter", "native",
			)
		}
		// The namespace is also the parent of the control groups.
		global := []string{"--address", f.path("cd.sock"), "--namespace", filepath.Base(f.dir)}
		return exec.Command(ctr, append(global, args...)...)
	}
	f.wording = regexp.MustCompile(`(?s)(OCI runtime \w+ failed: ).*?(: unknown)`)
	f.remove = func(s *scene) {
		s.try("task", "delete", "-f", s.name)
		s.try("container", "delete", s.name)
	}
	rootfs := f.rootfs()
	f.play(containerdActs(strings.TrimSuffix(rootfs, ".tar")))
}

// containerdActs are acts of ctr with containers that share a root.
func containerdActs(rootfs string) []act {
	sh := func(s *scene, code int, script string, options ...string) result {
		s.t.Helper()
		args := append([]string{"run", "--rm", "--env", "PATH=/bin"}, options...)
		return s.does(code, append(args, "--rootfs", rootfs, s.name, "sh", "-c", script)...)
	}
	begin := func(s *scene, script string, options ...string) {
		s.t.Helper()
		args := append([]string{"run", "-d", "--env", "PATH=/bin"}, options...)
		// Not does: the container has this client's standard output.
		got := s.try(append(args, "--rootfs", rootfs, s.name, "sh", "-c", script)...)
		if got.code != 0 {
			s.t.Fatalf("%s: run -d: %+v", s.rt.name, got)
		}
	}
	status := func(s *scene, want string) {
		s.t.Helper()
		s.until(want, func() bool {
			for line := range strings.Lines(s.try("task", "list").out) {
				if f := strings.Fields(line); len(f) == 3 && f[0] == s.name && f[2] == want {
					return true
				}
			}
			return false
		})
		s.saw("status", want)
	}
	ended := func(s *scene, code int) {
		s.t.Helper()
		status(s, "STOPPED")
		got, want := s.does(0, "task", "delete", s.name), fmt.Sprintf("exit code %d\"", code)
		if !strings.Contains(got.err, want) {
			s.t.Errorf("%s: the task ended with %q, want %q", s.rt.name, got.err, want)
		}
	}
	exec := func(s *scene, code int, args ...string) result {
		s.t.Helper()
		return s.does(code, append([]string{"task", "exec", "--exec-id", "e"}, args...)...)
	}
	return []act{
		{"statuses", func(s *scene) {
			sh(s, 0, "echo out; echo err >&2")
			sh(s, 3, "exit 3")
			for _, program := range []string{"/etc/text", "/etc", "/missing", "missing"} {
				s.does(1, "run", "--rm", "--env", "PATH=/bin", "--rootfs", rootfs, s.name, program)
				s.try("container", "delete", s.name)
			}
		}},
		{"inside", func(s *scene) {
			for _, options := range [][]string{
				{}, {"--privileged"}, {"--read-only"},
				{"--cap-drop", "CAP_CHOWN", "--cap-add", "CAP_SYS_TIME"},
				{"--allow-new-privs", "--seccomp"}, {"--cwd", "/tmp", "--env", "A=b"},
			} {
				sh(s, 0, insideScript, options...)
			}
		}},
		{"mounts", func(s *scene) {
			dir := s.path(s.name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				s.t.Fatal(err)
			}
			bind := "type=bind,src=" + dir + ",dst=/tmp,options=rbind"
			sh(s, 0, "echo new > /tmp/f; cat /tmp/f", "--mount", bind+":rw")
			if raw, err := os.ReadFile(dir + "/f"); err != nil || string(raw) != "new\n" {
				s.t.Errorf("%s: written in a bind mount: %q, %v", s.rt.name, raw, err)
			}
			sh(s, 1, "cat /tmp/f; touch /tmp/g", "--mount", bind+":ro")
			sh(s, 1, "touch /tmp/a && touch /b", "--read-only", "--mount",
				"type=tmpfs,src=tmpfs,dst=/tmp,options=size=64k:mode=1711")
		}},
		{"host-pids", func(s *scene) {
			ns := fmt.Sprintf("/proc/%d/ns/pid", os.Getpid())
			host := "pid:" + ns
			own, err := os.Readlink(ns)
			if err != nil {
				s.t.Fatal(err)
			}
			s.prints(own+"\n", "run", "--rm", "--env", "PATH=/bin", "--with-ns", host, "--rootfs",
				rootfs, s.name, "readlink", "/proc/self/ns/pid")
			begin(s, "sleep 1000 & sleep 1001 & exec sleep 1002", "--with-ns", host)
			status(s, "RUNNING")
			s.does(0, "task", "kill", "-s", "KILL", s.name)
			ended(s, 137)
		}},
		{"terminal", func(s *scene) {
			const size = "until stty size 2>/dev/null | grep -q '^33 77$'; do usleep 20000; done; "
			s.onTerminal(6, func(p *terminal) {
				p.expect("TERM=xterm")
				p.write("typed\r")
				p.expect("got typed")
			}, "run", "-t", "--rm", "--env", "PATH=/bin", "--rootfs", rootfs, s.name, "sh", "-c",
				size+"stty size; tty; test -t 0 && test -t 1 && test -t 2 && echo terminals; "+
					"stty -a | grep -o '.onlcr'; echo TERM=$TERM; read x; echo got $x; exit 6")
			begin(s, "exec sleep 1000")
			s.onTerminal(5, func(p *terminal) {
				p.expect("/dev/pts/0")
				p.write("typed\r")
				p.expect("got typed")
			}, "task", "exec", "-t", "--exec-id", "e", s.name, "sh", "-c",
				size+"tty; read x; echo got $x; exit 5")
		}},
		{"exec", func(s *scene) {
			begin(s, "exec sleep 1000", "--env", "A=b")
			exec(s, 5, s.name, "sh", "-c", "echo out; echo err >&2; exit 5")
			exec(s, 0, "--cwd", "/tmp", s.name, "sh", "-c", "echo $HOME $A $(pwd)")
			exec(s, 0, "--user", "worker", s.name, "sh", "-c", "id; echo $HOME")
			exec(s, 0, "--user", "7:9", s.name, "sh", "-c", "id; env | sort")
			exec(s, 0, s.name, "grep", "-E", "Cap|Seccomp:|NoNew", "/proc/self/status")
			exec(s, 137, s.name, "sh", "-c", "kill -9 $$")
			for _, program := range []string{"missing", "/missing", "/etc/text"} {
				exec(s, 1, s.name, program)
			}
		}},
		{"life", func(s *scene) {
			begin(s, "trap 'exit 9' TERM; while :; do usleep 50000; done")
			status(s, "RUNNING")
			s.does(0, "task", "pause", s.name)
			status(s, "PAUSED")
			s.does(0, "task", "resume", s.name)
			status(s, "RUNNING")
			s.does(0, "task", "kill", "-s", "TERM", s.name)
			ended(s, 9)
			s.does(0, "container", "delete", s.name)
			begin(s, "exec sleep 1000")
			s.does(0, "task", "kill", "-s", "KILL", s.name)
			ended(s, 137)
		}},
		{"memory", func(s *scene) {
			const limit = 24 << 20
			begin(s, "while [ ! -e /tmp/go ]; do usleep 20000; done; "+
				"exec dd if=/dev/zero of=/dev/shm/x bs=1M count=60",
				"--memory-limit", fmt.Sprint(limit), "--mount",
				"type=tmpfs,src=tmpfs,dst=/tmp,options=size=64k")
			got := s.try("task", "metrics", s.name).out
			if !regexp.MustCompile(`(?m)^memory\.\S+\s+`).MatchString(got) {
				s.t.Errorf("%s: metrics: %q", s.rt.name, got)
			}
			exec(s, 0, s.name, "touch", "/tmp/go")
			ended(s, 137)
		}},
	}
}
