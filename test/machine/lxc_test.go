package machine

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"strake/internal/testneed"
)

// debianTree makes an archive of a Debian with systemd once and keeps it beside the kernel.
var debianTree = sync.OnceValues(func() (archive string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	dir := filepath.Join(cache, "strake-test", "debian")
	archive = filepath.Join(dir, "tree.tar")
	if _, err := os.Stat(archive); err == nil {
		return archive, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	base := filepath.Join(work, "base.conf")
	if err := os.WriteFile(base, []byte("lxc.net.0.type = empty\n"), 0o600); err != nil {
		return "", err
	}
	program := filepath.Join(os.Getenv("STRAKE_BIN"), "strake-lxc")
	for _, args := range [][]string{
		{
			program, "lxc", "create", "-P", work, "--run", work + "/run", "-f", base, "-t", "debian",
			"deb",
		},
		{
			"tar", "-C", work + "/deb/rootfs", "--numeric-owner", "--exclude=./dev/*",
			"--exclude=./usr/share/doc", "--exclude=./usr/share/locale",
			"--exclude=./usr/share/man", "--exclude=./var/cache/*", "--exclude=./var/lib/apt/*",
			"--exclude=./usr/share/zoneinfo", "-cf", work + "/tree.tar", ".",
		},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", &fs.PathError{Op: string(tail(out)), Path: args[0], Err: err}
		}
	}
	return archive, os.Rename(work+"/tree.tar", archive)
})

// appArmor gives the machine AppArmor with its compiler of profiles.
func (m *machine) appArmor() {
	m.t.Helper()
	dir := m.t.TempDir()
	if err := unpack(dir, "apparmor", "libapparmor1"); err != nil {
		m.t.Skipf("needs apparmor_parser: %v", err)
	}
	m.program(
		"/sbin/apparmor_parser", dir+"/unpacked/sbin/apparmor_parser",
		dir+"/unpacked/usr/lib/x86_64-linux-gnu",
	)
	m.append = "apparmor=1 security=apparmor"
	m.texts["/etc/apparmor/parser.conf"] = ""
	tunables := filepath.Join(dir, "unpacked/etc/apparmor.d/tunables")
	filepath.WalkDir(tunables, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(tunables, p)
		switch at := "/etc/apparmor.d/tunables/" + rel; {
		case err == nil && d.IsDir():
			m.texts[at+"/.keep"] = ""
		case err == nil && d.Type().IsRegular():
			m.files[at] = p
		}
		return nil
	})
}

// TestSystemContainersVersion2 boots a Debian with systemd on a host with nothing but version 2 of
// control groups, and AppArmor: as the host's root below a profile that is made for it, and in a
// user namespace. Both reboot and halt.
func TestSystemContainersVersion2(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	testneed.Program(t, "debootstrap", "debootstrap")
	m.script("lxc", `
l() { v=$1; shift; strake-lxc lxc $v -P /var/lxc --run /run/sl "$@"; }
say() { echo "$1: $(shift; "$@" 2>&1 | tr '\n' ' ')"; }
now() { cut -d. -f1 /proc/uptime; }
came() { # until systemd has come up in $1, as $2
	for i in $(seq 20); do
		got=$(l attach $1 -- systemctl is-system-running --wait 2>&1)
		case $got in running|degraded) break;; esac
		sleep 0.5
	done
	echo "$2: $got"
	[ "$got" = running ] || l attach $1 -- sh -c 'systemctl --failed --no-pager; journalctl -p warning --no-pager' 2>&1 | tail -40
}
cat >/tests/unpack <<'END'
#!/bin/sh
for a; do case $a in --rootfs=*) to=${a#--rootfs=};; esac; done
tar -xf /tests/debian.tar -C $to
cat /tests/system.conf >>${to%/rootfs}/config
END
chmod 755 /tests/unpack
echo unpacking at $(now)
l create -q -t /tests/unpack -f /tests/empty.conf root
echo unpacked at $(now)
say unconfined l execute -s lxc.apparmor.profile=unconfined root -- cat /proc/self/attr/current
say default l execute root -- cat /proc/self/attr/current
l start root || exit
came root privileged
echo up at $(now)
say label l attach root -- cat /proc/1/attr/current
say tree l attach root -- stat -f -c %T /sys/fs/cgroup
say made l attach root -- sh -c 'systemd-run -q --wait -p MemoryMax=64M true && echo made'
say denied l attach root -- sh -c 'cat /dev/.lxc/proc/sys/kernel/hostname 2>/dev/null || echo denied'
old=$(l info root -p -H)
l stop -r root
for i in $(seq 100); do new=$(l info root -p -H); [ -n "$new" -a "$new" != "$old" ] && break; sleep 0.2; done
came root rebooted
echo again at $(now)
l stop root
say stopped l info root -s -H
echo stopped at $(now)
say profiles sh -c 'grep -c lxc- /sys/kernel/security/apparmor/profiles'
l destroy -q root
echo destroyed at $(now)
# Without a template: shifting owners one by one takes a minute in an emulated machine.
l create -q -t none -f /tests/mapped.conf user
to=/var/lxc/user/rootfs
mkdir -p $to && tar -xf /tests/debian.tar -C $to && chown -hR 100000:100000 $to
cat /tests/system.conf >>/var/lxc/user/config
echo shifted at $(now)
l start user || exit
came user mapped
l attach user -- systemd-analyze blame | head -n 4
say mapped-label l attach user -- cat /proc/1/attr/current
say mapped-owner stat -c %u /var/lxc/user/rootfs/etc/shadow
say mapped-made l attach user -- sh -c 'systemd-run -q --wait -p MemoryMax=64M true && echo made'
l stop user
say mapped-stopped l info user -s -H
echo end at $(now)
l teardown
say left sh -c 'ls -d /sys/fs/cgroup/strake-lxc* 2>/dev/null | wc -l; grep -c lxc- /sys/kernel/security/apparmor/profiles'
`, 300)
	m.appArmor()
	archive, err := debianTree()
	if err != nil {
		t.Fatal(err)
	}
	m.files["/tests/debian.tar"] = archive
	m.files["/bin/strake-lxc"] = filepath.Join(os.Getenv("STRAKE_BIN"), "strake-lxc")
	m.links["/bin/tar"], m.links["/bin/chown"] = "/bin/busybox", "/bin/busybox"
	m.texts["/tests/empty.conf"] = "lxc.net.0.type = empty\n"
	m.texts["/tests/mapped.conf"] = "lxc.net.0.type = empty\n" +
		"lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n"
	m.texts["/tests/system.conf"] = strings.Join([]string{
		"lxc.tty.max = 4", "lxc.apparmor.allow_nesting = 1",
		"lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio",
		"lxc.mount.auto = cgroup:mixed proc:mixed sys:mixed", "lxc.cgroup2.devices.deny = a",
		"lxc.cgroup2.devices.allow = c 1:* rwm", "lxc.cgroup2.devices.allow = c 5:* rwm",
		"lxc.cgroup2.devices.allow = c 136:* rwm", "",
	}, "\n")
	r := m.run()["lxc"]
	check(t, r, map[string]string{
		"default": "lxc-root (enforce)", "privileged": "running", "label": "lxc-root (enforce)",
		"tree": "cgroup2fs", "made": "made", "denied": "denied", "rebooted": "running",
		"stopped": "STOPPED", "profiles": "0", "mapped": "running", "mapped-label": "lxc-user (enforce)", "unconfined": "unconfined",
		"mapped-owner": "100000", "mapped-made": "made", "mapped-stopped": "STOPPED",
		"left": "0 0",
	})
	t.Log(r.Output)
}
