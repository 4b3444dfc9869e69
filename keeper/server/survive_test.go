package server

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/keeper"
)

// counting prints numbered lines without starting another process.
func counting(lines int) string {
	return fmt.Sprintf(
		"i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done; echo end >&2; exit 3", lines,
	)
}

// Engines come and go while containers write: nothing is lost.
func TestReconnect(t *testing.T) {
	r := newRig(t)
	const rounds, each, lines = 10, 5, 1000
	var ids []string
	for round := range rounds {
		for i := range each {
			id := fmt.Sprintf("p%d.%d", round, i)
			ids = append(ids, id)
			r.start(r.request(id, counting(lines))).Close()
		}
		r.disconnect()
		r.connect()
	}
	want := numbered(lines)
	for _, id := range ids {
		if e := r.exit(id); e.Code() != 3 {
			t.Errorf("%s: exit %+v", id, e)
		}
		r.streamsClosed(id)
		if got := logged(t, r.logPath(id), "stdout"); got != want {
			t.Errorf("%s: %d bytes of log, want %d", id, len(got), len(want))
		}
		if got := logged(t, r.logPath(id), "stderr"); got != "end\n" {
			t.Errorf("%s: stderr %q", id, got)
		}
	}
}

// An exit is remembered until it is forgotten, by every connection and by the next keeper.
func TestExitsAreRemembered(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{"kept", "forgotten"} {
		r.start(r.request(id, "exit 6"))
		r.exit(id)
		r.streamsClosed(id)
	}
	if err := r.Forget(r.ctx(), "forgotten"); err != nil {
		t.Fatal(err)
	}
	if _, err := keeper.StartProcess(&r.launch); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a second keeper at the same socket: %v", err)
	}
	if err := r.Shutdown(r.ctx(), keeper.IfIdle); err != nil {
		t.Fatal(err)
	}
	r.disconnect()
	if _, err := r.process.Wait(); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	clear(r.exits)
	r.mu.Unlock()
	r.begin()
	if e := r.exit("kept"); e.Code() != 6 {
		t.Errorf("exit %+v", e)
	}
	list, err := r.List(r.ctx())
	if err != nil || len(list) != 1 || list[0].ID != "kept" || list[0].Exit.Code() != 6 {
		t.Errorf("list %v, %v", list, err)
	}
	if err := r.Forget(r.ctx(), "kept"); err != nil {
		t.Error(err)
	}
}

func TestShutdownRefused(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "read x")
	req.Stdio.Stdin = true
	p := r.start(req)
	if err := r.Shutdown(r.ctx(), keeper.IfIdle); !errdefs.IsFailedPrecondition(err) ||
		!strings.Contains(err.Error(), "among them a") {
		t.Errorf("got %v", err)
	}
	if err := r.process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := r.process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if list, err := r.List(r.ctx()); err != nil || len(list) != 1 ||
		list[0].State != keeper.Running {
		t.Errorf("list %v, %v", list, err)
	} else {
		list[0].Close()
	}
	p.Close()
}

