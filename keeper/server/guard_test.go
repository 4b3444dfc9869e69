package server

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/spawn"
	"strake/keeper"
)

// guardPID is the guard that the journal names.
func (r *rig) guardPID() int {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.launch.StateDir, journalName))
	if err != nil {
		r.t.Fatal(err)
	}
	_, guard, err := parseJournal(text)
	if err != nil {
		r.t.Fatal(err)
	}
	return guard.pid
}

// guardFiles is how many descriptors the guard has, besides its own.
func (r *rig) guardFiles() int {
	r.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.guardPID()))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(list) - guardFirst
}

// guardHas waits until the guard has so many descriptors: it handles messages by and by, and an
// idle keeper closes the last of what has ended.
func (r *rig) guardHas(want int) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); r.guardFiles() != want; {
		if time.Now().After(deadline) {
			r.t.Fatalf("the guard has %d descriptors, want %d", r.guardFiles(), want)
		}
		unix.Poll(nil, 10)
	}
}

// turn is a round trip, instead of a pause.
func (r *rig) turn() {
	r.t.Helper()
	if err := r.Signal(r.ctx(), "nobody", 0); !errdefs.IsNotFound(err) {
		r.t.Fatal(err)
	}
}

// A guard that is killed is replaced, and the new one has everything.
func TestGuardKilled(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "while read x; do echo got $x; done; exit 6")
	req.Stdio.Stdin = true
	p := r.start(req)
	r.start(r.request("b", "exit 3"))
	r.exit("b")
	r.streamsClosed("b")
	r.guardHas(4)
	first := r.guardPID()
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); r.guardPID() == first; {
		if time.Now().After(deadline) {
			t.Fatal("there is no new guard")
		}
		r.turn()
	}
	r.guardHas(4)
	r.kill(p)
	r.begin()
	if e := r.exit("b"); e.Code() != 3 {
		t.Errorf("exit %+v", e)
	}
	list, err := r.List(r.ctx())
	if err != nil || len(list) != 2 {
		t.Fatalf("list %v, %v", list, err)
	}
	for _, p := range list {
		if p.ID == "a" {
			in, err := p.Input()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := in.WriteString("one\n"); err != nil {
				t.Error(err)
			}
			in.Close()
		}
		p.Close()
	}
	if err := r.CloseStdin(r.ctx(), "a"); err != nil {
		t.Error(err)
	}
	if e := r.exit("a"); e.Code() != 6 {
		t.Errorf("exit %+v", e)
	}
	r.streamsClosed("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != "got one\n" {
		t.Errorf("logged %q", got)
	}
	// The last keeper's guard is no child of this one; its death is noticed as well.
	req = r.request("c", "read x")
	req.Stdio.Stdin = true
	r.start(req)
	second := r.guardPID()
	if err := unix.Kill(second, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); r.guardPID() == second; {
		if time.Now().After(deadline) {
			t.Fatal("there is no third guard")
		}
		r.turn()
	}
	r.guardHas(4)
}

// With the guard gone too, a new keeper knows nothing, and the client's Adopt works as before.
func TestGuardAndKeeperKilled(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "read x; echo got $x; exit 6")
	req.Stdio.Stdin = true
	p := r.start(req)
	r.start(r.request("b", "exit 3"))
	r.exit("b")
	guard := r.guardPID()
	if err := r.process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(guard, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.kill()
	r.begin()
	list, err := r.List(r.ctx())
	if err != nil || len(list) != 1 || list[0].ID != "b" {
		t.Fatalf("list %v, %v", list, err)
	}
	got, err := r.Adopt(r.ctx(), p)
	if err != nil {
		t.Fatal(err)
	}
	in, err := got.Input()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.WriteString("it\n"); err != nil {
		t.Fatal(err)
	}
	in.Close()
	got.Close()
	if e := r.exit("a"); e.Unknown || e.Code() != 6 {
		t.Errorf("exit %+v", e)
	}
	r.streamsClosed("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != "got it\n" {
		t.Errorf("logged %q", got)
	}
}

// A keeper that replaces its program keeps its guard, with everything in it.
func TestUpgradeKeepsGuard(t *testing.T) {
	r := newRig(t)
	exe, err := os.Open(r.launch.Command[0])
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	req := r.request("a", "read x; echo got $x; exit 6")
	req.Stdio.Stdin = true
	p := r.start(req)
	guard := r.guardPID()
	for range 2 {
		if err := r.Upgrade(r.ctx(), exe); err != nil {
			t.Fatal(err)
		}
	}
	req = r.request("b", "read x; exit 7")
	req.Stdio.Stdin = true
	b := r.start(req)
	if now := r.guardPID(); now != guard {
		t.Errorf("guard %d, want still %d", now, guard)
	}
	r.guardHas(8)
	r.kill(p, b)
	r.begin()
	list, err := r.List(r.ctx())
	if err != nil || len(list) != 2 {
		t.Fatalf("list %v, %v", list, err)
	}
	for _, p := range list {
		in, err := p.Input()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.WriteString("it\n"); err != nil {
			t.Error(err)
		}
		in.Close()
		p.Close()
	}
	if a, b := r.exit("a"), r.exit("b"); a.Code() != 6 || b.Code() != 7 {
		t.Errorf("exits %+v and %+v", a, b)
	}
	r.streamsClosed("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != "got it\n" {
		t.Errorf("logged %q", got)
	}
}

