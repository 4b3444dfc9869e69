package supervisor

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestFeed holds what input reaches a process before, beside and after detach keys, however it is
// cut into pieces.
func TestFeed(t *testing.T) {
	for _, c := range []struct {
		name, keys, in, want string
		detached             bool
	}{
		{"no keys", "", "a\x10\x11b", "a\x10\x11b", false},
		{"none in it", "\x10\x11", "echo a\n", "echo a\n", false},
		{"before them", "\x10\x11", "kept=yes\n\x10\x11lost", "kept=yes\n", true},
		{"alone", "\x10\x11", "\x10\x11", "", true},
		{"a part", "\x10\x11", "a\x10b", "a\x10b", false},
		{"a part at the end", "\x10\x11", "a\x10", "a\x10", false},
		{"a part, then all", "\x10\x11", "\x10\x10\x11", "\x10", true},
		{"one key", "q", "abcqdef", "abc", true},
		{"three", "abc", "ababab abc", "ababab ", true},
	} {
		for form, from := range map[string]io.Reader{
			"one piece": strings.NewReader(c.in),
			"bytes":     iotest.OneByteReader(strings.NewReader(c.in)),
		} {
			var to bytes.Buffer
			err := feed(&to, from, []byte(c.keys))
			if to.String() != c.want || errors.Is(err, errDetached) != c.detached {
				t.Errorf("%s, %s: %q, %v; want %q", c.name, form, to.String(), err, c.want)
			}
		}
	}
	r, w := io.Pipe()
	r.Close()
	if err := feed(w, strings.NewReader("x"), nil); err == nil || errors.Is(err, errDetached) {
		t.Errorf("a process that reads no more: %v", err)
	}
}
