package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

func open(t *testing.T, root string) *Backend {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the overlay snapshotter tries a mount")
	}
	b, err := Open(root, slog.New(slog.DiscardHandler), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return b
}

func begin(t *testing.T, b *Backend) *Operation {
	t.Helper()
	o, err := b.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func describe(b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// source is a blob that breaks off, and remembers the offsets it was opened at.
type source struct {
	blob    []byte
	breaks  []int // bytes that each Open but the last gives before err
	err     error
	offsets []int64
}

func (s *source) open(_ context.Context, offset int64) (io.ReadCloser, error) {
	n := len(s.offsets)
	s.offsets = append(s.offsets, offset)
	var r io.Reader = bytes.NewReader(s.blob[offset:])
	if n < len(s.breaks) {
		r = io.MultiReader(io.LimitReader(r, int64(s.breaks[n])), brokenReader{s.err})
	}
	return io.NopCloser(r), nil
}

type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }

// TestFetch gets a blob in the ways that connections and disks let it.
func TestFetch(t *testing.T) {
	t.Parallel()
	blob, broken := []byte("0123456789"), errors.New("broken")
	wrong := []byte("012345678X")
	for _, tc := range []struct {
		name    string
		src     source
		rounds  int // calls of Fetch
		offsets []int64
		partial int64 // bytes that are kept for another Fetch
		class   func(error) bool
	}{
		{"at once", source{blob: blob}, 1, []int64{0}, 0, nil},
		{"twice", source{blob: blob}, 2, []int64{0}, 0, nil},
		{
			"broken", source{blob: blob, breaks: []int{4}, err: broken}, 1, []int64{0}, 4,
			func(err error) bool { return errors.Is(err, broken) },
		},
		{
			"continued", source{blob: blob, breaks: []int{4, 3}, err: broken}, 3,
			[]int64{0, 4, 7}, 0, nil,
		},
		{
			"nothing came", source{blob: blob, breaks: []int{0}, err: broken}, 1, []int64{0}, 0,
			func(err error) bool { return errors.Is(err, broken) },
		},
		{
			"full disk", source{blob: blob, breaks: []int{4}, err: unix.ENOSPC}, 1, []int64{0}, 0,
			func(err error) bool { return errors.Is(err, unix.ENOSPC) },
		},
		{"wrong bytes", source{blob: wrong}, 1, []int64{0, 0}, 0, errdefs.IsFailedPrecondition},
		{"too many bytes", source{blob: []byte("0123456789more")}, 1, []int64{0}, 0, nil},
		{
			"too few bytes", source{blob: []byte("0123")}, 1, []int64{0}, 4,
			func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := open(t, t.TempDir())
			o := begin(t, b)
			var err error
			var started, read int64
			verified := 0
			for i := range tc.rounds {
				var existed bool
				existed, err = o.Fetch(t.Context(), describe(blob), Origin{
					Open: tc.src.open, OnStart: func(offset int64) { started, read = offset, 0 },
					OnRead: func(n int64) { read += n }, OnVerify: func() { verified++ },
				})
				if existed != (tc.name == "twice" && i == 1) {
					t.Errorf("round %d: existed %v", i, existed)
				}
			}
			if tc.class == nil && err != nil || tc.class != nil && !tc.class(err) {
				t.Errorf("error %v", err)
			}
			if !slices.Equal(tc.src.offsets, tc.offsets) {
				t.Errorf("opened at %v, want %v", tc.src.offsets, tc.offsets)
			}
			if err == nil && (started+read != int64(len(blob)) || verified != 1) {
				t.Errorf("told of %d+%d bytes, %d verifications", started, read, verified)
			}
			if _, _, partial, err := b.Usage(t.Context()); partial != tc.partial || err != nil {
				t.Errorf("%d bytes are kept, want %d (%v)", partial, tc.partial, err)
			}
			_, ierr := b.Stores().Content.Info(Context(t.Context()), describe(blob).Digest)
			if (ierr == nil) != (tc.class == nil) {
				t.Errorf("the blob: %v", ierr)
			}
		})
	}
}

