package image

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// The index is the denormalised view that lists and lookups are answered from. It lives in memory
// and, as JSON values, in a bucket of the metadata database, where one transaction changes it
// together with containerd's own records.
//
//	strake / images / <config digest>   imageRecord
//	strake / layers / <chain ID>        layerRecord
//	strake / refs   / <reference>       refRecord
//	strake / dirty                      present while garbage may be left behind

const formatVersion = 1

var (
	bucketStrake = []byte("strake")
	bucketImages = []byte("images")
	bucketLayers = []byte("layers")
	bucketRefs   = []byte("refs")
	keyDirty     = []byte("dirty")
	keyFormat    = []byte("format")
)

// imageRecord is one image at rest.
type imageRecord struct {
	// Target is what keeps the content alive: the manifest, or the index it came from.
	Target ocispec.Descriptor `json:"target"`
	// Manifest is the one manifest of the image's platform.
	Manifest ocispec.Descriptor `json:"manifest"`
	Platform ocispec.Platform   `json:"platform"`
	Created  time.Time          `json:"created"`
	Labels   map[string]string  `json:"labels,omitempty"`
	// Layers are chain IDs, base first (image-spec config.md, "Layer ChainID").
	Layers []digest.Digest `json:"layers,omitempty"`
	// Parent is the image this one was committed from.
	Parent     digest.Digest `json:"parent,omitempty"`
	LastTagged time.Time     `json:"lastTagged"`
	// Removed marks an image that only lives on because containers stand on its layers.
	Removed bool `json:"removed,omitempty"`
}

// layerRecord is one unpacked layer at rest.
type layerRecord struct {
	Diff digest.Digest `json:"diff"`
	// Dir is the overlay directory, relative to the snapshotter's root.
	Dir string `json:"dir"`
	// Size is the sum of the file sizes in bytes.
	Size int64 `json:"size"`
}

// refRecord is a tag or a digest reference at rest.
type refRecord struct {
	ID     digest.Digest      `json:"id"`
	Target ocispec.Descriptor `json:"target"`
}

// image is the in-memory form. It is immutable once it is in the index; a change replaces it.
type image struct {
	id  digest.Digest
	rec imageRecord
	// size is the sum of the layers' sizes.
	size    int64
	tags    []string // familiar names, sorted
	digests []string // familiar names, sorted
}

// index is the in-memory state. Guarded by Store.mu.
type index struct {
	images   map[digest.Digest]*image
	layers   map[digest.Digest]layerRecord
	layerUse map[digest.Digest]int // how many images stand on a layer
	children map[digest.Digest]int // how many visible images were committed from an image
	refs     map[string]refRecord
}

func newIndex() *index {
	return &index{
		images:   map[digest.Digest]*image{},
		layers:   map[digest.Digest]layerRecord{},
		layerUse: map[digest.Digest]int{},
		children: map[digest.Digest]int{},
		refs:     map[string]refRecord{},
	}
}

// putLayer must precede the images that use the layer.
func (x *index) putLayer(chain digest.Digest, l layerRecord) { x.layers[chain] = l }

// putImage inserts or replaces an image; its references are kept.
func (x *index) putImage(id digest.Digest, rec imageRecord) {
	if old, ok := x.images[id]; ok {
		x.uncount(old)
	}
	im := &image{id: id, rec: rec}
	for _, c := range rec.Layers {
		im.size += x.layers[c].Size
		x.layerUse[c]++
	}
	if rec.Parent != "" && !rec.Removed {
		x.children[rec.Parent]++
	}
	x.images[id] = im
	x.name(id)
}

func (x *index) uncount(im *image) {
	for _, c := range im.rec.Layers {
		if x.layerUse[c]--; x.layerUse[c] == 0 {
			delete(x.layerUse, c)
		}
	}
	if p := im.rec.Parent; p != "" && !im.rec.Removed {
		if x.children[p]--; x.children[p] == 0 {
			delete(x.children, p)
		}
	}
}

// dropImage removes an image and says which of its layers nobody uses any more, top first.
func (x *index) dropImage(id digest.Digest) (orphans []digest.Digest) {
	im, ok := x.images[id]
	if !ok {
		return nil
	}
	x.uncount(im)
	delete(x.images, id)
	for _, c := range slices.Backward(im.rec.Layers) {
		if x.layerUse[c] == 0 {
			orphans = append(orphans, c)
			delete(x.layers, c)
		}
	}
	return orphans
}

func (x *index) putRef(ref string, r refRecord) {
	old, had := x.refs[ref]
	x.refs[ref] = r
	if had && old.ID != r.ID {
		x.name(old.ID)
	}
	x.name(r.ID)
}

func (x *index) dropRef(ref string) {
	r, ok := x.refs[ref]
	if !ok {
		return
	}
	delete(x.refs, ref)
	x.name(r.ID)
}

// name recomputes the names of an image. The number of references is small against the cost of a
// database write, which precedes every call but those of load, which names all images in one pass.
func (x *index) name(id digest.Digest) {
	im, ok := x.images[id]
	if !ok {
		return
	}
	n := *im
	n.tags, n.digests = nil, nil
	for ref, r := range x.refs {
		if r.ID == id {
			n.addName(ref)
		}
	}
	n.sortNames()
	x.images[id] = &n
}

func (im *image) addName(ref string) {
	named, err := reference.ParseNamed(ref)
	if err != nil {
		return
	}
	if _, ok := named.(reference.Digested); ok {
		im.digests = append(im.digests, reference.FamiliarString(named))
	} else {
		im.tags = append(im.tags, reference.FamiliarString(named))
	}
}

func (im *image) sortNames() {
	slices.Sort(im.tags)
	slices.Sort(im.digests)
}

// load reads the index from the database.
func (x *index) load(tx *bolt.Tx) error {
	top := tx.Bucket(bucketStrake)
	if top == nil {
		return nil
	}
	if v := top.Get(keyFormat); string(v) != fmt.Sprint(formatVersion) {
		return fmt.Errorf("image index has format %q, this program reads %d", v, formatVersion)
	}
	if err := forEachJSON(
		top.Bucket(bucketLayers), func(k string, l layerRecord) { x.layers[digest.Digest(k)] = l },
	); err != nil {
		return err
	}
	if err := forEachJSON(
		top.Bucket(bucketRefs), func(k string, r refRecord) { x.refs[k] = r },
	); err != nil {
		return err
	}
	byID := map[digest.Digest][]string{}
	for ref, r := range x.refs {
		byID[r.ID] = append(byID[r.ID], ref)
	}
	return forEachJSON(top.Bucket(bucketImages), func(k string, rec imageRecord) {
		id := digest.Digest(k)
		im := &image{id: id, rec: rec}
		for _, c := range rec.Layers {
			im.size += x.layers[c].Size
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

// dirs returns the overlay directories of an image's layers below root, top first.
func (x *index) dirs(root string, im *image) []string {
	out := make([]string, 0, len(im.rec.Layers))
	for _, c := range slices.Backward(im.rec.Layers) {
		out = append(out, filepath.Join(root, x.layers[c].Dir))
	}
	return out
}

// byPrefix finds the image whose hexadecimal ID starts with p, if there is exactly one.
func (x *index) byPrefix(p string) (*image, bool) {
	var hit *image
	for id, im := range x.images {
		if !im.rec.Removed && strings.HasPrefix(id.Encoded(), p) {
			if hit != nil {
				return nil, false
			}
			hit = im
		}
	}
	return hit, hit != nil
}
