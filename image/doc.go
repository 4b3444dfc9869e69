// Package image is the engine's image store: images, their layers and the writable layers of
// containers.
//
// containerd's core libraries run in this process (metadata over bbolt, content, overlay snapshots,
// remotes); there is no daemon and no RPC between us and them, and none of their types leave this
// package. Promises:
//
//   - An image's ID is the digest of its configuration, so it is the same for every registry,
//     compression and archive form it came through. The bytes that were pulled are kept as they
//     were: pushing a pulled manifest gives the same digest.
//   - An image is visible whole or not at all. Layers are unpacked under a lease; one syncfs(2)
//     makes them durable; one database transaction then creates the image, its references and its
//     garbage-collection roots. Whatever a crash leaves behind before that transaction is collected
//     by the next Open. Partial downloads survive and are resumed.
//   - Listing and resolving read an index in memory and never a manifest. Prepare and Release of a
//     container's root file system are a few directory operations and touch no database.
//   - Bytes belong to someone: layers and blobs go with the last image that needs them, layers of a
//     removed image stay while a container uses them.
//   - Archives are untrusted; see package image/layer.
//
// Locks, in order: Store.commitMu (one writer of the index at a time), Store.mu (the maps),
// rootfsMu (container directories). keyed locks are taken before all of them.
//
// Not for: mounting (the caller gets host paths), deciding which containers use an image
// (Config.InUse answers), signatures, schema 1 manifests, other operating systems than Linux.
//
// Tested by tables per operation, by archives that the tests build themselves, against an
// in-process registry, and by killing a process of the test binary at many points of a load and
// opening the store again.
package image