// TestFetchSize refuses a blob that is here with another size.
func TestFetchSize(t *testing.T) {
	t.Parallel()
	b := open(t, t.TempDir())
	o, blob := begin(t, b), []byte("blob")
	if err := o.WriteDocument(t.Context(), "blob", blob, nil); err != nil {
		t.Fatal(err)
	}
	d := describe(blob)
	d.Size++
	if _, err := o.Fetch(t.Context(), d, Origin{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("error %v", err)
	}
}

// TestOperation shows that what an operation made or holds stays while it runs, and that Recover
// ends it and no lease of others.
func TestOperation(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	first, second, other := []byte("first"), []byte("second"), []byte("other's")
	ctx := t.Context()
	has := func(b *Backend, blob []byte) bool {
		t.Helper()
		_, err := b.Stores().Content.Info(Context(ctx), digest.FromBytes(blob))
		if err != nil && !errdefs.IsNotFound(err) {
			t.Fatal(err)
		}
		return err == nil
	}
	func() {
		b, err := Open(root, slog.New(slog.DiscardHandler), func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if _, err := Open(root, slog.New(slog.DiscardHandler), nil); !errdefs.IsUnavailable(err) {
			t.Errorf("second Open: %v", err)
		}
		a, holder := begin(t, b), begin(t, b)
		for _, blob := range [][]byte{first, second} {
			if err := a.WriteDocument(ctx, "blob", blob, nil); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := holder.Hold(ctx, []digest.Digest{digest.FromBytes(second)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		r, err := b.Stores().Leases.ListResources(Context(ctx), holder.lease)
		if err != nil || len(r) != 1 {
			t.Errorf("the operation holds %v, %v", r, err)
		}
		a.End(ctx)
		if err := b.Collect(ctx); err != nil {
			t.Fatal(err)
		}
		if has(b, first) || !has(b, second) {
			t.Errorf("first %v, second %v; want the second alone", has(b, first), has(b, second))
		}
		l, err := b.Stores().Leases.Create(Context(ctx), leases.WithID("other"))
		if err != nil {
			t.Fatal(err)
		}
		o := Operation{b: b, lease: l, held: map[leases.Resource]bool{}}
		if err := o.WriteDocument(ctx, "blob", other, nil); err != nil {
			t.Fatal(err)
		}
	}()
	b := open(t, root)
	if found, err := b.Recover(ctx); !found || err != nil {
		t.Errorf("recovered %v, %v", found, err)
	}
	if err := b.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if has(b, second) || !has(b, other) {
		t.Errorf("second %v, other's %v; want the other's alone", has(b, second), has(b, other))
	}
	if found, err := b.Recover(ctx); found || err != nil {
		t.Errorf("recovered again: %v, %v", found, err)
	}
}

// TestUnknownIngest opens a store beside beginnings of blobs that its database does not know: they
// are removed, and a download that it knows is continued.
func TestUnknownIngest(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	blob, broken := []byte("0123456789"), errors.New("broken")
	func() {
		b, err := Open(root, slog.New(slog.DiscardHandler), func(string) {})
		if err != nil {
			t.Skipf("needs root: %v", err)
		}
		defer b.Close()
		o := begin(t, b)
		defer o.End(t.Context())
		src := source{blob: blob, breaks: []int{4}, err: broken}
		if _, err := o.Fetch(
			t.Context(), describe(blob), Origin{Open: src.open},
		); !errors.Is(err, broken) {
			t.Fatalf("Fetch: %v", err)
		}
	}()
	ingest := filepath.Join(root, "content", "ingest")
	for _, files := range [][]string{{"ref", "data", "startedat", "updatedat"}, {"ref"}, nil} {
		dir := filepath.Join(ingest, digest.FromString(fmt.Sprint(files)).Encoded())
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := open(t, root)
	if found, err := b.Recover(t.Context()); found || err != nil {
		t.Errorf("Recover: %v, %v", found, err)
	}
	if left, err := os.ReadDir(ingest); err != nil || len(left) != 1 {
		t.Errorf("%d beginnings are left, %v; want the download alone", len(left), err)
	}
	src := source{blob: blob}
	if _, err := begin(t, b).Fetch(
		t.Context(), describe(blob), Origin{Open: src.open},
	); err != nil || !slices.Equal(src.offsets, []int64{4}) {
		t.Errorf("the download goes on at %v, %v", src.offsets, err)
	}
}

// TestCollectIsMarked kills, as it were, a process in a collection: the next one sweeps.
func TestCollectIsMarked(t *testing.T) {
	t.Parallel()
	b := open(t, t.TempDir())
	var marked []bool
	b.fault = func(step string) {
		if strings.HasPrefix(step, "collect:") {
			left, err := b.stores.Leases.List(Context(t.Context()), `labels."`+leaseLabel+`"`)
			if err != nil {
				t.Error(err)
			}
			marked = append(marked, len(left) > 0)
		}
	}
	if err := b.CollectMarked(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(marked, []bool{true, true}) {
		t.Errorf("marked at begin and end: %v", marked)
	}
	b.fault = func(string) {}
	if found, err := b.Recover(t.Context()); found || err != nil {
		t.Errorf("afterwards: %v, %v", found, err)
	}
}

// TestWriter leaves nothing of a blob without Commit.
func TestWriter(t *testing.T) {
	t.Parallel()
	b := open(t, t.TempDir())
	o, ctx := begin(t, b), t.Context()
	for _, commit := range []bool{false, true} {
		w, err := o.NewWriter(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("some")); err != nil {
			t.Fatal(err)
		}
		if commit {
			d, err := w.Commit(ctx, func(d digest.Digest) map[string]string {
				return map[string]string{UncompressedLabel: d.String()}
			})
			if err != nil || d.Digest != digest.FromString("some") || d.Size != 4 {
				t.Errorf("committed %+v, %v", d, err)
			}
		}
		if err := w.Close(ctx); err != nil {
			t.Error(err)
		}
		n, bytes, partial, err := b.Usage(ctx)
		want := map[bool]int{true: 1, false: 0}[commit]
		if err != nil || n != want || bytes != int64(4*want) || partial != 0 {
			t.Errorf(
				"commit %v: %d blobs, %d bytes, %d partial, %v", commit, n, bytes, partial, err,
			)
		}
	}
	if _, err := o.Put(
		ctx, bytes.NewReader([]byte("short")), 10, make([]byte, 10),
	); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("fewer bytes than said: %v", err)
	}
	if _, _, partial, err := b.Usage(ctx); partial != 0 || err != nil {
		t.Errorf("%d bytes are left, %v", partial, err)
	}
}

// TestLabels merges the labels of a blob that is here.
func TestLabels(t *testing.T) {
	t.Parallel()
	b := open(t, t.TempDir())
	o, blob := begin(t, b), []byte("blob")
	for _, labels := range []map[string]string{{"a": "1"}, {"b": "2"}, nil, {"a": "3"}} {
		if err := o.WriteDocument(t.Context(), "blob", blob, labels); err != nil {
			t.Fatal(err)
		}
	}
	info, err := b.Stores().Content.Info(Context(t.Context()), digest.FromBytes(blob))
	if err != nil || info.Labels["a"] != "3" || info.Labels["b"] != "2" {
		t.Errorf("labels %v, %v", info.Labels, err)
	}
}
