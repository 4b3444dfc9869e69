package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"strake/internal/testneed"
)

// TestDockerdOnRuntime: Debian's dockerd, whose default runtime is strake-runtime, does what it
// does on runc.
func TestDockerdOnRuntime(t *testing.T) {
	f := newForeign(t)
	docker := testneed.File(t, "/usr/bin/docker", "docker.io") // Debian's, of dockerd's version
	dockerd := testneed.Program(t, "dockerd", "docker.io")
	f.forget("/etc/docker/key.json", "/etc/docker", "/run/docker/plugins", "/run/docker")
	f.weaken()
	// dockerd mounts its directory on itself, and at times leaves that, busy as it is at its end.
	t.Cleanup(func() { unix.Unmount(f.path("data"), unix.MNT_DETACH) })
	f.containerd()
	socket := f.path("docker.sock")
	f.daemon(
		socket, dockerd, "--config-file", f.write("daemon.json", "{}", 0o600),
		"--data-root", f.path("data"), "--exec-root", f.path("exec"), "--pidfile", f.path("pid"),
		"-H", "unix://"+socket, "--containerd", f.path("cd.sock"), "--cgroup-parent", f.group(),
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
		"--storage-driver", "overlay2", "--default-runtime", "strake",
		"--add-runtime", "strake="+f.runtimes[1].program,
		"--add-runtime", "debian="+f.runtimes[0].program,
	)
	f.command = func(rt runtimeUnder, args ...string) *exec.Cmd {
		if rt.name == "runc" && slices.Contains([]string{"run", "create"}, args[0]) {
			args = slices.Insert(slices.Clone(args), 1, "--runtime", "debian")
		}
		cmd := exec.Command(docker, args...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+socket, "DOCKER_CONFIG="+f.dir)
		return cmd
	}
	f.wording = regexp.MustCompile(`(?s)(OCI runtime \w+ failed: ).*?(: unknown)`)
	f.remove = func(s *scene) { s.try("rm", "-f", "-v", s.name) }
	out, err := f.command(f.runtimes[1], "import", "-c", `CMD ["sh"]`, f.rootfs(), "box").
		CombinedOutput()
	if err != nil {
		t.Fatalf("import: %v\n%s", err, out)
	}
	f.play(slices.Concat(dockerActs(), []act{{"health", func(s *scene) {
		s.does(0, "run", "-d", "--name", s.name, "--health-interval", "200ms", "--health-retries",
			"1", "--health-cmd", "test ! -e /tmp/sick && echo well", "box", "sleep", "1000")
		const health = "{{.State.Health.Status}}"
		s.untilPrints("healthy\n", "inspect", "-f", health, s.name)
		s.prints("well\n\n", "inspect", "-f", "{{(index .State.Health.Log 0).Output}}", s.name)
		s.does(0, "exec", s.name, "touch", "/tmp/sick")
		s.untilPrints("unhealthy\n", "inspect", "-f", health, s.name)
	}}, {"oom", func(s *scene) {
		// The first process lives on for a moment: containerd reads of the kill from the group, which
		// goes with it.
		s.does(137, "run", "--name", s.name, "--memory", "16m", "box", "sh", "-c",
			"dd if=/dev/zero of=/dev/null bs=60M count=1; code=$?; usleep 500000; exit $code")
		s.untilPrints("true\n", "inspect", "-f", "{{.State.OOMKilled}}", s.name)
	}}, {"default", func(s *scene) {
		s.does(0, "run", "-d", "--name", s.name, "box", "sleep", "1000")
		got := s.try("inspect", "-f", "{{.HostConfig.Runtime}}", s.name).out
		want := map[string]string{"runc": "debian\n", "strake": "strake\n"}[s.rt.name]
		if got != want {
			s.t.Errorf("the container is on %q, want %q", got, want)
		}
	}}}))
}

