package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limit is a script that prints a control group's setting, by its names in both versions.
func limit(v1, v2 string) string {
	return fmt.Sprintf("cat /sys/fs/cgroup/%s 2>/dev/null || cat /sys/fs/cgroup/%s", v1, v2)
}

// TestRunFlags: what a process sees of each flag of run.
func TestRunFlags(t *testing.T) {
	r := start(t)
	hostName, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	eachClient(t, r, func(t *testing.T, c *client) {
		bound := filepath.Join(r.dir, "bound")
		if err := os.MkdirAll(bound, 0o755); err != nil {
			t.Fatal(err)
		}
		c.file("bound/f", "from the host\n")
		envFile := c.file("env", "# a comment\nA=from the file\nINHERITED\n")
		labels := c.file("labels", "one=1\n")
		deny := c.file(
			"deny.json",
			`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}`,
		)
		cid := filepath.Join(r.dir, "cid")
		status := func(name string) string { return "grep ^" + name + ": /proc/self/status" }
		for _, f := range []struct {
			name  string
			flags string // separated by |
			run   string // by a shell inside; "" where the flags name the command
			want  string // a regular expression for all of the output
			code  int
		}{
			{
				"nothing", "", "echo $$; pwd; id -u; echo $PATH; echo $HOME",
				`1\n/\n0\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/root\n`, 0,
			},
			{"-e", "-e|A=b c|--env|C=", `echo "$A.$C."`, `b c\.\.\n`, 0},
			{
				"-e of the client's own", "-e|INHERITED|-e|ABSENT",
				`echo "$INHERITED ${ABSENT-unset}"`, `from outside unset\n`, 0,
			},
			{
				"--env-file", "--env-file|" + envFile, `echo "$A $INHERITED"`,
				`from the file from outside\n`, 0,
			},
			{"-w", "-w|/etc", "pwd", `/etc\n`, 0},
			{"-w that is made", "--workdir|/new/dir", "pwd", `/new/dir\n`, 0},
			{"-u uid:gid", "-u|5:6", "id -u; id -g", `5\n6\n`, 0},
			{"-u name", "-u|root", "id -u", `0\n`, 0},
			{"-u that is a name and a number", "--user|1000", "id -u", `1000\n`, 0},
			{"--group-add", "--group-add|77", "id -G", `0 77\n`, 0},
			{"-m", "-m|32m", limit("memory/memory.limit_in_bytes", "memory.max"), `33554432\n`, 0},
			{
				"--memory in bytes", "--memory|16777216b",
				limit("memory/memory.limit_in_bytes", "memory.max"), `16777216\n`, 0,
			},
			{
				"-m exceeded", "-m|8m|--memory-swap|8m|--tmpfs|/t:size=64m",
				"head -c 33554432 /dev/zero > /t/f; echo never", ``, 137,
			},
			{
				"--cpus", "--cpus|0.5", limit("cpu/cpu.cfs_quota_us", "cpu.max"),
				`50000( 100000)?\n`, 0,
			},
			{"--pids-limit", "--pids-limit|20", limit("pids/pids.max", "pids.max"), `20\n`, 0},
			{
				"--pids-limit exceeded", "--pids-limit|3",
				"sleep 5 & sleep 5 & sleep 5 & sleep 5; echo never", `(?s)`, 2,
			},
			{"--read-only", "--read-only", "touch /f || echo refused", `refused\n`, 0},
			{
				"--read-only with --tmpfs", "--read-only|--tmpfs|/t", "touch /t/f && echo written",
				`written\n`, 0,
			},
			{
				"--tmpfs with options", "--tmpfs|/t:size=1m,mode=700", "grep ' /t ' /proc/mounts",
				`tmpfs /t tmpfs rw,nosuid,nodev,noexec,.*size=1024k,mode=700.*\n`, 0,
			},
			{"default capabilities", "", status("CapEff"), `CapEff:\s+00000000a80425fb\n`, 0},
			{"--cap-drop", "--cap-drop|CHOWN", status("CapEff"), `CapEff:\s+00000000a80425fa\n`, 0},
			{
				"--cap-drop ALL", "--cap-drop|ALL", status("CapBnd"),
				`CapBnd:\s+0000000000000000\n`, 0,
			},
			{
				"--cap-add after ALL", "--cap-drop|all|--cap-add|CAP_NET_ADMIN", status("CapEff"),
				`CapEff:\s+0000000000001000\n`, 0,
			},
			{
				"--security-opt no-new-privileges", "--security-opt|no-new-privileges",
				status("NoNewPrivs"), `NoNewPrivs:\s+1\n`, 0,
			},
			{
				"--security-opt no-new-privileges:false", "--security-opt|no-new-privileges:false",
				status("NoNewPrivs"), `NoNewPrivs:\s+0\n`, 0,
			},
			{"default seccomp", "", status("Seccomp"), `Seccomp:\s+2\n`, 0},
			{
				"--security-opt seccomp=unconfined", "--security-opt|seccomp=unconfined",
				status("Seccomp"), `Seccomp:\s+0\n`, 0,
			},
			{
				"--security-opt seccomp=FILE", "--security-opt|seccomp=" + deny, "mkdir /d 2>&1",
				`mkdir: can't create directory '/d': No space left on device\n`, 1,
			},
			{
				"--security-opt apparmor=unconfined", "--security-opt|apparmor=unconfined",
				"echo ran", `ran\n`, 0,
			},
			{
				"--privileged", "--privileged",
				status("Seccomp") + "; touch /sys/fs/cgroup/x 2>/dev/null; ls /dev | grep -c kmsg",
				`Seccomp:\s+0\n1\n`, 0,
			},
			{
				"--init", "--init", "echo $$; (sleep 0 &) ; cat /proc/1/comm",
				`[2-9]\d*\nstrake-init\n`, 0,
			},
			{"--entrypoint", "--entrypoint|echo|box|-n|hi", "", `hi`, 0},
			{"--entrypoint emptied", "--entrypoint||box|echo|hi", "", `hi\n`, 0},
			{"the image's command", "box", "", ``, 0},
			{"--network none", "--network|none", "ls /sys/class/net", `lo\n`, 0},
			{
				"--net bridge", "--net|bridge",
				"ls /sys/class/net; grep -c default /etc/hosts; ip -4 route | grep -c ^default",
				`eth0\nlo\n0\n1\n`, 0,
			},
			{
				"--mac-address", "--mac-address|02:42:0a:00:00:09",
				"cat /sys/class/net/eth0/address", `02:42:0a:00:00:09\n`, 0,
			},
			{"--network host", "--network|host", "hostname", regexp.QuoteMeta(hostName) + `\n`, 0},
			{
				"--hostname", "--hostname|h.example",
				"hostname; grep -c '^[0-9.]*\\sh\\.example' /etc/hosts; cat /etc/hostname",
				`h\.example\n1\nh\.example\n`, 0,
			},
			{
				"-h with --domainname", "-h|h|--domainname|d",
				"hostname; cat /proc/sys/kernel/domainname", `h\nd\n`, 0,
			},
			{
				"--add-host", "--add-host|far:10.9.8.7", "grep far /etc/hosts",
				`10\.9\.8\.7\s+far\n`, 0,
			},
			{
				"--dns", "--dns|192.0.2.9|--network|none", "cat /etc/resolv.conf",
				`(?s).*192\.0\.2\.9.*`, 0,
			},
			{"-v", "-v|" + bound + ":/b", "cat /b/f; echo written > /b/g", `from the host\n`, 0},
			{
				"-v read-only", "-v|" + bound + ":/b:ro", "cat /b/g; touch /b/h || echo refused",
				`written\nrefused\n`, 0,
			},
			{"-v of a file", "-v|" + bound + "/f:/etc/f:ro", "cat /etc/f", `from the host\n`, 0},
			{
				"-v of a directory that is made", "-v|" + bound + "/made:/b",
				"touch /b/f && echo made", `made\n`, 0,
			},
			{"-v of a named volume", "-v|named:/v", "echo kept > /v/f", ``, 0},
			{
				"-v of the same volume", "--volume|named:/v:ro",
				"cat /v/f; touch /v/g || echo refused", `kept\nrefused\n`, 0,
			},
			{"-v without a source", "-v|/v", "touch /v/f; grep -c ' /v ' /proc/mounts", `1\n`, 0},
			{
				"--mount of a directory",
				"--mount|type=bind,source=" + bound + ",target=/b,readonly",
				"cat /b/f; touch /b/h || echo refused", `from the host\nrefused\n`, 0,
			},
			{
				"--mount of a volume", "--mount|type=volume,src=named,dst=/v", "cat /v/f", `kept\n`,
				0,
			},
			{
				"--mount of a tmpfs", "--mount|type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770",
				"grep ' /t ' /proc/mounts", `tmpfs /t tmpfs .*size=1024k,mode=1770.*\n`, 0,
			},
			{"--ulimit", "--ulimit|nofile=100:200", "ulimit -n; ulimit -Hn", `100\n200\n`, 0},
			{"--shm-size", "--shm-size|1m", "grep /dev/shm /proc/mounts", `.*size=1024k.*\n`, 0},
			{
				"--sysctl", "--sysctl|net.ipv4.ip_default_ttl=9",
				"cat /proc/sys/net/ipv4/ip_default_ttl", `9\n`, 0,
			},
			{
				"--device", "--device|/dev/kmsg:/dev/k",
				"test -c /dev/k && (: > /dev/k) && echo open", `open\n`, 0,
			},
			{
				"--device to be read", "--device|/dev/kmsg:/dev/k:r",
				"(: > /dev/k) 2>/dev/null || echo refused", `refused\n`, 0,
			},
			{
				"no --device", "--cap-add|MKNOD",
				"mknod /dev/k c 1 11; (: > /dev/k) 2>/dev/null || echo refused", `refused\n`, 0,
			},
			{
				"-t in a pipe", "-t",
				"test -t 1 && stat -c %t:%T /dev/console >/dev/null && echo tty", `tty\r\n`, 0,
			},
			{"-a stdout", "-a|stdout", "echo out; echo err >&2", `out\n`, 0},
			{"--name", "--name|given", "echo ran", `ran\n`, 0},
			{"--label-file", "--label-file|" + labels + "|-l|two=2", "true", ``, 0},
			{"--cidfile", "--cidfile|" + cid, "hostname", `[0-9a-f]{12}\n`, 0},
			{
				"--pid host", "--pid|host", "cat /proc/1/comm | wc -l; test $$ != 1 && echo other",
				`1\nother\n`, 0,
			},
			{"--ipc host", "--ipc|host", "true", ``, 0},
			{"--uts host", "--uts|host", "hostname", regexp.QuoteMeta(hostName) + `\n`, 0},
			{"--stop-signal", "--stop-signal|INT|--stop-timeout|3", "true", ``, 0},
			{"status", "", "exit 7", ``, 7},
			{"status of a signal", "--init", "kill -TERM $$", ``, 143},
		} {
			t.Run(f.name, func(t *testing.T) {
				args := []string{"run", "--rm"}
				if f.flags != "" {
					args = append(args, strings.Split(f.flags, "|")...)
				}
				if f.run != "" {
					args = append(args, "box", "sh", "-c", f.run)
				}
				c := c.with(t)
				got := c.do(args...)
				if !regexp.MustCompile(`^`+f.want+`$`).MatchString(got.out) || got.code != f.code {
					t.Errorf(
						"got %q, status %d; want %q, %d\n%s", got.out, got.code, f.want, f.code,
						got.err,
					)
				}
			})
		}
		raw, err := os.ReadFile(cid)
		if err != nil || len(raw) != 64 {
			t.Errorf("--cidfile: %q, %v", raw, err)
		}
		c.refused(125, cid, "run", "--cidfile", cid, "box", "true")
		os.Remove(cid)
		os.RemoveAll(bound)
		c.eq("named\n", "volume", "ls", "-q") // that without a name went with its container
		c.ok("volume", "rm", "named")
		if got := c.feed("typed\n", "run", "--rm", "-i", "box", "cat"); got.out != "typed\n" ||
			got.code != 0 {
			t.Errorf("run -i: %+v", got)
		}
		// More than any buffer on the way holds, in both directions at once.
		big := strings.Repeat("0123456789abcdef", 1<<18)
		if got := c.feed(big, "run", "--rm", "-i", "box", "cat"); got.out != big || got.code != 0 {
			t.Errorf(
				"run -i of %d bytes: %d bytes, status %d, %q", len(big), len(got.out), got.code,
				got.err,
			)
		}
		if got := c.do(
			"run", "--rm", "box", "sh", "-c",
			"head -c 4194304 /dev/zero; head -c 1000000 /dev/zero >&2",
		); len(got.out) != 4<<20 || len(got.err) != 1000000 {
			t.Errorf("run: %d and %d bytes", len(got.out), len(got.err))
		}
		if got := c.feed("typed\n", "run", "--rm", "box", "cat"); got.out != "" || got.code != 0 {
			t.Errorf("run without -i: %+v", got)
		}
		if got := c.feed(
			"typed\n", "run", "--rm", "-a", "stdin", "-a", "stdout", "-i", "box", "head", "-n1",
		); got.out != "typed\n" {
			t.Errorf("run -a stdin: %+v", got)
		}
	})
}

