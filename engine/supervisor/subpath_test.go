package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/volume"
)

// TestSubpath: a part of a volume is what is mounted; one that is missing, or lies outside of the
// volume, fails the start.
func TestSubpath(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	v, _, err := e.Volumes().Create(volume.CreateOptions{Name: "vol"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(v.Path, "part"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("part", filepath.Join(v.Path, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(v.Path, "out")); err != nil {
		t.Fatal(err)
	}
	start := func(sub string) error {
		spec := w.spec("", "")
		spec.Mounts = []engine.Mount{{
			Type: "volume", Source: "vol", Target: "/v", Subpath: sub, NoCopy: true,
		}}
		return e.Start(t.Context(), w.create(e, spec))
	}
	if err := start("link"); err != nil {
		t.Fatal(err)
	}
	if got, want := w.tasks.mounted["/v"], filepath.Join(v.Path, "part"); got != want {
		t.Errorf("mounted %q, want %q", got, want)
	}
	if err := start("none"); !errdefs.IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
	if err := start("out"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("outside: %v", err)
	}
}
