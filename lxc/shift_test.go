package lxc

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"strake/internal/testneed"
	"strake/lxc/config"
)

// TestShiftTree: owners, setuid bits, capabilities, access lists, and a file with two names.
func TestShiftTree(t *testing.T) {
	testneed.Root(t, "changes owners")
	root := t.TempDir()
	path := func(name string) string { return filepath.Join(root, name) }
	for _, f := range []struct {
		name     string
		uid, gid int
		mode     os.FileMode
	}{
		{"setuid", 0, 0, 0o755 | os.ModeSetuid}, {"able", 0, 0, 0o755}, {"user", 1000, 42, 0o640},
	} {
		if err := os.WriteFile(path(f.name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path(f.name), f.uid, f.gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path(f.name), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(path("user"), path("user2")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", path("link")); err != nil {
		t.Fatal(err)
	}
	// CAP_NET_RAW, effective (vfs_cap_data of revision 2).
	able := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	able = append(binary.LittleEndian.AppendUint32(able, 1<<13), make([]byte, 12)...)
	if err := unix.Setxattr(path("able"), "security.capability", able, 0); err != nil {
		t.Fatal(err)
	}
	const acl = "system.posix_acl_access"
	list := accessList(7)
	listed := unix.Setxattr(path("user"), acl, list, 0)
	cfg := mapped(t)
	if err := shiftTree(root, cfg); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][3]uint32{
		"": {100000, 200000, 0}, "setuid": {100000, 200000, 0o4755}, "able": {100000, 200000, 0o755},
		"user": {101000, 200042, 0o640}, "user2": {101000, 200042, 0o640},
		"link": {100000, 200000, 0o777},
	} {
		var st syscall.Stat_t
		if err := syscall.Lstat(path(name), &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != want[0] || st.Gid != want[1] || name != "" && st.Mode&0o7777 != want[2] {
			t.Errorf("%q: %d:%d %o, want %d:%d %o", name, st.Uid, st.Gid, st.Mode&0o7777, want[0],
				want[1], want[2])
		}
	}
	got, err := attribute(path("able"), "security.capability")
	if err != nil || len(got) != 24 || got[3] != 3 ||
		binary.LittleEndian.Uint32(got[20:]) != 100000 || !bytes.Equal(got[4:20], able[4:]) {
		t.Errorf("capability: % x, %v", got, err)
	}
	if listed == nil {
		if got, err := attribute(path("user"), acl); !bytes.Equal(got, accessList(100007)) {
			t.Errorf("access list: % x, want % x, %v", got, accessList(100007), err)
		}
	}
	if err := os.Chown(path("able"), 70000, 0); err != nil {
		t.Fatal(err)
	}
	if err := shiftTree(root, cfg); err == nil || !strings.Contains(err.Error(), "no line for") {
		t.Errorf("a user who is not mapped: %v", err)
	}
}

// mapped is a configuration whose users and groups begin at different numbers.
func mapped(t *testing.T) *config.Config {
	t.Helper()
	cfg := &config.Config{}
	for _, line := range []string{"u 0 100000 65536", "g 0 200000 65536"} {
		if err := cfg.Set("lxc.idmap", line); err != nil {
			t.Fatal(err)
		}
	}
	return cfg
}

// TestShiftTreeMapped: a root that is mounted with the mappings keeps its owners.
func TestShiftTreeMapped(t *testing.T) {
	cfg := mapped(t)
	cfg.Rootfs.Options = "noatime,idmap=container"
	root := t.TempDir()
	if err := shiftTree(root, cfg); err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(root, &st); err != nil || st.Uid != uint32(os.Getuid()) {
		t.Errorf("owner %d, %v", st.Uid, err)
	}
}

// accessList gives a user the right to read (acl(5)).
func accessList(user uint32) []byte {
	const none = ^uint32(0)
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, none}, {2, 4, user}, {4, 4, none}, {0x10, 4, none}, {0x20, 0, none}} {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return out
}