// TestPodmanOnRuntime: Debian's podman does with strake-runtime what it does with runc.
func TestPodmanOnRuntime(t *testing.T) {
	f := newForeign(t)
	podman := testneed.Program(t, "podman", "podman")
	testneed.Program(t, "conmon", "conmon")
	testneed.Program(t, "catatonit", "catatonit")
	// podman makes groups in hierarchies that this host has not, as directories in a tmpfs.
	for _, name := range []string{"perf_event", "net_prio", "net_cls", "hugetlb"} {
		f.forget("/sys/fs/cgroup/" + name)
	}
	f.forget(
		"/var/lib/containers/cache", "/var/lib/containers", "/run/runc", "/run/strake-runtime",
	)
	// Limits as they are: podman raises them, which this machine's root may lack the power for.
	conf := f.write("containers.conf", `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
events_logger = "file"
lock_type = "file"
stop_timeout = 1
`, 0o600)
	// Each runtime has a podman of its own: containers are of the runtime that made them.
	f.command = func(rt runtimeUnder, args ...string) *exec.Cmd {
		if slices.Contains([]string{"run", "create"}, args[0]) {
			args = slices.Insert(
				slices.Clone(args), 1, "--network", "none", "--cgroup-parent", f.group(),
			)
		}
		dir := f.path(rt.name)
		cmd := f.all.command(append([]string{
			podman, "--root", dir + "/root", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp",
			"--volumepath", dir + "/volumes", "--network-config-dir", dir + "/networks",
			"--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--runtime", rt.program,
		}, args...)...)
		cmd.Env = append(
			os.Environ(), "CONTAINERS_CONF="+conf, "TMPDIR="+f.dir,
			"CONTAINERS_STORAGE_CONF="+dir+"/storage.conf",
		)
		return cmd
	}
	f.wording = regexp.MustCompile(`(?s)(Error: (?:OCI runtime error: )?)/\S+: .*?(: OCI |$)`)
	f.remove = func(s *scene) { s.try("rm", "-f", "-v", "-t", "0", s.name) }
	f.forgetful = true
	archive := f.rootfs()
	for _, rt := range f.runtimes {
		dir := f.path(rt.name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f.write(filepath.Join(rt.name, "storage.conf"), "[storage]\ndriver = \"overlay\"\n"+
			"graphroot = \""+dir+"/root\"\nrunroot = \""+dir+"/run\"\n", 0o600)
		cmd := f.command(rt, "import", "-c", `CMD ["sh"]`, archive, "box")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("import: %v\n%s", err, out)
		}
		// podman's storage is at times still mounted on itself when its last container is gone.
		t.Cleanup(func() { unix.Unmount(dir+"/root/overlay", 0) })
	}
	f.play(slices.Concat(dockerActs(), []act{{"health", func(s *scene) {
		s.does(0, "run", "-d", "--name", s.name, "--health-interval", "disable",
			"--health-retries", "1", "--health-cmd", "test ! -e /tmp/sick && echo well",
			"box", "sleep", "1000")
		s.does(0, "healthcheck", "run", s.name)
		const health = "{{.State.Health.Status}}"
		s.prints("healthy\n", "inspect", "-f", health, s.name)
		s.does(0, "exec", s.name, "touch", "/tmp/sick")
		s.does(1, "healthcheck", "run", s.name)
		s.prints("unhealthy\n", "inspect", "-f", health, s.name)
	}}, {"user-namespace", func(s *scene) {
		s.does(0, "run", "--rm", "--name", s.name, "--uidmap", "0:70000:1000", "box", "sh", "-c",
			"id -u; cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g /bin/sh /proc; "+
				"mount -t tmpfs none /root || echo refused")
	}}, {"copies-up", func(s *scene) {
		// podman's --read-only has a tmpfs at /tmp, with a copy of what the image has there.
		s.prints("kept\n", "run", "--rm", "--name", s.name, "--read-only", "box", "sh", "-c",
			"touch /tmp/x && cat /tmp/kept")
	}}}))
}