// TestLife takes containers through create, start, attach, stop, kill, wait, restart policies and
// rm.
func TestLife(t *testing.T) {
	r := start(t)
	eachClient(t, r, func(t *testing.T, c *client) {
		state := func(name string) string {
			return strings.TrimSpace(
				c.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name),
			)
		}
		eq := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
		}
		id := strings.TrimSpace(
			c.ok(
				"create", "--name", "one", "-i", "box", "sh", "-c",
				`trap "echo ended; exit 3" TERM; trap "echo huh" HUP; echo begun; while read l; do echo "got $l"; done; while true; do sleep 0.05; done`,
			),
		)
		if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(id) {
			t.Errorf("create printed %q", id)
		}
		eq("created", state("one"), "created 0")
		c.eq("one\n", "start", "one")
		eq("started", state("one"), "running 0")
		c.eq("one\n", "start", "one") // 304: it runs already

		a := c.begin("attach", "one")
		c.until("attach", func() bool {
			a.in.Write([]byte("x\n"))
			return strings.Contains(a.out.String(), "got x")
		})
		// Two may be attached; signals of the client go to the process.
		b := c.begin("attach", "--no-stdin", id[:12])
		c.until("a second attach", func() bool {
			a.in.Write([]byte("y\n"))
			return strings.Contains(b.out.String(), "got y")
		})
		b.Process.Signal(syscall.SIGHUP)
		a.in.Close()
		c.says(a, "huh")
		c.eq("one\n", "kill", "--signal", "HUP", "one")
		c.eq("one\n", "stop", "-t", "20", "one")
		eq("attach's status", fmt.Sprint(c.ends(a), c.ends(b)), "3 3")
		c.says(a, "ended")
		eq("stopped", state("one"), "exited 3")
		c.eq("3\n", "wait", "one")
		c.eq("one\n", "stop", "one") // once more is no error
		c.refused(1, "is not running", "kill", "one")

		// Nothing handles TERM: stop kills after its time.
		c.ok("start", "one")
		c.eq(id[:12]+"\n", "restart", "-t", "0", id[:12])
		eq("restarted", state("one"), "running 0")
		w := c.begin("wait", "one")
		c.eq("one\n", "kill", "one")
		eq("wait", strconv.Itoa(c.ends(w))+" "+w.out.String(), "0 137\n")
		eq("killed", state("one"), "exited 137")
		c.eq("one\n", "rm", "one")
		if got := c.do("inspect", "--type", "container", "one"); got.code != 1 ||
			got.out != "[]\n" || !strings.Contains(got.err, "No such container: one") {
			t.Errorf("inspect after rm: %+v", got)
		}

		c.ok("create", "--name", "two", "-i", "box", "sh", "-c", "cat; echo err >&2; exit 4")
		if got := c.feed("fed\n", "start", "-ai", "two"); got.out != "fed\n" ||
			got.err != "err\n" || got.code != 4 {
			t.Errorf("start -ai: %+v", got)
		}
		c.ok("rm", "two")

		// --rm with -d, and the engine removes it.
		c.ok("run", "-d", "--rm", "--name", "gone", "box", "true")
		c.until("--rm", func() bool { return c.do("inspect", "gone").code == 1 })

		// What it has written is not written back, and is there when it is started again.
		root := []string{"grep", "^overlay / ", "/proc/self/mounts"}
		c.ok("run", "-d", "--rm", "--name", "short", "box", "sleep", "1000")
		c.ok("exec", "short", "sh", "-c", "echo kept >/f")
		c.ok("restart", "-t", "0", "short")
		c.eq("kept\n", "exec", "short", "cat", "/f")
		if got := c.ok(append([]string{"exec", "short"}, root...)...); !strings.Contains(
			got, "volatile",
		) {
			t.Errorf("the root of run --rm is mounted %q, want volatile", got)
		}
		c.ok("kill", "short")
		c.until("--rm of what was started again", func() bool {
			return c.do("inspect", "short").code == 1
		})
		c.ok("run", "--name", "long", "box", "cat", "/proc/self/mounts")
		if got := c.ok("logs", "long"); !strings.Contains(got, "overlay / ") ||
			strings.Contains(got, "volatile") {
			t.Errorf("without --rm, mounts are %q", got)
		}
		c.ok("rm", "long")

		// Restart policies.
		c.ok(
			"run", "-d", "--name", "failing", "--restart", "on-failure:2", "box", "sh", "-c",
			"echo try; exit 5",
		)
		c.until("on-failure:2", func() bool {
			return c.ok(
				"inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "failing",
			) == "2 exited\n"
		})
		c.eq("try\ntry\ntry\n", "logs", "failing")
		c.ok("run", "-d", "--name", "always", "--restart", "always", "box", "sh", "-c", "sleep 0.1")
		c.until("always", func() bool {
			return c.ok("inspect", "-f", "{{.RestartCount}}", "always") > "1"
		})
		c.ok("stop", "-t", "0", "always")
		eq("always, stopped", strings.Fields(state("always"))[0], "exited")
		c.ok("run", "-d", "--name", "unless", "--restart=unless-stopped", "box", "sleep", "1000")
		c.ok("kill", "unless")
		eq("unless-stopped, killed", strings.Fields(state("unless"))[0], "exited")
		c.eq(
			"unless-stopped 0\n", "inspect", "-f",
			"{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}",
			"unless",
		)
		c.refused(125, "restart", "run", "--rm", "--restart", "always", "box", "true")
		c.ok("rm", "failing", "always", "unless")

		// Many at once, some of which do not exist.
		c.ok("run", "-d", "--name", "aa", "-v", "/v", "box", "sleep", "1000")
		c.ok("run", "-d", "--name", "bb", "--stop-signal", "KILL", "box", "sleep", "1000")
		if got := c.do("stop", "-t", "1", "bb", "none"); got.out != "bb\n" || got.code != 1 ||
			!strings.Contains(got.err, "No such container: none") {
			t.Errorf("stop bb none: %+v", got)
		}
		c.refused(1, "running", "rm", "aa")
		if got := c.do("rm", "-f", "-v", "aa", "bb", "none"); got.out != "aa\nbb\n" ||
			!strings.Contains(got.err, "No such container: none") {
			t.Errorf("rm -f aa bb none: %+v", got)
		}
		c.eq("", "volume", "ls", "-q")

		// A client that is told to end passes it on and reports the process's status.
		f := c.begin(
			"run", "--rm", "box", "sh", "-c",
			`trap "exit 11" TERM; echo up; while true; do sleep 0.05; done`,
		)
		c.says(f, "up")
		f.Process.Signal(syscall.SIGTERM)
		eq("run, terminated", fmt.Sprint(c.ends(f)), "11")
	})
}