// The guard ends with a keeper that is shut down, and is what it should be until then.
func TestGuardProcess(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "read x")
	req.Stdio.Stdin = true
	r.start(req)
	pid := r.guardPID()
	st, err := readStat(pid)
	if err != nil || st.name != guardName {
		t.Fatalf("%+v, %v", st, err)
	}
	for file, want := range map[string]string{
		"cmdline": guardName, "oom_score_adj": r.oomScore(),
	} {
		got, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil || strings.TrimRight(string(got), "\x00") != want {
			t.Errorf("%s is %q, %v, want %q", file, got, err, want)
		}
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d, %v, want its own", sid, err)
	}
	if _, rss := memory(t, pid); rss > 64 {
		t.Errorf("the guard has %d KiB, want at most 64", rss)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := r.Shutdown(r.ctx(), keeper.KillAll); err != nil {
		t.Fatal(err)
	}
	if !within(fd, patience) {
		t.Error("the guard outlives the keeper")
	}
	r.disconnect()
	if _, err := r.process.Wait(); err != nil {
		t.Error(err)
	}
	if pid := r.guardPID(); pid != 0 {
		t.Errorf("the journal still names guard %d", pid)
	}
	r.begin()
}

func (r *rig) oomScore() string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", r.Pid()))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// TestGuardNumbers compares what the keeper believes of the guard's table with the table, after
// random additions and closings, and finds it again as another keeper does.
func TestGuardNumbers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: PR_SET_MM_MAP")
	}
	m, err := spawn.New()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	g, err := startGuard(m, int(null.Fd()), int(null.Fd()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { g.end() }()
	rnd := rand.New(rand.NewPCG(9, 10))
	var have []int
	for round := range 200 {
		if rnd.IntN(3) > 0 || len(have) == 0 {
			fds := slices.Repeat([]int{int(null.Fd())}, 1+rnd.IntN(5))
			at, err := g.add(fds)
			if err != nil {
				t.Fatal(err)
			}
			have = append(have, at...)
		} else {
			rnd.Shuffle(len(have), func(i, j int) { have[i], have[j] = have[j], have[i] })
			n := rnd.IntN(min(len(have), 3*guardBatch) + 1)
			if err := g.drop(have[:n]); err != nil {
				t.Fatal(err)
			}
			have = have[n:]
		}
		if round%20 != 0 {
			continue
		}
		found, err := findGuard(g.identity)
		if err != nil {
			t.Fatal(err)
		}
		want := append([]int{guardFeed, guardOwn, guardOutput, guardLock}, have...)
		slices.Sort(want)
		if got := found.used.list(); !slices.Equal(got, want) ||
			!slices.Equal(g.used.list(), want) {
			t.Fatalf("round %d: the guard has %v, want %v", round, got, want)
		}
		g.abandon()
		g = found
	}
	if _, err := findGuard(identity{g.pid, g.ticks + 1}); !errdefs.IsNotFound(err) {
		t.Errorf("another process of this number: %v", err)
	}
	if _, err := findGuard(identity{os.Getpid(), 0}); !errdefs.IsNotFound(err) {
		t.Errorf("a process that is no guard: %v", err)
	}
	// To close what is not open is the end of the guard.
	message := make([]byte, guardMessage)
	binary.LittleEndian.PutUint32(message, guardClose)
	binary.LittleEndian.PutUint32(message[8:], 9999)
	if err := g.send(message, nil); err != nil || !within(g.pidfd, patience) {
		t.Error("a guard that is asked for the impossible lives on")
	}
}

// A guard that does not answer, because it is stopped, is emptied and replaced.
func TestGuardStopped(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "read x; echo got $x; exit 6")
	req.Stdio.Stdin = true
	p := r.start(req)
	guard := r.guardPID()
	r.guardHas(4)
	if err := unix.Kill(guard, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.kill(p)
	r.begin()
	for deadline := time.Now().Add(patience); r.guardPID() == guard; {
		if time.Now().After(deadline) {
			t.Fatal("there is no new guard")
		}
		r.turn()
	}
	r.guardHas(4)
	list, err := r.List(r.ctx())
	if err != nil || len(list) != 1 {
		t.Fatalf("list %v, %v", list, err)
	}
	in, err := list[0].Input()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.WriteString("it\n"); err != nil {
		t.Error(err)
	}
	in.Close()
	list[0].Close()
	if e := r.exit("a"); e.Code() != 6 {
		t.Errorf("exit %+v", e)
	}
	r.streamsClosed("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != "got it\n" {
		t.Errorf("logged %q", got)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", guard)); err == nil {
		if st, err := readStat(guard); err == nil && st.state != 'Z' {
			t.Error("the stopped guard lives on")
		}
	}
}

// A guard whose state directory was removed ends, and one that has it does not.
func TestGuardWithoutDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: PR_SET_MM_MAP")
	}
	m, err := spawn.New()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	g, err := startGuard(m, int(lock.Fd()), int(lock.Fd()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.end()
	feed, err := g.get(guardFeed)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(feed)
	often := unix.NsecToTimeval(int64(time.Millisecond))
	if err := unix.SetsockoptTimeval(feed, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &often); err != nil {
		t.Fatal(err)
	}
	for range 20 { // the first one wakes it from its present waiting
		if err := g.catchUp(); err != nil {
			t.Fatal(err)
		}
	}
	if within(g.pidfd, 50*time.Millisecond) {
		t.Fatal("the guard has ended while there is a directory")
	}
	if err := os.Remove(lock.Name()); err != nil {
		t.Fatal(err)
	}
	if !within(g.pidfd, patience) {
		t.Error("the guard lives on")
	}
}
