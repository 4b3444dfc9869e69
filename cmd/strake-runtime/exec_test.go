package main

import (
	"maps"
	"testing"
)

// TestSubgroups takes what runc takes as --cgroup.
func TestSubgroups(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list []string
		want map[string]string
	}{
		{nil, map[string]string{}},
		{[]string{"sub"}, map[string]string{"": "sub"}},
		{
			[]string{"memory:a", "cpu,cpuacct:b/c"},
			map[string]string{"memory": "a", "cpu": "b/c", "cpuacct": "b/c"},
		},
		{[]string{"name=systemd:x"}, map[string]string{"name=systemd": "x"}},
		{[]string{"a", "b"}, nil}, {[]string{"cpu:a", "b"}, nil}, {[]string{":a"}, nil},
		{[]string{"cpu,:a"}, nil}, {[]string{"cpu:a", "cpu:b"}, nil}, {[]string{"cpu:"}, nil},
	} {
		got, err := subgroups(c.list)
		if (err != nil) != (c.want == nil) || err == nil && !maps.Equal(got, c.want) {
			t.Errorf("%q: got %v, %v; want %v", c.list, got, err, c.want)
		}
	}
}
