// Package server is the keeper process: the parent of containers. What it promises is written at
// package keeper.
//
// It is one event loop (epoll(7)) over everything that can happen: requests, output, room in a slow
// subscriber, the end of a process. The only other goroutines are those that clone, because the
// kernel takes a millisecond to make namespaces; everything else they do waits for the loop's lock.
// An idle container costs the keeper some kilobytes and no goroutine.
//
// One lock: server.mu guards all state but what a clone works on. Handlers run with it held and
// never wait for anything but the disk that holds logs and journal, and, when a guard is started or
// does not take messages, for the guard, at most two seconds.
//
// Custody: the guard and the journal (custody.go) are what the next keeper needs if this one is
// killed (recovery.go). A process is in both before a client is told that it runs. Output passes
// through memory that the guard holds too (flight.go). What a client has given to be kept (kept.go)
// is held by keeper and guard like the process's own descriptors. End commands (command.go) are the
// only processes that the keeper starts by itself, beside the guard.
//
// Not for: being linked into anything but the keeper's command.
//
// Tested with keepers in processes of their own, which are killed, upgraded and lied to, and which
// start real children.
package server
