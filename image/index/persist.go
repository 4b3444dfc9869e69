package index

import (
	"context"
	"encoding/json"
	"fmt"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// DB is the database that the index lives in, together with containerd's own records.
type DB interface {
	View(fn func(*bolt.Tx) error) error
	// Update runs fn in one write transaction, which is durable when Update returns nil.
	Update(ctx context.Context, fn func(*bolt.Tx, Roots) error) error
}

// Roots are the garbage-collection roots of the transaction they were handed out with.
type Roots interface {
	// Put makes a descriptor a root under a name, in the place of the one that had it.
	Put(name string, target ocispec.Descriptor) error
	// Drop removes a root; one that is not there is no error.
	Drop(name string) error
}

// What is at rest, as JSON values in a bucket of the database:
//
//	strake / images / <config digest>   Record
//	strake / layers / <chain ID>        Layer
//	strake / refs   / <reference>       Ref
//	strake / dirty                      present while garbage may be left behind
//	strake / format                     formatVersion

const formatVersion = 1

var (
	bucketStrake = []byte("strake")
	bucketImages = []byte("images")
	bucketLayers = []byte("layers")
	bucketRefs   = []byte("refs")
	keyDirty     = []byte("dirty")
	keyFormat    = []byte("format")
)

// load reads the index from the database.
func (x *state) load(tx *bolt.Tx) error {
	top := tx.Bucket(bucketStrake)
	if top == nil {
		return nil
	}
	if v := top.Get(keyFormat); string(v) != fmt.Sprint(formatVersion) {
		return fmt.Errorf("image index has format %q, this program reads %d", v, formatVersion)
	}
	if err := forEachJSON(
		top.Bucket(bucketLayers), func(k string, l Layer) { x.layers[digest.Digest(k)] = l },
	); err != nil {
		return err
	}
	if err := forEachJSON(
		top.Bucket(bucketRefs), func(k string, r Ref) { x.refs[k] = r },
	); err != nil {
		return err
	}
	byID := map[digest.Digest][]string{}
	for ref, r := range x.refs {
		byID[r.ID] = append(byID[r.ID], ref)
	}
	return forEachJSON(top.Bucket(bucketImages), func(k string, rec Record) {
		id := digest.Digest(k)
		im := &Entry{ID: id, Rec: rec}
		for _, c := range rec.Layers {
			im.Size += x.layers[c].Size
			x.layerUse[c]++
		}
		if rec.Parent != "" && !rec.Removed {
			x.children[rec.Parent]++
		}
		for _, ref := range byID[id] {
			im.addName(ref)
		}
		im.sortNames()
		x.images[id] = im
	})
}

func forEachJSON[T any](b *bolt.Bucket, fn func(string, T)) error {
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error {
		var t T
		if err := json.Unmarshal(v, &t); err != nil {
			return fmt.Errorf("image index: record %q: %w", k, err)
		}
		fn(string(k), t)
		return nil
	})
}

// putJSON stores a record below strake/<bucket>.
func putJSON(tx *bolt.Tx, bucket []byte, key string, v any) error {
	top, err := tx.CreateBucketIfNotExists(bucketStrake)
	if err != nil {
		return err
	}
	if top.Get(keyFormat) == nil {
		if err := top.Put(keyFormat, []byte(fmt.Sprint(formatVersion))); err != nil {
			return err
		}
	}
	b, err := top.CreateBucketIfNotExists(bucket)
	if err != nil {
		return err
	}
	j, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put([]byte(key), j)
}

func deleteKey(tx *bolt.Tx, bucket []byte, key string) error {
	if b := tx.Bucket(bucketStrake); b != nil {
		if b = b.Bucket(bucket); b != nil {
			return b.Delete([]byte(key))
		}
	}
	return nil
}

// setDirty notes in the transaction that removes something that a collection is due, so that a
// crash in between is made good at Open.
func setDirty(tx *bolt.Tx, dirty bool) error {
	top, err := tx.CreateBucketIfNotExists(bucketStrake)
	if err != nil {
		return err
	}
	if top.Get(keyFormat) == nil {
		if err := top.Put(keyFormat, []byte(fmt.Sprint(formatVersion))); err != nil {
			return err
		}
	}
	if dirty {
		return top.Put(keyDirty, []byte{1})
	}
	return top.Delete(keyDirty)
}

func isDirty(tx *bolt.Tx) bool {
	top := tx.Bucket(bucketStrake)
	return top != nil && top.Get(keyDirty) != nil
}
