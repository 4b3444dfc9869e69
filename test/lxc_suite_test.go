package test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"strake/internal/testneed"
)

// What LXC's own tests (scripts/conformance-lxc) rely on beside what the verbs do.

// made makes a container of busybox with lines before and after those of the template.
func (r *lxcRig) made(name, before, after string) {
	r.t.Helper()
	base := filepath.Join(filepath.Dir(r.dir), name+".conf")
	if err := os.WriteFile(base, []byte(before), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.ok("create", "-q", "-t", "busybox", "-f", base, name)
	file, err := os.OpenFile(filepath.Join(r.dir, name, "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(after); err != nil {
		r.t.Fatal(err)
	}
}

// TestLXCSuiteAddress shows that a container that is made has its hardware address for good.
func TestLXCSuiteAddress(t *testing.T) {
	r := newLXCRig(t)
	r.made("one", "lxc.net.0.type = empty\nlxc.net.0.hwaddr = 10:66:6a:xx:xx:xx\n", "")
	got := r.ok("info", "-n", "one", "-H", "-c", "lxc.net.0.hwaddr")
	if !regexp.MustCompile(`^10:66:6a(:[0-9a-f]{2}){3}\n$`).MatchString(got) {
		t.Errorf("address %q, want one that is complete", got)
	}
	if again := r.ok("info", "-n", "one", "-H", "-c", "lxc.net.0.hwaddr"); again != got {
		t.Errorf("address %q, then %q", got, again)
	}
}

// TestLXCSuiteInfo shows when lxc-info prints values alone.
func TestLXCSuiteInfo(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("one")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-c", "lxc.uts.name"}, "lxc.uts.name = one\n"},
		{[]string{"-H", "-c", "lxc.uts.name"}, "one\n"},
		{[]string{"-H", "-c", "lxc.mount.fstab"}, "\n"},
		{[]string{"-c", "lxc.mount.fstab"}, "lxc.mount.fstab =\n"},
		{
			[]string{"-H", "-c", "lxc.uts.name", "-c", "lxc.tty.max"},
			"lxc.uts.name = one\nlxc.tty.max = 1\n",
		},
		{[]string{"-s"}, "State:          STOPPED\n"},
		{[]string{"-H", "-s"}, "STOPPED\n"},
		{[]string{"-H", "-s", "-p"}, "State:          STOPPED\n"},
		{[]string{"-H"}, "Name:           one\nState:          STOPPED\n"},
	} {
		if got := r.ok("info", append([]string{"-n", "one"}, c.args...)...); got != c.want {
			t.Errorf("lxc-info %q: %q, want %q", c.args, got, c.want)
		}
	}
}

// TestLXCSuiteLook shows what lxc-ls and lxc-info say of a container that runs.
func TestLXCSuiteLook(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("one")
	ls := []string{"-f", "-F", "name,state,pid,swap,interface"}
	if got := strings.Join(strings.Fields(r.ok("ls", ls...)), " "); got !=
		"NAME STATE PID SWAP INTERFACE one STOPPED - - -" {
		t.Errorf("lxc-ls of a stopped one: %q", got)
	}
	r.ok("start", "one")
	f := strings.Fields(r.ok("ls", ls...))
	if len(f) != 10 || f[6] != "RUNNING" || f[8] != "0.00MB" || f[9] != "lo" {
		t.Errorf("lxc-ls of one that runs: %q", f)
	}
	stats := r.ok("info", "-n", "one", "-S", "-H")
	if !regexp.MustCompile(`(?m)^KMem use: {7}[1-9]`).MatchString(stats) {
		t.Errorf("lxc-info -S -H: %s", stats)
	}
}

// TestLXCSuitePrivileges shows that an ordinary user in a container of busybox has the programs
// that need root's privileges, unless the configuration forbids new ones.
func TestLXCSuitePrivileges(t *testing.T) {
	r := newLXCRig(t)
	const empty = "lxc.net.0.type = empty\n"
	r.made("plain", empty, "")
	r.made("strict", empty, "lxc.no_new_privs = 1\n")
	ping := strings.Fields("--clear-env --uid 1000 --gid 1000 -- ping -c 1 127.0.0.1")
	for name, want := range map[string]bool{"plain": true, "strict": false} {
		r.ok("start", name)
		out, msg, code := r.do("attach", append([]string{"-n", name}, ping...)...)
		if works := code == 0; works != want {
			t.Errorf("ping in %s: status %d, %s%s", name, code, out, msg)
		}
	}
}

// TestLXCSuiteTerminals attaches several times at once to a container that may have one terminal.
func TestLXCSuiteTerminals(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("one")
	if got := r.ok("info", "one", "-H", "-c", "lxc.pty.max"); got != "1\n" {
		t.Fatalf("lxc.pty.max is %q, the test is about 1", got)
	}
	r.ok("start", "one")
	var open []*terminal
	for range 5 {
		shell := onTerminal(t, r.command("attach", "-n", "one", "--", "sh"), 80, 24)
		shell.write("tty; echo a-$((40+2))\r")
		shell.expect("a-42")
		open = append(open, shell)
	}
	for _, shell := range open {
		shell.write("exit 3\r")
		if code := shell.ends(); code != 3 {
			t.Errorf("status %d of a shell that exits with 3", code)
		}
	}
}

// asUser has a command executed by an ordinary user, from a place where that user may.
func (r *lxcRig) asUser(cmd *exec.Cmd) (out, msg string, code int) {
	r.t.Helper()
	raw, err := os.ReadFile(r.program)
	if err != nil {
		r.t.Fatal(err)
	}
	copied := filepath.Join(filepath.Dir(r.dir), "strake-lxc")
	if err := os.WriteFile(copied, raw, 0o755); err != nil {
		r.t.Fatal(err)
	}
	// The directories of the rig are root's alone.
	if err := os.Chmod(filepath.Dir(r.dir), 0o755); err != nil {
		r.t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	const nobody = 65534
	cmd.Path, cmd.Dir, cmd.Stdout, cmd.Stderr = copied, "/", &stdout, &stderr
	cmd.Env = append(os.Environ(), "HOME=/nonexistent")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
	}
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// TestLXCSuiteUser shows what an ordinary user is told.
func TestLXCSuiteUser(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("one")
	for _, dir := range []string{r.dir, filepath.Join(r.dir, "one")} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, msg, code := r.asUser(r.command("start", "-n", "one"))
	if code != 1 || !strings.Contains(msg, "root's") {
		t.Errorf("status %d, %s", code, msg)
	}
}

// TestLXCSuiteUserMap has an ordinary user's own IDs mapped by newuidmap(1), which refuses others.
func TestLXCSuiteUserMap(t *testing.T) {
	r := newLXCRig(t)
	testneed.Program(t, "newuidmap", "uidmap")
	for _, c := range []struct{ uid, gid, script, out, msg string }{
		{"u:0:65534:1", "g:0:65534:1", "echo $(id -u) $(id -g)", "0 0\n", ""},
		{"u:0:65534:1", "g:0:65534:1", "mount -t tmpfs x /mnt && echo mounted", "mounted\n", ""},
		{"u:0:0:1", "g:0:65534:1", "id -u", "", "newuidmap"},
		{"u:0:65534:1", "g:0:0:1", "id -u", "", "newgidmap"},
	} {
		out, msg, _ := r.asUser(
			r.command(
				"usernsexec", "-m", c.uid, "-m", c.gid, "--", "/bin/busybox", "sh", "-c", c.script,
			),
		)
		if out != c.out || !strings.Contains(msg, c.msg) {
			t.Errorf("%s %s: %q, want %q; %s", c.uid, c.gid, out, c.out, msg)
		}
	}
}

// TestLXCSuiteHalt halts a container of busybox whose directory is a file system of its own. Its
// init must not make that read-only: a container's root is a part of the host's file system.
func TestLXCSuiteHalt(t *testing.T) {
	r := newLXCRig(t)
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", r.dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(r.dir, 0); err != nil {
			t.Error(err)
		}
	})
	r.busybox("one")
	r.ok("start", "one")
	r.ok("stop", "one")
	if err := os.WriteFile(filepath.Join(r.dir, "file"), nil, 0o600); err != nil {
		t.Errorf("after the halt: %v", err)
	}
	// Its terminals are of the host's devpts.
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("a terminal after the halt: %v", err)
	}
	master.Close()
	r.ok("destroy", "one")
}

