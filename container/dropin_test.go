package container

import (
	"os"
	"path/filepath"
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

// TestTmpfsMode mounts filesystems in memory on directories that exist, and on one that does not.
func TestTmpfsMode(t *testing.T) {
	root := rootfs(t)
	for name, mode := range map[string]os.FileMode{"plain": 0o710, "sticky": 0o755 | os.ModeSticky} {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	spec := config(root, "stat -c '%n %a' /plain /sticky /chosen /new /dev/new; "+
		"touch /plain/x && echo written; touch /sticky/x 2>/dev/null || echo refused; ls /sticky")
	for _, m := range []specs.Mount{
		{Destination: "/plain"},
		{Destination: "/sticky", Options: []string{"ro"}},
		{Destination: "/sticky/below", Options: []string{"ro"}},
		{Destination: "/chosen", Options: []string{"mode=0700"}},
		{Destination: "/new"}, {Destination: "/dev/new"},
	} {
		m.Type, m.Source = "tmpfs", "tmpfs"
		spec.Mounts = append(spec.Mounts, m)
	}
	want := "/plain 710\n/sticky 1755\n/chosen 700\n/new 1777\n/dev/new 1777\n" +
		"written\nrefused\nbelow\n"
	if got, err := run(t, spec); err != nil || got.out != want {
		t.Errorf("got %q, %v; want %q", got.out, err, want)
	}
	// The second start finds /new and /chosen, which the first one made.
	mapUsers(spec)
	want = "/plain 710\n/sticky 1755\n/chosen 700\n/new 755\n/dev/new 1777\n" +
		"written\nrefused\nbelow\n"
	if got, err := run(t, spec); err != nil || got.out != want {
		t.Errorf("in a user namespace: got %q, %v; want %q", got.out, err, want)
	}
}
