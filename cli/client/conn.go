package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// conn is one connection. It belongs to one request at a time.
type conn struct {
	net.Conn
	r     *bufio.Reader
	since time.Time // when it became idle
}

func newConn(raw net.Conn) *conn { return &conn{Conn: raw, r: bufio.NewReaderSize(raw, 32<<10)} }

// Header is the header of an answer, with names in lower case.
type Header map[string]string

// Get returns a field, or "".
func (h Header) Get(name string) string { return h[strings.ToLower(name)] }

// Response is an answer. Reading Body to its end gives the connection back for other requests;
// closing it before ends the connection.
type Response struct {
	Status int
	Header Header
	Body   io.ReadCloser
}

// errMalformed is wrapped by what is said about answers that are not HTTP.
var errMalformed = errors.New("the engine's answer is not HTTP/1.1")

// encode builds everything of a request but a streamed body.
func (c *Client) encode(r Request, hijack bool) ([]byte, error) {
	var body []byte
	if r.JSON != nil {
		var err error
		if body, err = json.Marshal(r.JSON); err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
	}
	var b bytes.Buffer
	b.Grow(512 + len(body))
	b.WriteString(r.Method)
	b.WriteByte(' ')
	if c.opt.APIVersion != "" {
		b.WriteString("/v" + c.opt.APIVersion)
	}
	b.WriteString(r.Path)
	if q := r.Query.Encode(); q != "" {
		b.WriteString("?" + q)
	}
	b.WriteString(" HTTP/1.1\r\nHost: " + c.opt.Host + "\r\n")
	if c.opt.UserAgent != "" {
		b.WriteString("User-Agent: " + c.opt.UserAgent + "\r\n")
	}
	for name, value := range r.Header {
		if strings.ContainsAny(value, "\r\n") {
			return nil, fmt.Errorf("header %s: contains a line break", name)
		}
		b.WriteString(name + ": " + value + "\r\n")
	}
	if hijack {
		b.WriteString("Connection: Upgrade\r\nUpgrade: tcp\r\n")
	}
	switch {
	case body != nil:
		b.WriteString(
			"Content-Type: application/json\r\n" +
				"Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n",
		)
		b.Write(body)
	case r.Stream != nil:
		b.WriteString("Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n")
	case r.Method != "GET" && r.Method != "HEAD":
		b.WriteString("Content-Length: 0\r\n\r\n")
	default:
		b.WriteString("\r\n")
	}
	return b.Bytes(), nil
}

// roundTrip writes a request and reads the header of its answer. The connection is the answer's
// afterwards, unless it was hijacked.
func (k *conn) roundTrip(
	ctx context.Context, c *Client, r Request, head []byte, hijack bool,
) (*Response, error) {
	stop := k.bindContext(ctx)
	if _, err := k.Write(head); err != nil {
		stop()
		return nil, err
	}
	var upload chan error
	if r.Stream != nil {
		upload = make(chan error, 1)
		go func() { upload <- writeChunks(k, r.Stream) }()
	}
	resp, err := k.readHeader(r.Method)
	if err != nil {
		if upload != nil {
			// An error of the source says more than the connection that broke because of it;
			// closing ends the upload.
			k.Close()
			var source *sourceError
			if up := <-upload; errors.As(up, &source) {
				err = source
			}
		}
		stop()
		return nil, err
	}
	if hijack && (resp.Status == 101 || resp.Status == 200) {
		stop()
		return resp, nil
	}
	k.frame(c, r.Method, resp, upload, stop)
	return resp, nil
}

// bindContext makes the end of ctx the end of reads and writes.
func (k *conn) bindContext(ctx context.Context) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	cancel := context.AfterFunc(ctx, func() { k.SetDeadline(time.Unix(1, 0)) })
	return func() { cancel() }
}

// maxHeader bounds the lines of a header, all together.
const maxHeader = 256 << 10

