package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/container/program"
)

// children are the keeper's, dead or alive.
func (r *rig) children() []string {
	r.t.Helper()
	var all []string
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.Pid()))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, thread := range threads {
		// A thread may have ended.
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", r.Pid(), thread.Name()))
		all = append(all, strings.Fields(string(raw))...)
	}
	slices.Sort(all)
	return all
}

// noMoreChildren fails if the keeper does not go back to the children that it had: one that it does
// not reap keeps the PID namespace of a container from ending.
func (r *rig) noMoreChildren(before []string) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for after := r.children(); !slices.Equal(before, after); after = r.children() {
		if time.Now().After(deadline) {
			r.t.Fatalf("the keeper's children: %v before, %v now", before, after)
		}
		unix.Poll(nil, 10)
	}
}

// A program that goes on in another process, which fails before the first one has ended.
func TestForkFails(t *testing.T) {
	r := newRig(t)
	r.start(r.request("b", "exec sleep 100")) // and a guard
	before := r.children()
	for i := range 100 {
		req := r.request("a", "")
		req.Image = image(t, func(b *program.Builder) {
			b.Fork(0)
			b.Fail(program.Num(uint64(unix.ENOEXEC)))
		})
		if _, err := r.Start(r.ctx(), req); !errors.Is(err, unix.ENOEXEC) {
			t.Fatalf("start %d: %v, want ENOEXEC", i, err)
		}
	}
	r.noMoreChildren(before)
}

// Starts that are given up, at many moments, while the program goes on in another process.
func TestForkAborted(t *testing.T) {
	r := newRig(t)
	r.start(r.request("b", "exec sleep 100")) // and a guard
	before := r.children()
	for i := range 200 {
		req := r.request("a", "exec sleep 100")
		req.Image = image(t, func(b *program.Builder) {
			b.Fork(0)
			shell(b, "exec sleep 100")
		})
		after := time.Duration(i) * 20 * time.Microsecond
		ctx, cancel := context.WithTimeout(context.Background(), after)
		p, err := r.Start(ctx, req)
		if err == nil {
			p.Close()
		}
		cancel()
		if err := r.Abort(r.ctx(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	r.noMoreChildren(before)
}

// A program that goes on in another process, and does not get on there, as in a frozen group, keeps
// the keeper from nothing else.
func TestForkWaits(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "")
	req.Image = image(t, func(b *program.Builder) {
		b.Fork(0)
		b.Call(unix.SYS_PPOLL, program.Num(0), program.Num(0), program.Num(0), program.Num(0))
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := r.Start(ctx, req)
		done <- err
	}()
	for range 20 {
		other := r.request("b", "exit 3")
		r.start(other)
		if e := r.exit("b"); e.Code() != 3 {
			t.Errorf("exit %+v", e)
		}
		r.mu.Lock()
		delete(r.exits, "b")
		r.mu.Unlock()
		if err := r.Forget(r.ctx(), "b"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
