package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/internal/testneed"
)

// lxcRig is strake-lxc with a directory of containers of its own.
type lxcRig struct {
	t                 testing.TB
	program, dir, run string
}

func newLXCRig(t testing.TB) *lxcRig {
	t.Helper()
	bin := os.Getenv("STRAKE_BIN")
	if bin == "" {
		t.Skip("needs STRAKE_BIN, the directory of the built binaries (make test sets it)")
	}
	testneed.Root(t, "makes containers")
	testneed.File(t, "/bin/busybox", "busybox-static")
	dir, err := os.MkdirTemp("", "strake-lxc-")
	if err != nil {
		t.Fatal(err)
	}
	// The root of a container with a user namespace is another user of this host.
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	r := &lxcRig{
		t: t, program: filepath.Join(bin, "strake-lxc"), dir: filepath.Join(dir, "lxc"),
		run: filepath.Join(dir, "run"),
	}
	before := r.host()
	t.Cleanup(func() {
		r.ok("teardown")
		r.same(before)
		os.RemoveAll(dir)
	})
	return r
}

// host is what of the host a container could leave something in.
func (r *lxcRig) host() map[string]bool {
	r.t.Helper()
	seen := map[string]bool{}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); strings.Contains(f[4], filepath.Dir(r.dir)) {
			seen["mount "+f[4]] = true
		}
	}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name(), "slx") {
			seen["interface "+l.Name()] = true
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/strake-lxc-*")
	for _, g := range groups {
		seen["group "+g] = true
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range processes {
		if raw, err := os.ReadFile(p); err == nil && bytes.Contains(raw, []byte(r.run)) {
			seen["process "+p+" "+string(bytes.ReplaceAll(raw, []byte{0}, []byte{' '}))] = true
		}
	}
	return seen
}

// same waits until the host is as it was.
func (r *lxcRig) same(before map[string]bool) {
	r.t.Helper()
	var left []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		left = nil
		for what := range r.host() {
			if !before[what] {
				left = append(left, what)
			}
		}
		if len(left) == 0 {
			return
		}
		poll()
	}
	r.t.Errorf("left on the host: %q", left)
}

// poll is the pause between two looks at another process.
func poll() { time.Sleep(20 * time.Millisecond) }

// command is a verb with its arguments.
func (r *lxcRig) command(verb string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	r.t.Cleanup(cancel)
	list := append([]string{"lxc", verb, "-P", r.dir, "--run", r.run}, args...)
	return exec.CommandContext(ctx, r.program, list...)
}

// do executes a verb.
func (r *lxcRig) do(verb string, args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	var out, msg bytes.Buffer
	cmd := r.command(verb, args...)
	cmd.Stdout, cmd.Stderr = &out, &msg
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return out.String(), msg.String(), cmd.ProcessState.ExitCode()
}

// ok executes a verb that has to succeed and returns what it prints.
func (r *lxcRig) ok(verb string, args ...string) string {
	r.t.Helper()
	out, msg, code := r.do(verb, args...)
	if code != 0 {
		r.t.Fatalf("lxc-%s %q: status %d: %s", verb, args, code, msg)
	}
	return out
}

// state is what lxc-info says.
func (r *lxcRig) state(name string) string {
	r.t.Helper()
	return strings.TrimSpace(r.ok("info", "-n", name, "-s", "-H"))
}

