package server

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"strake/keeper/logwriter"
)

// flight is the memory that output passes through on its way from a stream to a log: a memory file
// that the guard holds too. So what a keeper that was killed had read and not yet handed to the log
// is there for the next one. It costs no system call.
//
// While nothing is on its way the text is all zero bytes, which is how the end of what read(2) has
// stored is found if the keeper was killed before it learned the number. Zero bytes at the end of
// the output are lost then.
type flight struct {
	fd  int
	mem []byte
}

const (
	flightPage = 4096 // for the header; the text ends with the mapping
	flightSize = flightPage + outputSize
)

// flightHeader is at the beginning of the memory.
type flightHeader struct {
	state   atomic.Uint32
	stream  uint32
	pid     int64
	ticks   uint64
	length  int64
	time    int64 // nanoseconds since 1970
	file    uint64
	size    int64
	pending int64
}

// States of what is on its way.
const (
	flightEmpty   = iota
	flightReading // the process and the stream are known
	flightLogging // and the length, the time, and where the log was
)

// newFlight maps the memory of a descriptor, which it takes over, or, if that is -1, of a new one.
func newFlight(fd int) (*flight, error) {
	var err error
	if fd < 0 {
		if fd, err = unix.MemfdCreate("strake-output", unix.MFD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("memfd_create for output: %w", err)
		}
		err = unix.Ftruncate(fd, flightSize)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && st.Size != flightSize {
		err = fmt.Errorf("%d bytes, want %d", st.Size, flightSize)
	}
	f := &flight{fd: fd}
	if err == nil {
		f.mem, err = unix.Mmap(
			fd, 0, flightSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED,
		)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("memory for output: %w", err)
	}
	return f, nil
}

func (f *flight) header() *flightHeader { return (*flightHeader)(unsafe.Pointer(&f.mem[0])) }

// buffer is where output is read to, with headroom in front.
func (f *flight) buffer() []byte { return f.mem[flightPage-headroom:] }

func (f *flight) text() []byte { return f.mem[flightPage:] }

// reading says that output of a stream is about to be read.
func (f *flight) reading(process identity, stream int) {
	h := f.header()
	h.pid, h.ticks, h.stream = int64(process.pid), process.ticks, uint32(stream)
	h.state.Store(flightReading)
}

// logging says that n bytes were read and are about to be written to a log.
func (f *flight) logging(n int, at logwriter.Mark, now time.Time) {
	h := f.header()
	h.length, h.time = int64(n), now.UnixNano()
	h.file, h.size, h.pending = at.File, at.Size, int64(at.Pending)
	h.state.Store(flightLogging)
}

// landed says that what was read, n bytes, is where it belongs.
func (f *flight) landed(n int) {
	f.header().state.Store(flightEmpty)
	clear(f.text()[:n])
}

// cargo is what a keeper that was killed has left on its way.
type cargo struct {
	process identity
	stream  int
	text    []byte // in the memory
	// mark is where the log was before the text was written to it, in part perhaps; nil if no
	// writing had begun.
	mark *logwriter.Mark
	time time.Time
}

// left returns what is on its way, or false if there is nothing that makes sense.
func (f *flight) left() (cargo, bool) {
	h := f.header()
	c := cargo{
		process: identity{int(h.pid), h.ticks}, stream: int(h.stream), time: time.Now(),
		text: bytes.TrimRight(f.text(), "\x00"),
	}
	state := h.state.Load()
	if state == flightLogging {
		if h.length < 0 || h.length > outputSize || h.pending < 0 || h.size < 0 {
			return cargo{}, false
		}
		c.text, c.time = f.text()[:h.length], time.Unix(0, h.time)
		c.mark = &logwriter.Mark{File: h.file, Size: h.size, Pending: int(h.pending)}
	}
	return c, state != flightEmpty && h.stream < 2 && len(c.text) > 0
}

func (f *flight) close() {
	unix.Munmap(f.mem)
	unix.Close(f.fd)
}
