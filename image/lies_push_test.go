package image

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestPushStalls pushes to registries that do not take what is sent, or do not answer.
func TestPushStalls(t *testing.T) {
	for _, tc := range []struct {
		name   string
		bytes  int // of the layer; what is small is on its way before the registry reads
		method string
	}{
		{"takes nothing", 24 << 20, http.MethodPut},
		{"takes and is silent", 1000, http.MethodPut},
		{"gives no place", 1000, http.MethodPost},
		{"does not say what it has", 1000, http.MethodHead},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), func(c *Config) {
				c.Registries.StallTimeout = 300 * time.Millisecond
				c.Registries.RetryWait = time.Millisecond
			})
			mustImport(t, s, "big:1", entry{name: "f", body: noise(tc.bytes)})
			g := newRegistry(t)
			over := make(chan struct{})
			g.Fault = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != tc.method || !strings.Contains(r.URL.Path, "/blobs/") {
					return false
				}
				select {
				case <-r.Context().Done():
				case <-over:
				}
				return true
			}
			ref := g.Host() + "/big:1"
			if err := s.Tag(context.Background(), "big:1", ref); err != nil {
				t.Fatal(err)
			}
			// Without an end of its own it would be cut off here, with another error.
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			_, err := s.Push(ctx, ref, PushOptions{})
			close(over)
			if err == nil || !strings.Contains(err.Error(), "no byte") ||
				!strings.Contains(err.Error(), ref) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v", err)
			}
		})
	}
}
