package image

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/layer"
)

// newImage is an image whose blobs and layers exist under a lease and that is about to become
// visible.
type newImage struct {
	target, manifest ocispec.Descriptor
	config           ocispec.Descriptor
	blob             configBlob
	layers           map[digest.Digest]layerRecord
	refs             []string // complete references, tags or digests
	parent           digest.Digest
}

// publish makes an image visible: everything before is made durable first. It reports the images
// that lost one of the references.
func (s *Store) publish(
	ctx context.Context, n newImage,
) (id digest.Digest, moved map[string]digest.Digest, err error) {
	if err := s.barrier(); err != nil {
		return "", nil, err
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	id = n.config.Digest
	rec := imageRecord{
		Target: n.target, Manifest: n.manifest, Platform: n.blob.platform(),
		Created: n.blob.created(),
		Labels:  n.blob.Config.Labels,
		Layers:  identity.ChainIDs(append([]digest.Digest(nil), n.blob.RootFS.DiffIDs...)),
		Parent:  n.parent,
	}
	moved = map[string]digest.Digest{}
	s.mu.RLock()
	if old, ok := s.idx.images[id]; ok {
		rec.LastTagged = old.rec.LastTagged
		if rec.Parent == "" {
			rec.Parent = old.rec.Parent
		}
		if !old.rec.Removed {
			// The first form an image came in stays its own; further ones belong to their
			// references.
			rec.Target, rec.Manifest = old.rec.Target, old.rec.Manifest
		}
	}
	for _, ref := range n.refs {
		if r, ok := s.idx.refs[ref]; ok && r.ID != id {
			moved[ref] = r.ID
		}
	}
	s.mu.RUnlock()
	c := change{
		images: map[digest.Digest]imageRecord{id: rec}, layers: n.layers,
		refs: map[string]refRecord{},
	}
	for _, ref := range n.refs {
		c.refs[ref] = refRecord{ID: id, Target: slim(n.target)}
	}
	if len(n.refs) > 0 {
		rec.LastTagged = time.Now().UTC()
		c.images[id] = rec
	}
	if _, err := s.apply(ctx, c); err != nil {
		return "", nil, err
	}
	return id, moved, nil
}

// slim keeps what identifies a descriptor.
func slim(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// The labels by which containerd's collector walks from a manifest to its blobs and from a
// configuration to its layers.
func manifestLabels(m ocispec.Manifest) map[string]string {
	l := map[string]string{"containerd.io/gc.ref.content.config": m.Config.Digest.String()}
	for i, b := range m.Layers {
		l[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = b.Digest.String()
	}
	return l
}

func indexLabels(x ocispec.Index) map[string]string {
	l := map[string]string{}
	for i, m := range x.Manifests {
		l[fmt.Sprintf("containerd.io/gc.ref.content.m.%d", i)] = m.Digest.String()
	}
	return l
}

func configLabels(diffs []digest.Digest) map[string]string {
	if len(diffs) == 0 {
		return nil
	}
	return map[string]string{
		"containerd.io/gc.ref.snapshot." + snapshotterName: identity.ChainID(diffs).String(),
	}
}

// writeManifest stores a configuration and the manifest that joins it with layers.
func (s *Store) writeManifest(
	ctx context.Context, config []byte, blob configBlob, layers []ocispec.Descriptor,
) (manifest, cfg ocispec.Descriptor, err error) {
	if cfg, err = s.writeBlob(
		ctx, "config", config, configLabels(blob.RootFS.DiffIDs),
	); err != nil {
		return manifest, cfg, err
	}
	cfg.MediaType = ocispec.MediaTypeImageConfig
	if layers == nil {
		layers = []ocispec.Descriptor{} // the field is required
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: cfg, Layers: layers,
	}
	b, err := json.Marshal(m)
	if err != nil {
		return manifest, cfg, err
	}
	if manifest, err = s.writeBlob(ctx, "manifest", b, manifestLabels(m)); err != nil {
		return manifest, cfg, err
	}
	manifest.MediaType = ocispec.MediaTypeImageManifest
	return manifest, cfg, nil
}

// madeLayer is a layer made here rather than received.
type madeLayer struct {
	desc  ocispec.Descriptor
	diff  digest.Digest
	chain digest.Digest
	rec   layerRecord
}

// makeLayer stores a plain layer archive as a blob and unpacks it in the same pass, on top of the
// given chain.
func (s *Store) makeLayer(
	ctx context.Context, plain io.Reader, parents []digest.Digest,
) (_ madeLayer, err error) {
	if err := s.unpacks.Acquire(ctx, 1); err != nil {
		return madeLayer{}, err
	}
	defer s.unpacks.Release(1)
	s.cfg.Fault("layer: begin blob")
	ref := "made-" + rand.Text()
	w, err := content.OpenWriter(ctx, s.content, content.WithRef(ref))
	if err != nil {
		return madeLayer{}, fmt.Errorf("store layer: %w", err)
	}
	key := "make-" + rand.Text()
	defer func() {
		w.Close()
		if err != nil {
			bg := context.WithoutCancel(ctx)
			for _, e := range []error{s.content.Abort(bg, ref), s.snaps.Remove(bg, key)} {
				if e != nil && !errdefs.IsNotFound(e) {
					err = errors.Join(err, e)
				}
			}
		}
	}()
	s.cfg.Fault("layer: make directory")
	mounts, err := s.snaps.Prepare(ctx, key, "")
	if err != nil {
		return madeLayer{}, fmt.Errorf("unpack layer: %w", err)
	}
	dir, err := bindSource(mounts)
	if err != nil {
		return madeLayer{}, err
	}
	root, err := os.Open(dir)
	if err != nil {
		return madeLayer{}, err
	}
	defer root.Close()
	s.cfg.Fault("layer: unpack")
	res, err := applyVerified(
		ctx, root, io.TeeReader(plain, w), "", layer.Options{Limits: s.cfg.LayerLimits},
	)
	if errors.Is(err, layer.ErrNeedsParents) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return madeLayer{}, err
	}
	st, err := w.Status()
	if err != nil {
		return madeLayer{}, err
	}
	m := madeLayer{diff: w.Digest()}
	m.desc = ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: m.diff, Size: st.Offset,
	}
	s.cfg.Fault("layer: commit blob")
	labels := content.WithLabels(map[string]string{uncompressedLabel: m.diff.String()})
	if err := w.Commit(ctx, st.Offset, m.diff, labels); err != nil &&
		!errdefs.IsAlreadyExists(err) {
		return madeLayer{}, fmt.Errorf("store layer: %w", err)
	}
	m.chain = identity.ChainID(append(append([]digest.Digest(nil), parents...), m.diff))
	m.rec, err = s.commitMade(ctx, key, root, m, parents, res)
	return m, err
}

// commitMade chains a layer made here onto its parents.
func (s *Store) commitMade(
	ctx context.Context, key string, root *os.File, m madeLayer, parents []digest.Digest,
	res layer.Result,
) (layerRecord, error) {
	unlock, err := s.flights.lockContext(ctx, "layer "+m.chain.String())
	if err != nil {
		return layerRecord{}, err
	}
	defer unlock()
	u := unpacking{s: s, pending: pending{diff: m.diff}, chain: m.chain}
	if err := s.hold(ctx, nil, []digest.Digest{m.chain}); err != nil {
		return layerRecord{}, err
	}
	if rec, err := u.existing(ctx); err == nil {
		return rec, s.snaps.Remove(ctx, key)
	}
	if len(parents) > 0 {
		u.parent = identity.ChainID(append([]digest.Digest(nil), parents...))
		lower, err := openDirs(s.chainDirs(parents))
		if err != nil {
			return layerRecord{}, err
		}
		defer closeAll(lower)
		if err := layer.InheritDirs(root, lower, res.Implied); err != nil {
			return layerRecord{}, err
		}
	}
	return u.commit(ctx, key, res.Bytes)
}

// chainDirs lists the directories of known layers, top first.
func (s *Store) chainDirs(diffs []digest.Digest) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	chains := identity.ChainIDs(append([]digest.Digest(nil), diffs...))
	out := make([]string, len(chains))
	for i, c := range chains {
		out[len(chains)-1-i] = filepath.Join(s.path("layers"), s.idx.layers[c].Dir)
	}
	return out
}

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
// bzip2, xz or zstd (docker import). Errors of the archive wrap errdefs.ErrInvalidArgument and
// leave nothing behind.
func (s *Store) Import(
	ctx context.Context, archive io.Reader, o ImportOptions,
) (digest.Digest, error) {
	refs, err := tagList(o.Ref)
	if err != nil {
		return "", err
	}
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return "", err
	}
	id, err := s.importLayer(ctx, archive, o, refs)
	if err != nil {
		s.abandon(ctx, done)
		return "", fmt.Errorf("import: %w", err)
	}
	done()
	return id, nil
}

