package name

import (
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ given, current, want string }{
		{"/", "/a", "/"},
		{"/sys", "/", "/sys"},
		{"/sys/sub", "/other", "/sys/sub"},
		{".", "/a/b", "/a/b"},
		{"./", "/a/b", "/a/b"},
		{".", "/", "/"},
		{"..", "/a/b", "/a"},
		{"..", "/", "/"},
		{"sub", "/", "/sub"},
		{"sub", "/a", "/a/sub"},
		{"./sub", "/a", "/a/sub"},
		{"/sub", "/a", "/sub"},
		{"../sibling", "/a/b", "/a/sibling"},
		{"../../../x", "/a", "/x"},
		{"/a//b/", "/", "/a/b"},
		{"/a/../b", "/", "/b"},
		{"0_a-b.c", "/", "/0_a-b.c"},
	} {
		got, err := Resolve(c.given, Name(c.current))
		if err != nil || got != Name(c.want) {
			t.Errorf("Resolve(%q, %q) = %q, %v, want %q", c.given, c.current, got, err, c.want)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ given, want string }{
		{"", `container name "": it is empty`},
		{"a b", `container name "a b": character ' ': ` + allowed},
		{"/a:b", `container name "/a:b": character ':': ` + allowed},
		{"/\u00e9", `container name "/é": character 'é': ` + allowed},
		{"/.a", `container name "/.a": part ".a" has to begin with a letter or a digit`},
		{"/a/_b", `container name "/a/_b": part "_b" has to begin with a letter or a digit`},
		{"...", `container name "...": part "..." has to begin with a letter or a digit`},
		{
			"/" + strings.Repeat("x", 256), `container name "/` + strings.Repeat("x", 256) +
				`": part "xxxxxxxxxxxxxxxx"... is longer than 255 bytes`,
		},
		{
			strings.Repeat("/x", 1025), `container name "` + strings.Repeat("/x", 1025) +
				`": it is longer than 2048 bytes`,
		},
	} {
		got, err := Resolve(c.given, "/")
		if err == nil || err.Error() != c.want+": invalid argument" ||
			!errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("Resolve(%q) = %q, %v, want %s", c.given, got, err, c.want)
		}
	}
}

func TestRelations(t *testing.T) {
	t.Parallel()
	if got := Name("/a/b").Parent(); got != "/a" {
		t.Errorf("parent %q", got)
	}
	if got := Root.Parent(); got != Root {
		t.Errorf("parent of the root %q", got)
	}
	if !Name("/a").Top() || Name("/a/b").Top() || Root.Top() {
		t.Error("Top is wrong")
	}
	if got := Root.Child("a").Child("b"); got != "/a/b" || got.Base() != "b" {
		t.Errorf("child %q", got)
	}
	if got := Root.Parts(); len(got) != 0 {
		t.Errorf("parts of the root %q", got)
	}
	if got := Name("/a/b").Parts(); len(got) != 2 || got[1] != "b" {
		t.Errorf("parts %q", got)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("../a", "/b/c")
	f.Add("/x/./..", "/")
	f.Fuzz(func(t *testing.T, given, current string) {
		cur, err := Resolve(current, Root)
		if err != nil {
			return
		}
		n, err := Resolve(given, cur)
		if err != nil {
			return
		}
		s := string(n)
		if s == "" || s[0] != '/' || path.Clean(s) != s || strings.Contains(s, "/.") {
			t.Errorf("Resolve(%q, %q) = %q", given, cur, n)
		}
		if again, err := Resolve(string(n), Root); err != nil || again != n {
			t.Errorf("Resolve(%q) = %q, %v", n, again, err)
		}
	})
}
