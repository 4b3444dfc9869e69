package userland

import (
	"fmt"
	"regexp"
	"strings"
)

// posixPattern compiles a POSIX regular expression (regex(7)): basic, where \( \) \{ \} \| \+ \?
// are the operators, or extended. RE2 matches it, so back-references are refused. Leftmost-longest,
// as POSIX has it.
func posixPattern(src string, extended, fold bool) (*regexp.Regexp, error) {
	t, err := translate(src, extended)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", src, err)
	}
	if fold {
		t = "(?i)" + t
	}
	re, err := regexp.Compile(t)
	if err != nil {
		return nil, fmt.Errorf(
			"pattern %q: %s", src, strings.TrimPrefix(err.Error(), "error parsing regexp: "),
		)
	}
	re.Longest()
	return re, nil
}

func translate(src string, extended bool) (string, error) {
	var b strings.Builder
	atStart := true // of an alternative, where * is literal in basic expressions and ^ an anchor
	for i := 0; i < len(src); i++ {
		ch := src[i]
		start := atStart
		atStart = false
		switch {
		case ch == '[':
			n, class, err := bracket(src[i:])
			if err != nil {
				return "", err
			}
			b.WriteString(class)
			i += n - 1
		case ch == '\\':
			i++
			if i == len(src) {
				return "", fmt.Errorf("trailing backslash")
			}
			switch e := src[i]; {
			case e >= '1' && e <= '9':
				return "", fmt.Errorf(`back-reference \%c is not supported`, e)
			case e == 'n':
				b.WriteByte('\n')
			case e == 't':
				b.WriteByte('\t')
			case e == '<', e == '>':
				b.WriteString(`\b`)
			case strings.IndexByte("wWsSbB", e) >= 0:
				b.WriteString(src[i-1 : i+1])
			case !extended && strings.IndexByte("(){}|+?", e) >= 0:
				b.WriteByte(e)
				atStart = e == '(' || e == '|'
			default:
				b.WriteString(regexp.QuoteMeta(string(e)))
			}
		case !extended && strings.IndexByte("(){}|+?", ch) >= 0:
			b.WriteByte('\\')
			b.WriteByte(ch)
		case ch == '*' && start:
			if extended {
				return "", fmt.Errorf("%q has nothing to repeat", "*")
			}
			b.WriteString(`\*`)
		case ch == '^' && !extended && !start:
			b.WriteString(`\^`)
		case ch == '$' && !extended && !atEnd(src[i+1:]):
			b.WriteString(`\$`)
		default:
			b.WriteByte(ch)
			atStart = extended && (ch == '(' || ch == '|') || ch == '^'
		}
	}
	return b.String(), nil
}

// atEnd tells whether $ before rest is an anchor in a basic expression.
func atEnd(rest string) bool {
	return rest == "" || strings.HasPrefix(rest, `\)`) || strings.HasPrefix(rest, `\|`)
}

// bracket translates the bracket expression at the start of s, where a backslash is an ordinary
// character.
func bracket(s string) (n int, out string, err error) {
	var b strings.Builder
	b.WriteByte('[')
	i := 1
	if i < len(s) && s[i] == '^' {
		b.WriteByte('^')
		i++
	}
	for first := true; i < len(s); first = false {
		switch {
		case s[i] == ']' && !first:
			b.WriteByte(']')
			return i + 1, b.String(), nil
		case s[i] == '[' && i+1 < len(s) && strings.IndexByte(":=.", s[i+1]) >= 0:
			end := strings.Index(s[i+2:], s[i+1:i+2]+"]")
			if end < 0 {
				return 0, "", fmt.Errorf("unclosed %q", s[i:i+2])
			}
			if s[i+1] != ':' {
				return 0, "", fmt.Errorf("collating element %q is not supported", s[i:i+2+end+2])
			}
			b.WriteString(s[i : i+2+end+2])
			i += 2 + end + 2
		default:
			if strings.IndexByte(`\[]`, s[i]) >= 0 {
				b.WriteByte('\\')
			}
			b.WriteByte(s[i])
			i++
		}
	}
	return 0, "", fmt.Errorf("unclosed %q", "[")
}
