package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"strake/cli/api"
	"strake/cli/command"
)

func TestNames(t *testing.T) {
	t.Parallel()
	m := func(tags, digests string) api.Image {
		return api.Image{RepoTags: strings.Fields(tags), RepoDigests: strings.Fields(digests)}
	}
	for name, c := range map[string]struct {
		image         api.Image
		want, digests string // without and with --digests
	}{
		"one tag": {m("bb:1", ""), "bb:1@<none>", "bb:1@<none>"},
		"two tags": {
			m("bb:1 r:5000/x:2", ""), "bb:1@<none> r:5000/x:2@<none>",
			"bb:1@<none> r:5000/x:2@<none>",
		},
		"a tag and its digest": {
			m("bb:1", "bb@sha256:a"), "bb:1@<none>", "bb:1@sha256:a",
		},
		"two digests of one repository": {
			m("bb:1", "bb@sha256:a bb@sha256:b"), "bb:1@<none>", "bb:1@sha256:a bb:1@sha256:b",
		},
		"a digest alone": {
			m("", "bb@sha256:a"), "bb:<none>@<none>", "bb:<none>@sha256:a",
		},
		"a digest of another repository": {
			m("bb:1", "far@sha256:a"), "bb:1@<none> far:<none>@<none>",
			"bb:1@<none> far:<none>@sha256:a",
		},
		"nothing": {m("", ""), "<none>:<none>@<none>", "<none>:<none>@<none>"},
		"nothing, as old engines say it": {
			m("<none>:<none>", "<none>@<none>"), "<none>:<none>@<none>", "<none>:<none>@<none>",
		},
	} {
		for digests, want := range map[bool]string{false: c.want, true: c.digests} {
			var got []string
			for _, n := range names(&c.image, digests) {
				got = append(got, n.repository+":"+n.tag+"@"+n.digest)
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("%s, digests %v: got %s, want %s", name, digests, s, want)
			}
		}
	}
}

func TestRow(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_767_323_045, 0)
	l := &listFlags{Listing: &command.Listing{}}
	n := name{"bb", "1", none}
	m := api.Image{
		ID: "sha256:0123456789abcdef", Created: now.Unix() - 7200, Size: 5_000_000,
		SharedSize: 2_000_000, Containers: 3,
	}
	want := row{
		ID: "0123456789ab", Repository: "bb", Tag: "1", Digest: none, Size: "5MB",
		VirtualSize: "5MB", CreatedSince: "2 hours ago", Containers: "3", SharedSize: "2MB",
		UniqueSize: "3MB", CreatedAt: time.Unix(now.Unix()-7200, 0).String(),
	}
	if got := l.row(&m, n, now); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// -1 is how the engine says that something was not asked for; 0 is the date of images that are
	// built reproducibly.
	m.Containers, m.SharedSize, m.Created = -1, -1, 0
	if got := l.row(&m, n, now); got.Containers != "N/A" || got.SharedSize != "N/A" ||
		got.UniqueSize != "N/A" || got.CreatedSince != "N/A" {
		t.Errorf("got %+v, want N/A for what is not known", got)
	}
}

func TestPrintDeleted(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	printDeleted(
		&command.Session{Env: command.Env{Out: &out}},
		[]api.ImageDeleted{{Untagged: "bb:1"}, {Deleted: "sha256:1"}, {}},
	)
	if out.String() != "Untagged: bb:1\nDeleted: sha256:1\n" {
		t.Errorf("got %q", &out)
	}
}

// TestWriteWhole: a file is complete or as it was, and what is no file is written into.
func TestWriteWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "image.tar")
	read := func() string {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for _, text := range []string{"first, and longer", "second"} {
		if err := writeWhole(name, strings.NewReader(text)); err != nil || read() != text {
			t.Errorf("got %q, %v; want %q", read(), err, text)
		}
	}
	broken := errors.New("broken")
	if err := writeWhole(name, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's error", err)
	}
	if read() != "second" {
		t.Errorf("after a failure: %q, want what was there", read())
	}
	if err := writeWhole(filepath.Join(dir, "no", "x"), strings.NewReader("")); err == nil {
		t.Error("in a directory that does not exist: no error")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v; want the file alone", entries, err)
	}

	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		raw, _ := os.ReadFile(pipe)
		got <- string(raw)
	}()
	if err := writeWhole(pipe, strings.NewReader("streamed")); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "streamed" {
		t.Errorf("through a pipe: %q", s)
	}
	if info, err := os.Lstat(pipe); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe was replaced: %v, %v", info, err)
	}
}
