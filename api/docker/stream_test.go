package docker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"strake/engine"
)

// upgrade is the head of a request that takes the connection over; %d is the length of the body.
const upgrade = " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" +
	"Content-Length: %d\r\n\r\n"

// converse sends a request over a connection of its own, then the input and the end of it, and
// returns the answer and what followed it.
func converse(t *testing.T, h http.Handler, request, input string) (*http.Response, string) {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request+input); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode >= 400 {
		body, _ := io.ReadAll(answer.Body)
		return answer, string(body)
	}
	stream, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(stream)
}

// frame is a piece of a multiplexed stream.
func frame(stream byte, text string) string {
	return string([]byte{stream, 0, 0, 0, 0, 0, 0, byte(len(text))}) + text
}

// echo is a process that writes to both streams and then what it reads.
func echo(s engine.Streams) error {
	if s.Stdout != nil {
		io.WriteString(s.Stdout, "out")
	}
	if s.Stderr != nil {
		io.WriteString(s.Stderr, "err")
	}
	if s.Stdin == nil {
		return nil
	}
	in, err := io.ReadAll(s.Stdin)
	if s.Stdout != nil {
		fmt.Fprintf(s.Stdout, "<%s>", in)
	}
	return err
}

// attachAll is a wish for all streams.
const attachAll = "?stream=1&stdin=1&stdout=1&stderr=1"

// attaches are requests to attach, and what a client gets.
var attaches = []struct {
	name, path    string
	plain         bool // no upgrade
	err           error
	status        int
	kind, stream  string
	call, message string
}{
	{
		name: "multiplexed", path: "/v1.42/containers/running/attach" + attachAll,
		kind: multiplexedStream, stream: frame(1, "out") + frame(2, "err") + frame(1, "<in>"),
	},
	{
		name: "an old client", path: "/v1.41/containers/running/attach" + attachAll,
		kind: rawStream, stream: frame(1, "out") + frame(2, "err") + frame(1, "<in>"),
	},
	{
		name: "no upgrade", path: "/v1.56/containers/running/attach" + attachAll, plain: true,
		status: 200, kind: rawStream,
		stream: frame(1, "out") + frame(2, "err") + frame(1, "<in>"),
	},
	{
		name: "terminal", path: "/v1.56/containers/tty/attach" + attachAll,
		kind: rawStream, stream: "out<in>",
	},
	{
		name: "terminal of which only errors are asked for",
		path: "/v1.56/containers/tty/attach?stream=1&stderr=1", kind: rawStream, stream: "out",
	},
	{
		name: "output alone", path: "/v1.56/containers/running/attach?stream=1&stdout=1",
		kind: multiplexedStream, stream: frame(1, "out"),
	},
	{
		name: "errors alone", path: "/v1.56/containers/running/attach?stream=1&stderr=1",
		kind: multiplexedStream, stream: frame(2, "err"),
	},
	{
		name: "logs, where input makes no sense",
		path: "/v1.56/containers/running/attach?logs=1&stdin=1&stdout=1",
		kind: multiplexedStream, stream: frame(1, "out"),
		call: `engine.Attach "running" "logs" true "stream" false "keys" null`,
	},
	{
		name: "detach keys",
		path: "/v1.56/containers/tty/attach?stream=1&stdout=1&detachKeys=ctrl-a,b,ctrl-[",
		kind: rawStream, stream: "out",
		call: `engine.Attach "tty" "logs" false "stream" true "keys" "AWIb"`,
	},
	{
		name: "default detach keys", path: "/v1.56/containers/tty/attach?stream=1&stdout=1",
		kind: rawStream, stream: "out",
		call: `engine.Attach "tty" "logs" false "stream" true "keys" "EBE="`,
	},
	{
		name: "empty detach keys",
		path: "/v1.56/containers/tty/attach?stream=1&stdout=1&detachKeys=",
		kind: rawStream, stream: "out",
		call: `engine.Attach "tty" "logs" false "stream" true "keys" "EBE="`,
	},
	{
		name: "detach keys without a terminal",
		path: "/v1.56/containers/running/attach?stream=1&stdout=1&detachKeys=ctrl-a",
		kind: multiplexedStream, stream: frame(1, "out"),
		call: `engine.Attach "running" "logs" false "stream" true "keys" null`,
	},
	{
		name: "failure", path: "/v1.56/containers/running/attach" + attachAll,
		err: errors.New("no luck"), kind: multiplexedStream, stream: frame(2, "no luck\r\n"),
	},
	{
		name: "failure at a terminal", path: "/v1.56/containers/tty/attach" + attachAll,
		err: errors.New("no luck"), kind: rawStream, stream: "no luck\r\n",
	},
}

