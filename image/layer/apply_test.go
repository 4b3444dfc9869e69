package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: chown, device nodes, trusted.* attributes")
	}
	if err := unix.Setxattr(t.TempDir(), "trusted.strake", []byte("1"), 0); err != nil {
		t.Skipf("needs trusted.* attributes on the temporary directory: %v", err)
	}
}

type entry struct {
	name, body, link string
	kind             byte
	mode             int64
	uid              int
	major, minor     int64
	pax              map[string]string
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{
			Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Uid: e.uid,
			Size: int64(len(e.body)), Devmajor: e.major, Devminor: e.minor,
			ModTime: time.Unix(1234567890, 0), PAXRecords: e.pax,
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(e.name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatalf("%q: %v", e.name, err)
		}
		io.WriteString(tw, e.body)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// jail is a root beside which lies what no archive may touch.
type jail struct {
	root   *os.File
	canary string
}

func newJail(t testing.TB) jail {
	t.Helper()
	dir := t.TempDir()
	j := jail{canary: filepath.Join(dir, "canary")}
	for _, d := range []string{"root", "canary"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(
		filepath.Join(j.canary, "file"), []byte("untouched"), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	var err error
	if j.root, err = os.Open(filepath.Join(dir, "root")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.root.Close() })
	return j
}

func (j jail) check(t testing.TB) {
	t.Helper()
	var st unix.Stat_t
	f := filepath.Join(j.canary, "file")
	b, err := os.ReadFile(f)
	if err != nil || string(b) != "untouched" {
		t.Errorf("the file outside is %q, %v", b, err)
	}
	if err := unix.Lstat(f, &st); err != nil || st.Nlink != 1 || st.Mode&0o7777 != 0o600 ||
		st.Uid != 0 {
		t.Errorf("the file outside has %d links, mode %o, owner %d", st.Nlink, st.Mode, st.Uid)
	}
	for _, d := range []string{j.canary, filepath.Dir(j.canary)} {
		names, err := os.ReadDir(d)
		if err != nil || len(names) != map[bool]int{true: 1, false: 2}[d == j.canary] {
			t.Errorf("%s holds %v, %v", d, names, err)
		}
	}
}

func TestApplyTricks(t *testing.T) {
	needRoot(t)
	t.Parallel()
	outside := "../canary/file"
	for _, tc := range []struct {
		name    string
		entries []entry
		err     string // empty: accepted
		after   []string
	}{
		{"absolute name", []entry{{name: "/canary/file", body: "x"}}, "", []string{"canary/file"}},
		{"climbing name", []entry{{name: "../canary/file", body: "x"}}, "outside", nil},
		{"climbing name inside", []entry{{name: "a/../../canary/file", body: "x"}}, "outside", nil},
		{"dots that stay", []entry{{name: "a/../b", body: "x"}}, "", []string{"b"}},
		{
			"symlink then write through it",
			[]entry{
				{name: "l", kind: tar.TypeSymlink, link: "../canary"}, {name: "l/file", body: "x"},
			},
			"refers to its parents", nil,
		},
		{
			"absolute symlink then write through it",
			[]entry{
				{name: "l", kind: tar.TypeSymlink, link: "/tmp"}, {name: "tmp/"},
				{name: "l/file", body: "x"},
			},
			"", []string{"tmp/file"},
		},
		{
			"symlink replaced by file",
			[]entry{{name: "l", kind: tar.TypeSymlink, link: outside}, {name: "l", body: "x"}}, "",
			[]string{"l"},
		},
		{
			"symlink with mode",
			[]entry{{name: "l", kind: tar.TypeSymlink, link: outside, mode: 0o777, uid: 5}}, "",
			nil,
		},
		{
			"hard link outside", []entry{{name: "h", kind: tar.TypeLink, link: outside}}, "outside",
			nil,
		},
		{
			"hard link to absolute", []entry{{name: "h", kind: tar.TypeLink, link: "/etc/passwd"}},
			"refers to its parents", nil,
		},
		{
			"hard link through symlink",
			[]entry{
				{name: "l", kind: tar.TypeSymlink, link: "../canary"},
				{name: "h", kind: tar.TypeLink, link: "l/file"},
			},
			"refers to its parents", nil,
		},
		{
			"hard link to symlink, then write",
			[]entry{
				{name: "l", kind: tar.TypeSymlink, link: outside},
				{name: "h", kind: tar.TypeLink, link: "l"}, {name: "h", body: "x"},
			},
			"", []string{"h"},
		},
		{
			"hard link to itself",
			[]entry{{name: "a", body: "x"}, {name: "a", kind: tar.TypeLink, link: "a"}}, "",
			[]string{"a"},
		},
		{
			"hard link to directory",
			[]entry{{name: "d/"}, {name: "h", kind: tar.TypeLink, link: "d"}}, "directory", nil,
		},
		{"hard link to root", []entry{{name: "h", kind: tar.TypeLink, link: "/"}}, "root", nil},
		{"whiteout of ..", []entry{{name: "a/.wh..."}}, "whiteout", nil},
		{"whiteout of .", []entry{{name: "a/.wh.."}}, "whiteout", nil},
		{"whiteout of nothing", []entry{{name: ".wh."}}, "whiteout", nil},
		{
			"opaque behind a symlink",
			[]entry{
				{name: "l", kind: tar.TypeSymlink, link: "../canary"}, {name: "l/.wh..wh..opq"},
			},
			"refers to its parents", nil,
		},
		{
			"file as parent", []entry{{name: "f", body: "x"}, {name: "f/g", body: "x"}},
			"not a directory", nil,
		},
		{
			"loop",
			[]entry{
				{name: "a", kind: tar.TypeSymlink, link: "b"},
				{name: "b", kind: tar.TypeSymlink, link: "a"}, {name: "a/x", body: "x"},
			},
			"symbolic links", nil,
		},
		{
			"magic link",
			[]entry{
				{name: "l", kind: tar.TypeSymlink, link: "/proc/self/root"},
				{name: "l/x", body: "x"},
			},
			"refers to its parents", nil,
		},
		{"root as file", []entry{{name: ".", kind: tar.TypeReg}}, "root", nil},
		{"unknown type", []entry{{name: "x", kind: 'Z'}}, "entry type", nil},
		{"owner out of range", []entry{{name: "x", uid: 1 << 32}}, "out of range", nil},
		{
			"aufs bookkeeping",
			[]entry{{name: ".wh..wh.plnk/1.2", body: "x"}, {name: ".wh..wh.aufs", body: "x"}}, "",
			nil,
		},
		{
			"directory over symlink",
			[]entry{
				{name: "d", kind: tar.TypeSymlink, link: "../canary"}, {name: "d/"},
				{name: "d/x", body: "x"},
			},
			"", []string{"d/x"},
		},
		{
			"parent replaced under the cache",
			[]entry{
				{name: "p/"}, {name: "p/a", body: "1"},
				{name: "p", kind: tar.TypeSymlink, link: "../canary"}, {name: "p/file", body: "x"},
			},
			"refers to its parents", nil,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			j := newJail(t)
			_, err := Apply(
				context.Background(), j.root, bytes.NewReader(archive(t, tc.entries...)), Options{},
			)
			j.check(t)
			if tc.err == "" {
				if err != nil {
					t.Fatalf("Apply: %v", err)
				}
			} else if err == nil || !strings.Contains(strings.ToLower(err.Error()), tc.err) {
				t.Fatalf("error %v, want %q", err, tc.err)
			} else if !errdefs.IsInvalidArgument(err) && !errors.Is(err, ErrNeedsParents) {
				t.Errorf("error %v has no class", err)
			}
			for _, a := range tc.after {
				if _, err := os.Lstat(filepath.Join(j.root.Name(), a)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestApplyWhiteouts(t *testing.T) {
	needRoot(t)
	t.Parallel()
	j := newJail(t)
	res, err := Apply(context.Background(), j.root, bytes.NewReader(archive(t,
		entry{name: "a/.wh.gone"}, entry{name: "b/"}, entry{name: "b/.wh..wh..opq"},
		entry{name: "b/kept", body: "x"},
		entry{name: ".wh.c"}, entry{name: "c/"}, entry{name: "d/"}, entry{name: ".wh.d"},
		entry{name: "e", body: "x"}, entry{name: ".wh.e"},
		entry{name: "raw", kind: tar.TypeChar},
	)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(res.Implied)
	if !slices.Equal(res.Implied, []string{".", "a"}) {
		t.Errorf("implied %q", res.Implied)
	}
	for _, w := range []string{"a/gone", "raw"} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(j.root.Name(), w), &st); err != nil || !isWhiteout(&st) {
			t.Errorf("%s is no whiteout: %v", w, err)
		}
	}
	for _, o := range []string{"b", "c", "d"} {
		fd, err := unix.Open(filepath.Join(j.root.Name(), o), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Error(err)
			continue
		}
		if !isOpaque(fd) {
			t.Errorf("%s is not opaque", o)
		}
		unix.Close(fd)
	}
	if b, err := os.ReadFile(filepath.Join(j.root.Name(), "e")); err != nil || string(b) != "x" {
		t.Error("a whiteout removed what its own layer brought")
	}
}

func TestApplyMerged(t *testing.T) {
	needRoot(t)
	t.Parallel()
	j := newJail(t)
	ctx := context.Background()
	apply := func(es ...entry) error {
		_, err := Apply(ctx, j.root, bytes.NewReader(archive(t, es...)), Options{Style: Merged})
		return err
	}
	if err := apply(
		entry{name: "d/"}, entry{name: "d/old", body: "1"}, entry{name: "d/sub/old", body: "1"},
		entry{name: "gone/x", body: "1"},
	); err != nil {
		t.Fatal(err)
	}
	if err := apply(
		entry{name: "d/new", body: "2"}, entry{name: "d/sub/"}, entry{name: "d/sub/new", body: "2"},
		entry{name: "d/.wh..wh..opq"}, entry{name: ".wh.gone"}, entry{name: ".wh.never"},
	); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"d/old": false, "d/new": true, "d/sub/old": false, "d/sub/new": true, "gone": false,
	} {
		if _, err := os.Lstat(filepath.Join(j.root.Name(), name)); (err == nil) != want {
			t.Errorf("%s: %v, want present=%v", name, err, want)
		}
	}
	if err := apply(
		entry{name: "x", kind: tar.TypeLink, link: "nowhere"},
	); !errdefs.IsInvalidArgument(err) || errors.Is(err, ErrNeedsParents) {
		t.Errorf("dangling hard link: %v", err)
	}
}

func TestApplyMetadata(t *testing.T) {
	needRoot(t)
	t.Parallel()
	j := newJail(t)
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	_, err := Apply(context.Background(), j.root, bytes.NewReader(archive(t,
		entry{name: "./", mode: 0o711, uid: 3},
		entry{
			name: "d/", mode: 0o1777, uid: 9,
		}, entry{name: "d/suid", mode: 0o4755, uid: 8, body: "x", pax: map[string]string{
			"SCHILY.xattr.security.capability": caps, "SCHILY.xattr.user.note": "n",
			"SCHILY.xattr.trusted.overlay.redirect": "/x",
			"SCHILY.xattr.user.overlay.opaque":      "y",
			"SCHILY.xattr.security.selinux":         "label"}},
		entry{name: "fifo", kind: tar.TypeFifo, mode: 0o600},
		entry{name: "null", kind: tar.TypeChar, major: 1, minor: 3, mode: 0o666},
	)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, mode uint32, uid uint32) {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(j.root.Name(), name), &st); err != nil ||
			st.Mode != mode || st.Uid != uid || st.Mtim.Sec != 1234567890 {
			t.Errorf(
				"%s: %v mode %o owner %d time %d, want %o %d", name, err, st.Mode, st.Uid,
				st.Mtim.Sec, mode, uid,
			)
		}
	}
	check(".", unix.S_IFDIR|0o711, 3)
	check("d", unix.S_IFDIR|0o1777, 9)
	check("d/suid", unix.S_IFREG|0o4755, 8)
	check("fifo", unix.S_IFIFO|0o600, 0)
	check("null", unix.S_IFCHR|0o666, 0)
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(filepath.Join(j.root.Name(), "d/suid"), buf)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	if !slices.Equal(names, []string{"security.capability", "user.note"}) {
		t.Errorf("attributes %q", names)
	}
}

func TestApplyBounds(t *testing.T) {
	needRoot(t)
	t.Parallel()
	big := archive(
		t, entry{name: "a", body: strings.Repeat("x", 5000)},
		entry{name: "b", body: strings.Repeat("x", 5000)},
	)
	// A GNU sparse file (format 0.1) that claims a terabyte of holes and has no data. archive/tar
	// does not write these: the header is made by hand.
	sparse := archive(
		t,
		entry{
			name: "s",
			pax: map[string]string{
				"XXX.sparse.major": "0", "XXX.sparse.minor": "1", "XXX.sparse.name": "s",
				"XXX.sparse.size": "1099511627776", "XXX.sparse.numblocks": "1",
				"XXX.sparse.map": "1099511627776,0",
			},
		},
	)
	sparse = bytes.ReplaceAll(sparse, []byte("XXX.sparse"), []byte("GNU.sparse"))
	for _, tc := range []struct {
		name   string
		data   []byte
		limits Limits
	}{
		{"bytes", big, Limits{Bytes: 9000}},
		{"entries", big, Limits{Entries: 1}},
		{
			"stream after the end", append(slices.Clone(big), make([]byte, 1<<20)...),
			Limits{Bytes: 20000},
		},
		{"holes", sparse, Limits{Bytes: 1 << 30}},
		{"truncated", big[:len(big)-3000], Limits{}},
		{"truncated header", big[:700], Limits{}},
		{"no archive", bytes.Repeat([]byte("not a tar "), 200), Limits{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			j := newJail(t)
			_, err := Apply(
				context.Background(), j.root, bytes.NewReader(tc.data), Options{Limits: tc.limits},
			)
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("error %v", err)
			}
			j.check(t)
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Apply(ctx, newJail(t).root, bytes.NewReader(big), Options{}); !errors.Is(
		err, context.Canceled,
	) {
		t.Errorf("cancelled: %v", err)
	}
}