// busybox makes a container of busybox without a network.
func (r *lxcRig) busybox(name string) {
	r.t.Helper()
	base := filepath.Join(filepath.Dir(r.dir), "base.conf")
	if err := os.WriteFile(base, []byte("lxc.net.0.type = empty\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.ok("create", "-q", "-t", "busybox", "-f", base, name)
}

// TestLXCLife makes a container and has it start, freeze, reboot, halt and disappear.
func TestLXCLife(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("one")
	if got := r.ok("ls"); got != "one\n" {
		t.Errorf("lxc-ls: %q", got)
	}
	if _, msg, code := r.do("create", "-t", "busybox", "one"); code == 0 ||
		!strings.Contains(msg, "already exists") {
		t.Errorf("a second one: status %d, %s", code, msg)
	}
	r.ok("start", "one")
	if got := r.state("one"); got != "RUNNING" {
		t.Fatalf("state %q after the start", got)
	}
	if _, msg, code := r.do("start", "one"); code != 0 || !strings.Contains(msg, "already running") {
		t.Errorf("a second start: status %d, %s", code, msg)
	}
	pid := r.ok("info", "one", "-p", "-H")
	if got := r.ok("attach", "one", "--", "hostname"); got != "one\n" {
		t.Errorf("hostname: %q", got)
	}
	out, msg, code := r.do("attach", "one", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
	if out != "out\n" || msg != "err\n" || code != 7 {
		t.Errorf("attach: %q, %q, status %d", out, msg, code)
	}
	watch := r.command("monitor", "one")
	seen, err := os.Create(filepath.Join(filepath.Dir(r.dir), "seen"))
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	watch.Stdout = seen
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	r.freezeUntilSeen("one", seen.Name())
	if got := r.state("one"); got != "RUNNING" {
		t.Errorf("state %q after it was thawed", got)
	}
	// From inside, and then nobody but the keeper is there to start it again.
	r.ok("attach", "one", "--", "reboot")
	r.until("one", "another init", func() bool {
		now, _, code := r.do("info", "one", "-p", "-H")
		return code == 0 && now != "" && now != pid
	})
	r.ok("stop", "one")
	if got := r.state("one"); got != "STOPPED" {
		t.Errorf("state %q after the stop", got)
	}
	if _, _, code := r.do("stop", "one"); code != 2 {
		t.Errorf("status %d of stopping a stopped one, want 2", code)
	}
	r.ok("start", "one")
	r.ok("attach", "one", "--", "poweroff")
	r.ok("wait", "one", "-s", "STOPPED", "-t", "20")
	watch.Process.Kill()
	watch.Wait()
	r.ok("destroy", "one")
	if got := r.ok("ls"); got != "" {
		t.Errorf("lxc-ls: %q", got)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "one")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the container's directory: %v", err)
	}
}

// freezeUntilSeen freezes and thaws the container until lxc-monitor has said so.
func (r *lxcRig) freezeUntilSeen(name, seen string) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		r.ok("freeze", name)
		if got := r.state(name); got != "FROZEN" {
			r.t.Fatalf("state %q after the freeze", got)
		}
		r.ok("unfreeze", name)
		raw, err := os.ReadFile(seen)
		if err != nil || time.Now().After(end) {
			r.t.Fatalf("lxc-monitor has not shown the changes: %q, %v", raw, err)
		}
		if strings.Contains(string(raw), "'"+name+"' changed state to [FROZEN]\n") {
			return
		}
		poll()
	}
}

// until waits for something that another process does.
func (r *lxcRig) until(name, what string, is func() bool) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); poll() {
		if time.Now().After(end) {
			r.t.Fatalf("container %s: no %s", name, what)
		}
	}
}

// TestLXCExecute runs programs without an init of the distribution.
func TestLXCExecute(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("app")
	cmd := r.command("execute", "app", "--", "sh", "-c", "cat; echo err >&2; exit 3")
	var out, msg bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("in\n"), &out, &msg
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); out.String() != "in\n" || msg.String() != "err\n" ||
		code != 3 {
		t.Errorf("%q, %q, status %d", out.String(), msg.String(), code)
	}
	if got := r.state("app"); got != "STOPPED" {
		t.Errorf("state %q", got)
	}
	if _, msg, code := r.do("execute", "app", "--", "/missing"); code == 0 ||
		!strings.Contains(msg, "/missing") {
		t.Errorf("a missing program: status %d, %s", code, msg)
	}
	if got := r.state("app"); got != "STOPPED" {
		t.Errorf("state %q", got)
	}
}

