package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
