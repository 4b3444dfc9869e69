package name

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParse(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("a", 64)
	for _, tc := range []struct {
		ref, want, familiar string // no want: an error
		tag                 bool   // may be given to an image
	}{
		{"busybox", "docker.io/library/busybox:latest", "busybox:latest", true},
		{"a/b:1", "docker.io/a/b:1", "a/b:1", true},
		{"host:5000/x", "host:5000/x:latest", "host:5000/x:latest", true},
		{"x@" + digest, "docker.io/library/x@" + digest, "x@" + digest, false},
		{"x:1@" + digest, "docker.io/library/x@" + digest, "x@" + digest, false},
		{"sha256:x", "docker.io/library/sha256:x", "sha256:x", false},
		{"host:5000/sha256:x", "host:5000/sha256:x", "host:5000/sha256:x", true},
		{"UPPER", "", "", false}, {"", "", "", false}, {"x:", "", "", false},
		{"../x", "", "", false}, {strings.Repeat("a", 64), "", "", false},
	} {
		named, err := Parse(tc.ref)
		if tc.want == "" {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: %v, %v", tc.ref, named, err)
			}
			continue
		}
		if err != nil || named.String() != tc.want {
			t.Errorf("%q: got %v, %v; want %s", tc.ref, named, err, tc.want)
		}
		if got := Familiar(tc.want); got != tc.familiar {
			t.Errorf("Familiar(%q): got %q, want %q", tc.want, got, tc.familiar)
		}
		if _, err := Tag(tc.ref); (err == nil) != tc.tag {
			t.Errorf("Tag(%q): %v", tc.ref, err)
		}
	}
	if got := Familiar("no reference!"); got != "no reference!" {
		t.Errorf("Familiar of what is none: %q", got)
	}
}
