package suggest_test

import (
	"strings"
	"testing"

	"strake/internal/suggest"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ word, candidates, want string }{
		{"wbe", "db web cache", "web"},
		{"rnu", "run rm rmi", "run"},
		{"imges", "image images import", "images"},
		{"Web", "web", "web"},
		{"inspcet", "inspect image", "inspect"},
		{"contai", "container create", "container"},
		{"xyz", "web db", ""},
		{"swarm", "start stats", ""},
		{"plugin", "login", ""},
		{"export", "import", ""},
		{"netwrok", "network", "network"},
		{"continaer", "container", "container"},
		{"data-rooot", "data-root", "data-root"},
		{"no-new-privs", "no-new-privileges", ""},
		{"no-new-priv", "no-new-privileges", "no-new-privileges"},
		{"kepe-alvie", "keep-alive", "keep-alive"},
		{"kpee-alvei", "keep-alive", ""},
		{"a", "b c", ""},
		{"", "b c", ""},
		{"web", "", ""},
		{strings.Repeat("x", 200), "web", ""},
	} {
		if got := suggest.Nearest(c.word, strings.Fields(c.candidates)); got != c.want {
			t.Errorf("%q among %q: got %q, want %q", c.word, c.candidates, got, c.want)
		}
	}
}
