package client_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"

	"strake/cli/client"
)

// against makes a client of a net/http server, and counts its connections.
func against(t *testing.T, h http.Handler) (*client.Client, *atomic.Int32) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	var dials atomic.Int32
	return client.New(client.Options{Dial: func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.Listener.Addr().String())
	}}), &dials
}

// scripted makes a client whose every connection gets the next of some bytes as its answer, and is
// closed after it.
func scripted(t *testing.T, answers ...string) (*client.Client, *[]string) {
	t.Helper()
	var mu sync.Mutex
	var heads []string
	return client.New(client.Options{Dial: func(context.Context) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(answers) == 0 {
			return nil, errors.New("no more connections")
		}
		ours, theirs := net.Pipe()
		text := answers[0]
		answers = answers[1:]
		go func() {
			defer theirs.Close()
			r := bufio.NewReader(theirs)
			var head strings.Builder
			for {
				line, err := r.ReadString('\n')
				head.WriteString(line)
				if err != nil || line == "\r\n" {
					break
				}
			}
			mu.Lock()
			heads = append(heads, head.String())
			mu.Unlock()
			io.WriteString(theirs, text)
		}()
		return ours, nil
	}}), &heads
}

func TestAnswersOfServers(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %q", r.Header.Get("Content-Type"), r.URL.Query().Get("q"), raw)
	})
	mux.HandleFunc("GET /long", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 1000 {
			fmt.Fprintf(w, "%0100d", i)
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("POST /nothing", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(204)
	})
	mux.HandleFunc("POST /same", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(304)
	})
	mux.HandleFunc("GET /missing", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(404)
		io.WriteString(w, `{"message":"No such thing: x"}`)
	})
	mux.HandleFunc("GET /plain", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "broken\n", 500)
	})
	c, dials := against(t, mux)
	ctx := t.Context()
	read := func(r client.Request) (string, error) {
		resp, err := c.Do(ctx, r)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		return string(raw), err
	}
	if got, err := read(
		client.Request{
			Method: "POST", Path: "/echo", Query: url.Values{"q": {"a b&c"}}, JSON: []int{1},
		},
	); err != nil || got != `application/json a b&c "[1]"` {
		t.Errorf("JSON: got %s, %v", got, err)
	}
	if got, err := read(client.Request{Method: "POST", Path: "/echo"}); err != nil ||
		got != `  ""` {
		t.Errorf("no body: got %s, %v", got, err)
	}
	if got, err := read(client.Request{Method: "GET", Path: "/long"}); err != nil ||
		len(got) != 100_000 || !strings.HasSuffix(got, "0999") {
		t.Errorf("chunks: got %d bytes, %v", len(got), err)
	}
	for _, path := range []string{"/nothing", "/same"} {
		if got, err := read(client.Request{Method: "POST", Path: path}); err != nil || got != "" {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
	}
	_, err := read(client.Request{Method: "GET", Path: "/missing"})
	var refused *client.APIError
	if !errors.As(err, &refused) || refused.Status != 404 || err.Error() != "No such thing: x" ||
		!errdefs.IsNotFound(err) {
		t.Errorf("404: got %#v", err)
	}
	if _, err := read(client.Request{Method: "GET", Path: "/plain"}); err == nil ||
		err.Error() != "broken" || !errdefs.IsInternal(err) {
		t.Errorf("500 in plain text: got %v", err)
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections for requests one after the other, want 1", n)
	}
	// An upload has a connection of its own, which is kept as well.
	big := strings.Repeat("x", 300_000)
	if got, err := read(
		client.Request{Method: "POST", Path: "/echo", Stream: strings.NewReader(big)},
	); err != nil || len(got) != len(`application/x-tar  ""`)+len(big) {
		t.Errorf("upload: got %d bytes, %v", len(got), err)
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("%d connections after an upload, want 2", n)
	}
}

