package server

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/keeper"
)

// slowly prints numbered lines, some milliseconds apart, and ends with a status.
func slowly(lines, status int) string {
	return fmt.Sprintf(
		"i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); sleep 0.003; done; exit %d", lines,
		status,
	)
}

// kill kills the keeper and gives up everything that the client had of it, as if that had been
// killed too.
func (r *rig) kill(processes ...*keeper.Process) {
	r.t.Helper()
	for _, p := range processes {
		p.Close()
	}
	if err := r.process.Kill(); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.process.Wait(); err != nil {
		r.t.Fatal(err)
	}
	<-r.Done()
	r.disconnect()
}

// Keeper and client are killed at once, again and again, while processes write to pipes and a
// terminal and some end: there is no gap in any log, and every status is exact.
func TestKeeperAndClientKilled(t *testing.T) {
	r := newRig(t)
	const processes, lines = 8, 400
	want := numbered(lines)
	var all []*keeper.Process
	for i := range processes {
		// The last ones outlive the first ones.
		req := r.request("p"+strconv.Itoa(i), slowly(lines*(i+1)/processes, i))
		req.Owner, req.Note, req.Kind = "cri", "note "+strconv.Itoa(i), keeper.KindExec
		if i%2 == 1 {
			req.Log.Driver = keeper.LogCRI
		}
		all = append(all, r.start(req))
	}
	all = append(all, r.start(&keeper.StartRequest{
		ID: "tty", Stdio: keeper.Stdio{Mode: keeper.StdioTTY},
		Image: image(t, func(b *program.Builder) {
			terminal(b, b.Input("tty"), "stty -echo -onlcr; "+slowly(lines, 77))
		}),
		Log: keeper.LogConfig{Driver: keeper.LogJSONFile, Path: r.logPath("tty")},
	}))
	pids := map[string]int{}
	for _, p := range all {
		pids[p.ID] = p.Pid
	}
	guard := r.guardPID()
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 6 {
		waitForLines(t, r.logPath("tty"), 1+rnd.IntN(30))
		r.kill(all...)
		r.begin()
		list, err := r.List(r.ctx())
		if err != nil {
			t.Fatal(err)
		}
		all = list
		if len(list) != processes+1 {
			t.Fatalf("%d processes are listed, want %d", len(list), processes+1)
		}
		for _, p := range list {
			if p.Pid != pids[p.ID] || !p.Adopted || p.ID != "tty" &&
				(p.Owner != "cri" || p.Kind != keeper.KindExec || p.Note != "note "+p.ID[1:]) {
				t.Errorf("listed %s: pid %d, %+v", p.ID, p.Pid, p.Stdio)
			}
		}
		if now := r.guardPID(); now != guard {
			t.Errorf("guard %d, want still %d", now, guard)
		}
	}
	for i := range processes {
		id := "p" + strconv.Itoa(i)
		if e := r.exit(id); e.Unknown || e.Code() != i {
			t.Errorf("%s: exit %+v", id, e)
		}
		r.streamsClosed(id)
		n := strings.Index(want, fmt.Sprintf("line %d\n", lines*(i+1)/processes))
		if n < 0 {
			n = len(want)
		}
		if got := r.text(id, i%2 == 1); got != want[:n] {
			t.Errorf("%s: the log %s", id, difference(got, want[:n]))
		}
	}
	if e := r.exit("tty"); e.Unknown || e.Code() != 77 {
		t.Errorf("tty: exit %+v", e)
	}
	for _, p := range all {
		p.Close()
	}
	r.streamsClosed("tty")
	if got := r.text("tty", false); got != want {
		t.Errorf("tty: the log %s", difference(got, want))
	}
	for id := range pids {
		if err := r.Forget(r.ctx(), id); err != nil {
			t.Error(err)
		}
	}
	r.guardHas(0)
}

// text is what a process has logged on standard output.
func (r *rig) text(id string, cri bool) string {
	r.t.Helper()
	if !cri {
		return logged(r.t, r.logPath(id), "stdout")
	}
	text, err := os.ReadFile(r.logPath(id))
	if err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		_, l, _ := strings.Cut(line, " stdout F ")
		b.WriteString(l)
	}
	return b.String()
}

// difference describes the first line in which two texts differ.
func difference(got, want string) string {
	a, b := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("has %q instead of %q", a[i], b[i])
		}
	}
	return fmt.Sprintf("has %d lines, want %d", len(a), len(b))
}

