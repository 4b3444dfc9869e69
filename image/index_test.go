package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/ulikunitz/xz"
)

// id makes an image ID that starts with the given hexadecimal digits.
func testID(prefix string) digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, prefix+strings.Repeat("0", 64-len(prefix)))
}

func TestFind(t *testing.T) {
	t.Parallel()
	x := newIndex()
	a, b, c := testID("aa11"), testID("aa22"), testID("cafe")
	for _, id := range []digest.Digest{a, b, c} {
		x.putImage(id, imageRecord{Removed: id == c})
	}
	target := ocispec.Descriptor{Digest: digest.FromString("manifest")}
	x.putRef("docker.io/library/busybox:latest", refRecord{ID: a, Target: target})
	x.putRef("docker.io/strake/base:latest", refRecord{ID: b})
	x.putRef("docker.io/library/cafe:latest", refRecord{ID: a, Target: target})
	x.putRef("docker.io/library/busybox@"+target.Digest.String(), refRecord{ID: a, Target: target})
	x.putRef("host:5000/x:1", refRecord{ID: b})
	for _, tc := range []struct {
		ref     string
		want    digest.Digest
		matched string
		err     string
	}{
		{"busybox", a, "docker.io/library/busybox:latest", ""},
		{"docker.io/library/busybox:latest", a, "docker.io/library/busybox:latest", ""},
		{"strake/base", b, "docker.io/strake/base:latest", ""},
		{"host:5000/x:1", b, "host:5000/x:1", ""},
		{
			"busybox@" + target.Digest.String(), a,
			"docker.io/library/busybox@" + target.Digest.String(), "",
		},
		{
			"busybox:1.0@" + target.Digest.String(), a,
			"docker.io/library/busybox@" + target.Digest.String(), "",
		},
		{"cafe@" + target.Digest.String(), a, "", ""},
		{a.String(), a, "", ""},
		{a.Encoded(), a, "", ""},
		{"aa11", a, "", ""},
		{"sha256:aa2", b, "", ""},
		{"cafe", a, "docker.io/library/cafe:latest", ""}, // a name wins over a prefix, and a removed image has none
		{"aa", "", "", "No such image: aa:latest"},
		{"aa1100000001", "", "", "No such image: aa1100000001:latest"},
		{c.String(), "", "", "No such image: " + c.String()},
		{"nothing", "", "", "No such image: nothing:latest"},
		{"host:5000/x", "", "", "No such image: host:5000/x:latest"},
		{"UPPER", "", "", "invalid reference format"},
		{"", "", "", "invalid reference format"},
	} {
		im, matched, err := x.find(tc.ref)
		if tc.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
				t.Errorf("%q: error %v, want %q", tc.ref, err, tc.err)
			} else if strings.HasPrefix(tc.err, "No such") != errdefs.IsNotFound(err) {
				t.Errorf("%q: class of %v", tc.ref, err)
			}
			continue
		}
		if err != nil || im.id != tc.want || matched != tc.matched {
			t.Errorf("%q: %v %q %v", tc.ref, im, matched, err)
		}
	}
}

