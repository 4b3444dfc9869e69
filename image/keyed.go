package image

import (
	"context"
	"sync"
)

// keyed is a set of locks by name, for work that must not be done twice at the same time. The zero
// value is ready.
type keyed struct {
	mu sync.Mutex
	m  map[string]*keyLock // guarded by mu
}

type keyLock struct {
	ch      chan struct{}
	waiters int
}

// lock waits for the name and returns the unlock function.
func (k *keyed) lock(name string) func() {
	unlock, _ := k.lockContext(context.Background(), name)
	return unlock
}

// lockContext is lock that gives up with ctx.
func (k *keyed) lockContext(ctx context.Context, name string) (func(), error) {
	k.mu.Lock()
	if k.m == nil {
		k.m = map[string]*keyLock{}
	}
	l, ok := k.m[name]
	if !ok {
		l = &keyLock{ch: make(chan struct{}, 1)}
		k.m[name] = l
	}
	l.waiters++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.waiters--; l.waiters == 0 {
			delete(k.m, name)
		}
	}
	select {
	case l.ch <- struct{}{}:
		return func() { <-l.ch; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
