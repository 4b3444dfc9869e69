package image

import (
	"context"

	"strake/image/backend"
)

// Backends are containerd's stores that the image store keeps its data in, for programs that write
// images themselves, as a build does. They may be used concurrently until Store.Close.
//
// Every call needs a context of Context: it names the namespace. A caller may:
//
//   - write blobs and snapshots and read all there are. Each write needs a lease of the caller's
//     own in the context (leases.WithLease): a blob or snapshot that neither a lease nor an image
//     refers to is deleted by the next collection, which any removal or failed operation may start.
//     What existed before is added to the lease first and looked at second.
//   - keep a lease as long as it wants. Leases survive Close and a crash; Open deletes only those
//     with the label "strake/operation", which no caller may set. A caller finds its leases again
//     by a label of its own and deletes those it does not know. After it deletes a lease it calls
//     Store.Collect, which deletes what the lease alone kept.
//   - make an image of what it wrote visible with Store.Adopt.
//
// A caller must not change or delete blobs, snapshots, leases and labels that it did not make, must
// not create records in Images (they would be garbage-collection roots that no removal of an image
// knows), must not collect through DB, which would run beside the store's own collection, and must
// not close anything. Blobs whose ingestion reference begins with "download-" are the store's.
type Backends struct {
	// Namespace is containerd's namespace of everything here.
	Namespace string
	// SnapshotterName is the name of Snapshots in garbage-collection labels and lease resources
	// ("snapshots/" + name).
	SnapshotterName string
	// Content, Snapshots and Leases are to be used; Images, the garbage-collection roots, are to be
	// read only. DB is the metadata database above all of them, for libraries that ask for it.
	backend.Stores
}

// Context returns ctx with the namespace, and with a logger that is silent: errors are returned.
func (b Backends) Context(ctx context.Context) context.Context { return backend.Context(ctx) }

// Backends returns the stores below this one; see the type for what may be done with them.
func (s *Store) Backends() Backends {
	return Backends{
		Namespace: backend.Namespace, SnapshotterName: backend.SnapshotterName,
		Stores: s.backend.Stores(),
	}
}
