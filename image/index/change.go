package index

import (
	"context"
	"fmt"
	"slices"

	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// change is one transaction on the index.
type change struct {
	layers   map[digest.Digest]Layer
	images   map[digest.Digest]Record
	refs     map[string]Ref
	dropRefs []string
	drop     []digest.Digest // images
}

// apply commits a change: one transaction that is the point where it becomes visible, then the
// memory. Callers hold editMu. It returns the layers that lost their last image.
func (x *Index) apply(ctx context.Context, c change) (orphans []digest.Digest, err error) {
	dropped := map[digest.Digest]bool{}
	for _, id := range c.drop {
		dropped[id] = true
	}
	// Which layers go is known before the transaction: editMu keeps the index as it is.
	for _, id := range c.drop {
		for _, o := range x.orphansOf(id, dropped) {
			if !slices.Contains(orphans, o) {
				orphans = append(orphans, o)
			}
		}
	}
	x.fault("image: transaction")
	err = x.db.Update(ctx, func(tx *bolt.Tx, roots Roots) error {
		return c.write(tx, roots, orphans)
	})
	if err != nil {
		return nil, fmt.Errorf("record image change: %w", err)
	}
	if c.makesGarbage() {
		x.removals++
	}
	x.fault("image: recorded")
	x.mu.Lock()
	defer x.mu.Unlock()
	for k, v := range c.layers {
		x.st.putLayer(k, v)
	}
	for id, rec := range c.images {
		x.st.putImage(id, rec)
	}
	for ref, r := range c.refs {
		x.st.putRef(ref, r)
	}
	for _, ref := range c.dropRefs {
		x.st.dropRef(ref)
	}
	for _, id := range c.drop {
		x.st.dropImage(id)
	}
	return orphans, nil
}

// orphansOf lists, top first, the layers of an image that only images in gone use.
func (x *Index) orphansOf(id digest.Digest, gone map[digest.Digest]bool) []digest.Digest {
	x.mu.RLock()
	defer x.mu.RUnlock()
	im, ok := x.st.images[id]
	if !ok {
		return nil
	}
	uses := map[digest.Digest]int{}
	for g := range gone {
		if o, ok := x.st.images[g]; ok {
			for _, c := range o.Rec.Layers {
				uses[c]++
			}
		}
	}
	var out []digest.Digest
	for i := len(im.Rec.Layers) - 1; i >= 0; i-- {
		if c := im.Rec.Layers[i]; x.st.layerUse[c] == uses[c] {
			out = append(out, c)
		}
	}
	return out
}

// write puts the change and the layers that it orphans into a transaction.
func (c *change) write(tx *bolt.Tx, roots Roots, orphans []digest.Digest) error {
	for k, v := range c.layers {
		if err := putJSON(tx, bucketLayers, k.String(), v); err != nil {
			return err
		}
	}
	for id, rec := range c.images {
		if err := putJSON(tx, bucketImages, id.String(), rec); err != nil {
			return err
		}
		if err := roots.Put(id.String(), rec.Target); err != nil {
			return err
		}
	}
	for ref, r := range c.refs {
		if err := putJSON(tx, bucketRefs, ref, r); err != nil {
			return err
		}
		if err := roots.Put(ref, r.Target); err != nil {
			return err
		}
	}
	for _, ref := range c.dropRefs {
		if err := deleteKey(tx, bucketRefs, ref); err != nil {
			return err
		}
		if err := roots.Drop(ref); err != nil {
			return err
		}
	}
	for _, id := range c.drop {
		if err := deleteKey(tx, bucketImages, id.String()); err != nil {
			return err
		}
		if err := roots.Drop(id.String()); err != nil {
			return err
		}
	}
	for _, o := range orphans {
		if err := deleteKey(tx, bucketLayers, o.String()); err != nil {
			return err
		}
	}
	if c.makesGarbage() {
		return setDirty(tx, true)
	}
	return nil
}

func (c *change) makesGarbage() bool { return len(c.drop)+len(c.dropRefs) > 0 }