// waitForLines waits until a log has so many lines more.
func waitForLines(t *testing.T, path string, more int) {
	t.Helper()
	count := func() int { return strings.Count(logged(t, path, "stdout"), "\n") }
	from := count()
	notify, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(notify)
	if _, err := unix.InotifyAddWatch(notify, path, unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	for count() < from+more {
		p := []unix.PollFd{{Fd: int32(notify), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, int(patience.Milliseconds())); err != nil && err != unix.EINTR ||
			n == 0 {
			t.Fatalf("no more lines are logged: %v", err)
		}
		unix.Read(notify, make([]byte, 4096))
	}
}

// What happens while there is neither keeper nor client: writes do not fail, exits are learned, an
// input that was closed stays closed, one that was not can be written to.
func TestNoKeeperMeanwhile(t *testing.T) {
	r := newRig(t)
	// A FIFO each says that the process is to go on, and ends it if this test fails.
	release := func(id string) (name string, open func()) {
		name = filepath.Join(r.dir, id+".fifo")
		if err := unix.Mkfifo(name, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return name, func() {
			if _, err := f.WriteString("\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	fifo, endNow := release("ends")
	ends := r.start(r.request("ends", "read x <"+fifo+"; echo out; echo err >&2; exit 9"))
	fifo, killNow := release("killed")
	killed := r.start(r.request("killed", "read x <"+fifo+"; printf half; kill -TERM $$"))
	req := r.request("input", "while read x; do echo got $x; done; exit 4")
	req.Stdio.Stdin = true
	input := r.start(req)
	req = r.request("closed", "cat; read x </dev/null; exit 5")
	req.Stdio.Stdin = true
	fifo, closedNow := release("closed")
	req.Image = image(t, func(b *program.Builder) { shell(b, "cat; read x <"+fifo+"; exit 5") })
	closed := r.start(req)
	closed.CloseStdin()
	if err := r.CloseStdin(r.ctx(), "closed"); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.PidfdOpen(ends.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	r.kill(ends, killed, input, closed)
	endNow()
	killNow()
	if !within(watch, patience) {
		t.Fatal("the process does not end")
	}
	r.begin()
	for id, want := range map[string]struct {
		code     int
		out, err string
	}{"ends": {9, "out\n", "err\n"}, "killed": {143, "half", ""}} {
		if e := r.exit(id); e.Unknown || e.Code() != want.code {
			t.Errorf("%s: exit %+v, want %d", id, e, want.code)
		}
		r.streamsClosed(id)
		out, err := logged(t, r.logPath(id), "stdout"), logged(t, r.logPath(id), "stderr")
		if out != want.out || err != want.err {
			t.Errorf("%s: logged %q and %q", id, out, err)
		}
	}
	list, err := r.List(r.ctx())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		switch p.ID {
		case "input":
			in, err := p.Input()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := in.WriteString("this\n"); err != nil {
				t.Error(err)
			}
			in.Close()
			p.CloseStdin()
			if err := r.CloseStdin(r.ctx(), "input"); err != nil {
				t.Error(err)
			}
		case "closed":
			if _, err := p.Input(); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("the input that was closed: %v", err)
			}
			closedNow()
		}
		p.Close()
	}
	if e := r.exit("input"); e.Code() != 4 {
		t.Errorf("input: exit %+v", e)
	}
	r.streamsClosed("input")
	if got := logged(t, r.logPath("input"), "stdout"); got != "got this\n" {
		t.Errorf("input: logged %q", got)
	}
	if e := r.exit("closed"); e.Code() != 5 {
		t.Errorf("closed: exit %+v", e)
	}
}

// Output that another process goes on writing after the end of the first one survives the keeper
// too, also if that one ended before it was seen to run.
func TestOutputAfterExit(t *testing.T) {
	r := newRig(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	req := r.request("a", "")
	req.Inputs = map[string]int{"stdin": int(read.Fd())}
	req.Image = image(t, func(b *program.Builder) {
		shell(b, "exec 3<&0; (read x <&3; echo late) & echo early; exit 3")
	})
	p := r.start(req)
	read.Close()
	r.exit("a")
	r.guardHas(2)
	r.kill(p)
	r.begin()
	if e := r.exit("a"); e.Code() != 3 {
		t.Errorf("exit %+v", e)
	}
	if _, err := write.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	r.streamsClosed("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != "early\nlate\n" {
		t.Errorf("log %q", got)
	}
	r.guardHas(0)
}

// A log in the CRI format is renamed by the kubelet, which then asks for a new one.
func TestReopenLog(t *testing.T) {
	r := newRig(t)
	req := r.request("a", slowly(300, 2))
	req.Log.Driver = keeper.LogCRI
	r.start(req)
	path := r.logPath("a")
	for i := range 4 {
		if i > 0 {
			if err := os.Rename(path, fmt.Sprint(path, ".", i)); err != nil {
				t.Fatal(err)
			}
			if err := r.ReopenLog(r.ctx(), "a"); err != nil {
				t.Fatal(err)
			}
		}
		for deadline := time.Now().Add(patience); ; {
			if st, err := os.Stat(path); err == nil && st.Size() > 0 {
				break
			} else if time.Now().After(deadline) {
				t.Fatal("nothing is written to the new file")
			}
			r.turn()
		}
	}
	r.exit("a")
	r.streamsClosed("a")
	var all strings.Builder
	for _, name := range []string{".1", ".2", ".3", ""} {
		text, err := os.ReadFile(path + name)
		if err != nil || len(text) == 0 {
			t.Errorf("file %q: %d bytes, %v", name, len(text), err)
		}
		for line := range strings.Lines(string(text)) {
			_, l, ok := strings.Cut(line, " stdout F ")
			if !ok {
				t.Errorf("record %q", line)
			}
			all.WriteString(l)
		}
	}
	if want := numbered(300); all.String() != want {
		t.Errorf("the log %s", difference(all.String(), want))
	}
	if err := r.ReopenLog(r.ctx(), "a"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("after the end: %v", err)
	}
}

// A process whose start was not acknowledged is in the guard and not in the journal: the next
// keeper ends it.
func TestUnacknowledgedStartIsEnded(t *testing.T) {
	r := newRig(t)
	req := r.request("kept", "read x; exit 3")
	req.Stdio.Stdin = true
	kept := r.start(req)
	p := r.start(r.request("a", "exec sleep 1000"))
	watch, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	r.kill(kept, p)
	path := filepath.Join(r.launch.StateDir, journalName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var left []byte
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "start a ") {
			left = append(left, line...)
		}
	}
	if err := os.WriteFile(path, left, 0o600); err != nil {
		t.Fatal(err)
	}
	r.begin()
	if !within(watch, patience) {
		t.Error("the process lives on")
	}
	list, err := r.List(r.ctx())
	if err != nil || len(list) != 1 || list[0].ID != "kept" || list[0].State != keeper.Running {
		t.Errorf("list %v, %v", list, err)
	}
	for _, p := range list {
		p.Close()
	}
	r.guardHas(4)
}

// Two processes whose places were exchanged get nothing of each other's, and end without input and
// output; how they ended is known all the same.
func TestForgedPlaces(t *testing.T) {
	r := newRig(t)
	var all []*keeper.Process
	for _, id := range []string{"a", "b"} {
		req := r.request(id, "read x; trap '' PIPE; echo i am "+id+"; exit 3")
		req.Stdio.Stdin = true
		all = append(all, r.start(req))
	}
	r.kill(all...)
	path := filepath.Join(r.launch.StateDir, journalName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	records, guard, err := parseJournal(text)
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte(journalHeader), guardLine(guard)...)
	a, b := &records["a"].start.held, &records["b"].start.held
	for i := 1; i < len(a); i++ {
		a[i].number, b[i].number = b[i].number, a[i].number
	}
	for _, rec := range records {
		forged = append(forged, rec.startLine()...)
	}
	if err := os.WriteFile(path, forged, 0o600); err != nil {
		t.Fatal(err)
	}
	r.begin()
	for _, id := range []string{"a", "b"} {
		if e := r.exit(id); e.Code() != 3 {
			t.Errorf("%s: exit %+v", id, e)
		}
		if got := logged(t, r.logPath(id), "stdout"); got != "" {
			t.Errorf("%s: logged %q", id, got)
		}
	}
	r.guardHas(0)
}

// Processes whose pidfds were exchanged are not believed to be each other, and are left to the
// client, who still has their descriptors.
func TestForgedProcesses(t *testing.T) {
	r := newRig(t)
	all := map[string]*keeper.Process{}
	for _, id := range []string{"a", "b"} {
		req := r.request(id, "read x; echo i am "+id+"; exit 3")
		req.Stdio.Stdin = true
		all[id] = r.start(req)
	}
	r.kill()
	path := filepath.Join(r.launch.StateDir, journalName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	records, guard, err := parseJournal(text)
	if err != nil {
		t.Fatal(err)
	}
	a, b := &records["a"].start.held[0], &records["b"].start.held[0]
	*a, *b = *b, *a
	forged := append([]byte(journalHeader), guardLine(guard)...)
	for _, rec := range records {
		forged = append(forged, rec.startLine()...)
	}
	if err := os.WriteFile(path, forged, 0o600); err != nil {
		t.Fatal(err)
	}
	r.begin()
	if list, err := r.List(r.ctx()); err != nil || len(list) != 0 {
		t.Errorf("list %v, %v", list, err)
	}
	for id, p := range all {
		got, err := r.Adopt(r.ctx(), p)
		if err != nil {
			t.Fatal(err)
		}
		in, err := got.Input()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.WriteString("\n"); err != nil {
			t.Fatal(err)
		}
		in.Close()
		got.Close()
		if e := r.exit(id); e.Code() != 3 {
			t.Errorf("%s: exit %+v", id, e)
		}
		r.streamsClosed(id)
		if got := logged(t, r.logPath(id), "stdout"); got != "i am "+id+"\n" {
			t.Errorf("%s: logged %q", id, got)
		}
	}
}
