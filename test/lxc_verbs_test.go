package test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// config adds lines to the configuration of a container.
func (r *lxcRig) config(name string, lines ...string) {
	r.t.Helper()
	file := filepath.Join(r.dir, name, "config")
	raw, err := os.ReadFile(file)
	if err != nil {
		r.t.Fatal(err)
	}
	raw = append(raw, strings.Join(lines, "\n")+"\n"...)
	if err := os.WriteFile(file, raw, 0o640); err != nil {
		r.t.Fatal(err)
	}
}

// define makes a container that is a configuration alone.
func (r *lxcRig) define(name string, lines ...string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Join(r.dir, name), 0o755); err != nil {
		r.t.Fatal(err)
	}
	text := strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(r.dir, name, "config"), []byte(text), 0o640); err != nil {
		r.t.Fatal(err)
	}
}

// TestLXCAutostart selects, orders, starts and stops containers.
func TestLXCAutostart(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("late")
	r.config("late", "lxc.start.auto = 1", "lxc.start.order = 9")
	r.define("alpha", "lxc.start.auto = 1", "lxc.start.order = 5", "lxc.start.delay = 3")
	r.define("beta", "lxc.start.auto = 1", "lxc.start.order = 5", "lxc.group = web", "lxc.group = db")
	r.define("gamma", "lxc.start.auto = 1", "lxc.group = web", "lxc.start.order = 7")
	r.define("manual")
	for _, c := range []struct{ flags, want string }{
		{"-L", "alpha 3\nlate 0\n"},
		{"-L -A", "manual 0\nalpha 3\nlate 0\n"},
		{"-L -a", "alpha 3\nbeta 0\ngamma 0\nlate 0\n"},
		{"-L -g web", "beta 0\ngamma 0\n"},
		{"-L -g web,", "beta 0\ngamma 0\nalpha 3\nlate 0\n"},
		{"-L -g ,db -g web", "alpha 3\nlate 0\nbeta 0\ngamma 0\n"},
		{"-L -s -a", ""},
	} {
		if got := r.ok("autostart", strings.Fields(c.flags)...); got != c.want {
			t.Errorf("lxc-autostart %s: %q, want %q", c.flags, got, c.want)
		}
	}
	// One that fails does not keep the others from starting.
	r.config("alpha", "lxc.rootfs.path = dir:/missing", "lxc.start.delay = 0")
	if _, msg, code := r.do("autostart"); code != 2 || !strings.Contains(msg, "alpha") {
		t.Errorf("status %d, %s; want 2 where one of two fails", code, msg)
	}
	if got := r.state("late"); got != "RUNNING" {
		t.Fatalf("state %q after lxc-autostart", got)
	}
	if _, _, code := r.do("autostart", "-q"); code != 2 {
		t.Errorf("status %d where one fails and one runs, want 2", code)
	}
	if got := r.ok("autostart", "-L", "-s"); got != "late\n" {
		t.Errorf("to be shut down: %q", got)
	}
	// The last to start is the first to stop.
	r.ok("copy", "-a", "late", "-N", "early")
	r.config("early", "lxc.start.order = 1")
	r.ok("start", "early")
	if got := r.ok("autostart", "-L", "-k") + r.ok("autostart", "-L", "-r"); got !=
		"late\nearly\nearly 0\nlate 0\n" {
		t.Errorf("order of stopping, and of rebooting: %q", got)
	}
	r.ok("stop", "-k", "early")
	r.ok("destroy", "early")
	pid := r.ok("info", "late", "-p", "-H")
	r.ok("autostart", "-r")
	r.until("late", "another init", func() bool {
		now, _, code := r.do("info", "late", "-p", "-H")
		return code == 0 && now != "" && now != pid
	})
	r.ok("autostart", "-k")
	if got := r.state("late"); got != "STOPPED" {
		t.Errorf("state %q after lxc-autostart -k", got)
	}
	os.RemoveAll(filepath.Join(r.dir, "late", "rootfs"))
	if _, _, code := r.do("autostart", "-q"); code != 1 {
		t.Errorf("status %d where all fail, want 1", code)
	}
}

