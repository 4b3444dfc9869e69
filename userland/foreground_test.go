package userland

import (
	"os"
	"testing"
	"time"
)

// TestPrograms: an interrupt is passed on to a program that may not have existed when it came.
func TestPrograms(t *testing.T) {
	t.Parallel()
	var r programs
	now := time.Unix(1000, 0)
	interrupt := func(wantMissed int, wantNone bool) {
		t.Helper()
		if missed, none := r.interrupted(now); len(missed) != wantMissed || none != wantNone {
			t.Errorf("got %d programs, none at all %v; want %d, %v", len(missed), none, wantMissed,
				wantNone)
		}
	}
	started := func(p *os.Process, want bool) {
		t.Helper()
		if early := r.started(p, now); early != want {
			t.Errorf("an interrupt came since begin: %v, want %v", early, want)
		}
	}
	interrupt(0, true)
	one, two := &os.Process{Pid: 1}, &os.Process{Pid: 2}

	r.begin()
	interrupt(0, false)
	started(one, true)
	r.begin()
	started(two, false) // the interrupt was for the program before
	interrupt(2, false)
	now = now.Add(interruptDelay)
	interrupt(0, false) // the terminal's own reached them
	r.ended(one)
	interrupt(0, false)
	r.ended(two)
	interrupt(0, true)

	r.begin()
	r.begin()
	interrupt(0, false)
	started(nil, true) // could not be started
	started(two, true)
	r.ended(two)
	r.begin()
	started(nil, false)
	interrupt(0, true)
}
