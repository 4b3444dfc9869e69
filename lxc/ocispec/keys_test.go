package ocispec

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/lxc/config"
)

// base is what every case of a table has.
const base = "lxc.uts.name = c\nlxc.rootfs.path = dir:/srv/lxc/c/rootfs"

// mapping makes a container one with a user namespace of its own.
const mapping = "\nlxc.idmap = b 0 100000 65536"

var (
	v2       = func(in *Input) { in.Host = host2; in.Host.AppArmor = false }
	appArmor = func(in *Input) { in.Host.AppArmor = true }
	execute  = func(in *Input) { in.Command = []string{"env", "-0"} }
	selinux  = func(in *Input) { in.Host.SELinux = true }
)

// keyCases are lines, facts of the host, and what they make, see TestKeys.
var keyCases = []struct {
	lines  string
	change func(in *Input)
	want   []string
}{
	// Namespaces.
	{"", nil, []string{`"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"uts"},` +
		`{"type":"ipc"},{"type":"network"},{"type":"cgroup"}]`}},
	{"lxc.namespace.clone = mnt pid", nil,
		[]string{`"namespaces":[{"type":"mount"},{"type":"pid"}]`}},
	{"lxc.namespace.keep = net ipc", nil,
		[]string{`"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"uts"},` +
			`{"type":"cgroup"}]`}},
	{"lxc.namespace.share.net = other", func(in *Input) {
		in.Shared, in.Netns = map[string]string{"net": "/proc/9/ns/net"}, "/run/netns/c"
	}, []string{`{"type":"network","path":"/proc/9/ns/net"}`}},
	{"lxc.namespace.share.uts = other", func(in *Input) {
		in.Shared = map[string]string{"uts": "/proc/9/ns/uts"}
	}, []string{`{"type":"uts","path":"/proc/9/ns/uts"}`, `!"hostname"`, `"Warnings":null`}},
	{"lxc.namespace.share.user = other", func(in *Input) {
		in.Shared = map[string]string{"user": "/proc/9/ns/user"}
	}, []string{`{"type":"user","path":"/proc/9/ns/user"}`, `"Delegation":null`}},
	{"lxc.namespace.keep = uts", nil, []string{`!"hostname"`,
		`lxc.uts.name = c: not set, because the container has the host's UTS namespace`}},
	{"lxc.net.0.type = none", nil, []string{`!"network"`}},
	{"lxc.net.0.type = none\nlxc.net.1.type = empty", nil, []string{`{"type":"network"}`}},
	{"lxc.net.0.type = empty", func(in *Input) { in.Netns = "/run/netns/c" },
		[]string{`{"type":"network","path":"/run/netns/c"}`}},
	{"lxc.time.offset.boot = -2m\nlxc.time.offset.monotonic = 1us", nil, []string{
		`{"type":"time"}`, `"boottime":{"secs":-120}`, `"monotonic":{"nanosecs":1000}`}},
	{"lxc.idmap = u 0 100000 10\nlxc.idmap = g 0 200000 10\nlxc.idmap = b 10 10 1", nil,
		[]string{
			`"uidMappings":[{"containerID":0,"hostID":100000,"size":10},` +
				`{"containerID":10,"hostID":10,"size":1}]`,
			`"gidMappings":[{"containerID":0,"hostID":200000,"size":10},` +
				`{"containerID":10,"hostID":10,"size":1}]`,
			`"Delegation":{"UID":100000,"GID":200000,"Files":["cgroup.procs","tasks"]}`,
		}},
	{"lxc.idmap = b 1000 1000 1\nlxc.init.uid = 1000\nlxc.init.gid = 1000", v2, []string{
		`"Delegation":{"UID":1000,"GID":1000,"Files":["cgroup.procs",` +
			`"cgroup.subtree_control","cgroup.threads"]}`, `!gid=5`,
	}},
	// The root.
	{"lxc.rootfs.options = ro,slave", nil,
		[]string{`"readonly":true`, `"rootfsPropagation":"slave"`}},
	{"lxc.rootfs.options = rw,nosuid,noatime", nil,
		[]string{`"RootOptions":["nosuid","noatime"]`, `!"readonly":true`}},
	// The process.
	{"lxc.init.cmd = /bin/sh -c 'a  b'", nil, []string{`"args":["/bin/sh","-c","a  b"]`}},
	{"lxc.init.cmd = sh", nil, []string{`"PATH=/usr/local/sbin:`}},
	{"lxc.init.cmd = sh\nlxc.environment = PATH=/bin", nil,
		[]string{`"env":["PATH=/bin","container=lxc"]`}},
	{"lxc.execute.cmd = /x", execute, []string{`"args":["env","-0"]`, `"Init":true`}},
	{"lxc.tty.max = 2", execute, []string{`!/dev/tty1`, `!container_ttys`}},
	{"lxc.init.cwd = /srv", nil, []string{`"cwd":"/srv"`}},
	{"lxc.init.uid = 7\nlxc.init.gid = 8\nlxc.init.groups = 9,10", nil, []string{
		`"user":{"uid":7,"gid":8,"additionalGids":[9,10]}`, `!"permitted"`}},
	{"lxc.environment = container=mine\nlxc.environment.runtime = A=1\n" +
		"lxc.environment = A=2", nil,
		[]string{`"env":["container=lxc","A=1"]`}},
	{"lxc.no_new_privs = 1", nil, []string{`"noNewPrivileges":true`}},
	{"lxc.prlimit.nofile = 10:20\nlxc.prlimit.nofile = 30", nil,
		[]string{`"rlimits":[{"type":"RLIMIT_NOFILE","hard":30,"soft":30}]`}},
	{"lxc.proc.oom_score_adj = -5\nlxc.proc.setgroups = deny", nil, []string{
		`"oomScoreAdj":-5`, `"Proc":[{"Name":"setgroups","Value":"deny"}]`}},
	{"lxc.sysctl.kernel.msgmax = 9\nlxc.sysctl.net.core.somaxconn = 8", nil,
		[]string{`"sysctl":{"kernel.msgmax":"9","net.core.somaxconn":"8"}`}},
	{"lxc.arch = i386", nil, []string{`"personality":{"domain":"LINUX32"}`}},
	{"lxc.arch = x86_64", nil, []string{`!"personality"`}},
	{"lxc.keyring.session = 0", nil, []string{`"NoNewKeyring":true`}},
	{"lxc.sched.core = 1", nil, []string{`"SchedCore":true`}},
	{"lxc.signal.halt = SIGINT\nlxc.signal.reboot = 3\nlxc.signal.stop = SIGQUIT", nil,
		[]string{`"Halt":2,"Reboot":3,"Stop":3`}},
	{"", nil, []string{`"Halt":0,"Reboot":0,"Stop":9`, `"args":["/sbin/init"]`}},
	// Capabilities.
	{"lxc.cap.drop = sys_boot 21", nil,
		[]string{`"CAP_SYS_PTRACE"`, `!CAP_SYS_BOOT`, `!CAP_SYS_ADMIN`}},
	{"lxc.cap.keep = kill", nil, []string{`"bounding":["CAP_KILL"]`}},
	{"lxc.cap.keep = none", nil, []string{`"capabilities":{}`}},
	{"", func(in *Input) { in.Host.Caps = 1 << 5 }, []string{`"bounding":["CAP_KILL"]`}},
	{mapping, func(in *Input) { in.Host.Caps = 1 << 5 }, []string{`"CAP_SYS_ADMIN"`}},
	// /dev.
	{"lxc.autodev = 0", nil, []string{`!tmpfs`, `/dev/pts`}},
	{"lxc.autodev.tmpfs.size = 1000000", nil, []string{`"mode=0755","size=1000000"`}},
	{"lxc.pty.max = 10\nlxc.tty.max = 2", nil, []string{`"max=268"`,
		`{"destination":"/dev/tty2","type":"bind","source":"/dev/pts/1"`,
		`"container_ttys=tty1 tty2"`, `!/dev/lxc`}},
	{"lxc.tty.dir = x\nlxc.tty.max = 1", nil, []string{`"/dev/x/tty1"`, `"/dev/tty1"`}},
	{"lxc.console.path = none", nil, []string{`!"terminal"`}},
	{"lxc.console.path = /dev/tty9", nil, []string{`!"terminal"`,
		`{"destination":"/dev/console","type":"bind","source":"/dev/tty9"`}},
	{mapping, nil, []string{`"gid=5"`}},
	// lxc.mount.auto.
	{"", nil, []string{`!"/proc"`, `!"/sys"`}},
	{"lxc.mount.auto = proc", nil, []string{`"/proc/sys/kernel"`, `!"/proc/sys"`,
		`"/proc/sysrq-trigger"`, `!"/proc/sys/net"`}},
	{"lxc.mount.auto = proc", func(in *Input) {
		in.Host.ProcSys = []string{"net", "odd"}
	}, []string{`"/proc/sys/odd"`, `!"/proc/sys/net"`}},
	{"lxc.mount.auto = proc\nlxc.cap.drop = net_admin", nil,
		[]string{`"readonlyPaths":["/proc/sys","/proc/sysrq-trigger"]`}},
	{"lxc.mount.auto = proc:rw", nil, []string{`"/proc"`, `!readonlyPaths`}},
	{"lxc.mount.auto = proc\nlxc.mount.auto = proc:rw", nil, []string{`!readonlyPaths`}},
	{"lxc.mount.auto = sys:rw", nil,
		[]string{`{"destination":"/sys","type":"sysfs","source":"sysfs"}`}},
	{"lxc.mount.auto = sys:ro", nil, []string{`"source":"sysfs","options":["ro"]`}},
	{"lxc.mount.auto = sys:mixed", nil, []string{`"options":["remount","ro"]`,
		`"source":"/srv/lxc/c/rootfs/sys/devices/virtual/net"`}},
	{"lxc.mount.auto = cgroup", nil, []string{`!/sys/fs/cgroup`}},
	{"lxc.mount.auto = cgroup:mixed:force", nil, []string{
		`"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup",` +
			`"options":["nosuid","nodev","noexec"]`}},
	{"lxc.mount.auto = cgroup-full:ro:force", nil,
		[]string{`"type":"cgroup"`, `"noexec","ro"]`}},
	{"lxc.mount.auto = cgroup:ro\nlxc.cap.drop = sys_admin", nil,
		[]string{`"type":"cgroup"`, `"noexec","ro"]`}},
	{"lxc.mount.auto = cgroup\nlxc.namespace.keep = cgroup", nil, []string{`"type":"cgroup"`}},
	{"lxc.mount.auto = cgroup-full:rw\nlxc.namespace.keep = cgroup", nil,
		[]string{`"destination":"/sys/fs/cgroup","type":"bind","source":"/sys/fs/cgroup",` +
			`"options":["rbind","nosuid"`}},
	{"lxc.mount.auto = cgroup:mixed", v2, []string{`"type":"cgroup"`, `!"ro"`}},
	{"lxc.mount.auto = cgroup2:ro", v2, []string{`"type":"cgroup"`, `"noexec","ro"]`}},
	{"lxc.mount.auto = shmounts:/a:/b", nil,
		[]string{`"destination":"/b","type":"bind","source":"/a","options":["bind","rslave"]`}},
	// Entries.
	{"lxc.mount.entry = /a b none rbind,ro,rslave 0 0", nil,
		[]string{`"destination":"/b","type":"bind","source":"/a",` +
			`"options":["rbind","ro","rslave"]`}},
	{"lxc.mount.entry = a b none bind,relative 0 0", nil,
		[]string{`"source":"/srv/lxc/c/rootfs/a"`}},
	{"lxc.mount.entry = /a /srv/lxc/c/rootfs/b none bind 0 0", nil,
		[]string{`"destination":"/b"`}},
	{"lxc.mount.entry = /a /srv/lxc/c/rootfsx/b none bind 0 0", nil, []string{
		`!"source":"/a"`, `lxc.mount.entry = /a /srv/lxc/c/rootfsx/b none: ignored`}},
	{"lxc.mount.entry = /a ../../b none bind 0 0", nil, []string{`"destination":"/b"`}},
	{"lxc.mount.entry = /a b none bind,optional,create=dir 0 0", nil,
		[]string{`!"source":"/a"`}},
	{"lxc.mount.entry = /srv/data b none bind,optional 0 0", nil,
		[]string{`!"source":"/srv/data"`}},
	{"lxc.mount.entry = /srv/data b none bind,optional,create=dir 0 0", nil,
		[]string{`"source":"/srv/data"`}},
	{"lxc.mount.auto = sys\nlxc.mount.entry = /srv/data sys/x none bind,optional 0 0", nil,
		[]string{`!"source":"/srv/data"`}},
	{"lxc.mount.entry = /srv/data dev/x none bind,optional 0 0", nil,
		[]string{`!"source":"/srv/data"`}},
	{"lxc.mount.entry = tmpfs dev/shm tmpfs optional,create=dir,mode=1777 0 0", nil,
		[]string{`"destination":"/dev/shm","type":"tmpfs","source":"tmpfs",` +
			`"options":["mode=1777"]`}},
	{"lxc.mount.auto = sys\nlxc.mount.entry = none sys none remount,rw 0 0", nil,
		[]string{`{"destination":"/sys","type":"bind","options":["remount","rw"]}`}},
	{"lxc.mount.entry = /a b none bind,idmap=container 0 0" + mapping, nil,
		[]string{`"options":["bind","idmap"]`}},
	{"lxc.mount.entry = /a b none bind,nofail,sync,noexec 0 0", nil, []string{
		`"options":["bind","noexec"]`, `/a b none: option nofail is left out`,
		`/a b none: option sync is left out`}},
	{"lxc.mount.entry = x b tmpfs nofail 0 0", nil, []string{
		`"options":["nofail"]`, `"Warnings":null`}},
	{"lxc.mount.entry = none b overlay lowerdir=/l,upperdir=/srv/lxc/c/u/,workdir=/srv/lxc/c/w 0 0",
		nil, []string{`"Dirs":["/srv/lxc/c/u","/srv/lxc/c/w"]`, `"lowerdir=/l"`}},
	{"lxc.mount.entry = none b overlay upperdir=/srv/lxc/c/rootfs/u,workdir=/srv/lxc/cc/w 0 0", nil,
		[]string{`"Dirs":null`}},
	{"", func(in *Input) {
		in.FSTab = []config.MountEntry{{Source: "/a", Target: "b", Type: "ext4"}}
	}, []string{`{"destination":"/b","type":"ext4","source":"/a"}`}},
	// Limits, on version 1.
	{"", nil, []string{`"devices":[{"allow":true,"type":"a","access":"rwm"}]`}},
	{"lxc.cgroup.devices.deny = a *:* rwm\nlxc.cgroup.devices.allow = c 1:* r", nil, []string{
		`"devices":[{"allow":false,"type":"a","access":"rwm"},` +
			`{"allow":true,"type":"c","major":1,"access":"r"}]`}},
	{"lxc.cgroup.memory.limit_in_bytes = 1g\nlxc.cgroup.memory.memsw.limit_in_bytes = -1\n" +
		"lxc.cgroup.memory.soft_limit_in_bytes = 0x1000\nlxc.cgroup.memory.swappiness = 5\n" +
		"lxc.cgroup.memory.oom_control = 1\n" +
		"lxc.cgroup.memory.kmem.tcp.limit_in_bytes = 2K", nil,
		[]string{`"memory":{"limit":1073741824,"reservation":4096,"swap":-1,"kernelTCP":2048,` +
			`"swappiness":5,"disableOOMKiller":true}`}},
	{"lxc.cgroup.cpu.shares = 2\nlxc.cgroup.cpu.cfs_quota_us = -1\n" +
		"lxc.cgroup.cpu.cfs_period_us = 4\n" +
		"lxc.cgroup.cpu.cfs_burst_us = 5\nlxc.cgroup.cpu.rt_runtime_us = 6\n" +
		"lxc.cgroup.cpu.rt_period_us = 7\nlxc.cgroup.cpu.idle = 1\n" +
		"lxc.cgroup.cpuset.cpus = 0-1\n" +
		"lxc.cgroup.cpuset.mems = 0", nil, []string{
		`"cpu":{"shares":2,"quota":-1,"burst":5,"period":4,"realtimeRuntime":6,` +
			`"realtimePeriod":7,"cpus":"0-1","mems":"0","idle":1}`}},
	{"lxc.cgroup.pids.max = max\nlxc.cgroup.blkio.weight = 500\n" +
		"lxc.cgroup.net_cls.classid = 0x10", nil,
		[]string{`"pids":{"limit":-1}`, `"blockIO":{"weight":500}`,
			`"network":{"classID":16}`}},
	{"lxc.cgroup.memory.move_charge_at_immigrate = 1", nil,
		[]string{`"Group":[{"Name":"memory.move_charge_at_immigrate","Value":"1"}]`}},
	{"lxc.cgroup2.memory.max = 1G", nil, []string{
		`"lxc.cgroup2.memory.max = 1G: ignored, because this host has version 1 cgroups"`}},
	{"lxc.cgroup2.devices.deny = a", nil, []string{
		`"devices":[{"allow":false,"type":"a","access":"rwm"}]`, `"Warnings":null`}},
	{"lxc.cgroup2.devices.deny = a\nlxc.cgroup.devices.deny = b 1:1 r", nil, []string{
		`"devices":[{"allow":false,"type":"b","major":1,"minor":1,"access":"r"}]`}},
	{"lxc.cgroup2.memory.max = 1G\nlxc.cgroup.memory.limit_in_bytes = 1G", nil,
		[]string{`"Warnings":null`}},
	{"lxc.cgroup2.io.weight = 1\nlxc.cgroup.blkio.weight = 10", nil,
		[]string{`"Warnings":null`}},
	// Limits, on version 2.
	{"lxc.cgroup2.cpuset.cpus = 1\nlxc.cgroup2.cpuset.mems = 0\nlxc.cgroup2.pids.max = 9\n" +
		"lxc.cgroup2.memory.high = 1M\nlxc.cgroup2.cgroup.freeze = 0\n" +
		"lxc.cgroup.memory.limit_in_bytes = 1\nlxc.cgroup2.devices.allow = a", v2, []string{
		`"cpu":{"cpus":"1","mems":"0"}`, `"pids":{"limit":9}`, `"unified":{"memory.high":"1M"}`,
		`"Group":[{"Name":"cgroup.freeze","Value":"0"}]`, `"Warnings":null`}},
	// Labels.
	{"", appArmor, []string{`"apparmorProfile":"lxc-container-default-cgns"`}},
	{"", func(in *Input) { in.Host.AppArmor, in.Host.NoLXCProfiles = true, true },
		[]string{`"apparmorProfile":"lxc-c"`, `profile \"lxc-c\"`}},
	{"lxc.apparmor.profile = unconfined",
		func(in *Input) { in.Host.AppArmor, in.Host.NoLXCProfiles = true, true },
		[]string{`"apparmorProfile":"unconfined"`, `"AppArmorProfile":""`}},
	{"lxc.namespace.keep = cgroup", appArmor,
		[]string{`"apparmorProfile":"lxc-container-default"`}},
	{"lxc.apparmor.profile = unconfined", appArmor, []string{`"apparmorProfile":"unconfined"`}},
	{"lxc.apparmor.profile = unchanged", appArmor, []string{`!apparmorProfile`}},
	{"lxc.apparmor.profile = mine\nlxc.apparmor.raw = x,", appArmor, []string{
		`"apparmorProfile":"mine"`, `lxc.apparmor.raw = x,: ignored`, `"AppArmorProfile":""`}},
	{"lxc.apparmor.profile = generated\nlxc.apparmor.raw = deny /x r,", appArmor, []string{
		`"apparmorProfile":"lxc-c"`, `  deny /x r,\n}\n`, `deny /sys/`, `!  ptrace,\n`}},
	{"lxc.apparmor.profile = generated" + mapping, appArmor,
		[]string{`mount options=(rw, bind),`}},
	{"lxc.apparmor.profile = mine", nil, []string{
		`lxc.apparmor.profile = mine: ignored, because this host has no AppArmor`}},
	{"lxc.apparmor.profile = unconfined", nil, []string{`"Warnings":null`}},
	{"lxc.apparmor.allow_nesting = 1", nil, []string{`"/dev/.lxc/proc"`, `"/dev/.lxc/sys"`}},
	{"lxc.selinux.context = a:b:c:d", selinux, []string{`"selinuxLabel":"a:b:c:d"`}},
	{"lxc.selinux.context = a:b:c:d", nil,
		[]string{`lxc.selinux.context = a:b:c:d: ignored`, `!selinuxLabel`}},
	{"lxc.selinux.context.keyring = a", nil,
		[]string{`lxc.selinux.context.keyring = a: ignored`}},
	// Filters.
	{"lxc.seccomp.profile = /p", func(in *Input) { in.Host.Confined = true },
		[]string{`!"seccomp":`, `lxc.seccomp.profile = /p: not installed`}},
	{"lxc.seccomp.profile = /p\nlxc.seccomp.allow_nesting = 1",
		func(in *Input) { in.Host.Confined = true }, []string{`"seccomp":`}},
	{"lxc.seccomp.profile = /p\nlxc.seccomp.notify.proxy = unix:/run/agent\n" +
		"lxc.seccomp.notify.cookie = x", func(in *Input) {
		in.Seccomp = []byte("2\ndenylist\nmount notify\n")
	}, []string{`"listenerPath":"/run/agent","listenerMetadata":"x"`}},
	{"lxc.seccomp.profile = /p", func(in *Input) {
		in.Host.Syscalls = func(string) bool { return false }
	}, []string{`kexec_load is not a system call here`}},
	// Hooks.
	{"lxc.hook.pre-start = /a\nlxc.hook.post-stop = /b", nil, []string{`!"hooks"`}},
	{"lxc.hook.autodev = /a", nil,
		[]string{`"createContainer":[{"path":"/a","args":["/a","c","lxc","autodev"]`}},
	{"lxc.hook.autodev = /a\nlxc.autodev = 0", nil, []string{`!"hooks"`}},
	{"lxc.hook.mount = /a\nlxc.hook.start = /b", nil,
		[]string{`"args":["/a","c","lxc","mount"]`,
			`"startContainer":[{"path":"/b","args":["/b","c","lxc","start"]`,
			`!SECRET`, `"PATH=/usr/bin:/bin"`}},
}

