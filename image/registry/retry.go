package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"

	"strake/image/progress"
)

// attempts bounds how often one transfer is tried. The waits between double.
const attempts = 5

// retry repeats what failed by the network's or the registry's fault, after a first wait. id is the
// layer that an event before each pause is about; empty for no event.
func retry(
	ctx context.Context, wait time.Duration, report *progress.Reporter, id string, fn func() error,
) error {
	for n := 1; ; n++ {
		err := fn()
		switch {
		case err == nil, ctx.Err() != nil, n == attempts, final(err):
			return err
		}
		if err := pause(ctx, report, id, wait); err != nil {
			return err
		}
		wait *= 2
	}
}

// refused recognises client errors of HTTP other than the two that ask to come back, and
// credentials that are missing or wrong.
func refused(err error) bool {
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		return true
	}
	c := statusOf(err)
	return c >= 400 && c < 500 && c != http.StatusRequestTimeout && c != http.StatusTooManyRequests
}

// final recognises errors that another attempt would give again: what a registry refuses or sends
// wrong.
func final(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsPermissionDenied(err) ||
		errdefs.IsUnauthorized(err) || errdefs.IsInvalidArgument(err) ||
		errdefs.IsFailedPrecondition(err) || refused(err)
}

// pause waits before the next attempt.
func pause(ctx context.Context, report *progress.Reporter, id string, wait time.Duration) error {
	if id != "" {
		report.Send(progress.Event{ID: id, Status: fmt.Sprintf("Retrying in %s", wait)})
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errStalled ends an attempt that got no byte for too long, or too few.
type errStalled struct {
	limit time.Duration
	bytes int64
}

func (e errStalled) Error() string {
	if e.bytes > 0 {
		return fmt.Sprintf("only %d bytes came in %s", e.bytes, e.limit)
	}
	return fmt.Sprintf("no byte came for %s", e.limit)
}

// watch returns a context that ends when the registry is silent for the limit while a caller waits.
// await is called before each wait and returns the function to call after it, which turns an error
// that came of the silence into errStalled. stop ends the context.
func watch(
	ctx context.Context, limit time.Duration,
) (watched context.Context, await func() (after func(error) error), stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	await = func() func(error) error {
		t := time.AfterFunc(limit, func() { cancel(errStalled{limit: limit}) })
		return func(err error) error {
			t.Stop()
			var stalled errStalled
			if err != nil && ctx.Err() == nil && errors.As(context.Cause(watched), &stalled) {
				return stalled
			}
			return err
		}
	}
	return watched, await, func() { cancel(nil) }
}

// minRate is how many bytes a second have to come on average, so that the end of what has a size is
// foreseeable.
const minRate = 1 << 10

// patientReader waits for each Read as long as watch lets it, and for all of them as long as bytes
// come at minRate: what the last waits of limit together brought. Only waiting counts.
type patientReader struct {
	r      io.Reader
	await  func() func(error) error
	limit  time.Duration
	waited time.Duration
	got    int64
	slow   error // for the Read after the one that found it
}

func (p *patientReader) Read(b []byte) (int, error) {
	if p.slow != nil {
		return 0, p.slow
	}
	start, after := time.Now(), p.await()
	n, err := p.r.Read(b)
	err = after(err)
	p.waited += time.Since(start)
	p.got += int64(n)
	if p.waited < p.limit {
		return n, err
	}
	if float64(p.got) < minRate*p.waited.Seconds() {
		p.slow = errStalled{p.waited.Round(time.Millisecond), p.got}
	}
	p.waited, p.got = 0, 0
	return n, err
}
