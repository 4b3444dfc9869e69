package docker

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strake/engine"
)

// dialUnix serves an API on a unix socket and connects to it.
func dialUnix(t *testing.T, f *fakeBackend) net.Conn {
	t.Helper()
	s := httptest.NewUnstartedServer(f.h)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestHeadAlone: a client that is slow to read the head of an answer receives the head alone, and
// the stream with a later read: some clients lose what comes with the head.
func TestHeadAlone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ path, stream string }{
		{"/v1.41/containers/running/attach?stream=1&stdout=1", frame(1, "output")},
		{"/v1.41/containers/tty/attach?stream=1&stdout=1", "output"},
		{"/v1.41/exec/plain/start", frame(1, "output")},
	} {
		t.Run(c.path, func(t *testing.T) {
			t.Parallel()
			f := newFake(then)
			begun, written := make(chan struct{}), make(chan struct{})
			write := func(s engine.Streams) error {
				close(begun)
				_, err := io.WriteString(s.Stdout, "output")
				close(written)
				return err
			}
			f.engine.attach = func(_ context.Context, opt engine.AttachOptions) error {
				opt.Attached()
				return write(opt.Streams)
			}
			f.engine.execStart = func(_ context.Context, s engine.Streams) error { return write(s) }
			conn := dialUnix(t, f)
			if _, err := fmt.Fprintf(conn, "POST "+c.path+upgrade, 0); err != nil {
				t.Fatal(err)
			}
			<-begun
			// Time for a stream that does not wait.
			select {
			case <-written:
			case <-time.After(20 * time.Millisecond):
			}
			buf := make([]byte, 4096)
			n, err := conn.Read(buf)
			if head := string(buf[:n]); err != nil || !strings.HasSuffix(head, "\r\n\r\n") {
				t.Errorf("the first read is not the head alone: %q, %v", head, err)
			}
			if rest, err := io.ReadAll(conn); err != nil || string(rest) != c.stream {
				t.Errorf("stream: %q, %v, want %q", rest, err, c.stream)
			}
		})
	}
}

// TestHeadUnread: a client that does not read the head delays its stream by a bounded time, once.
func TestHeadUnread(t *testing.T) {
	t.Parallel()
	f := newFake(then)
	took := make(chan time.Duration, 2)
	f.engine.execStart = func(_ context.Context, s engine.Streams) error {
		for range 2 {
			begun := time.Now()
			if _, err := io.WriteString(s.Stdout, "output"); err != nil {
				return err
			}
			took <- time.Since(begun)
		}
		return nil
	}
	conn := dialUnix(t, f)
	if _, err := fmt.Fprintf(conn, "POST /v1.41/exec/plain/start"+upgrade, 0); err != nil {
		t.Fatal(err)
	}
	if first := <-took; first < headPatience/2 || first > 20*headPatience {
		t.Errorf("the first write took %v", first)
	}
	if second := <-took; second >= headPatience/2 {
		t.Errorf("the second write took %v", second)
	}
}
