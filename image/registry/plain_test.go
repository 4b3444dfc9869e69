package registry

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// sniffed is a connection whose first bytes were looked at.
type sniffed struct {
	net.Conn
	r io.Reader
}

func (s *sniffed) Read(b []byte) (int, error) { return s.r.Read(b) }

// plainOnly accepts plain HTTP and answers everything else, as a TLS handshake, with some bytes
// and the end of the connection.
type plainOnly struct {
	net.Listener
	answer string
}

func (l *plainOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		r := bufio.NewReader(c)
		if first, err := r.Peek(1); err == nil && first[0] >= 'A' && first[0] <= 'Z' {
			return &sniffed{c, r}, nil
		}
		io.WriteString(c, l.answer)
		c.Close()
	}
}

// plainServer serves plain HTTP on loopback.
func plainServer(t *testing.T, answer string, h http.HandlerFunc) (host string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Listener = &plainOnly{s.Listener, answer}
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// TestPlainRetry: a registry on loopback is asked by plain HTTP however TLS fails there.
func TestPlainRetry(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"closed": "", "no TLS": "<!DOCTYPE html>\n", "HTTP": "HTTP/1.0 400 Bad Request\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := plainServer(t, answer, func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, `{"name":"x","tags":["1","2"]}`)
			})
			tags, err := New(Config{}, 1).Tags(t.Context(), host+"/x", nil)
			if err != nil || strings.Join(tags, " ") != "1 2" {
				t.Errorf("got %q, %v", tags, err)
			}
		})
	}
}

// TestPlainRetryLimits: a body is sent again, a host is remembered, and neither a registry that is
// not insecure nor one that has spoken TLS is asked by plain HTTP.
func TestPlainRetryLimits(t *testing.T) {
	t.Parallel()
	var got []string
	host := plainServer(t, "", func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+string(raw))
	})
	client := func(insecure bool) *http.Client {
		c := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
		withPlainRetry(c, func(string) bool { return insecure })
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	send := func(c *http.Client, ctx context.Context, body io.Reader) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host, body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.Do(r)
		if err == nil {
			answer.Body.Close()
		}
		return err
	}
	c := client(true)
	if err := send(c, t.Context(), io.NopCloser(strings.NewReader("once"))); err == nil {
		t.Error("a body that cannot be read again was sent twice")
	}
	for range 2 {
		if err := send(c, t.Context(), strings.NewReader("body")); err != nil {
			t.Error(err)
		}
	}
	if strings.Join(got, ",") != "POST body,POST body" {
		t.Errorf("the server got %q", got)
	}
	if err := send(client(false), t.Context(), nil); err == nil {
		t.Error("a registry that is not insecure was asked by plain HTTP")
	}
	c = client(true)
	c.Transport.(*plainRetry).note(host, false)
	if err := send(c, t.Context(), nil); err == nil {
		t.Error("a registry that has spoken TLS was asked by plain HTTP")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := send(client(true), ended, nil); err == nil {
		t.Error("a request that was given up was sent")
	}
}
