package server

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper"
)

// upgrade makes the keeper replace its program.
func (r *rig) upgrade() {
	r.t.Helper()
	f, err := os.Open(r.launch.Command[0])
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	if err := r.Upgrade(r.ctx(), f); err != nil {
		r.t.Fatal(err)
	}
}

// TestEndCommandAndDeath kills or replaces the keeper at each step of a process with an end
// command. It is executed once in each case, but for a command that has died with no keeper to see
// it.
func TestEndCommandAndDeath(t *testing.T) {
	for name, change := range map[string]func(r *rig, processes ...*keeper.Process){
		"killed":   func(r *rig, processes ...*keeper.Process) { r.kill(processes...); r.begin() },
		"upgraded": func(r *rig, processes ...*keeper.Process) { r.upgrade() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			next, more := r.fifo("fifo"), r.fifo("more")
			const command = "echo $1 >> out; read x < fifo; echo ended >> out"
			p := r.start(r.ending("a", "read x; (read x < "+r.path("more")+") & exit 0", command))
			change(r) // while the process runs
			before := time.Now()
			release(t, p)
			dead(t, p)
			r.exit("a")
			change(r) // while its output goes on
			if got := r.content("out"); got != "" && time.Since(before) < commandPatience {
				t.Errorf("it was executed before its time: %q", got)
			}
			more()
			r.has("out", "a\n")
			change(r, p) // while the command runs
			r.turn()
			change(r) // and again
			r.turn()
			if got := r.content("out"); got != "a\n" {
				t.Errorf("a second one runs beside the first one: %q", got)
			}
			next()
			r.has("out", "a\nended\n")
			r.poll("its end in the journal", func() bool { return r.ran("a") })
			change(r) // after its end
			r.turn()
			if err := r.Forget(r.ctx(), "a"); err != nil {
				t.Error(err)
			}
			change(r)
			r.turn()
			if got := r.content("out"); got != "a\nended\n" {
				t.Errorf("executed %q, want once", got)
			}
		})
	}
}

// TestEndCommandWithoutKeeper: a process that ends while there is no keeper has its command
// executed by the next one, and a command that has ended then is executed again.
func TestEndCommandWithoutKeeper(t *testing.T) {
	r := newRig(t)
	p := r.start(r.ending("a", "read x; exit 4", "echo $$ >> out; exec sleep 1000"))
	in, err := p.Input()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	watch, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	r.kill(p)
	if _, err := in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	if !within(watch, patience) {
		t.Fatal("the process does not end")
	}
	r.begin()
	if e := r.exit("a"); e.Code() != 4 {
		t.Errorf("exit %+v", e)
	}
	for n := 1; n <= 2; n++ {
		var pids []string
		r.poll("the command", func() bool {
			pids = strings.Fields(r.content("out"))
			return len(pids) == n
		})
		var pid int
		fmt.Sscan(pids[n-1], &pid)
		command, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(command)
		r.poll("its process in the journal", func() bool {
			return strings.Contains(r.content("state/"+journalName), "running a "+pids[n-1]+" ")
		})
		if n == 1 {
			r.kill()
		}
		unix.PidfdSendSignal(command, unix.SIGKILL, nil, 0)
		if !within(command, patience) {
			t.Fatal("the command does not end")
		}
		if n == 1 {
			r.begin()
		}
	}
	r.poll("its end in the journal", func() bool { return r.ran("a") })
}

// TestEndCommandOfWhatIsForgotten: Forget and Abort drop a command that has not begun, and leave
// alone one that has.
func TestEndCommandOfWhatIsForgotten(t *testing.T) {
	r := newRig(t)
	next, more := r.fifo("fifo"), r.fifo("more")
	const command = "echo $1 >> out; read x < fifo; echo $1 ended >> out"
	for _, id := range []string{"forgotten", "aborted"} {
		r.start(r.ending(id, "(read x < "+r.path("more")+") & exit 0", command))
		r.exit(id)
	}
	r.start(r.ending("killed", "read x", command))
	if err := r.Forget(r.ctx(), "forgotten"); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"aborted", "killed"} {
		if err := r.Abort(r.ctx(), id); err != nil {
			t.Error(err)
		}
	}
	r.start(r.ending("begun", "", command))
	r.has("out", "begun\n")
	if err := r.Forget(r.ctx(), "begun"); err != nil {
		t.Error(err)
	}
	// The ID is free, and the next command of it has nothing to do with the first one.
	p := r.start(r.ending("begun", "read x", "echo again >> out"))
	next()
	r.has("out", "begun\nbegun ended\n")
	r.poll("the end of the first", func() bool { return len(r.running()) == 2 })
	in, err := p.Input()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r.kill(p)
	r.begin()
	if _, err := in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	r.has("out", "begun\nbegun ended\nagain\n")
	more()
	more()
}