func TestAttach(t *testing.T) {
	t.Parallel()
	for _, c := range attaches {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(then)
			f.engine.attach = func(_ context.Context, opt engine.AttachOptions) error {
				if c.err != nil {
					return c.err
				}
				opt.Attached()
				return echo(opt.Streams)
			}
			head := fmt.Sprintf(upgrade, 0)
			if c.plain {
				head = " HTTP/1.1\r\nHost: x\r\n\r\n"
			}
			answer, stream := converse(t, f.h, "POST "+c.path+head, "in")
			status := c.status
			if status == 0 {
				status = http.StatusSwitchingProtocols
			}
			if answer.StatusCode != status || answer.Header.Get("Content-Type") != c.kind ||
				answer.Header.Get("Api-Version") != MaxVersion {
				t.Errorf("answer: %+v", answer)
			}
			if stream != c.stream {
				t.Errorf("stream: %q, want %q", stream, c.stream)
			}
			if calls := f.taken(); c.call != "" && (len(calls) != 1 || calls[0] != c.call) {
				t.Errorf("calls: %q, want %q", calls, c.call)
			}
		})
	}
}

// TestAttachQuiet: what kept a container from starting is the answer to the start, and a client
// that is gone hears nothing.
func TestAttachQuiet(t *testing.T) {
	t.Parallel()
	for _, quiet := range []error{engine.ErrNotStarted, net.ErrClosed} {
		f := newFake(then)
		f.engine.attach = func(_ context.Context, opt engine.AttachOptions) error {
			opt.Attached()
			return fmt.Errorf("attach: %w", quiet)
		}
		_, stream := converse(t, f.h, "POST /v1.56/containers/running/attach?stream=1&stdout=1"+
			fmt.Sprintf(upgrade, 0), "")
		if stream != "" {
			t.Errorf("%v: %q", quiet, stream)
		}
	}
}

// pipeListener accepts one connection, which is in memory: a synctest bubble knows when its reader
// waits.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	close(l.done)
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// dialPipe serves an API over a connection in memory until the test ends.
func dialPipe(t *testing.T, h http.Handler) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	l := &pipeListener{make(chan net.Conn, 1), make(chan struct{})}
	l.conns <- server
	s := &http.Server{Handler: h}
	ended := make(chan error)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		client.Close()
		s.Close()
		<-ended
	})
	return client
}

// TestAttachAnswered: clients start a container when the attach has been answered, so that must not
// be before what the container prints will be delivered.
func TestAttachAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(then)
		proceed := make(chan struct{})
		f.engine.attach = func(_ context.Context, opt engine.AttachOptions) error {
			<-proceed
			opt.Attached()
			_, err := io.WriteString(opt.Stdout, "output")
			return err
		}
		conn := dialPipe(t, f.h)
		go io.WriteString(conn, "POST /v1.41/containers/running/attach?stream=1&stdout=1"+
			fmt.Sprintf(upgrade, 0))
		r := bufio.NewReader(conn)
		answered := make(chan *http.Response, 1)
		go func() {
			answer, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Error(err)
			}
			answered <- answer
		}()
		synctest.Wait()
		select {
		case answer := <-answered:
			t.Fatalf("answered before the container is attached: %+v", answer)
		default:
		}
		close(proceed)
		if answer := <-answered; answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%+v", answer)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != frame(1, "output") {
			t.Errorf("stream: %q, %v", b, err)
		}
	})
}

