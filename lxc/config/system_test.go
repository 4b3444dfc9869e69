package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestSystemOfRootAndOfAUser(t *testing.T) {
	t.Parallel()
	equal(t, "root", DefaultSystem(""), &System{LXCPath: "/var/lib/lxc",
		DefaultConfig: "/etc/lxc/default.conf", LVMGroup: "lxc", LVMThinPool: "lxc",
		ZFSRoot: "lxc", RBDPool: "lxc"})
	equal(t, "user", DefaultSystem("/home/me"), &System{LXCPath: "/home/me/.local/share/lxc",
		DefaultConfig: "/home/me/.config/lxc/default.conf", LVMGroup: "lxc", LVMThinPool: "lxc",
		ZFSRoot: "lxc", RBDPool: "lxc"})
	equal(t, "file of root", SystemPath(""), "/etc/lxc/lxc.conf")
	equal(t, "file of a user", SystemPath("/home/me"), "/home/me/.config/lxc/lxc.conf")
}

func TestEveryKeyOfSystem(t *testing.T) {
	t.Parallel()
	s, err := ParseSystem("lxc.conf", strings.NewReader("# of the host\n\n"+
		"lxc.lxcpath = /srv/lxc//\nlxc.lxcpath = /later\n  lxc.default_config=/d\n"+
		"lxc.bdev.lvm.vg = vg0\nlxc.bdev.lvm.thin_pool = thin\nlxc.bdev.zfs.root = tank/lxc\n"+
		"lxc.bdev.rbd.rbdpool = pool\nlxc.bdev.rbd.rbduser = admin\n"+
		"lxc.cgroup.use =\nlxc.cgroup.use = memory,cpu\nlxc.cgroup.pattern = lxc/%n"), "")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "system", s, &System{"/srv/lxc", "/d", "lxc/%n", "memory,cpu", "vg0", "thin",
		"tank/lxc", "pool", "admin"})
	for key, want := range map[string]string{
		"lxc.default_config": "/d", "lxc.lxcpath": "/srv/lxc", "lxc.bdev.lvm.vg": "vg0",
		"lxc.bdev.lvm.thin_pool": "thin", "lxc.bdev.zfs.root": "tank/lxc",
		"lxc.bdev.rbd.rbdpool": "pool", "lxc.bdev.rbd.rbduser": "admin",
		"lxc.cgroup.use": "memory,cpu", "lxc.cgroup.pattern": "lxc/%n",
	} {
		if got, err := s.Get(key); got != want || err != nil {
			t.Errorf("Get(%q): got %q and %v, want %q", key, got, err, want)
		}
	}
	_, err = s.Get("lxc.lxcpat")
	if !errors.Is(err, errdefs.ErrInvalidArgument) || err.Error() !=
		`unknown key "lxc.lxcpat"; did you mean "lxc.lxcpath"?: invalid argument` {
		t.Errorf("got %v", err)
	}
	equal(t, "keys", SystemKeys(), []string{"lxc.default_config", "lxc.lxcpath", "lxc.bdev.lvm.vg",
		"lxc.bdev.lvm.thin_pool", "lxc.bdev.zfs.root", "lxc.cgroup.use", "lxc.cgroup.pattern"})
}

func TestErrorsOfSystem(t *testing.T) {
	t.Parallel()
	_, err := ParseSystem("lxc.conf", strings.NewReader(
		"lxc.lxcpth = /a\nhello\nlxc.lxcpath = /\x00\nlxc.lxcpath\nlxc.uts.name = x\n"), "")
	const want = `lxc.conf:1: lxc.lxcpth = "/a": no such key; did you mean "lxc.lxcpath"?
lxc.conf:2: "hello": want lxc.KEY = VALUE, or a comment after #
lxc.conf:3: lxc.lxcpath = "/\x00": want no NUL byte
lxc.conf:4: "lxc.lxcpath": want lxc.KEY = VALUE, or a comment after #
lxc.conf:5: lxc.uts.name = "x": no such key`
	if err == nil || err.Error() != want || !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestLoadSystem(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s, err := LoadSystem(home)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "without a file", s, DefaultSystem(home))
	path := SystemPath(home)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("lxc.lxcpath = /"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err = LoadSystem(home); err != nil || s.LXCPath != "/" {
		t.Errorf("got %+v and %v", s, err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err = LoadSystem(home); err == nil || s != nil {
		t.Errorf("got %+v and %v", s, err)
	}
}
