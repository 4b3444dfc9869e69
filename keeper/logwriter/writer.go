// Package logwriter writes a process's output to a file, line by line, with rotation by size. The
// format of a line is a parameter: Docker's json-file (JSON) or the one of Kubernetes' container
// runtime interface (CRI).
//
// What it promises, in every format: every line that Write has accepted has been handed to the
// kernel by write(2) when Write returns, or is counted as lost; a file holds whole records only,
// also after a full disk; output is never held back for the log's sake. Lines of more than 16 KiB
// are split, and every piece but the last one is marked as unfinished in the format's own way.
//
// Not for: reading logs (package logfile), compressing them, or making them durable (nothing is
// fsynced: a process's output does not outlive its host).
//
// Tested in every format on full, foreign and broken files, and against encoding/json.
package logwriter

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// maxLine is the longest piece of a line in one record, in bytes; Docker's and containerd's
	// too.
	maxLine = 16 << 10
	// batch is how much is collected before it is written.
	batch = 64 << 10
	// retry is how much a file grows after a rotation that failed before it is tried again.
	retry = 64 << 10
)

// Stream is where a line came from.
type Stream int

const (
	Stdout Stream = iota
	Stderr
	streams
)

// LineEnd says how a piece of text ended.
type LineEnd int

const (
	// Newline: with a newline, which is not part of the text.
	Newline LineEnd = iota
	// Split: in the middle of a line that is too long for one record.
	Split
	// EndOfStream: with the stream.
	EndOfStream
)

// Format is how a line becomes a record. Implementations have no state and may be used
// concurrently.
type Format interface {
	// AppendRecord appends the record of a line, or of a piece of one, to b. A record ends in a
	// newline and has no other. line is not kept.
	AppendRecord(b, line []byte, end LineEnd, s Stream, now time.Time) []byte
	// MaxRecord bounds the size in bytes of the record of a piece of 16 KiB.
	MaxRecord() int
}

// Config describes a log.
type Config struct {
	// Format is not nil.
	Format Format
	// Path is absolute; its directory exists.
	Path string
	// MaxBytes is the size at which a file is full; 0 for never. The record that fills it is still
	// written to it, as Docker does it.
	MaxBytes int64
	// MaxFiles counts Path, Path.1 and so on; with 0 and 1 a full file is emptied.
	MaxFiles int
}

// Validate names the field that is wrong (errdefs.ErrInvalidArgument).
func (c *Config) Validate() error {
	switch {
	case c.Format == nil:
		return fmt.Errorf("log.format: is missing: %w", errdefs.ErrInvalidArgument)
	case c.Path == "" || c.Path[0] != '/':
		return fmt.Errorf("log.path %q: must be absolute: %w", c.Path, errdefs.ErrInvalidArgument)
	case c.MaxBytes < 0:
		return fmt.Errorf(
			"log.maxBytes %d: must not be negative: %w", c.MaxBytes, errdefs.ErrInvalidArgument,
		)
	case c.MaxFiles < 0 || c.MaxFiles > 10000:
		return fmt.Errorf(
			"log.maxFiles %d: must be 0 to 10000: %w", c.MaxFiles, errdefs.ErrInvalidArgument,
		)
	}
	return nil
}

// Scratch is memory that several Writers may share, if they are not used concurrently.
type Scratch struct{ buf []byte }

// Writer writes one log. It is not for concurrent use.
type Writer struct {
	cfg       Config
	scratch   *Scratch
	fd        int
	file      uint64 // its inode
	skip      int    // records that are in the file already (Replay)
	size      int64  // of the file, as far as known
	rotateAt  int64  // size at which to rotate; 0 for never
	rotations uint64
	pending   [streams][]byte // the beginning of a line, without its end; nil if none
	lost      uint64          // lines since the last one that was written
	loss      Loss            // not yet fetched
	lossNew   bool
}

// Loss tells of lines that could not be written.
type Loss struct {
	// Lines counts those since the last report.
	Lines uint64
	// Reason is why; nil when writing works again.
	Reason error
}

// Open opens a log for appending and creates it (mode 0640) if it is missing. A record that was cut
// off in the middle, by a crash of the host, is removed. Anything but a regular file is
// errdefs.ErrInvalidArgument.
func Open(cfg Config, scratch *Scratch) (*Writer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	w := &Writer{cfg: cfg, scratch: scratch, fd: -1}
	if err := w.Reopen(); err != nil {
		return nil, err
	}
	return w, nil
}

