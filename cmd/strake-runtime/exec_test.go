package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container"
)

// TestAddedCapabilities: a capability that exec adds is ambient if the configuration has an
// inheritable set, and never inheritable.
func TestAddedCapabilities(t *testing.T) {
	t.Parallel()
	for _, inheritable := range [][]string{nil, {"CAP_SYSLOG"}} {
		rt := container.Runtime{Root: t.TempDir()}
		dir := filepath.Join(rt.Root, "c")
		raw, err := json.Marshal(specs.Spec{Process: &specs.Process{
			Capabilities: &specs.LinuxCapabilities{Inheritable: inheritable},
		}})
		if err == nil {
			err = os.Mkdir(dir, 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		c, err := rt.Load("c")
		if err != nil {
			t.Fatal(err)
		}
		e := execFlags{caps: stringList{"CAP_SYSLOG"}}
		p, err := e.build(c, []string{"true"})
		if err != nil {
			t.Fatal(err)
		}
		got := p.Capabilities
		if !slices.Equal(got.Inheritable, inheritable) || !slices.Equal(got.Ambient, inheritable) ||
			len(got.Bounding) != 1 || len(got.Effective) != 1 || len(got.Permitted) != 1 {
			t.Errorf("inheritable %q: got %+v", inheritable, got)
		}
	}
}

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
