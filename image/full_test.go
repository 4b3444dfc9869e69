package image

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"golang.org/x/sys/unix"
)

// onTmpfs mounts a tmpfs of a size for the time of a test.
func onTmpfs(t *testing.T, size string) (string, error) {
	t.Helper()
	root := t.TempDir()
	if err := unix.Mount("strake-test", root, "tmpfs", 0, "size="+size); err != nil {
		return "", err
	}
	t.Cleanup(func() {
		// containerd's fsverity check leaves a file open until the next garbage collection.
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return root, unix.Setxattr(root, "trusted.strake", []byte("1"), 0)
}

// TestFullDisk pulls a layer for which the disk has no room: the registry is asked for it once, and
// what came is not kept. It needs root, to mount a small tmpfs.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	needOverlay(t)
	root, err := onTmpfs(t, "8m")
	if err != nil {
		t.Skipf("needs root and a tmpfs with trusted.* attributes: %v", err)
	}
	g := newRegistry(t)
	small := publishTo(t, g, "small", "1", gzipped(t, tarOf(t, entry{name: "f", body: "x"})))
	layer := gzipped(t, tarOf(t, entry{name: "f", body: noise(24 << 20)}))
	big := publishTo(t, g, "big", "1", layer)
	s := openStore(t, filepath.Join(root, "store"))
	ctx := context.Background()
	if _, err := s.Pull(ctx, small.ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what the first one left must not be in the way of the second
		g.Forget()
		if _, err := s.Pull(ctx, big.ref, PullOptions{}); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("error %v, want ENOSPC", err)
		}
		n := 0
		for _, r := range g.Requests() {
			if strings.HasSuffix(r, big.layers[0].Digest.String()) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("the layer was asked for %d times, want once", n)
		}
		if u, err := s.DiskUsage(ctx); err != nil || u.PartialBytes != 0 || u.Images != 1 {
			t.Errorf("left behind: %+v %v", u, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "fits"), make([]byte, 4<<20), 0o600); err != nil {
		t.Errorf("the disk is still full: %v", err)
	}
	if _, err := s.Remove(ctx, small.ref, RemoveOptions{}); err != nil {
		t.Errorf("removal beside a full disk: %v", err)
	}
	assertEmpty(t, s)
}

// TestOpenOnFullDisk opens a store whose last process was killed in an operation, on a disk without
// space: what the operation had written is given back, and what the database does not know is
// found. It needs root, to mount a small tmpfs.
func TestOpenOnFullDisk(t *testing.T) {
	t.Parallel()
	needOverlay(t)
	root, err := onTmpfs(t, "16m")
	if err != nil {
		t.Skipf("needs root and a tmpfs with trusted.* attributes: %v", err)
	}
	g := newRegistry(t)
	small := publishTo(t, g, "small", "1", gzipped(t, tarOf(t, entry{name: "f", body: "x"})))
	config := Config{Root: filepath.Join(root, "store")}
	killed, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if _, err := killed.Pull(ctx, small.ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	op, err := killed.backend.Begin(ctx) // and no End
	if err != nil {
		t.Fatal(err)
	}
	body := noise(4 << 20)
	made, err := op.Put(ctx, strings.NewReader(body), int64(len(body)), make([]byte, 64<<10))
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.Close(); err != nil {
		t.Fatal(err)
	}
	// A blob whose transaction never came.
	blobs := filepath.Join(root, "store", "content", "blobs", "sha256")
	unknown := filepath.Join(blobs, strings.Repeat("0", 64))
	if err := os.WriteFile(unknown, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fill := filepath.Join(root, "fill")
	if err := os.WriteFile(fill, make([]byte, 16<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	s := openStore(t, config.Root)
	if exists(t, blobs, made.Digest.Encoded()) || exists(t, unknown) {
		t.Error("the operation's blob, or the unknown one, is there")
	}
	if err := os.WriteFile(filepath.Join(root, "fits"), make([]byte, 5<<20), 0o600); err != nil {
		t.Errorf("the disk is still full: %v", err)
	}
	if _, err := s.Remove(ctx, small.ref, RemoveOptions{}); err != nil {
		t.Error(err)
	}
	assertEmpty(t, s)
}

// TestPrune gives up the beginning of a download, but not one that a pull is at work on, and not
// what others began.
func TestPrune(t *testing.T) {
	t.Parallel()
	g := newRegistry(t)
	body := gzipped(t, tarOf(t, entry{name: "f", body: noise(2 << 20)}))
	p := publishTo(t, g, "big", "1", body)
	s := openStore(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var half atomic.Bool
	half.Store(true)
	g.Fault = func(w http.ResponseWriter, r *http.Request) bool {
		if !half.Load() || !strings.HasSuffix(r.URL.Path, p.layers[0].Digest.String()) {
			return false
		}
		w.Header().Set("Content-Length", "2000000")
		w.Write(body[:1<<20])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	b := s.Backends()
	leased, drop, err := newLease(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	w, err := b.Content.Writer(leased, content.WithRef("another-program"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	arrived, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		var once atomic.Bool
		_, err := s.Pull(ctx, p.ref, PullOptions{Progress: func(e Event) {
			if e.Status == "Downloading" && e.Current >= 1<<19 && once.CompareAndSwap(false, true) {
				close(arrived)
			}
		}})
		ended <- err
	}()
	<-arrived
	if n, err := s.Prune(context.Background()); n != 0 || err != nil {
		t.Errorf("during the pull: freed %d, %v; want nothing", n, err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("Pull: %v", err)
	}
	if n, err := s.Prune(context.Background()); n < 1<<19 || err != nil {
		t.Errorf("after the pull: freed %d, %v", n, err)
	}
	if u, err := s.DiskUsage(context.Background()); err != nil || u.PartialBytes != 1000 {
		t.Errorf("left %+v %v, want the 1000 bytes of another program", u, err)
	}
	half.Store(false)
	g.Forget()
	if _, err := s.Pull(context.Background(), p.ref, PullOptions{}); err != nil {
		t.Error(err)
	}
	if r := g.Ranges(); len(r) != 0 {
		t.Errorf("a pruned download was continued: %q", r)
	}
	if err := drop(); err != nil {
		t.Error(err)
	}
}
