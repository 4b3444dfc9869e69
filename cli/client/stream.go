package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Content types of streams (moby/moby:api/swagger.yaml, ContainerAttach): the output of a TTY, and
// frames of stdout and stderr.
const (
	RawStream         = "application/vnd.docker.raw-stream"
	MultiplexedStream = "application/vnd.docker.multiplexed-stream"
)

// Hijacked is a connection that carries the streams of a process: what is written goes to its
// standard input, what is read is its output, in frames (see Demux) unless it has a TTY. One
// goroutine may read while another writes.
type Hijacked struct {
	conn *conn
	// ContentType is RawStream or MultiplexedStream where the engine says it (API 1.42).
	ContentType string
	once        sync.Once
}

func (h *Hijacked) Read(p []byte) (int, error)  { return h.conn.r.Read(p) }
func (h *Hijacked) Write(p []byte) (int, error) { return h.conn.Write(p) }

// CloseWrite tells the process that its standard input has ended. Its output goes on.
func (h *Hijacked) CloseWrite() error {
	if half, ok := h.conn.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Interrupt makes reads and writes return.
func (h *Hijacked) Interrupt() { h.conn.SetDeadline(time.Unix(1, 0)) }

// Close ends the connection. The process goes on.
func (h *Hijacked) Close() error {
	var err error
	h.once.Do(func() { err = h.conn.Close() })
	return err
}

// Demux copies frames from src to stdout and stderr until src ends. A frame is one byte that names
// the stream (0 and 1 stdout, 2 stderr, 3 an error of the engine), three zeroes, and the length of
// what follows, big-endian (swagger.yaml, ContainerAttach, "Stream format"). An end inside a frame
// is io.ErrUnexpectedEOF. Errors of the destinations are returned as they are.
func Demux(stdout, stderr io.Writer, src io.Reader) error {
	var head [8]byte
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(src, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		size := int64(binary.BigEndian.Uint32(head[4:]))
		var dst io.Writer
		switch head[0] {
		case 0, 1:
			dst = stdout
		case 2:
			dst = stderr
		case 3:
			text, err := io.ReadAll(io.LimitReader(src, min(size, maxError)))
			if err != nil {
				return err
			}
			return fmt.Errorf("the engine ended the stream: %s", text)
		default:
			return fmt.Errorf(
				"frame of unknown stream %d: the output has none or the connection is out of step",
				head[0],
			)
		}
		for size > 0 {
			n, err := src.Read(buf[:min(size, int64(len(buf)))])
			if n > 0 {
				if _, err := dst.Write(buf[:n]); err != nil {
					return err
				}
				size -= int64(n)
			}
			if err != nil && size > 0 {
				return noEOF(err)
			}
		}
	}
}
