package container

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bindMount is a recursive bind mount, with the mappings of users that mapUsers has if idmap is
// set.
func bindMount(source, dest string, idmap bool) specs.Mount {
	m := specs.Mount{Source: source, Destination: dest, Type: "bind", Options: []string{"rbind"}}
	if idmap {
		m.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		m.GIDMappings, m.Options = m.UIDMappings, append(m.Options, "idmap")
	}
	return m
}

// TestMountedSource binds what earlier mounts of the same configuration have put into the root, by
// paths of the host. Nothing of it is in the directory of the root itself.
func TestMountedSource(t *testing.T) {
	root := rootfs(t)
	bundle := filepath.Dir(root)
	for _, dir := range []string{"src/a/x", "src/b/y"} {
		if err := os.MkdirAll(filepath.Join(bundle, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(bundle, dir, "file")
		if err := os.WriteFile(file, []byte(dir+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"mnt", "final"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name          string
		mapped, idmap bool
		owner         string
	}{
		{"plain", false, false, "0"}, {"user namespace", true, false, "65534"},
		{"id-mapped", false, true, "100000"}, {"id-mapped, user namespace", true, true, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := config(root, "cat /final/x/y/file /final/x/y/again/file; stat -c %u /final")
			spec.Mounts = append(
				spec.Mounts,
				bindMount(filepath.Join(bundle, "src/a"), "/mnt", false),
				bindMount(filepath.Join(bundle, "src/b"), "/mnt/x", false),
				bindMount(
					filepath.Join(root, "mnt/x/y"), filepath.Join(root, "mnt/x/y/again"), c.idmap,
				),
				bindMount(filepath.Join(root, "mnt"), "/final", c.idmap),
			)
			if c.mapped {
				mapUsers(spec)
				if err := os.MkdirAll(filepath.Join(bundle, "src/b/y/again"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			want := "src/b/y\nsrc/b/y\n" + c.owner + "\n"
			got, err := run(t, spec)
			needMappable(t, err)
			if err != nil || got.out != want {
				t.Errorf("got %q, %v; want %q", got.out, err, want)
			}
		})
	}
}

// TestMountedSourceLinks has a source that an earlier mount provides, with links that lead to files
// of the host and into what is masked later. The first find the container's files, the second are
// refused.
func TestMountedSourceLinks(t *testing.T) {
	root := rootfs(t)
	volume := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/mine"), []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{
		"absolute": "/etc", "up": "../../../../../../../../../../../etc", "secret": secret,
		"proc": "/proc/sys", "sys": "/sys/kernel", "magic": "/proc/self/root/etc",
	} {
		if err := os.Symlink(to, filepath.Join(volume, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]error{
		"absolute": nil, "up": nil, "secret": unix.ENOENT, "proc": unix.EPERM, "sys": unix.EPERM,
		"magic": unix.ELOOP,
	} {
		spec := config(root, "cat /shown/mine; ls /shown | wc -l")
		spec.Mounts = append(
			spec.Mounts, bindMount(volume, "/data", false),
			bindMount(filepath.Join(root, "data", name), "/shown", false),
		)
		got, err := run(t, spec)
		if !errors.Is(err, want) || want == nil && got.out != "mine\n1\n" {
			t.Errorf("%s: got %q, %v; want %v", name, got.out, err, want)
		}
	}
}

// TestRootAsSource binds the root into itself: the procfs that is mounted in it must not come along,
// since what is masked in the one would show in the other.
func TestRootAsSource(t *testing.T) {
	root := rootfs(t)
	for _, source := range []string{root, root + "/", filepath.Join(root, "sys", "..")} {
		spec := config(root, "ls /data/bin/sh /data/proc; test -e /data/proc/self || echo none")
		spec.Mounts = append(spec.Mounts, bindMount(source, "/data", false))
		got, err := run(t, spec)
		if err != nil || got.out != "/data/bin/sh\n\n/data/proc:\nnone\n" {
			t.Errorf("%s: got %q, %v", source, got.out, err)
		}
	}
}
