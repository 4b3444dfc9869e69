package machine

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// report fails for a job that failed, and logs what a test binary counted.
func report(t *testing.T, r result) {
	t.Helper()
	count := func(what string) int {
		return len(regexp.MustCompile(`(?m)^\s*--- `+what+`:`).FindAllString(r.Output, -1))
	}
	t.Logf(
		"%s: %d passed, %d skipped, %d failed", r.Name, count("PASS"), count("SKIP"), count("FAIL"),
	)
	lines := strings.Split(r.Output, "\n")
	for i, line := range lines {
		if strings.Contains(line, "--- SKIP:") && i > 0 {
			t.Logf("%s: %s: %s", r.Name, strings.TrimSpace(line), strings.TrimSpace(lines[i-1]))
		}
	}
	if r.Status != 0 || count("PASS") == 0 {
		out := r.Output
		if i := strings.Index(out, "--- FAIL"); i > 0 {
			out = out[max(0, i-2000):]
		}
		t.Errorf("%s: exit status %d\n%s", r.Name, r.Status, out[:min(len(out), 12000)])
	}
}

// TestVersion2 runs the library's tests on a host with nothing but version 2 of control groups.
func TestVersion2(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, p := range []struct{ name, pkg string }{
		{"cgroup", "strake/container/cgroup"}, {"container", "strake/container"},
		{"spawn", "strake/container/spawn"},
	} {
		m.build("/tests/"+p.name, p.pkg, true)
		m.jobs = append(
			m.jobs,
			job{
				Name: p.name, Args: []string{"/tests/" + p.name, "-test.v"}, Dir: "/tmp",
				Seconds: 400,
			},
		)
	}
	for _, r := range m.run() {
		report(t, r)
	}
}

// script runs a shell script in the guest, with strake's binaries in its PATH.
func (m *machine) script(name, text string, seconds int) {
	m.t.Helper()
	bin := os.Getenv("STRAKE_BIN")
	if bin == "" {
		m.t.Skip("needs STRAKE_BIN, the directory of strake's binaries")
	}
	for _, b := range []string{"strake", "straked", "strake-runtime"} {
		m.files["/bin/"+b] = filepath.Join(bin, b)
	}
	m.texts["/tests/"+name+".sh"] = text
	m.jobs = append(
		m.jobs,
		job{
			Name: name, Args: []string{"/bin/sh", "/tests/" + name + ".sh"}, Dir: "/tmp",
			Seconds: seconds,
		},
	)
}

// check compares lines of "name: value" that a script has printed.
func check(t *testing.T, r result, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for line := range strings.Lines(r.Output) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			got[name] = strings.TrimSpace(value)
		}
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: %q, want %q", name, got[name], value)
		}
	}
	if t.Failed() {
		t.Logf("%s: exit status %d\n%s", r.Name, r.Status, r.Output)
	}
}

