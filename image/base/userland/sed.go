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
	"strconv"
	"strings"
	"unicode/utf8"
)

// sed edits a stream (sed(1p)) with the commands s, y, d, p, q, =, a, i, c and {}, addressed by line number, $, /pattern/, ranges and !. The
// hold space, branches and files (g G h H x n N D P b t r w) are refused by name. Options -n, -e, -f, -E (or -r), -i (without suffix) and -s.
func sed(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options("ne:f:Erisz", "quiet=n silent=n expression=e file=f regexp-extended=E in-place=i separate=s")
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
	prog, err := p.program(false)
	if err != nil {
		return c.usagef("%v", err)
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
			return c.sedInPlace(ed, name, r)
		})
	}
	if status == exitOK {
		status = ed.status
	}
	return c.finish(w, status)
}

// sedInPlace writes the result beside the file and puts it in its place, so that a fault leaves the file as it was.
func (c *Call) sedInPlace(ed *sedRun, name string, r io.Reader) (err error) {
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
		one.prog[i].reset()
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
	return os.Rename(f.Name(), path)
}

// sedAddr is a line address.
type sedAddr struct {
	line int // 0: not by number
	last bool
	re   *regexp.Regexp
}

func (a sedAddr) match(r *sedRun) bool {
	switch {
	case a.last:
		return r.isLast
	case a.re != nil:
		return a.re.Match(r.pattern)
	}
	return a.line == r.line
}

type sedCommand struct {
	addr   []sedAddr // none, one, or the two ends of a range
	not    bool
	verb   byte
	text   string // a, i, c
	status int    // q
	re     *regexp.Regexp
	repl   []sedPart
	nth    int // s: the first match replaced, from 1
	global bool
	print  bool
	table  map[rune]rune // y
	block  []sedCommand

	inRange bool
}

func (k *sedCommand) reset() {
	k.inRange = false
	for i := range k.block {
		k.block[i].reset()
	}
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
	line    int
	isLast  bool
	after   []string
	quit    bool
	deleted bool
	status  int
}

func (r *sedRun) run(in io.Reader) error {
	if r.quit {
		return nil
	}
	// One line is read ahead, because $ asks whether there is another.
	var held []byte
	have, heldNewline := false, false
	step := func(last bool) error {
		r.line++
		r.isLast = last
		r.pattern = append(r.pattern[:0], held...)
		r.deleted, r.after = false, nil
		r.exec(r.prog)
		if !r.silent && !r.deleted {
			writeLine(r.w, r.pattern, heldNewline || r.after != nil)
		}
		for _, a := range r.after {
			r.w.WriteString(a + "\n")
		}
		if r.quit {
			return errEnough
		}
		return nil
	}
	err := lines(in, func(l []byte, had bool) error {
		if have {
			if err := step(false); err != nil {
				return err
			}
		}
		held, have, heldNewline = append(held[:0], l...), true, had
		return nil
	})
	if err == nil && have {
		err = step(true)
	}
	if err == errEnough {
		err = nil
	}
	return err
}

