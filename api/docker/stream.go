package docker

import (
	"encoding/binary"
	"io"
	"net/http"
	"sync"

	"strake/engine"
)

// Types of the content of a hijacked connection or a log (API, "Stream format").
const (
	rawStream         = "application/vnd.docker.raw-stream"
	multiplexedStream = "application/vnd.docker.multiplexed-stream"
)

// frames writes one of the streams of the multiplexed form: a header of eight bytes in front of
// each piece. The streams of a connection share mu.
type frames struct {
	mu     *sync.Mutex
	w      io.Writer
	stream byte // 1 standard output, 2 standard error
}

func (f frames) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	buf := make([]byte, 8+len(p))
	buf[0] = f.stream
	binary.BigEndian.PutUint32(buf[4:], uint32(len(p)))
	copy(buf[8:], p)
	n, err := f.w.Write(buf)
	return max(n-8, 0), err
}

// contentType is the media type of a stream. Versions before 1.42 have one for both forms.
func contentType(tty bool, v version) string {
	if !tty && v >= 42 {
		return multiplexedStream
	}
	return rawStream
}

// flusher is a writer that flushes the response after each write.
type flusher struct {
	w  io.Writer
	rc *http.ResponseController
}

func newFlusher(w http.ResponseWriter) *flusher {
	return &flusher{w, http.NewResponseController(w)}
}

func (f *flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	f.flush()
	return n, err
}

func (f *flusher) flush() { f.rc.Flush() }

// writersFor are the output streams of a container over a response that is not hijacked.
func writersFor(w io.Writer, tty bool) engine.Streams {
	if tty {
		return engine.Streams{Stdout: w}
	}
	mu := new(sync.Mutex)
	return engine.Streams{Stdout: frames{mu, w, 1}, Stderr: frames{mu, w, 2}}
}