// TestExec runs commands in a running container.
func TestExec(t *testing.T) {
	r := start(t)
	eachClient(t, r, func(t *testing.T, c *client) {
		c.ok(
			"run", "-d", "--name", "web", "-e", "A=b", "-w", "/tmp", "--cap-drop", "ALL", "box",
			"sleep", "1000",
		)
		c.eq("b\n/tmp\n", "exec", "web", "sh", "-c", "echo $A; pwd")
		c.eq(
			"c d\n/etc\n", "exec", "-e", "A=c", "--env", "D=d", "-w", "/etc", "web", "sh", "-c",
			"echo $A $D; pwd",
		)
		c.eq("from outside\n", "exec", "-e", "INHERITED", "web", "sh", "-c", "echo $INHERITED")
		c.eq("5\n6\n", "exec", "-u", "5:6", "web", "sh", "-c", "id -u; id -g")
		c.eq("1000\n", "exec", "--user", "1000", "web", "id", "-u") // CVE-2016-3697
		c.eq("CapEff:\t0000000000000000\n", "exec", "web", "grep", "CapEff", "/proc/self/status")
		if got := c.ok(
			"exec", "--privileged", "web", "grep", "CapEff", "/proc/self/status",
		); strings.Contains(got, "00000000") {
			t.Errorf("exec --privileged: %q", got)
		}
		if got := c.feed(
			"typed\n", "exec", "-i", "web", "sh", "-c", "cat; echo err >&2; exit 9",
		); got.out != "typed\n" || got.err != "err\n" || got.code != 9 {
			t.Errorf("exec -i: %+v", got)
		}
		if got := c.feed("typed\n", "exec", "web", "cat"); got.out != "" || got.code != 0 {
			t.Errorf("exec without -i: %+v", got)
		}
		c.eq("", "exec", "-d", "web", "sh", "-c", "echo done > /tmp/done")
		c.until("exec -d", func() bool {
			return c.do("exec", "web", "cat", "/tmp/done").out == "done\n"
		})
		for _, e := range []struct {
			args []string
			code int
			text string
		}{
			{[]string{"web", "sh", "-c", "exit 6"}, 6, ""},
			{[]string{"web", "sh", "-c", "kill -9 $$"}, 137, ""},
			{[]string{"web", "nothing"}, 127, "executable file not found"},
			{[]string{"web", "/no/such/file"}, 127, "no such file"},
			{[]string{"web", "/etc/passwd"}, 126, "permission denied"},
			{[]string{"-w", "/none", "web", "true"}, 127, "/none"},
			{[]string{"-u", "nobody-here", "web", "true"}, 126, "nobody-here"},
			{[]string{"nobody", "true"}, 1, "No such container: nobody"},
			{[]string{"web"}, 1, "at least 2 arguments"},
			{[]string{"--flag", "web", "true"}, 125, "unknown flag: --flag"},
		} {
			got := c.do(append([]string{"exec"}, e.args...)...)
			if all := got.out + got.err; got.code != e.code || !strings.Contains(all, e.text) {
				t.Errorf(
					"exec %s: status %d, %q; want %d with %q", strings.Join(e.args, " "), got.code,
					all, e.code, e.text,
				)
			}
		}
		c.ok("stop", "-t", "0", "web")
		c.refused(1, "is not running", "exec", "web", "true")
		c.ok("rm", "web")
	})
}

