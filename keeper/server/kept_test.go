package server

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/keeper"
	"strake/keeper/wire"
)

// pty is a terminal whose slave the test has open.
type pty struct {
	t             *testing.T
	master, slave *os.File
	number        int
}

func newPTY(t *testing.T) *pty {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{t: t, master: os.NewFile(uintptr(fd), "master")}
	t.Cleanup(func() { p.master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if p.number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); err != nil {
		t.Fatal(err)
	}
	slave, err := unix.Open(
		fmt.Sprint("/dev/pts/", p.number), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0,
	)
	if err != nil {
		t.Fatal(err)
	}
	p.slave = os.NewFile(uintptr(slave), "slave")
	t.Cleanup(func() { p.slave.Close() })
	return p
}

// hungUp says that no process has the master open any more.
func (p *pty) hungUp() bool {
	list := []unix.PollFd{{Fd: int32(p.slave.Fd())}}
	_, err := unix.Poll(list, 0)
	return err == nil && list[0].Revents&unix.POLLHUP != 0
}

// works writes to a master and reads what arrives.
func (p *pty) works(master *os.File) {
	p.t.Helper()
	if n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN); err != nil || n != p.number {
		p.t.Fatalf("terminal %d, %v, want %d", n, err, p.number)
	}
	if _, err := master.WriteString("word\n"); err != nil {
		p.t.Fatal(err)
	}
	b := make([]byte, 64)
	if n, err := p.slave.Read(b); err != nil || string(b[:n]) != "word\n" {
		p.t.Fatalf("read %q, %v", b[:n], err)
	}
}

// listed returns a process, of which the test holds nothing else.
func (r *rig) listed(id string) *keeper.Process {
	r.t.Helper()
	list, err := r.List(r.ctx())
	if err != nil {
		r.t.Fatal(err)
	}
	var found *keeper.Process
	for _, p := range list {
		if p.ID == id {
			found = p
		} else {
			p.Close()
		}
	}
	if found == nil {
		r.t.Fatalf("process %q is not listed", id)
	}
	return found
}

// keptWorks asks the keeper for a kept terminal.
func (r *rig) keptWorks(id, name string, tty *pty) {
	r.t.Helper()
	p := r.listed(id)
	defer p.Close()
	if names := p.KeptNames(); len(names) != 1 || names[0] != name {
		r.t.Fatalf("kept names %q, want %q", names, name)
	}
	f, err := p.Kept(name)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	tty.works(f)
}

