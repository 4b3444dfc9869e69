package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Compression names how a stream is packed.
type Compression string

// The compressions that Decompress recognises.
const (
	Plain Compression = ""
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
	Xz    Compression = "xz"
)

// maxWindow bounds the memory one stream may ask of its decoder. RFC 8878 section 3.1.1.1.2
// recommends decoders to accept 8 MiB; zstd's own tool accepts 128 MiB without --long.
const maxWindow = 128 << 20

// Detect recognises a compression by the first bytes of a stream (at most six are looked at).
func Detect(head []byte) Compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return Zstd // a frame, or a skippable frame as zstd:chunked begins with
	case bytes.HasPrefix(head, []byte("BZh")):
		return Bzip2
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return Xz
	}
	return Plain
}

// Decompress returns the unpacked stream of r and what it was packed with. Everything is decoded in
// process: a helper looked up in PATH would be code an image could choose. Close releases the
// decoder and does not close r. Errors of damaged streams wrap errdefs.ErrInvalidArgument.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, Plain, err
	}
	c := Detect(head)
	switch c {
	case Gzip:
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, c, damaged(c, err)
		}
		return &decoder{zr, zr.Close, c}, c, nil
	case Zstd:
		zr, err := zstd.NewReader(
			br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow),
		)
		if err != nil {
			return nil, c, damaged(c, err)
		}
		return &decoder{zr, func() error { zr.Close(); return nil }, c}, c, nil
	case Bzip2:
		return &decoder{bzip2.NewReader(br), nil, c}, c, nil
	case Xz:
		zr, err := xz.ReaderConfig{DictCap: maxWindow}.NewReader(br)
		if err != nil {
			return nil, c, damaged(c, err)
		}
		return &decoder{zr, nil, c}, c, nil
	}
	return io.NopCloser(br), Plain, nil
}

type decoder struct {
	io.Reader
	close func() error
	kind  Compression
}

func (d *decoder) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = damaged(d.kind, err)
	}
	return n, err
}

func (d *decoder) Close() error {
	if d.close == nil {
		return nil
	}
	return d.close()
}

// damaged tells the decoder's own complaints apart from errors of the stream below it, which pass
// through it unchanged.
func damaged(c Compression, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s stream is truncated: %w: %w", c, err, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("%s stream: %w", c, err)
}

// Ahead reads r in a goroutine of its own, a few buffers in front of the consumer, so that decoding
// and hashing run beside writing. Close ends and joins the goroutine; it must be called.
func Ahead(r io.Reader) io.ReadCloser {
	a := &ahead{
		full: make(chan chunk, aheadBuffers),
		free: make(chan []byte, aheadBuffers),
		stop: make(chan struct{}),
	}
	for range aheadBuffers {
		a.free <- make([]byte, aheadBufferBytes)
	}
	a.done.Go(func() { a.fill(r) })
	return a
}

const (
	aheadBuffers     = 4
	aheadBufferBytes = 256 << 10
)

type chunk struct {
	b   []byte
	err error
}

type ahead struct {
	full chan chunk
	free chan []byte
	stop chan struct{}
	once sync.Once
	done sync.WaitGroup
	cur  chunk
	rest []byte
}

func (a *ahead) fill(r io.Reader) {
	defer close(a.full)
	for {
		var b []byte
		select {
		case b = <-a.free:
		case <-a.stop:
			return
		}
		n, err := 0, error(nil)
		// not io.ReadFull, which hides the difference between an end and a truncation
		for n < cap(b) && err == nil {
			var m int
			m, err = r.Read(b[n:cap(b)])
			n += m
		}
		select {
		case a.full <- chunk{b[:n], err}:
		case <-a.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.b != nil {
			a.free <- a.cur.b
			a.cur.b = nil
		}
		select {
		case c, ok := <-a.full:
			if !ok {
				return 0, io.ErrClosedPipe
			}
			a.cur, a.rest = c, c.b
		case <-a.stop:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *ahead) Close() error {
	a.once.Do(func() { close(a.stop) })
	a.done.Wait()
	return nil
}
