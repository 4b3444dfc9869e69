// Package terminal has what a command does with its terminal: the size, raw mode and the way back
// from it, and the keys that detach.
//
// Not for: colours or drawing.
//
// Tested with pseudo-terminals and tables.
package terminal

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// FD returns the descriptor of a terminal behind a stream, if there is one.
func FD(stream any) (int, bool) {
	f, ok := stream.(interface{ Fd() uintptr })
	if !ok {
		return 0, false
	}
	fd := int(f.Fd())
	return fd, term.IsTerminal(fd)
}

// Size returns the columns and rows of the terminal behind a stream; ok is false if there is none
// or it does not know.
func Size(stream any) (columns, rows int, ok bool) {
	fd, ok := FD(stream)
	if !ok {
		return 0, 0, false
	}
	ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 0, 0, false
	}
	return int(ws.Col), int(ws.Row), true
}

// MakeRaw puts the terminal behind a stream into raw mode (termios(3), cfmakeraw). The returned
// function undoes that; it may be called more than once and from any goroutine. It does nothing for
// streams that are no terminals.
func MakeRaw(stream any) (restore func(), err error) {
	fd, ok := FD(stream)
	if !ok {
		return func() {}, nil
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("put the terminal into raw mode: %w", err)
	}
	return sync.OnceFunc(func() { term.Restore(fd, old) }), nil
}

// ErrDetached is returned by a reader that has seen the keys.
var ErrDetached = errors.New("detached by its keys")

// DefaultDetachKeys is Docker's sequence.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ParseKeys reads a sequence of keys: single characters, and ctrl-X where X is a letter or one of @
// [ \ ] ^ _, separated by commas. The empty string is the default sequence.
func ParseKeys(s string) ([]byte, error) {
	if s == "" {
		s = DefaultDetachKeys
	}
	var keys []byte
	for k := range strings.SplitSeq(s, ",") {
		c, ctrl := strings.CutPrefix(k, "ctrl-")
		switch {
		case len(k) == 1:
			keys = append(keys, k[0])
		case ctrl && len(c) == 1 && c[0] >= 'a' && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case ctrl && len(c) == 1 && c[0] >= '@' && c[0] <= '_':
			keys = append(keys, c[0]-'@')
		default:
			return nil, fmt.Errorf(
				"invalid detach keys (%s): %q: want a character or ctrl-X, separated by commas", s,
				k,
			)
		}
	}
	return keys, nil
}

// DetachReader passes a stream on until it has seen the keys. Keys that turn out not to complete
// the sequence are passed on as well.
func DetachReader(r io.Reader, keys []byte) io.Reader { return &detachReader{r: r, keys: keys} }

type detachReader struct {
	r       io.Reader
	keys    []byte
	matched int    // keys seen and held back
	pending []byte // to be passed on
	err     error  // after pending
}

func (d *detachReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(d.pending) == 0 && d.err == nil {
		buf := make([]byte, max(len(p), 1))
		n, err := d.r.Read(buf)
		for _, c := range buf[:n] {
			if d.feed(c) {
				d.err = ErrDetached
				break
			}
		}
		if err != nil && d.err == nil {
			d.pending = append(d.pending, d.keys[:d.matched]...)
			d.matched, d.err = 0, err
		}
	}
	n := copy(p, d.pending)
	d.pending = d.pending[n:]
	if n == 0 {
		return 0, d.err
	}
	return n, nil
}

// feed takes one byte and says whether the sequence is complete. After a mismatch the longest end
// of what was seen that begins the sequence goes on being held back.
func (d *detachReader) feed(c byte) bool {
	seen := append(append([]byte(nil), d.keys[:d.matched]...), c)
	for drop := 0; drop <= len(seen); drop++ {
		if rest := seen[drop:]; len(rest) <= len(d.keys) &&
			string(rest) == string(d.keys[:len(rest)]) {
			d.pending = append(d.pending, seen[:drop]...)
			d.matched = len(rest)
			return d.matched == len(d.keys)
		}
	}
	return false
}
