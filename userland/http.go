package userland

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// HTTP/1.1 as wget and httpd need it (RFC 9112): messages with a body that is counted, chunked or
// ends with the connection. Package net/http would bring TLS and HTTP/2 along, whose initialisation
// alone costs every applet more than the start of the process.

const (
	maxHeaderBytes = 64 << 10
	maxHeaders     = 256
)

var errHeaderSize = fmt.Errorf("header larger than %d bytes", maxHeaderBytes)

// header holds field names in lower case.
type httpHeader map[string]string

// readHead reads a start line and the fields after it.
func readHead(r *bufio.Reader) (start string, h httpHeader, err error) {
	budget := maxHeaderBytes
	line := func() (string, error) {
		var b []byte
		for {
			part, err := r.ReadSlice('\n')
			if budget -= len(part); budget < 0 {
				return "", errHeaderSize
			}
			b = append(b, part...)
			if err == bufio.ErrBufferFull {
				continue
			}
			if err != nil {
				if err == io.EOF && len(b) > 0 {
					err = io.ErrUnexpectedEOF
				}
				return "", err
			}
			return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
		}
	}
	if start, err = line(); err != nil {
		return "", nil, err
	}
	h = httpHeader{}
	for range maxHeaders {
		l, err := line()
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return "", nil, err
		}
		if l == "" {
			return start, h, nil
		}
		name, value, ok := strings.Cut(l, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return "", nil, fmt.Errorf("malformed header field %q", l)
		}
		name, value = strings.ToLower(name), strings.Trim(value, " \t")
		if old, dup := h[name]; dup {
			if name == "content-length" && old != value {
				return "", nil, fmt.Errorf("two content lengths, %q and %q", old, value)
			}
			if name != "content-length" {
				value = old + ", " + value
			}
		}
		h[name] = value
	}
	return "", nil, fmt.Errorf("more than %d header fields", maxHeaders)
}

// response is the start of an answer.
type response struct {
	status int
	reason string
	header httpHeader
	// body ends where the message ends; an early end is io.ErrUnexpectedEOF.
	body io.Reader
	// size is the length of the body, -1 when it is not known.
	size int64
}

// readResponse reads an answer to a request with the given method.
func readResponse(r *bufio.Reader, method string) (*response, error) {
	for range 8 { // a few 1xx answers may come first
		start, h, err := readHead(r)
		if err != nil {
			return nil, err
		}
		proto, rest, _ := strings.Cut(start, " ")
		code, text, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(code)
		if !strings.HasPrefix(proto, "HTTP/1.") || err != nil || n < 100 || n > 999 {
			return nil, fmt.Errorf("no HTTP/1 answer but %q", start)
		}
		if n < 200 {
			continue
		}
		res := &response{status: n, reason: text, header: h, size: -1}
		switch {
		case method == "HEAD" || n == 204 || n == 304:
			res.body, res.size = strings.NewReader(""), 0
		case strings.EqualFold(h["transfer-encoding"], "chunked"):
			res.body = &chunked{r: r}
		case h["transfer-encoding"] != "":
			return nil, fmt.Errorf("transfer encoding %q is not supported", h["transfer-encoding"])
		case h["content-length"] != "":
			size, err := strconv.ParseInt(h["content-length"], 10, 64)
			if err != nil || size < 0 {
				return nil, fmt.Errorf("content length %q is no number", h["content-length"])
			}
			res.body, res.size = &counted{r, size}, size
		default:
			res.body = r
		}
		return res, nil
	}
	return nil, errors.New("too many interim answers")
}

// counted is a body of a known length.
type counted struct {
	r    io.Reader
	left int64
}

func (c *counted) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if err == io.EOF && c.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunked decodes RFC 9112 section 7.1. Trailers are read and dropped.
type chunked struct {
	r    *bufio.Reader
	left int64
	open bool // a chunk's data has begun
	done bool
}

func (c *chunked) Read(p []byte) (int, error) {
	if c.done {
		return 0, io.EOF
	}
	if c.left == 0 {
		if err := c.next(); err != nil {
			if err == io.EOF && !c.done {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (c *chunked) next() error {
	line, err := c.line()
	if err == nil && c.open {
		if line != "" {
			return errors.New("a chunk is longer than announced")
		}
		line, err = c.line()
	}
	if err != nil {
		return err
	}
	c.open = true
	size, _, _ := strings.Cut(line, ";")
	n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 62)
	if err != nil {
		return fmt.Errorf("chunk size %q is no number", size)
	}
	if c.left = int64(n); n > 0 {
		return nil
	}
	for range maxHeaders {
		if line, err = c.line(); err != nil {
			return err
		}
		if line == "" {
			c.done = true
			return io.EOF
		}
	}
	return errors.New("too many trailers")
}

func (c *chunked) line() (string, error) {
	b, err := c.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		return "", errHeaderSize
	}
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
