package userland

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// sed edits a stream (sed(1p)) with the commands s y d D p P q = a i c n N g G h H x b t { },
// addressed by line number, $, /pattern/, ranges (with GNU's FIRST~STEP and +N) and !. Files (r, w)
// and case conversion are refused by name. Options -n, -e, -f, -E (or -r), -i[SUFFIX] and -s.
func sed(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"ne:f:Eri::sz",
		"quiet=n silent=n expression=e file=f regexp-extended=E in-place=i separate=s",
	)
	if !ok {
		return status
	}
	var script []string
	for _, s := range o.seen {
		switch s.name {
		case 'e':
			script = append(script, s.value)
		case 'f':
			r, err := c.open(s.value)
			if err != nil {
				return c.fault(s.value, err)
			}
			b, err := io.ReadAll(io.LimitReader(r, maxLine))
			r.Close()
			if err != nil {
				return c.fault(s.value, err)
			}
			script = append(script, strings.TrimSuffix(string(b), "\n"))
		case 'z':
			return c.usagef("unknown option %q", "-z")
		}
	}
	if script == nil {
		if len(names) == 0 {
			return c.usagef("no script given")
		}
		script, names = names[:1], names[1:]
	}
	p := &sedParser{src: strings.Join(script, "\n"), extended: o.has('E') || o.has('r')}
	prog, err := p.script()
	if err != nil {
		return c.errorf("%v", err)
	}
	w := c.buffered()
	ed := &sedRun{prog: prog, silent: o.has('n'), w: w}
	if !o.has('i') && !o.has('s') {
		var readers []io.Reader
		var closers []io.Closer
		if len(names) == 0 {
			names = []string{"-"}
		}
		for _, n := range names {
			r, err := c.open(n)
			if err != nil {
				status = c.fault(n, err)
				continue
			}
			readers, closers = append(readers, ctxReader{ctx, r}), append(closers, r)
		}
		err := ed.run(io.MultiReader(readers...))
		for _, r := range closers {
			r.Close()
		}
		if err != nil {
			status = c.fault("input", err)
		}
	} else {
		status = c.inputs(ctx, names, func(name string, r io.Reader) error {
			if !o.has('i') {
				return ed.run(r)
			}
			if name == "-" {
				return fmt.Errorf("standard input cannot be edited in place")
			}
			return c.sedInPlace(ed, name, o.value('i', ""), r)
		})
	}
	if status == exitOK {
		status = ed.status
	}
	return c.finish(w, status)
}

// sedInPlace writes the result beside the file and puts it in its place, so that a fault leaves the
// file as it was. With a suffix the old file stays under its name and that.
func (c *Call) sedInPlace(ed *sedRun, name, suffix string, r io.Reader) (err error) {
	path := c.path(name)
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".sed-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	one := &sedRun{prog: ed.prog, silent: ed.silent, w: bufio.NewWriter(f)}
	for i := range one.prog {
		one.prog[i].inRange = false
	}
	if err = one.run(r); err != nil {
		return err
	}
	if err = one.w.Flush(); err != nil {
		return err
	}
	if err = f.Chmod(st.Mode().Perm()); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if suffix != "" {
		if err = os.Rename(path, path+suffix); err != nil {
			return err
		}
	}
	return os.Rename(f.Name(), path)
}

// sedAddr is a line address.
type sedAddr struct {
	line int // 0: not by number
	step int // FIRST~STEP: every step lines from line on
	more int // +N, the second of two: so many lines after the first
	last bool
	re   *regexp.Regexp
}

func (a sedAddr) match(r *sedRun) bool {
	switch {
	case a.last:
		return r.isLast()
	case a.re != nil:
		return a.re.Match(r.pattern)
	case a.step > 0:
		return r.line >= a.line && (r.line-a.line)%a.step == 0
	}
	return a.line == r.line
}