// A keeper is killed; its containers do not notice, and the next one goes on with them.
func TestKeeperKilled(t *testing.T) {
	for _, tc := range []struct {
		name      string
		subreaper uintptr
	}{{"the engine is the parent and does not reap", 1}, {"init is the parent", 0}} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			var adopted []int
			if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, tc.subreaper, 0, 0, 0); err != nil {
				t.Fatal(err)
			}
			defer func() {
				unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
				for _, pid := range adopted { // they are nobody else's to reap
					unix.Wait4(pid, nil, unix.WNOHANG, nil)
				}
			}()
			r.start(r.request("before", "exit 2"))
			r.exit("before")
			r.streamsClosed("before")
			const script = `while read x; do echo "got $x"; done; exit 5`
			req := r.request("pipes", script)
			req.Stdio.Stdin = true
			pipes := r.start(req)
			tty := r.start(&keeper.StartRequest{
				ID: "tty", Kind: keeper.KindExec, Note: "of pipes",
				Stdio: keeper.Stdio{Mode: keeper.StdioTTY},
				Image: image(t, func(b *program.Builder) {
					terminal(b, b.Input("tty"), "stty -echo; echo ready; "+script)
				}),
				Log: keeper.LogConfig{Driver: keeper.LogJSONFile, Path: r.logPath("tty")},
			})
			req = r.request("meanwhile", "read x; echo bye; exit 9")
			req.Stdio.Stdin = true
			meanwhile := r.start(req)
			say := func(p *keeper.Process, text string) {
				t.Helper()
				in, err := p.Input()
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				if _, err := in.WriteString(text); err != nil {
					t.Fatal(err)
				}
			}
			waitForLog(t, r.logPath("tty"), "ready\r\n")
			say(pipes, "one\n")
			say(tty, "one\n")
			waitForLog(t, r.logPath("pipes"), "got one\n")
			waitForLog(t, r.logPath("tty"), "got one\r\n")

			if err := r.process.Kill(); err != nil {
				t.Fatal(err)
			}
			if _, err := r.process.Wait(); err != nil {
				t.Fatal(err)
			}
			<-r.Done()
			r.disconnect()
			say(pipes, "two\n")
			say(tty, "two\n")
			say(meanwhile, "\n")
			dead(t, meanwhile)

			r.begin()
			if e := r.exit("before"); e.Code() != 2 {
				t.Errorf("exit before the death: %+v", e)
			}
			out := newReader(t)
			for _, p := range []*keeper.Process{pipes, tty, meanwhile} {
				var at []keeper.Attachment
				if p == pipes {
					at = append(at, keeper.Attachment{Stdout: out.give})
				}
				got, err := r.Adopt(r.ctx(), p, at...)
				if err != nil {
					t.Fatal(err)
				}
				if !got.Adopted || got.Note != p.Note || got.Kind != p.Kind || got.Pid != p.Pid {
					t.Errorf("adopted %+v", got)
				}
				got.Close()
				adopted = append(adopted, p.Pid)
			}
			if got, err := r.Adopt(r.ctx(), pipes); err != nil || got.Pid != pipes.Pid {
				t.Errorf("adopted twice: %v", err)
			} else {
				got.Close()
			}
			check := func(id string, code int, output string) {
				t.Helper()
				e := r.exit(id)
				if e.Unknown || e.Code() != code {
					t.Errorf("%s: exit %+v, want %d", id, e, code)
				}
				r.streamsClosed(id)
				if got := logged(t, r.logPath(id), "stdout"); got != output {
					t.Errorf("%s: log %q, want %q", id, got, output)
				}
			}
			check("meanwhile", 9, "bye\n")
			say(pipes, "three\n")
			say(tty, "three\n\x04")
			pipes.CloseStdin()
			if err := r.CloseStdin(r.ctx(), "pipes"); err != nil {
				t.Error(err)
			}
			check("pipes", 5, "got one\ngot two\ngot three\n")
			// The keeper may have read the second line before it was asked to adopt.
			if got := out.all(t); got != "got two\ngot three\n" && got != "got three\n" {
				t.Errorf("subscriber %q", got)
			}
			r.exit("tty")
			tty.Close()
			check("tty", 5, "ready\r\ngot one\r\ngot two\r\ngot three\r\n")
		})
	}
}

