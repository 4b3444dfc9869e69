package docker

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"strake/engine"
)

// attachEngine is an engine with one container that takes its time to let anybody attach.
type attachEngine struct {
	Engine
	attaching, proceed chan struct{}
}

func (e *attachEngine) Inspect(context.Context, string) (engine.Info, error) {
	return engine.Info{}, nil
}

func (e *attachEngine) Attach(_ context.Context, _ string, opt engine.AttachOptions) error {
	close(e.attaching)
	<-e.proceed
	opt.Attached()
	_, err := io.WriteString(opt.Stdout, "output")
	return err
}

// TestAttachAnswered: clients start a container when the attach has been answered, so that must not
// be before what it prints will be delivered.
func TestAttachAnswered(t *testing.T) {
	t.Parallel()
	e := &attachEngine{attaching: make(chan struct{}), proceed: make(chan struct{})}
	s := httptest.NewServer(Handler(Backend{Engine: e}))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(
		conn,
		"POST /v1.41/containers/c/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
	)
	<-e.attaching
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	r := bufio.NewReader(conn)
	if b, err := r.Peek(1); err == nil {
		t.Fatalf("answered before the container is attached: %q", b)
	}
	conn.SetReadDeadline(time.Time{})
	close(e.proceed)
	answer, err := http.ReadResponse(r, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v: %v", answer, err)
	}
	if b, _ := io.ReadAll(r); string(b) != "\x01\x00\x00\x00\x00\x00\x00\x06output" {
		t.Errorf("stream: %q", b)
	}
}
