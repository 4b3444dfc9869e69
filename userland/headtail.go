package userland

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// obsolete turns the historic "-5" into "-n 5", as head and tail have always accepted it.
func (c *Call) obsolete() {
	if len(c.Args) == 0 {
		return
	}
	a := c.Args[0]
	if len(a) < 2 || a[0] != '-' || strings.Trim(a[1:], "0123456789") != "" {
		return
	}
	c.Args = append([]string{"-n", a[1:]}, c.Args[1:]...)
}

// amount is how much head or tail shows.
type amount struct {
	n     int64
	bytes bool
	// fromStart is tail's "+n"; butLast is head's "-n".
	fromStart, butLast bool
}

func parseAmount(o options) (amount, error) {
	a := amount{n: 10}
	k := o.last("nc")
	if k == 0 {
		return a, nil
	}
	a.bytes = k == 'c'
	v := o.value(k, "")
	s := v
	switch {
	case strings.HasPrefix(s, "+"):
		a.fromStart, s = true, s[1:]
	case strings.HasPrefix(s, "-"):
		a.butLast, s = true, s[1:]
	}
	n, err := parseSize(s)
	if err != nil {
		return a, fmt.Errorf("option -%c: %w", k, err)
	}
	a.n = n
	return a, nil
}

var errEnough = errors.New("enough")

// header writes the file names between several inputs.
func header(w *bufio.Writer, o options, names []string) func(name string) {
	first := true
	on := (len(names) > 1 || o.has('v')) && o.last("qv") != 'q'
	return func(name string) {
		if !on {
			return
		}
		if !first {
			w.WriteByte('\n')
		}
		first = false
		if name == "-" {
			name = "standard input"
		}
		fmt.Fprintf(w, "==> %s <==\n", name)
	}
}

// head shows the first lines or bytes (head(1p); -c and negative counts as GNU).
func head(ctx context.Context, c *Call) int {
	c.obsolete()
	o, names, status, ok := c.options("n:c:qv", "lines=n bytes=c quiet=q silent=q verbose=v")
	if !ok {
		return status
	}
	a, err := parseAmount(o)
	if err != nil {
		return c.usagef("%v", err)
	}
	w := c.buffered()
	title := header(w, o, names)
	status = c.inputs(ctx, names, func(name string, r io.Reader) error {
		title(name)
		switch {
		case a.bytes && a.butLast:
			return allBut(w, r, a.n)
		case a.bytes:
			_, err := io.CopyN(w, r, a.n)
			return eofIsFine(err)
		case a.butLast:
			return linesBut(w, r, a.n)
		}
		if a.n == 0 {
			return nil
		}
		n := int64(0)
		err := lines(r, func(l []byte, had bool) error {
			writeLine(w, l, had)
			if n++; n >= a.n {
				return errEnough
			}
			return nil
		})
		if err == errEnough {
			err = nil
		}
		return err
	})
	return c.finish(w, status)
}

func writeLine(w *bufio.Writer, l []byte, had bool) {
	w.Write(l)
	if had {
		w.WriteByte('\n')
	}
}