// State is what a Writer hands to the next program in the same process, descriptor included.
type State struct {
	FD              int
	Rotations, Lost uint64
	Pending         [2][]byte
}

// Resume continues with the state of another Writer, and takes its descriptor over.
func Resume(cfg Config, scratch *Scratch, st State) *Writer {
	w := &Writer{cfg: cfg, scratch: scratch, fd: -1, rotations: st.Rotations, lost: st.Lost}
	w.install(st.FD)
	for i, p := range st.Pending {
		if len(p) > 0 && len(p) < maxLine {
			w.pending[i] = p
		}
	}
	return w
}

// State returns what Resume wants. It refers to the Writer.
func (w *Writer) State() State { return State{w.fd, w.rotations, w.lost, w.pending} }

// Reopen opens the file at the path again, for those who have renamed it. On failure the old file
// stays.
func (w *Writer) Reopen() error {
	// O_NONBLOCK keeps a FIFO in the file's place from blocking open.
	fd, err := unix.Open(
		w.cfg.Path,
		unix.O_RDWR|unix.O_CREAT|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC,
		0o640,
	)
	if err != nil {
		return fmt.Errorf("open log %q: %w", w.cfg.Path, err)
	}
	st, err := repair(fd, int64(w.cfg.Format.MaxRecord()))
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("open log %q: %w", w.cfg.Path, err)
	}
	w.replace(fd, st)
	return nil
}

// install begins with another file.
func (w *Writer) install(fd int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		st = unix.Stat_t{}
	}
	w.replace(fd, st)
}

func (w *Writer) replace(fd int, st unix.Stat_t) {
	if w.fd >= 0 {
		unix.Close(w.fd)
	}
	w.fd, w.size, w.file, w.rotateAt = fd, st.Size, st.Ino, w.cfg.MaxBytes
}

// repair cuts off an unfinished last record of at most maxRecord bytes and returns what the file is
// then.
func repair(fd int, maxRecord int64) (st unix.Stat_t, err error) {
	if err := unix.Fstat(fd, &st); err != nil {
		return st, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return st, fmt.Errorf("not a regular file: %w", errdefs.ErrInvalidArgument)
	}
	last := [1]byte{'\n'}
	if st.Size > 0 {
		if _, err := unix.Pread(fd, last[:], st.Size-1); err != nil {
			return st, err
		}
	}
	if last[0] == '\n' {
		return st, nil
	}
	from := max(0, st.Size-maxRecord)
	tail := make([]byte, st.Size-from)
	n, err := unix.Pread(fd, tail, from)
	if err != nil {
		return st, err
	}
	size := from + int64(bytes.LastIndexByte(tail[:n], '\n')) + 1
	if size == from && from > 0 {
		return st, nil // no record of ours
	}
	st.Size = size
	return st, unix.Ftruncate(fd, size)
}

// Write takes output of a stream as it comes. Finished lines are written; the beginning of an
// unfinished one is kept.
func (w *Writer) Write(s Stream, data []byte, now time.Time) {
	out := w.begin()
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		room := maxLine - len(w.pending[s])
		switch {
		case end >= 0 && end < room:
			out = w.record(out, s, data[:end], Newline, now)
			data = data[end+1:]
		case len(data) >= room:
			out = w.record(out, s, data[:room], Split, now)
			data = data[room:]
		default:
			w.pending[s] = append(w.pending[s], data...)
			data = nil
		}
	}
	w.end(out)
}

// Flush writes what is left of a stream that has ended.
func (w *Writer) Flush(s Stream, now time.Time) {
	if len(w.pending[s]) > 0 {
		w.end(w.record(w.begin(), s, nil, EndOfStream, now))
	}
}

// Pending is the beginning of a line that is not in the file. It is valid until the next call.
func (w *Writer) Pending(s Stream) []byte { return w.pending[s] }

// Position returns the number of files that were filled and the current one's size in bytes.
func (w *Writer) Position() (rotations uint64, size int64) {
	w.measure()
	return w.rotations, w.size
}

// TakeLoss returns, once, what happened to the log since the last call.
func (w *Writer) TakeLoss() (Loss, bool) {
	l, ok := w.loss, w.lossNew
	w.loss, w.lossNew = Loss{Reason: l.Reason}, false
	return l, ok
}

// Close closes the file.
func (w *Writer) Close() {
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}

func (w *Writer) begin() []byte { return w.scratch.buf[:0] }

