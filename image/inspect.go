package image

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

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
}

// Detail is everything about one image.
type Detail struct {
	Image
	Author  string
	Comment string
	Config  RunConfig
	// DiffIDs and Dirs are the layers, base first: the digests of their plain archives, and their
	// directories on this host.
	DiffIDs []digest.Digest
	Dirs    []string
	// Manifest describes the manifest and Target what the image was pulled as: the manifest itself
	// or an index.
	Manifest, Target ocispec.Descriptor
	// Raw is the configuration document, whose digest is the ID.
	Raw           []byte
	DockerVersion string
}

// HistoryEntry is one step of an image's making, newest first.
type HistoryEntry struct {
	// ID is set for the image itself and for parents known here.
	ID        digest.Digest
	Created   time.Time
	CreatedBy string
	Author    string
	Comment   string
	Tags      []string
	// Size is that of the step's layer in bytes, zero for steps without one.
	Size int64
}

func (im *image) public(ref string) Image {
	return Image{
		ID: im.id, Ref: ref, RepoTags: im.tags, RepoDigests: im.digests, Created: im.rec.Created,
		Size: im.size, Labels: im.rec.Labels,
		Platform: im.rec.Platform, Parent: im.rec.Parent, LastTagged: im.rec.LastTagged,
	}
}

// Resolve finds an image by what a user wrote: name[:tag], name@digest, a full ID, or an
// unambiguous prefix of an ID, in dockerd's order. Errors: ErrNotFound ("No such image: …"),
// ErrInvalidArgument (not a reference). It reads memory only.
func (s *Store) Resolve(ctx context.Context, ref string) (Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	im, matched, err := s.idx.find(ref)
	if err != nil {
		return Image{}, err
	}
	return im.public(matched), nil
}

// resolve is Resolve for this package.
func (s *Store) resolve(ref string) (*image, string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.idx.find(ref)
}

// Inspect reads an image's configuration.
func (s *Store) Inspect(ctx context.Context, ref string) (Detail, error) {
	im, matched, err := s.resolve(ref)
	if err != nil {
		return Detail{}, err
	}
	ctx = s.context(ctx)
	raw, err := s.readBlob(ctx, ocispec.Descriptor{Digest: im.id})
	if err != nil {
		return Detail{}, fmt.Errorf("inspect image %q: %w", ref, err)
	}
	c, err := parseConfig(raw)
	if err != nil {
		return Detail{}, fmt.Errorf("inspect image %q: %w", ref, err)
	}
	d := Detail{
		Image: im.public(matched), Author: c.Author, Comment: c.Comment, Config: c.Config,
		DiffIDs:  c.RootFS.DiffIDs,
		Manifest: im.rec.Manifest, Target: im.rec.Target, Raw: raw, DockerVersion: c.DockerVersion,
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := len(im.rec.Layers) - 1; i >= 0; i-- {
		d.Dirs = append([]string{s.path("layers", s.idx.layers[im.rec.Layers[i]].Dir)}, d.Dirs...)
	}
	return d, nil
}

// History lists how an image was made, newest step first (docker history).
func (s *Store) History(ctx context.Context, ref string) ([]HistoryEntry, error) {
	im, _, err := s.resolve(ref)
	if err != nil {
		return nil, err
	}
	c, err := s.configOf(s.context(ctx), im)
	if err != nil {
		return nil, fmt.Errorf("history of image %q: %w", ref, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]HistoryEntry, 0, len(c.History))
	next := 0
	for _, h := range c.History {
		e := HistoryEntry{CreatedBy: h.CreatedBy, Author: h.Author, Comment: h.Comment}
		if h.Created != nil {
			e.Created = h.Created.UTC()
		}
		if !h.EmptyLayer && next < len(im.rec.Layers) {
			e.Size = s.idx.layers[im.rec.Layers[next]].Size
			next++
		}
		out = append([]HistoryEntry{e}, out...)
	}
	// Images that were committed here one from the other are named, as dockerd does.
	for i, p := 0, im; i < len(out) && p != nil; i++ {
		out[i].ID, out[i].Tags = p.id, p.tags
		p = s.idx.images[p.rec.Parent]
	}
	return out, nil
}

// configOf reads and checks an image's configuration.
func (s *Store) configOf(ctx context.Context, im *image) (configBlob, error) {
	b, err := s.readBlob(ctx, ocispec.Descriptor{Digest: im.id})
	if err != nil {
		return configBlob{}, err
	}
	return parseConfig(b)
}

// layersOf reads the blobs of an image's own manifest, base first.
func (s *Store) layersOf(ctx context.Context, im *image) ([]ocispec.Descriptor, error) {
	m, err := s.manifestOf(ctx, im.rec.Manifest)
	if err != nil {
		return nil, err
	}
	return m.Layers, nil
}

func (s *Store) manifestOf(ctx context.Context, d ocispec.Descriptor) (ocispec.Manifest, error) {
	b, err := s.readBlob(ctx, d)
	if err != nil {
		return ocispec.Manifest{}, err
	}
	return parseManifest(b)
}

func parseManifest(b []byte) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	var shape struct {
		SchemaVersion int             `json:"schemaVersion"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(b, &shape); err != nil {
		return m, fmt.Errorf("manifest: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	switch {
	case shape.FSLayers != nil || shape.SchemaVersion == 1:
		return m, fmt.Errorf(
			"manifest has schema version 1, which carries no verifiable configuration; the image must be pushed anew in a current form: %w",
			errdefs.ErrInvalidArgument,
		)
	case shape.Manifests != nil: // one document must not be readable as two things (CVE-2021-41190)
		return m, fmt.Errorf(
			"manifest has a field \"manifests\", which belongs to an index: %w",
			errdefs.ErrInvalidArgument,
		)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("manifest: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := d.Digest.Validate(); err != nil {
			return m, fmt.Errorf(
				"manifest: digest %q: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument,
			)
		}
		if d.Size < 0 {
			return m, fmt.Errorf(
				"manifest: blob %s has size %d: %w", d.Digest, d.Size, errdefs.ErrInvalidArgument,
			)
		}
	}
	return m, nil
}