func TestVersionAndEscapes(t *testing.T) {
	t.Parallel()
	var paths []string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.RequestURI)
	}))
	defer s.Close()
	c := client.New(
		client.Options{APIVersion: "1.41", Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.Listener.Addr().String())
		}},
	)
	for _, name := range []string{"a", "host:5000/a b/c?d#e", "../x"} {
		if err := c.JSON(
			t.Context(), client.Request{Method: "GET", Path: client.Path("images", name, "json")},
			nil,
		); err != nil {
			t.Fatal(err)
		}
	}
	want := "[/v1.41/images/a/json /v1.41/images/host:5000/a%20b/c%3Fd%23e/json " +
		"/v1.41/images/../x/json]"
	if got := fmt.Sprint(paths); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestErrorInUpload keeps a part of an archive from being taken for the whole.
func TestErrorInUpload(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	c, _ := against(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
	}))
	broken := io.MultiReader(strings.NewReader("some"), &failing{errors.New("disk on fire")})
	_, err := c.Do(t.Context(), client.Request{Method: "POST", Path: "/load", Stream: broken})
	if err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("got %v, want the error of the source", err)
	}
	if err := <-ended; err == nil {
		t.Error("the engine saw a complete upload")
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// TestEarlyAnswer: an engine may refuse an upload without reading it.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	c, _ := against(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		// Otherwise the server waits for some of the body before it answers.
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(409)
		io.WriteString(w, `{"message":"not now"}`)
	}))
	r, w := io.Pipe()
	defer w.Close()
	_, err := c.Do(t.Context(), client.Request{Method: "POST", Path: "/load", Stream: r})
	if !errdefs.IsConflict(err) || err.Error() != "not now" {
		t.Errorf("got %v", err)
	}
}

func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, c := range map[string]struct{ answer, want string }{
		"nothing":     {"", "EOF"},
		"not HTTP":    {"SSH-2.0\r\n", "is not HTTP"},
		"no status":   {"HTTP/1.1 abc\r\n\r\n", "is not HTTP"},
		"cut header":  {"HTTP/1.1 200 OK\r\nContent-", "unexpected EOF"},
		"header line": {"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "header line"},
		"endless header": {
			"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 300<<10) + "\r\n\r\n",
			"header of more than",
		},
		"bad length":     {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "Content-Length"},
		"short body":     {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "unexpected EOF"},
		"bad chunk":      {chunked + "zz\r\n", "chunk size"},
		"chunk too long": {chunked + "2\r\n{}}\r\n0\r\n\r\n", "longer than it said"},
		"cut chunks":     {chunked + "5\r\n{}", "unexpected EOF"},
		"no last chunk":  {chunked + "2\r\n{}\r\n", "unexpected EOF"},
		"negative chunk": {chunked + "-1\r\n", "chunk size"},
		"not JSON":       {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "decode"},
		"error, no reason": {
			"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "GET /x: status 500",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, _ := scripted(t, c.answer)
			var v any
			err := k.JSON(t.Context(), client.Request{Method: "GET", Path: "/x"}, &v)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	k, _ := scripted(
		t,
		"HTTP/1.1 100 Continue\r\n\r\n"+
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"+
			"3;ext=1\r\n[1]\r\n0\r\nTrailer: x\r\n\r\n",
	)
	var v []int
	if err := k.JSON(t.Context(), client.Request{Method: "GET", Path: "/x"}, &v); err != nil ||
		len(v) != 1 {
		t.Errorf("interim answer, extension and trailer: got %v, %v", v, err)
	}
}

// TestStaleConnection: an engine that restarted has closed what was kept.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
	k, heads := scripted(t, answer, answer)
	for range 2 {
		if err := k.JSON(
			t.Context(), client.Request{Method: "POST", Path: "/x", JSON: 1}, nil,
		); err != nil {
			t.Fatal(err)
		}
	}
	if len(*heads) != 2 {
		t.Errorf("%d requests arrived, want 2", len(*heads))
	}
	k, _ = scripted(t, "", answer)
	if err := k.JSON(t.Context(), client.Request{Method: "POST", Path: "/x"}, nil); err == nil {
		t.Error("a request on a new connection was sent twice")
	}
}

func TestHeaderInjection(t *testing.T) {
	t.Parallel()
	k, _ := scripted(t)
	_, err := k.Do(
		t.Context(),
		client.Request{Method: "GET", Path: "/", Header: map[string]string{"X-A": "b\r\nX-C: d"}},
	)
	if err == nil || !strings.Contains(err.Error(), "line break") {
		t.Errorf("got %v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 2)
	c, _ := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.(http.Flusher).Flush()
		}
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := c.Do(ctx, client.Request{Method: "GET", Path: "/header"}); !errors.Is(
		err, context.Canceled,
	) {
		t.Errorf("waiting for the header: got %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	resp, err := c.Do(ctx, client.Request{Method: "GET", Path: "/body"})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-arrived
	cancel()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("reading the body went on after the end of its context")
	}
}

func TestHijack(t *testing.T) {
	t.Parallel()
	c, _ := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "tcp" {
			http.Error(w, "no upgrade", 400)
			return
		}
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		// The first bytes of the stream come with the header.
		io.WriteString(
			conn,
			"HTTP/1.1 101 UPGRADED\r\nContent-Type: "+client.MultiplexedStream+"\r\n\r\nfirst,",
		)
		raw, _ := io.ReadAll(rw) // until the client has closed its side
		fmt.Fprintf(conn, "got %s", raw)
	}))
	h, err := c.Hijack(t.Context(), client.Request{Method: "POST", Path: "/attach"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.ContentType != client.MultiplexedStream {
		t.Errorf("content type %q", h.ContentType)
	}
	io.WriteString(h, "input")
	if err := h.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if raw, err := io.ReadAll(h); err != nil || string(raw) != "first,got input" {
		t.Errorf("got %q, %v", raw, err)
	}
}

func frames(parts ...string) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		b.Write([]byte{p[0] - '0', 0, 0, 0, 0, 0, byte((len(p) - 1) >> 8), byte(len(p) - 1)})
		b.WriteString(p[1:])
	}
	return b.Bytes()
}

