package docker

import (
	"errors"
	"fmt"
	"strings"
)

// pairsOf reads the arguments of ENV and LABEL, key=value key="other value", or key and the rest of
// the line, and replaces variables in both.
func pairsOf(text string, env []string) (pairs [][2]string, err error) {
	list := words(text)
	if !strings.Contains(list[0], "=") {
		key, value, ok := strings.Cut(text, " ")
		if !ok {
			return nil, fmt.Errorf("%q has no value; want name=value", text)
		}
		list = []string{key + "=" + strings.TrimSpace(value)}
	}
	for _, w := range list {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Errorf("%q: want name=value", w)
		}
		if key, err = expandWord(key, env); err == nil {
			value, err = expandWord(value, env)
		}
		if err == nil && key == "" {
			err = errors.New("a name is empty")
		}
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, [2]string{key, value})
	}
	return pairs, nil
}

// words splits at spaces that are neither quoted nor escaped. Quotes and escapes stay.
func words(text string) (list []string) {
	var word strings.Builder
	var quote byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(text):
			word.WriteByte(c)
			i++
			c = text[i]
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == ' ' || c == '\t':
			if word.Len() > 0 {
				list = append(list, word.String())
				word.Reset()
			}
			continue
		}
		word.WriteByte(c)
	}
	if word.Len() > 0 {
		list = append(list, word.String())
	}
	return list
}

// expandWord removes quotes and escapes and replaces $NAME, ${NAME}, ${NAME:-default} and
// ${NAME:+alternative} outside of single quotes, as in a Dockerfile. A variable that is not set is
// empty.
func expandWord(text string, env []string) (string, error) {
	var out strings.Builder
	var quote byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\'' && quote != '"', c == '"' && quote != '\'':
			if quote == 0 {
				quote = c
			} else {
				quote = 0
			}
		case c == '\\' && quote != '\'' && i+1 < len(text):
			i++
			if quote == '"' && !strings.ContainsRune(`"$\`, rune(text[i])) {
				out.WriteByte(c) // stays in front of others
			}
			out.WriteByte(text[i])
		case c == '$' && quote != '\'':
			value, n, err := variable(text[i+1:], env)
			if err != nil {
				return "", err
			}
			out.WriteString(value)
			i += n
		default:
			out.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", fmt.Errorf("unexpected end of statement while looking for matching %c", quote)
	}
	return out.String(), nil
}

// variable is the value of what follows a dollar sign, and the length of that.
func variable(text string, env []string) (value string, n int, err error) {
	braced := strings.HasPrefix(text, "{")
	rest := strings.TrimPrefix(text, "{")
	length := 0
	for length < len(rest) && (rest[length] == '_' || rest[length] >= 'a' && rest[length] <= 'z' ||
		rest[length] >= 'A' && rest[length] <= 'Z' ||
		length > 0 && rest[length] >= '0' && rest[length] <= '9') {
		length++
	}
	name := rest[:length]
	set := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok && name != "" {
			set = v
		}
	}
	switch {
	case !braced && name == "":
		return "$", 0, nil
	case !braced:
		return set, length, nil
	}
	inner, _, ok := strings.Cut(rest, "}")
	if !ok || name == "" {
		return "", 0, fmt.Errorf("${%s: bad substitution", inner)
	}
	modifier := inner[length:]
	other := modifier[min(2, len(modifier)):]
	switch {
	case modifier == "":
	case strings.HasPrefix(modifier, ":-") && set == "",
		strings.HasPrefix(modifier, ":+") && set != "":
		if set, err = expandWord(other, env); err != nil {
			return "", 0, err
		}
	case strings.HasPrefix(modifier, ":-"), strings.HasPrefix(modifier, ":+"):
	default:
		return "", 0, fmt.Errorf("${%s}: unsupported modifier %q", inner, modifier)
	}
	return set, len(inner) + 2, nil
}
