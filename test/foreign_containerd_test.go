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
	f.rootfs()
	f.play(containerdActs())
}

// containerdActs are acts of ctr, with containers that share a root.
func containerdActs() []act {
	return []act{
		{"statuses", taskStatuses},
		{"inside", taskInside},
		{"mounts", taskMounts},
		{"host-pids", taskHostPids},
		{"terminal", taskTerminal},
		{"exec", taskExec},
		{"life", taskLife},
		{"memory", taskMemory},
	}
}

// task runs a script in a container that is removed afterwards.
func (s *scene) task(code int, script string, options ...string) result {
	s.t.Helper()
	args := append([]string{"run", "--rm", "--env", "PATH=/bin"}, options...)
	return s.does(code, append(args, "--rootfs", s.root, s.name, "sh", "-c", script)...)
}

// begin starts a container in the background. What it writes is not looked at.
func (s *scene) begin(script string, options ...string) {
	s.t.Helper()
	args := append([]string{"run", "-d", "--env", "PATH=/bin"}, options...)
	got := s.try(append(args, "--rootfs", s.root, s.name, "sh", "-c", script)...)
	if got.code != 0 {
		s.t.Fatalf("%s: run -d: %+v", s.rt.name, got)
	}
}

// listed is the status of the scene's task.
func (s *scene) listed() string {
	s.t.Helper()
	for line := range strings.Lines(s.try("task", "list").out) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == s.name {
			return f[2]
		}
	}
	return ""
}

// status waits for a task's status.
func (s *scene) status(want string) {
	s.t.Helper()
	s.until(want, func() bool { return s.listed() == want })
	s.saw("status", want)
}

// ended waits for a task to end and expects its exit status, which ctr says in a warning.
func (s *scene) ended(code int) {
	s.t.Helper()
	s.status("STOPPED")
	got, want := s.does(0, "task", "delete", s.name), fmt.Sprintf("exit code %d\"", code)
	if !strings.Contains(got.err, want) {
		s.t.Errorf("%s: the task ended with %q, want %q", s.rt.name, got.err, want)
	}
}

// exec runs a command in a task.
func (s *scene) exec(code int, args ...string) result {
	s.t.Helper()
	return s.does(code, append([]string{"task", "exec", "--exec-id", "e"}, args...)...)
}

// taskStatuses: the exit statuses of containers, and of what cannot be started.
func taskStatuses(s *scene) {
	s.task(0, "echo out; echo err >&2")
	s.task(3, "exit 3")
	for _, program := range []string{"/etc/text", "/etc", "/missing", "missing"} {
		s.does(1, "run", "--rm", "--env", "PATH=/bin", "--rootfs", s.root, s.name, program)
		s.try("container", "delete", s.name)
	}
}

// taskInside: what a process finds in containers of different options.
func taskInside(s *scene) {
	for _, options := range [][]string{
		{}, {"--privileged"}, {"--read-only"},
		{"--cap-drop", "CAP_CHOWN", "--cap-add", "CAP_SYS_TIME"},
		{"--allow-new-privs", "--seccomp"}, {"--cwd", "/tmp", "--env", "A=b"},
	} {
		s.task(0, insideScript, options...)
	}
}

