package test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKeeperEnds stops the engine with and without containers. The keeper goes when neither an
// engine nor a container is left, and what it has seen is there for the next engine.
func TestKeeperEnds(t *testing.T) {
	r := start(t)
	gone := func(pid int) bool {
		_, err := os.Stat("/proc/" + strconv.Itoa(pid))
		return err != nil
	}
	d := &smallDisk{rig: r, t: t}
	first := r.keeper()
	d.term()
	r.until("the keeper ends with the engine", 30*time.Second, func() bool { return gone(first) })
	r.launch()
	r.ok("run", "-d", "--name", "box", "box", "sh", "-c",
		"echo out; trap 'echo bye; exit 9' TERM; while true; do sleep 0.1; done")
	pid := strings.TrimSpace(r.ok("inspect", "-f", "{{.State.Pid}}", "box"))
	second := r.keeper()
	r.kill()
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); runtimeYield() {
		if gone(second) {
			t.Fatal("the keeper ended although a container runs")
		}
	}
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(n)
	if err == nil {
		err = p.Signal(syscall.SIGTERM)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.until("the keeper ends with the last container", 30*time.Second, func() bool {
		return gone(second)
	})
	r.launch()
	if got := r.ok("wait", "box"); got != "9\n" {
		t.Errorf("exit status %q, want 9", got)
	}
	if got := r.ok("logs", "box"); got != "out\nbye\n" {
		t.Errorf("log %q", got)
	}
	r.ok("rm", "box")
}