// record appends a record of what is pending and line, and writes when enough has been collected or
// a file is full.
func (w *Writer) record(out []byte, s Stream, line []byte, end LineEnd, now time.Time) []byte {
	if w.skip > 0 {
		w.skip--
		w.pending[s] = nil
		return out
	}
	if w.rotateAt > 0 && w.size+int64(len(out)) >= w.rotateAt {
		out = w.flush(out)
		w.rotate()
	}
	if w.lost > 0 && len(out) == 0 {
		out = w.cfg.Format.AppendRecord(
			out, fmt.Appendf(nil, "strake: %d log records were lost: %v", w.lost, w.loss.Reason),
			Newline, Stderr, now,
		)
	}
	if len(w.pending[s]) > 0 {
		line = append(w.pending[s], line...)
		w.pending[s] = nil
	}
	out = w.cfg.Format.AppendRecord(out, line, end, s, now)
	if len(out) >= batch {
		out = w.flush(out)
	}
	return out
}

func (w *Writer) end(out []byte) { w.scratch.buf = w.flush(out) }

// flush writes records and returns the empty buffer.
func (w *Writer) flush(out []byte) []byte {
	if len(out) == 0 {
		return out
	}
	for done := 0; done < len(out); {
		n, err := unix.Write(w.fd, out[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			w.failed(out, done, err)
			return out[:0]
		}
		done += n
	}
	w.size += int64(len(out))
	if w.lost > 0 {
		w.lost = 0
		w.loss, w.lossNew = Loss{Lines: w.loss.Lines}, true
	}
	return out[:0]
}

// failed accounts for records of which only the first done bytes were written, and removes an
// incomplete one.
func (w *Writer) failed(out []byte, done int, err error) {
	whole := 0
	if w.lost == 0 { // else the notice must not be written without what follows it, again and again
		whole = bytes.LastIndexByte(out[:done], '\n') + 1
	}
	w.measure()
	if cut := int64(done - whole); cut > 0 && cut <= w.size {
		if terr := unix.Ftruncate(w.fd, w.size-cut); terr != nil {
			err = errors.Join(err, terr)
		} else {
			w.size -= cut
		}
	}
	lines := uint64(bytes.Count(out[whole:], []byte{'\n'}))
	first := w.lost == 0 || w.loss.Reason == nil
	if w.lost > 0 {
		lines-- // the notice of the earlier loss
	}
	w.lost += lines
	w.loss.Lines += lines
	w.loss.Reason = err
	// One report when it begins; the next when it works again.
	w.lossNew = w.lossNew || first
}

// measure asks for the size: the file may have been emptied, by an administrator for example.
func (w *Writer) measure() {
	var st unix.Stat_t
	if unix.Fstat(w.fd, &st) == nil {
		w.size = st.Size
	}
}

// rotate begins a new file. If that fails, the old one goes on.
func (w *Writer) rotate() {
	w.measure()
	if w.size < w.rotateAt {
		return
	}
	if err := w.shift(); err != nil {
		w.rotateAt = w.size + retry
		w.loss.Reason, w.lossNew = err, true
		return
	}
	w.rotations++
}

func (w *Writer) shift() error {
	path := w.cfg.Path
	if w.cfg.MaxFiles <= 1 {
		if err := unix.Ftruncate(w.fd, 0); err != nil {
			return fmt.Errorf("empty log %q: %w", path, err)
		}
		w.size = 0
		return nil
	}
	// The new file exists before anything is renamed, so that a full disk or table leaves
	// everything as it was.
	fresh := path + ".new"
	fd, err := unix.Open(
		fresh, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC,
		0o640,
	)
	if err != nil {
		return fmt.Errorf("rotate log: open %q: %w", fresh, err)
	}
	for i := w.cfg.MaxFiles - 1; i >= 1; i-- {
		from, to := path, path+"."+strconv.Itoa(i)
		if i > 1 {
			from += "." + strconv.Itoa(i-1)
		}
		if err := unix.Rename(from, to); err != nil && err != unix.ENOENT {
			unix.Close(fd)
			unix.Unlink(fresh)
			return fmt.Errorf("rotate log: rename %q to %q: %w", from, to, err)
		}
	}
	if err := unix.Rename(fresh, path); err != nil {
		unix.Close(fd)
		unix.Unlink(fresh)
		return fmt.Errorf("rotate log: rename %q to %q: %w", fresh, path, err)
	}
	w.install(fd)
	return nil
}
