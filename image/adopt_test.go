package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/document"
)

// buildLabel marks the leases of the builder of these tests.
const buildLabel = "test/build"

// newLease makes a lease as a builder would; drop deletes it.
func newLease(
	ctx context.Context, b Backends,
) (leased context.Context, drop func() error, _ error) {
	l, err := b.Leases.Create(b.Context(ctx), func(l *leases.Lease) error {
		l.ID, l.Labels = "build-"+rand.Text(), map[string]string{buildLabel: "1"}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return leases.WithLease(b.Context(ctx), l.ID),
		func() error { return b.Leases.Delete(b.Context(ctx), l) }, nil
}

// dropLeases deletes the leases that a builder left.
func dropLeases(ctx context.Context, b Backends) error {
	left, err := b.Leases.List(b.Context(ctx), `labels."`+buildLabel+`"`)
	if err != nil {
		return err
	}
	for _, l := range left {
		if err := b.Leases.Delete(b.Context(ctx), l); err != nil {
			return err
		}
	}
	return nil
}

func putBlob(
	ctx context.Context, b Backends, mediaType string, data []byte,
) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{
		MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data)),
	}
	return d, content.WriteBlob(ctx, b.Content, "test-"+d.Digest.String(), bytes.NewReader(data), d)
}

// putSnapshot commits a directory with one file under its chain ID.
func putSnapshot(ctx context.Context, b Backends, diffs []digest.Digest, file, body string) error {
	chains := identity.ChainIDs(slices.Clone(diffs))
	parent, name := "", chains[len(chains)-1].String()
	if len(chains) > 1 {
		parent = chains[len(chains)-2].String()
	}
	key := "build-" + rand.Text()
	if _, err := b.Snapshots.Prepare(ctx, key, parent); err != nil {
		return err
	}
	info, err := b.Snapshots.Stat(ctx, key)
	if err != nil {
		return err
	}
	dir := info.Labels["containerd.io/snapshot/overlay.upperdir"]
	if err := os.WriteFile(filepath.Join(dir, file), []byte(body), 0o644); err != nil {
		return err
	}
	err = b.Snapshots.Commit(ctx, name, key)
	if errdefs.IsAlreadyExists(err) {
		return b.Snapshots.Remove(ctx, key)
	}
	return err
}

// built is an image that a test wrote into the backends by hand.
type built struct {
	target ocispec.Descriptor
	config digest.Digest
	layers []ocispec.Descriptor
	chains []digest.Digest
}

// build writes an image of plain layers, with a directory for each of the first dirs layers, whose
// archive has to hold one file.
func build(ctx context.Context, b Backends, dirs int, layers ...entry) (built, error) {
	c := document.NewConfig(ocispec.Platform{}, epoch, RunConfig{})
	var out built
	for i, e := range layers {
		archive, err := tarBytes(e)
		if err != nil {
			return out, err
		}
		d, err := putBlob(ctx, b, ocispec.MediaTypeImageLayer, archive)
		if err != nil {
			return out, err
		}
		out.layers = append(out.layers, d)
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, d.Digest)
		if i < dirs {
			if err := putSnapshot(ctx, b, c.RootFS.DiffIDs, e.name, e.body); err != nil {
				return out, err
			}
		}
	}
	out.chains = identity.ChainIDs(slices.Clone(c.RootFS.DiffIDs))
	raw, err := json.Marshal(c)
	if err != nil {
		return out, err
	}
	config, err := putBlob(ctx, b, ocispec.MediaTypeImageConfig, raw)
	if err != nil {
		return out, err
	}
	m, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: out.layers,
	})
	if err != nil {
		return out, err
	}
	out.config = config.Digest
	out.target, err = putBlob(ctx, b, ocispec.MediaTypeImageManifest, m)
	return out, err
}

