package unpack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/backend"
	"strake/image/index"
	"strake/image/layer"
)

// Made is a layer that was made here rather than received.
type Made struct {
	Blob  ocispec.Descriptor
	Diff  digest.Digest
	Chain digest.Digest
	Layer index.Layer
}

// Make stores a plain layer archive as a blob and unpacks it in the same pass, on top of the layers
// with the given diff IDs, which belong to an image. The operation keeps both. What the archive
// does wrong is ErrInvalidArgument.
func (u *Unpacker) Make(
	ctx context.Context, o *backend.Operation, plain io.Reader, parents []digest.Digest,
) (_ Made, err error) {
	release, err := u.Slot(ctx)
	if err != nil {
		return Made{}, err
	}
	defer release()
	u.backend.Fault("layer: begin blob")
	w, err := o.NewWriter(ctx)
	if err != nil {
		return Made{}, err
	}
	defer func() { err = errors.Join(err, w.Close(ctx)) }()
	snaps, key := u.backend.Stores().Snapshots, "make-"+rand.Text()
	defer func() {
		if err != nil {
			rerr := snaps.Remove(context.WithoutCancel(o.In(ctx)), key)
			if rerr != nil && !errdefs.IsNotFound(rerr) {
				err = errors.Join(err, rerr)
			}
		}
	}()
	u.backend.Fault("layer: make directory")
	mounts, err := snaps.Prepare(o.In(ctx), key, "")
	if err != nil {
		return Made{}, fmt.Errorf("unpack layer: %w", err)
	}
	dir, err := bindSource(mounts)
	if err != nil {
		return Made{}, err
	}
	root, err := os.Open(dir)
	if err != nil {
		return Made{}, err
	}
	defer root.Close()
	u.backend.Fault("layer: unpack")
	res, err := applyVerified(
		ctx, root, io.TeeReader(plain, w), "", layer.Options{Limits: u.limits},
	)
	if errors.Is(err, layer.ErrNeedsParents) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return Made{}, err
	}
	u.backend.Fault("layer: commit blob")
	blob, err := w.Commit(ctx, func(d digest.Digest) map[string]string {
		return map[string]string{backend.UncompressedLabel: d.String()}
	})
	if err != nil {
		return Made{}, err
	}
	blob.MediaType = ocispec.MediaTypeImageLayer
	m := Made{Blob: blob, Diff: blob.Digest}
	m.Chain = identity.ChainID(append(slices.Clone(parents), m.Diff))
	m.Layer, err = u.commitMade(ctx, o, key, root, m, parents, res)
	return m, err
}

// commitMade chains a layer made here onto its parents.
func (u *Unpacker) commitMade(
	ctx context.Context, o *backend.Operation, key string, root *os.File, m Made,
	parents []digest.Digest, res layer.Result,
) (index.Layer, error) {
	unlock, err := u.chains.LockContext(ctx, m.Chain.String())
	if err != nil {
		return index.Layer{}, err
	}
	defer unlock()
	w := unpacking{u: u, Pending: Pending{Diff: m.Diff}, chain: m.Chain}
	if len(parents) > 0 {
		w.parent = identity.ChainID(slices.Clone(parents))
	}
	if err := o.Hold(ctx, nil, []digest.Digest{m.Chain}); err != nil {
		return index.Layer{}, err
	}
	ctx = o.In(ctx)
	if rec, err := w.existing(ctx); err == nil {
		return rec, u.backend.Stores().Snapshots.Remove(ctx, key)
	}
	if len(parents) > 0 {
		lower, err := layer.OpenDirs(u.dirsOf(parents))
		if err != nil {
			return index.Layer{}, err
		}
		defer layer.CloseAll(lower)
		if err := layer.InheritDirs(root, lower, res.Implied); err != nil {
			return index.Layer{}, err
		}
	}
	return w.commit(ctx, key, res.Bytes)
}

// dirsOf lists the directories of layers that belong to an image, top first.
func (u *Unpacker) dirsOf(diffs []digest.Digest) []string {
	chains := identity.ChainIDs(slices.Clone(diffs))
	out := make([]string, len(chains))
	for i, c := range chains {
		l, _ := u.known(c)
		out[len(chains)-1-i] = filepath.Join(u.backend.LayersDir(), l.Dir)
	}
	return out
}
