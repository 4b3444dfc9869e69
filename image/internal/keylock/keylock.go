// Package keylock is a set of locks by name, for work that must not be done twice at the same time.
//
// Not for: locks between processes, fairness.
package keylock

import (
	"context"
	"sync"
)

// Set is a set of locks by name. A name that is neither locked nor waited for takes no memory. The
// zero value is ready; all methods may be called concurrently.
type Set struct {
	mu sync.Mutex
	m  map[string]*lock // guarded by mu
}

type lock struct {
	ch      chan struct{}
	waiters int // guarded by Set.mu; the holder counts as one
}

// Lock waits for the name and returns the unlock function.
func (s *Set) Lock(name string) func() {
	unlock, _ := s.LockContext(context.Background(), name)
	return unlock
}

// LockContext is Lock that gives up with ctx; the error is then that of ctx.
func (s *Set) LockContext(ctx context.Context, name string) (unlock func(), err error) {
	l, _ := s.enter(name, false)
	select {
	case l.ch <- struct{}{}:
		return func() { <-l.ch; s.leave(name, l) }, nil
	case <-ctx.Done():
		s.leave(name, l)
		return nil, ctx.Err()
	}
}

// TryLock locks the name unless another goroutine holds it or waits for it.
func (s *Set) TryLock(name string) (unlock func(), ok bool) {
	l, ok := s.enter(name, true)
	if !ok {
		return nil, false
	}
	return func() { <-l.ch; s.leave(name, l) }, true
}

// enter counts one more user of a name; alone: only if it is the first one, which then holds it.
func (s *Set) enter(name string, alone bool) (*lock, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, known := s.m[name]
	if known && alone {
		return nil, false
	}
	if !known {
		if s.m == nil {
			s.m = map[string]*lock{}
		}
		l = &lock{ch: make(chan struct{}, 1)}
		s.m[name] = l
		if alone {
			l.ch <- struct{}{} // before another goroutine can see it
		}
	}
	l.waiters++
	return l, true
}

func (s *Set) leave(name string, l *lock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.waiters--; l.waiters == 0 {
		delete(s.m, name)
	}
}