// TestKept: the master of a terminal is held through every death and the end of the process, until
// that is forgotten. Then the terminal is hung up.
func TestKept(t *testing.T) {
	r := newRig(t)
	tty := newPTY(t)
	req := r.request("a", "read x; exit 3")
	req.Stdio.Stdin, req.Keep = true, []keeper.Kept{{Name: "tty1", File: tty.master}}
	p := r.start(req)
	tty.master.Close()
	f, err := p.Kept("tty1")
	if err != nil {
		t.Fatal(err)
	}
	tty.works(f)
	f.Close()
	if _, err := p.Kept("tty2"); !errdefs.IsNotFound(err) {
		t.Errorf("an unknown name: %v, want not found", err)
	}
	p.Close()
	if _, err := p.Kept("tty1"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("after Close: %v, want a failed precondition", err)
	}
	steps := []struct {
		name string
		do   func()
	}{
		{"kill", func() {
			r.kill()
			if tty.hungUp() {
				t.Fatal("hung up while there is no keeper")
			}
			r.begin()
		}},
		{"upgrade", r.upgrade},
		{"another guard", func() {
			old := r.guardPID()
			if err := unix.Kill(old, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r.poll("another guard", func() bool { return r.guardPID() != old })
		}},
		{"kill again", func() { r.kill(); r.begin() }},
	}
	guarded := 5 // its pidfd, its pipes, and what is kept
	for _, state := range []string{"running", "exited"} {
		for _, step := range steps {
			step.do()
			if tty.hungUp() {
				t.Fatalf("%s, %s: hung up", state, step.name)
			}
			r.keptWorks("a", "tty1", tty)
			r.turn() // the keeper has done what it does between events
			r.guardHas(guarded)
		}
		guarded = 1
		if state == "running" {
			p := r.listed("a")
			release(t, p)
			p.Close()
			if e := r.exit("a"); e.Code() != 3 {
				t.Errorf("exit %+v", e)
			}
			r.streamsClosed("a")
		}
	}
	if err := r.Forget(r.ctx(), "a"); err != nil {
		t.Fatal(err)
	}
	r.poll("the hangup", tty.hungUp)
	r.guardHas(0)
}

// TestKeptMany keeps as many as may be, of several kinds, and finds each under its name.
func TestKeptMany(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "read x")
	req.Stdio.Stdin = true
	var files []*os.File
	for i := range wire.MaxKept {
		var f *os.File
		switch i % 3 {
		case 0:
			fd, err := unix.MemfdCreate("strake-test", unix.MFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			f = os.NewFile(uintptr(fd), "memory")
		case 1:
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(write, "file %d", i); err != nil {
				t.Fatal(err)
			}
			write.Close()
			f = read
		case 2:
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(pair[1], fmt.Appendf(nil, "file %d", i)); err != nil {
				t.Fatal(err)
			}
			unix.Close(pair[1])
			f = os.NewFile(uintptr(pair[0]), "socket")
		}
		if i%3 == 0 {
			if _, err := fmt.Fprintf(f, "file %d", i); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
		}
		files = append(files, f)
		name := fmt.Sprintf("kept.%d-%s", i, strings.Repeat("x", 22))
		req.Keep = append(req.Keep, keeper.Kept{Name: name, File: f})
	}
	before := len(r.descriptors())
	r.start(req).Close()
	for _, f := range files {
		f.Close()
	}
	r.kill()
	r.begin()
	p := r.listed("a")
	if n := len(p.KeptNames()); n != wire.MaxKept {
		t.Errorf("%d are kept, want %d", n, wire.MaxKept)
	}
	for i, k := range req.Keep {
		f, err := p.Kept(k.Name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		f.Close()
		if err != nil || string(text) != fmt.Sprint("file ", i) {
			t.Errorf("%s is %q, %v", k.Name, text, err)
		}
	}
	r.guardHas(4 + wire.MaxKept)
	release(t, p)
	p.Close()
	r.exit("a")
	if err := r.Forget(r.ctx(), "a"); err != nil {
		t.Error(err)
	}
	r.guardHas(0)
	if after := len(r.descriptors()); after > before+2 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestKeptOfAShortProcess: one that ends before it can be given to the guard keeps what it has.
func TestKeptOfAShortProcess(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		id := fmt.Sprint("p", i)
		tty := newPTY(t)
		r.start(&keeper.StartRequest{
			ID: id, Image: image(t, func(b *program.Builder) {
				// What executes nothing is not given to the guard while it runs.
				b.Field("end")
				b.Exit(program.Num(0))
			}),
			Keep: []keeper.Kept{{Name: "tty1", File: tty.master}},
		}).Close()
		tty.master.Close()
		r.exit(id)
		r.kill()
		r.begin()
		if tty.hungUp() {
			t.Fatalf("round %d: hung up", i)
		}
		r.keptWorks(id, "tty1", tty)
		if err := r.Forget(r.ctx(), id); err != nil {
			t.Fatal(err)
		}
		r.poll("the hangup", tty.hungUp)
	}
}

// TestKeptIsHandedOver: when guard and keeper are killed, a client that has duplicates hands them
// to the next keeper.
func TestKeptIsHandedOver(t *testing.T) {
	r := newRig(t)
	tty := newPTY(t)
	req := r.request("a", "read x; exit 3")
	req.Stdio.Stdin, req.Keep = true, []keeper.Kept{{Name: "tty1", File: tty.master}}
	p := r.start(req)
	tty.master.Close()
	r.killBoth()
	r.begin()
	for range 2 { // once more is no error
		got, err := r.Adopt(r.ctx(), p)
		if err != nil {
			t.Fatal(err)
		}
		got.Close()
	}
	release(t, p)
	p.Close()
	r.exit("a")
	r.keptWorks("a", "tty1", tty)
	r.kill()
	r.begin()
	r.keptWorks("a", "tty1", tty)
}

// TestLingerForKept: a keeper that nothing else needs stays as long as it keeps something.
func TestLingerForKept(t *testing.T) {
	r := newRig(t, "--linger", lingers.String())
	tty := newPTY(t)
	req := r.request("a", "")
	req.Keep = []keeper.Kept{{Name: "tty1", File: tty.master}}
	r.start(req).Close()
	tty.master.Close()
	r.exit("a")
	r.streamsClosed("a")
	r.guardHas(1) // a keeper with something to close in the guard does not hurry
	done := r.ended()
	r.disconnect()
	r.stays(done, "a descriptor is kept")
	r.connect()
	r.keptWorks("a", "tty1", tty)
	if err := r.Forget(r.ctx(), "a"); err != nil {
		t.Error(err)
	}
	r.disconnect()
	r.leaves(done)
	r.poll("the hangup", tty.hungUp)
	r.begin()
}

// TestKeptOfAnUnacknowledgedStart: what the guard keeps for a process that the journal does not
// know is closed, and nothing is ended for it.
func TestKeptOfAnUnacknowledgedStart(t *testing.T) {
	r := newRig(t)
	tty := newPTY(t)
	req := r.request("a", "read x")
	req.Stdio.Stdin, req.Keep = true, []keeper.Kept{{Name: "tty1", File: tty.master}}
	r.start(req).Close()
	tty.master.Close()
	r.kill()
	path := r.path("state/" + journalName)
	var left strings.Builder
	for line := range strings.Lines(r.content("state/" + journalName)) {
		if !strings.HasPrefix(line, "start a ") {
			left.WriteString(line)
		}
	}
	if err := os.WriteFile(path, []byte(left.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r.begin()
	r.guardHas(0)
	r.poll("the hangup", tty.hungUp)
}

// TestForgedKept: what the guard has at the place of a kept descriptor and is another file is not
// given out under its name.
func TestForgedKept(t *testing.T) {
	r := newRig(t)
	ttys := []*pty{newPTY(t), newPTY(t)}
	for i, tty := range ttys {
		req := r.request(fmt.Sprint("p", i), "read x")
		req.Stdio.Stdin, req.Keep = true, []keeper.Kept{{Name: "tty1", File: tty.master}}
		r.start(req).Close()
		tty.master.Close()
	}
	r.kill()
	records, guard, err := parseJournal([]byte(r.content("state/" + journalName)))
	if err != nil {
		t.Fatal(err)
	}
	a, b := &records["p0"].start.kept[0].at, &records["p1"].start.kept[0].at
	a.number, b.number = b.number, a.number
	forged := append([]byte(journalHeader), guardLine(guard)...)
	for _, rec := range records {
		forged = append(forged, rec.startLine()...)
	}
	if err := os.WriteFile(r.path("state/"+journalName), forged, 0o600); err != nil {
		t.Fatal(err)
	}
	r.begin()
	for i := range ttys {
		p := r.listed(fmt.Sprint("p", i))
		if _, err := p.Kept("tty1"); !errdefs.IsNotFound(err) || p.State != keeper.Running {
			t.Errorf("process %d: %v, want not found", i, err)
		}
		p.Close()
	}
}

// TestBadKeep: what is wrong with a list of descriptors is said with the field, and nothing is
// started.
func TestBadKeep(t *testing.T) {
	r := newRig(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd := os.NewFile(uintptr(self), "pidfd")
	defer pidfd.Close()
	before := r.descriptors()
	many := make([]keeper.Kept, wire.MaxKept+1)
	for i := range many {
		many[i] = keeper.Kept{Name: fmt.Sprint("tty", i), File: null}
	}
	named := func(names ...string) (list []keeper.Kept) {
		for _, name := range names {
			list = append(list, keeper.Kept{Name: name, File: null})
		}
		return list
	}
	for name, tc := range map[string]struct {
		keep []keeper.Kept
		want string
	}{
		"many":        {many, "keep: 65 descriptors, at most 64 are allowed"},
		"no name":     {named("tty1", ""), `keep[1] "": want 1 to 32 lower-case`},
		"long name":   {named(strings.Repeat("x", 33)), `keep[0] "xxx`},
		"upper case":  {named("TTY"), `keep[0] "TTY": want`},
		"separator":   {named("a=b"), `keep[0] "a=b": want`},
		"space":       {named("a b"), `keep[0] "a b": want`},
		"given twice": {named("a", "b", "a"), `keep[2] "a": given twice`},
		"no file":     {[]keeper.Kept{{Name: "a"}}, `keep[0] "a": no file`},
		"a process": {
			[]keeper.Kept{{Name: "a", File: null}, {Name: "b", File: pidfd}},
			`keep[1] "b": the descriptor of a process is not kept`,
		},
	} {
		req := r.request("a", "echo started")
		req.Keep = tc.keep
		p, err := r.Client.Start(r.ctx(), req)
		if err == nil {
			p.Close()
		}
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	// The client counts; another one may not.
	for _, names := range [][]string{{"a"}, {"a", "b", "c"}} {
		packet, err := wire.Encode(nil, 1, &wire.Start{ID: "a", Keep: names})
		if err != nil {
			t.Fatal(err)
		}
		fd := int(null.Fd())
		e, _ := converse(t, raw(t, r), packet, fd, fd, fd).(*wire.Error)
		want := fmt.Sprintf(
			"3 descriptors came with the request, want %d, %d of them for keep", 1+len(names),
			len(names),
		)
		if e == nil || e.Class != wire.ClassInvalidArgument || !strings.Contains(e.Text, want) {
			t.Errorf("%d names: answer %+v, want %q", len(names), e, want)
		}
	}
	if after := r.descriptors(); len(after) > len(before)+2 { // the connections of the test
		t.Errorf("descriptors before %q\nafter %q", before, after)
	}
	if got := r.content("a.log"); got != "" {
		t.Errorf("something was started: %q", got)
	}
}