// TestLingerForEndCommand: a keeper that nothing needs any more waits for an end command.
func TestLingerForEndCommand(t *testing.T) {
	r := newRig(t, "--linger", lingers.String())
	next := r.fifo("fifo")
	done := r.ended()
	p := r.start(r.ending("a", "read x", "echo begun >> out; read x < fifo; echo ended >> out"))
	release(t, p)
	r.has("out", "begun\n")
	if err := r.Shutdown(r.ctx(), keeper.IfIdle); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("shutdown: %v, want a failed precondition", err)
	}
	p.Close()
	r.disconnect()
	r.stays(done, "an end command runs")
	next()
	r.leaves(done)
	r.begin()
	r.turn()
	if got := r.content("out"); got != "begun\nended\n" {
		t.Errorf("executed %q", got)
	}
}

// TestShutdownLeavesEndCommand: what a keeper that is shut down has not executed is executed by the
// next one.
func TestShutdownLeavesEndCommand(t *testing.T) {
	r := newRig(t)
	r.start(r.ending("a", "read x", "echo end >> out")).Close()
	r.end()
	if got := r.content("out"); got != "" {
		t.Errorf("executed %q during the shutdown", got)
	}
	r.begin()
	r.has("out", "end\n")
}

// TestEndCommandWhenBothAreKilled: without the guard the next keeper finds a process with an end
// command by its number, or takes it for ended. A client that has its descriptors hands them over.
func TestEndCommandWhenBothAreKilled(t *testing.T) {
	r := newRig(t)
	p := r.start(r.ending("adopted", "read x; echo got $x; exit 5", "echo $1 >> out"))
	next, more := r.fifo("fifo"), r.fifo("more")
	r.start(r.ending("found", "read x < "+r.path("fifo")+"; exit 6", "echo $1 >> out")).Close()
	gone := r.start(r.ending("gone", "read x < "+r.path("more")+"; exit 7", "echo $1 >> out"))
	watch, err := unix.PidfdOpen(gone.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	r.killBoth()
	more()
	if !within(watch, patience) {
		t.Fatal("a process does not end")
	}
	gone.Close()
	r.begin()
	// Its status is known as long as its new parent has not asked for it.
	if e := r.exit("gone"); !e.Unknown && e.Code() != 7 {
		t.Errorf("exit %+v, want an unknown one", e)
	}
	r.upgrade()
	r.has("out", "gone\n")
	for _, id := range []string{"adopted", "found"} {
		bare := r.listed(id)
		if !bare.Bare || bare.State != keeper.Running {
			t.Errorf("%s: %+v, want a bare one that runs", id, bare)
		}
		bare.Close()
	}
	for range 2 { // the second time it is known
		got, err := r.Adopt(r.ctx(), p)
		if err != nil {
			t.Fatal(err)
		}
		if got.Bare || got.EndCommand == nil {
			t.Errorf("adopted %+v", got)
		}
		got.Close()
	}
	r.kill() // there is a guard again
	r.begin()
	release(t, p)
	if e := r.exit("adopted"); e.Unknown || e.Code() != 5 {
		t.Errorf("exit %+v", e)
	}
	r.has("out", "gone\nadopted\n")
	if got := logged(t, r.logPath("adopted"), "stdout"); got != "got\n" {
		t.Errorf("logged %q", got)
	}
	next()
	if e := r.exit("found"); e.Unknown || e.Code() != 6 {
		t.Errorf("exit %+v", e)
	}
	r.has("out", "gone\nadopted\nfound\n")
	for _, id := range []string{"adopted", "found", "gone"} {
		r.poll("the end of the command", func() bool { return r.ran(id) })
		if err := r.Forget(r.ctx(), id); err != nil {
			t.Error(err)
		}
	}
	r.guardHas(0)
}

// killBoth kills the guard and the keeper, so that the guard is not replaced.
func (r *rig) killBoth() {
	r.t.Helper()
	if err := r.process.Signal(unix.SIGSTOP); err != nil {
		r.t.Fatal(err)
	}
	guard := r.guardPID()
	if err := unix.Kill(guard, unix.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
	r.kill()
}
