package test

import (
	"archive/tar"
	"os"
	"strings"
	"testing"
)

// TestDanglingTargets runs an image whose files of the engine's are links that lead to nothing:
// what they lead to is made, in the container.
func TestDanglingTargets(t *testing.T) {
	r := start(t)
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20)
	cmd := r.command("import", "-", "links")
	cmd.Stdin = strings.NewReader(archive(t,
		archiveEntry{name: "bin/busybox", body: string(box)},
		archiveEntry{
			name: "etc/resolv.conf", link: "../run/systemd/resolve/stub", kind: tar.TypeSymlink,
		},
		archiveEntry{name: "etc/hosts", link: "/strake-nowhere/hosts", kind: tar.TypeSymlink},
		archiveEntry{
			name: "etc/hostname", link: up + strings.TrimPrefix(r.dir, "/") + "/escaped",
			kind: tar.TypeSymlink,
		},
		archiveEntry{name: "etc/dir", link: "/strake-nowhere/dir", kind: tar.TypeSymlink},
	))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("import: %v\n%s", err, out)
	}
	show := []string{
		"/bin/busybox", "sh", "-c",
		"b=/bin/busybox; $b cat /etc/resolv.conf /run/systemd/resolve/stub | $b grep -c nameserver; " +
			"$b grep -c box-host /strake-nowhere/hosts; $b cat /etc/hostname; echo x > /etc/dir/f",
	}
	name := []string{
		"run", "--name", "links", "--hostname", "box-host", "-v", "vol:/etc/dir", "links",
	}
	first := r.ok(append(name, show...)...)
	if f := strings.Fields(first); len(f) != 3 || f[0] == "0" || f[1] == "0" || f[2] != "box-host" {
		t.Errorf("the container sees %q", first)
	}
	if again := r.ok("start", "-a", "links"); again != first {
		t.Errorf("started again it sees %q", again)
	}
	for _, path := range []string{r.dir + "/escaped", "/strake-nowhere"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was made on the host", path)
		}
	}
	r.ok("run", "--rm", "--read-only", "links", "/bin/busybox", "true")
	r.ok("rm", "links")
	r.ok("volume", "rm", "vol")
}
