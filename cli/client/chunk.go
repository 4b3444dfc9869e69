package client

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// chunkedReader reads a chunked body (RFC 9112 section 7.1), trailers included.
type chunkedReader struct {
	k    *conn
	left uint64 // of the chunk being read
	open bool   // a chunk has begun and its line ending has not been read
	err  error
}

func (c *chunkedReader) Read(p []byte) (int, error) {
	if c.err == nil && c.left == 0 {
		c.err = c.next()
	}
	if c.err != nil {
		return 0, c.err
	}
	if uint64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.k.r.Read(p)
	c.left -= uint64(n)
	if err != nil {
		c.err = noEOF(err)
	}
	// If the last chunk has arrived already, its end is reported with the last bytes: a JSON
	// decoder stops without another Read, and a connection whose end was not read cannot be used
	// again.
	if c.err == nil && c.left == 0 && c.k.r.Buffered() >= len("\r\n0\r\n\r\n") {
		c.err = c.next()
	}
	if n > 0 && c.err != io.EOF {
		return n, nil
	}
	return n, c.err
}

// next reads up to the first byte of the next chunk. It returns io.EOF after the last one.
func (c *chunkedReader) next() error {
	budget := maxHeader
	if c.open {
		if line, err := c.k.readLine(&budget); err != nil {
			return noEOF(err)
		} else if line != "" {
			return fmt.Errorf("%w: chunk longer than it said", errMalformed)
		}
	}
	line, err := c.k.readLine(&budget)
	if err != nil {
		return noEOF(err)
	}
	size, _, _ := strings.Cut(line, ";") // extensions mean nothing here
	n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 63)
	if err != nil {
		return fmt.Errorf("%w: chunk size %.40q", errMalformed, line)
	}
	if n > 0 {
		c.left, c.open = n, true
		return nil
	}
	for {
		line, err := c.k.readLine(&budget)
		if err != nil {
			return noEOF(err)
		}
		if line == "" {
			return io.EOF
		}
	}
}

// sourceError is an error of what is being uploaded, not of the connection.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "read what is to be sent: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// writeChunks sends a stream. If the source fails, the connection is ended without the last chunk,
// so that the engine cannot take a part for the whole.
func writeChunks(k *conn, src io.Reader) error {
	buf := make([]byte, 8, 8+64<<10+2)
	for {
		n, err := src.Read(buf[8 : 8+64<<10])
		if n > 0 {
			size := strconv.FormatInt(int64(n), 16) + "\r\n"
			start := 8 - len(size)
			copy(buf[start:8], size)
			full := append(buf[start:8+n:cap(buf)], '\r', '\n')
			if _, err := k.Write(full); err != nil {
				return err
			}
		}
		if err == io.EOF {
			_, err := io.WriteString(k, "0\r\n\r\n")
			return err
		}
		if err != nil {
			k.Close()
			return &sourceError{err}
		}
	}
}
