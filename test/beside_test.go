package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEnginesSideBySide runs two engines with roots of their own, with containers of the same name,
// and takes one down while the other works.
func TestEnginesSideBySide(t *testing.T) {
	one, two := start(t), start(t)
	ids := map[*rig]string{}
	for _, r := range []*rig{one, two} {
		ids[r] = strings.TrimSpace(
			r.ok(
				"run", "-d", "--name", "same", "--hostname", "same", "box", "sh", "-c",
				"while :; do sleep 0.1; done",
			),
		)
	}
	for _, r := range []*rig{one, two} {
		if got := strings.Fields(r.ok("ps", "-q", "--no-trunc")); len(got) != 1 ||
			got[0] != ids[r] {
			t.Errorf("containers of an engine: %q, want %q", got, ids[r])
		}
	}
	const address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
	if a, b := one.ok("inspect", "-f", address, "same"), two.ok(
		"inspect", "-f", address, "same",
	); a == b {
		t.Errorf("both containers have the address %s", a)
	}
	// Everything of one goes, the way it does with system uninstall; nothing of the other does.
	if out, err := exec.Command(
		filepath.Join(one.bin, "straked"), one.roots("--teardown")...,
	).CombinedOutput(); err != nil {
		t.Fatalf("teardown: %v\n%s", err, out)
	}
	if got := two.ok(
		"inspect", "-f", "{{.State.Running}}", "same",
	); strings.TrimSpace(got) != "true" {
		t.Errorf("the other engine's container is running: %s", got)
	}
	if got := two.ok("exec", "same", "sh", "-c", "hostname; ip route | wc -l"); !strings.HasPrefix(
		got, "same\n",
	) || strings.HasSuffix(got, "\n0\n") {
		t.Errorf("inside the other engine's container: %q", got)
	}
	two.ok("run", "--rm", "box", "true")
}

// TestUninstall installs the built programs, and uninstalls them under a running engine with a
// running container.
func TestUninstall(t *testing.T) {
	r := start(t)
	r.ok("run", "-d", "--name", "running", "box", "sleep", "1000")
	prefix := filepath.Join(r.dir, "prefix")
	if out, err := exec.Command("../scripts/install", r.bin, prefix).CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	keeper := r.keeper()
	cmd := exec.Command(
		filepath.Join(prefix, "bin/strake"), "system", "uninstall", "--yes", "--data-root",
		filepath.Join(r.dir, "data"), "--exec-root", filepath.Join(r.dir, "run"),
	)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("uninstall: %v\n%s", err, out)
	}
	for _, gone := range []string{
		prefix, filepath.Join(r.dir, "data"), filepath.Join(r.dir, "run"), r.socket(),
	} {
		if _, err := os.Lstat(gone); err == nil {
			t.Errorf("%s is still there\n%s", gone, out)
		}
	}
	r.until("the keeper ends", 10*time.Second, func() bool {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", keeper)) // empty once it has ended
		return len(raw) == 0
	})
}