// TestBackendsLease shows that what a caller's lease keeps survives a collection and a reopen, and
// goes with the lease.
func TestBackendsLease(t *testing.T) {
	t.Parallel()
	root, ctx := t.TempDir(), context.Background()
	diff := digest.FromString("a layer of the caller")
	blob := []byte("a blob of the caller")
	holds := func(s *Store) (hasBlob, hasDir bool) {
		t.Helper()
		b := s.Backends()
		_, err := b.Content.Info(b.Context(ctx), digest.FromBytes(blob))
		if err != nil && !errdefs.IsNotFound(err) {
			t.Fatal(err)
		}
		info, serr := b.Snapshots.Stat(b.Context(ctx), diff.String())
		if serr != nil && !errdefs.IsNotFound(serr) {
			t.Fatal(serr)
		}
		hasDir = serr == nil
		if dir := info.Labels["containerd.io/snapshot/overlay.upperdir"]; hasDir &&
			!exists(t, dir, "f") {
			t.Errorf("the snapshot's directory %s is gone", dir)
		}
		return err == nil, hasDir
	}
	func() {
		needOverlay(t)
		s, err := Open(Config{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		b := s.Backends()
		leased, _, err := newLease(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := putBlob(leased, b, "text/plain", blob); err != nil {
			t.Fatal(err)
		}
		if err := putSnapshot(leased, b, []digest.Digest{diff}, "f", "x"); err != nil {
			t.Fatal(err)
		}
		// A removal, which collects.
		mustImport(t, s, "other:1", entry{name: "f", body: "x"})
		if _, err := s.Remove(ctx, "other:1", RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		if blob, dir := holds(s); !blob || !dir {
			t.Errorf("after a collection: blob %v, snapshot %v, want both", blob, dir)
		}
		// An operation that a crash would interrupt: the next Open recovers.
		if _, err := s.backend.Begin(ctx); err != nil {
			t.Fatal(err)
		}
	}()
	s := openStore(t, root)
	if blob, dir := holds(s); !blob || !dir {
		t.Errorf("after a reopen with recovery: blob %v, snapshot %v, want both", blob, dir)
	}
	if err := dropLeases(ctx, s.Backends()); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if blob, dir := holds(s); blob || dir {
		t.Errorf("after the lease: blob %v, snapshot %v, want neither", blob, dir)
	}
	assertEmpty(t, s)
}

// TestAdopt builds images by hand and uses them as any other.
func TestAdopt(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, tc := range []struct {
		name string
		dirs int // layers that the builder unpacked itself
	}{{"unpacked", 2}, {"half unpacked", 1}, {"blobs only", 0}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			s := openStore(t, root)
			old := mustImport(t, s, "built:1", entry{name: "old", body: "old"})
			b := s.Backends()
			leased, drop, err := newLease(ctx, b)
			if err != nil {
				t.Fatal(err)
			}
			made, err := build(
				leased, b, tc.dirs, entry{name: "one", body: "1"}, entry{name: "two", body: "22"},
			)
			if err != nil {
				t.Fatal(err)
			}
			im, err := s.Adopt(ctx, made.target, []string{"built:1", "built:2"})
			if err != nil {
				t.Fatal(err)
			}
			if im.ID != made.config || !slices.Equal(im.RepoTags, []string{"built:1", "built:2"}) ||
				im.Size != 3 {
				t.Errorf("adopted %+v", im)
			}
			if err := drop(); err != nil {
				t.Fatal(err)
			}
			if err := s.Collect(ctx); err != nil {
				t.Fatal(err)
			}
			if im, err := s.Resolve(ctx, old.String()); err != nil || len(im.RepoTags) != 0 {
				t.Errorf("the image that lost its tag: %+v %v", im, err)
			}
			l, err := s.List(ctx, Filter{References: []string{"built:2"}})
			if err != nil || len(l) != 1 || l[0].ID != made.config {
				t.Errorf("listed %+v %v", l, err)
			}
			r, err := s.Prepare(ctx, "c", made.config)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Lower) != 2 || !exists(t, r.Lower[0], "two") || !exists(t, r.Lower[1], "one") {
				t.Errorf("layers %v", r.Lower)
			}
			checkSaved(t, s, made)
			if err := s.Release(ctx, "c"); err != nil {
				t.Fatal(err)
			}
			for _, id := range []digest.Digest{made.config, old} {
				if _, err := s.Remove(ctx, id.String(), RemoveOptions{Force: true}); err != nil {
					t.Fatal(err)
				}
			}
			assertEmpty(t, s)
		})
	}
}

// checkSaved loads what Save writes of an image into another store.
func checkSaved(t *testing.T, s *Store, made built) {
	t.Helper()
	ctx := context.Background()
	d, err := s.Inspect(ctx, "built:2")
	if err != nil || d.Manifest.Digest != made.target.Digest || len(d.Dirs) != 2 {
		t.Errorf("inspected %+v %v", d, err)
	}
	var out bytes.Buffer
	if err := s.Save(ctx, &out, []string{"built:2"}); err != nil {
		t.Fatal(err)
	}
	if l := mustLoad(t, openStore(t, t.TempDir()), out.Bytes()); len(l) != 1 ||
		l[0].ID != made.config {
		t.Errorf("loaded %+v", l)
	}
}

// TestAdoptRefuses gives images that are not whole.
func TestAdoptRefuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	two := []entry{{name: "one", body: "1"}, {name: "two", body: "22"}}
	for _, tc := range []struct {
		name  string
		spoil func(ctx context.Context, b Backends, made *built) error
		refs  []string
		class func(error) bool
		text  string
	}{
		{
			"no manifest",
			func(ctx context.Context, b Backends, made *built) error {
				made.target.Digest = digest.FromString("absent")
				return nil
			},
			nil, errdefs.IsNotFound, "blob sha256:",
		},
		{
			"wrong size",
			func(ctx context.Context, b Backends, made *built) error {
				made.target.Size++
				return nil
			},
			nil, errdefs.IsInvalidArgument, "its descriptor says",
		},
		{
			"no layer",
			func(ctx context.Context, b Backends, made *built) error {
				return b.Content.Delete(ctx, made.layers[1].Digest)
			},
			nil, errdefs.IsNotFound, "layer ",
		},
		{
			"snapshot in the way",
			func(ctx context.Context, b Backends, made *built) error {
				key := "odd-" + rand.Text()
				if _, err := b.Snapshots.Prepare(ctx, key, ""); err != nil {
					return err
				}
				return b.Snapshots.Commit(ctx, made.chains[1].String(), key)
			},
			nil, errdefs.IsFailedPrecondition, "want a committed one on",
		},
		{
			"unfinished snapshot",
			func(ctx context.Context, b Backends, made *built) error {
				_, err := b.Snapshots.Prepare(ctx, made.chains[0].String(), "")
				return err
			},
			nil, errdefs.IsFailedPrecondition, snapshots.KindActive.String(),
		},
		{
			"layer as target",
			func(ctx context.Context, b Backends, made *built) error {
				made.target = made.layers[0]
				return nil
			},
			nil, errdefs.IsInvalidArgument, "no image this engine can run",
		},
		{
			"bad name", func(context.Context, Backends, *built) error { return nil },
			[]string{"good:1", "BAD"}, errdefs.IsInvalidArgument, "BAD",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			b := s.Backends()
			leased, drop, err := newLease(ctx, b)
			if err != nil {
				t.Fatal(err)
			}
			made, err := build(leased, b, 0, two...)
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.spoil(leased, b, &made); err != nil {
				t.Fatal(err)
			}
			if err := s.Collect(ctx); err != nil { // deletes the bytes of deleted blobs
				t.Fatal(err)
			}
			if _, err := s.Adopt(ctx, made.target, tc.refs); !tc.class(err) ||
				!strings.Contains(err.Error(), tc.text) {
				t.Errorf("error %v, want %q", err, tc.text)
			}
			if l, err := s.List(ctx, Filter{All: true}); err != nil || len(l) != 0 {
				t.Errorf("visible: %+v %v", l, err)
			}
			if err := drop(); err != nil {
				t.Fatal(err)
			}
			if err := s.Collect(ctx); err != nil {
				t.Fatal(err)
			}
			assertEmpty(t, s)
		})
	}
}

