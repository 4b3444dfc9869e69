package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/backend"
	"strake/image/document"
	"strake/image/index"
	"strake/image/layer"
	"strake/image/progress"
	"strake/image/unpack"
)

// ImportOptions describe an image that consists of one root file system archive.
type ImportOptions struct {
	// Ref is the tag the image gets; empty for none.
	Ref string
	// Config is what containers of it run.
	Config RunConfig
	// Message becomes the history's comment.
	Message string
	// Platform defaults to linux on this processor.
	Platform ocispec.Platform
	// Created defaults to now.
	Created time.Time
}

// Import makes an image of one layer from a root file system archive, plain or packed with gzip,
// bzip2, xz or zstd (docker import). Errors of the archive are ErrInvalidArgument and leave nothing
// behind.
func (s *Store) Import(
	ctx context.Context, archive io.Reader, o ImportOptions,
) (id digest.Digest, err error) {
	refs, err := tagList(o.Ref)
	if err != nil {
		return "", err
	}
	err = s.run(ctx, func(ctx context.Context, op *backend.Operation) error {
		plain, _, err := layer.Decompress(archive)
		if err != nil {
			return err
		}
		defer plain.Close()
		m, err := s.unpack.Make(ctx, op, plain, nil)
		if err != nil {
			return err
		}
		c := document.NewConfig(o.Platform, o.Created, o.Config)
		c.Comment = o.Message
		c.RootFS.DiffIDs = []digest.Digest{m.Diff}
		c.History = []ocispec.History{{Created: c.Created, Comment: o.Message}}
		id, err = s.publishMade(ctx, op, c, nil, m, refs, "")
		return err
	})
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	return id, nil
}

// publishMade makes an image visible that consists of layers of another one, whose configuration
// has their diff IDs, and a further one on top.
func (s *Store) publishMade(
	ctx context.Context, o *backend.Operation, c document.Config, base []ocispec.Descriptor,
	top unpack.Made, refs []string, parent digest.Digest,
) (digest.Digest, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	manifest, err := document.NewManifest(raw, append(base[:len(base):len(base)], top.Blob))
	if err != nil {
		return "", err
	}
	st, err := openStored(ctx, s.backend, o, []document.Document{manifest})
	if err != nil {
		return "", err
	}
	p := publication{
		s: s, o: o, src: made{st, raw}, refs: refs, parent: parent, report: progress.New(nil),
		made: map[int]index.Layer{len(base): top.Layer},
	}
	out, err := p.run(ctx)
	return out.id, err
}

// made is an image whose layers are here and whose documents are about to be.
type made struct {
	*stored
	config []byte
}

// Config implements document.Source.
func (m made) Config(context.Context) ([]byte, error) { return m.config, nil }

// CommitOptions describe an image made from a container.
type CommitOptions struct {
	// Ref is the tag the image gets; empty for none.
	Ref     string
	Config  RunConfig
	Author  string
	Comment string
	// CreatedBy is the command recorded in the history.
	CreatedBy string
	// Container is the container's ID, recorded as docker does.
	Container string
	Created   time.Time
}

// Commit makes an image of a container's image plus its writable layer (docker commit). The
// container should be paused by the caller; its layer is read as it is.
func (s *Store) Commit(
	ctx context.Context, key string, o CommitOptions,
) (id digest.Digest, err error) {
	refs, err := tagList(o.Ref)
	if err != nil {
		return "", err
	}
	r, err := s.rootfs.Get(key)
	if err != nil {
		return "", err
	}
	err = s.run(ctx, func(ctx context.Context, op *backend.Operation) error {
		id, err = s.commit(ctx, op, key, r.Image, o, refs)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("commit container layer %q: %w", key, err)
	}
	return id, nil
}

func (s *Store) commit(
	ctx context.Context, op *backend.Operation, key string, base digest.Digest, o CommitOptions,
	refs []string,
) (digest.Digest, error) {
	im, ok := s.index.Image(base)
	if !ok {
		return "", index.NotFound(base.String())
	}
	src, err := s.openImage(ctx, op, im)
	if err != nil {
		return "", err
	}
	old, err := s.configOf(ctx, im)
	if err != nil {
		return "", err
	}
	if n := len(old.RootFS.DiffIDs) + 1; n > document.MaxLayers {
		return "", fmt.Errorf(
			"image would have %d layers, at most %d: %w", n, document.MaxLayers,
			errdefs.ErrFailedPrecondition,
		)
	}
	pr, pw := io.Pipe()
	written := make(chan error, 1)
	go func() { // joined below
		err := s.rootfs.Diff(ctx, key, pw)
		pw.CloseWithError(err)
		written <- err
	}()
	m, err := s.unpack.Make(ctx, op, pr, old.RootFS.DiffIDs)
	pr.CloseWithError(errors.New("layer was not stored"))
	if werr := <-written; err == nil {
		err = werr
	}
	if err != nil {
		return "", err
	}
	c := document.NewConfig(old.Platform(), o.Created, o.Config)
	c.Author, c.Comment, c.Container = o.Author, o.Comment, o.Container
	c.RootFS.DiffIDs = append(append(c.RootFS.DiffIDs, old.RootFS.DiffIDs...), m.Diff)
	c.History = append(
		append(c.History, old.History...),
		ocispec.History{
			Created: c.Created, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Comment,
		},
	)
	return s.publishMade(ctx, op, c, src.manifest.Layers, m, refs, base)
}