func eofIsFine(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// allBut copies all but the last n bytes.
func allBut(w io.Writer, r io.Reader, n int64) error {
	if n > maxLine {
		return fmt.Errorf("at most %d bytes can be held back", maxLine)
	}
	var held []byte
	buf := make([]byte, 32<<10)
	for {
		k, err := r.Read(buf)
		held = append(held, buf[:k]...)
		if over := len(held) - int(n); over > 0 {
			if _, werr := w.Write(held[:over]); werr != nil {
				return werr
			}
			held = held[:copy(held, held[over:])]
		}
		if err != nil {
			return eofIsFine(err)
		}
	}
}

// linesBut copies all but the last n lines.
func linesBut(w *bufio.Writer, r io.Reader, n int64) error {
	var held [][]byte
	return lines(r, func(l []byte, had bool) error {
		line := append([]byte(nil), l...)
		if had {
			line = append(line, '\n')
		}
		held = append(held, line)
		if int64(len(held)) > n {
			w.Write(held[0])
			held = held[1:]
		}
		return nil
	})
}

// tail shows the last lines or bytes, or everything from one on (tail(1p)); -f follows one file by
// its descriptor, -F by its name.
func tail(ctx context.Context, c *Call) int {
	c.obsolete()
	o, names, status, ok := c.options(
		"n:c:fFqvs:", "lines=n bytes=c follow=f quiet=q silent=q verbose=v sleep-interval=s",
	)
	if !ok {
		return status
	}
	a, err := parseAmount(o)
	if err != nil {
		return c.usagef("%v", err)
	}
	pause, err := parseSeconds(o.value('s', "1"))
	if err != nil {
		return c.usagef("option -s: %v", err)
	}
	follow := o.last("fF")
	if follow != 0 && len(names) > 1 {
		return c.usagef("option -%c follows one file, %d were given", follow, len(names))
	}
	w := c.buffered()
	title := header(w, o, names)
	var f *os.File
	status = c.inputs(ctx, names, func(name string, r io.Reader) error {
		title(name)
		if err := last(w, r, a); err != nil {
			return err
		}
		if follow == 0 || name == "-" {
			return nil
		}
		// The reader closes with this call; following goes on with a descriptor of its own at the
		// same place.
		off, err := r.(ctxReader).r.(*os.File).Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if f, err = os.Open(c.path(name)); err != nil {
			return err
		}
		_, err = f.Seek(off, io.SeekStart)
		return err
	})
	if status = c.finish(w, status); f == nil || status != exitOK {
		return status
	}
	return c.follow(ctx, f, names[0], follow == 'F', max(pause, 10*time.Millisecond))
}

func last(w *bufio.Writer, r io.Reader, a amount) error {
	if a.fromStart {
		skip := max(a.n-1, 0)
		if a.bytes {
			if _, err := io.CopyN(io.Discard, r, skip); err != nil {
				return eofIsFine(err)
			}
			_, err := io.Copy(w, r)
			return err
		}
		n := int64(0)
		return lines(r, func(l []byte, had bool) error {
			if n++; n > skip {
				writeLine(w, l, had)
			}
			return nil
		})
	}
	if a.bytes {
		if a.n > maxLine {
			return fmt.Errorf("at most %d bytes can be held", maxLine)
		}
		held, err := lastBytes(r, int(a.n))
		w.Write(held)
		return err
	}
	var ring [][]byte
	next := 0
	err := lines(r, func(l []byte, had bool) error {
		if a.n == 0 {
			return nil
		}
		if int64(len(ring)) < a.n {
			ring = append(ring, nil)
			next = len(ring) - 1
		}
		ring[next] = append(ring[next][:0], l...)
		if had {
			ring[next] = append(ring[next], '\n')
		}
		next = (next + 1) % int(a.n)
		return nil
	})
	if int64(len(ring)) < a.n {
		next = 0
	}
	for i := range ring {
		w.Write(ring[(next+i)%len(ring)])
	}
	return err
}

func lastBytes(r io.Reader, n int) ([]byte, error) {
	var held []byte
	buf := make([]byte, 32<<10)
	for {
		k, err := r.Read(buf)
		held = append(held, buf[:k]...)
		if over := len(held) - n; over > 0 {
			held = held[:copy(held, held[over:])]
		}
		if err != nil {
			return held, eofIsFine(err)
		}
	}
}

// follow shows what is appended to f until ctx ends. A file that shrank is shown from its start;
// byName reopens one that was replaced.
func (c *Call) follow(
	ctx context.Context, f *os.File, name string, byName bool, pause time.Duration,
) int {
	defer func() { f.Close() }()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		n, err := io.Copy(c.Stdout, f)
		if err != nil {
			return c.fault(name, err)
		}
		if n == 0 {
			st, err := f.Stat()
			if err != nil {
				return c.fault(name, err)
			}
			if off, err := f.Seek(0, io.SeekCurrent); err == nil && st.Mode().IsRegular() &&
				st.Size() < off {
				c.errorf("%s: file truncated", name)
				if _, err := f.Seek(0, io.SeekStart); err != nil {
					return c.fault(name, err)
				}
				continue
			}
			if byName {
				if now, err := os.Stat(c.path(name)); err == nil && !os.SameFile(st, now) {
					if g, err := os.Open(c.path(name)); err == nil {
						c.errorf("%s: file replaced", name)
						f.Close()
						f = g
						continue
					}
				}
			}
		}
		select {
		case <-ctx.Done():
			return exitOK
		case <-tick.C:
		}
	}
}