// TestLXCHooks runs hooks in their order, with what LXC tells them, on the host and inside. One that
// fails before the start ends it; one that fails at the end does not keep the container from it.
func TestLXCHooks(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("one")
	said := filepath.Join(r.dir, "said")
	hook := filepath.Join(r.dir, "hook")
	text := "#!/bin/sh\necho \"$1 $2 $3 ${LXC_PID:+pid} $LXC_TARGET\" >>" + said + "\n" +
		"case $3 in mount|autodev) echo $3 >>$LXC_ROOTFS_MOUNT/dev/inside;; esac\n"
	if err := os.WriteFile(hook, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.dir, "one", "config")
	lines, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{
		"pre-start", "pre-mount", "mount", "autodev", "start-host", "stop", "post-stop",
	} {
		lines = fmt.Appendf(lines, "lxc.hook.%s = %s\n", kind, hook)
	}
	lines = append(lines, "lxc.hook.post-stop = /bin/false\n"+
		"lxc.hook.start = echo \"$LXC_NAME it's started\" >>/dev/inside\n"...)
	if err := os.WriteFile(file, lines, 0o600); err != nil {
		t.Fatal(err)
	}
	r.ok("start", "one")
	// What the hooks of the container's namespaces have written is seen there alone.
	r.until("one", "start hook", func() bool {
		got, _, _ := r.do("attach", "one", "--", "cat", "/dev/inside")
		return got == "mount\nautodev\none it's started one lxc start\n"
	})
	if _, err := os.Stat(filepath.Join(r.dir, "one/rootfs/dev/inside")); err == nil {
		t.Error("a hook of the container has written to the host's view")
	}
	if _, msg, code := r.do("stop", "-k", "one"); code != 0 || !strings.Contains(msg, "post-stop") {
		t.Errorf("stop: status %d, %q", code, msg)
	}
	if got := r.state("one"); got != "STOPPED" {
		t.Errorf("state %q", got)
	}
	got, err := os.ReadFile(said)
	want := "one lxc pre-start  \none lxc pre-mount  \none lxc mount  \none lxc autodev  \n" +
		"one lxc start-host pid \none lxc stop  stop\none lxc post-stop  stop\n"
	if err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if _, msg, code := r.do("start", "one", "-s", "lxc.hook.mount=/bin/false"); code == 0 ||
		!strings.Contains(msg, "createContainer") {
		t.Errorf("a mount hook that fails: status %d, %s", code, msg)
	}
	if got := r.state("one"); got != "STOPPED" {
		t.Errorf("state %q", got)
	}
}

// TestLXCKilled kills lxc-start and lxc-stop at any moment. The next command repairs what is left.
func TestLXCKilled(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("victim")
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		verb, args := "start", []string{"victim"}
		if i%2 == 1 {
			verb, args = "stop", []string{"-k", "victim"}
		}
		cmd := r.command(verb, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		if i%8 == 7 {
			r.killKeeper()
		}
	}
	if _, msg, code := r.do("start", "victim"); code != 0 && !strings.Contains(msg, "already running") {
		t.Fatalf("start: status %d, %s", code, msg)
	}
	if got := r.ok("attach", "victim", "--", "echo", "well"); got != "well\n" {
		t.Errorf("attach: %q", got)
	}
	r.ok("stop", "-k", "victim")
	if got := r.state("victim"); got != "STOPPED" {
		t.Errorf("state %q", got)
	}
	r.ok("destroy", "victim")
}

// killKeeper kills the keeper of the rig, which other processes of this name are not touched by.
func (r *lxcRig) killKeeper() {
	r.t.Helper()
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range list {
		raw, err := os.ReadFile(p)
		if err != nil || !bytes.Contains(raw, []byte(filepath.Join(r.run, ""))) ||
			!bytes.Contains(raw, []byte("\x00keeper\x00")) {
			continue
		}
		var pid int
		fmt.Sscanf(p, "/proc/%d/", &pid)
		unix.Kill(pid, unix.SIGKILL)
	}
}

