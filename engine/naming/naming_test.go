package naming

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestPick(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	// More than there are pairs of words: digits must come in.
	for range len(first)*len(second) + 1000 {
		name := Pick(func(n string) bool { return seen[n] })
		if seen[name] {
			t.Fatalf("%q twice", name)
		}
		seen[name] = true
		if err := Check(name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"web": true, "a1_.-": true, "x": false, "": false, "/web": false, "-web": false,
		"a b": false, "ä": false, "a/../b": false,
		strings.Repeat("n", 253): true, strings.Repeat("n", 254): false, "a\n": false,
	} {
		if err := Check(name); (err == nil) != ok || !ok && !errdefs.IsInvalidArgument(err) {
			t.Errorf("Check(%q) = %v, want ok %v", name, err, ok)
		}
	}
}
