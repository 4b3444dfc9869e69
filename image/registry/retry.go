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

// attempts bounds how often one transfer is tried; the waits between double.
const attempts, firstWait = 5, 500 * time.Millisecond

// retry repeats what failed by the network's or the registry's fault. id is the layer that an event
// before each pause is about; empty for no event.
func retry(ctx context.Context, report *progress.Reporter, id string, fn func() error) error {
	wait := firstWait
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
		errdefs.IsUnauthorized(err) || errdefs.IsInvalidArgument(err) || refused(err)
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

// errStalled ends an attempt that got no byte for too long.
type errStalled struct{ limit time.Duration }

func (e errStalled) Error() string { return fmt.Sprintf("no byte came for %s", e.limit) }

// watch returns a context that ends when the registry is silent for the limit while a caller waits.
// await is called before each wait and returns the function to call after it, which turns an error
// that came of the silence into errStalled. stop ends the context.
func watch(
	ctx context.Context, limit time.Duration,
) (watched context.Context, await func() (after func(error) error), stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	await = func() func(error) error {
		t := time.AfterFunc(limit, func() { cancel(errStalled{limit}) })
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

// patientReader waits for each Read as long as watch lets it.
type patientReader struct {
	r     io.Reader
	await func() func(error) error
}

func (p patientReader) Read(b []byte) (int, error) {
	after := p.await()
	n, err := p.r.Read(b)
	return n, after(err)
}
