package logwriter

import (
	"time"
	"unicode/utf8"
)

// JSON is the format of Docker's json-file log driver: an object per line,
// {"log":"…","stream":"…","time":"…"}. A line that was split, and what a stream ends with, have no
// newline in "log".
type JSON struct {
	// Attributes is a JSON object of at most 8192 bytes that each record has as "attrs", in front
	// of "time"; "" for none.
	Attributes string
}

// maxAttributes bounds the attributes of a record: also of one that was written with others.
const maxAttributes = 8192

// MaxRecord implements Format: every byte of a line may be escaped to six.
func (JSON) MaxRecord() int { return 6*maxLine + maxAttributes + 128 }

var streamField = [streams]string{`,"stream":"stdout"`, `,"stream":"stderr"`}

// AppendRecord implements Format.
func (j JSON) AppendRecord(b, line []byte, end LineEnd, s Stream, now time.Time) []byte {
	b = append(b, `{"log":"`...)
	b = appendEscaped(b, line)
	if end == Newline {
		b = append(b, `\n`...)
	}
	b = append(b, '"')
	b = append(b, streamField[s]...)
	if j.Attributes != "" {
		b = append(append(b, `,"attrs":`...), j.Attributes...)
	}
	b = append(b, `,"time":"`...)
	b = now.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, "\"}\n"...)
}

const hexDigits = "0123456789abcdef"

// appendEscaped appends s as the inside of a JSON string, escaped as Docker does it: also <, > and
// & (for HTML) and the two line separators that JavaScript does not allow; bytes that are not UTF-8
// become \ufffd.
func appendEscaped(b, s []byte) []byte {
	clean := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if plain(c) {
				i++
				continue
			}
			b = append(b, s[clean:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			clean = i
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(append(b, s[clean:i]...), `\ufffd`...)
			clean = i + size
		case r == '\u2028' || r == '\u2029':
			b = append(append(b, s[clean:i]...), '\\', 'u', '2', '0', '2', hexDigits[r&15])
			clean = i + size
		}
		i += size
	}
	return append(b, s[clean:]...)
}

func plain(c byte) bool {
	return c >= ' ' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
}
