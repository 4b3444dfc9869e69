// Package logfile reads the logs that the keeper writes (package logwriter): Docker's json-file
// format or the one of Kubernetes' container runtime interface, one record per line, the current
// file at a path and its predecessors at path.1 (the youngest), path.2 and so on. The format is
// seen from the first byte of each record: a JSON object begins with a brace.
//
// Promises: lines come in the order in which they were written, none twice; following survives
// rotation and truncation (as long as the reader is not slower than a whole set of files); a line
// that is being written is not delivered until it is whole; damaged lines are skipped. Memory is
// bounded by the longest line (MaxLine), not by the log.
//
// Not for: writing, rotating or compressing.
//
// Following is woken by inotify(7), never by a clock. Tested with files that the tests write and
// rotate themselves, and by fuzzing against what package logwriter writes.
package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"time"
)

// MaxLine is the longest line of a log file that is delivered, in bytes of its record. The keeper
// writes at most 16 KiB of text per record.
const MaxLine = 1 << 20

// maxFiles bounds how many predecessors are looked for.
const maxFiles = 1000

// Line is one entry.
type Line struct {
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
	// Text has its newline, if one was written. In a CRI log every line that is not a piece of a
	// longer one has.
	Text string `json:"log"`
	// Attributes are what a json-file log has beside the line.
	Attributes map[string]string `json:"attrs"`
}

// Options select lines.
type Options struct {
	Stdout, Stderr bool
	// Since and Until bound the times, both inclusive; zero: no bound. Reading ends at the first
	// line after Until.
	Since, Until time.Time
	// Tail is how many of the newest lines (of the streams asked for) to begin with; negative: all.
	Tail int
	// Follow goes on with what is written until Done is closed and everything written by then is
	// delivered.
	Follow bool
	Done   <-chan struct{}
	// End, if not nil, is where reading stops; Follow must not be set.
	End *End
}

// End is a place in a log: an offset in bytes in one of its files, whatever that is called by now.
type End struct {
	File   os.FileInfo
	Offset int64
}

func (o *Options) wants(l *Line) bool {
	return (l.Stream == "stdout" && o.Stdout || l.Stream == "stderr" && o.Stderr) &&
		(o.Since.IsZero() || !l.Time.Before(o.Since))
}

// errUntil ends a reading in order.
var errUntil = errors.New("until")

// Read calls emit for every selected line. A log that does not exist is empty. It returns emit's
// error, that of ctx, or one of the files'.
func Read(ctx context.Context, path string, o Options, emit func(Line) error) error {
	r := &reader{path: path, o: &o, emit: emit}
	defer r.close()
	if o.Follow {
		if err := r.watch(); err != nil {
			return err
		}
	}
	err := r.read(ctx)
	if errors.Is(err, errUntil) {
		return nil
	}
	return err
}

type reader struct {
	path  string
	o     *Options
	emit  func(Line) error
	files []*os.File // oldest first; the last one is where following goes on
	buf   *bufio.Reader
	off   int64 // how much of the current file is delivered
	limit int64 // where reading of the last file stops
	// last is the end of what was delivered last: if it is not in its place any more, the file was
	// emptied and has grown again.
	last []byte
	watcher
}

func (r *reader) close() {
	for _, f := range r.files {
		f.Close()
	}
	r.watcher.close()
}

func (r *reader) read(ctx context.Context) error {
	if err := r.open(); err != nil {
		return err
	}
	if err := r.cutAtEnd(); err != nil {
		return err
	}
	start, err := r.tailStart()
	if err != nil {
		return err
	}
	for len(r.files) > 0 {
		r.off = start
		if err := r.drain(ctx); err != nil {
			return err
		}
		if len(r.files) == 1 {
			break
		}
		r.files[0].Close()
		r.files, start = r.files[1:], 0
	}
	if !r.o.Follow {
		return nil
	}
	return r.follow(ctx)
}