// TestLXCWrong gives wrong configurations and commands: one clear error each, and nothing is left.
func TestLXCWrong(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("good")
	for _, c := range []struct {
		verb string
		args []string
		want string // in the message
	}{
		{"start", []string{"missing"}, `container "missing" does not exist`},
		{"start", []string{"../good"}, `name "../good": want`},
		{"start", []string{"good", "-s", "lxc.tty.mx=4"}, `did you mean "lxc.tty.max"`},
		{"start", []string{"good", "-s", "lxc.tty.max=many"}, "many"},
		{"start", []string{"good", "-s", "nothing"}, "want KEY=VALUE"},
		{"start", []string{"good", "-s", "lxc.rootfs.path=dir:/missing"}, "/missing"},
		{"start", []string{"good", "-s", "lxc.init.cmd=/missing"}, "/missing"},
		{"start", []string{"good", "-s", "lxc.signal.halt=SIGNOTHING"}, "SIGNOTHING"},
		{"start", []string{"good", "-s", "lxc.net.0.type=carrier-pigeon"}, "carrier-pigeon"},
		{
			"start", []string{"good", "-s", "lxc.net.0.type=veth", "-s", "lxc.net.0.link=missing0"},
			"missing0",
		},
		{"start", []string{"good", "-s", "lxc.mount.entry=/missing mnt none bind 0 0"}, "/missing"},
		{"start", []string{"good", "-s", "lxc.hook.pre-start=/bin/false"}, "pre-start"},
		{"start", []string{"good", "-s", "lxc.cap.drop=fly"}, "fly"},
		{"start", []string{"good", "-s", "lxc.idmap=u 0 100000"}, "lxc.idmap"},
		{"create", []string{"-t", "busybos", "new"}, `did you mean "busybox"`},
		{"create", []string{"new"}, "template is required"},
		{"create", []string{"-t", "/bin/false", "new"}, "false"},
		{"create", []string{"-t", "busybox", "-B", "punchcards", "new"}, "punchcards"},
		{"create", []string{"-t", "busybox", "-f", "/missing", "new"}, "/missing"},
		{"attach", []string{"good", "--", "true"}, "is not running"},
		{"console", []string{"good"}, "no terminal"},
		{"freeze", []string{"good"}, "is not running"},
		{"wait", []string{"good", "-s", "SLEEPY"}, "SLEEPY"},
		{"wait", []string{"good"}, "no state"},
		{"ls", []string{"-F", "COLOUR", "-f"}, "COLOUR"},
		{"ls", []string{"["}, "filter"},
		{"info", []string{"missing"}, "missing doesn't exist"},
		{"info", []string{"good", "-c", "lxc.nothing"}, "lxc.nothing"},
		{"destroy", []string{"missing"}, "does not exist"},
		{"execute", []string{"good"}, "no command"},
		{"strat", []string{"good"}, `did you mean "start"`},
		{"start", []string{"--foregruond", "good"}, "foregruond"},
	} {
		_, msg, code := r.do(c.verb, c.args...)
		if code == 0 || !strings.Contains(msg, c.want) {
			t.Errorf("lxc-%s %q: status %d, %q; want %q", c.verb, c.args, code, msg, c.want)
		}
		if lines := strings.Count(msg, "\n"); lines > 3 {
			t.Errorf("lxc-%s %q: %d lines: %s", c.verb, c.args, lines, msg)
		}
	}
	if got := r.ok("ls", "-f", "-F", "NAME,STATE"); got != "NAME STATE   \ngood STOPPED \n" {
		t.Errorf("in the end: %q", got)
	}
}

