package test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestVerbs(t *testing.T) {
	r := start(t)
	eq := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	eq(
		"run",
		r.ok(
			"run", "--rm", "--name", "one", "--hostname", "h", "box", "sh", "-c",
			"hostname; echo $$",
		),
		"h\n1\n",
	)
	eq(
		"image", strings.Fields(r.ok("images", "--format", "{{.Repository}}:{{.Tag}}"))[0],
		"box:latest",
	)
	id := strings.TrimSpace(
		r.ok(
			"run", "-d", "--name", "web", "-e", "A=b", "-w", "/tmp", "-m", "32m", "--pids-limit",
			"30", "--label", "k=v", "box", "sh", "-c", "echo out; echo err >&2; exec sleep 1000",
		),
	)
	eq(
		"ps", r.ok("ps", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"),
		id+" web running\n",
	)
	eq("ps filter", r.ok("ps", "-q", "--no-trunc", "--filter", "label=k=v"), id+"\n")
	eq("exec", r.ok("exec", "-e", "C=d", "web", "sh", "-c", "echo $A $C; pwd"), "b d\n/tmp\n")
	eq("exec -u", r.ok("exec", "-u", "5:6", "web", "id", "-u"), "5\n")
	// CVE-2016-3697: a user whose name is a number.
	eq("exec -u 1000", r.ok("exec", "-u", "1000", "web", "id", "-u"), "1000\n")
	r.until("the log", 5*time.Second, func() bool {
		got := r.docker("logs", "web")
		return got.out == "out\n" && got.err == "err\n"
	})
	eq(
		"inspect",
		r.ok(
			"inspect", "-f", "{{.State.Status}} {{.HostConfig.Memory}} {{.Config.WorkingDir}}",
			"web",
		),
		"running 33554432 /tmp\n",
	)
	if got := r.ok(
		"stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}",
	); !strings.HasPrefix(got, "web ") || !strings.Contains(got, "/ 32MiB 1") {
		t.Errorf("stats: got %q, want 1 process below 32MiB", got)
	}
	if got := r.ok("top", "web"); !strings.Contains(got, "sleep 1000") {
		t.Errorf("top: got %q", got)
	}
	r.ok("pause", "web")
	eq("paused", r.ok("ps", "--format", "{{.State}}"), "paused\n")
	r.ok("unpause", "web")
	r.ok("rename", "web", "web2")
	r.ok("restart", "-t", "0", "web2")
	eq("restarted", r.ok("ps", "--format", "{{.Names}} {{.State}}"), "web2 running\n")
	r.ok("stop", "-t", "0", "web2")
	eq("stopped", r.ok("ps", "-a", "--format", "{{.State}}"), "exited\n")
	r.ok("start", "web2")
	r.ok("kill", "-s", "KILL", "web2") // PID 1 has no handler for TERM
	eq("wait", r.ok("wait", "web2"), "137\n")
	r.ok("rm", "web2")
	eq("create", r.ok("ps", "-aq"), "")
	r.ok("create", "--name", "later", "box", "echo", "started")
	eq("start -a", r.ok("start", "-a", "later"), "started\n")
	eq("diff", r.ok("diff", "later"), "")
	r.ok("rm", "later")
	r.ok("tag", "box", "other:tag")
	r.ok("rmi", "other:tag")
	r.ok("history", "box")
	saved := filepath.Join(r.dir, "box.tar")
	r.ok("save", "-o", saved, "box")
	r.ok("rmi", "box")
	r.ok("load", "-i", saved)
	eq("loaded", r.ok("run", "--rm", "box", "echo", "again"), "again\n")
	r.ok("version")
	r.ok("info")
	r.ok("system", "df")
	r.ok("volume", "create", "vol")
	r.ok("run", "--rm", "-v", "vol:/v", "box", "sh", "-c", "echo kept > /v/f")
	eq("volume", r.ok("run", "--rm", "-v", "vol:/v:ro", "box", "cat", "/v/f"), "kept\n")
	r.ok("volume", "rm", "vol")
	eq(
		"tmpfs and read-only",
		r.docker(
			"run", "--rm", "--read-only", "--tmpfs", "/tmp", "box", "sh", "-c",
			"touch /tmp/a && touch /b",
		).err,
		"touch: /b: Read-only file system\n",
	)
	eq("init", r.ok("run", "--rm", "--init", "box", "sh", "-c", "echo $$"), "2\n")
}

// TestNetwork sends packets: between containers by name, from this host to a published port, and
// from a shared namespace.
func TestNetwork(t *testing.T) {
	r := start(t)
	r.ok(
		"run", "-d", "--name", "web", "-p", "127.0.0.1:0:80", "box", "sh", "-c",
		`while true; do printf 'HTTP/1.0 200 OK\r\n\r\nhello\n' | nc -l -p 80; done`,
	)
	addr := strings.TrimSpace(r.ok("port", "web", "80"))
	get := func(url string) string {
		resp, err := (&http.Client{Timeout: 5 * time.Second}).Get(url)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
	r.until("the published port", 10*time.Second, func() bool {
		return get("http://"+addr) == "hello\n"
	})
	if got := r.ok("run", "--rm", "box", "wget", "-qO-", "http://web"); got != "hello\n" {
		t.Errorf("by name: %q", got)
	}
	if got := r.ok(
		"run", "--rm", "--network", "container:web", "box", "wget", "-qO-", "http://127.0.0.1",
	); got != "hello\n" {
		t.Errorf("in the same namespace: %q", got)
	}
	if got := r.ok(
		"run", "--rm", "--network", "none", "box", "sh", "-c", "ip -o link | wc -l",
	); got != "1\n" {
		t.Errorf("no network: %q interfaces", got)
	}
	r.ok("network", "create", "apart")
	if got := r.docker(
		"run", "--rm", "--network", "apart", "box", "wget", "-T", "2", "-qO-", "http://web",
	); got.code == 0 {
		t.Errorf("from another network: %q", got.out)
	}
	r.ok("network", "rm", "apart")
	r.ok("rm", "-f", "web")
}

// TestEngineKilled kills the engine ten times while containers write: no container stops, no line
// is missing, every exit status is right. Then it kills the keeper.
func TestEngineKilled(t *testing.T) {
	const containers, count = 50, 1000
	r := start(t)
	for i := range containers {
		r.ok("run", "-d", "--name", "c"+strconv.Itoa(i), "--network", "none", "box", "sh", "-c",
			fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i; [ $((i%%100)) = 0 ] && sleep 1; done; exit %d", count, i%5))
	}
	for range 10 {
		r.kill()
		r.launch()
	}
	for i := range containers {
		name := "c" + strconv.Itoa(i)
		if got, want := strings.TrimSpace(r.ok("wait", name)), strconv.Itoa(i%5); got != want {
			t.Errorf("%s: exit status %s, want %s", name, got, want)
		}
		if got, want := r.ok("logs", name), lines("line ", count); got != want {
			t.Errorf("%s: %d bytes of log, want %d", name, len(got), len(want))
		}
		if got := r.ok("inspect", "-f", "{{.RestartCount}}", name); got != "0\n" {
			t.Errorf("%s: restarted %s", name, got)
		}
	}
	r.ok(
		"run", "-d", "--name", "survivor", "box", "sh", "-c",
		"trap 'exit 9' TERM; while true; do sleep 0.1; done",
	)
	pid := r.ok("inspect", "-f", "{{.State.Pid}}", "survivor")
	old := r.keeper()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.until("a new keeper", 20*time.Second, func() bool {
		return r.docker("exec", "survivor", "true").code == 0
	})
	if now := r.ok("inspect", "-f", "{{.State.Pid}}", "survivor"); now != pid || r.keeper() == old {
		t.Errorf("the container changed from pid %s to %s", pid, now)
	}
	r.ok("kill", "-s", "TERM", "survivor")
	if got := strings.TrimSpace(r.ok("wait", "survivor")); got != "9" {
		t.Errorf("survivor: exit status %s, want 9", got)
	}
}

// TestUpgrade replaces the installed program under a running container: the next engine makes the
// keeper become the new one in place.
func TestUpgrade(t *testing.T) {
	r := start(t)
	r.ok(
		"run", "-d", "--name", "steady", "box", "sh", "-c",
		"trap 'echo bye; exit 9' TERM; i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done",
	)
	pid, keeper := r.ok("inspect", "-f", "{{.State.Pid}}", "steady"), r.keeper()
	bin := filepath.Join(r.dir, "bin")
	if err := os.CopyFS(bin, os.DirFS(r.bin)); err != nil {
		t.Fatal(err)
	}
	r.kill()
	r.bin = bin
	r.launch()
	if r.keeper() != keeper {
		t.Errorf("keeper %d, was %d", r.keeper(), keeper)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", keeper))
	if err != nil || exe != filepath.Join(bin, "strake-runtime") {
		t.Errorf("the keeper runs %s: %v", exe, err)
	}
	if now := r.ok("inspect", "-f", "{{.State.Pid}}", "steady"); now != pid {
		t.Errorf("the container changed from pid %s to %s", pid, now)
	}
	r.ok("exec", "steady", "true")
	r.ok("stop", "steady")
	if got := strings.TrimSpace(r.ok("wait", "steady")); got != "9" {
		t.Errorf("exit status %s, want 9", got)
	}
	logged := strings.Split(strings.TrimSpace(r.ok("logs", "steady")), "\n")
	for i, line := range logged[:len(logged)-1] {
		if want := fmt.Sprintf("line %d", i+1); line != want {
			t.Fatalf("line %d of the log is %q", i+1, line)
		}
	}
	if last := logged[len(logged)-1]; last != "bye" {
		t.Errorf("the log ends with %q", last)
	}
}