// open opens all files, oldest first. A rotation meanwhile is noticed by the current file's change
// and everything is opened anew.
func (r *reader) open() error {
	for range 10 {
		var list []*os.File
		for i := range maxFiles {
			f, err := os.Open(r.name(i))
			if errors.Is(err, fs.ErrNotExist) {
				if i == 0 {
					continue // between the rename and the creation of the next
				}
				break
			}
			if err != nil {
				closeAll(list)
				return fmt.Errorf("read log: %w", err)
			}
			list = append([]*os.File{f}, list...)
		}
		if len(list) == 0 {
			return nil
		}
		now, err := os.Stat(r.path)
		newest, serr := list[len(list)-1].Stat()
		if serr == nil && (err != nil || os.SameFile(now, newest)) {
			r.files = list
			return nil
		}
		closeAll(list)
	}
	return fmt.Errorf("read log %q: it is rotated faster than it can be opened", r.path)
}

// cutAtEnd forgets the files behind Options.End and finds out where to stop in the last one.
func (r *reader) cutAtEnd() error {
	r.limit = math.MaxInt64
	if r.o.End == nil {
		return nil
	}
	for i, f := range r.files {
		st, err := f.Stat()
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if os.SameFile(st, r.o.End.File) {
			closeAll(r.files[i+1:])
			r.files, r.limit = r.files[:i+1], r.o.End.Offset
			return nil
		}
	}
	closeAll(r.files) // the file has been rotated away: what is left is newer
	r.files = nil
	return nil
}

func closeAll(list []*os.File) {
	for _, f := range list {
		f.Close()
	}
}

func (r *reader) name(i int) string {
	if i == 0 {
		return r.path
	}
	return fmt.Sprintf("%s.%d", r.path, i)
}

// tailStart drops the files that Tail excludes and returns where in the first of the others to
// begin.
func (r *reader) tailStart() (int64, error) {
	if r.o.Tail < 0 || len(r.files) == 0 {
		return 0, nil
	}
	left := r.o.Tail
	for i := len(r.files) - 1; i >= 0; i-- {
		at, found, err := r.back(r.files[i], left)
		if err != nil {
			return 0, fmt.Errorf("read log: %w", err)
		}
		if left -= found; left == 0 {
			closeAll(r.files[:i])
			r.files = r.files[i:]
			return at, nil
		}
	}
	return 0, nil
}

// back finds the beginning of the n-th wanted line from the end of a file. What follows the last
// newline does not count.
func (r *reader) back(f *os.File, n int) (at int64, found int, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	pos := st.Size()
	if f == r.files[len(r.files)-1] {
		pos = min(pos, r.limit)
	}
	// what begins at pos and ends with the newline of the line that is looked at next
	var buf []byte
	more := func() error {
		chunk := make([]byte, min(pos, 64<<10), int(min(pos, 64<<10))+len(buf))
		if _, err := f.ReadAt(chunk, pos-int64(len(chunk))); err != nil {
			return err
		}
		pos -= int64(len(chunk))
		buf = append(chunk, buf...)
		return nil
	}
	for bytes.LastIndexByte(buf, '\n') < 0 {
		if pos == 0 {
			return 0, 0, nil
		}
		buf = nil
		if err := more(); err != nil {
			return 0, 0, err
		}
	}
	buf = buf[:bytes.LastIndexByte(buf, '\n')+1]
	if n == 0 {
		return pos + int64(len(buf)), 0, nil
	}
	for len(buf) > 0 {
		i := bytes.LastIndexByte(buf[:len(buf)-1], '\n')
		if i < 0 && pos > 0 {
			if len(buf) > MaxLine {
				// a damaged file: the rest of this line will not be readable, and is not
				buf = buf[len(buf)-1:]
			}
			if err := more(); err != nil {
				return 0, 0, err
			}
			continue
		}
		if l, ok := parse(buf[i+1:]); ok && r.o.wants(&l) {
			if found++; found == n {
				return pos + int64(i) + 1, found, nil
			}
		}
		buf = buf[:i+1]
	}
	return 0, found, nil
}