func TestRemovePlan(t *testing.T) {
	t.Parallel()
	const tag, tag2, other = "docker.io/library/a:1", "docker.io/library/a:2", "docker.io/library/b:1"
	dig := "docker.io/library/a@" + digest.FromString("m").String()
	img, child, parent := testID("11"), testID("22"), testID("33")
	running, stopped := []Use{{"run-container-long", true}}, []Use{{"stopped-container", false}}
	for _, tc := range []struct {
		name    string
		refs    []string
		uses    []Use
		child   bool
		given   string // the reference matched; empty for the ID
		o       RemoveOptions
		out     string
		err     string
		refused bool
	}{
		{name: "last tag", refs: []string{tag}, given: tag, out: "-a:1 x11 x33"},
		{
			name: "last tag, no prune", refs: []string{tag}, given: tag,
			o: RemoveOptions{NoPrune: true}, out: "-a:1 x11",
		},
		{name: "one of two tags", refs: []string{tag, tag2}, given: tag, out: "-a:1"},
		{name: "one of two repositories", refs: []string{tag, other}, given: tag, out: "-a:1"},
		{name: "tag and its digest", refs: []string{tag, dig}, given: tag, out: "-a:1 -a@ x11 x33"},
		{
			name: "digest stays with another tag", refs: []string{tag, tag2, dig}, given: tag,
			out: "-a:1",
		},
		{name: "by ID", refs: []string{tag, dig}, out: "-a:1 -a@ x11 x33"},
		{
			name: "by ID, two repositories", refs: []string{tag, other},
			err: "(must be forced) - image is referenced in multiple repositories",
		},
		{
			name: "by ID, two tags", refs: []string{tag, tag2},
			err: "(must be forced) - image is referenced in multiple repositories",
		},
		{
			name: "by ID, two repositories, forced", refs: []string{tag, other},
			o: RemoveOptions{Force: true}, out: "-a:1 -b:1 x11 x33",
		},
		{
			name: "stopped, by tag", refs: []string{tag}, uses: stopped, given: tag,
			err: "unable to remove repository reference \"docker.io/library/a:1\" (must force) - container stopped-cont is using",
		},
		{
			name: "stopped, by tag, forced", refs: []string{tag}, uses: stopped, given: tag,
			o: RemoveOptions{Force: true}, out: "-a:1 x11 x33",
		},
		{
			name: "stopped, by one of two tags", refs: []string{tag, tag2}, uses: stopped,
			given: tag, out: "-a:1",
		},
		{
			name: "stopped, by ID", refs: nil, uses: stopped,
			err: "(must be forced) - image is being used by stopped container stopped-cont",
		},
		{
			name: "running, by ID, forced", refs: []string{tag}, uses: running,
			o:   RemoveOptions{Force: true},
			err: "(cannot be forced) - image is being used by running container run-containe",
		},
		{
			name: "running, by tag, forced", refs: []string{tag}, uses: running, given: tag,
			o: RemoveOptions{Force: true}, out: "-a:1",
		},
		{
			name: "child, by ID", refs: nil, child: true, o: RemoveOptions{Force: true},
			err: "(cannot be forced) - image has dependent child images",
		},
		{name: "child, by tag", refs: []string{tag}, child: true, given: tag, out: "-a:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			x := newIndex()
			x.putImage(parent, imageRecord{})
			x.putImage(img, imageRecord{Parent: parent})
			if tc.child {
				x.putImage(child, imageRecord{Parent: img})
			}
			for _, r := range tc.refs {
				x.putRef(r, refRecord{ID: img})
			}
			p := removal{view: viewOf(x), uses: map[digest.Digest][]Use{img: tc.uses}}
			err := p.run(img, tc.given, tc.given, tc.o)
			if tc.err != "" {
				if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range p.out {
				switch {
				case r.Deleted != "":
					got = append(got, "x"+strings.TrimPrefix(r.Deleted, "sha256:")[:2])
				case strings.Contains(r.Untagged, "@"):
					got = append(got, "-a@")
				default:
					got = append(got, "-"+r.Untagged)
				}
			}
			if s := strings.Join(got, " "); s != tc.out {
				t.Errorf("did %q, want %q", s, tc.out)
			}
		})
	}
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	x := newIndex()
	at := func(h int) time.Time { return time.Date(2026, 1, 1, h, 0, 0, 0, time.UTC) }
	x.putLayer("l1", layerRecord{Size: 10})
	x.putLayer("l2", layerRecord{Size: 5})
	x.putImage(
		testID("a"),
		imageRecord{
			Created: at(1), Labels: map[string]string{"k": "v"}, Layers: []digest.Digest{"l1"},
		},
	)
	x.putImage(
		testID("b"),
		imageRecord{Created: at(2), Layers: []digest.Digest{"l1", "l2"}, Parent: testID("d")},
	)
	x.putImage(testID("c"), imageRecord{Created: at(3)})
	x.putImage(testID("d"), imageRecord{Created: at(4)})
	x.putImage(testID("e"), imageRecord{Created: at(5), Removed: true})
	x.putRef("docker.io/library/one:1", refRecord{ID: testID("a")})
	x.putRef("docker.io/library/one:2", refRecord{ID: testID("a")})
	x.putRef("host.example/two:1", refRecord{ID: testID("b")})
	s := &Store{idx: x}
	yes, no := true, false
	for _, tc := range []struct {
		name string
		f    Filter
		want string
	}{
		{"all visible", Filter{}, "c b a"}, // d is only a parent
		{"with parents", Filter{All: true}, "d c b a"},
		{"dangling", Filter{Dangling: &yes}, "c"},
		{"not dangling", Filter{Dangling: &no}, "b a"},
		{"label", Filter{Labels: []string{"k"}}, "a"},
		{"label value", Filter{Labels: []string{"k=v"}}, "a"},
		{"wrong label value", Filter{Labels: []string{"k=w"}}, ""},
		{"not label", Filter{NotLabels: []string{"k=v"}}, "c b"},
		{"before", Filter{Before: "host.example/two:1"}, "a"},
		{"since", Filter{Since: "one:1"}, "c b"},
		{"until", Filter{Until: at(3)}, "b a"},
		{"reference", Filter{References: []string{"one:*"}}, "a"},
		{"reference without tag", Filter{References: []string{"one", "host.example/two"}}, "b a"},
		{"IDs", Filter{IDs: []digest.Digest{testID("b"), testID("x")}}, "b"},
	} {
		l, err := s.List(context.Background(), tc.f)
		var got []string
		for _, i := range l {
			got = append(got, i.ID.Encoded()[:1])
		}
		if err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %q %v, want %q", tc.name, got, err, tc.want)
		}
	}
	l, _ := s.List(context.Background(), Filter{SharedSize: true, References: []string{"one:2"}})
	if len(l) != 1 || l[0].SharedSize != 10 || l[0].Size != 10 ||
		!slices.Equal(l[0].RepoTags, []string{"one:2"}) {
		t.Errorf("shared size %+v", l)
	}
	if _, err := s.List(context.Background(), Filter{Before: "none"}); !errdefs.IsNotFound(err) {
		t.Errorf("before nothing: %v", err)
	}
	if _, err := s.List(
		context.Background(), Filter{References: []string{"["}},
	); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad pattern: %v", err)
	}
}

