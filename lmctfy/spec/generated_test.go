package spec

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"strake/internal/testneed"
)

// TestGenerated compares lmctfy.pb.go with what generate makes of lmctfy.proto.
func TestGenerated(t *testing.T) {
	t.Parallel()
	testneed.Program(t, "protoc", "protobuf-compiler")
	dir := t.TempDir()
	cmd := exec.Command("sh", "generate", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "lmctfy.pb.go"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("lmctfy.pb.go")
	if err != nil {
		t.Fatal(err)
	}
	// Another version of protoc says so in its comment.
	version := func(raw []byte) []byte {
		var lines [][]byte
		for line := range bytes.Lines(raw) {
			if !bytes.HasPrefix(line, []byte("// \tprotoc ")) {
				lines = append(lines, line)
			}
		}
		return bytes.Join(lines, nil)
	}
	if !bytes.Equal(version(got), version(want)) {
		t.Error("lmctfy.pb.go is not what lmctfy.proto says: run go generate in this directory")
	}
}