// TestLXCSuiteAnswers shows statuses and outputs that are LXC's.
func TestLXCSuiteAnswers(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("one")
	for _, c := range []struct {
		verb string
		args []string
		out  string
		code int
	}{
		{"stop", []string{"-n", "none"}, "", 2},
		{"stop", []string{"-n", "one"}, "", 2},
		{"start", []string{"-n", "none"}, "", 1},
		{"start", []string{"-n", "one"}, "", 0},
		{"start", []string{"-n", "one"}, "", 0},
		{"execute", []string{"-n", "one", "--", "true"}, "", 1},
		{"destroy", []string{"-n", "one"}, "", 1},
		{"attach", []string{"one", "pwd"}, "/tmp\n", 0},
		{"attach", []string{"one", "--", "sh", "-c", "exit 7"}, "", 7},
		{"attach", []string{"one", "--", "sh", "-c", "kill -9 $$"}, "", 137},
		{"attach", []string{"one", "--", "nosuch"}, "", 127},
		{"attach", []string{"one", "--", "/etc/passwd"}, "", 126},
		{
			"attach", []string{"-n", "one", "--clear-env", "-v", "X=1", "--", "env"},
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nX=1\n" +
				"container=lxc\n", 0,
		},
		{"attach", []string{"-n", "one", "-s", "UTSNAME|NETWORK", "--", "hostname"}, "one\n", 0},
		{"attach", []string{"-n", "one", "-s", "MOUNT", "--", "cat", "/etc/hostname"}, "one\n", 0},
		{
			"attach", []string{"one", "-s", "MOUNT|PID", "--", "sh", "-c", "kill -0 1 && exit 4"},
			"", 4,
		},
		{"attach", []string{"one", "-s", "UTSNAME", "--", "hostname"}, "one\n", 0},
		{"attach", []string{"-n", "one", "-s", "PID", "--", "sh", "-c", "kill -9 $$"}, "", 137},
		{"attach", []string{"-n", "one", "-s", "NOSUCH", "--", "true"}, "", 1},
		{"stop", []string{"-n", "one", "-k"}, "", 0},
		{"destroy", []string{"-n", "one"}, "", 0},
	} {
		cmd := r.command(c.verb, c.args...)
		cmd.Dir = "/tmp"
		var msg bytes.Buffer
		cmd.Stderr = &msg
		out, _ := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); code != c.code || string(out) != c.out {
			t.Errorf(
				"lxc-%s %q: status %d, %q, want %d, %q; %s", c.verb, c.args, code, out, c.code,
				c.out, msg.String(),
			)
		}
	}
	if got := r.ok("config", "-l"); !strings.Contains(got, "lxc.lxcpath\n") {
		t.Errorf("lxc-config -l: %q", got)
	}
}