// insideScript prints what a process finds in its container. Left out is what the runtimes make in
// their own ways: the filesystem that covers a masked path, the version 2 tree of control groups on
// a host that has both, and /dev/core on a kernel without /proc/kcore.
const insideScript = `
grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|Gid)' /proc/self/status
cat /proc/self/limits
for f in oom_score_adj loginuid timerslack_ns personality; do echo $f $(cat /proc/self/$f); done
env | sort; id; pwd; hostname | wc -c; umask
for f in /dev/* /proc /sys /tmp; do
	[ $f = /dev/core ] || stat -c '%A %u:%g %t,%T %N' $f
done
cat /sys/class/net/*/flags; ls /proc/scsi /proc/acpi /proc/irq 2>/dev/null | wc -l
for f in /proc/sys/kernel/domainname /proc/sysrq-trigger /sys/kernel/profiling; do
	(: >>$f) 2>/dev/null && echo writable $f
done
while read device dir type options rest; do
	case $dir in
	/ | /sys/fs/cgroup | /sys/fs/cgroup/unified) ;;
	/proc/?* | /sys/firmware | /sys/dev/*) echo mount $dir ${options%%,*} ;;
	*) echo mount $dir $type $options ;;
	esac
done </proc/self/mounts | sort
mount -t tmpfs none /root 2>/dev/null && echo mounts
true`

// dockerActs are what the command lines of docker and podman have in common.
func dockerActs() []act {
	return []act{
		{"statuses", playStatuses},
		{"inside", playInside},
		{"mounts", playMounts},
		{"options", playOptions},
		{"host-pids", playHostPids},
		{"terminal", playTerminal},
		{"exec", playExec},
		{"life", playLife},
		{"memory", playMemory},
		{"restarts", playRestarts},
	}
}

// runs runs a script in a container that is removed afterwards.
func (s *scene) runs(code int, script string, options ...string) result {
	s.t.Helper()
	args := append([]string{"run", "--rm", "--name", s.name}, options...)
	return s.does(code, append(args, "box", "sh", "-c", script)...)
}

// stateFormat shows how inspect sees a container.
const stateFormat = "{{.State.Status}} {{.State.ExitCode}}"

// playStatuses: the exit statuses of containers, and of what cannot be started.
func playStatuses(s *scene) {
	s.runs(0, "echo out; echo err >&2")
	s.runs(3, "exit 3")
	s.runs(137, "kill -9 $$", "--init")
	for _, c := range []struct {
		program string
		code    int
	}{
		{"/etc/text", 126}, {"/etc", 126}, {"/missing", 127}, {"missing", 127},
		{"/etc/text/x", anyStatus},
	} {
		s.does(c.code, "run", "--rm", "--name", s.name, "box", c.program)
	}
	s.does(127, "run", "--rm", "--name", s.name, "-d", "box", "missing")
}

// playInside: what a process finds in containers of different options.
func playInside(s *scene) {
	for _, options := range [][]string{
		{}, {"--privileged"}, {"--read-only"}, {"--init"}, {"--user", "worker"},
		{"--cap-drop", "ALL", "--cap-add", "NET_RAW", "--cap-add", "chown"},
	} {
		s.runs(0, insideScript, options...)
	}
}

