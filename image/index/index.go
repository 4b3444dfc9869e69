package index

import (
	"context"
	"sync"
	"time"

	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"strake/image/document"
	"strake/image/name"
)

// Index is an open index. All methods may be called concurrently.
type Index struct {
	db    DB
	fault func(step string)
	// editMu admits one change at a time: database first, memory second.
	editMu   sync.Mutex
	removals int // changes that made garbage; guarded by editMu
	mu       sync.RWMutex
	st       *state // guarded by mu
}

// Open reads the index from its database. fault is called before and after each transaction, with
// the step's name.
func Open(db DB, fault func(step string)) (*Index, error) {
	x := &Index{db: db, fault: fault, st: newState()}
	return x, db.View(x.st.load)
}

// Find resolves what a user wrote: name[:tag], name@digest, a full ID, or an unambiguous prefix of
// an ID, in dockerd's order. matched is the complete reference; empty when the image was named by
// its ID. Errors: ErrNotFound ("No such image: ..."), ErrInvalidArgument (not a reference).
func (x *Index) Find(ref string) (im *Entry, matched string, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.st.find(ref)
}

// Select resolves references, each image once. A bare repository name means all its tags, as docker
// save has it. Errors are those of Find.
func (x *Index) Select(refs []string) ([]*Selection, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.st.selection(refs)
}

// Image finds an image by its ID, also one that was removed while it was held.
func (x *Index) Image(id digest.Digest) (*Entry, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	im, ok := x.st.images[id]
	return im, ok
}

// Ref finds what a complete reference names.
func (x *Index) Ref(ref string) (Ref, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r, ok := x.st.refs[ref]
	return r, ok
}

// Layer finds an unpacked layer by its chain ID.
func (x *Index) Layer(chain digest.Digest) (Layer, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	l, ok := x.st.layers[chain]
	return l, ok
}

// Layers lists the layers of an image, base first.
func (x *Index) Layers(im *Entry) []Layer {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.st.layersOf(im)
}

// Ancestry lists an image and the images that it was committed from, as far as they are here.
func (x *Index) Ancestry(im *Entry) []*Entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []*Entry
	for p := im; p != nil; p = x.st.images[p.Rec.Parent] {
		out = append(out, p)
	}
	return out
}

// Concealed lists the images that were removed while they were held.
func (x *Index) Concealed() []digest.Digest {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []digest.Digest
	for id, im := range x.st.images {
		if im.Rec.Removed {
			out = append(out, id)
		}
	}
	return out
}

// Totals counts visible images and the layers of all, and adds up the sizes of those in bytes, each
// once.
func (x *Index) Totals() (images, layers int, layerBytes int64) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, im := range x.st.images {
		if !im.Rec.Removed {
			images++
		}
	}
	for c := range x.st.layerUse {
		layers++
		layerBytes += x.st.layers[c].Size
	}
	return images, layers, layerBytes
}

// Retain calls hold in the same critical section that sees an image visible, and returns the
// image's layers, base first. Remove looks the other way round, so that an image either is not
// visible to Retain or is held for Remove. hold must not call the index. The error for an image
// that is not visible is ErrNotFound.
func (x *Index) Retain(id digest.Digest, hold func()) ([]Layer, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	im, ok := x.st.images[id]
	if !ok || im.Rec.Removed {
		return nil, NotFound(id.String())
	}
	hold()
	return x.st.layersOf(im), nil
}

// Dirty says whether a removal was recorded after which nothing was collected.
func (x *Index) Dirty() (dirty bool, err error) {
	err = x.db.View(func(tx *bolt.Tx) error { dirty = isDirty(tx); return nil })
	return dirty, err
}

// Clean runs a collection and records that it ended, unless something was removed meanwhile.
func (x *Index) Clean(ctx context.Context, collect func(context.Context) error) error {
	x.editMu.Lock()
	before := x.removals
	x.editMu.Unlock()
	if err := collect(ctx); err != nil {
		return err
	}
	x.editMu.Lock()
	defer x.editMu.Unlock()
	if x.removals != before {
		return nil // its own collection records it
	}
	return x.db.Update(ctx, func(tx *bolt.Tx, _ Roots) error { return setDirty(tx, false) })
}

