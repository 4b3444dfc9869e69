// Package image is the engine's image store: images, their layers and the writable layers of
// containers.
//
// Store is the facade. The parts below it can be read, and most of them used, alone:
//
//	backend   containerd's stores in this process: blobs, directories, leases, collection
//	index     images, layers and references, in memory and in the database
//	document  manifests and configurations; Source, the read-only view of an image
//	unpack    layer archives become overlay directories; package layer reads the archives
//	registry  pulls, pushes, tags, credentials
//	archive   docker save, docker load and OCI layouts
//	rootfs    the writable layers of containers
//
// Whatever brings an image (registry, archive, import, commit, a build) is a document.Source, and
// one publication brings any of them into the store. Types of containerd's libraries leave this
// package through Backends alone. Promises:
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
//   - Every byte has an owner: layers and blobs go with the last image or lease that needs them,
//     layers of a removed image stay while a container uses them. Partial downloads go with Prune,
//     or after a day.
//   - A full disk is a state like any other: what failed leaves nothing, and removals work.
//   - Archives are untrusted; see package image/layer.
//
// Locks, in order: an image's name for packing, those of rootfs keys, of layers and of blobs
// (keylock); then index.Index.editMu, index.Index.mu, rootfs.Table.mu.
//
// Not for: mounting (the caller gets host paths), deciding which containers use an image
// (Config.InUse answers), signatures, schema 1 manifests, other operating systems than Linux.
//
// Tested by tables per operation, by archives that the tests build themselves, against an
// in-process registry, on a full disk, and by killing a process of the test binary at every step of
// a pull, a load, an adoption and a removal and opening the store again.
package image