// TestLogs: -f, --tail, --since, --until, -t, and both streams.
func TestLogs(t *testing.T) {
	r := start(t)
	eachClient(t, r, func(t *testing.T, c *client) {
		c.ok(
			"run", "-d", "--name", "web", "box", "sh", "-c",
			"for i in 1 2 3 4 5; do echo line $i; sleep 0.02; done; echo err >&2; while ! test -e /go; do sleep 0.05; done; echo line 6; sleep 1; echo -n half",
		)
		c.until("the log", func() bool {
			got := c.do("logs", "web")
			return got.out == lines("line ", 5) && got.err == "err\n"
		})
		f := c.begin("logs", "-f", "web")
		tailing := c.begin("logs", "--follow", "--tail", "0", "web")
		c.says(f, "line 5\n")
		if got := c.do("logs", "--tail", "2", "web"); got.out+got.err != "line 5\nerr\n" {
			t.Errorf("--tail 2: %+v", got)
		}
		if got := c.do("logs", "-n", "0", "web"); got.out+got.err != "" {
			t.Errorf("-n 0: %+v", got)
		}
		stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line 1\n`)
		first := c.ok("logs", "-t", "web")
		if !stamp.MatchString(first) {
			t.Errorf("-t: %q", first)
		}
		at := strings.Fields(strings.Split(first, "\n")[2])[0] // that of line 3
		if got := c.ok("logs", "--since", at, "web"); !strings.HasPrefix(got, "line 3\n") {
			t.Errorf("--since %s: %q", at, got)
		}
		if got := c.ok("logs", "--until", at, "web"); strings.Contains(got, "line 4") ||
			!strings.HasPrefix(got, "line 1\nline 2\n") {
			t.Errorf("--until %s: %q", at, got)
		}
		if got := c.ok("logs", "--since", "1h", "web"); got != lines("line ", 5) {
			t.Errorf("--since 1h: %q", got)
		}
		if got := c.do("logs", "--until", "1h", "web"); got.out+got.err != "" {
			t.Errorf("--until 1h: %+v", got)
		}
		c.until("exec", func() bool { return tailing.out.String() == "" })
		c.ok("exec", "web", "touch", "/go")
		// Both end with the container.
		if c.ends(f) != 0 || f.out.String() != lines("line ", 6)+"half" ||
			f.err.String() != "err\n" {
			t.Errorf("-f: %q, %q", f.out.String(), f.err.String())
		}
		if got := tailing.out.String(); c.ends(tailing) != 0 ||
			!strings.HasSuffix(tailing.out.String(), "half") || strings.Contains(got, "line 5") {
			t.Errorf("-f --tail 0: %q", got)
		}
		c.ok("rm", "web")
		c.refused(1, "No such container: web", "logs", "web")
		// Of a terminal there is one stream.
		c.ok("run", "-d", "-t", "--name", "tty", "box", "sh", "-c", "echo out; echo err >&2")
		c.ok("wait", "tty")
		c.eq("out\r\nerr\r\n", "logs", "tty")
		c.ok("rm", "tty")
	})
}

// TestListings: ps, images, inspect, stats, version, info with their formats and filters.
func TestListings(t *testing.T) {
	r := start(t)
	eachClient(t, r, func(t *testing.T, c *client) {
		run := strings.TrimSpace(
			c.ok(
				"run", "-d", "--name", "running", "-l", "k=v", "-m", "32m", "-p",
				"127.0.0.1:0:80/tcp", "--network", "bridge", "box", "sleep", "1000",
			),
		)
		c.refused(3, "", "run", "--name", "ended", "-l", "k=w", "box", "sh", "-c", "exit 3")
		made := strings.TrimSpace(c.ok("create", "--name", "made", "box", "true"))
		const names = "{{.Names}}"
		for _, p := range []struct{ args, want string }{
			{"", "running\n"}, {"-a", "made\nended\nrunning\n"}, {"-n|2", "made\nended\n"},
			{"-l", "made\n"},
			{"-a|--filter|label=k", "ended\nrunning\n"}, {"-a|--filter|label=k=w", "ended\n"},
			{"-a|-f|status=created", "made\n"},
			{"-a|-f|status=exited|-f|status=running", "ended\nrunning\n"},
			{"-a|-f|exited=3", "ended\n"}, {"-a|-f|name=^/?e", "ended\n"},
			{"-a|-f|id=" + made[:12], "made\n"}, {"-a|-f|ancestor=box", "made\nended\nrunning\n"},
			{"-a|-f|before=ended", "running\n"},
			{"-a|-f|since=ended", "made\n"}, {"-f|publish=80", "running\n"}, {"-f|publish=81", ""},
			{"-f|expose=80/tcp", "running\n"}, {"-f|network=bridge", "running\n"},
			{"-f|volume=/v", ""},
		} {
			c.with(t).eq(
				p.want,
				append(
					append(
						[]string{"ps"},
						strings.FieldsFunc(p.args, func(r rune) bool { return r == '|' })...,
					),
					"--format", names,
				)...,
			)
		}
		c.eq(run[:12]+"\n", "ps", "-q")
		c.eq(run+"\n", "ps", "-q", "--no-trunc")
		c.refused(1, "nonsense", "ps", "-f", "nonsense=1")
		if got := c.ok("ps", "-a"); !regexp.MustCompile(
			`(?m)^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS +PORTS +NAMES$`,
		).MatchString(strings.SplitN(got, "\n", 2)[0]) ||
			!regexp.MustCompile(
				`(?m)^[0-9a-f]{12} +box +"sleep 1000" +.* ago +Up .* +127\.0\.0\.1:\d+->80/tcp +running$`,
			).MatchString(got) ||
			!strings.Contains(got, "Exited (3) ") {
			t.Errorf("ps -a:\n%s", got)
		}
		if got := c.ok("ps", "-s", "--format", "{{.Size}}"); !regexp.MustCompile(
			`^\d.*B \(virtual \d.*B\)\n$`,
		).MatchString(got) {
			t.Errorf("ps -s: %q", got)
		}
		list := eachLine(t, c.ok("ps", "-a", "--no-trunc", "--format", "{{json .}}"))
		if len(list) != 3 || field(list[2], "ID") != run || field(list[2], "Names") != "running" ||
			field(list[2], "State") != "running" || field(list[2], "Labels") != "k=v" {
			t.Errorf("ps --format '{{json .}}': %v", list)
		}
		c.eq("running bridge\n", "ps", "--format", "{{.Names}} {{.Networks}}")

		// inspect
		c.eq(
			run+" 33554432 v [sleep 1000]\n", "inspect", "-f",
			`{{.Id}} {{.HostConfig.Memory}} {{index .Config.Labels "k"}} {{.Config.Cmd}}`,
			"running",
		)
		c.eq(`"running"`+"\n", "inspect", "--format", "{{json .State.Status}}", "running")
		if v := c.object("inspect", "-f", "{{json .}}", "running"); field(v, "Id") != run ||
			field(v, "HostConfig", "Memory") != "3.3554432e+07" || field(v, "Name") != "/running" {
			t.Errorf("inspect -f '{{json .}}': %v", v)
		}
		c.eq("/ended\n/made\n", "inspect", "-f", "{{.Name}}", "ended", "made")
		if got := c.do("inspect", "absent"); got.code != 1 || strings.TrimSpace(got.out) != "[]" ||
			!strings.Contains(got.err, "absent") {
			t.Errorf("inspect absent: %+v", got)
		}
		if got := c.do("inspect", "-f", "{{.Nothing}}", "running"); got.code == 0 ||
			strings.Contains(got.out, "no value") {
			t.Errorf("inspect of an unknown field: %+v", got)
		}
		if got := c.ok("inspect", "-s", "-f", "{{.SizeRootFs}}", "running"); len(got) < 6 {
			t.Errorf("inspect -s: %q", got)
		}
		image := strings.TrimSpace(c.ok("inspect", "--type", "image", "-f", "{{.Id}}", "box"))
		c.eq(image+"\n", "inspect", "-f", "{{.Image}}", "running")

		// stats
		if got := c.ok("stats", "--no-stream"); !regexp.MustCompile(
			`(?m)^` + run[:12] + ` +running +\d+\.\d\d% +[\d.]+[kKM]iB / 32MiB +\d+\.\d\d% +\S+ / \S+ +\S+ / \S+ +1 *$`,
		).MatchString(got) {
			t.Errorf("stats --no-stream:\n%s", got)
		}
		v := c.object("stats", "--no-stream", "--format", "{{json .}}", "running")
		if field(v, "Name") != "running" || field(v, "PIDs") != "1" ||
			!strings.HasSuffix(field(v, "MemUsage"), "/ 32MiB") {
			t.Errorf("stats --format '{{json .}}': %v", v)
		}
		if got, want := sorted(
			c.ok(
				"stats", "-a", "--no-stream", "--no-trunc", "--format",
				"{{.Name}} {{.PIDs}} {{.ID}}",
			),
		), "ended 0 "; !strings.HasPrefix(got, want) ||
			!strings.Contains(got, "\nmade 0 "+made+"\n") ||
			!strings.HasSuffix(got, "\nrunning 1 "+run+"\n") {
			t.Errorf("stats -a: %q", got)
		}
		c.refused(1, "No such container: none", "stats", "--no-stream", "none")
		s := c.begin("stats", "--format", "{{.Name}}", "running")
		c.until("a second reading", func() bool {
			return strings.Count(s.out.String(), "running") >= 2
		})
		s.Process.Kill() // that of 28 does not hear an interrupt (docker/cli 6090)
		c.ends(s)

		// images, tag, rmi
		short := strings.TrimPrefix(image, "sha256:")[:12]
		c.ok("tag", "box", "example.test:5000/deep/name:v1")
		c.ok("tag", short, "second")
		for _, p := range []struct{ args, want string }{
			{"", "box:latest\nexample.test:5000/deep/name:v1\nsecond:latest\n"},
			{"box", "box:latest\n"}, {"second:latest", "second:latest\n"},
			{"-f|reference=*/*/name", "example.test:5000/deep/name:v1\n"},
			{"--filter|dangling=true", ""}, {"-f|label=none", ""},
		} {
			got := c.ok(
				append(
					append(
						[]string{"images"},
						strings.FieldsFunc(p.args, func(r rune) bool { return r == '|' })...,
					),
					"--format", "{{.Repository}}:{{.Tag}}",
				)...,
			)
			if got = strings.Replace(sorted(got), "strake/base:latest\n", "", 1); got != p.want {
				t.Errorf("images %s: %q, want %q", p.args, got, p.want)
			}
		}
		c.eq(short+"\n", "images", "-q", "box")
		c.eq(image+"\n", "images", "-q", "--no-trunc", "box")
		if got := c.ok("images", "box"); !regexp.MustCompile(
			`(?m)^box +latest +` + short + ` +.* ago +[\d.]+[kM]B$`,
		).MatchString(got) {
			t.Errorf("images:\n%s", got)
		}
		if l := eachLine(t, c.ok("images", "--format", "{{json .}}", "box")); len(l) != 1 ||
			field(l[0], "ID") != short || field(l[0], "Tag") != "latest" {
			t.Errorf("images --format '{{json .}}': %v", l)
		}
		if got := c.ok("images", "--digests", "--format", "{{.Digest}}", "box"); !strings.HasPrefix(
			got, "<none>",
		) && !strings.HasPrefix(got, "sha256:") {
			t.Errorf("images --digests: %q", got)
		}
		c.eq("Untagged: second:latest\n", "rmi", "second")
		c.eq("Untagged: example.test:5000/deep/name:v1\n", "rmi", "example.test:5000/deep/name:v1")
		c.refused(1, "is using", "rmi", "box")
		c.refused(1, "No such image: none", "rmi", "none")
		c.refused(1, "No such image: none", "tag", "none", "some")
		c.refused(1, "UPPER", "tag", "box", "UPPER")

		// version and info
		if got := c.ok(
			"version", "--format", "{{.Server.Version}}|{{.Server.Os}}|{{.Client.Version}}",
		); !regexp.MustCompile(`^\d+\.\d+\.\d+\S*\|linux\|\d\S+\n$`).MatchString(got) {
			t.Errorf("version: %q", got)
		}
		if v := c.object("version", "-f", "{{json .}}"); field(v, "Server", "Os") != "linux" ||
			field(v, "Server", "ApiVersion") == "" || field(v, "Server", "GitCommit") == "" {
			t.Errorf("version -f '{{json .}}': %v", v)
		}
		if got := c.ok("version"); !strings.Contains(got, "Client:") ||
			!strings.Contains(got, "Server:") {
			t.Errorf("version: %q", got)
		}
		c.eq(
			"3 1 2\n", "info", "--format",
			"{{.Containers}} {{.ContainersRunning}} {{.ContainersStopped}}",
		)
		if v := c.object("info", "-f", "{{json .}}"); field(v, "Images") == "0" ||
			field(v, "DockerRootDir") != filepath.Join(r.dir, "data") {
			t.Errorf("info -f '{{json .}}': %v", v)
		}
		if got := c.ok("info"); !strings.Contains(got, "Containers: 3") {
			t.Errorf("info: %q", got)
		}
		c.ok("rm", "-f", "running", "ended", "made")
		if c.name == "strake" {
			for _, verb := range []string{"ps", "images"} {
				if got := strings.TrimSpace(
					c.ok(verb, "-o", "json"),
				); !strings.HasPrefix(got, "[") || !strings.HasSuffix(got, "]") {
					t.Errorf("%s -o json: %q", verb, got)
				}
			}
		}
	})
}

// sorted sorts lines.
func sorted(s string) string {
	l := strings.SplitAfter(s, "\n")
	for i := range l {
		for j := i + 1; j < len(l); j++ {
			if l[j] != "" && l[j] < l[i] {
				l[i], l[j] = l[j], l[i]
			}
		}
	}
	return strings.Join(l, "")
}

// TestTerminals runs, attaches and executes on a pseudo-terminal: sizes, resizing, control keys,
// detaching.
func TestTerminals(t *testing.T) {
	r := start(t)
	const detach = "\x10\x11"
	eachClient(t, r, func(t *testing.T, c *client) {
		p := onTerminal(t, c.command("run", "-it", "--name", "one", "box", "sh"), 77, 33)
		p.expect("# ")
		p.write("stty size; tty; echo TERM=$TERM\n")
		p.expect("33 77")
		p.expect("/dev/pts/0")
		p.expect("TERM=xterm")
		p.resize(99, 44)
		c.until("the new size", func() bool {
			p.write("stty size\n")
			return strings.Contains(p.screen.String(), "44 99")
		})
		p.write("trap 'echo caught' INT\n")
		p.write("sleep 1000\n")
		c.until("sleep", func() bool {
			return strings.Contains(c.do("exec", "one", "ps").out, "sleep 1000")
		})
		p.write("\x03")
		p.expect("^Ccaught") // and not the line typed above
		p.write("kept=yes\n")
		p.write(detach)
		if code := p.ends(); code != 0 {
			t.Errorf("detached: status %d", code)
		}
		c.eq("running\n", "inspect", "-f", "{{.State.Status}}", "one")

		q := onTerminal(t, c.command("attach", "--detach-keys", "ctrl-x,q", "one"), 60, 20)
		c.until("attach", func() bool {
			q.write("\n")
			return strings.Contains(q.screen.String(), "#")
		})
		q.write("echo kept: $kept; stty size\n")
		q.expect("kept: yes")
		q.expect("20 60")
		q.write("\x18q")
		q.expect("read escape sequence")
		// Docker's client takes this for an error of attach, though not of run.
		if code, want := q.ends(), map[string]int{
			"docker 28": 1, "docker 20.10": 1,
		}[c.name]; code != want {
			t.Errorf("detached by other keys: status %d, want %d", code, want)
		}
		// A part of the sequence goes to the process.
		e := onTerminal(t, c.command("exec", "-it", "-e", "PS1=inside ", "one", "sh"), 50, 10)
		e.expect("inside ")
		e.write("stty size; stty raw -echo; head -c2 | od -An -tx1; stty sane\n")
		e.expect("10 50")
		e.resize(51, 11)
		e.write("\x10x")
		e.expect("10 78")
		c.until("the new size", func() bool {
			e.write("stty size\n")
			return strings.Contains(e.screen.String(), "11 51")
		})
		e.write("exit 5\n")
		if code := e.ends(); code != 5 {
			t.Errorf("exec -it: status %d", code)
		}
		d := onTerminal(t, c.command("exec", "-it", "one", "sh"), 50, 10)
		d.expect("# ")
		d.write(detach)
		d.ends() // docker's status is 1 or 0, by its version
		s := onTerminal(t, c.command("attach", "one"), 60, 20)
		c.until("attach", func() bool {
			s.write("\n")
			return strings.Contains(s.screen.String(), "#")
		})
		s.write("exit 6\n")
		if code := s.ends(); code != 6 {
			t.Errorf("attach: status %d", code)
		}
		a := onTerminal(t, c.command("start", "-ai", "one"), 40, 15)
		c.until("start -ai", func() bool {
			a.write("stty size\n")
			return strings.Contains(a.screen.String(), "15 40")
		})
		a.write("\x04")
		if code := a.ends(); code != 0 {
			t.Errorf("start -ai: status %d", code)
		}
		c.ok("rm", "one")
		// What a process says just before it ends is not lost.
		for i := range 5 {
			e := onTerminal(
				t, c.command("run", "-it", "--rm", "box", "sh", "-c", "echo last; exit 4"), 80, 24,
			)
			if code := e.ends(); code != 4 {
				t.Errorf("run %d: status %d", i, code)
			}
			e.expect("last")
		}
		// The keyboard's interrupt reaches the process, whose status is that of the signal.
		i := onTerminal(
			t,
			c.command(
				"run", "-it", "--init", "--rm", "box", "sh", "-c", "echo up; exec sleep 1000",
			),
			80, 24,
		)
		i.expect("up")
		i.write("\x03") // once: when the process ended, the terminal is the client's own, and the next would end that
		if code := i.ends(); code != 130 {
			t.Errorf("interrupted: status %d, want 130; screen %q", code, i.screen.String())
		}
		c.refused(1, "TTY", "run", "-it", "--rm", "box", "true")
		c.do("rm", "-f", "one")
	})
}

// TestPublish reaches containers through published ports, by TCP and UDP.
func TestPublish(t *testing.T) {
	r := start(t)
	eachClient(t, r, func(t *testing.T, c *client) {
		c.ok("run", "-d", "--name", "web", "-p", "127.0.0.1:0:80", "-p", "127.0.0.1::53/udp", "-p", "81", "--expose", "82", "-v", "/usr:/usr:ro", "box", "/bin/sh", "-c",
			`while true; do echo tcp | busybox nc -l -p 80; done & for l in lib lib64; do busybox ln -s usr/$l /$l; done; exec perl -MIO::Socket::INET -e '`+
				`$s = IO::Socket::INET->new(LocalPort => 53, Proto => "udp") or die $!; while ($s->recv($_, 99)) { $s->send("udp\n") }'`)
		addr := strings.TrimSpace(c.ok("port", "web", "80/tcp"))
		if !regexp.MustCompile(`^127\.0\.0\.1:\d+$`).MatchString(addr) {
			t.Fatalf("port: %q", addr)
		}
		c.until("TCP", func() bool { return ask("tcp", addr) == "tcp\n" })
		udp := strings.TrimSpace(c.ok("port", "web", "53/udp"))
		c.until("UDP", func() bool { return ask("udp", udp) == "udp\n" })
		if got := c.ok("port", "web"); !strings.Contains(got, "80/tcp -> "+addr) ||
			!strings.Contains(got, "81/tcp -> 0.0.0.0:") || strings.Contains(got, "82/tcp") {
			t.Errorf("port: %q", got)
		}
		c.eq("tcp\n", "run", "--rm", "--network", "container:web", "box", "nc", "127.0.0.1", "80")
		if got := c.do("run", "--rm", "-p", addr+":80", "box", "true"); got.code != 125 ||
			!strings.Contains(got.err, "port is already allocated") {
			t.Errorf("port taken: %+v", got)
		}
		c.ok("rm", "-f", "web")
		c.until("the port is free", func() bool {
			l, err := net.Listen("tcp", addr)
			return err == nil && l.Close() == nil
		})
		c.ok("run", "-d", "--name", "all", "-P", "--expose", "82/tcp", "box", "sleep", "1000")
		if got := c.ok("port", "all"); !strings.Contains(got, "82/tcp -> 0.0.0.0:") {
			t.Errorf("-P: %q", got)
		}
		c.ok("rm", "-f", "all")
	})
}

// ask connects, says something and returns the answer.
func ask(network, addr string) string {
	conn, err := net.DialTimeout(network, addr, time.Second)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	if network == "udp" {
		conn.Write([]byte("hello\n"))
	}
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}
