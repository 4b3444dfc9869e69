package launcher

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestProgram: a keeper's program is beside the caller's own, and nowhere else.
func TestProgram(t *testing.T) {
	t.Parallel()
	_, err := New(t.TempDir(), nil)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "strake-runtime") {
		t.Errorf("%v, want that strake-runtime does not exist", err)
	}
}

// TestNoKeeper: Dial starts none, and Connect gives a program up that is no keeper.
func TestNoKeeper(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := &Launcher{logf: t.Logf}
	l.launch.Socket, l.launch.StateDir = filepath.Join(dir, "sock"), filepath.Join(dir, "state")
	if _, err := l.Dial(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("Dial: %v, want %v", err, errdefs.ErrUnavailable)
	}
	if _, err := os.Stat(l.launch.StateDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Dial has made a state directory: %v", err)
	}
	program, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	l.launch.Command = []string{program}
	if c, err := l.Connect(t.Context()); err == nil {
		c.Close()
		t.Error("Connect has a keeper")
	}
}
