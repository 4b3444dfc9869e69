package verbtest

import "strings"

// Words splits a command line at spaces, but for those in 'quotes' or "quotes", which have no escapes
// here. A quote that is not closed ends with the line.
func Words(line string) (words []string) {
	var word strings.Builder
	inWord, quote := false, byte(0)
	for i := range len(line) {
		c := line[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, inWord = c, true
		case quote == 0 && c == ' ':
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}