// taskMounts: binds, tmpfs and read-only roots.
func taskMounts(s *scene) {
	dir := s.path(s.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	bind := "type=bind,src=" + dir + ",dst=/tmp,options=rbind"
	s.task(0, "echo new > /tmp/f; cat /tmp/f", "--mount", bind+":rw")
	if raw, err := os.ReadFile(dir + "/f"); err != nil || string(raw) != "new\n" {
		s.t.Errorf("%s: written in a bind mount: %q, %v", s.rt.name, raw, err)
	}
	s.task(1, "cat /tmp/f; touch /tmp/g", "--mount", bind+":ro")
	s.task(1, "touch /tmp/a && touch /b", "--read-only", "--mount",
		"type=tmpfs,src=tmpfs,dst=/tmp,options=size=64k:mode=1711")
}

// taskHostPids: a container in the host's PID namespace ends whole.
func taskHostPids(s *scene) {
	ns := fmt.Sprintf("/proc/%d/ns/pid", os.Getpid())
	host := "pid:" + ns
	own, err := os.Readlink(ns)
	if err != nil {
		s.t.Fatal(err)
	}
	s.prints(own+"\n", "run", "--rm", "--env", "PATH=/bin", "--with-ns", host, "--rootfs",
		s.root, s.name, "readlink", "/proc/self/ns/pid")
	s.begin("sleep 1000 & sleep 1001 & exec sleep 1002", "--with-ns", host)
	s.status("RUNNING")
	s.does(0, "task", "kill", "-s", "KILL", s.name)
	s.ended(137)
}

// taskTerminal: size and terminals of run and exec.
func taskTerminal(s *scene) {
	const size = "until stty size 2>/dev/null | grep -q '^33 77$'; do usleep 20000; done; "
	s.onTerminal(6, func(p *terminal) {
		p.expect("TERM=xterm")
		p.write("typed\r")
		p.expect("got typed")
	}, "run", "-t", "--rm", "--env", "PATH=/bin", "--rootfs", s.root, s.name, "sh", "-c",
		size+"stty size; tty; test -t 0 && test -t 1 && test -t 2 && echo terminals; "+
			"stty -a | grep -o '.onlcr'; echo TERM=$TERM; read x; echo got $x; exit 6")
	s.begin("exec sleep 1000")
	s.onTerminal(5, func(p *terminal) {
		p.expect("/dev/pts/0")
		p.write("typed\r")
		p.expect("got typed")
	}, "task", "exec", "-t", "--exec-id", "e", s.name, "sh", "-c",
		size+"tty; read x; echo got $x; exit 5")
}

// taskExec: exec with its options and statuses.
func taskExec(s *scene) {
	s.begin("exec sleep 1000", "--env", "A=b")
	s.exec(5, s.name, "sh", "-c", "echo out; echo err >&2; exit 5")
	s.exec(0, "--cwd", "/tmp", s.name, "sh", "-c", "echo $HOME $A $(pwd)")
	s.exec(0, "--user", "worker", s.name, "sh", "-c", "id; echo $HOME")
	s.exec(0, "--user", "7:9", s.name, "sh", "-c", "id; env | sort")
	s.exec(0, s.name, "grep", "-E", "Cap|Seccomp:|NoNew", "/proc/self/status")
	s.exec(137, s.name, "sh", "-c", "kill -9 $$")
	for _, program := range []string{"missing", "/missing", "/etc/text"} {
		s.exec(1, s.name, program)
	}
}

// taskLife: a task from its start to its removal.
func taskLife(s *scene) {
	s.begin("trap 'exit 9' TERM; while :; do usleep 50000; done")
	s.status("RUNNING")
	s.does(0, "task", "pause", s.name)
	s.status("PAUSED")
	s.does(0, "task", "resume", s.name)
	s.status("RUNNING")
	s.until("the task to end by a signal", func() bool { // once it has its trap
		s.try("task", "kill", "-s", "TERM", s.name)
		return s.listed() == "STOPPED"
	})
	s.ended(9)
	s.does(0, "container", "delete", s.name)
	s.begin("exec sleep 1000")
	s.does(0, "task", "kill", "-s", "KILL", s.name)
	s.ended(137)
}

// taskMemory: a limit, and what happens beyond it.
func taskMemory(s *scene) {
	const limit = 24 << 20
	s.begin("while [ ! -e /tmp/go ]; do usleep 20000; done; "+
		"exec dd if=/dev/zero of=/dev/shm/x bs=1M count=60",
		"--memory-limit", fmt.Sprint(limit), "--mount",
		"type=tmpfs,src=tmpfs,dst=/tmp,options=size=64k")
	got := s.try("task", "metrics", s.name).out
	if !regexp.MustCompile(`(?m)^memory\.\S+\s+`).MatchString(got) {
		s.t.Errorf("%s: metrics: %q", s.rt.name, got)
	}
	s.exec(0, s.name, "touch", "/tmp/go")
	s.ended(137)
}
