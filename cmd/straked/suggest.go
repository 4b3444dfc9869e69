package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"strake/internal/suggest"
)

// unknownFlag adds the nearest flag to an error about one that does not exist.
func unknownFlag(err error, f *pflag.FlagSet) error {
	name, ok := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !ok {
		return err
	}
	var known []string
	f.VisitAll(func(fl *pflag.Flag) { known = append(known, fl.Name) })
	return fmt.Errorf("unknown flag --%s%s", name, didYouMean(name, known, "--"))
}

// didYouMean asks whether the candidate that is nearest to a word was meant, if one is near.
func didYouMean(word string, candidates []string, prefix string) string {
	best := suggest.Nearest(word, candidates)
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s%s?", prefix, best)
}
