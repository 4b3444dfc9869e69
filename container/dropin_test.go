package container

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestListedPtmx lists devices that /dev has already, as engines do for privileged containers: the
// multiplexer stays the one of the container's own devpts.
func TestListedPtmx(t *testing.T) {
	root := rootfs(t)
	for _, user := range []string{"host", "mapped"} {
		t.Run(user, func(t *testing.T) {
			spec := config(root, "readlink /dev/ptmx; readlink /dev/fd; test -c /dev/fuse && echo fuse")
			spec.Linux.Devices = []specs.LinuxDevice{
				{Path: "/dev/ptmx", Type: "c", Major: 5, Minor: 2},
				{Path: "/dev//ptmx", Type: "c", Major: 5, Minor: 2},
			}
			want := "pts/ptmx\n/proc/self/fd\n"
			if user == "mapped" {
				mapUsers(spec)
			} else {
				spec.Linux.Devices = append(spec.Linux.Devices, specs.LinuxDevice{
					Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229,
				})
				want += "fuse\n"
			}
			if got, err := run(t, spec); err != nil || got.out != want {
				t.Errorf("got %q, %v; want %q", got.out, err, want)
			}
		})
	}
}
