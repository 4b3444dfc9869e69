// Package suggest finds what somebody may have meant.
//
// Not for: completion.
//
// Tested by tables.
package suggest

import "strings"

// Nearest returns the candidate that is closest to a word, or "" if none is close: at most a third
// of its letters, and not more than three, are wrong, missing, too many or swapped, or the word
// begins the candidate. Of equally close ones the first wins.
func Nearest(word string, candidates []string) string {
	word = strings.ToLower(word)
	best, distance := "", min(3, 1+len(word)/3)+1
	for _, c := range candidates {
		lower := strings.ToLower(c)
		if lower == word {
			return c
		}
		d := edits(word, lower)
		if len(word) >= 3 && strings.HasPrefix(lower, word) {
			d = min(d, 1)
		}
		if d < distance && d < len(word) {
			best, distance = c, d
		}
	}
	return best
}

// edits is the distance of Damerau and Levenshtein with adjacent swaps (optimal string alignment).
func edits(a, b string) int {
	if len(a) > 128 || len(b) > 128 {
		return 128 // nobody means these
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