// drain delivers the current file's complete lines from off on.
func (r *reader) drain(ctx context.Context) error {
	limit := int64(math.MaxInt64)
	if len(r.files) == 1 {
		limit = r.limit
	}
	f := io.NewSectionReader(r.files[0], r.off, max(0, limit-r.off))
	if r.buf == nil {
		r.buf = bufio.NewReaderSize(f, 64<<10)
	} else {
		r.buf.Reset(f)
	}
	var long []byte
	for n := 0; ; n++ {
		if n%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line, err := r.buf.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if len(long) <= MaxLine {
				long = append(long, line...)
			}
			r.off += int64(len(line))
			continue
		}
		if errors.Is(err, io.EOF) {
			r.off -= int64(len(long)) // an unfinished line is read again when it is whole
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		r.off += int64(len(line))
		if len(long) > 0 {
			line, long = append(long, line...), nil
		}
		if r.o.Follow {
			r.last = append(r.last[:0], line[max(0, len(line)-128):]...)
		}
		if err := r.deliver(line); err != nil {
			return err
		}
	}
}

func (r *reader) deliver(raw []byte) error {
	l, ok := parse(raw)
	if !ok || !r.o.wants(&l) {
		return nil
	}
	if !r.o.Until.IsZero() && l.Time.After(r.o.Until) {
		return errUntil
	}
	return r.emit(l)
}

// follow waits for more until Done.
func (r *reader) follow(ctx context.Context) error {
	for {
		last := false
		select {
		case <-r.o.Done:
			last = true
		default:
		}
		if err := r.advance(ctx); err != nil {
			return err
		}
		if last {
			return nil
		}
		if err := r.wait(ctx, r.o.Done, r.o.Until); err != nil {
			return err
		}
	}
}

// advance delivers what is new in the current file and in those that have followed it.
func (r *reader) advance(ctx context.Context) error {
	for {
		if len(r.files) == 0 {
			if err := r.open(); err != nil || len(r.files) == 0 {
				return err
			}
			r.off = 0
			for len(r.files) > 1 {
				if err := r.drain(ctx); err != nil {
					return err
				}
				r.files[0].Close()
				r.files, r.off = r.files[1:], 0
			}
			r.last = r.last[:0]
		}
		// Which file comes next is asked before the last look into this one: whatever it got was
		// written before it was renamed.
		next := r.successor()
		if emptied, err := r.emptied(); err != nil {
			return fmt.Errorf("read log: %w", err)
		} else if emptied {
			r.off = 0
		}
		if err := r.drain(ctx); err != nil {
			if next != nil {
				next.Close()
			}
			return err
		}
		if next == nil {
			return nil
		}
		r.files[0].Close()
		r.files[0], r.off, r.last = next, 0, r.last[:0]
	}
}

// emptied says whether the current file was truncated since it was read last. Lines have times, so
// no two are the same.
func (r *reader) emptied() (bool, error) {
	st, err := r.files[0].Stat()
	if err != nil || st.Size() < r.off {
		return err == nil, err
	}
	if int64(len(r.last)) > r.off {
		return false, nil // nothing of this file was read yet
	}
	now := make([]byte, len(r.last))
	n, err := r.files[0].ReadAt(now, r.off-int64(len(now)))
	if errors.Is(err, io.EOF) {
		return n < len(now), nil
	}
	return !bytes.Equal(now, r.last), err
}

// successor opens the file that was begun after the current one; nil if there is none yet.
func (r *reader) successor() *os.File {
	here, err := r.files[0].Stat()
	if err != nil {
		return nil
	}
	var younger *os.File
	for i := range maxFiles {
		f, err := os.Open(r.name(i))
		if err != nil {
			if i == 0 {
				continue
			}
			// The current file has been rotated away: go on with the oldest that is left.
			return younger
		}
		st, err := f.Stat()
		if err == nil && os.SameFile(st, here) {
			f.Close()
			return younger
		}
		if younger != nil {
			younger.Close()
		}
		younger = f
	}
	return younger
}
