package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The environment of a process that is going to be killed: its store, what it pulls and loads, and
// the number of the step (Config.Fault) at which it kills itself, 0 for none.
const (
	crashRoot    = "STRAKE_TEST_CRASH_ROOT"
	crashRef     = "STRAKE_TEST_CRASH_REF"
	crashArchive = "STRAKE_TEST_CRASH_ARCHIVE"
	crashStep    = "STRAKE_TEST_CRASH_STEP"
)

func TestMain(m *testing.M) {
	if root := os.Getenv(crashRoot); root != "" {
		step, _ := strconv.Atoi(os.Getenv(crashStep))
		if err := crashWork(
			root, os.Getenv(crashRef), os.Getenv(crashArchive), int64(step),
		); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// crashWork goes through everything that changes a store, kills its own process at the given step
// and prints the names of the steps that it reached.
func crashWork(root, ref, archive string, at int64) error {
	ctx := context.Background()
	var steps atomic.Int64
	s, err := Open(Config{Root: root, Fault: func(step string) {
		n := steps.Add(1)
		fmt.Println(step)
		if n == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal ends all threads
		}
	}})
	if err != nil {
		return err
	}
	im, err := s.Pull(ctx, ref, PullOptions{})
	if err != nil {
		return err
	}
	if _, err := s.Prepare(ctx, "crash/c1", im.ID); err != nil {
		return err
	}
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := s.Load(ctx, f, LoadOptions{}); err != nil {
		return err
	}
	if err := crashBuild(ctx, s); err != nil {
		return err
	}
	if _, err := s.Remove(ctx, im.ID.String(), RemoveOptions{Force: true}); err != nil {
		return err
	}
	if err := s.Release(ctx, "crash/c1"); err != nil {
		return err
	}
	return s.Close()
}

// crashBuild writes an image into the backends under a lease of its own and has it adopted.
func crashBuild(ctx context.Context, s *Store) error {
	b := s.Backends()
	leased, drop, err := newLease(ctx, b)
	if err != nil {
		return err
	}
	made, err := build(leased, b, 1, entry{name: "b1", body: "1"}, entry{name: "b2", body: "2"})
	if err != nil {
		return err
	}
	if _, err := s.Adopt(ctx, made.target, []string{"built:1"}); err != nil {
		return err
	}
	return drop()
}

// TestKill ends a process with SIGKILL at each of its steps, and at moments between them, and
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
	// A kill loses nothing that a system call wrote, so that memory does as well as a disk.
	memory, err := onTmpfs(t, "256m")
	if err != nil {
		memory = t.TempDir()
	}
	start := time.Now()
	steps := runAndKill(t, filepath.Join(memory, "undisturbed"), p.ref, archive, 0, 0)
	whole := time.Since(start)
	for _, want := range []string{
		"image: begin", "image: write config", "layer: commit directory", "image: make durable",
		"image: transaction", "image: recorded", "image: fetch blob", "container layer: link",
		"container layer: remove link", "collect: begin",
	} {
		if !slices.Contains(steps, want) {
			t.Errorf("the undisturbed run has no step %q: %q", want, steps)
		}
	}
	// One store for all rounds: what one crash leaves, the next meets.
	root := filepath.Join(memory, "killed")
	for at := range steps {
		if at > 0 && steps[at] == steps[at-1] {
			continue // one more layer
		}
		runAndKill(t, root, p.ref, archive, at+1, 0)
		checkAfterCrash(t, root, steps[at])
	}
	const moments = 4
	for i := range moments {
		runAndKill(t, root, p.ref, archive, 0, whole*time.Duration(i+1)/(moments+1))
		checkAfterCrash(t, root, "a moment")
	}
}

// runAndKill runs the child, which kills itself at a step or is killed after some time, and returns
// the steps that it reached.
func runAndKill(
	t *testing.T, root, ref, archive string, step int, within time.Duration,
) (steps []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(
		os.Environ(), crashRoot+"="+root, crashRef+"="+ref, crashArchive+"="+archive,
		crashStep+"="+strconv.Itoa(step),
	)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if within > 0 {
		defer time.AfterFunc(within, func() { cmd.Process.Kill() }).Stop()
	}
	if err := cmd.Wait(); err != nil && step == 0 && within == 0 || errs.Len() > 0 {
		t.Fatalf("child: %v: %s", err, errs.String())
	}
	for line := range strings.Lines(out.String()) {
		steps = append(steps, strings.TrimSuffix(line, "\n"))
	}
	return steps
}

// checkAfterCrash opens the store and demands that every visible image is whole and that removing
// everything leaves nothing.
func checkAfterCrash(t *testing.T, root, step string) {
	t.Helper()
	s, err := Open(Config{Root: root})
	if err != nil {
		t.Fatalf("Open after a crash at %q: %v", step, err)
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
	partial, err := s.Backends().Content.ListStatuses(s.Backends().Context(ctx))
	if err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(filepath.Join(root, "content/ingest")); err == nil &&
		len(files) > len(partial) {
		t.Fatalf("%d unfinished blobs on disk, %d known", len(files), len(partial))
	}
	for key := range s.RootfsKeys("crash") {
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
	if err := dropLeases(ctx, s.Backends()); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	assertEmpty(t, s)
	if t.Failed() {
		t.Fatalf("after a crash at %q", step)
	}
}