// TestExecStart: the form of the stream is the one that the request to start asks for, whether or
// not the process has a terminal.
func TestExecStart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		exec, body string
		err        error
		kind, want string
		call       string
	}{
		{
			exec: "plain", body: `{"Tty":false}`, kind: multiplexedStream,
			want: frame(1, "out") + frame(2, "err") + frame(1, "<in>"),
			call: `engine.ExecStart "plain" null false`,
		},
		{
			exec: "plain", body: "", kind: multiplexedStream,
			want: frame(1, "out") + frame(2, "err") + frame(1, "<in>"),
		},
		{exec: "plain", body: `{"Tty":true}`, kind: rawStream, want: "outerr<in>"},
		{
			exec: "terminal", body: `{"Tty":true,"ConsoleSize":[24,80]}`, kind: rawStream,
			want: "out<in>", call: `engine.ExecStart "terminal" [80,24] false`,
		},
		{
			exec: "terminal", body: `{"Tty":false}`, kind: multiplexedStream,
			want: frame(1, "out") + frame(1, "<in>"),
		},
		{
			exec: "plain", err: errors.New("no luck"), kind: multiplexedStream,
			want: frame(2, "no luck\r\n"),
		},
		{
			exec: "plain", body: `{"Tty":true}`, err: errors.New("no luck"), kind: rawStream,
			want: "no luck\r\n",
		},
		{exec: "plain", err: net.ErrClosed, kind: multiplexedStream, want: ""},
	} {
		t.Run(c.exec+" "+c.body, func(t *testing.T) {
			t.Parallel()
			f := newFake(then)
			f.engine.execStart = func(_ context.Context, s engine.Streams) error {
				if c.err != nil {
					return c.err
				}
				if f.engine.execs[c.exec].Spec.TTY {
					s.Stderr = nil // a terminal has one output, as engine.Streams says
				}
				return echo(s)
			}
			answer, stream := converse(t, f.h, "POST /v1.56/exec/"+c.exec+"/start"+
				fmt.Sprintf(upgrade, len(c.body))+c.body, "in")
			if answer.StatusCode != http.StatusSwitchingProtocols ||
				answer.Header.Get("Content-Type") != c.kind {
				t.Errorf("answer: %+v", answer)
			}
			if stream != c.want {
				t.Errorf("stream: %q, want %q", stream, c.want)
			}
			if calls := f.taken(); c.call != "" && (len(calls) != 1 || calls[0] != c.call) {
				t.Errorf("calls: %q, want %q", calls, c.call)
			}
		})
	}
}

// TestExecKeys: a terminal of an exec is left by the keys that its creation named, or the default
// ones; other execs receive all input.
func TestExecKeys(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		spec engine.ExecSpec
		want string
	}{
		{engine.ExecSpec{TTY: true}, "\x10\x11"},
		{engine.ExecSpec{TTY: true, DetachKeys: "ctrl-a,x"}, "\x01x"},
		{engine.ExecSpec{}, ""},
		{engine.ExecSpec{DetachKeys: "ctrl-a,x"}, ""},
	} {
		f := newFake(then)
		f.engine.execs["x"] = engine.ExecInfo{ID: "x", Spec: c.spec}
		keys := make(chan string, 1)
		f.engine.execStart = func(_ context.Context, s engine.Streams) error {
			keys <- string(s.DetachKeys)
			return nil
		}
		converse(t, f.h, "POST /v1.56/exec/x/start"+fmt.Sprintf(upgrade, 0), "")
		if got := <-keys; got != c.want {
			t.Errorf("%+v: keys %q, want %q", c.spec, got, c.want)
		}
	}
}

// TestNoHijack: a connection that cannot be taken over is an error of the server, told as one.
func TestNoHijack(t *testing.T) {
	t.Parallel()
	f := newFake(then)
	for _, path := range []string{
		"/v1.56/containers/running/attach?stream=1", "/v1.56/exec/plain/start",
	} {
		w := httptest.NewRecorder()
		f.h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		if w.Code != http.StatusInternalServerError ||
			!strings.Contains(w.Body.String(), "take over the connection") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestFrames: a writer of frames reports the bytes of the piece, not those of the frame.
func TestFrames(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	s := writersFor(&b, false)
	for _, w := range []io.Writer{s.Stdout, s.Stderr} {
		if n, err := io.WriteString(w, "text"); n != 4 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if got, want := b.String(), frame(1, "text")+frame(2, "text"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if s := writersFor(&b, true); s.Stdout != io.Writer(&b) || s.Stderr != nil {
		t.Error("the stream of a terminal is framed")
	}
	long := strings.Repeat("x", 0x10203)
	b.Reset()
	io.WriteString(writersFor(&b, false).Stdout, long)
	if got := b.Bytes()[:8]; !bytes.Equal(got, []byte{1, 0, 0, 0, 0, 1, 2, 3}) {
		t.Errorf("header of a long piece: %v", got)
	}
}
