// Package suggest finds the name that a mistyped word was meant to be.
//
// Not for: completion, or for words that a person did not type.
//
// Tested by tables.
package suggest

import "strings"

// Nearest returns the candidate that is closest to a word, or "" if none is close. A candidate is
// close if the word begins it, or if it takes few edits: inserting, deleting or replacing a letter,
// or swapping two adjacent ones. One edit is allowed for each four letters of the word, at least
// one and at most three. Case does not count. Of equally close candidates the first is returned.
func Nearest(word string, candidates []string) string {
	word = strings.ToLower(word)
	best, distance := "", min(3, max(1, len(word)/4))+1
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

// longest is the number of bytes above which words are not compared, since no name is that long.
const longest = 128

// edits returns the distance of Damerau and Levenshtein with adjacent swaps (optimal string
// alignment).
func edits(a, b string) int {
	if len(a) > longest || len(b) > longest {
		return longest
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