func tagList(ref string) ([]string, error) {
	if ref == "" {
		return nil, nil
	}
	t, err := parseTag(ref)
	if err != nil {
		return nil, err
	}
	return []string{t.String()}, nil
}

func (s *Store) importLayer(
	ctx context.Context, archive io.Reader, o ImportOptions, refs []string,
) (digest.Digest, error) {
	plain, _, err := layer.Decompress(archive)
	if err != nil {
		return "", err
	}
	defer plain.Close()
	m, err := s.makeLayer(ctx, plain, nil)
	if err != nil {
		return "", err
	}
	blob := newConfig(o.Platform, o.Created, o.Config)
	blob.Comment = o.Message
	blob.RootFS.DiffIDs = []digest.Digest{m.diff}
	blob.History = []ocispec.History{{Created: blob.Created, Comment: o.Message}}
	return s.publishMade(
		ctx, blob, []ocispec.Descriptor{m.desc}, map[digest.Digest]layerRecord{m.chain: m.rec},
		refs, "",
	)
}

func newConfig(p ocispec.Platform, created time.Time, run RunConfig) configBlob {
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Architecture == "" {
		p.Architecture = runtime.GOARCH
	}
	if created.IsZero() {
		created = time.Now()
	}
	created = created.UTC()
	return configBlob{
		Created: &created, Architecture: p.Architecture, Variant: p.Variant, OS: p.OS,
		OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
		Config: run, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
}

func (s *Store) publishMade(
	ctx context.Context, blob configBlob, layers []ocispec.Descriptor,
	recs map[digest.Digest]layerRecord, refs []string, parent digest.Digest,
) (digest.Digest, error) {
	b, err := json.Marshal(blob)
	if err != nil {
		return "", err
	}
	manifest, config, err := s.writeManifest(ctx, b, blob, layers)
	if err != nil {
		return "", err
	}
	id, _, err := s.publish(
		ctx,
		newImage{
			target: manifest, manifest: manifest, config: config, blob: blob, layers: recs,
			refs: refs, parent: parent,
		},
	)
	return id, err
}

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
func (s *Store) Commit(ctx context.Context, key string, o CommitOptions) (digest.Digest, error) {
	refs, err := tagList(o.Ref)
	if err != nil {
		return "", err
	}
	r, err := s.Rootfs(ctx, key)
	if err != nil {
		return "", err
	}
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return "", err
	}
	id, err := s.commitLayer(ctx, key, r.Image, o, refs)
	if err != nil {
		s.abandon(ctx, done)
		return "", fmt.Errorf("commit container layer %q: %w", key, err)
	}
	done()
	return id, nil
}

