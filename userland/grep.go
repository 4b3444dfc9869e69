package userland

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// grep finds lines (grep(1p); -r, -o, -w, -m, -H, -h, -L and -A -B -C as GNU). Status 1 means no
// line was found, 2 a fault.
func grep(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options("EFGe:f:ivnclLqsxworRHhm:A:B:C:a",
		"extended-regexp=E fixed-strings=F basic-regexp=G regexp=e file=f ignore-case=i "+
			"invert-match=v line-number=n count=c files-with-matches=l files-without-match=L "+
			"quiet=q silent=q no-messages=s line-regexp=x word-regexp=w only-matching=o "+
			"recursive=r with-filename=H no-filename=h max-count=m after-context=A "+
			"before-context=B context=C text=a")
	if !ok {
		return status
	}
	g := &grepper{c: c, o: o, w: c.buffered(), max: -1}
	if c.Name == "egrep" {
		g.o.seen = append([]option{{name: 'E'}}, g.o.seen...)
	}
	if c.Name == "fgrep" {
		g.o.seen = append([]option{{name: 'F'}}, g.o.seen...)
	}
	names, err := g.prepare(names)
	if err != nil {
		return c.usagef("%v", err)
	}
	recursive := o.has('r') || o.has('R')
	if recursive && len(names) == 0 {
		names = []string{"."}
	}
	g.named = o.last("Hh") == 'H' || o.last("Hh") == 0 && (len(names) > 1 || recursive)
	if !recursive {
		g.files(ctx, names)
	} else {
		for _, n := range names {
			g.walk(ctx, n)
		}
	}
	status = exitFault
	if g.found {
		status = exitOK
	}
	if g.faults && !(g.found && o.has('q')) {
		status = exitUsage
	}
	return c.finish(g.w, status)
}

type grepper struct {
	c             *Call
	o             options
	w             *bufio.Writer
	re            *regexp.Regexp
	max           int64
	before, after int64
	named         bool
	found, faults bool
}

// prepare compiles the patterns and returns what is left of the operands.
func (g *grepper) prepare(names []string) ([]string, error) {
	var src []string
	given := false
	for _, s := range g.o.seen {
		switch s.name {
		case 'e':
			src, given = append(src, strings.Split(s.value, "\n")...), true
		case 'f':
			r, err := g.c.open(s.value)
			if err != nil {
				return nil, fmt.Errorf("%s: %s", s.value, reason(err))
			}
			err = lines(r, func(l []byte, _ bool) error {
				src = append(src, string(l))
				return nil
			})
			r.Close()
			if err != nil {
				return nil, err
			}
			given = true
		case 'm', 'A', 'B', 'C':
			n, err := parseCount(s.value)
			if err != nil {
				return nil, fmt.Errorf("option -%c: %w", s.name, err)
			}
			switch s.name {
			case 'm':
				g.max = n
			case 'A':
				g.after = n
			case 'B':
				g.before = n
			case 'C':
				g.before, g.after = n, n
			}
		}
	}
	if !given {
		if len(names) == 0 {
			return nil, errors.New("no pattern given")
		}
		src, names = strings.Split(names[0], "\n"), names[1:]
	}
	return names, g.compile(src)
}

func (g *grepper) compile(src []string) error {
	var parts []string
	for _, s := range src {
		t := regexp.QuoteMeta(s)
		if k := g.o.last("EFG"); k != 'F' {
			var err error
			if t, err = translate(s, k == 'E'); err != nil {
				return fmt.Errorf("pattern %q: %w", s, err)
			}
			// Each on its own first, so that the message shows what was typed.
			if _, err := regexp.Compile(t); err != nil {
				return fmt.Errorf(
					"pattern %q: %s", s, strings.TrimPrefix(err.Error(), "error parsing regexp: "),
				)
			}
		}
		parts = append(parts, "(?:"+t+")")
	}
	all := strings.Join(parts, "|")
	switch {
	case len(parts) == 0:
		all = `[^\x00-\x{10FFFF}]` // an empty pattern file matches nothing
	case g.o.has('x'):
		all = "^(?:" + all + ")$"
	}
	if g.o.has('i') {
		all = "(?i:" + all + ")"
	}
	re, err := regexp.Compile(all)
	if err != nil {
		return err
	}
	re.Longest()
	g.re = re
	return nil
}

func (g *grepper) files(ctx context.Context, names []string) {
	if len(names) == 0 {
		names = []string{"-"}
	}
	for _, n := range names {
		if g.done() || ctx.Err() != nil {
			return
		}
		g.file(ctx, n)
	}
}

func (g *grepper) done() bool { return g.found && g.o.has('q') }

func (g *grepper) walk(ctx context.Context, root string) {
	if root == "-" {
		g.file(ctx, root)
		return
	}
	err := filepath.WalkDir(g.c.path(root), func(p string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil || g.done() {
			return fs.SkipAll
		}
		shown := root + strings.TrimPrefix(p, g.c.path(root))
		switch {
		case err != nil:
			g.fault(shown, err)
		case d.Type().IsRegular() ||
			d.Type()&fs.ModeSymlink != 0 && (g.o.has('R') || shown == root):
			if st, err := os.Stat(p); err == nil && st.IsDir() {
				return nil // links to directories are not descended into
			}
			g.file(ctx, shown)
		}
		return nil
	})
	if err != nil {
		g.fault(root, err)
	}
}

