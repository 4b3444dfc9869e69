package index

import (
	"slices"
	"time"

	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Record is one image at rest.
type Record struct {
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

// Layer is one unpacked layer at rest.
type Layer struct {
	Diff digest.Digest `json:"diff"`
	// Dir is the overlay directory, relative to the snapshotter's root.
	Dir string `json:"dir"`
	// Size is the sum of the file sizes in bytes.
	Size int64 `json:"size"`
}

// Ref is a tag or a digest reference at rest.
type Ref struct {
	ID     digest.Digest      `json:"id"`
	Target ocispec.Descriptor `json:"target"`
}

// Entry is an image in memory. It is immutable once it is in the index; a change replaces it. The
// slices and maps are shared and must not be changed.
type Entry struct {
	ID  digest.Digest
	Rec Record
	// Size is the sum of the layers' sizes in bytes.
	Size int64
	// Tags and Digests are familiar references, sorted.
	Tags, Digests []string
}

// state is the index in memory. Index.mu guards it.
type state struct {
	images   map[digest.Digest]*Entry
	layers   map[digest.Digest]Layer
	layerUse map[digest.Digest]int // how many images stand on a layer
	children map[digest.Digest]int // how many visible images were committed from an image
	refs     map[string]Ref
}

func newState() *state {
	return &state{
		images:   map[digest.Digest]*Entry{},
		layers:   map[digest.Digest]Layer{},
		layerUse: map[digest.Digest]int{},
		children: map[digest.Digest]int{},
		refs:     map[string]Ref{},
	}
}

// putLayer must precede the images that use the layer.
func (x *state) putLayer(chain digest.Digest, l Layer) { x.layers[chain] = l }

// putImage inserts or replaces an image; its references are kept.
func (x *state) putImage(id digest.Digest, rec Record) {
	if old, ok := x.images[id]; ok {
		x.uncount(old)
	}
	im := &Entry{ID: id, Rec: rec}
	for _, c := range rec.Layers {
		im.Size += x.layers[c].Size
		x.layerUse[c]++
	}
	if rec.Parent != "" && !rec.Removed {
		x.children[rec.Parent]++
	}
	x.images[id] = im
	x.name(id)
}

func (x *state) uncount(im *Entry) {
	for _, c := range im.Rec.Layers {
		if x.layerUse[c]--; x.layerUse[c] == 0 {
			delete(x.layerUse, c)
		}
	}
	if p := im.Rec.Parent; p != "" && !im.Rec.Removed {
		if x.children[p]--; x.children[p] == 0 {
			delete(x.children, p)
		}
	}
}

// dropImage removes an image and says which of its layers no image uses any more, top first.
func (x *state) dropImage(id digest.Digest) (orphans []digest.Digest) {
	im, ok := x.images[id]
	if !ok {
		return nil
	}
	x.uncount(im)
	delete(x.images, id)
	for _, c := range slices.Backward(im.Rec.Layers) {
		if x.layerUse[c] == 0 {
			orphans = append(orphans, c)
			delete(x.layers, c)
		}
	}
	return orphans
}

func (x *state) putRef(ref string, r Ref) {
	old, had := x.refs[ref]
	x.refs[ref] = r
	if had && old.ID != r.ID {
		x.name(old.ID)
	}
	x.name(r.ID)
}

func (x *state) dropRef(ref string) {
	r, ok := x.refs[ref]
	if !ok {
		return
	}
	delete(x.refs, ref)
	x.name(r.ID)
}

// name recomputes the names of an image. The number of references is small against the cost of a
// database write, which precedes every call but those of load, which names all images in one pass.
func (x *state) name(id digest.Digest) {
	im, ok := x.images[id]
	if !ok {
		return
	}
	n := *im
	n.Tags, n.Digests = nil, nil
	for ref, r := range x.refs {
		if r.ID == id {
			n.addName(ref)
		}
	}
	n.sortNames()
	x.images[id] = &n
}

func (im *Entry) addName(ref string) {
	named, err := reference.ParseNamed(ref)
	if err != nil {
		return
	}
	if _, ok := named.(reference.Digested); ok {
		im.Digests = append(im.Digests, reference.FamiliarString(named))
	} else {
		im.Tags = append(im.Tags, reference.FamiliarString(named))
	}
}

func (im *Entry) sortNames() {
	slices.Sort(im.Tags)
	slices.Sort(im.Digests)
}

// layersOf lists the layers of an image, base first.
func (x *state) layersOf(im *Entry) []Layer {
	out := make([]Layer, len(im.Rec.Layers))
	for i, c := range im.Rec.Layers {
		out[i] = x.layers[c]
	}
	return out
}

// Image is an image as the index knows it. The slices and maps are shared and must not be changed.
type Image struct {
	// ID is the digest of the configuration.
	ID digest.Digest
	// Ref is the complete reference that Resolve matched; empty when the image was named by its ID.
	Ref         string
	RepoTags    []string
	RepoDigests []string
	Created     time.Time
	// Size is the sum of the sizes of the files in all layers, in bytes.
	Size     int64
	Labels   map[string]string
	Platform ocispec.Platform
	Parent   digest.Digest
	// LastTagged is zero for images that never had a tag here.
	LastTagged time.Time
	// Manifest describes the image's own manifest, without its platform.
	Manifest ocispec.Descriptor
}

// Public is the image as callers of the store see it; ref is the reference that found it.
func (im *Entry) Public(ref string) Image {
	return Image{
		ID: im.ID, Ref: ref, RepoTags: im.Tags, RepoDigests: im.Digests, Created: im.Rec.Created,
		Size: im.Size, Labels: im.Rec.Labels,
		Platform: im.Rec.Platform, Parent: im.Rec.Parent, LastTagged: im.Rec.LastTagged,
		Manifest: im.Rec.Manifest,
	}
}