// playMounts: binds, volumes, tmpfs and read-only roots.
func playMounts(s *scene) {
	dir := s.path(s.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/f", []byte("host\n"), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.runs(0, "cat /v/f; echo new > /v/g; cat /etc/f", "-v", dir+":/v", "-v", dir+"/f:/etc/f")
	if raw, err := os.ReadFile(dir + "/g"); err != nil || string(raw) != "new\n" {
		s.t.Errorf("%s: written in a bind mount: %q, %v", s.rt.name, raw, err)
	}
	s.runs(1, "cat /v/f; touch /v/h", "-v", dir+":/v:ro")
	s.runs(1, "touch /tmp/a && touch /b", "--read-only", "--tmpfs", "/tmp")
	s.runs(0, "grep ' /m ' /proc/self/mounts; stat -c %a /m", "--tmpfs",
		"/m:size=64k,mode=1711,noexec")
	s.runs(0, "grep ' /dev/shm ' /proc/self/mounts", "--shm-size", "128k")
	s.runs(0, "echo kept > /v/f", "-v", s.name+":/v")
	s.runs(0, "cat /v/f", "-v", s.name+":/v:ro")
	s.does(0, "volume", "rm", s.name)
}

// playOptions: single options and what they change.
func playOptions(s *scene) {
	s.runs(0, "id; echo $HOME", "--user", "7:8", "--group-add", "9")
	s.runs(0, "id; echo $HOME", "--user", "4321")
	s.runs(126, "true", "--user", "worker", "--workdir", "/root/none", "--entrypoint",
		"/etc/text")
	s.runs(0, "pwd; hostname", "--workdir", "/home/bin", "--hostname", "here")
	s.runs(0, "ulimit -n; ulimit -c", "--ulimit", "nofile=99:100", "--ulimit", "core=0",
		"--ulimit", "nproc=1000:1000")
	s.runs(0, "cat /proc/sys/kernel/msgmax", "--sysctl", "kernel.msgmax=9999")
	s.runs(0, "grep NoNewPrivs /proc/self/status", "--security-opt", "no-new-privileges")
	s.runs(0, "grep Seccomp: /proc/self/status", "--security-opt", "seccomp=unconfined")
	s.runs(0, "stat -c '%A %t,%T %n' /dev/full /dev/other", "--device", "/dev/full:/dev/other:r")
	s.runs(0, "cat /proc/self/oom_score_adj", "--oom-score-adj", "500")
	s.runs(0, "hostname | wc -c; ls /proc/1/ns >/dev/null", "--ipc", "host", "--uts", "host")
}

// playHostPids: a container in the host's PID namespace ends whole.
func playHostPids(s *scene) {
	got := s.runs(0, "readlink /proc/self/ns/pid", "--pid", "host").out
	if own, err := os.Readlink("/proc/self/ns/pid"); err != nil || got != own+"\n" {
		s.t.Errorf("%s: namespace %q, the host's is %q", s.rt.name, got, own)
	}
	s.does(0, "run", "-d", "--name", s.name, "--pid", "host", "box", "sh", "-c",
		"sleep 1000 & sleep 1001 & exec sleep 1002")
	s.does(0, "kill", s.name)
	s.does(0, "wait", s.name)
	s.prints("exited 137\n", "inspect", "-f", stateFormat, s.name)
	s.does(0, "rm", s.name)
}

// playTerminal: size, terminals and carriage returns of run and exec.
func playTerminal(s *scene) {
	const size = "until stty size 2>/dev/null | grep -q '^33 77$'; do usleep 20000; done; "
	s.onTerminal(6, func(p *terminal) {
		p.expect("TERM=xterm")
		p.write("typed\r")
		p.expect("got typed")
	}, "run", "-it", "--name", s.name, "box", "sh", "-c", size+
		"stty size; tty; test -t 0 && test -t 1 && test -t 2 && echo terminals; "+
		"stty -a | grep -o '.onlcr'; echo TERM=$TERM; read x; echo got $x; exit 6")
	s.does(0, "rm", s.name)
	s.prints("hi\r\n", "run", "--rm", "-t", "--name", s.name, "box", "echo", "hi")
	s.does(0, "run", "-d", "-t", "--name", s.name, "box", "sleep", "1000")
	s.onTerminal(5, func(p *terminal) {
		p.expect("pts")
		p.resize(50, 10)
		p.write("typed\r")
		p.expect("10 50\r\n")
	}, "exec", "-it", s.name, "sh", "-c", size+"tty | tr -d 0-9; "+
		"read x; until stty size | grep '^10 50$'; do usleep 20000; done; exit 5")
}

// playExec: exec with its options and statuses.
func playExec(s *scene) {
	s.does(0, "run", "-d", "--name", s.name, "--hostname", "h", "-e", "A=b", "box", "sleep",
		"1000")
	s.does(5, "exec", s.name, "sh", "-c", "echo out; echo err >&2; exit 5")
	s.prints("/root b c /tmp\n", "exec", "-e", "C=c", "-w", "/tmp", s.name, "sh", "-c",
		"echo $HOME $A $C $(pwd)")
	s.prints("/home/bin\n", "exec", "-u", "worker", s.name, "sh", "-c", "echo $HOME")
	s.does(0, "exec", "-u", "7:9", s.name, "sh", "-c", "id; env | sort")
	s.does(0, "exec", "--privileged", s.name, "grep", "Cap", "/proc/self/status")
	s.does(0, "exec", s.name, "grep", "-E", "Cap|Seccomp:|NoNew", "/proc/self/status")
	s.does(137, "exec", s.name, "sh", "-c", "kill -9 $$")
	// dockerd 20.10 says 126 of a program that is missing, podman 127.
	for _, program := range []string{"missing", "/missing"} {
		if got := s.does(anyStatus, "exec", s.name, program); got.code < 126 {
			s.t.Errorf("%s: exec of %s: status %d", s.rt.name, program, got.code)
		}
	}
	s.does(126, "exec", s.name, "/etc/text")
	if got := s.try("top", s.name).out; !strings.Contains(got, "sleep 1000") {
		s.t.Errorf("%s: top: %q", s.rt.name, got)
	}
}

// playLife: a container from its creation to its removal, by every verb.
func playLife(s *scene) {
	s.does(0, "create", "--name", s.name, "box", "sh", "-c",
		"trap 'echo one' USR1; trap 'exit 9' TERM; echo up; while :; do usleep 50000; done")
	s.prints("created 0\n", "inspect", "-f", stateFormat, s.name)
	s.does(0, "start", s.name)
	s.untilPrints("up\n", "logs", s.name)
	s.does(0, "pause", s.name)
	s.prints("paused 0\n", "inspect", "-f", stateFormat, s.name)
	s.does(0, "unpause", s.name)
	s.does(0, "kill", "-s", "USR1", s.name)
	s.untilPrints("up\none\n", "logs", s.name)
	s.does(0, "stop", s.name)
	s.prints("exited 9\n", "inspect", "-f", stateFormat, s.name)
	s.does(0, "start", s.name)
	s.untilPrints("up\none\nup\n", "logs", s.name)
	s.does(0, "restart", "-t", "3", s.name)
	s.prints("running 0\n", "inspect", "-f", stateFormat, s.name)
	s.does(0, "kill", s.name)
	s.prints("137\n", "wait", s.name)
	s.does(0, "rm", s.name)
	s.does(0, "run", "-d", "--name", s.name, "box", "sleep", "1000") // ignores TERM
	s.does(0, "stop", "-t", "1", s.name)
	s.prints("exited 137\n", "inspect", "-f", stateFormat, s.name)
	s.does(0, "start", s.name)
	s.does(0, "rm", "-f", s.name)
}

// playMemory: limits, their update, and what happens beyond them.
func playMemory(s *scene) {
	s.does(0, "run", "-d", "--name", s.name, "--memory", "32m", "--pids-limit", "40", "box",
		"sh", "-c", "while [ ! -e /go ]; do usleep 20000; done; "+
			"exec dd if=/dev/zero of=/dev/shm/x bs=1M count=60")
	// Of each two files the host has one.
	const limits = "cd /sys/fs/cgroup; for f in memory/memory.limit_in_bytes memory.max " +
		"pids/pids.max pids.max; do [ ! -e $f ] || echo $(cat $f); done"
	s.prints("33554432\n40\n", "exec", s.name, "sh", "-c", limits)
	s.does(0, "update", "--memory", "24m", "--memory-swap", "24m", s.name)
	s.prints("25165824\n40\n", "exec", s.name, "sh", "-c", limits)
	s.does(0, "exec", s.name, "touch", "/go")
	s.prints("137\n", "wait", s.name)
	s.prints("exited 137\n", "inspect", "-f", stateFormat, s.name)
}

// playRestarts: a restart policy sees each exit status.
func playRestarts(s *scene) {
	s.does(0, "run", "-d", "--name", s.name, "--restart", "on-failure:2", "box", "sh", "-c",
		"echo begun; exit 4")
	s.untilPrints("exited 4 2\n", "inspect", "-f", stateFormat+" {{.RestartCount}}", s.name)
	s.prints(strings.Repeat("begun\n", 3), "logs", s.name)
}