func (k *conn) readHeader(method string) (*Response, error) {
	for {
		budget := maxHeader
		line, err := k.readLine(&budget)
		if err != nil {
			return nil, err
		}
		version, rest, _ := strings.Cut(line, " ")
		code, _, _ := strings.Cut(rest, " ")
		status, err := strconv.Atoi(code)
		if !strings.HasPrefix(version, "HTTP/1.") || err != nil || status < 100 || status > 599 {
			return nil, fmt.Errorf("%w: it begins with %.40q", errMalformed, line)
		}
		h := Header{}
		for {
			line, err := k.readLine(&budget)
			if err != nil {
				return nil, noEOF(err)
			}
			if line == "" {
				break
			}
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return nil, fmt.Errorf("%w: header line %.40q", errMalformed, line)
			}
			h[strings.ToLower(name)] = strings.TrimSpace(value)
		}
		if status == 100 || status == 102 || status == 103 {
			continue // interim answers, RFC 9110 section 15.2
		}
		return &Response{Status: status, Header: h}, nil
	}
}

// readLine reads a line without its ending and takes its length from the budget.
func (k *conn) readLine(budget *int) (string, error) {
	var line []byte
	for {
		part, err := k.r.ReadSlice('\n')
		if *budget -= len(part); *budget < 0 {
			return "", fmt.Errorf("%w: header of more than %d bytes", errMalformed, maxHeader)
		}
		line = append(line, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			if len(line) > 0 {
				err = noEOF(err)
			}
			return "", err
		}
		return strings.TrimRight(string(line), "\r\n"), nil
	}
}

// frame gives the answer its body (RFC 9112 section 6.3).
func (k *conn) frame(c *Client, method string, resp *Response, upload chan error, stop func()) {
	b := &body{
		conn: k, client: c, stop: stop, upload: upload,
		keep: !strings.EqualFold(resp.Header.Get("Connection"), "close"),
	}
	resp.Body = b
	length := resp.Header.Get("Content-Length")
	switch {
	case method == "HEAD", resp.Status == 204, resp.Status == 304, resp.Status < 200:
		b.Reader = eofReader{}
	case strings.EqualFold(resp.Header.Get("Transfer-Encoding"), "chunked"):
		b.Reader = &chunkedReader{k: k}
	case length != "":
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 {
			b.Reader, b.keep = failingReader{
				fmt.Errorf("%w: Content-Length %.40q", errMalformed, length),
			}, false
			return
		}
		b.Reader = &exactReader{r: k.r, left: n}
	default:
		b.Reader, b.keep = k.r, false // until the engine closes
	}
}

// body is the body of an answer. It belongs to one goroutine, but Close may be called from another
// to end a Read.
type body struct {
	io.Reader
	conn   *conn
	client *Client
	stop   func()
	upload chan error
	keep   bool
	done   bool
}

func (b *body) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.finish()
	}
	return n, err
}

// finish gives the connection back, or ends it if the rest of a request is still being written.
func (b *body) finish() {
	b.done = true
	b.stop()
	if b.upload != nil {
		select {
		case err := <-b.upload:
			b.keep = b.keep && err == nil
		default:
			b.keep = false
		}
	}
	if b.keep {
		b.client.give(b.conn)
		return
	}
	b.conn.Close()
}

// Close ends the connection unless the body has been read to its end.
func (b *body) Close() error {
	if b.done {
		return nil
	}
	if _, empty := b.Reader.(eofReader); empty {
		b.finish()
		return nil
	}
	b.stop()
	return b.conn.Close()
}

type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// exactReader reads so many bytes, and says so if fewer come.
type exactReader struct {
	r    io.Reader
	left int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.r.Read(p)
	if e.left -= int64(n); err != nil {
		err = noEOF(err)
	}
	if e.left == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// noEOF keeps an end in the middle of something from looking like its end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// isStale says whether a kept connection had been closed before the request reached the engine.
func isStale(err error) bool {
	return errors.Is(err, io.ErrClosedPipe) || err == io.EOF || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ECONNRESET)
}
