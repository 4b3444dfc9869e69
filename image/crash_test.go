package image

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"strake/image/internal/testregistry"
)

// crashChild names the store of the process that is going to be killed.
const crashChild = "STRAKE_TEST_CRASH_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(crashChild); root != "" {
		if err := crashWork(
			root, os.Getenv("STRAKE_TEST_CRASH_REF"), os.Getenv("STRAKE_TEST_CRASH_ARCHIVE"),
		); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// crashWork goes through everything that changes a store and says each step aloud, so that the
// parent can choose where to kill it.
func crashWork(root, ref, archive string) error {
	ctx := context.Background()
	s, err := Open(Config{Root: root})
	if err != nil {
		return err
	}
	say := func(e Event) { fmt.Println(e.ID, e.Status, e.Current) }
	im, err := s.Pull(ctx, ref, PullOptions{Progress: say})
	if err != nil {
		return err
	}
	if _, err := s.Prepare(ctx, "c1", im.ID); err != nil {
		return err
	}
	fmt.Println("prepared")
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := s.Load(ctx, f, LoadOptions{Progress: say}); err != nil {
		return err
	}
	fmt.Println("loaded")
	if _, err := s.Remove(ctx, im.ID.String(), RemoveOptions{Force: true}); err != nil {
		return err
	}
	fmt.Println("removed")
	if err := s.Release(ctx, "c1"); err != nil {
		return err
	}
	fmt.Println("released")
	return s.Close()
}

// TestKill ends a process with SIGKILL after each of its steps, and at arbitrary moments, and
// checks what the next Open finds.
func TestKill(t *testing.T) {
	needOverlay(t)
	t.Parallel()
	g := newRegistry(t)
	layers := sampleLayers(t)
	p := publishTo(t, g, "crash", "1", layers...)
	archive := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(
		archive,
		dockerArchive(
			t, RunConfig{}, []string{"loaded:1"}, layers[0],
			tarOf(t, entry{name: "own", body: "x"}),
		),
		0o600,
	); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	lines := runAndKill(t, t.TempDir(), p.ref, archive, -1, 0)
	whole := time.Since(start)
	if lines < 10 {
		t.Fatalf("the undisturbed run said %d lines", lines)
	}
	root := t.TempDir() // one store for all rounds: what one crash leaves, the next meets
	for after := 1; after <= lines; after += 1 + lines/12 {
		runAndKill(t, root, p.ref, archive, after, 0)
		checkAfterCrash(t, root, g)
	}
	for range 12 {
		runAndKill(t, root, p.ref, archive, -1, time.Duration(rand.Int64N(int64(whole))))
		checkAfterCrash(t, root, g)
	}
}

// runAndKill runs the child and kills it after so many lines or so much time; it returns the lines
// it said.
func runAndKill(t *testing.T, root, ref, archive string, after int, within time.Duration) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(
		os.Environ(), crashChild+"="+root, "STRAKE_TEST_CRASH_REF="+ref,
		"STRAKE_TEST_CRASH_ARCHIVE="+archive,
	)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if within > 0 {
		defer time.AfterFunc(within, func() { cmd.Process.Kill() }).Stop()
	}
	n, killed := 0, within > 0
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if n++; n == after {
			killed = true
			cmd.Process.Kill()
			break
		}
	}
	io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil && !killed {
		t.Fatalf("child: %v: %s", err, errs.String())
	}
	return n
}

// checkAfterCrash opens the store and demands that every visible image is whole and that removing
// everything leaves nothing.
func checkAfterCrash(t *testing.T, root string, g *testregistry.Registry) {
	t.Helper()
	s, err := Open(Config{Root: root})
	if err != nil {
		t.Fatalf("Open after a crash: %v", err)
	}
	defer s.Close()
	ctx := context.Background()
	list, err := s.List(ctx, Filter{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, im := range list {
		d, err := s.Inspect(ctx, im.ID.String())
		if err != nil {
			t.Fatalf("half an image is visible: %v", err)
		}
		for _, dir := range d.Dirs {
			if !exists(t, dir) {
				t.Fatalf("image %s lacks the directory %s", im.ID, dir)
			}
		}
		if err := s.Save(ctx, io.Discard, []string{im.ID.String()}); err != nil {
			t.Fatalf("image %s lacks blobs: %v", im.ID, err)
		}
	}
	partial, err := s.content.ListStatuses(s.context(ctx))
	if err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(filepath.Join(root, "content/ingest")); err == nil &&
		len(files) > len(partial) {
		t.Fatalf("%d unfinished blobs on disk, %d known", len(files), len(partial))
	}
	for key := range s.RootfsKeys() {
		if r, err := s.Rootfs(ctx, key); err != nil || !exists(t, r.Upper) || !exists(t, r.Work) ||
			!exists(t, r.Lower[0]) {
			t.Fatalf("half a container is left: %+v %v", r, err)
		}
		if err := s.Release(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	for _, im := range list {
		if _, err := s.Remove(ctx, im.ID.String(), RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	assertEmpty(t, s)
	if t.Failed() {
		t.FailNow()
	}
}
