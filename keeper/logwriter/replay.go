package logwriter

import (
	"bytes"
	"math"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Mark is where a log was before a call of Write.
type Mark struct {
	// File is the inode of the file, and Size its size in bytes.
	File uint64
	Size int64
	// Pending is the length of the beginning of a line that was not in the file, in bytes.
	Pending int
}

// Mark returns where the log is, without asking the kernel.
func (w *Writer) Mark(s Stream) Mark { return Mark{w.file, w.size, len(w.pending[s])} }

// Replay repeats a Write of a Writer that was killed in it, after the log was opened again: records
// that are in the log already are not written again. at is the dead Writer's Mark before its Write,
// or nil if that had not begun. The beginning of a line that was Pending then is lost, unless it is
// in the log.
func (w *Writer) Replay(s Stream, data []byte, at *Mark, now time.Time) {
	if at != nil {
		if w.skip = w.since(at); w.skip > 0 && at.Pending < maxLine {
			w.pending[s] = make([]byte, at.Pending) // part of the first record that is skipped
		}
	}
	w.Write(s, data, now)
	w.skip = 0
}

// since counts the records that were written after a Mark, in the file that it names and in those
// that were begun since. If that cannot be found out it is 0: a line that comes twice is better
// than one that is missing.
func (w *Writer) since(at *Mark) int {
	n := 0
	for i := range max(w.cfg.MaxFiles, 1) {
		path := w.cfg.Path
		if i > 0 {
			path += "." + strconv.Itoa(i)
		}
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return 0
		}
		from, last, err := at.in(f)
		if err == nil && last && from < 0 {
			// It was emptied since, by a Writer that has one file only.
			if w.cfg.MaxBytes == 0 || w.cfg.MaxFiles > 1 {
				from = math.MaxInt64
			}
			from = max(from, 0)
		}
		if err == nil {
			n += countRecords(f, from)
		}
		f.Close()
		if last {
			return n
		}
	}
	return 0
}

// in says where in a file the records after the Mark begin: at 0 in one that is not the Mark's, and
// at -1 in one that is and that has become shorter. last is true for the Mark's file.
func (at *Mark) in(f *os.File) (from int64, last bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, false, err
	}
	switch {
	case st.Ino != at.File:
		return 0, false, nil
	case st.Size < at.Size:
		return -1, true, nil
	}
	return at.Size, true, nil
}

// countRecords counts the records of a file from an offset on, as far as it can be read.
func countRecords(f *os.File, from int64) int {
	n, buf := 0, make([]byte, batch)
	for {
		got, err := f.ReadAt(buf, from)
		n += bytes.Count(buf[:got], []byte{'\n'})
		from += int64(got)
		if err != nil {
			return n
		}
	}
}
