package keylock

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

// TestSet has goroutines count under locks of two names.
func TestSet(t *testing.T) {
	t.Parallel()
	var s Set
	counts := map[string]*int{"a": new(int), "b": new(int)}
	var wg sync.WaitGroup
	for name, n := range counts {
		for range 50 {
			wg.Go(func() {
				defer s.Lock(name)()
				*n++ // the race detector sees a lock that does not lock
			})
		}
	}
	wg.Wait()
	if *counts["a"] != 50 || *counts["b"] != 50 {
		t.Errorf("counted %d and %d, want 50", *counts["a"], *counts["b"])
	}
	if len(s.m) != 0 {
		t.Errorf("%d names are left", len(s.m))
	}
}

func TestWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s Set
		unlock := s.Lock("a")
		if _, ok := s.TryLock("a"); ok {
			t.Error("a held name was locked again")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := s.LockContext(ctx, "a")
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that of the context", err)
		}
		other, ok := s.TryLock("b")
		if !ok {
			t.Fatal("a free name is locked")
		}
		locked := make(chan struct{})
		go func() { defer s.Lock("b")(); close(locked) }()
		synctest.Wait()
		select {
		case <-locked:
			t.Error("TryLock did not lock")
		default:
		}
		other()
		<-locked
		unlock()
		synctest.Wait()
		if len(s.m) != 0 {
			t.Errorf("%d names are left", len(s.m))
		}
	})
}
