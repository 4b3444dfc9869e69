package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// stats are the limits that events --stats shows.
func (r *ociRig) limits(id string) (memory, pids uint64) {
	r.t.Helper()
	var event struct {
		Data struct {
			Memory struct{ Usage struct{ Limit uint64 } }
			Pids   struct{ Limit uint64 }
		}
	}
	if err := json.Unmarshal([]byte(r.ok("events", "--stats", id)), &event); err != nil {
		r.t.Fatal(err)
	}
	return event.Data.Memory.Usage.Limit, event.Data.Pids.Limit
}

// TestRuntimeUpdate: options may stand behind the container's ID, and sizes have suffixes, as with
// runc.
func TestRuntimeUpdate(t *testing.T) {
	r := newOCIRig(t)
	r.write(shell("sleep 1000"))
	r.ok("run", "c", "-d")
	r.ok("update", "c", "--memory", "50M", "--pids-limit=77")
	if memory, pids := r.limits("c"); memory != 50<<20 || pids != 77 {
		t.Errorf("memory %d, pids %d", memory, pids)
	}
	r.ok("update", "--pids-limit", "78", "c", "--memory", "33554432")
	if memory, pids := r.limits("c"); memory != 32<<20 || pids != 78 {
		t.Errorf("memory %d, pids %d", memory, pids)
	}
	if got := r.do("update", "c", "--memory", "50X"); got.code != 1 ||
		!strings.Contains(got.err, "50X") {
		t.Errorf("a size that is none: %+v", got)
	}
	if got := r.do("update", "--pids-limit", "78", "--", "c", "--memory", "1"); got.code != 1 {
		t.Errorf("words behind --: %+v", got)
	}
	if got := r.ok("exec", "c", "echo", "-n", "x"); got != "x" {
		t.Errorf("the arguments of a command are its own: %q", got)
	}
	r.ok("delete", "c", "--force")
}

