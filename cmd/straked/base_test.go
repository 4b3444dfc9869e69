package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"strake/image"
	"strake/image/base"
	"strake/internal/testneed"
)

// TestLoadBase: the built-in image replaces that of an earlier program, and nobody else's.
func TestLoadBase(t *testing.T) {
	t.Parallel()
	testneed.Root(t, "unpacks layers")
	if _, err := base.Archive(runtime.GOARCH); err != nil {
		testneed.Lack(t, err.Error())
	}
	dir := t.TempDir()
	images, err := image.Open(image.Config{Root: filepath.Join(dir, "image")})
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	load := func() (id string) {
		t.Helper()
		if err := loadBase(t.Context(), dir, images, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		i, err := images.Resolve(t.Context(), base.Ref)
		if err != nil {
			t.Fatal(err)
		}
		return i.ID.String()
	}
	record := filepath.Join(dir, "base")
	own := load()
	raw, err := os.ReadFile(record)
	if err != nil || !strings.HasSuffix(string(raw), " "+own) {
		t.Fatalf("record: %q, %v", raw, err)
	}
	other, err := images.Import(
		t.Context(), strings.NewReader(strings.Repeat("\x00", 1024)),
		image.ImportOptions{Ref: base.Ref},
	)
	if err != nil {
		t.Fatal(err)
	}
	if got := load(); got != other.String() {
		t.Errorf("somebody else's image is %s now, was %s", got, other)
	}
	// As if the program before had had this one.
	if err := os.WriteFile(record, []byte("0000000000000000 "+other.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := load(); got != own {
		t.Errorf("the earlier version's image is %s now, want %s", got, own)
	}
	if again, _ := os.ReadFile(record); string(again) != string(raw) {
		t.Errorf("record: %q, want %q", again, raw)
	}
}

// TestBuiltin: the API's requests load the image that is built in again after it was removed, also
// several at once.
func TestBuiltin(t *testing.T) {
	t.Parallel()
	testneed.Root(t, "unpacks layers")
	dir := t.TempDir()
	images, err := image.Open(image.Config{Root: filepath.Join(dir, "image")})
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	sys := &system{images: images}
	b := sys.builtin(dir, slog.New(slog.DiscardHandler))
	if b.Ref == "" {
		testneed.Lack(t, "the image is not built in")
	}
	for range 2 {
		var loads sync.WaitGroup
		for range 3 {
			loads.Go(func() {
				if err := b.Load(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		loads.Wait()
		if _, err := images.Remove(t.Context(), b.Ref, image.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}
