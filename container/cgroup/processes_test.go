package cgroup

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestAccessLetters: the letter a, which runc ignores, changes nothing, and others are refused.
func TestAccessLetters(t *testing.T) {
	t.Parallel()
	for access, want := range map[string]int{
		"rwa": accessRead | accessWrite, "mrw": accessAll, "a": 0, "rwx": 0, "": 0,
	} {
		_, got, err := parseDeviceRule(&specs.LinuxDeviceCgroup{Type: "c", Access: access})
		if got != want && err == nil || (err == nil) != (want != 0) {
			t.Errorf("%q: got %d, %v", access, got, err)
		}
	}
}

// TestHolds tells a group from one whose name begins like it.
func TestHolds(t *testing.T) {
	t.Parallel()
	g := &Group{path: "/a/b"}
	for text, want := range map[string]bool{
		"5:pids:/a/b\n": true, "0::/a/b/c\n": true, "4:memory:/\n0::/a/b\n": true,
		"5:pids:/a/bc\n": false, "0::/a\n": false, "1:name=x:/a/b:c\n": false, "0::/": false, "": false,
	} {
		if got := g.holds(text); got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}
