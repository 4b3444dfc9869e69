package docker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestDrain sends an archive to an engine that refuses it at once. A client that looks for an answer
// only when it has sent everything gets the error.
func TestDrain(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	for _, path := range []string{"/images/load", "/images/create?fromSrc=-"} {
		f := newFake(then)
		f.images.refusal = errors.New("no space left on device")
		s := httptest.NewServer(f.h)
		t.Cleanup(s.Close)
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", path, size)
		for block, n := make([]byte, 64<<10), 0; n < size; n += len(block) {
			if _, err := conn.Write(block); err != nil {
				t.Fatalf("%s: after %d bytes: %v", path, n, err)
			}
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil || strings.Count(string(body), "no space left") == 0 {
			t.Errorf("%s: %s %v", path, body, err)
		}
	}
}
