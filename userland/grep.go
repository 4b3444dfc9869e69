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
		"extended-regexp=E fixed-strings=F basic-regexp=G regexp=e file=f ignore-case=i invert-match=v line-number=n count=c files-with-matches=l files-without-match=L quiet=q silent=q no-messages=s line-regexp=x word-regexp=w only-matching=o recursive=r with-filename=H no-filename=h max-count=m after-context=A before-context=B context=C text=a")
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
		case d.Type().IsRegular() || d.Type()&fs.ModeSymlink != 0 && (g.o.has('R') || shown == root):
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
	shown := name
	if name == "-" {
		shown = "(standard input)"
	}
	quiet := g.o.has('q') || g.o.has('l') || g.o.has('L') || g.o.has('c')
	br := bufio.NewReaderSize(in, 32<<10)
	start, _ := br.Peek(32 << 10)
	binary := bytes.IndexByte(start, 0) >= 0 && !g.o.has('a')
	var n, hits, tail, printed int64
	var past []string // the lines before, for -B
	prefix := func(sep byte, num int64) {
		if g.named {
			g.w.WriteString(shown)
			g.w.WriteByte(sep)
		}
		if g.o.has('n') {
			fmt.Fprintf(g.w, "%d%c", num, sep)
		}
	}
	contexts := g.before > 0 || g.after > 0
	if g.max == 0 {
		return nil
	}
	err := lines(br, func(l []byte, _ bool) error {
		n++
		m := g.match(l, 0)
		if (m != nil) == g.o.has('v') {
			switch {
			case tail > 0 && !quiet && !binary:
				prefix('-', n)
				g.w.Write(l)
				g.w.WriteByte('\n')
				printed = n
				tail--
			case g.before > 0:
				if int64(len(past)) == g.before {
					past = past[1:]
				}
				past = append(past, string(l))
			}
			if g.max >= 0 && hits >= g.max && tail == 0 {
				return errEnough
			}
			return nil
		}
		if g.max >= 0 && hits >= g.max {
			return errEnough
		}
		hits++
		g.found = g.found || !g.o.has('L')
		switch {
		case g.o.has('q') || g.o.has('l') || g.o.has('L'):
			return errEnough
		case g.o.has('c'):
		case binary:
			fmt.Fprintf(g.w, "%s: binary file matches\n", shown)
			return errEnough
		case g.o.has('o'):
			for ; m != nil && !g.o.has('v'); m = g.match(l, max(m[1], m[0]+1)) {
				if m[1] > m[0] {
					prefix(':', n)
					g.w.Write(l[m[0]:m[1]])
					g.w.WriteByte('\n')
				}
			}
		default:
			first := n - int64(len(past))
			if contexts && printed > 0 && first > printed+1 {
				g.w.WriteString("--\n")
			}
			for i, p := range past {
				prefix('-', first+int64(i))
				g.w.WriteString(p)
				g.w.WriteByte('\n')
			}
			past = past[:0]
			prefix(':', n)
			g.w.Write(l)
			if err := g.w.WriteByte('\n'); err != nil {
				return err
			}
			printed, tail = n, g.after
		}
		if g.max >= 0 && hits >= g.max && tail == 0 {
			return errEnough
		}
		return nil
	})
	if err == errEnough {
		err = nil
	}
	switch {
	case g.o.has('q'):
	case g.o.has('l') && hits > 0:
		fmt.Fprintln(g.w, shown)
	case g.o.has('L') && hits == 0:
		g.found = true
		fmt.Fprintln(g.w, shown)
	case g.o.has('c') && !g.o.has('l') && !g.o.has('L'):
		if g.named {
			fmt.Fprintf(g.w, "%s:", shown)
		}
		fmt.Fprintln(g.w, hits)
	}
	return err
}
