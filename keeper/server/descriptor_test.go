package server

import (
	"os"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper"
)

// Signals and Close at the same time never reach another process, and fail in one way only. To see
// a reused number, files are opened and closed meanwhile.
func TestSignalWhileClosing(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "trap '' USR1; read x")
	req.Stdio.Stdin = true
	for range 20 {
		p := r.start(req)
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for {
					if err := p.Signal(0); errdefs.IsFailedPrecondition(err) {
						return
					} else if err != nil {
						t.Errorf("signal: %v", err)
						return
					}
				}
			})
			group.Go(func() {
				for range 50 {
					if f, err := os.Open(os.DevNull); err == nil {
						f.Close()
					}
				}
			})
			group.Go(func() {
				in, err := p.Input()
				if err == nil {
					in.Close()
				} else if !errdefs.IsFailedPrecondition(err) {
					t.Errorf("input: %v", err)
				}
			})
		}
		group.Go(p.CloseStdin)
		group.Go(p.Close)
		group.Wait()
		if err := r.Abort(r.ctx(), "a"); err != nil {
			t.Fatal(err)
		}
	}
}

// A pidfd in use stays open when the Process is closed, and not longer than it is used.
func TestPidFDOutlivesClose(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "read x")
	req.Stdio.Stdin = true
	p := r.start(req)
	number := -1
	err := p.WithPidFD(func(fd int) error {
		p.Close()
		p.Close()
		number = fd
		return unix.PidfdSendSignal(fd, 0, nil, 0)
	})
	if err != nil {
		t.Errorf("the pidfd was closed while it was used: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(number), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("after its last use: %v", err)
	}
	for name, err := range map[string]error{
		"signal":     p.Signal(unix.SIGKILL),
		"with pidfd": p.WithPidFD(func(int) error { return nil }),
		"input":      func() error { _, err := p.Input(); return err }(),
		"ended":      func() error { _, _, err := p.Ended(); return err }(),
	} {
		if !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s of a closed process: %v", name, err)
		}
	}
}

func TestSignalErrors(t *testing.T) {
	r := newRig(t)
	p := r.start(r.request("a", "exit 3"))
	r.exit("a")
	if err := p.Signal(unix.SIGTERM); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("an ended process: %v", err)
	}
	if e, ok, err := p.Ended(); err != nil || ok && e.Code() != 3 {
		t.Errorf("ended: %+v %t %v", e, ok, err)
	}
	req := r.request("b", "read x")
	req.Stdio.Stdin = true
	p = r.start(req)
	if err := p.Signal(1000); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no such signal: %v", err)
	}
	if _, ok, err := p.Ended(); ok || err != nil {
		t.Errorf("a running process has ended: %t, %v", ok, err)
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if e := r.exit("b"); e.Code() != 137 {
		t.Errorf("exit %+v", e)
	}
}

// The owner comes back in everything that tells of a process.
func TestOwner(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "exit 4")
	req.Owner = "cri"
	if p := r.start(req); p.Owner != "cri" {
		t.Errorf("owner %q of the process", p.Owner)
	}
	r.exit("a")
	if got := r.owner("a"); got != "cri" {
		t.Errorf("owner %q of the event", got)
	}
	for _, owner := range []string{"CRI", "a b", "a_b", "0123456789abcdef0123456789abcdef0"} {
		req := r.request("b", "exit")
		req.Owner = owner
		if _, err := r.Client.Start(r.ctx(), req); !errdefs.IsInvalidArgument(err) {
			t.Errorf("owner %q: %v", owner, err)
		}
	}
	// The next keeper knows it from the journal.
	if err := r.Shutdown(r.ctx(), keeper.IfIdle); err != nil {
		t.Fatal(err)
	}
	r.disconnect()
	if _, err := r.process.Wait(); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	clear(r.exits)
	clear(r.owners)
	r.mu.Unlock()
	r.begin()
	r.exit("a")
	if got := r.owner("a"); got != "cri" {
		t.Errorf("owner %q of the remembered exit", got)
	}
	list, err := r.List(r.ctx())
	if err != nil || len(list) != 1 || list[0].Owner != "cri" {
		t.Errorf("list %v, %v", list, err)
	}
}
