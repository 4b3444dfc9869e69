package server

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/spawn"
	"strake/keeper"
	"strake/keeper/wire"
)

// poll waits for what another process does.
func (r *rig) poll(what string, cond func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !cond(); {
		select {
		case <-tick.C:
		case <-end:
			r.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// content is what is in a file, "" if it does not exist.
func (r *rig) content(name string) string {
	r.t.Helper()
	text, err := os.ReadFile(r.path(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	return string(text)
}

// has waits until a file has a text.
func (r *rig) has(name, want string) {
	r.t.Helper()
	r.poll(fmt.Sprintf("%q in %s", want, name), func() bool { return r.content(name) == want })
}

// fifo makes a FIFO on which an end command can wait for the function that it returns.
func (r *rig) fifo(name string) (open func()) {
	r.t.Helper()
	if err := unix.Mkfifo(r.path(name), 0o600); err != nil {
		r.t.Fatal(err)
	}
	f, err := os.OpenFile(r.path(name), os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { f.Close() })
	return func() {
		r.t.Helper()
		if _, err := f.WriteString("\n"); err != nil {
			r.t.Fatal(err)
		}
	}
}

// ending is a request for a script with an end command that is another one.
func (r *rig) ending(id, script, command string) *keeper.StartRequest {
	req := r.request(id, script)
	req.Stdio.Stdin = true
	req.EndCommand = []string{"/bin/sh", "-c", "cd " + r.dir + "; " + command, "end", id}
	return req
}

// release ends the reading of a process's standard input.
func release(t *testing.T, p *keeper.Process) {
	t.Helper()
	in, err := p.Input()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
}

// ran says that the journal knows the end of a command.
func (r *rig) ran(id string) bool {
	r.t.Helper()
	records, _, err := parseJournal([]byte(r.content("state/" + journalName)))
	return err == nil && records[id] != nil && records[id].ran
}

// TestEndCommand looks at what an end command is given: nothing of the keeper but its root
// directory. It comes after the exit and all output.
func TestEndCommand(t *testing.T) {
	// The keeper ignores what its starter ignores, as far as its runtime lets it.
	signal.Ignore(unix.SIGUSR2, unix.SIGHUP, unix.SIGTSTP, unix.SIGTTOU)
	defer signal.Reset(unix.SIGUSR2, unix.SIGHUP, unix.SIGTSTP, unix.SIGTTOU)
	r := newRig(t)
	req := r.ending("a", "read x; seq 20000; exit 3", "")
	req.EndCommand[2] = "F=" + r.dir + `/f; pwd > $F.cwd; echo $PPID > $F.parent
		cp -rP /proc/$$/fd $F.fd; cat /proc/$$/stat > $F.stat; cat /proc/$$/environ > $F.env
		cat /proc/$$/oom_score_adj > $F.oom; cp ` + r.logPath("a") + ` $F.log
		cp ` + r.dir + "/state/" + journalName + ` $F.journal; echo $0 $1 > $F.done`
	p := r.start(req)
	// A shell clears the mask that it inherits.
	req = r.ending("b", "", "")
	req.EndCommand = []string{"/bin/cp", "/proc/self/status", r.path("f.status")}
	r.start(req)
	r.poll("the end of the second", func() bool { return r.ran("b") })
	if p.EndCommand == nil || p.EndCommand[4] != "a" {
		t.Errorf("end command %q", p.EndCommand)
	}
	release(t, p)
	r.has("f.done", "end a\n")
	if got := r.content("f.cwd"); got != "/\n" {
		t.Errorf("directory %q", got)
	}
	if got := r.content("f.env"); got != "PATH="+commandPath+"\x00" {
		t.Errorf("environment %q", got)
	}
	if got := r.content("f.parent"); got != fmt.Sprintln(r.Pid()) {
		t.Errorf("parent %q, want the keeper %d", got, r.Pid())
	}
	status := r.content("f.status")
	for _, want := range []string{"SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"} {
		if !strings.Contains(status, want+"\n") {
			t.Errorf("no %q in %s", want, status)
		}
	}
	links, err := os.ReadDir(r.path("f.fd"))
	if err != nil || len(links) != 3 {
		t.Errorf("descriptors %v, %v, want three", links, err)
	}
	for _, l := range links {
		if to, err := os.Readlink(r.path("f.fd/" + l.Name())); err != nil || to != os.DevNull {
			t.Errorf("descriptor %s is %q, %v", l.Name(), to, err)
		}
	}
	if f := strings.Fields(r.content("f.stat")); len(f) < 6 || f[0] != f[4] || f[0] != f[5] {
		t.Errorf("not in a session and a process group of its own: %q", f)
	}
	mine, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil || r.content("f.oom") != string(mine) {
		t.Errorf("oom_score_adj %q, want %q", r.content("f.oom"), mine)
	}
	if log := r.content("f.log"); !strings.Contains(log, `"20000\n"`) {
		t.Errorf("the output was not drained: it ends with %q", log[max(0, len(log)-200):])
	}
	if j := r.content("f.journal"); !strings.Contains(j, "\nexit a - ") {
		t.Errorf("the exit was not in the journal: %q", j)
	}
	r.poll("the end of the command in the journal", func() bool { return r.ran("a") })
	list, err := r.List(r.ctx())
	if err != nil || len(list) != 2 || len(list[0].EndCommand) < 3 {
		t.Errorf("list %v, %v", list, err)
	}
	for _, p := range list {
		p.Close()
	}
	children := fmt.Sprintf("/proc/%d/task/%[1]d/children", r.Pid())
	if text, err := os.ReadFile(children); err == nil && len(strings.Fields(string(text))) > 1 {
		t.Errorf("children %q, want the guard alone", text)
	}
}

// TestEndCommandDoesNotWaitForever ends a process whose output goes on.
func TestEndCommandDoesNotWaitForever(t *testing.T) {
	r := newRig(t)
	next := r.fifo("fifo")
	start := time.Now()
	r.start(r.ending("a", "(read x < "+r.path("fifo")+") & exit 0", "echo end >> out"))
	r.exit("a")
	r.has("out", "end\n")
	if took := time.Since(start); took < commandPatience*9/10 {
		t.Errorf("executed after %v, want %v while there may be output", took, commandPatience)
	}
	r.mu.Lock()
	if r.closed["a"] {
		t.Error("the output has ended")
	}
	r.mu.Unlock()
	next()
	r.streamsClosed("a")
}

// TestEndCommandsQueue ends more processes than commands run at a time.
func TestEndCommandsQueue(t *testing.T) {
	r := newRig(t)
	next := r.fifo("fifo")
	const processes = commandLimit + 3
	for i := range processes {
		id := fmt.Sprint("p", i)
		r.start(r.ending(id, "", "echo $1 >> out; read x < fifo"))
		r.exit(id)
	}
	count := func() int { return strings.Count(r.content("out"), "\n") }
	r.poll("all that may run", func() bool { return count() >= commandLimit })
	r.turn()
	if n := count(); n != commandLimit {
		t.Errorf("%d commands run at a time, want %d", n, commandLimit)
	}
	for i := commandLimit; i < processes; i++ {
		next()
		r.poll("the next one", func() bool { return count() == i+1 })
		if lines := strings.Fields(r.content("out")); lines[i] != fmt.Sprint("p", i) {
			t.Errorf("order %q", lines)
		}
	}
	for range commandLimit {
		next()
	}
	for i := range processes {
		r.poll("the end of all", func() bool { return r.ran(fmt.Sprint("p", i)) })
	}
}

// TestEndCommandFails: how a command has failed is in the keeper's log, and it is not repeated.
func TestEndCommandFails(t *testing.T) {
	r := newRig(t)
	for id, command := range map[string]struct{ path, script, want string }{
		"status":  {"/bin/sh", "exit 7", `"status": its end command "/bin/sh": exit status 7`},
		"signal":  {"/bin/sh", "kill -9 $$", `"signal": its end command "/bin/sh": signal 9`},
		"missing": {"/nonesuch", "", `"missing": its end command "/nonesuch": execve: no such`},
		"fine":    {"/bin/sh", "exit 0", ""},
	} {
		req := r.ending(id, "", command.script)
		req.EndCommand[0] = command.path
		r.start(req)
		r.poll("its end in the journal", func() bool { return r.ran(id) })
		log := r.content("keeper.log")
		if command.want == "" && strings.Contains(log, `"`+id+`"`) ||
			!strings.Contains(log, command.want) {
			t.Errorf("%s: log %q, want %q", id, log, command.want)
		}
	}
	r.kill()
	r.begin()
	r.turn()
	if list := r.running(); len(list) > 1 {
		t.Errorf("children %q, want the guard at most", list)
	}
}

// running lists the children of the keeper.
func (r *rig) running() []string {
	r.t.Helper()
	dir := fmt.Sprintf("/proc/%d/task", r.Pid())
	tasks, err := os.ReadDir(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	var list []string
	for _, task := range tasks {
		text, err := os.ReadFile(filepath.Join(dir, task.Name(), "children"))
		if err != nil {
			r.t.Skipf("needs CONFIG_PROC_CHILDREN: %v", err)
		}
		list = append(list, strings.Fields(string(text))...)
	}
	return list
}

// TestBadEndCommand: what is wrong with a command is said with the field, and nothing is started.
func TestBadEndCommand(t *testing.T) {
	r := newRig(t)
	before := r.descriptors()
	many := make([]string, wire.MaxCommandWords+1)
	for i := range many {
		many[i] = "/x"
	}
	for name, tc := range map[string]struct {
		command []string
		want    string
	}{
		"relative":   {[]string{"sh", "-c", "true"}, `endCommand[0] "sh": want an absolute path`},
		"empty":      {[]string{""}, `endCommand[0] "": want an absolute path`},
		"many words": {many, "endCommand: 17 words, at most 16 are allowed"},
		"a NUL":      {[]string{"/bin/sh", "a\x00b"}, `endCommand[1] "a\x00b": contains a NUL`},
		"too long": {
			[]string{"/bin/sh", strings.Repeat("x", wire.MaxCommandBytes-8)},
			"endCommand: 4097 bytes, at most 4096 are allowed",
		},
	} {
		req := r.request("a", "echo started")
		req.EndCommand = tc.command
		p, err := r.Client.Start(r.ctx(), req)
		if err == nil {
			p.Close()
		}
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if after := r.descriptors(); len(after) != len(before) {
		t.Errorf("descriptors before %q\nafter %q", before, after)
	}
	if got := r.content("a.log"); got != "" {
		t.Errorf("something was started: %q", got)
	}
	req := r.ending("a", "", "echo end >> out")
	req.EndCommand = append(req.EndCommand, make([]string, wire.MaxCommandWords-5)...)
	size := 0
	for _, w := range req.EndCommand {
		size += len(w) + 1
	}
	req.EndCommand[15] = strings.Repeat("x", wire.MaxCommandBytes-size)
	r.start(req)
	r.has("out", "end\n")
}

// TestEndCommandOnFullDisk: a command waits for an exit that cannot be written, but not for ever.
func TestEndCommandOnFullDisk(t *testing.T) {
	t.Parallel()
	s := &server{}
	s.custody.journal = &journal{path: filepath.Join(t.TempDir(), "none", "journal"), fd: -1}
	q := &commands{s: s}
	p := s.newProcess("a", wire.KindInit)
	p.state = wire.Exited
	now := time.Now()
	c := &command{p: p, patience: now.Add(commandPatience)}
	if !q.due(c, now) {
		t.Error("a command waits for nothing")
	}
	s.custody.journal.stale = true
	if q.due(c, now) {
		t.Error("a command does not wait for the journal")
	}
	if !q.due(c, now.Add(commandPatience)) {
		t.Error("a command waits for the journal for ever")
	}
}

// TestEndCommandWithoutGuard: the journal has the command of a process that could not be given to a
// guard, or ended before that.
func TestEndCommandWithoutGuard(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &custody{journal: j, logf: t.Logf, missing: make(map[*process]struct{})}
	p := (&server{}).newProcess("a", wire.KindInit)
	p.pid, p.state, p.endCommand = 5, wire.Exited, []string{"/bin/a"}
	c.exited(p)
	j.close()
	if j, err = openJournal(dir); err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if r := j.records["a"]; r == nil || r.exit == nil || r.start == nil ||
		len(r.start.endCommand) != 1 {
		t.Errorf("record %+v", r)
	}
}

// TestEndCommandOOMScore: a command does not inherit the keeper's protection.
func TestEndCommandOOMScore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: PR_SET_MM_MAP")
	}
	before, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	protection, err := protect(777, nil) // upwards, which everybody may
	if err != nil {
		t.Fatal(err)
	}
	defer protection.file.Close()
	defer protection.lift()
	dir := t.TempDir()
	s := &server{procs: make(map[string]*process)}
	s.cfg = Config{Protection: protection, Logf: t.Logf}
	if s.loop, err = newLoop(); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s.ep)
	if s.machine, err = spawn.New(); err != nil {
		t.Fatal(err)
	}
	defer s.machine.Close()
	if s.custody.journal, err = openJournal(dir); err != nil {
		t.Fatal(err)
	}
	defer s.custody.journal.close()
	p := s.newProcess("a", wire.KindInit)
	p.endCommand = []string{"/bin/cp", "/proc/self/oom_score_adj", dir + "/score"}
	s.commands.s = s
	s.commands.add(p)
	c := s.commands.queue[0]
	if err := s.commands.start(c); err != nil {
		t.Fatal(err)
	}
	if !within(c.pidfd, patience) {
		t.Fatal("the command does not end")
	}
	s.commands.ended(c)
	got, err := os.ReadFile(dir + "/score")
	if err != nil || string(got) != string(before) {
		t.Errorf("the command has %q, %v, want %q", got, err, before)
	}
	now, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil || string(now) != "777\n" {
		t.Errorf("the keeper has %q, %v", now, err)
	}
}