// debian makes a container of Debian without a network.
func (r *lxcRig) debian(name string) {
	r.t.Helper()
	testneed.Program(r.t, "debootstrap", "debootstrap")
	if hostMirror() == "" {
		r.t.Skipf("needs a mirror of Debian with the suite %s in this host's apt sources", suite)
	}
	base := filepath.Join(filepath.Dir(r.dir), "base.conf")
	if err := os.WriteFile(base, []byte("lxc.net.0.type = empty\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if _, msg, code := r.do("create", "-t", "debian", "-f", base, name); code != 0 {
		r.t.Fatalf("create: status %d, %s", code, tail(msg, 2000))
	}
}

// bundle makes a container for strake-runtime, which prints its limit of memory.
func (r *lxcRig) bundle(dir string) {
	r.t.Helper()
	config := `{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"user":{"uid":0,"gid":0},
"cwd":"/","args":["/bin/busybox","sh","-c","echo inside; busybox cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"],
"env":["PATH=/bin"]},"mounts":[{"destination":"/proc","type":"proc","source":"proc"},
{"destination":"/sys","type":"sysfs","source":"sysfs"},
{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["ro"]}],
"linux":{"resources":{"memory":{"limit":67108864}},"namespaces":[{"type":"pid"},{"type":"mount"},
{"type":"ipc"},{"type":"uts"},{"type":"network"},{"type":"cgroup"}]}}`
	busybox, err := os.ReadFile("/bin/busybox")
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, "rootfs/bin"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "rootfs/bin/busybox"), busybox, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// boots waits until the systemd of a container that was started says "running".
func (r *lxcRig) boots(name string, began time.Time) {
	r.t.Helper()
	got := ""
	r.until(name, "answer of systemd", func() bool {
		got, _, _ = r.do("attach", name, "--", "systemctl", "is-system-running", "--wait")
		return got != "" && got != "offline\n" // before its bus is there
	})
	if got != "running\n" {
		r.t.Errorf("systemd is %q", got)
		r.t.Log(r.do("attach", name, "--", "systemctl", "--failed", "--no-pager"))
	}
	r.t.Logf("running: %s", time.Since(began).Round(time.Millisecond))
}

// says runs commands in a container and compares what they print.
func (r *lxcRig) says(name string, list []said) {
	r.t.Helper()
	for _, c := range list {
		out, msg, _ := r.do("attach", name, "--", "sh", "-c", c.command)
		if out != c.want {
			r.t.Errorf("%s: %q, want %q (%s)", c.command, out, c.want, msg)
		}
	}
}

// said is a command and what it prints.
type said struct{ command, want string }

// inSystemd are commands that tell that systemd is in a container and well.
var inSystemd = []said{
	{"systemd-detect-virt -c", "lxc\n"},
	{"hostname", "deb\n"},
	{"cat /proc/1/comm", "systemd\n"},
	{
		"systemctl is-active getty@tty1 console-getty systemd-journald dbus",
		"active\nactive\nactive\nactive\n",
	},
	{"systemd-run -q --wait -p MemoryMax=64M true && echo made", "made\n"},
}

// TestLXCDebian boots a Debian with systemd until it says "running", with no unit that failed: as
// the host's root, and with a user namespace, whose users are not the host's. For that a root file
// system is mounted with the container's mappings, or has been shifted.
func TestLXCDebian(t *testing.T) {
	r := newLXCRig(t)
	r.debian("deb")
	idmap := []string{"lxc.idmap = u 0 100000 65536", "lxc.idmap = g 0 100000 65536"}
	inUser := append([]said{
		{"cat /proc/self/uid_map | tr -s ' '", " 0 100000 65536\n"},
		{"stat -c %u / /dev/console /dev/tty1 /etc/shadow", "0\n0\n0\n0\n"},
		{"stat -c '%u %a' /usr/bin/passwd", "0 4755\n"},
	}, inSystemd...)
	copying := filepath.Join(filepath.Dir(r.dir), "copying")
	script := "#!/bin/sh\nfor a; do case $a in --rootfs=*) to=${a#--rootfs=};; esac; done\n" +
		"cp -a " + r.dir + "/deb/rootfs/. $to && sed '/^lxc.\\(rootfs\\|net\\)/d' " + r.dir +
		"/deb/config >>${to%/rootfs}/config\n"
	if err := os.WriteFile(copying, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	r.bundle(filepath.Join(r.dir, "deb/rootfs/bundle"))
	base := filepath.Join(filepath.Dir(r.dir), "mapped.conf")
	conf := strings.Join(append(idmap, "lxc.net.0.type = empty"), "\n") + "\n"
	if err := os.WriteFile(base, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, container string
		define          []string
		says            []said
	}{
		{"privileged", "deb", nil, inSystemd},
		{"idmap", "deb", append([]string{
			"lxc.rootfs.options = idmap=container", "lxc.net.0.type = veth",
			"lxc.net.0.flags = up", "lxc.net.0.ipv4.address = 10.131.7.2/24",
		}, idmap...), append([]said{
			{"ip -o -4 addr show eth0 | tr -s ' ' | cut -d' ' -f4", "10.131.7.2/24\n"},
		}, inUser...)},
		{"shifted", "mapped", nil, inUser},
		{"nested", "deb", []string{
			"lxc.apparmor.allow_nesting = 1", "lxc.mount.auto = cgroup:rw",
			"lxc.mount.auto = proc:rw", "lxc.mount.auto = sys:rw",
			"lxc.mount.entry = " + filepath.Dir(r.program) + "/strake-runtime " +
				"usr/local/bin/strake-runtime none bind,ro,create=file 0 0",
		}, []said{
			{"strake-runtime --root /run/r run -b /bundle ct", "inside\n67108864\n"},
			{"find /sys/fs/cgroup -name strake-runtime-ct", ""},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &lxcRig{t: t, program: r.program, dir: r.dir, run: r.run}
			if c.container == "mapped" {
				r.ok("create", "-t", copying, "-f", base, c.container)
			}
			args := []string{c.container}
			for _, d := range c.define {
				args = append(args, "-s", d)
			}
			if c.container != "deb" {
				args = append(args, "-s", "lxc.uts.name = deb")
			}
			began := time.Now()
			r.ok("start", args...)
			r.boots(c.container, began)
			r.says(c.container, c.says)
			pid := r.ok("info", c.container, "-p", "-H")
			began = time.Now()
			r.ok("stop", "-r", c.container)
			r.until(c.container, "another init", func() bool {
				now, _, code := r.do("info", c.container, "-p", "-H")
				return code == 0 && now != "" && now != pid
			})
			r.boots(c.container, began)
			began = time.Now()
			r.ok("stop", c.container)
			t.Logf("stop: %s", time.Since(began).Round(time.Millisecond))
			if got := r.state(c.container); got != "STOPPED" {
				t.Errorf("state %q", got)
			}
		})
	}
}
