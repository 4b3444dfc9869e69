// Package jsonlog writes a process's output to a file in the format of Docker's json-file log
// driver, with rotation by size.
//
// What it promises: every line that Write has accepted has been handed to the kernel by write(2)
// when Write returns, or is counted as lost; a file holds whole records only, also after a full
// disk; output is never held back for the log's sake. Lines of more than 16 KiB are split as Docker
// splits them: only the last part ends in a newline.
//
// Not for: reading logs, compressing them, or making them durable (nothing is fsynced: a process's
// output does not outlive its host).
//
// Tested against encoding/json and on full, foreign and broken files.
package jsonlog

import (
	"time"
	"unicode/utf8"
)

// Stream is where a line came from.
type Stream int

const (
	Stdout Stream = iota
	Stderr
	streams
)

var streamField = [streams]string{`,"stream":"stdout","time":"`, `,"stream":"stderr","time":"`}

// appendRecord appends one record: {"log":"…","stream":"…","time":"…"} and a newline.
func appendRecord(b, line []byte, newline bool, s Stream, now time.Time) []byte {
	b = append(b, `{"log":"`...)
	b = appendEscaped(b, line)
	if newline {
		b = append(b, `\n`...)
	}
	b = append(b, '"')
	b = append(b, streamField[s]...)
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