func TestImportForms(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	plain := tarOf(t, entry{name: "f", body: "x"})
	pack := func(open func(io.Writer) (io.WriteCloser, error)) []byte {
		var b bytes.Buffer
		w, err := open(&b)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(plain)
		w.Close()
		return b.Bytes()
	}
	gz := pack(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
	s := openStore(t, t.TempDir())
	for _, tc := range []struct {
		name string
		data []byte
		bad  bool
	}{
		{"plain", plain, false},
		{"gzip", gz, false},
		{
			"zstd", pack(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
			false,
		},
		{"xz", pack(func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }), false},
		{"truncated gzip", gz[:len(gz)-12], true},
		{"truncated tar", plain[:512], true},
		{"noise", []byte(noise(5000)), true},
		{"escape", tarOf(t, entry{name: "../x", body: "x"}), true},
	} {
		id, err := s.Import(
			ctx, bytes.NewReader(tc.data),
			ImportOptions{
				Ref: "im:1", Message: "m",
				Config: RunConfig{ImageConfig: ocispec.ImageConfig{Cmd: []string{"c"}}},
			},
		)
		if tc.bad {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: error %v", tc.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		d, err := s.Inspect(ctx, "im:1")
		if err != nil || d.ID != id || d.Comment != "m" || d.Config.Cmd[0] != "c" ||
			!exists(t, d.Dirs[0], "f") || d.Size != 1 {
			t.Errorf("%s: %+v %v", tc.name, d, err)
		}
		if _, err := s.Remove(ctx, "im:1", RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
	assertEmpty(t, s)
	if _, err := s.Import(
		ctx, bytes.NewReader(plain), ImportOptions{Ref: "BAD"},
	); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad name: %v", err)
	}
}

func TestCommitHistoryChanges(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := openStore(t, t.TempDir())
	base := mustImport(t, s, "base:1", entry{name: "etc/"}, entry{name: "etc/a", body: "1"})
	r, err := s.Prepare(ctx, "c", base)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.Upper, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Upper, "etc/b"), []byte("22"), 0o644); err != nil {
		t.Fatal(err)
	}
	if ch, err := s.Changes(ctx, "c"); err != nil || fmt.Sprint(ch) != "[{/etc 0} {/etc/b 1}]" {
		t.Errorf("changes %v %v", ch, err)
	}
	if u, err := s.Usage(ctx, "c"); err != nil || u.Inodes != 3 || u.Bytes == 0 {
		t.Errorf("usage %+v %v", u, err)
	}
	id, err := s.Commit(
		ctx, "c",
		CommitOptions{
			Ref: "top:1", Author: "me", Comment: "why", CreatedBy: "sh", Created: time.Unix(1e9, 0),
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Inspect(ctx, "top:1")
	if err != nil || d.ID != id || d.Parent != base || len(d.Dirs) != 2 || d.Author != "me" ||
		d.Size != 3 || !exists(t, d.Dirs[1], "etc/b") {
		t.Errorf("committed %+v %v", d, err)
	}
	h, err := s.History(ctx, "top:1")
	if err != nil || len(h) != 2 || h[0].ID != id || h[0].Size != 2 || h[0].CreatedBy != "sh" ||
		h[1].ID != base || h[1].Size != 1 {
		t.Errorf("history %+v %v", h, err)
	}
	if _, err := s.Remove(
		ctx, base.String(), RemoveOptions{Force: true},
	); !errdefs.IsConflict(err) {
		t.Errorf("removal of a parent: %v", err)
	}
	if _, err := s.Remove(ctx, "base:1", RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if err := s.Release(ctx, "c"); err != nil {
		t.Error(err)
	}
	out, err := s.Remove(ctx, "top:1", RemoveOptions{Later: true})
	if err != nil || len(out) != 5 { // tag, two images, two layers
		t.Errorf("removed %v %v", out, err)
	}
	if !exists(t, d.Dirs[0]) {
		t.Error("Later did not leave the bytes")
	}
	if err := s.Collect(ctx); err != nil {
		t.Error(err)
	}
	assertEmpty(t, s)
}

func TestLoadFaults(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := openStore(t, t.TempDir())
	layer := tarOf(t, entry{name: "big", body: noise(200 << 10)})
	good := dockerArchive(t, RunConfig{}, []string{"x:1"}, layer)
	config := configJSON(t, RunConfig{}, layer)
	for _, tc := range []struct {
		name string
		data []byte
		text string
	}{
		{"empty", nil, "empty"},
		{"nothing in it", tarOf(t, entry{name: "x"}), "neither manifest.json nor index.json"},
		{"old form", tarOf(t, entry{name: "repositories", body: "{}"}), "docker before 1.10"},
		{"truncated", good[:len(good)/2], "truncated"},
		{
			"file outside",
			tarOf(
				t,
				entry{name: "manifest.json", body: `[{"Config":"../../etc/passwd","Layers":[]}]`},
			),
			"does not hold it",
		},
		{
			"link outside",
			tarOf(
				t, entry{name: "c", kind: '2', link: "/etc/passwd"},
				entry{name: "manifest.json", body: `[{"Config":"c","Layers":[]}]`},
			),
			"does not hold it",
		},
		{
			"link loop",
			tarOf(
				t, entry{name: "c", kind: '2', link: "c"},
				entry{name: "manifest.json", body: `[{"Config":"c","Layers":[]}]`},
			),
			"does not hold it",
		},
		{
			"wrong layer",
			tarOf(
				t, entry{name: "c", body: string(config)},
				entry{name: "l", body: string(tarOf(t, entry{name: "other"}))},
				entry{name: "manifest.json", body: `[{"Config":"c","Layers":["l"]}]`},
			),
			"its image says",
		},
		{
			"layers missing",
			tarOf(
				t, entry{name: "c", body: string(config)},
				entry{name: "manifest.json", body: `[{"Config":"c","Layers":[]}]`},
			),
			"1 layers in its configuration and 0",
		},
		{"bad tag", dockerArchive(t, RunConfig{}, []string{"BAD:1"}, layer), "BAD"},
		{"no JSON", tarOf(t, entry{name: "manifest.json", body: `{`}), "manifest.json"},
	} {
		_, err := s.Load(ctx, bytes.NewReader(tc.data), LoadOptions{})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: error %v", tc.name, err)
		}
		assertEmpty(t, s)
	}
	boom := errors.New("boom")
	if _, err := s.Load(
		ctx, io.MultiReader(bytes.NewReader(good[:1000]), errReader{boom}), LoadOptions{},
	); !errors.Is(err, boom) {
		t.Errorf("reader's error: %v", err)
	}
	assertEmpty(t, s)
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestLayersThatNeedTheirParents(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	base := tarOf(
		t, entry{name: "usr/lib/"}, entry{name: "usr/lib/a", body: "a"},
		entry{name: "lib", kind: '2', link: "usr/lib"}, entry{name: "drop/x", body: "x"},
	)
	mid := tarOf(t, entry{name: "mid", body: "m"})
	top := tarOf(
		t, entry{name: "lib/b", body: "b"}, entry{name: "hard", kind: '1', link: "usr/lib/a"},
		entry{name: ".wh.drop"}, entry{name: "usr/lib/.wh.none"},
	)
	l := mustLoad(t, s, dockerArchive(t, RunConfig{}, []string{"m:1"}, base, mid, top))
	d, err := s.Inspect(context.Background(), l[0].ID.String())
	if err != nil {
		t.Fatal(err)
	}
	if !exists(t, d.Dirs[2], "usr/lib/b") || exists(t, d.Dirs[2], "lib") {
		t.Error("a file below a parent's link is not behind it")
	}
	if b, err := os.ReadFile(filepath.Join(d.Dirs[2], "hard")); err != nil || string(b) != "a" {
		t.Errorf("hard link to a parent's file: %q %v", b, err)
	}
	if st, err := os.Lstat(filepath.Join(d.Dirs[2], "drop")); err != nil ||
		st.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("whiteout: %v %v", st, err)
	}
	// The same at the bottom, where no parent can help, is the archive's fault.
	bad := tarOf(t, entry{name: "h", kind: '1', link: "nowhere"})
	if _, err := s.Load(
		context.Background(), bytes.NewReader(dockerArchive(t, RunConfig{}, nil, bad)),
		LoadOptions{},
	); !errdefs.IsInvalidArgument(err) {
		t.Errorf("dangling hard link: %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		c    Config
		text string
	}{
		{Config{Root: "relative"}, "Root"},
		{Config{Root: "/x", MaxConcurrentUnpacks: -1}, "MaxConcurrentUnpacks"},
		{Config{Root: "/x", Registries: Registries{Mirrors: []string{"ftp://x"}}}, "Mirrors"},
		{Config{Root: "/x", Registries: Registries{Insecure: []string{"http://x"}}}, "Insecure"},
	} {
		if err := tc.c.Validate(); !errdefs.IsInvalidArgument(err) ||
			!strings.Contains(err.Error(), tc.text) {
			t.Errorf("%+v: %v", tc.c, err)
		}
	}
	r := Registries{Insecure: []string{"10.0.0.0/8", "reg.example:5000", "plain.example"}}
	for host, want := range map[string]bool{
		"localhost:5000": true, "127.1.2.3": true, "[::1]:80": true, "10.2.3.4:5000": true,
		"11.2.3.4": false, "reg.example:5000": true, "reg.example": false, "plain.example:1": true,
		"docker.io": false,
	} {
		if r.insecure(host) != want {
			t.Errorf("insecure(%q) is %v", host, !want)
		}
	}
}

func BenchmarkList1000(b *testing.B) {
	s := &Store{idx: newIndex()}
	for i := range 1000 {
		id := digest.FromString(fmt.Sprint(i))
		s.idx.putImage(
			id, imageRecord{Created: time.Unix(int64(i), 0), Labels: map[string]string{"k": "v"}},
		)
		s.idx.putRef(fmt.Sprintf("docker.io/library/image%d:latest", i), refRecord{ID: id})
	}
	for b.Loop() {
		if l, err := s.List(context.Background(), Filter{}); err != nil || len(l) != 1000 {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrepareRelease(b *testing.B) {
	s := openStore(b, b.TempDir())
	id := mustImport(b, s, "x:1", entry{name: "./"}, entry{name: "f", body: "x"})
	ctx := context.Background()
	for b.Loop() {
		if _, err := s.Prepare(ctx, "c", id); err != nil {
			b.Fatal(err)
		}
		if err := s.Release(ctx, "c"); err != nil {
			b.Fatal(err)
		}
	}
}