// sedCommand is an instruction. Blocks are flat: a { that is not selected goes on after its }.
type sedCommand struct {
	addr   []sedAddr // none, one, or the two ends of a range
	not    bool
	verb   byte
	text   string // a, i, c; the label of b and t
	to     int    // {, b, t: the index of the instruction to go on with
	status int    // q
	re     *regexp.Regexp
	repl   []sedPart
	nth    int // s: the first match replaced, from 1
	global bool
	print  bool
	table  map[rune]rune // y

	inRange bool
	end     int // in a range that ends +N lines on: the line number
}

// sedPart is a piece of a replacement: text, or group n of the match when text is empty.
type sedPart struct {
	text  string
	group int
}

type sedRun struct {
	prog    []sedCommand
	silent  bool
	w       *bufio.Writer
	pattern []byte
	hold    []byte
	line    int
	after   []string
	quit    bool
	status  int
	changed bool // a substitution was made since the line was read or t asked

	in      lineReader
	newline bool // the current line had one
}

// lineReader reads lines one ahead, because $ asks whether there is another.
type lineReader struct {
	br   *bufio.Reader
	held []byte
	had  bool // the held line had a newline
	have bool
}

func (l *lineReader) fill() error {
	l.held, l.have = l.held[:0], false
	for {
		part, err := l.br.ReadSlice('\n')
		l.held = append(l.held, part...)
		if len(l.held) > maxLine {
			return fmt.Errorf("line longer than %d bytes", maxLine)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil && err != io.EOF {
			return err
		}
		if l.have = len(l.held) > 0; l.have {
			l.held, l.had = bytes.CutSuffix(l.held, []byte("\n"))
		}
		return nil
	}
}

func (r *sedRun) isLast() bool { return !r.in.have }

// read appends the next line to the pattern space. ok is false at the end.
func (r *sedRun) read() (ok bool, err error) {
	if !r.in.have {
		return false, nil
	}
	r.pattern, r.newline = append(r.pattern, r.in.held...), r.in.had
	r.line++
	return true, r.in.fill()
}

// flush ends a cycle or the part of one before n: what a command left to print, and what a put off.
func (r *sedRun) flush(printed bool) {
	if printed {
		writeLine(r.w, r.pattern, r.newline || len(r.after) > 0 || r.in.have)
	}
	for _, a := range r.after {
		r.w.WriteString(a + "\n")
	}
	r.after = nil
}

func (r *sedRun) run(in io.Reader) error {
	r.in = lineReader{br: bufio.NewReaderSize(in, 64<<10)}
	if err := r.in.fill(); err != nil {
		return err
	}
	again := false // D starts the next cycle without reading
	for !r.quit {
		if !again {
			r.pattern = r.pattern[:0]
			if ok, err := r.read(); !ok || err != nil {
				return err
			}
		}
		r.changed = false
		printed, restart, err := r.exec()
		if err != nil {
			return err
		}
		r.flush(printed && !r.silent)
		again = restart
	}
	return nil
}

func (k *sedCommand) selected(r *sedRun) bool {
	switch len(k.addr) {
	case 0:
		return true
	case 1:
		return k.addr[0].match(r)
	}
	end := k.addr[1]
	if end.more > 0 {
		end.line = k.end
	}
	if k.inRange {
		if end.line > 0 && r.line > end.line {
			k.inRange = false
			return k.addr[0].match(r)
		}
		if end.match(r) {
			k.inRange = false
		}
		return true
	}
	if !k.addr[0].match(r) {
		return false
	}
	if end.more > 0 {
		k.end = r.line + end.more
		end.line = k.end
	}
	// A range that ends at or before its first line is that one line.
	k.inRange = !(end.line > 0 && end.line <= r.line || end.last && r.isLast())
	return true
}

// exec runs the script on the pattern space. printed tells whether the cycle ends with printing it,
// restart whether the next cycle keeps it.
func (r *sedRun) exec() (printed, restart bool, err error) {
	for pc := 0; pc < len(r.prog); pc++ {
		k := &r.prog[pc]
		if k.selected(r) == k.not {
			if k.verb == '{' {
				pc = k.to - 1
			}
			continue
		}
		switch k.verb {
		case 'd':
			return false, false, nil
		case 'D':
			_, rest, more := bytes.Cut(r.pattern, []byte("\n"))
			if !more {
				return false, false, nil
			}
			r.pattern = append([]byte(nil), rest...)
			return false, true, nil
		case 'c':
			if len(k.addr) < 2 || !k.inRange || k.not {
				r.w.WriteString(k.text + "\n")
			}
			return false, false, nil
		case 'p':
			r.w.Write(r.pattern)
			r.w.WriteByte('\n')
		case 'P':
			first, _, _ := bytes.Cut(r.pattern, []byte("\n"))
			r.w.Write(first)
			r.w.WriteByte('\n')
		case '=':
			fmt.Fprintln(r.w, r.line)
		case 'i':
			r.w.WriteString(k.text + "\n")
		case 'a':
			r.after = append(r.after, k.text)
		case 'q':
			r.quit, r.status = true, k.status
			return true, false, nil
		case 'n', 'N':
			if !r.in.have {
				// As GNU: at the end of the input the pattern space is printed, and nothing else of
				// the script runs.
				r.quit = true
				return true, false, nil
			}
			if err := r.more(k.verb); err != nil {
				return false, false, err
			}
		case 'g', 'G', 'h', 'H', 'x':
			if err := r.exchange(k.verb); err != nil {
				return false, false, err
			}
		case 'b':
			pc = k.to - 1
		case 't':
			if r.changed {
				r.changed = false
				pc = k.to - 1
			}
		case 's':
			if r.substitute(k) {
				r.changed = true
				if k.print {
					r.w.Write(r.pattern)
					r.w.WriteByte('\n')
				}
			}
		case 'y':
			r.pattern = bytes.Map(func(c rune) rune {
				if to, ok := k.table[c]; ok {
					return to
				}
				return c
			}, r.pattern)
		}
	}
	return true, false, nil
}

// more reads the next line: into the pattern space, which is printed first ('n'), or behind what is
// there ('N').
func (r *sedRun) more(verb byte) error {
	if verb == 'n' {
		r.flush(!r.silent)
		r.pattern = r.pattern[:0]
	} else {
		r.flush(false)
		r.pattern = append(r.pattern, '\n')
	}
	if _, err := r.read(); err != nil {
		return err
	}
	if len(r.pattern) > maxLine {
		return fmt.Errorf("pattern space longer than %d bytes", maxLine)
	}
	return nil
}

// exchange copies between the pattern space and the hold space.
func (r *sedRun) exchange(verb byte) error {
	switch verb {
	case 'g':
		r.pattern = append(r.pattern[:0], r.hold...)
	case 'G':
		r.pattern = append(append(r.pattern, '\n'), r.hold...)
	case 'h':
		r.hold = append(r.hold[:0], r.pattern...)
	case 'H':
		if r.hold = append(append(r.hold, '\n'), r.pattern...); len(r.hold) > maxLine {
			return fmt.Errorf("hold space longer than %d bytes", maxLine)
		}
	case 'x':
		r.pattern, r.hold = r.hold, r.pattern
	}
	return nil
}

func (r *sedRun) substitute(k *sedCommand) bool {
	limit := -1
	if !k.global {
		limit = k.nth
	}
	all := k.re.FindAllSubmatchIndex(r.pattern, limit)
	if len(all) < k.nth {
		return false
	}
	var out []byte
	at := 0
	for _, m := range all[k.nth-1:] {
		out = append(out, r.pattern[at:m[0]]...)
		for _, p := range k.repl {
			switch {
			case p.text != "":
				out = append(out, p.text...)
			case m[2*p.group] >= 0:
				out = append(out, r.pattern[m[2*p.group]:m[2*p.group+1]]...)
			}
		}
		at = m[1]
	}
	r.pattern = append(out, r.pattern[at:]...)
	return true
}
