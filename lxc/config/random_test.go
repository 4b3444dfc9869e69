package config

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// settingsToTry are all lines of the cases of keys, also without values, for several interfaces.
func settingsToTry() [][2]string {
	var all [][2]string
	add := func(text string) {
		if key, value, ok := split(text); ok && key != "" && key != "lxc.include" {
			all = append(all, [2]string{key, value}, [2]string{key, value}, [2]string{key, ""})
		}
	}
	for _, tc := range keyCases {
		for text := range strings.SplitSeq(tc.lines, "\n") {
			add(text)
		}
	}
	for _, tc := range netCases {
		for text := range strings.SplitSeq(tc.lines, "\n") {
			for i := range 3 {
				add(fmt.Sprintf("lxc.net.%d.%s", i, text))
			}
			add("lxc.network." + text)
		}
	}
	for _, text := range []string{
		"lxc.net =", "lxc.net.1 =", "lxc.hook =", "lxc.cgroup =", "lxc.cgroup2 =", "lxc.prlimit =",
		"lxc.rootfs.backend = lvm", "lxc.rootfs = /x", "lxc.limit.nofile = 5", "lxc.kmsg = 1",
	} {
		add(text)
	}
	return all
}

// TestRandomChanges sets and clears keys at random on top of an included file. After every change
// the configuration is the one that its lines say, a key that was cleared has the value of an empty
// configuration, and a change that was refused has changed nothing.
func TestRandomChanges(t *testing.T) {
	t.Parallel()
	all := settingsToTry()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, seed))
		var included strings.Builder
		for range r.IntN(15) {
			s := all[r.IntN(len(all))]
			text := included.String() + s[0] + " = " + s[1] + "\n"
			if _, err := Parse("f", strings.NewReader(text)); err == nil {
				included.Reset()
				included.WriteString(text)
			}
		}
		c := parse(t, include(t, included.String()))
		for range 150 {
			before := *c
			s := all[r.IntN(len(all))]
			key, value := s[0], s[1]
			err := c.Set(key, value)
			again(t, c)
			if err != nil && !reflect.DeepEqual(before, *c) {
				t.Errorf("Set(%q, %q): %v, but there was a change", key, value, err)
			}
			if err == nil && value == "" {
				checkCleared(t, c, key)
			}
			if t.Failed() {
				t.Fatalf("seed %d, Set(%q, %q): %v, included:\n%s\nbefore:\n%s",
					seed, key, value, err, included.String(), written(t, &before))
			}
		}
	}
}

// checkCleared reports a key that does not have the value of an empty configuration, or of an
// interface that has its type alone.
func checkCleared(t *testing.T, c *Config, key string) {
	t.Helper()
	if strings.HasPrefix(key, "lxc.network") {
		return // which may be another interface now
	}
	var empty Config
	for _, n := range c.Nets {
		empty.Nets = append(empty.Nets, Net{Index: n.Index, Type: n.Type})
	}
	if key == "lxc.net" {
		empty.Nets = nil
	}
	got, err := c.Get(key)
	want, err2 := empty.Get(key)
	if !reflect.DeepEqual(got, want) || (err == nil) != (err2 == nil) {
		t.Errorf("%s has %q and %v, want %q and %v", key, got, err, want, err2)
	}
}
