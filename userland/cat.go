package userland

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"unicode/utf8"
)

// cat copies its inputs to standard output (cat(1p); -n and -E as GNU).
func cat(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options("unE", "number=n show-ends=E")
	if !ok {
		return status
	}
	if !o.has('n') && !o.has('E') {
		// No buffer of our own: what is typed appears at once, and files go by splice(2) where the
		// kernel can.
		return c.inputs(ctx, names, func(_ string, r io.Reader) error {
			_, err := io.Copy(c.Stdout, r)
			return err
		})
	}
	w, n := c.buffered(), 0
	status = c.inputs(ctx, names, func(_ string, r io.Reader) error {
		return lines(r, func(l []byte, had bool) error {
			if o.has('n') {
				n++
				num := strconv.Itoa(n)
				for range 6 - len(num) {
					w.WriteByte(' ')
				}
				w.WriteString(num)
				w.WriteByte('\t')
			}
			w.Write(l)
			if had && o.has('E') {
				w.WriteByte('$')
			}
			if had {
				return w.WriteByte('\n')
			}
			return nil
		})
	})
	return c.finish(w, status)
}

// tee copies standard input to standard output and to files (tee(1p)).
func tee(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options("ai", "append=a ignore-interrupts=i")
	if !ok {
		return status
	}
	if o.has('i') {
		return c.usagef("option %q is not supported: tee changes no signal dispositions", "-i")
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if o.has('a') {
		flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	}
	type sink struct {
		name string
		w    io.Writer
	}
	sinks := []sink{{"standard output", c.Stdout}}
	for _, n := range names {
		f, err := os.OpenFile(c.path(n), flags, 0o666)
		if err != nil {
			status = c.fault(n, err)
			continue
		}
		defer f.Close()
		sinks = append(sinks, sink{n, f})
	}
	buf := make([]byte, 32<<10)
	in := ctxReader{ctx, c.Stdin}
	for {
		n, err := in.Read(buf)
		for i := 0; i < len(sinks); i++ {
			if _, werr := sinks[i].w.Write(buf[:n]); werr != nil {
				status = c.fault(sinks[i].name, werr)
				sinks = append(sinks[:i], sinks[i+1:]...)
				i--
			}
		}
		switch {
		case err == io.EOF || len(sinks) == 0:
			return status
		case err != nil:
			return c.fault("standard input", err)
		}
	}
}

// wc counts lines, words, characters and bytes (wc(1p); -L as GNU).
func wc(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options("lwcmL", "lines=l words=w bytes=c chars=m max-line-length=L")
	if !ok {
		return status
	}
	show := func(k byte) bool { return o.has(k) }
	if len(o.seen) == 0 {
		show = func(k byte) bool { return k == 'l' || k == 'w' || k == 'c' }
	}
	const kinds = "lwmcL"
	columns := 0
	for i := range kinds {
		if show(kinds[i]) {
			columns++
		}
	}
	width := 7
	if len(names) <= 1 && columns == 1 {
		width = 0
	}
	w := c.buffered()
	print := func(n counts, name string) {
		for i, first := 0, true; i < len(kinds); i++ {
			if !show(kinds[i]) {
				continue
			}
			if !first {
				w.WriteByte(' ')
			}
			num := strconv.FormatInt(n[i], 10)
			for range width - len(num) {
				w.WriteByte(' ')
			}
			w.WriteString(num)
			first = false
		}
		if name != "-" || len(names) > 0 {
			w.WriteByte(' ')
			w.WriteString(name)
		}
		w.WriteByte('\n')
	}
	var total counts
	status = c.inputs(ctx, names, func(name string, r io.Reader) error {
		n, err := count(r)
		print(n, name)
		for i := range total {
			total[i] += n[i]
		}
		total[4] = max(total[4]-n[4], n[4])
		return err
	})
	if len(names) > 1 {
		print(total, "total")
	}
	return c.finish(w, status)
}

// counts are lines, words, characters, bytes and the longest line.
type counts [5]int64

func count(r io.Reader) (n counts, err error) {
	buf := make([]byte, 64<<10)
	inWord, column := false, int64(0)
	for {
		k, err := r.Read(buf)
		n[3] += int64(k)
		for _, b := range buf[:k] {
			if utf8.RuneStart(b) {
				n[2]++
			}
			switch b {
			case '\n':
				n[0]++
				n[4] = max(n[4], column)
				column, inWord = 0, false
			case '\t':
				column += 8 - column%8
				inWord = false
			case '\r', '\v', '\f', ' ':
				if b == ' ' {
					column++
				}
				inWord = false
			default:
				if utf8.RuneStart(b) {
					column++
				}
				if !inWord {
					n[1]++
					inWord = true
				}
			}
		}
		if err != nil {
			n[4] = max(n[4], column)
			if errors.Is(err, io.EOF) {
				return n, nil
			}
			return n, err
		}
	}
}
