package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// suggest adds the nearest flag to an error about an unknown one.
func suggest(err error, f *pflag.FlagSet) error {
	name, ok := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !ok {
		return err
	}
	var known []string
	f.VisitAll(func(fl *pflag.Flag) { known = append(known, fl.Name) })
	return fmt.Errorf("unknown flag --%s%s", name, didYouMean(name, known, "--"))
}

// didYouMean names the candidate that takes the fewest edits, if they are few.
func didYouMean(word string, candidates []string, prefix string) string {
	best, distance := "", 1+len(word)/3
	for _, c := range candidates {
		if d := edits(word, c); d <= distance && (best == "" || d < distance) {
			best, distance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s%s?", prefix, best)
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