// TestKeys: each line shows in the result. want is part of Made as JSON; one that starts with "!"
// is not in it.
func TestKeys(t *testing.T) {
	t.Parallel()
	for _, c := range keyCases {
		t.Run(c.lines, func(t *testing.T) {
			t.Parallel()
			in := input(parse(t, base, c.lines), host1)
			if c.change != nil {
				c.change(in)
			}
			made, err := Make(in)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := json.Marshal(made)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				text, not := strings.CutPrefix(want, "!")
				if strings.Contains(unescape(string(raw)), text) == not {
					t.Errorf("want %s in\n%s", want, raw)
				}
			}
			accept(t, in, made)
		})
	}
}

// unescape takes back what encoding/json does for HTML.
func unescape(s string) string {
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(s)
}

// refusedCases are lines or settings, and how the error begins.
var refusedCases = []struct {
	lines  string
	change func(in *Input)
	want   string
}{
	{"lxc.namespace.share.net = other", nil, "lxc.namespace.share.net = other: there is no"},
	{"lxc.namespace.keep = mnt", nil, "lxc.namespace = mnt: the container's root"},
	{"", func(in *Input) { in.Config.Namespace.Clone = []string{"mnt", "disk"} },
		"lxc.namespace.clone = disk: want some of user, mnt"},
	{"", func(in *Input) {
		in.Config.Namespace.Clone, in.Config.Namespace.Keep = []string{"mnt"}, []string{"net"}
	}, "lxc.namespace.keep = net: lxc.namespace.clone says the opposite"},
	{"", func(in *Input) { in.Config.Namespace.Share = map[string]string{"x": "y"} },
		"lxc.namespace.share.x = y: want one of"},
	{"lxc.namespace.clone = mnt user", nil, "lxc.namespace.clone = user: "},
	{"lxc.namespace.keep = user" + mapping, nil, "lxc.idmap = b 0: the configuration keeps"},
	{"lxc.idmap = u 0 100000 10", nil, "lxc.idmap = g: missing"},
	{"lxc.idmap = b 1 100000 10\nlxc.init.uid = 20", nil, "lxc.init.uid = 20: lxc.idmap"},
	{"lxc.idmap = u 0 1000 10\nlxc.idmap = g 1 1000 10", nil, "lxc.init.gid = 0: lxc.idmap"},
	{"lxc.namespace.keep = time\nlxc.time.offset.boot = 1s", nil,
		"lxc.time.offset.boot = 1s: the container has no time namespace"},
	{"", func(in *Input) { in.Config.TimeOffset.Boot = "1d" },
		"lxc.time.offset.boot = 1d: want a whole number and one of h, m"},
	{"", func(in *Input) { in.Config.TimeOffset.Boot = "9223372036854775807h" },
		"lxc.time.offset.boot = "},
	{"lxc.rootfs.options = idmap=container", nil, "lxc.rootfs.options = idmap=container: the"},
	{"lxc.rootfs.options = idmap=/proc/1/ns/user" + mapping, nil,
		"lxc.rootfs.options = idmap=/"},
	{"lxc.execute.cmd =", func(in *Input) { in.Command = []string{} },
		"lxc.execute.cmd: missing"},
	{"", func(in *Input) { in.Config.Init.Cmd = `sh "` }, `lxc.init.cmd = sh ": a quote`},
	{"", func(in *Input) { in.Config.Init.Cmd = `"" x` },
		`lxc.init.cmd = "" x: want a prog`},
	{"", func(in *Input) { in.Config.Init.Cwd = "srv" },
		"lxc.init.cwd = srv: want an abs"},
	{"", func(in *Input) { in.Config.Init.UID = -1 }, "lxc.init.uid = -1: want 0 to"},
	{"", func(in *Input) { in.Config.Init.Groups = []int{1 << 32} },
		"lxc.init.groups = 42949"},
	{"", func(in *Input) { in.Config.Prlimit = []config.Prlimit{{Name: "x"}} },
		"lxc.prlimit.x = 0:0: want one of as, core"},
	{"", func(in *Input) { in.Config.Prlimit = []config.Prlimit{{Name: "as", Soft: 1}} },
		"lxc.prlimit.as = 1:0: the soft limit"},
	{"lxc.proc.oom_score_adj = 1001", nil, "lxc.proc.oom_score_adj = 1001: want -1000"},
	{"", func(in *Input) {
		in.Config.Proc = []config.Setting{{Name: "../x", Value: "1"}}
	}, "lxc.proc.../x = 1: want the name"},
	{"lxc.sysctl.vm.swappiness = 1", nil, "lxc.sysctl.vm.swappiness = 1: the host and all"},
	{"lxc.sysctl.kernel.hostname = x", nil, "lxc.sysctl.kernel.hostname = x: set lxc.uts.name"},
	{"lxc.sysctl.net.a = 1\nlxc.net.0.type = none", nil,
		"lxc.sysctl.net.a = 1: the container has the host's network"},
	{"", func(in *Input) { in.Config.Arch = "vax" }, "lxc.arch = vax: want one of arm"},
	{"", func(in *Input) { in.Config.Signal.Stop = 65 }, "lxc.signal.stop = 65: want"},
	{"", func(in *Input) { in.Config.Caps.Drop = []string{"fly"} },
		"lxc.cap.drop = fly: want names"},
	{"", func(in *Input) { in.Config.Caps.Drop = []string{"none"} },
		"lxc.cap.drop = none: "},
	{"", func(in *Input) {
		in.Config.Caps.Drop, in.Config.Caps.Keep = []string{"kill"}, []string{"chown"}
	}, "lxc.cap.keep = chown: lxc.cap.drop"},
	{"", func(in *Input) { in.Config.Mount.Auto = []config.AutoMount{{What: "dev"}} },
		"lxc.mount.auto = dev: want proc, sys"},
	{"", func(in *Input) {
		in.Config.Mount.Auto = []config.AutoMount{{What: "proc", Variant: "ro"}}
	}, "lxc.mount.auto = proc:ro: want proc,"},
	{"", func(in *Input) {
		in.Config.Mount.Auto = []config.AutoMount{{What: "sys", Variant: "x"}}
	}, "lxc.mount.auto = sys:x: want sys,"},
	{"", func(in *Input) {
		in.Config.Mount.Auto = []config.AutoMount{{What: "cgroup", Variant: "x"}}
	}, "lxc.mount.auto = cgroup:x: want the variant"},
	{"", func(in *Input) {
		in.Config.Mount.Auto = []config.AutoMount{{What: "shmounts", HostPath: "x"}}
	}, "lxc.mount.auto = shmounts:x: want"},
	{"lxc.mount.auto = cgroup2", nil, "lxc.mount.auto = cgroup2: this host has version 1"},
	{"lxc.mount.auto = cgroup-full:mixed\nlxc.namespace.keep = cgroup", nil,
		"lxc.mount.auto = cgroup-full:mixed: a tree"},
	{"lxc.mount.entry = /a . none bind 0 0", nil, "lxc.mount.entry = /a . none: nothing can"},
	{"lxc.mount.entry = a b none bind 0 0", nil, "lxc.mount.entry = a b none: the source"},
	{"lxc.mount.entry = a b none ro 0 0", nil, "lxc.mount.entry = a b none: want a filesystem"},
	{"lxc.mount.entry = /a b none move 0 0", nil, `lxc.mount.entry = /a b none: option "move"`},
	{"lxc.mount.entry = /a b none bind,idmap=container 0 0", nil,
		"lxc.mount.entry = /a b none: option \"idmap=container\": the container has no user"},
	{"lxc.mount.entry = /a b none bind,idmap=/proc/1/ns/user 0 0" + mapping, nil,
		`lxc.mount.entry = /a b none: option "idmap=/proc/1/ns/user": want "idmap=container"`},
	{"", func(in *Input) {
		in.Config.Cgroup = []config.Setting{{Name: "devices.allow", Value: "c 1 r"}}
	}, `lxc.cgroup.devices.allow = c 1 r: want "a", or TYPE`},
	{"", func(in *Input) {
		in.Config.Cgroup = []config.Setting{{Name: "devices.deny", Value: "d 1:1 r"}}
	}, `lxc.cgroup.devices.deny = d 1:1 r: want`},
	{"", func(in *Input) {
		in.Config.Cgroup = []config.Setting{{Name: "../memory.x", Value: "1"}}
	}, "lxc.cgroup.../memory.x = 1: want the name of a file"},
	{"lxc.cgroup.memory.limit_in_bytes = lots", nil,
		"lxc.cgroup.memory.limit_in_bytes = lots: want bytes"},
	{"lxc.cgroup.memory.limit_in_bytes = 16E", nil,
		"lxc.cgroup.memory.limit_in_bytes = 16E: want bytes"},
	{"lxc.cgroup.memory.limit_in_bytes = -1k", nil,
		"lxc.cgroup.memory.limit_in_bytes = -1k: want"},
	{"lxc.cgroup.cpu.shares = -1", nil, "lxc.cgroup.cpu.shares = -1: want a number"},
	{"lxc.cgroup.blkio.weight = 9", nil, "lxc.cgroup.blkio.weight = 9: want 10 to 1000"},
	{"lxc.cgroup.memory.oom_control = 2", nil,
		"lxc.cgroup.memory.oom_control = 2: want 0 or 1"},
	{"lxc.cgroup.net_cls.classid = x", nil, "lxc.cgroup.net_cls.classid = x: want"},
	{"lxc.cgroup2.pids.max = x", v2, "lxc.cgroup2.pids.max = x: want a number or max"},
	{"lxc.apparmor.profile = generated", func(in *Input) {
		in.Host.AppArmor, in.Name = true, "a b"
	}, `lxc.apparmor.profile = generated: the container's name "a b"`},
	{"lxc.selinux.context.keyring = a", selinux,
		"lxc.selinux.context.keyring = a: the session"},
	{"lxc.seccomp.profile = /p", func(in *Input) { in.Seccomp = []byte("2\nno\n") },
		`lxc.seccomp.profile = /p: line 2: "no": want allowlist or denylist`},
	{"lxc.seccomp.profile = /p", func(in *Input) {
		in.Seccomp = []byte("2\ndenylist\nmount notify\n")
	}, "lxc.seccomp.notify.proxy: the policy has the action notify"},
	{"", func(in *Input) { in.Config.Hooks = map[string][]string{"x": {"/y"}} },
		"lxc.hook.x = /y: want one of pre-start"},
	{"", func(in *Input) { in.Config.HookVersion = 2 },
		"lxc.hook.version = 2: want 0 or 1"},
}

// TestRefused: what cannot be honoured is an error that names the setting.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range refusedCases {
		t.Run(c.lines+" "+c.want, func(t *testing.T) {
			t.Parallel()
			in := input(parse(t, base, c.lines), host1)
			if c.change != nil {
				c.change(in)
			}
			_, err := Make(in)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) ||
				!errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}
