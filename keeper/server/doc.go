// Package server is the keeper process: the parent of containers. What it promises is written at
// package keeper.
//
// It is one event loop (epoll(7)) over everything that can happen: requests, output, room in a slow
// subscriber, the end of a process. The only other goroutines are those that clone, because the
// kernel takes a millisecond to make namespaces; everything else they do waits for the loop's lock.
// An idle container costs the keeper a few hundred bytes and no goroutine.
//
// One lock: server.mu guards all state but what a clone works on. Handlers run with it held and
// never wait for anything but the disk that holds the logs.
//
// Not for: being linked into anything but the keeper's command.
package server
