package container

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestBindOnItself: a part of the container's sysfs that is bound on itself stays writable when the
// rest becomes read-only; bound elsewhere it is refused.
func TestBindOnItself(t *testing.T) {
	root := rootfs(t)
	const net = "/sys/devices/virtual/net"
	spec := config(root, "touch /sys/x; grep -o ' /sys[^ ]* r.,' /proc/self/mountinfo")
	sysfs := len(spec.Mounts) - 1
	spec.Mounts[sysfs].Options = []string{"nosuid", "noexec", "nodev"}
	spec.Mounts = append(
		spec.Mounts,
		specs.Mount{
			Destination: net, Type: "bind", Source: root + net, Options: []string{"bind"},
		},
		specs.Mount{Destination: "/sys", Type: "bind", Options: []string{"remount", "ro"}},
	)
	got, err := run(t, spec)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got.out, "Read-only file system") ||
		!strings.Contains(got.out, "\n /sys ro,\n "+net+" rw,\n") {
		t.Errorf("got %q, want no new file in /sys, and the network's devices writable", got.out)
	}
	spec = config(root, "true")
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: "/data", Type: "bind", Source: root + net, Options: []string{"bind"},
	})
	if _, err := run(t, spec); err == nil {
		t.Error("sysfs shows elsewhere, past what is masked")
	}
}