func (s *Store) commitLayer(
	ctx context.Context, key string, base digest.Digest, o CommitOptions, refs []string,
) (digest.Digest, error) {
	s.mu.RLock()
	im, ok := s.idx.images[base]
	s.mu.RUnlock()
	if !ok {
		return "", notFoundError{base.String()}
	}
	old, err := s.configOf(ctx, im)
	if err != nil {
		return "", err
	}
	layers, err := s.layersOf(ctx, im)
	if err != nil {
		return "", err
	}
	pr, pw := io.Pipe()
	written := make(chan error, 1)
	go func() { // joined below
		err := s.Diff(ctx, key, pw)
		pw.CloseWithError(err)
		written <- err
	}()
	m, err := s.makeLayer(ctx, pr, old.RootFS.DiffIDs)
	pr.CloseWithError(errors.New("layer was not stored"))
	if werr := <-written; err == nil {
		err = werr
	}
	if err != nil {
		return "", err
	}
	blob := newConfig(old.platform(), o.Created, o.Config)
	blob.Author, blob.Comment, blob.Container, blob.Parent = o.Author, o.Comment, o.Container, ""
	blob.RootFS.DiffIDs = append(append(blob.RootFS.DiffIDs, old.RootFS.DiffIDs...), m.diff)
	if len(blob.RootFS.DiffIDs) > maxLayers {
		return "", fmt.Errorf(
			"image would have %d layers, at most %d: %w", len(blob.RootFS.DiffIDs), maxLayers,
			errdefs.ErrFailedPrecondition,
		)
	}
	blob.History = append(
		append(blob.History, old.History...),
		ocispec.History{
			Created: blob.Created, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Comment,
		},
	)
	return s.publishMade(
		ctx, blob, append(layers, m.desc), map[digest.Digest]layerRecord{m.chain: m.rec}, refs,
		base,
	)
}