// TestRuntimeWords: engines tell from the words of an error what exit status a command gets.
func TestRuntimeWords(t *testing.T) {
	r := newOCIRig(t)
	if err := os.WriteFile(filepath.Join(r.rootfs, "etc/text"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ program, want string }{
		{"nothing", "executable file not found in $PATH"},
		{"/nothing", "no such file or directory"},
		{"/etc/text", "permission denied"},
		{"/etc", "permission denied"},
	} {
		r.write(func(config map[string]any) {
			config["process"].(map[string]any)["args"] = []string{c.program}
		})
		for _, verb := range []string{"run", "create"} {
			log := filepath.Join(r.dir, "log")
			got := r.do("--log", log, "--log-format", "json", verb, "c")
			raw, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			os.Remove(log)
			var entry struct{ Level, Msg string }
			if err := json.Unmarshal(raw, &entry); err != nil || entry.Level != "error" ||
				!strings.Contains(entry.Msg, c.want) || !strings.Contains(entry.Msg, c.program) {
				t.Errorf("%s %s: log %q, %v", verb, c.program, raw, err)
			}
			if got.code != 1 || !strings.Contains(got.err, c.want) {
				t.Errorf("%s %s: %+v", verb, c.program, got)
			}
		}
		r.write(shell("sleep 1000"))
		r.ok("run", "-d", "c")
		if got := r.do("exec", "c", c.program); got.code != 255 ||
			!strings.Contains(got.err, c.want) {
			t.Errorf("exec %s: %+v", c.program, got)
		}
		r.ok("delete", "--force", "c")
	}
}

// TestRuntimeWarns: a capability that does not exist is left out with a warning, on standard error
// or, if there is one, in the log.
func TestRuntimeWarns(t *testing.T) {
	r := newOCIRig(t)
	r.write(func(config map[string]any) {
		shell("echo ran; sleep 1000")(config)
		caps := config["process"].(map[string]any)["capabilities"].(map[string]any)
		caps["bounding"] = append(caps["bounding"].([]any), "CAP_NONSENSE")
	})
	log := filepath.Join(r.dir, "log")
	got := r.do("--log", log, "--log-format", "json", "run", "-d", "c")
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var entry struct{ Level, Msg string }
	if err := json.Unmarshal(raw, &entry); err != nil || entry.Level != "warning" ||
		!strings.Contains(entry.Msg, "CAP_NONSENSE") || got.code != 0 || got.err != "" {
		t.Errorf("%+v, log %q, %v", got, raw, err)
	}
	got = r.do("exec", "--cap", "CAP_FOO", "c", "true")
	if got.code != 0 || strings.Count(got.err, "CAP_FOO") != 1 {
		t.Errorf("exec: %+v", got)
	}
	r.ok("delete", "--force", "c")
}

// TestRuntimeTerminal runs containers with a terminal from a shell on a terminal.
func TestRuntimeTerminal(t *testing.T) {
	r := newOCIRig(t)
	inTerminal := func(script string) {
		r.write(func(config map[string]any) {
			shell(script)(config)
			config["process"].(map[string]any)["terminal"] = true
		})
	}
	onShell := func(script string) *terminal {
		cmd := exec.Command("/bin/sh", "-m", "-c", script)
		cmd.Dir = r.bundle
		cmd.Env = append(os.Environ(), "RUN="+r.program+" --root "+r.root+" run c")
		return onTerminal(t, cmd, 80, 24)
	}

	// What goes to a file has no carriage returns, what is shown has.
	inTerminal("echo one; echo two")
	file := filepath.Join(r.dir, "file")
	p := onShell("$RUN > " + file)
	if code := p.ends(); code != 0 {
		t.Errorf("exit status %d: %s", code, p.screen.String())
	}
	if raw, err := os.ReadFile(file); err != nil || string(raw) != "one\ntwo\n" {
		t.Errorf("got %q, %v", raw, err)
	}
	p = onShell("$RUN")
	p.expect("one\r\ntwo\r\n")
	p.ends()

	// A process in the background writes, and lets the terminal and what is typed be; brought to
	// the foreground it reads.
	inTerminal("echo begun; read line; echo got $line; exit 5")
	p = onShell("$RUN & read x; fg %1; echo status $?")
	p.expect("begun")
	p.write("for the shell\n")
	p.expect("RUN") // fg shows the command
	p.write("for the container\r")
	p.expect("got for the container\r\n")
	p.expect("status 5")
	p.ends()
}

// TestRuntimeMissingRoot: a list of a directory that is not there is an error.
func TestRuntimeMissingRoot(t *testing.T) {
	r := newOCIRig(t)
	if got := r.do("list"); got.code != 1 || !strings.Contains(got.err, r.root) {
		t.Errorf("list of a missing directory: %+v", got)
	}
	if err := os.Mkdir(r.root, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := r.do("list", "-q"); got.code != 0 || got.out != "" {
		t.Errorf("list of an empty directory: %+v", got)
	}
}

// TestRuntimePrivileged lists devices that /dev has, mounts a tmpfs with a copy of what the image
// has, and has no HOME: what podman and dockerd make of --privileged and --read-only.
func TestRuntimePrivileged(t *testing.T) {
	r := newOCIRig(t)
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "tmp/kept": "kept\n",
	} {
		if err := os.WriteFile(filepath.Join(r.rootfs, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r.write(func(config map[string]any) {
		shell("echo $HOME; cat /tmp/kept; echo x > /tmp/new && cat /tmp/new; " +
			"busybox readlink /dev/ptmx; cat /sys/class/net/lo/flags; echo 1 > /new")(config)
		config["root"].(map[string]any)["readonly"] = true
		config["mounts"] = append(config["mounts"].([]any), map[string]any{
			"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
			"options": []string{"rw", "rprivate", "nosuid", "nodev", "tmpcopyup"},
		})
		config["linux"].(map[string]any)["devices"] = []map[string]any{
			{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
			{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
		}
	})
	got := r.do("run", "c")
	if want := "/root\nkept\nx\npts/ptmx\n0x9\n"; got.out != want ||
		!strings.Contains(got.err, "ead-only") {
		t.Errorf("got %+v, want %q", got, want)
	}
}