// TestEngineVersion2 runs the engine on a host with nothing but version 2 of control groups.
func TestEngineVersion2(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.script("engine", `
R="--data-root /var/data --exec-root /run/strake-test -H unix:///run/s.sock"
straked $R >/tmp/straked.log 2>&1 &
for i in $(seq 300); do [ -S /run/s.sock ] && break; sleep 0.1; done
s() { strake -H unix:///run/s.sock "$@"; }
say() { echo "$1: $(shift; "$@" 2>&1 | tr '\n' ' ')"; }
say limits s run --rm -m 64m --cpus 0.5 --pids-limit 20 strake/base sh -c 'cd /sys/fs/cgroup; cat memory.max cpu.max pids.max'
say version1 s run --rm --memory-swappiness 10 strake/base echo runs
say own-root s run --rm strake/base cat /proc/self/cgroup
say device s run --rm -v /bin/busybox:/bin/busybox strake/base sh -c 'busybox mknod /tmp/vda b 252 0 && cat /tmp/vda >/dev/null 2>&1; echo $?; head -c 1 /dev/zero | wc -c'
s run -d --name oom -m 16m strake/base sh -c 'dd if=/dev/zero of=/dev/shm/x bs=1M count=40' >/dev/null
s wait oom >/tmp/oom.status
say oom-status cat /tmp/oom.status
say oom s inspect --format '{{.State.OOMKilled}}' oom
s run -d --name web -p 127.0.0.1:8080:80 strake/base httpd -f -p 80 -h /etc >/dev/null
say published sh -c 'for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://127.0.0.1:8080/hostname >/tmp/w 2>/dev/null && break; sleep 1; done; wc -c </tmp/w'
say address s exec web sh -c 'ip -4 addr show eth0 | grep -c inet'
say paused sh -c 'strake -H unix:///run/s.sock pause web >/dev/null; strake -H unix:///run/s.sock inspect --format "{{.State.Status}}" web; cat /sys/fs/cgroup/*/*/$(strake -H unix:///run/s.sock inspect --format "{{.Id}}" web)/cgroup.freeze; strake -H unix:///run/s.sock unpause web >/dev/null'
say stats sh -c 'strake -H unix:///run/s.sock stats --no-stream --format "{{.Name}} {{.PIDs}}" web | cut -d" " -f1'
s stop -t 1 web >/dev/null 2>&1
s rm -f web oom >/dev/null
say groups sh -c 'find /sys/fs/cgroup -mindepth 3 -path "*/docker/*" -type d | wc -l'
kill %1; wait %1
straked $R --teardown
say left sh -c 'ls -d /sys/fs/cgroup/s[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f] 2>/dev/null | wc -l; ip link | grep -c " s[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]"'
tail -5 /tmp/straked.log
`, 300)
	r := m.run()["engine"]
	check(t, r, map[string]string{
		"limits": "67108864 50000 100000 20", "own-root": "0::/",
		"version1": "WARNING: Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded. runs",
		"device":   "1 1", "oom-status": "137", "oom": "true", "address": "1",
		"paused": "paused 1", "stats": "web", "left": "0 0", "published": "13", "groups": "0",
	})
}

// TestAppArmor confines a container on a kernel that has AppArmor.
func TestAppArmor(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	dir := t.TempDir()
	if err := unpack(dir, "apparmor", "libapparmor1"); err != nil {
		t.Skipf("needs apparmor_parser: %v", err)
	}
	m.program(
		"/sbin/apparmor_parser", dir+"/unpacked/sbin/apparmor_parser",
		dir+"/unpacked/usr/lib/x86_64-linux-gnu",
	)
	m.append = "apparmor=1 security=apparmor"
	m.texts["/etc/apparmor/parser.conf"] = ""
	m.texts["/tests/profile"] = `profile strake-test flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  deny /denied w,
}
`
	m.texts["/tests/config.json"] = `{"ociVersion":"1.2.0","root":{"path":"/rootfs"},"process":{"user":{"uid":0,"gid":0},"cwd":"/","env":["PATH=/bin"],"apparmorProfile":"strake-test",
"args":["/bin/sh","-c","echo label: $(cat /proc/self/attr/apparmor/current /proc/self/attr/current 2>/dev/null | head -n1); echo x >/allowed && echo allowed: yes; echo x >/denied || echo denied: yes"]},
"mounts":[{"destination":"/proc","type":"proc","source":"proc"}],
"linux":{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"}]}}`
	for _, a := range []string{"sh", "cat", "head"} {
		m.links["/rootfs/bin/"+a] = "busybox"
	}
	m.files["/rootfs/bin/busybox"] = "/bin/busybox"
	m.texts["/rootfs/proc/.keep"] = ""
	m.script("apparmor", `
apparmor_parser --skip-cache --replace /tests/profile || echo parser: failed
mkdir -p /mnt/root /mnt/b && cp -a /rootfs/. /mnt/root/ && sed 's#/rootfs#/mnt/root#' /tests/config.json >/mnt/b/config.json
strake-runtime --root /run/r run -b /mnt/b ct
echo status: $?
sed -i 's/strake-test/no-such-profile/' /mnt/b/config.json
strake-runtime --root /run/r run -b /mnt/b ct 2>/tmp/err
echo unknown: $?
echo message: $(cat /tmp/err)
`, 120)
	r := m.run()["apparmor"]
	check(
		t, r,
		map[string]string{
			"label": "strake-test (enforce)", "allowed": "yes", "denied": "yes", "status": "0",
			"unknown": "1",
		},
	)
	if !strings.Contains(r.Output, "process.apparmorProfile") {
		t.Errorf("the error does not name process.apparmorProfile:\n%s", r.Output)
	}
}
