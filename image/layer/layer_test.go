package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTarRoundTrip(t *testing.T) {
	needRoot(t)
	t.Parallel()
	ctx := context.Background()
	first := newJail(t)
	in := archive(t, entry{name: "./", mode: 0o700}, entry{name: "d/"}, entry{
		name: "d/.wh..wh..opq",
	}, entry{
		name: "d/f", body: "body", mode: 0o4711, uid: 4,
		pax: map[string]string{"SCHILY.xattr.user.k": "v"},
	},
		entry{name: "hard", kind: tar.TypeLink, link: "d/f"}, entry{name: ".wh.gone"},
		entry{name: "sym", kind: tar.TypeSymlink, link: "d/f"},
		entry{name: strings.Repeat("long/", 60) + "x", body: "deep"})
	if _, err := Apply(ctx, first.root, bytes.NewReader(in), Options{}); err != nil {
		t.Fatal(err)
	}
	var once, twice bytes.Buffer
	if err := Tar(ctx, first.root, Overlay, &once); err != nil {
		t.Fatal(err)
	}
	second := newJail(t)
	if _, err := Apply(ctx, second.root, bytes.NewReader(once.Bytes()), Options{}); err != nil {
		t.Fatal(err)
	}
	if err := Tar(ctx, second.root, Overlay, &twice); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(once.Bytes(), twice.Bytes()) {
		t.Error("unpacking and packing again changed the archive")
	}
	for _, want := range []string{".wh.gone", "d/.wh..wh..opq", "SCHILY.xattr.user.k"} {
		if !bytes.Contains(once.Bytes(), []byte(want)) {
			t.Errorf("archive lacks %q", want)
		}
	}
}

func TestChanges(t *testing.T) {
	needRoot(t)
	t.Parallel()
	ctx := context.Background()
	base, mid, upper := newJail(t), newJail(t), newJail(t)
	for _, l := range []struct {
		j  jail
		es []entry
	}{
		{
			base,
			[]entry{
				{name: "etc/"}, {name: "etc/passwd", body: "1"}, {name: "old/x", body: "1"},
				{name: "gone", body: "1"},
			},
		},
		{mid, []entry{{name: ".wh.gone"}, {name: "mid", body: "1"}}},
		{
			upper,
			[]entry{
				{name: "etc/"}, {name: "etc/passwd", body: "2"}, {name: "etc/new", body: "2"},
				{name: ".wh.mid"}, {name: ".wh.gone"}, {name: "gone2", body: ""},
			},
		},
	} {
		if _, err := Apply(
			ctx, l.j.root, bytes.NewReader(archive(t, l.es...)), Options{},
		); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Changes(ctx, upper.root, []*os.File{mid.root, base.root})
	if err != nil {
		t.Fatal(err)
	}
	want := "[{/etc 0} {/etc/new 1} {/etc/passwd 0} {/gone2 1} {/mid 2}]"
	if fmt.Sprint(got) != want {
		t.Errorf("changes %v, want %s", got, want)
	}
}

func TestInheritDirs(t *testing.T) {
	needRoot(t)
	t.Parallel()
	ctx := context.Background()
	base, upper := newJail(t), newJail(t)
	apply := func(j jail, es ...entry) Result {
		r, err := Apply(ctx, j.root, bytes.NewReader(archive(t, es...)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	apply(
		base, entry{name: "./", mode: 0o750}, entry{name: "a/", mode: 0o700, uid: 42},
		entry{name: "lib", kind: tar.TypeSymlink, link: "a"},
	)
	r := apply(upper, entry{name: "a/b/c", body: "x"})
	if err := InheritDirs(upper.root, []*os.File{base.root}, r.Implied); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"a": 0o700, "a/b": 0o755, ".": 0o750} {
		if st, err := os.Stat(filepath.Join(upper.root.Name(), name)); err != nil ||
			st.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want %o", name, st, err, mode)
		}
	}
	other := newJail(t)
	r = apply(other, entry{name: "lib/x", body: "x"})
	if err := InheritDirs(other.root, []*os.File{base.root}, r.Implied); !errors.Is(
		err, ErrNeedsParents,
	) {
		t.Errorf("directory over a parent's link: %v", err)
	}
}

// FuzzApply feeds arbitrary archives to both styles; nothing beside the root may change.
func FuzzApply(f *testing.F) {
	needRoot(f)
	for _, es := range [][]entry{
		{
			{name: "a/b", body: "x"}, {name: "l", kind: tar.TypeSymlink, link: "../canary"},
			{name: "l/file", body: "y"},
		},
		{
			{name: "h", kind: tar.TypeLink, link: "../canary/file"},
			{name: "../canary/file", body: "x"},
		},
		{
			{name: "d/"}, {name: "d/.wh..wh..opq"}, {name: ".wh.d"},
			{name: "d", kind: tar.TypeSymlink, link: "/"},
		},
		{
			{name: "n", kind: tar.TypeChar, major: 1, minor: 3}, {name: "p", kind: tar.TypeFifo},
			{name: "x", pax: map[string]string{"SCHILY.xattr.user.a": "b"}},
		},
	} {
		f.Add(archive(f, es...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, style := range []Style{Overlay, Merged} {
			j := newJail(t)
			ctx := context.Background()
			lim := Limits{Bytes: 1 << 20, Entries: 200}
			Apply(ctx, j.root, bytes.NewReader(data), Options{Style: style, Limits: lim})
			// A second layer on what the first left, which is where exchanged parents would show.
			Apply(ctx, j.root, bytes.NewReader(data), Options{Style: Merged, Limits: lim})
			j.check(t)
		}
	})
}

// FuzzDecompress checks that damaged streams end in an error or an end, never in a panic.
func FuzzDecompress(f *testing.F) {
	for _, s := range []string{
		"\x1f\x8b\x08", "\x28\xb5\x2f\xfd", "BZh9", "\xfd7zXZ\x00", "plain",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _, err := Decompress(bytes.NewReader(data))
		if err != nil {
			return
		}
		a := Ahead(r)
		io.CopyN(io.Discard, a, 8<<20)
		a.Close()
		r.Close()
	})
}