// waitForLog polls: nothing tells of a line in a log.
func waitForLog(t *testing.T, path, text string) {
	t.Helper()
	notify, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(notify)
	if _, err := unix.InotifyAddWatch(notify, path, unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(logged(t, path, "stdout"), text) {
		p := []unix.PollFd{{Fd: int32(notify), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, int(patience.Milliseconds())); err != nil && err != unix.EINTR ||
			n == 0 {
			t.Fatalf("%q is not logged: %v", text, err)
		}
		unix.Read(notify, make([]byte, 4096))
	}
}

// A keeper becomes another program while its containers write, some subscribers sleep and a start
// is held.
func TestUpgrade(t *testing.T) {
	r := newRig(t)
	const processes, lines = 10, 2000
	exe, err := os.Open(r.launch.Command[0])
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	pid := r.Pid()
	var readers []*reader
	for i := range processes {
		k := newReader(t)
		readers = append(readers, k)
		req := r.request("p"+strconv.Itoa(i), counting(lines))
		req.Attach = []keeper.Attachment{{Stdout: k.give}}
		r.start(req).Close()
	}
	asleep, give, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer asleep.Close()
	const much = 100000
	req := r.request("slow", counting(much))
	req.Attach = []keeper.Attachment{{Stdout: give}}
	r.start(req).Close()
	give.Close()
	req = r.request("held", "")
	req.Hold = true
	req.Image = image(t, func(b *program.Builder) {
		b.Stage(program.StageHooks)
		b.Await()
		shell(b, "printf done")
	})
	r.start(req).Close()
	req = r.request("half", "printf 'half '; read x; echo line; read x")
	req.Stdio.Stdin = true
	half := r.start(req)
	before := len(r.descriptors())
	for i := range 3 {
		if err := r.Upgrade(r.ctx(), exe); err != nil {
			t.Fatalf("upgrade %d: %v", i, err)
		}
	}
	if after := r.descriptors(); len(after) > before+8 { // the runtime's own
		t.Errorf("%d descriptors before, after: %q", before, after)
	}
	bad, err := os.Open("/bin/false")
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	if err := r.Upgrade(r.ctx(), bad); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("upgrade to /bin/false: %v", err)
	}
	c, err := keeper.Dial(r.ctx(), r.launch.Socket, keeper.WithoutEvents)
	if err != nil {
		t.Fatal(err)
	}
	if _, n := c.Started(); n != 3 || c.Pid() != pid {
		t.Errorf("%d upgrades of process %d, want 3 of %d", n, c.Pid(), pid)
	}
	c.Close()
	p, err := r.Continue(r.ctx(), "held")
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	in, err := half.Input()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.WriteString("\n\n"); err != nil {
		t.Fatal(err)
	}
	in.Close()
	want := numbered(lines)
	for i, k := range readers {
		id := "p" + strconv.Itoa(i)
		if e := r.exit(id); e.Code() != 3 {
			t.Errorf("%s: exit %+v", id, e)
		}
		r.streamsClosed(id)
		if got := logged(t, r.logPath(id), "stdout"); got != want {
			t.Errorf("%s: log of %d bytes, want %d", id, len(got), len(want))
		}
		if got := k.all(t); got != want {
			t.Errorf("%s: subscriber got %d bytes, want %d", id, len(got), len(want))
		}
	}
	r.exit("held")
	if got := logged(t, r.logPath("held"), "stdout"); got != "done" {
		t.Errorf("held: %q", got)
	}
	r.exit("half")
	if list := logRecords(t, r.logPath("half")); len(list) != 1 || list[0].Log != "half line\n" {
		t.Errorf("half: %v", list)
	}
	r.exit("slow") // although nobody has read its output
	if err := r.Upgrade(r.ctx(), exe); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(asleep)
	if err != nil || string(text) != numbered(much) {
		t.Errorf("slow subscriber got %d bytes, %v, want %d", len(text), err, len(numbered(much)))
	}
}

// Children do not inherit the keeper's protection.
func TestOOMScore(t *testing.T) {
	r := newRig(t)
	mine, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	r.start(r.request("a", "cat /proc/self/oom_score_adj"))
	r.streamsClosed("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != string(mine) {
		t.Errorf("child has %q, want %q", got, mine)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0); err != nil {
		t.Skipf("the keeper's own score needs CAP_SYS_RESOURCE: %v", err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", mine, 0); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", r.Pid()))
	if err != nil || string(got) != "-999\n" {
		t.Errorf("keeper has %q, %v", got, err)
	}
}

func TestProtection(t *testing.T) {
	score := func() string {
		text, err := os.ReadFile("/proc/self/oom_score_adj")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	before := score()
	p, err := protect(777, nil) // upwards, which everybody may
	if err != nil {
		t.Fatal(err)
	}
	defer p.file.Close()
	if got := score(); got != "777" {
		t.Errorf("protected: %s", got)
	}
	if err := p.lift(); err != nil || score() != before {
		t.Errorf("lifted: %s, %v, want %s", score(), err, before)
	}
	if err := p.restore(); err != nil || score() != "777" {
		t.Errorf("restored: %s, %v", score(), err)
	}
	if err := p.lift(); err != nil {
		t.Fatal(err)
	}
}
