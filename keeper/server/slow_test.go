package server

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper"
	"strake/keeper/wire"
)

func socketPair(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

const muchLines = 100000 // about 1.2 MB

// A subscriber that sleeps holds nobody up and misses nothing.
func TestSlowSubscriber(t *testing.T) {
	r := newRig(t)
	ours, theirs := socketPair(t)
	quick := newReader(t)
	req := r.request("a", counting(muchLines))
	req.Attach = []keeper.Attachment{{Stdout: theirs}, {Stdout: quick.give}}
	r.start(req)
	theirs.Close()
	if e := r.exit("a"); e.Code() != 3 {
		t.Errorf("exit %+v", e)
	}
	r.streamsClosed("a")
	want := numbered(muchLines)
	if got := quick.all(t); got != want {
		t.Errorf("the quick subscriber got %d bytes, want %d", len(got), len(want))
	}
	got, err := io.ReadAll(ours)
	if err != nil || string(got) != want {
		t.Errorf("the slow subscriber got %d bytes, %v, want %d", len(got), err, len(want))
	}
}

// What waits for a subscriber is delivered also when its process has been forgotten meanwhile; one
// that is gone keeps nothing.
func TestForgottenBeforeDelivered(t *testing.T) {
	r := newRig(t)
	ours, theirs := socketPair(t)
	gone, lost := socketPair(t)
	req := r.request("a", counting(muchLines))
	req.Attach = []keeper.Attachment{{Stdout: theirs}, {Stdout: lost}}
	r.start(req)
	theirs.Close()
	lost.Close()
	r.exit("a")
	r.streamsClosed("a")
	if err := r.Forget(r.ctx(), "a"); err != nil {
		t.Fatal(err)
	}
	gone.Close()
	// The ID is free, and what another process of this name says is not mixed with it.
	r.start(r.request("a", "echo other; exit 3"))
	r.exit("a")
	want := numbered(muchLines)
	if got, err := io.ReadAll(ours); err != nil || string(got) != want {
		t.Errorf("the slow subscriber got %d bytes, %v, want %d", len(got), err, len(want))
	}
}

// A subscriber for whom too much waits is disconnected, and the event says how much it has missed.
func TestTooSlowSubscriber(t *testing.T) {
	r := newRig(t)
	r.end()
	r.launch.Command = append(r.launch.Command, "--spill", fmt.Sprint(300<<10))
	r.begin()
	ours, theirs := socketPair(t)
	req := r.request("a", "read x; "+counting(muchLines))
	req.Stdio.Stdin = true
	p := r.start(req)
	at, err := r.Attach(r.ctx(), "a", keeper.Attachment{Stdout: theirs})
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	p.CloseStdin()
	if err := r.CloseStdin(r.ctx(), "a"); err != nil {
		t.Fatal(err)
	}
	r.until("disconnection", func() bool { _, ok := r.detached[at.Subscription]; return ok })
	got, err := io.ReadAll(ours)
	if err != nil {
		t.Fatal(err)
	}
	r.exit("a")
	want := numbered(muchLines)
	if string(got) != want[:len(got)] {
		t.Error("what was delivered is not a beginning of the output")
	}
	r.mu.Lock()
	lost := r.detached[at.Subscription]
	r.mu.Unlock()
	if lost < 300<<10 || int(lost)+len(got) > len(want) {
		t.Errorf("%d bytes delivered, %d said to be lost of %d", len(got), lost, len(want))
	}
	r.streamsClosed("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != want {
		t.Errorf("log of %d bytes, want %d", len(got), len(want))
	}
}

func TestBlockingSubscriber(t *testing.T) {
	for _, tc := range []struct {
		name  string
		reads bool
	}{{"reads at last", true}, {"goes away", false}} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			ours, theirs := socketPair(t)
			req := r.request("a", counting(muchLines))
			req.Attach = []keeper.Attachment{{Stdout: theirs, Overflow: keeper.OverflowBlock}}
			r.start(req)
			theirs.Close()
			// Other processes are not held up, and that one cannot end: more than everything in
			// between holds is unread.
			r.start(r.request("b", counting(muchLines)))
			r.exit("b")
			r.mu.Lock()
			_, ended := r.exits["a"]
			r.mu.Unlock()
			if ended {
				t.Error("the process has not been held back")
			}
			want := numbered(muchLines)
			if tc.reads {
				if got, err := io.ReadAll(ours); err != nil || string(got) != want {
					t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
				}
			}
			ours.Close()
			r.exit("a")
			r.streamsClosed("a")
			if got := logged(t, r.logPath("a"), "stdout"); got != want {
				t.Errorf("log of %d bytes, want %d", len(got), len(want))
			}
		})
	}
}

