package index

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// boltDB is a DB of a file, with roots in memory.
type boltDB struct {
	*bolt.DB
	roots map[string]digest.Digest
	fail  error // of the next Update
}

func (d *boltDB) Update(_ context.Context, fn func(*bolt.Tx, Roots) error) error {
	roots := maps.Clone(d.roots)
	err := d.DB.Update(func(tx *bolt.Tx) error {
		return errors.Join(fn(tx, memoryRoots(roots)), d.fail)
	})
	if d.fail = nil; err == nil {
		d.roots = roots
	}
	return err
}

type memoryRoots map[string]digest.Digest

func (m memoryRoots) Put(name string, target ocispec.Descriptor) error {
	m[name] = target.Digest
	return nil
}

func (m memoryRoots) Drop(name string) error {
	delete(m, name)
	return nil
}

func openIndex(t *testing.T) (*Index, *boltDB) {
	t.Helper()
	b, err := bolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	db := &boltDB{DB: b, roots: map[string]digest.Digest{}}
	x, err := Open(db, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return x, db
}

// unused says that no container uses an image and no root file system stands on one.
var unused = Users{
	InUse: func(digest.Digest) []Use { return nil },
	Held:  func(digest.Digest) bool { return false },
}

func newImage(id digest.Digest, parent digest.Digest, refs ...string) New {
	chain := digest.FromString("layer of " + string(id))
	target := ocispec.Descriptor{Digest: digest.FromString("manifest of " + string(id)), Size: 3}
	return New{
		ID: id, Refs: refs, Layers: map[digest.Digest]Layer{chain: {Dir: "d", Size: 7}},
		Record: Record{
			Target: target, Manifest: target, Parent: parent, Layers: []digest.Digest{chain},
			Labels: map[string]string{"k": "v"},
		},
	}
}

// TestRemoveAsksForUsers checks that Remove asks whose image it is: the image itself and its parents.
func TestRemoveAsksForUsers(t *testing.T) {
	t.Parallel()
	x, _ := openIndex(t)
	ctx := t.Context()
	parent, child := testID("aa"), testID("bb")
	for _, n := range []New{
		newImage(parent, ""), newImage(child, parent, "docker.io/library/x:1"),
	} {
		if _, err := x.Publish(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	usedBy := func(user digest.Digest) Users {
		return Users{Held: unused.Held, InUse: func(id digest.Digest) []Use {
			if id == user {
				return []Use{{Container: "the-container", Running: true}}
			}
			return nil
		}}
	}
	_, _, err := x.Remove(ctx, "x:1", RemoveOptions{}, usedBy(child))
	if !errdefs.IsConflict(err) || len(x.st.images) != 2 {
		t.Errorf("of a running container: %v, %d images, want a conflict and 2", err, len(x.st.images))
	}
	if _, _, err = x.Remove(ctx, "x:1", RemoveOptions{}, usedBy(parent)); err != nil {
		t.Fatal(err)
	}
	if _, ok := x.Image(parent); !ok || len(x.st.images) != 1 {
		t.Errorf("the parent is used: %v, %d images, want it alone", ok, len(x.st.images))
	}
}

// TestPersistence changes an index in every way and compares, after each change, what is in memory
// with what another Open reads, and the roots with what is recorded.
func TestPersistence(t *testing.T) {
	t.Parallel()
	x, db := openIndex(t)
	a, b, c := testID("aa"), testID("bb"), testID("cc")
	tag := "docker.io/library/x:1"
	packed := ocispec.Descriptor{Digest: digest.FromString("packed")}
	ctx := t.Context()
	publish := func(n New) func() error {
		return func() error { _, err := x.Publish(ctx, n); return err }
	}
	remove := func(ref string, o RemoveOptions, u Users) func() error {
		return func() error { _, _, err := x.Remove(ctx, ref, o, u); return err }
	}
	held := Users{InUse: unused.InUse, Held: func(id digest.Digest) bool { return id == b }}
	for _, step := range []struct {
		name string
		do   func() error
		want int // images in memory, concealed ones too
	}{
		{"publish", publish(newImage(a, "", tag, "docker.io/library/x:2")), 1},
		{"publish a child", publish(newImage(b, a, "docker.io/library/y:1")), 2},
		{"publish without a name", publish(newImage(c, "")), 3},
		{"publish, which moves a tag", publish(newImage(c, "", tag)), 3},
		{"tag", func() error { return x.Tag(ctx, "y:1", "host.example/z:1") }, 3},
		{
			"add a digest",
			func() error { return x.AddRef(ctx, c, "docker.io/library/x@"+a.String(), packed) }, 3,
		},
		{"repack", func() error { return x.Repack(ctx, c, packed) }, 3},
		{"remove a tag", remove("host.example/z:1", RemoveOptions{}, unused), 3},
		{"remove a held image", remove("y:1", RemoveOptions{Force: true, NoPrune: true}, held), 3},
		{
			"forget it while it is held",
			func() error { _, err := x.Forget(ctx, b, held); return err }, 3,
		},
		{"forget it", func() error { _, err := x.Forget(ctx, b, unused); return err }, 2},
		{"remove by ID", remove(c.String(), RemoveOptions{Force: true}, unused), 1},
		{
			"clean",
			func() error { return x.Clean(ctx, func(context.Context) error { return nil }) }, 1,
		},
		{"remove the last", remove("x:2", RemoveOptions{}, unused), 0},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if len(x.st.images) != step.want {
			t.Errorf("%s: %d images, want %d", step.name, len(x.st.images), step.want)
		}
		compare(t, step.name, x, db)
	}
	if dirty, err := x.Dirty(); !dirty || err != nil {
		t.Errorf("after a removal without collection: dirty %v, %v", dirty, err)
	}
}

// compare checks an index against its database.
func compare(t *testing.T, step string, x *Index, db *boltDB) {
	t.Helper()
	again, err := Open(db, func(string) {})
	if err != nil {
		t.Fatalf("%s: %v", step, err)
	}
	for _, c := range []struct {
		what     string
		got, had any
	}{
		{"images", again.st.images, x.st.images}, {"references", again.st.refs, x.st.refs},
		{"layer use", again.st.layerUse, x.st.layerUse},
		{"children", again.st.children, x.st.children},
	} {
		if !reflect.DeepEqual(c.got, c.had) {
			t.Errorf("%s: %s are %+v when read again, were %+v", step, c.what, c.got, c.had)
		}
	}
	want := map[string]digest.Digest{}
	for id, im := range x.st.images {
		want[id.String()] = im.Rec.Target.Digest
	}
	for ref, r := range x.st.refs {
		want[ref] = r.Target.Digest
	}
	if !maps.Equal(want, db.roots) {
		t.Errorf("%s: roots %v, want %v", step, db.roots, want)
	}
	if len(again.st.layers) != len(again.st.layerUse) {
		t.Errorf("%s: %d layers are recorded, %d used", step, len(again.st.layers),
			len(again.st.layerUse))
	}
}

// TestFailedChange has the database refuse: nothing changes, and an image that was about to go can
// be retained again.
func TestFailedChange(t *testing.T) {
	t.Parallel()
	x, db := openIndex(t)
	a, ctx, full := testID("aa"), t.Context(), errors.New("no space")
	if _, err := x.Publish(ctx, newImage(a, "", "docker.io/library/x:1")); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"publish": func() error {
			_, err := x.Publish(ctx, newImage(testID("bb"), ""))
			return err
		},
		"tag": func() error { return x.Tag(ctx, "x:1", "y:1") },
		"remove": func() error {
			_, _, err := x.Remove(ctx, "x:1", RemoveOptions{Force: true}, unused)
			return err
		},
	} {
		db.fail = full
		if err := do(); !errors.Is(err, full) {
			t.Errorf("%s: error %v", name, err)
		}
		if im, _, err := x.Find("x:1"); err != nil || !slices.Equal(im.Tags, []string{"x:1"}) {
			t.Errorf("%s: found %+v %v", name, im, err)
		}
		if _, err := x.Retain(a, func() {}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		compare(t, name, x, db)
	}
}

// TestRetain shows that an image is either gone for Retain or held for Remove.
func TestRetain(t *testing.T) {
	t.Parallel()
	x, _ := openIndex(t)
	a, ctx, held := testID("aa"), t.Context(), false
	if _, err := x.Publish(ctx, newImage(a, "", "docker.io/library/x:1")); err != nil {
		t.Fatal(err)
	}
	layers, err := x.Retain(a, func() { held = true })
	if err != nil || len(layers) != 1 || layers[0].Dir != "d" || !held {
		t.Fatalf("retained %+v, %v, %v", layers, held, err)
	}
	u := Users{InUse: unused.InUse, Held: func(digest.Digest) bool { return held }}
	if _, _, err := x.Remove(ctx, "x:1", RemoveOptions{}, u); err != nil {
		t.Fatal(err)
	}
	if _, _, err := x.Find(a.String()); !errdefs.IsNotFound(err) {
		t.Errorf("a removed image is found: %v", err)
	}
	if _, err := x.Retain(a, func() { t.Error("held") }); !errdefs.IsNotFound(err) {
		t.Errorf("a removed image was retained: %v", err)
	}
	if im, ok := x.Image(a); !ok || len(x.Layers(im)) != 1 ||
		!slices.Equal(x.Concealed(), []digest.Digest{a}) {
		t.Error("a held image lost its layers")
	}
	if dropped, err := x.Forget(ctx, a, u); dropped || err != nil {
		t.Errorf("a held image was dropped: %v", err)
	}
	held = false
	if dropped, err := x.Forget(ctx, a, u); !dropped || err != nil {
		t.Errorf("an image that is no longer held stays: %v", err)
	}
	if _, ok := x.Image(a); ok {
		t.Error("forgotten, and still here")
	}
}

// TestClean has something removed while a collection runs: the mark stays for the next one.
func TestClean(t *testing.T) {
	t.Parallel()
	x, _ := openIndex(t)
	ctx := t.Context()
	for _, tag := range []string{"docker.io/library/x:1", "docker.io/library/y:1"} {
		if _, err := x.Publish(ctx, newImage(digest.FromString(tag), "", tag)); err != nil {
			t.Fatal(err)
		}
	}
	dirty := func(want bool) {
		t.Helper()
		if got, err := x.Dirty(); got != want || err != nil {
			t.Errorf("dirty %v, %v; want %v", got, err, want)
		}
	}
	remove := func(ref string) error {
		_, _, err := x.Remove(ctx, ref, RemoveOptions{}, unused)
		return err
	}
	dirty(false)
	if err := remove("x:1"); err != nil {
		t.Fatal(err)
	}
	dirty(true)
	if err := x.Clean(ctx, func(context.Context) error { return remove("y:1") }); err != nil {
		t.Fatal(err)
	}
	dirty(true)
	broken := errors.New("broken")
	if err := x.Clean(ctx, func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	dirty(true)
	if err := x.Clean(ctx, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	dirty(false)
}