func (g *grepper) fault(name string, err error) {
	g.faults = true
	if !g.o.has('s') {
		g.c.fault(name, err)
	}
}

func (g *grepper) file(ctx context.Context, name string) {
	r, err := g.c.open(name)
	if err != nil {
		g.fault(name, err)
		return
	}
	defer r.Close()
	if err := g.search(name, ctxReader{ctx, r}); err != nil {
		g.fault(name, err)
	}
}

// match finds the first match in l that begins at or after from; nil for none.
func (g *grepper) match(l []byte, from int) []int {
	if from == 0 && !g.o.has('w') {
		return g.re.FindIndex(l)
	}
	// All of them and then a choice, not a search in l[from:], which would let ^ match in the
	// middle.
	for _, m := range g.re.FindAllIndex(l, -1) {
		if m[0] < from {
			continue
		}
		if !g.o.has('w') || m[1] > m[0] && (m[0] == 0 || !wordByte(l[m[0]-1])) &&
			(m[1] == len(l) || !wordByte(l[m[1]])) {
			return m
		}
	}
	return nil
}

func wordByte(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' ||
		b >= 0x80
}

func (g *grepper) search(name string, in io.Reader) error {
	if g.max == 0 {
		return nil
	}
	s := grepSearch{grepper: g, shown: name}
	if name == "-" {
		s.shown = "(standard input)"
	}
	s.quiet = g.o.has('q') || g.o.has('l') || g.o.has('L') || g.o.has('c')
	br := bufio.NewReaderSize(in, 32<<10)
	start, _ := br.Peek(32 << 10)
	s.binary = bytes.IndexByte(start, 0) >= 0 && !g.o.has('a')
	err := lines(br, s.line)
	if err == errEnough {
		err = nil
	}
	switch {
	case g.o.has('q'):
	case g.o.has('l') && s.hits > 0:
		fmt.Fprintln(g.w, s.shown)
	case g.o.has('L') && s.hits == 0:
		g.found = true
		fmt.Fprintln(g.w, s.shown)
	case g.o.has('c') && !g.o.has('l') && !g.o.has('L'):
		if g.named {
			fmt.Fprintf(g.w, "%s:", s.shown)
		}
		fmt.Fprintln(g.w, s.hits)
	}
	return err
}

// grepSearch is the search of one file.
type grepSearch struct {
	*grepper
	shown         string // the file's name as it is printed
	quiet, binary bool
	n, hits       int64    // lines read and selected
	printed, tail int64    // the line that was printed last, and how many more follow for -A
	past          []string // the lines before this one, for -B
}

// line looks at one line. It returns errEnough if the rest of the file cannot change the result.
func (s *grepSearch) line(l []byte, _ bool) error {
	s.n++
	m := s.match(l, 0)
	if (m != nil) == s.o.has('v') {
		s.context(l)
		return s.enough()
	}
	if s.max >= 0 && s.hits >= s.max {
		return errEnough
	}
	s.hits++
	s.found = s.found || !s.o.has('L')
	switch {
	case s.o.has('q') || s.o.has('l') || s.o.has('L'):
		return errEnough
	case s.o.has('c'):
	case s.binary:
		fmt.Fprintf(s.w, "%s: binary file matches\n", s.shown)
		return errEnough
	case s.o.has('o'):
		for ; m != nil && !s.o.has('v'); m = s.match(l, max(m[1], m[0]+1)) {
			if m[1] > m[0] {
				s.print(':', s.n, l[m[0]:m[1]])
			}
		}
	default:
		if err := s.selected(l); err != nil {
			return err
		}
	}
	return s.enough()
}

// enough returns errEnough after the last line of -m and the context that follows it.
func (s *grepSearch) enough() error {
	if s.max >= 0 && s.hits >= s.max && s.tail == 0 {
		return errEnough
	}
	return nil
}

// context prints a line that follows a selected one, or keeps it for one that comes.
func (s *grepSearch) context(l []byte) {
	switch {
	case s.tail > 0 && !s.quiet && !s.binary:
		s.print('-', s.n, l)
		s.printed = s.n
		s.tail--
	case s.before > 0:
		if int64(len(s.past)) == s.before {
			s.past = s.past[1:]
		}
		s.past = append(s.past, string(l))
	}
}

// selected prints a line with those before it.
func (s *grepSearch) selected(l []byte) error {
	first := s.n - int64(len(s.past))
	if (s.before > 0 || s.after > 0) && s.printed > 0 && first > s.printed+1 {
		s.w.WriteString("--\n")
	}
	for i, p := range s.past {
		s.print('-', first+int64(i), []byte(p))
	}
	s.past = s.past[:0]
	s.printed, s.tail = s.n, s.after
	return s.print(':', s.n, l)
}

func (s *grepSearch) print(sep byte, number int64, l []byte) error {
	if s.named {
		s.w.WriteString(s.shown)
		s.w.WriteByte(sep)
	}
	if s.o.has('n') {
		fmt.Fprintf(s.w, "%d%c", number, sep)
	}
	s.w.Write(l)
	return s.w.WriteByte('\n')
}