func TestDetach(t *testing.T) {
	r := newRig(t)
	ours, theirs := socketPair(t)
	req := r.request("a", "echo one; read x; echo two")
	req.Stdio.Stdin = true
	p := r.start(req)
	at, err := r.Attach(r.ctx(), "a", keeper.Attachment{Stdout: theirs, Stderr: theirs})
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	for range 2 {
		if err := r.Detach(r.ctx(), "a", at.Subscription); err != nil {
			t.Error(err)
		}
	}
	if _, err := io.ReadAll(ours); err != nil { // ends
		t.Error(err)
	}
	p.CloseStdin()
	if err := r.CloseStdin(r.ctx(), "a"); err != nil {
		t.Error(err)
	}
	r.exit("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != "one\ntwo\n" {
		t.Errorf("log %q", got)
	}
}

func TestSubscriberIsRefused(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "read x")
	req.Stdio.Stdin = true
	r.start(req)
	file, err := os.Create(r.dir + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	before := r.descriptors()
	if _, err := r.Attach(
		r.ctx(), "a", keeper.Attachment{Stdout: file},
	); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a regular file: %v", err)
	}
	if _, err := r.Attach(r.ctx(), "a", keeper.Attachment{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := r.Attach(r.ctx(), "b", keeper.Attachment{Stdout: file}); !errdefs.IsNotFound(err) {
		t.Errorf("unknown process: %v", err)
	}
	if after := r.descriptors(); !slices.Equal(before, after) {
		t.Errorf("descriptors before %q\nafter %q", before, after)
	}
}

// A client that is slow to read the events of a shutdown that it has asked for still gets the
// answer.
func TestShutdownAnswersSlowClient(t *testing.T) {
	r := newRig(t)
	const n = 300 // their events are more than a socket holds
	for i := range n {
		r.start(r.request(fmt.Sprint("p", i), "exec sleep 1000")).Close()
	}
	r.disconnect()
	fd := raw(t, r)
	hello, err := wire.Encode(nil, 1, &wire.Hello{Events: true})
	if err != nil {
		t.Fatal(err)
	}
	if b := converse(t, fd, hello); b == nil {
		t.Fatal("no welcome")
	}
	shutdown, err := wire.Encode(nil, 2, &wire.Shutdown{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendmsg(fd, shutdown, nil, nil, unix.MSG_NOSIGNAL); err != nil {
		t.Fatal(err)
	}
	// Nothing is read until all have been killed and the socket is full.
	journal := r.launch.StateDir + "/" + journalName
	for deadline := time.Now().Add(patience); ; {
		text, err := os.ReadFile(journal)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(text), "\nexit ") == n {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("the processes are not killed")
		}
		unix.Poll(nil, 10)
	}
	buf := make([]byte, wire.MaxMessage)
	for events := 0; ; events++ {
		got, err := unix.Read(fd, buf)
		if err != nil || got == 0 {
			t.Fatalf("no answer behind %d events: %v", events, err)
		}
		if request, _, err := wire.Decode(buf[:got]); err != nil {
			t.Fatal(err)
		} else if request == 2 {
			break
		}
	}
	if st, err := r.process.Wait(); err != nil || !st.Success() {
		t.Errorf("keeper ended with %v, %v", st, err)
	}
	r.process = nil
}
