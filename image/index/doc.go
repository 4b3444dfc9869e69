// Package index is the record of images, their layers and references: the denormalised view that
// lists and lookups are answered from.
//
// It lives in memory and, as JSON values, in a bucket of the metadata database, where one
// transaction changes it together with containerd's garbage-collection roots. Promises:
//
//   - Reading costs no I/O.
//   - A change is one transaction, then memory: what a method returned nil for survives a crash,
//     and what it returned an error for did not happen.
//   - The rules of removal are dockerd's; they are planned on a copy and then carried out at once.
//
// Locks, in order: Index.editMu (one change at a time), Index.mu (the maps). Callbacks that are
// called with the maps locked say so.
//
// Not for: the bytes of images, which have to exist before Publish and are collected after Remove.
//
// Tested by tables of lookups, of removal plans and of list filters, on maps alone, and by changes
// of every kind after which memory, database and roots are compared. What a crash leaves of a
// change is tested in package image.
package index