// New is an image that is about to become visible. All blobs and layers that it names exist, are
// durable and are kept by a lease of the caller.
type New struct {
	// ID is the digest of the configuration.
	ID digest.Digest
	// Record is filled but for LastTagged and Removed.
	Record Record
	Layers map[digest.Digest]Layer // by chain ID
	Refs   []string                // complete references, tags or digests
}

// Publish makes an image visible in one transaction. moved are the references that named another
// image before, with its ID. The manifest that an image came with first stays its own; further ones
// belong to their references.
func (x *Index) Publish(ctx context.Context, n New) (moved map[string]digest.Digest, err error) {
	x.editMu.Lock()
	defer x.editMu.Unlock()
	rec := n.Record
	moved = map[string]digest.Digest{}
	x.mu.RLock()
	if old, ok := x.st.images[n.ID]; ok {
		rec.LastTagged = old.Rec.LastTagged
		if rec.Parent == "" {
			rec.Parent = old.Rec.Parent
		}
		if !old.Rec.Removed {
			rec.Target, rec.Manifest = old.Rec.Target, old.Rec.Manifest
		}
	}
	for _, ref := range n.Refs {
		if r, ok := x.st.refs[ref]; ok && r.ID != n.ID {
			moved[ref] = r.ID
		}
	}
	x.mu.RUnlock()
	c := change{images: map[digest.Digest]Record{}, layers: n.Layers, refs: map[string]Ref{}}
	for _, ref := range n.Refs {
		c.refs[ref] = Ref{ID: n.ID, Target: document.Slim(n.Record.Target)}
	}
	if len(n.Refs) > 0 {
		rec.LastTagged = time.Now().UTC()
	}
	c.images[n.ID] = rec
	_, err = x.apply(ctx, c)
	return moved, err
}

// Tag gives the image that src finds another name, which it takes from the image that had it.
// Errors: those of Find and name.Tag.
func (x *Index) Tag(ctx context.Context, src, ref string) error {
	t, err := name.Tag(ref)
	if err != nil {
		return err
	}
	x.editMu.Lock()
	defer x.editMu.Unlock()
	im, matched, err := x.Find(src)
	if err != nil {
		return err
	}
	target := document.Slim(im.Rec.Target)
	if r, ok := x.Ref(matched); ok {
		target = r.Target
	}
	rec := im.Rec
	rec.LastTagged = time.Now().UTC()
	_, err = x.apply(ctx, change{
		images: map[digest.Digest]Record{im.ID: rec},
		refs:   map[string]Ref{t.String(): {ID: im.ID, Target: target}},
	})
	return err
}

// AddRef gives an image a further reference, which names target. An image that was removed
// meanwhile is no error.
func (x *Index) AddRef(
	ctx context.Context, id digest.Digest, ref string, target ocispec.Descriptor,
) error {
	x.editMu.Lock()
	defer x.editMu.Unlock()
	if _, known := x.Image(id); !known {
		return nil
	}
	_, err := x.apply(
		ctx, change{refs: map[string]Ref{ref: {ID: id, Target: document.Slim(target)}}},
	)
	return err
}

// Received says whether a digest reference names an image's own manifest, so that a registry has
// it.
func (x *Index) Received(im *Entry) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for ref, r := range x.st.refs {
		if r.ID != im.ID || r.Target.Digest != im.Rec.Manifest.Digest {
			continue
		}
		if named, err := reference.ParseNamed(ref); err == nil {
			if _, byDigest := named.(reference.Digested); byDigest {
				return true
			}
		}
	}
	return false
}

// Repack puts a manifest that is durable in the place of an image's own one, wherever that is
// named. An image that was removed meanwhile is no error.
func (x *Index) Repack(ctx context.Context, id digest.Digest, d ocispec.Descriptor) error {
	x.editMu.Lock()
	defer x.editMu.Unlock()
	now, known := x.Image(id)
	if !known {
		return nil
	}
	c := change{images: map[digest.Digest]Record{}, refs: map[string]Ref{}}
	rec, old := now.Rec, now.Rec.Manifest.Digest
	x.mu.RLock()
	for ref, r := range x.st.refs {
		if r.ID == id && r.Target.Digest == old {
			c.refs[ref] = Ref{ID: id, Target: d}
		}
	}
	x.mu.RUnlock()
	if rec.Target.Digest == old {
		rec.Target = d
	}
	rec.Manifest = d
	c.images[id] = rec
	_, err := x.apply(ctx, c)
	return err
}