func TestDemux(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("y", 50_000)
	for name, c := range map[string]struct {
		in               []byte
		out, errw, fails string
	}{
		"empty":        {nil, "", "", ""},
		"both":         {frames("1a", "2b", "1c", "0d"), "acd", "b", ""},
		"empty frame":  {frames("1", "1a"), "a", "", ""},
		"large":        {frames("1" + long), long, "", ""},
		"cut header":   {frames("1a")[:5], "", "", "unexpected EOF"},
		"cut body":     {frames("1abc")[:9], "a", "", "unexpected EOF"},
		"engine error": {frames("1a", "3it broke"), "a", "", "it broke"},
		"raw stream":   {[]byte("hello world"), "", "", "unknown stream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, src := range []io.Reader{
				bytes.NewReader(c.in), oneByOne{bytes.NewReader(c.in)},
			} {
				var out, errw strings.Builder
				err := client.Demux(&out, &errw, src)
				if out.String() != c.out || errw.String() != c.errw ||
					(err == nil) != (c.fails == "") || err != nil &&
					!strings.Contains(err.Error(), c.fails) {
					t.Errorf(
						"got %.40q %.40q %v, want %.40q %.40q %q", out.String(), errw.String(), err,
						c.out, c.errw, c.fails,
					)
				}
			}
		})
	}
}

type oneByOne struct{ r io.Reader }

func (o oneByOne) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// FuzzAnswer: whatever comes back, it is an error or an answer, in bounded memory.
func FuzzAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
	f.Add("HTTP/1.1 404 No\r\n\r\n{\"message\":\"x\"}")
	f.Fuzz(func(t *testing.T, text string) {
		k, _ := scripted(t, text)
		var v json.RawMessage
		k.JSON(t.Context(), client.Request{Method: "GET", Path: "/"}, &v)
	})
}

// FuzzDemux never panics and never makes up output.
func FuzzDemux(f *testing.F) {
	f.Add(frames("1a", "2b"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var out bytes.Buffer
		client.Demux(&out, &out, bytes.NewReader(raw))
		if out.Len() > len(raw) {
			t.Errorf("%d bytes of output from %d of input", out.Len(), len(raw))
		}
	})
}
