package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"strake/image/progress"
)

// firstWait is the pause before the second attempt.
const firstWait = 500 * time.Millisecond

// answer is what a registry does with one request for a blob.
type answer struct {
	bytes int           // so many are sent from the offset asked for
	pause time.Duration // before each byte
	err   error         // after them; nil: the rest comes
	stall bool          // after them nothing comes, until the client gives up
}

// fakeRegistry answers the requests for one blob, in order; the last answer is repeated.
type fakeRegistry struct {
	blob    []byte
	answers []answer
	offsets []int64
}

func (f *fakeRegistry) Fetch(
	ctx context.Context, d ocispec.Descriptor,
) (io.ReadCloser, error) {
	a := f.answers[min(len(f.offsets), len(f.answers)-1)]
	f.offsets = append(f.offsets, 0)
	return &fakeBody{ctx: ctx, f: f, n: len(f.offsets) - 1, a: a}, nil
}

// fakeBody is the body of an answer, one byte a Read.
type fakeBody struct {
	ctx  context.Context
	f    *fakeRegistry
	n    int // of the request
	a    answer
	at   int64
	sent int
}

func (b *fakeBody) Seek(off int64, whence int) (int64, error) {
	b.at, b.f.offsets[b.n] = off, off
	return off, nil
}

func (b *fakeBody) Close() error { return nil }

func (b *fakeBody) Read(p []byte) (int, error) {
	if b.a.stall && b.sent == b.a.bytes {
		<-b.ctx.Done()
		return 0, b.ctx.Err()
	}
	if b.a.err != nil && b.sent == b.a.bytes {
		return 0, b.a.err
	}
	if b.at == int64(len(b.f.blob)) {
		return 0, io.EOF
	}
	if b.a.pause > 0 {
		<-time.After(b.a.pause) // of the fake clock
	}
	n := copy(p[:1], b.f.blob[b.at:])
	b.at, b.sent = b.at+int64(n), b.sent+n
	return n, nil
}

// newImage is an image of one layer in a fake registry.
func newImage(t *testing.T, f remotes.Fetcher, blob []byte, events *[]string) *Image {
	t.Helper()
	named, err := reference.ParseNormalizedNamed("far.example/x:1")
	if err != nil {
		t.Fatal(err)
	}
	return &Image{
		named: named, fetcher: f, limit: time.Minute, wait: firstWait,
		report: progress.New(func(e progress.Event) { *events = append(*events, e.Status) }),
		parsed: ocispec.Manifest{Layers: []ocispec.Descriptor{{
			MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(blob),
			Size: int64(len(blob)),
		}}},
	}
}

