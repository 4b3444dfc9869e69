package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"strake/engine"
)

// TestStateOnFullDisk writes versions of a state on a disk without space, which needs root to mount
// one: they take the place of earlier ones.
func TestStateOnFullDisk(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := unix.Mount("strake-test", root, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs root, to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	dir := made(t, root, idA, nil)
	if err := WriteState(dir, &State{State: engine.State{ExitCode: -1}}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(
		filepath.Join(root, "fill"), make([]byte, 1<<20), 0o600,
	); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	for i := range 200 {
		if err := WriteState(dir, &State{State: engine.State{ExitCode: i}}); err != nil {
			t.Fatalf("version %d: %v", i, err)
		}
		var got State
		if err := ReadState(dir, &got); err != nil || got.State.ExitCode != i {
			t.Fatalf("version %d: read %d, %v", i, got.State.ExitCode, err)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, StateFile)); err != nil || st.Size() > 4096 {
		t.Errorf("%v %v, want at most the page that was there", st.Size(), err)
	}
	// A version that no earlier ones make room for is refused, and the last one stays.
	big := State{State: engine.State{Error: fmt.Sprint(make([]byte, 4000))}}
	if err := WriteState(dir, &big); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a big version: %v, want ENOSPC", err)
	}
	var got State
	if err := ReadState(dir, &got); err != nil || got.State.ExitCode != 199 {
		t.Errorf("after it: read %d, %v", got.State.ExitCode, err)
	}
}

// TestOverwriteIsOneStep stops overwrite after each of its bytes: the version before is the state
// until the file is cut.
func TestOverwriteIsOneStep(t *testing.T) {
	t.Parallel()
	dir := made(t, t.TempDir(), idA, nil)
	for i := range 4 {
		if err := WriteState(dir, &State{State: engine.State{ExitCode: i}}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, StateFile)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(&State{State: engine.State{ExitCode: 4}})
	if err != nil {
		t.Fatal(err)
	}
	line = append(line, '\n')
	if !overwrite(path, line) {
		t.Fatal("there was room for the line")
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != string(line) {
		t.Fatalf("the file has %q, %v; want %q", now, err, line)
	}
	for n := range line {
		half := append(append([]byte{}, line[:n+1]...), old[n+1:]...)
		if err := os.WriteFile(path, half, 0o600); err != nil {
			t.Fatal(err)
		}
		var got State
		if err := ReadState(dir, &got); err != nil || got.State.ExitCode != 3 {
			t.Fatalf("after %d bytes: read %d, %v", n+1, got.State.ExitCode, err)
		}
	}
}
