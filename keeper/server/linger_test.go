package server

import (
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"strake/container/program"
	"strake/keeper"
)

// lingers is how long the keeper of TestLinger waits for a client.
const lingers = 200 * time.Millisecond

// ended returns a channel that is closed when the rig's keeper has ended by itself.
func (r *rig) ended() <-chan struct{} {
	done := make(chan struct{})
	process := r.process
	go func() {
		defer close(done)
		if st, err := process.Wait(); err != nil || !st.Success() {
			r.t.Errorf("keeper ended with %v, %v", st, err)
		}
	}()
	return done
}

// leaves waits for the keeper's end.
func (r *rig) leaves(done <-chan struct{}) {
	r.t.Helper()
	select {
	case <-done:
		r.process = nil
	case <-time.After(patience):
		r.t.Fatal("the keeper does not end")
	}
}

// stays waits for several times as long as a keeper lingers.
func (r *rig) stays(done <-chan struct{}, why string) {
	r.t.Helper()
	select {
	case <-done:
		r.process = nil
		r.t.Fatalf("the keeper ended although %s", why)
	case <-time.After(5 * lingers):
	}
}

// TestLinger looks at what a keeper stays for: a client, a process, and what comes out of a pipe
// after the end of one. Then it ends, and the next one knows the exits.
func TestLinger(t *testing.T) {
	r := newRig(t, "--linger", lingers.String())
	done := r.ended()
	r.stays(done, "a client is connected")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	req := r.request("a", "")
	req.Inputs = map[string]int{"stdin": int(read.Fd())}
	req.Image = image(t, func(b *program.Builder) {
		shell(b, "read x; exec 3<&0; (read x <&3; echo late) & echo early; exit 3")
	})
	p := r.start(req)
	read.Close()
	r.disconnect()
	r.stays(done, "a process runs")
	if _, err := write.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	dead(t, p)
	r.stays(done, "there may be output")
	if _, err := write.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	r.leaves(done)
	if got := logged(t, r.logPath("a"), "stdout"); got != "early\nlate\n" {
		t.Errorf("log %q", got)
	}
	r.begin()
	if e := r.exit("a"); e.Code() != 3 {
		t.Errorf("exit %+v", e)
	}
	if err := r.Forget(r.ctx(), "a"); err != nil {
		t.Error(err)
	}
}

// TestLingerHandsOver starts keepers at about the moment at which the last one ends.
func TestLingerHandsOver(t *testing.T) {
	r := newRig(t, "--linger", "1ms")
	tick := time.NewTicker(5 * time.Millisecond) // each try is a client, for which a keeper stays
	defer tick.Stop()
	for range 10 {
		done := r.ended()
		r.disconnect()
		for end := time.Now().Add(patience); ; <-tick.C {
			p, err := keeper.StartProcess(&r.launch)
			if err == nil {
				r.process = p
				if r.Client, err = keeper.Dial(
					r.ctx(), r.launch.Socket, keeper.WithoutEvents,
				); err == nil {
					break
				}
				r.leaves(r.ended()) // it has already been too long without a client
			}
			if !errdefs.IsAlreadyExists(err) && !errdefs.IsUnavailable(err) ||
				time.Now().After(end) {
				t.Fatal(err)
			}
		}
		<-done
	}
}
