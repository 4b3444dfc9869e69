package plan

import (
	"bytes"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestBindOnItself: a path below the container's sysfs may be bound on itself, to be writable in a
// read-only mount, but not on another place, where what is masked later would show.
func TestBindOnItself(t *testing.T) {
	t.Parallel()
	const sysfs = "0x62656572" // SYSFS_MAGIC
	for dest, refused := range map[string]bool{
		"/sys/devices/virtual/net": false, "/net": true, "/sys/class/net": true,
	} {
		s := base()
		s.Mounts = []specs.Mount{
			{Destination: "/sys", Type: "sysfs", Source: "sysfs"},
			{
				Destination: dest, Type: "bind", Source: s.Root.Path + "/sys/devices/virtual/net",
				Options: []string{"bind"},
			},
			{Destination: "/sys", Type: "bind", Options: []string{"remount", "ro"}},
		}
		p, err := Init(s, Options{Host: Host{LastCap: 40}})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := p.Print(&b); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), sysfs); got != refused {
			t.Errorf("on %s: a test for sysfs: %v, want %v\n%s", dest, got, refused, b.String())
		}
	}
}
