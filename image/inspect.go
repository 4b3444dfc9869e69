package image

import (
	"context"
	"fmt"
	"slices"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/document"
	"strake/image/index"
)

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

// Resolve finds an image by what a user wrote: name[:tag], name@digest, a full ID, or an
// unambiguous prefix of an ID, in dockerd's order. Errors: ErrNotFound ("No such image: …"),
// ErrInvalidArgument (not a reference). It reads memory only.
func (s *Store) Resolve(ctx context.Context, ref string) (Image, error) {
	im, matched, err := s.index.Find(ref)
	if err != nil {
		return Image{}, err
	}
	return im.Public(matched), nil
}

// List lists images, youngest first. It reads memory only.
func (s *Store) List(ctx context.Context, f Filter) ([]Summary, error) { return s.index.List(f) }

// Inspect reads an image's configuration.
func (s *Store) Inspect(ctx context.Context, ref string) (Detail, error) {
	im, matched, err := s.index.Find(ref)
	if err != nil {
		return Detail{}, err
	}
	raw, err := s.backend.ReadDocument(ctx, ocispec.Descriptor{Digest: im.ID})
	if err != nil {
		return Detail{}, fmt.Errorf("inspect image %q: %w", ref, err)
	}
	c, err := document.ParseConfig(raw)
	if err != nil {
		return Detail{}, fmt.Errorf("inspect image %q: %w", ref, err)
	}
	dirs := s.dirs(s.index.Layers(im))
	slices.Reverse(dirs)
	return Detail{
		Image: im.Public(matched), Author: c.Author, Comment: c.Comment, Config: c.Config,
		DiffIDs: c.RootFS.DiffIDs, Dirs: dirs,
		Manifest: im.Rec.Manifest, Target: im.Rec.Target, Raw: raw, DockerVersion: c.DockerVersion,
	}, nil
}

// History lists how an image was made, newest step first (docker history).
func (s *Store) History(ctx context.Context, ref string) ([]HistoryEntry, error) {
	im, _, err := s.index.Find(ref)
	if err != nil {
		return nil, err
	}
	c, err := s.configOf(ctx, im)
	if err != nil {
		return nil, fmt.Errorf("history of image %q: %w", ref, err)
	}
	layers := s.index.Layers(im)
	out := make([]HistoryEntry, 0, len(c.History))
	for _, h := range c.History {
		e := HistoryEntry{CreatedBy: h.CreatedBy, Author: h.Author, Comment: h.Comment}
		if h.Created != nil {
			e.Created = h.Created.UTC()
		}
		if !h.EmptyLayer && len(layers) > 0 {
			e.Size, layers = layers[0].Size, layers[1:]
		}
		out = append(out, e)
	}
	slices.Reverse(out)
	// Images that were committed here one from the other are named, as dockerd does.
	for i, p := range s.index.Ancestry(im) {
		if i < len(out) {
			out[i].ID, out[i].Tags = p.ID, p.Tags
		}
	}
	return out, nil
}

// configOf reads and checks an image's configuration.
func (s *Store) configOf(ctx context.Context, im *index.Entry) (document.Config, error) {
	b, err := s.backend.ReadDocument(ctx, ocispec.Descriptor{Digest: im.ID})
	if err != nil {
		return document.Config{}, err
	}
	return document.ParseConfig(b)
}