// TestLXCDevices gives a container devices of the host, takes them away, and shows and sets files of
// its control group.
func TestLXCDevices(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("box")
	rules := []string{"deny = a"}
	for _, which := range []string{"c *:* m", "c 1:3 rwm", "c 5:* rwm", "c 136:* rwm", "c 4:* rwm"} {
		rules = append(rules, "allow = "+which)
	}
	for _, rule := range rules {
		r.config("box", "lxc.cgroup.devices."+rule, "lxc.cgroup2.devices."+rule)
	}
	if _, msg, code := r.do("cgroup", "box", "cpu.stat"); code != 1 ||
		!strings.Contains(msg, "not running") {
		t.Errorf("status %d, %s", code, msg)
	}
	r.ok("start", "box")

	file, value := "memory.max", "104857600"
	if _, _, code := r.do("cgroup", "box", file); code != 0 {
		file = "memory.limit_in_bytes"
	}
	r.ok("cgroup", "box", file, value)
	if got := r.ok("cgroup", "-n", "box", file); got != value+"\n" {
		t.Errorf("%s: %q", file, got)
	}
	for _, name := range []string{"memory.missing", "../memory.max", "tasks/x.y"} {
		if _, msg, code := r.do("cgroup", "box", name); code != 1 || !strings.Contains(msg, name) {
			t.Errorf("%s: status %d, %s", name, code, msg)
		}
	}

	full := "head -c 1 /dev/some/full | wc -c"
	r.ok("device", "-n", "box", "add", "/dev/full", "/dev/some/full")
	if got := r.ok("attach", "box", "--", "sh", "-c", full); strings.TrimSpace(got) != "1" {
		t.Errorf("the device gives %q", got)
	}
	r.ok("attach", "box", "--", "mknod", "/dev/other", "c", "1", "7")
	r.ok("device", "box", "del", "/dev/full", "/dev/some/full")
	if _, _, code := r.do("attach", "box", "--", "test", "-e", "/dev/some/full"); code == 0 {
		t.Error("the node is still there")
	}
	if _, _, code := r.do("attach", "box", "--", "head", "-c", "1", "/dev/other"); code == 0 {
		t.Error("the device may still be used")
	}

	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "slxtest0"}, PeerName: "slxtest1"}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	defer netlink.LinkDel(pair)
	r.ok("device", "box", "add", "slxtest1", "inner")
	if got := r.ok("attach", "box", "--", "ls", "/sys/class/net"); !strings.Contains(got, "inner") {
		t.Errorf("interfaces: %q", got)
	}
	if _, err := netlink.LinkByName("slxtest1"); err == nil {
		t.Error("the host has the interface still")
	}
	r.ok("device", "box", "del", "inner", "slxtest2")
	if _, err := netlink.LinkByName("slxtest2"); err != nil {
		t.Errorf("the interface has not come back: %v", err)
	}
	for _, args := range [][]string{
		{"add", "/dev/missing"}, {"add", "missing0"}, {"del", "missing0"}, {"add", "/etc/passwd"},
		{"move", "slxtest2"}, {"add"}, {"del", "lo"},
	} {
		if _, msg, code := r.do("device", append([]string{"-n", "box"}, args...)...); code != 1 ||
			msg == "" {
			t.Errorf("lxc-device %q: status %d, %s", args, code, msg)
		}
	}
	r.ok("stop", "-k", "box")
}

// TestLXCTop shows what containers use.
func TestLXCTop(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("aa")
	r.ok("copy", "aa", "-N", "bb")
	r.ok("start", "aa")
	r.ok("start", "bb")
	cmd := r.command("top", "-b", "-d", "1", "-r")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines [][]string
	for s := bufio.NewScanner(out); len(lines) < 5 && s.Scan(); {
		lines = append(lines, strings.Split(s.Text(), ","))
	}
	cmd.Process.Kill()
	cmd.Wait()
	if len(lines) != 5 || lines[0][0] != "time_ms" {
		t.Fatalf("%q", lines)
	}
	for i, want := range []string{"container", "bb", "aa", "bb", "aa"} {
		if len(lines[i]) != 10 || lines[i][1] != want {
			t.Errorf("line %d: %q, want %s", i, lines[i], want)
		}
	}
	const cpu, memory = 2, 7
	for _, line := range lines[1:] {
		if line[cpu] == "0" || line[memory] == "0" {
			t.Errorf("%q: it has used something", line)
		}
	}
	if _, msg, code := r.do("top"); code != 1 || !strings.Contains(msg, "-b") {
		t.Errorf("without a terminal: status %d, %s", code, msg)
	}
	r.ok("stop", "-k", "aa")
	r.ok("stop", "-k", "bb")
}

// TestLXCUnshare executes programs in namespaces of their own.
func TestLXCUnshare(t *testing.T) {
	r := newLXCRig(t)
	// A command has what the caller has, and nothing of what makes this program start fast.
	raw, err := exec.Command("cat", "/proc/self/timerslack_ns").Output()
	if err != nil {
		t.Fatal(err)
	}
	slack := string(raw)
	for _, c := range []struct {
		verb, args, want string
		code             int
	}{
		{"unshare", "-s UTSNAME -H other -- hostname", "other\n", 0},
		{"unshare", "-s PID|MOUNT -M -- sh -c echo_$$;ls_/proc/2_2>&1|wc_-l", "1\n1\n", 0},
		{"unshare", "-s NETWORK sh -c wc_-l</proc/net/dev", "3\n", 0},
		{"unshare", "-s USER -u 77 id -u", "77\n", 0},
		{"unshare", "-s IPC cat /proc/self/timerslack_ns", slack, 0},
		{"usernsexec", "-m b:0:0:1 cat /proc/self/timerslack_ns", slack, 0},
		{"unshare", "-s IPC false", "", 1},
		{"unshare", "-s IPC -H x true", "-H needs -s UTSNAME", 1},
		{"unshare", "-s MOUNTAIN true", "MOUNTAIN", 1},
		{"unshare", "-s IPC", "no command", 1},
		{"unshare", "-s IPC /missing", "/missing", 1},
		{"usernsexec", "-m b:0:100000:10 -- cat /proc/self/uid_map", "100000", 0},
		{"usernsexec", "-m b:0:100000:10 -u 3 -g 4 -- sh -c id_-u;id_-g;exit_5", "3\n4\n", 5},
		{"usernsexec", "-m b:0:100000 true", "want u, g or b", 1},
		{"usernsexec", "-m x:0:1:1 true", "want u, g or b", 1},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "_", " ")
		}
		if strings.Contains(c.args, "uid_map") {
			args[len(args)-1] = "/proc/self/uid_map"
		}
		if strings.Contains(c.args, "timerslack") {
			args[len(args)-1] = "/proc/self/timerslack_ns"
		}
		out, msg, code := r.do(c.verb, args...)
		if code != c.code || !strings.Contains(out+msg, c.want) {
			t.Errorf("lxc-%s %s: status %d, %q, %q; want %d, %q", c.verb, c.args, code, out, msg, c.code,
				c.want)
		}
	}
}
