package index

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// id makes an image ID that starts with the given hexadecimal digits.
func testID(prefix string) digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, prefix+strings.Repeat("0", 64-len(prefix)))
}

func TestFind(t *testing.T) {
	t.Parallel()
	x := newState()
	a, b, c := testID("aa11"), testID("aa22"), testID("cafe")
	for _, id := range []digest.Digest{a, b, c} {
		x.putImage(id, Record{Removed: id == c})
	}
	target := ocispec.Descriptor{Digest: digest.FromString("manifest")}
	x.putRef("docker.io/library/busybox:latest", Ref{ID: a, Target: target})
	x.putRef("docker.io/strake/base:latest", Ref{ID: b})
	x.putRef("docker.io/library/cafe:latest", Ref{ID: a, Target: target})
	x.putRef("docker.io/library/busybox@"+target.Digest.String(), Ref{ID: a, Target: target})
	x.putRef("host:5000/x:1", Ref{ID: b})
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
		// A name wins over a prefix, and a removed image has none.
		{"cafe", a, "docker.io/library/cafe:latest", ""},
		{"aa", "", "", "No such image: aa:latest"},
		{"aa1100000001", "", "", "No such image: aa1100000001:latest"},
		{c.String(), "", "", "No such image: " + c.String()},
		{"nothing", "", "", "No such image: nothing:latest"},
		{"host:5000/x", "", "", "No such image: host:5000/x:latest"},
		{
			"UPPER", "", "",
			`invalid reference format: reference "UPPER": invalid reference format: repository name`,
		},
		{"a:sha256:b", "", "", "invalid reference format"},
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
		if err != nil || im.ID != tc.want || matched != tc.matched {
			t.Errorf("%q: %v %q %v", tc.ref, im, matched, err)
		}
	}
}

func TestRemovePlan(t *testing.T) {
	t.Parallel()
	const tag, tag2 = "docker.io/library/a:1", "docker.io/library/a:2"
	const other = "docker.io/library/b:1"
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
			err: "unable to remove repository reference \"docker.io/library/a:1\" (must force) - " +
				"container stopped-cont is using",
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
			x := newState()
			x.putImage(parent, Record{})
			x.putImage(img, Record{Parent: parent})
			if tc.child {
				x.putImage(child, Record{Parent: img})
			}
			for _, r := range tc.refs {
				x.putRef(r, Ref{ID: img})
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
	x := newState()
	at := func(h int) time.Time { return time.Date(2026, 1, 1, h, 0, 0, 0, time.UTC) }
	x.putLayer("l1", Layer{Size: 10})
	x.putLayer("l2", Layer{Size: 5})
	x.putImage(
		testID("a"),
		Record{
			Created: at(1), Labels: map[string]string{"k": "v"}, Layers: []digest.Digest{"l1"},
		},
	)
	x.putImage(
		testID("b"),
		Record{Created: at(2), Layers: []digest.Digest{"l1", "l2"}, Parent: testID("d")},
	)
	x.putImage(testID("c"), Record{Created: at(3)})
	x.putImage(testID("d"), Record{Created: at(4)})
	x.putImage(testID("e"), Record{Created: at(5), Removed: true})
	x.putRef("docker.io/library/one:1", Ref{ID: testID("a")})
	x.putRef("docker.io/library/one:2", Ref{ID: testID("a")})
	x.putRef("host.example/two:1", Ref{ID: testID("b")})
	s := &Index{st: x}
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
		{"complete reference", Filter{References: []string{"docker.io/library/one:*"}}, "a"},
		{"complete name", Filter{References: []string{"docker.io/*/one", "x"}}, "a"},
		{"complete name of another", Filter{References: []string{"docker.io/library/two"}}, ""},
		{"reference without tag", Filter{References: []string{"one", "host.example/two"}}, "b a"},
		{"IDs", Filter{IDs: []digest.Digest{testID("b"), testID("x")}}, "b"},
	} {
		l, err := s.List(tc.f)
		var got []string
		for _, i := range l {
			got = append(got, i.ID.Encoded()[:1])
		}
		if err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %q %v, want %q", tc.name, got, err, tc.want)
		}
	}
	l, _ := s.List(Filter{SharedSize: true, References: []string{"one:2"}})
	if len(l) != 1 || l[0].SharedSize != 10 || l[0].Size != 10 ||
		!slices.Equal(l[0].RepoTags, []string{"one:2"}) {
		t.Errorf("shared size %+v", l)
	}
	if _, err := s.List(Filter{Before: "none"}); !errdefs.IsNotFound(err) {
		t.Errorf("before nothing: %v", err)
	}
	if _, err := s.List(
		Filter{References: []string{"["}},
	); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad pattern: %v", err)
	}
}

func BenchmarkList1000(b *testing.B) {
	s := &Index{st: newState()}
	for i := range 1000 {
		id := digest.FromString(fmt.Sprint(i))
		s.st.putImage(
			id, Record{Created: time.Unix(int64(i), 0), Labels: map[string]string{"k": "v"}},
		)
		s.st.putRef(fmt.Sprintf("docker.io/library/image%d:latest", i), Ref{ID: id})
	}
	for b.Loop() {
		if l, err := s.List(Filter{}); err != nil || len(l) != 1000 {
			b.Fatal(err)
		}
	}
}