func (k *sedCommand) selected(r *sedRun) bool {
	switch len(k.addr) {
	case 0:
		return true
	case 1:
		return k.addr[0].match(r)
	}
	if k.inRange {
		end := k.addr[1]
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
	// A range that ends at or before its first line is that one line.
	end := k.addr[1]
	k.inRange = !(end.line > 0 && end.line <= r.line || end.last && r.isLast)
	return true
}

func (r *sedRun) exec(prog []sedCommand) {
	for i := range prog {
		k := &prog[i]
		if k.selected(r) == k.not {
			continue
		}
		switch k.verb {
		case '{':
			r.exec(k.block)
		case 'd':
			r.deleted = true
		case 'c':
			r.deleted = true
			if len(k.addr) < 2 || !k.inRange || k.not {
				r.w.WriteString(k.text + "\n")
			}
		case 'p':
			r.w.Write(r.pattern)
			r.w.WriteByte('\n')
		case '=':
			fmt.Fprintln(r.w, r.line)
		case 'i':
			r.w.WriteString(k.text + "\n")
		case 'a':
			r.after = append(r.after, k.text)
		case 'q':
			r.quit, r.status = true, k.status
		case 's':
			if r.substitute(k) && k.print {
				r.w.Write(r.pattern)
				r.w.WriteByte('\n')
			}
		case 'y':
			r.pattern = bytes.Map(func(c rune) rune {
				if to, ok := k.table[c]; ok {
					return to
				}
				return c
			}, r.pattern)
		}
		if r.deleted || r.quit {
			return
		}
	}
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

// sedParser reads a script.
type sedParser struct {
	src      string
	at       int
	extended bool
	lastRE   *regexp.Regexp
}

func (p *sedParser) peek() byte {
	if p.at < len(p.src) {
		return p.src[p.at]
	}
	return 0
}

func (p *sedParser) skip(set string) {
	for p.at < len(p.src) && strings.IndexByte(set, p.src[p.at]) >= 0 {
		p.at++
	}
}

func (p *sedParser) faultf(format string, args ...any) error {
	return fmt.Errorf("script, character %d: %s", p.at+1, fmt.Sprintf(format, args...))
}

func (p *sedParser) program(inBlock bool) ([]sedCommand, error) {
	var out []sedCommand
	for {
		p.skip(" \t\n;")
		switch ch := p.peek(); {
		case ch == 0 && inBlock:
			return nil, p.faultf("a { is not closed")
		case ch == 0:
			return out, nil
		case ch == '}' && inBlock:
			p.at++
			return out, nil
		case ch == '}':
			return nil, p.faultf("a } without {")
		case ch == '#':
			for p.at < len(p.src) && p.src[p.at] != '\n' {
				p.at++
			}
			continue
		}
		k, err := p.command()
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
}

func (p *sedParser) address() (*sedAddr, error) {
	switch ch := p.peek(); {
	case ch >= '0' && ch <= '9':
		start := p.at
		p.skip("0123456789")
		n, err := strconv.Atoi(p.src[start:p.at])
		if err != nil || n == 0 {
			return nil, p.faultf("%q is no line number (they start at 1)", p.src[start:p.at])
		}
		return &sedAddr{line: n}, nil
	case ch == '$':
		p.at++
		return &sedAddr{last: true}, nil
	case ch == '/' || ch == '\\':
		if ch == '\\' {
			p.at++
		}
		src, err := p.delimited(true)
		if err != nil {
			return nil, err
		}
		fold := p.peek() == 'I'
		if fold {
			p.at++
		}
		re, err := p.pattern(src, fold)
		return &sedAddr{re: re}, err
	}
	return nil, nil
}

func (p *sedParser) pattern(src string, fold bool) (*regexp.Regexp, error) {
	if src == "" {
		if p.lastRE == nil {
			return nil, p.faultf("an empty pattern means the one before, and there is none")
		}
		return p.lastRE, nil
	}
	re, err := posixPattern(src, p.extended, fold)
	if err != nil {
		return nil, p.faultf("%v", err)
	}
	p.lastRE = re
	return re, nil
}

// delimited reads up to the delimiter that stands at the current place; the escaped delimiter loses its backslash.
func (p *sedParser) delimited(isPattern bool) (string, error) {
	d := p.peek()
	if d == 0 || d == '\n' || d == '\\' || d >= utf8.RuneSelf {
		return "", p.faultf("%q cannot delimit", d)
	}
	p.at++
	return p.until(d, isPattern)
}

func (p *sedParser) until(d byte, isPattern bool) (string, error) {
	var b strings.Builder
	inBracket := false
	for ; p.at < len(p.src); p.at++ {
		ch := p.src[p.at]
		switch {
		case ch == d && !inBracket:
			p.at++
			return b.String(), nil
		case ch == '\\' && !inBracket && p.at+1 < len(p.src):
			p.at++
			if p.src[p.at] != d {
				b.WriteByte('\\')
			}
			b.WriteByte(p.src[p.at])
		case isPattern && ch == '[' && !inBracket:
			inBracket = true
			b.WriteByte(ch)
			// A ] that comes first is an ordinary member.
			rest := p.src[p.at+1:]
			n := len(rest) - len(strings.TrimPrefix(rest, "^"))
			if strings.HasPrefix(rest[n:], "]") {
				n++
			}
			b.WriteString(rest[:n])
			p.at += n
		default:
			inBracket = inBracket && ch != ']'
			b.WriteByte(ch)
		}
	}
	return "", p.faultf("%q is missing", d)
}

func (p *sedParser) command() (sedCommand, error) {
	var k sedCommand
	a, err := p.address()
	if err != nil {
		return k, err
	}
	if a != nil {
		k.addr = append(k.addr, *a)
		p.skip(" \t")
		if p.peek() == ',' {
			p.at++
			p.skip(" \t")
			if a, err = p.address(); err != nil {
				return k, err
			}
			if a == nil {
				return k, p.faultf("the range has no end")
			}
			k.addr = append(k.addr, *a)
		}
	}
	p.skip(" \t")
	for p.peek() == '!' {
		k.not = true
		p.at++
		p.skip(" \t")
	}
	k.verb = p.peek()
	p.at++
	switch k.verb {
	case '{':
		k.block, err = p.program(true)
		return k, err
	case 'd', 'p', '=':
	case 'q':
		p.skip(" \t")
		start := p.at
		p.skip("0123456789")
		if start < p.at {
			k.status, err = strconv.Atoi(p.src[start:p.at])
			if err != nil || k.status > 255 {
				return k, p.faultf("%q is no exit status", p.src[start:p.at])
			}
		}
	case 'a', 'i', 'c':
		k.text = p.text()
		return k, nil
	case 's':
		if err := p.substitution(&k); err != nil {
			return k, err
		}
	case 'y':
		if err := p.translation(&k); err != nil {
			return k, err
		}
	case 0:
		return k, p.faultf("an address without a command")
	default:
		p.at--
		return k, p.faultf("command %q is not supported (known: s y d p q = a i c { })", k.verb)
	}
	p.skip(" \t")
	if ch := p.peek(); ch != 0 && strings.IndexByte("\n;}#", ch) < 0 {
		return k, p.faultf("unexpected %q after command %q", ch, k.verb)
	}
	return k, nil
}

// text is the argument of a, i and c: the rest of the line, with GNU's one-line form and the classic backslash-newline.
func (p *sedParser) text() string {
	p.skip(" \t")
	if p.peek() == '\\' {
		p.at++
		p.skip(" \t")
		if p.peek() == '\n' {
			p.at++
		}
	}
	var b strings.Builder
	for ; p.at < len(p.src) && p.src[p.at] != '\n'; p.at++ {
		if p.src[p.at] == '\\' && p.at+1 < len(p.src) {
			p.at++
		}
		b.WriteByte(p.src[p.at])
	}
	return b.String()
}

func (p *sedParser) substitution(k *sedCommand) error {
	d := p.peek()
	src, err := p.delimited(true)
	if err != nil {
		return err
	}
	repl, err := p.until(d, false)
	if err != nil {
		return err
	}
	k.nth = 1
	fold := false
flags:
	for {
		switch ch := p.peek(); {
		case ch == 'g':
			k.global = true
		case ch == 'p':
			k.print = true
		case ch == 'i' || ch == 'I':
			fold = true
		case ch >= '1' && ch <= '9':
			start := p.at
			p.skip("0123456789")
			if k.nth, err = strconv.Atoi(p.src[start:p.at]); err != nil {
				return p.faultf("%q is no match number", p.src[start:p.at])
			}
			continue
		default:
			break flags
		}
		p.at++
	}
	if k.re, err = p.pattern(src, fold); err != nil {
		return err
	}
	k.repl, err = p.replacement(repl, k.re.NumSubexp())
	return err
}

func (p *sedParser) replacement(s string, groups int) ([]sedPart, error) {
	var out []sedPart
	var text []byte
	group := func(n int) error {
		if n > groups {
			return p.faultf(`replacement uses \%d, the pattern has %d groups`, n, groups)
		}
		if len(text) > 0 {
			out = append(out, sedPart{text: string(text)})
			text = nil
		}
		out = append(out, sedPart{group: n})
		return nil
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '&':
			if err := group(0); err != nil {
				return nil, err
			}
		case s[i] == '\\' && i+1 < len(s):
			i++
			switch e := s[i]; {
			case e >= '0' && e <= '9':
				if err := group(int(e - '0')); err != nil {
					return nil, err
				}
			case e == 'n':
				text = append(text, '\n')
			case e == 't':
				text = append(text, '\t')
			case strings.IndexByte("LUElu", e) >= 0:
				return nil, p.faultf(`case conversion \%c is not supported`, e)
			default:
				text = append(text, e)
			}
		default:
			text = append(text, s[i])
		}
	}
	if len(text) > 0 {
		out = append(out, sedPart{text: string(text)})
	}
	return out, nil
}

func (p *sedParser) translation(k *sedCommand) error {
	d := p.peek()
	from, err := p.delimited(false)
	if err != nil {
		return err
	}
	to, err := p.until(d, false)
	if err != nil {
		return err
	}
	plain := strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t")
	a, b := []rune(plain.Replace(from)), []rune(plain.Replace(to))
	if len(a) != len(b) {
		return p.faultf("y has %d characters to replace and %d to replace them by", len(a), len(b))
	}
	k.table = map[rune]rune{}
	for i := range a {
		if _, dup := k.table[a[i]]; !dup {
			k.table[a[i]] = b[i]
		}
	}
	return nil
}
