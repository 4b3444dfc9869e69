package verbtest_test

import (
	"slices"
	"testing"

	"strake/cli/internal/verbtest"
)

func TestWords(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"":                  nil,
		"  ":                nil,
		"a  b":              {"a", "b"},
		`rm ''`:             {"rm", ""},
		`-f '{{.A}} "b"' c`: {"-f", `{{.A}} "b"`, "c"},
		`a"b c"d`:           {"ab cd"},
		`"it's"`:            {"it's"},
		`'open end`:         {"open end"},
		`a\t`:               {`a\t`},
	} {
		if got := verbtest.Words(line); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}
