package docker

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/engine"
)

// TestCommitPause: a container is paused while an image is made of it, and runs again when the
// client has gone away meanwhile. That it ended before it could be paused, or that it was paused
// already, is no error; that it cannot be paused is one.
func TestCommitPause(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		err    error
		after  engine.Status // of the container, once Pause has been called
		status int
		calls  []string
	}{
		{
			"paused", nil, engine.Paused, http.StatusCreated,
			[]string{"engine.Pause", "images.Commit", "engine.Unpause"},
		},
		{
			"ended", errdefs.ErrConflict, engine.Exited, http.StatusCreated,
			[]string{"engine.Pause", "images.Commit"},
		},
		{
			"paused by another", errdefs.ErrConflict, engine.Paused, http.StatusCreated,
			[]string{"engine.Pause", "images.Commit"},
		},
		{
			"cannot be paused", errdefs.ErrConflict, engine.Running, http.StatusConflict,
			[]string{"engine.Pause"},
		},
	} {
		f := newFake(then)
		ctx, cancel := context.WithCancel(t.Context())
		f.failures["engine.Pause"] = c.err
		f.engine.paused = func() {
			f.engine.list[0].State.Status = c.after
			cancel()
		}
		w := httptest.NewRecorder()
		f.h.ServeHTTP(w, httptest.NewRequestWithContext(
			ctx, http.MethodPost, "/v1.56/commit?container=running&repo=made", nil,
		))
		if w.Code != c.status {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
		var calls []string
		for _, call := range f.taken() {
			if method, _, _ := strings.Cut(call, " "); method != "engine.PublishEvent" {
				calls = append(calls, method)
			}
		}
		if !slices.Equal(calls, c.calls) {
			t.Errorf("%s: calls %q, want %q", c.name, calls, c.calls)
		}
		if f.engine.ctx != nil && f.engine.ctx.Err() != nil {
			t.Errorf("%s: unpaused with a context that has ended", c.name)
		}
	}
}