// TestAdoptIndex takes the manifest for this host out of an index whose other one is not here.
func TestAdoptIndex(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := openStore(t, t.TempDir())
	b := s.Backends()
	leased, drop, err := newLease(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	made, err := build(leased, b, 1, entry{name: "one", body: "1"})
	if err != nil {
		t.Fatal(err)
	}
	here := document.NewConfig(ocispec.Platform{}, epoch, RunConfig{}).Platform()
	mine, other := made.target, ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 5,
		Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"},
	}
	mine.Platform = &here
	raw, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{other, mine},
	})
	if err != nil {
		t.Fatal(err)
	}
	top, err := putBlob(leased, b, ocispec.MediaTypeImageIndex, raw)
	if err != nil {
		t.Fatal(err)
	}
	im, err := s.Adopt(ctx, top, []string{"many:1"})
	if err != nil || im.ID != made.config {
		t.Fatalf("adopted %+v %v", im, err)
	}
	if err := drop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	d, err := s.Inspect(ctx, "many:1")
	if err != nil || d.Target.Digest != top.Digest || d.Manifest.Digest != made.target.Digest ||
		!exists(t, d.Dirs[0], "one") {
		t.Errorf("inspected %+v %v", d, err)
	}
	if err := s.Save(ctx, io.Discard, []string{"many:1"}); err != nil {
		t.Error(err)
	}
}
