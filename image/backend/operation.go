package backend

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Operation is a lease that keeps what is made under it. It ends with End; if the process ends
// before, Recover ends it.
type Operation struct {
	b     *Backend
	lease leases.Lease
	// mu is held while resources are added, so that a second Hold of the same one returns only when
	// the first one is recorded.
	mu   sync.Mutex
	held map[leases.Resource]bool // guarded by mu
}

// Begin starts an operation.
func (b *Backend) Begin(ctx context.Context) (*Operation, error) {
	b.fault("image: begin")
	l, err := b.stores.Leases.Create(Context(ctx), func(l *leases.Lease) error {
		l.ID = "operation-" + rand.Text()
		l.Labels = map[string]string{leaseLabel: "1"}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("begin image operation: %w", err)
	}
	return &Operation{b: b, lease: l, held: map[leases.Resource]bool{}}, nil
}

// In returns ctx with the namespace and the lease, for calls of Stores. A lease that ctx carried is
// replaced.
func (o *Operation) In(ctx context.Context) context.Context {
	return leases.WithLease(Context(ctx), o.lease.ID)
}

// End gives the lease up, also when ctx is done: what no root reaches by then is garbage.
func (o *Operation) End(ctx context.Context) {
	o.b.fault("image: end")
	ctx = context.WithoutCancel(Context(ctx))
	if err := o.b.stores.Leases.Delete(ctx, o.lease); err != nil {
		o.b.log.Warn("end image operation", "error", err)
	}
}

// Hold adds existing blobs, and layers by their chain IDs, to the lease. What is named need not
// exist; the order "hold, then look" is what makes a later look reliable. What the operation holds
// already costs nothing, all else one transaction.
func (o *Operation) Hold(ctx context.Context, blobs, chains []digest.Digest) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var missing []leases.Resource
	add := func(r leases.Resource) {
		if !o.held[r] {
			missing = append(missing, r)
		}
	}
	for _, d := range blobs {
		add(leases.Resource{ID: d.String(), Type: "content"})
	}
	for _, c := range chains {
		add(leases.Resource{ID: c.String(), Type: "snapshots/" + SnapshotterName})
	}
	if len(missing) == 0 {
		return nil
	}
	err := o.b.meta.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(Context(ctx), tx)
		for _, r := range missing {
			if err := o.b.stores.Leases.AddResource(ctx, o.lease, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep image data for an operation: %w", err)
	}
	for _, r := range missing {
		o.held[r] = true
	}
	return nil
}