// TestLayer reads a layer through what networks and registries do to it. The clock is a fake one.
func TestLayer(t *testing.T) {
	t.Parallel()
	blob := []byte("0123456789")
	cut := errors.New("connection reset")
	for _, tc := range []struct {
		name    string
		from    int64
		answers []answer
		offsets []int64 // that were asked for
		took    time.Duration
		err     error // nil: the layer came whole
	}{
		{"at once", 0, []answer{{}}, []int64{0}, 0, nil},
		{"continued", 4, []answer{{}}, []int64{4}, 0, nil},
		{"complete", 10, []answer{{}}, nil, 0, nil},
		{
			"slow", 0, []answer{{pause: 900 * time.Microsecond}}, []int64{0}, 9 * time.Millisecond,
			nil,
		},
		{
			// Two bytes come in two minutes, and the attempt counts as cut.
			"dripping", 0, []answer{{pause: 59 * time.Second}, {}}, []int64{0, 2},
			118*time.Second + firstWait, nil,
		},
		{
			"cut", 2, []answer{{bytes: 3, err: cut}, {bytes: 1, err: cut}, {}}, []int64{2, 5, 6},
			1500 * time.Millisecond, nil,
		},
		{
			"short", 0, []answer{{bytes: 9, err: io.EOF}, {}}, []int64{0, 9},
			500 * time.Millisecond, nil,
		},
		{
			"stalled once", 0, []answer{{bytes: 3, stall: true}, {}}, []int64{0, 3},
			time.Minute + 500*time.Millisecond, nil,
		},
		{
			"stalled for good", 0, []answer{{bytes: 3, stall: true}, {stall: true}},
			[]int64{0, 3, 3, 3, 3}, 5*time.Minute + 7500*time.Millisecond,
			errStalled{limit: time.Minute},
		},
		{
			"cut for good", 0, []answer{{err: cut}}, []int64{0, 0, 0, 0, 0},
			7500 * time.Millisecond, cut,
		},
		{"refused", 0, []answer{{err: errdefs.ErrNotFound}}, []int64{0}, 0, errdefs.ErrNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeRegistry{blob: blob, answers: tc.answers}
				var events []string
				im := newImage(t, f, blob, &events)
				start := time.Now()
				r, err := im.Layer(t.Context(), 0, tc.from)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if !errors.Is(err, tc.err) {
					t.Errorf("error %v, want %v", err, tc.err)
				}
				if err == nil && !bytes.Equal(got, blob[tc.from:]) {
					t.Errorf("got %q", got)
				}
				if !slices.Equal(f.offsets, tc.offsets) {
					t.Errorf("asked for %v, want %v", f.offsets, tc.offsets)
				}
				if took := time.Since(start); took != tc.took {
					t.Errorf("took %s, want %s", took, tc.took)
				}
				if want := max(0, len(tc.offsets)-1); len(events) != want {
					t.Errorf("events %q, want %d", events, want)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestLayerCancel ends a read that waits, for a byte or for the next attempt.
func TestLayerCancel(t *testing.T) {
	t.Parallel()
	blob := []byte("0123456789")
	for _, a := range []answer{{stall: true}, {err: errors.New("cut")}} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			var events []string
			im := newImage(t, &fakeRegistry{blob: blob, answers: []answer{a}}, blob, &events)
			r, err := im.Layer(ctx, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestDocument verifies small blobs and takes those that are here already.
func TestDocument(t *testing.T) {
	t.Parallel()
	doc := []byte(`{"a":1}`)
	d := ocispec.Descriptor{Digest: digest.FromBytes(doc), Size: int64(len(doc))}
	synctest.Test(t, func(t *testing.T) {
		var events []string
		f := &fakeRegistry{blob: doc, answers: []answer{{bytes: 2, stall: true}, {}}}
		im := newImage(t, f, doc, &events)
		start := time.Now()
		if b, err := im.document(t.Context(), d); err != nil || !bytes.Equal(b, doc) {
			t.Errorf("got %q, %v", b, err)
		}
		if took := time.Since(start); took != time.Minute+firstWait {
			t.Errorf("a stalled request took %s", took)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a drip
		var events []string
		f := &fakeRegistry{blob: doc, answers: []answer{{pause: 59 * time.Second}}}
		im := newImage(t, f, doc, &events)
		start := time.Now()
		_, err := im.document(t.Context(), d)
		if want := (errStalled{118 * time.Second, 2}); !errors.Is(err, want) ||
			len(f.offsets) != attempts {
			t.Errorf("%v, %d requests", err, len(f.offsets))
		}
		if took := time.Since(start); took > 10*time.Minute {
			t.Errorf("it took %s", took)
		}
	})
	var events []string
	f := &fakeRegistry{blob: []byte(`{"a":2}`), answers: []answer{{}}}
	im := newImage(t, f, doc, &events)
	if _, err := im.document(t.Context(), d); !errdefs.IsInvalidArgument(err) ||
		!strings.Contains(fmt.Sprint(err), "registry sent a document with digest") {
		t.Errorf("another document: %v", err)
	}
	huge := d
	huge.Size = 1 << 30
	if _, err := im.document(t.Context(), huge); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a document of a gigabyte: %v", err)
	}
	f.offsets = nil
	im.local = func(context.Context, ocispec.Descriptor) ([]byte, error) { return doc, nil }
	if b, err := im.document(t.Context(), d); err != nil || !bytes.Equal(b, doc) ||
		len(f.offsets) > 0 {
		t.Errorf("a document that is here: %q, %v, %d requests", b, err, len(f.offsets))
	}
}

// TestFinal lists errors after which nothing is asked for again.
func TestFinal(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		errdefs.ErrNotFound: true, errdefs.ErrInvalidArgument: true,
		errdefs.ErrPermissionDenied: true, io.ErrUnexpectedEOF: false, unix.ECONNRESET: false,
		errStalled{limit: time.Second}: false,
	} {
		if got := final(fmt.Errorf("wrapped: %w", err)); got != want {
			t.Errorf("final(%v) is %v", err, got)
		}
	}
}
