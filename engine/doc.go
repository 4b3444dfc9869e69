// Package engine is the life of containers: it turns wishes into running containers and keeps what
// it acknowledged across its own death. It knows no wire protocol.
//
// What happens is decided by pure functions (step in machine.go, shouldRestart, judge, ociSpec) and
// carried out by thin drivers. Promises:
//
//   - A create, start or removal completes or leaves nothing behind: no process, mount, cgroup,
//     address, rule or file, also when the engine is killed in the middle. What a killed engine
//     left is removed by the next Open.
//   - Containers outlive the engine. The next one adopts the running ones, learns of every exit
//     from the keeper, and applies restart policies.
//   - Reads (List, Inspect, Wait) take memory only. An idle container has no goroutine.
//   - The root file system of a container is never mounted in the host's view.
//
// Locks, in order: container.op (held while the kernel works; an operation never holds those of two
// containers), then Engine.mu (the maps), then container.mu (the fields). The last two are held for
// moments and never while anything blocks. Volumes, events and the syncer have locks of their own
// below these.
//
// Not for: HTTP or gRPC (api/...), image formats (image), packets (network), processes (container,
// keeper).
//
// Tested by tables and scripts for the pure parts, with fakes for the drivers, and with real
// containers, killed engines included, where the tests run as root.
package engine
