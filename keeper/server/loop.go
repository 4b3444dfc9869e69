package server

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// loop waits for events on descriptors and calls what was registered for them.
type loop struct {
	ep       int
	watchers map[int]watcher // by descriptor
	last     int32           // generation of the newest watcher
}

// watcher is what to do about a descriptor. The generation keeps an event that was fetched before
// the descriptor was closed from reaching the watcher that has the number now.
type watcher struct {
	generation int32
	events     uint32
	ready      func(events uint32)
}

func newLoop() (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &loop{ep: ep, watchers: make(map[int]watcher)}, nil
}

// watch begins or changes the watching of fd. EPOLLERR and EPOLLHUP come in any case.
func (l *loop) watch(fd int, events uint32, ready func(events uint32)) error {
	op := unix.EPOLL_CTL_ADD
	if _, ok := l.watchers[fd]; ok {
		op = unix.EPOLL_CTL_MOD
	}
	l.last++
	if err := unix.EpollCtl(
		l.ep, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: l.last},
	); err != nil {
		return fmt.Errorf("epoll_ctl on descriptor %d: %w", fd, err)
	}
	l.watchers[fd] = watcher{l.last, events, ready}
	return nil
}

// rearm reports again what is the case now, for a watcher with EPOLLET.
func (l *loop) rearm(fd int) {
	if w, ok := l.watchers[fd]; ok {
		unix.EpollCtl(
			l.ep, unix.EPOLL_CTL_MOD, fd,
			&unix.EpollEvent{Events: w.events, Fd: int32(fd), Pad: w.generation},
		)
	}
}

// ignore ends the watching of fd, before it is closed: a duplicate elsewhere would keep it
// registered.
func (l *loop) ignore(fd int) {
	if _, ok := l.watchers[fd]; ok {
		unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, fd, nil)
		delete(l.watchers, fd)
	}
}

// wait returns the number of events, 0 after the timeout (negative: none).
func (l *loop) wait(events []unix.EpollEvent, timeout time.Duration) (int, error) {
	ms := -1
	if timeout >= 0 {
		ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	n, err := unix.EpollWait(l.ep, events, ms)
	if err == unix.EINTR {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("epoll_wait: %w", err)
	}
	return n, nil
}

func (l *loop) dispatch(events []unix.EpollEvent) {
	for i := range events {
		if w, ok := l.watchers[int(events[i].Fd)]; ok && w.generation == events[i].Pad {
			w.ready(events[i].Events)
		}
	}
}
