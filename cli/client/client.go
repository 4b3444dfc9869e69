// Package client speaks the Docker Engine API (moby/moby:api/swagger.yaml) to an engine over a unix
// or TCP socket: requests with JSON bodies, streams, and connections taken over (hijacked) for the
// streams of a process.
//
// It promises:
//
//   - One system call per request that is written, and connections that are kept for the next
//     request.
//   - An answer of status 400 or more is an *APIError carrying the engine's own sentence and a
//     class of github.com/containerd/errdefs.
//   - A cancelled context ends every call that blocks, and its connection with it.
//   - What the engine sends is bounded: header lines, error texts and JSON answers.
//
// It has its own HTTP/1.1 (RFC 9112) because net/http makes the start of every command slower: with
// it a program that does nothing takes 3.3 ms of processor time in place of 2.6, and 109 more page
// faults. Tables of HTTP/2, TLS and MIME types are filled in before main runs.
//
// Not for: TLS, proxies, redirects, HTTP/2; the meaning of the answers (the commands know it);
// starting the engine (launch does).
//
// Tested against net/http servers, hand-written broken answers and a fuzzer.
package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Options says where an engine is and how to speak to it. Dial is required.
type Options struct {
	// Dial opens a connection. It is called from several goroutines at once.
	Dial func(ctx context.Context) (net.Conn, error)
	// Host is the Host header; the engine does not look at it. Empty: "strake".
	Host string
	// APIVersion is put in front of every path ("1.41"). Empty asks for the newest version that the
	// engine has, which saves the request that would find it out.
	APIVersion string
	// UserAgent names the program.
	UserAgent string
	// Trace, if not nil, is told of every answer: what was asked, its status (0 if there was none)
	// and how long the headers took.
	Trace func(method, path string, status int, took time.Duration)
}

// Client is a set of connections to one engine. Its methods may be called concurrently.
type Client struct {
	opt Options

	mu     sync.Mutex
	idle   []*conn // guarded by mu; most recently used last
	closed bool    // guarded by mu
}

// New returns a client. It does not connect.
func New(opt Options) *Client {
	if opt.Host == "" {
		opt.Host = "strake"
	}
	return &Client{opt: opt}
}

// Close ends the connections that are not in use; the others end with their answers.
func (c *Client) Close() {
	c.mu.Lock()
	idle := c.idle
	c.idle, c.closed = nil, true
	c.mu.Unlock()
	for _, k := range idle {
		k.Close()
	}
}

// Request is one request. Of JSON and Stream at most one is set.
type Request struct {
	Method string
	// Path is escaped already (see Path) and has no version.
	Path   string
	Query  url.Values
	Header map[string]string
	// JSON is encoded as the body.
	JSON any
	// Stream is sent as the body while the answer is awaited; the engine may answer before it has
	// read all of it.
	Stream io.Reader
}

// Path joins the segments of a path, escaping each. Slashes inside a segment stay: names of images
// have them.
func Path(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(url.PathEscape(s), "%2F", "/"))
	}
	return b.String()
}

// maxJSON bounds an answer that is decoded: a list of a hundred thousand containers is about 100
// MB.
const maxJSON = 256 << 20

// JSON sends a request and decodes the answer into out, unless that is nil.
func (c *Client) JSON(ctx context.Context, r Request, out any) error {
	resp, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	return resp.Decode(out)
}

// Decode reads a JSON answer into out, or drops it if out is nil, and closes it.
func (r *Response) Decode(out any) error {
	defer r.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxJSON+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the engine's answer: %w", err)
	case len(raw) > maxJSON:
		return fmt.Errorf("read the engine's answer: more than %d MiB", maxJSON>>20)
	case out == nil:
		return nil
	}
	if p, ok := out.(*json.RawMessage); ok {
		*p = raw
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("decode the engine's answer: %w", err)
	}
	return nil
}

// Do sends a request and returns the answer as soon as its headers are there. The caller closes the
// body. Statuses from 400 are errors (*APIError); 304, by which the engine says that something is
// so already, is not.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	resp, _, err := c.send(ctx, r, false)
	return resp, err
}

// Hijack sends a request after which the connection carries the streams of a process in both
// directions, and returns it once the engine has agreed. The caller closes it.
func (c *Client) Hijack(ctx context.Context, r Request) (*Hijacked, error) {
	resp, k, err := c.send(ctx, r, true)
	if err != nil {
		return nil, err
	}
	return &Hijacked{conn: k, ContentType: resp.Header.Get("Content-Type")}, nil
}

// send does one request. A kept connection that turns out to be closed before anything came back is
// replaced once; requests whose body is a stream never use a kept one, because they could not be
// sent again.
func (c *Client) send(ctx context.Context, r Request, hijack bool) (*Response, *conn, error) {
	head, err := c.encode(r, hijack)
	if err != nil {
		return nil, nil, err
	}
	began := time.Now()
	var k *conn
	if r.Stream == nil {
		k = c.take()
	}
	kept := k != nil
	for {
		if k == nil {
			if k, err = c.open(ctx); err != nil {
				return nil, nil, err
			}
		}
		resp, err := k.roundTrip(ctx, c, r, head, hijack)
		if err != nil {
			k.Close()
			if kept && isStale(err) && ctx.Err() == nil {
				k, kept = nil, false
				continue
			}
			c.trace(r, 0, began)
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return nil, nil, fmt.Errorf("%s %s: %w", r.Method, r.Path, err)
		}
		c.trace(r, resp.Status, began)
		if resp.Status >= 400 {
			return nil, nil, readError(r, resp)
		}
		return resp, k, nil
	}
}

func (c *Client) trace(r Request, status int, began time.Time) {
	if c.opt.Trace == nil {
		return
	}
	path := r.Path
	if len(r.Query) > 0 {
		path += "?" + r.Query.Encode()
	}
	c.opt.Trace(r.Method, path, status, time.Since(began))
}

// maxIdle is how long a connection is kept: an engine may close quiet ones, and a second try costs
// more than a new connection.
const maxIdle = 5 * time.Second

func (c *Client) take() *conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.idle) > 0 {
		k := c.idle[len(c.idle)-1]
		c.idle = c.idle[:len(c.idle)-1]
		if time.Since(k.since) < maxIdle {
			return k
		}
		k.Close()
	}
	return nil
}

func (c *Client) give(k *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) >= 4 {
		k.Close()
		return
	}
	k.since = time.Now()
	c.idle = append(c.idle, k)
}

func (c *Client) open(ctx context.Context) (*conn, error) {
	raw, err := c.opt.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return newConn(raw), nil
}
