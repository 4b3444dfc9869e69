package userland

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

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

// script reads the whole script into flat instructions, with the targets of blocks and branches
// filled in.
func (p *sedParser) script() ([]sedCommand, error) {
	var out []sedCommand
	var open []int // indices of the { that wait for their }
	labels := map[string]int{}
	for {
		p.skip(" \t\n;")
		switch ch := p.peek(); {
		case ch == 0 && len(open) > 0:
			return nil, p.faultf("a { is not closed")
		case ch == 0:
			for i := range out {
				k := &out[i]
				if k.verb != 'b' && k.verb != 't' {
					continue
				}
				to, ok := labels[k.text]
				switch {
				case k.text == "":
					to = len(out)
				case !ok:
					return nil, fmt.Errorf("script: label %q is not there", k.text)
				}
				k.to = to
			}
			return out, nil
		case ch == '}' && len(open) > 0:
			p.at++
			out[open[len(open)-1]].to = len(out)
			open = open[:len(open)-1]
			continue
		case ch == '}':
			return nil, p.faultf("a } without {")
		case ch == ':':
			p.at++
			name := p.label()
			if name == "" {
				return nil, p.faultf("a label needs a name")
			}
			if _, dup := labels[name]; dup {
				return nil, p.faultf("label %q is there twice", name)
			}
			labels[name] = len(out)
			continue
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
		if k.verb == '{' {
			open = append(open, len(out))
		}
		out = append(out, k)
	}
}

// label is the name after : b and t, up to the end of the command.
func (p *sedParser) label() string {
	p.skip(" \t")
	start := p.at
	for p.at < len(p.src) && strings.IndexByte("\n;} \t", p.src[p.at]) < 0 {
		p.at++
	}
	return p.src[start:p.at]
}

func (p *sedParser) address() (*sedAddr, error) {
	switch ch := p.peek(); {
	case ch >= '0' && ch <= '9':
		start := p.at
		p.skip("0123456789")
		n, err := strconv.Atoi(p.src[start:p.at])
		if err != nil || n == 0 && p.peek() != '~' {
			return nil, p.faultf("%q is no line number (they start at 1)", p.src[start:p.at])
		}
		a := &sedAddr{line: n}
		if p.peek() == '~' {
			p.at++
			start = p.at
			p.skip("0123456789")
			if a.step, err = strconv.Atoi(p.src[start:p.at]); err != nil || a.step == 0 {
				return nil, p.faultf("%q is no step (they start at 1)", p.src[start:p.at])
			}
		}
		return a, nil
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

// end is the second address of a range, which may be +N.
func (p *sedParser) end() (*sedAddr, error) {
	if p.peek() != '+' {
		return p.address()
	}
	p.at++
	start := p.at
	p.skip("0123456789")
	n, err := strconv.Atoi(p.src[start:p.at])
	if err != nil || n == 0 {
		return nil, p.faultf("+%s is no number of lines (they start at 1)", p.src[start:p.at])
	}
	return &sedAddr{more: n}, nil
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

// delimited reads up to the delimiter that stands at the current place; the escaped delimiter loses
// its backslash.
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
			if a, err = p.end(); err != nil {
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
		return k, nil
	case 'b', 't':
		k.text = p.label()
	case 'd', 'D', 'p', 'P', '=', 'n', 'N', 'g', 'G', 'h', 'H', 'x':
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
		return k, p.faultf(
			"command %q is not supported (known: s y d D p P q = a i c n N g G h H x b t : { })",
			k.verb,
		)
	}
	p.skip(" \t")
	if ch := p.peek(); ch != 0 && strings.IndexByte("\n;}#", ch) < 0 {
		return k, p.faultf("unexpected %q after command %q", ch, k.verb)
	}
	return k, nil
}

// text is the argument of a, i and c: the rest of the line, with GNU's one-line form and the
// classic backslash-newline.
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
