// Package keeper is the engine's side of the keeper: the small process that is the parent of all
// containers, owns their standard streams, terminals and logs, reaps them and remembers how they
// ended. One keeper serves one engine instance.
//
// What it promises:
//
//   - The engine may die at any instant. Containers, their output and their logs go on; an exit
//     status is remembered, in memory and on disk, until an engine has called Forget. A new engine
//     dials the same socket and lists everything, descriptors included.
//   - The keeper may be killed at any instant, and the engine with it. A guard, a process of a few
//     pages that the keeper has started, holds duplicates of all descriptors of running processes,
//     so none of them gets SIGPIPE or loses its terminal. A new keeper on the same state directory
//     takes the processes back by itself: it goes on with their logs, reads what was written
//     meanwhile, and learns how those ended that have. If keeper and guard are gone both, an engine
//     that still holds duplicates (Process) hands them over (Client.Adopt).
//   - What a dead keeper had read and not yet written to a log because its line was not finished is
//     lost, at most 16 KiB for each stream. Finished lines that it was about to write are in memory
//     that the guard holds too, and are written by the next keeper.
//   - Output reaches every subscriber in order, without loss and without repetition, as long as it
//     is not slower than what Attachment.Overflow says. Nothing that a subscriber does blocks
//     another container.
//   - A process can have descriptors that are held until it is forgotten, and given to every client
//     that asks (StartRequest.Keep): by the keeper, the guard, and the next keeper.
//   - A process can have an end command, which the keeper executes when the process has ended, at
//     least once, whatever happens to the keeper meanwhile (StartRequest.EndCommand).
//   - A keeper replaces its own program in place (Client.Upgrade): same pid, same children, same
//     connections.
//
// Not for: deciding what runs (package engine), what a container is (container/plan), restarting
// anything, reading logs. The keeper parses nothing that a user has written.
//
// The process itself is package keeper/server, the messages are keeper/wire, logs are written by
// keeper/logwriter and read by keeper/logfile. Tested together in keeper/server, with real children
// and keepers that are killed.
package keeper
