package config

import (
	"math"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// parse reads a configuration that must be right.
func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("config", strings.NewReader(text))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return c
}

// meaning is a configuration without the lines that say so.
func meaning(c *Config) *Config {
	other := *c
	other.lines, other.entries = nil, nil
	return &other
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// keyCases have for every key lines that set it, what these mean, and what Get says.
var keyCases = []struct {
	lines string
	want  func(*Config)
	key   string
	get   []string
}{
	{"lxc.arch = amd64", func(c *Config) { c.Arch = "amd64" }, "lxc.arch", []string{"x86_64"}},
	{"lxc.arch = i586", func(c *Config) { c.Arch = "i586" }, "lxc.arch", []string{"i686"}},
	{"lxc.arch = aarch64", func(c *Config) { c.Arch = "aarch64" }, "lxc.arch", []string{"aarch64"}},
	{"lxc.apparmor.profile = generated",
		func(c *Config) { c.AppArmor.Profile = "generated" },
		"lxc.apparmor.profile", []string{"generated"}},
	{"lxc.apparmor.allow_incomplete = 1", func(c *Config) { c.AppArmor.AllowIncomplete = true },
		"lxc.apparmor.allow_incomplete", []string{"1"}},
	{"lxc.apparmor.allow_nesting = 1", func(c *Config) { c.AppArmor.AllowNesting = true },
		"lxc.apparmor.allow_nesting", []string{"1"}},
	{"lxc.apparmor.raw = deny /proc/kcore r,\nlxc.apparmor.raw = mount,",
		func(c *Config) { c.AppArmor.Raw = []string{"deny /proc/kcore r,", "mount,"} },
		"lxc.apparmor.raw", []string{"deny /proc/kcore r,", "mount,"}},
	{"lxc.autodev.tmpfs.size = 1MB", func(c *Config) { c.AutoDevTmpfsSize = 1 << 20 },
		"lxc.autodev.tmpfs.size", []string{"1048576"}},
	{"", func(*Config) {}, "lxc.autodev.tmpfs.size", []string{"0"}},
	{"lxc.autodev = 0", func(c *Config) { c.AutoDev = new(bool) }, "lxc.autodev", []string{"0"}},
	{"lxc.autodev = 0\nlxc.autodev =", func(*Config) {}, "lxc.autodev", []string{"1"}},
	{"lxc.cap.drop = sys_module mknod\nlxc.cap.drop = 12",
		func(c *Config) { c.Caps.Drop = []string{"sys_module", "mknod", "net_admin"} },
		"lxc.cap.drop", []string{"sys_module", "mknod", "net_admin"}},
	{"lxc.cap.keep = chown kill", func(c *Config) { c.Caps.Keep = []string{"chown", "kill"} },
		"lxc.cap.keep", []string{"chown", "kill"}},
	{"lxc.cap.keep = chown none", func(c *Config) { c.Caps.Keep = []string{"none"} },
		"lxc.cap.keep", []string{"none"}},
	{"lxc.cap.keep = chown none kill", func(c *Config) { c.Caps.Keep = []string{"kill"} },
		"lxc.cap.keep", []string{"kill"}},
	{"lxc.cap.drop = chown\nlxc.cap.drop =\nlxc.cap.keep = kill",
		func(c *Config) { c.Caps.Keep = []string{"kill"} }, "lxc.cap.drop", nil},
	{"lxc.cgroup2.memory.max = 1G\nlxc.cgroup2.pids.max = 9\nlxc.cgroup2.memory.max = 2G",
		func(c *Config) {
			c.Cgroup2 = []Setting{{"memory.max", "1G"}, {"pids.max", "9"}, {"memory.max", "2G"}}
		}, "lxc.cgroup2.memory.max", []string{"1G", "2G"}},
	{"lxc.cgroup2.memory.max = 1G\nlxc.cgroup2.pids.max = 9\nlxc.cgroup2.memory.max =",
		func(c *Config) { c.Cgroup2 = []Setting{{"pids.max", "9"}} },
		"lxc.cgroup2", []string{"lxc.cgroup2.pids.max = 9"}},
	{"lxc.cgroup.devices.deny = a\nlxc.cgroup.devices.allow = c 1:3 rwm",
		func(c *Config) {
			c.Cgroup = []Setting{{"devices.deny", "a"}, {"devices.allow", "c 1:3 rwm"}}
		}, "lxc.cgroup.devices.allow", []string{"c 1:3 rwm"}},
	{"lxc.cgroup.devices.deny = a\nlxc.cgroup.dir = x\nlxc.cgroup =",
		func(c *Config) { c.CgroupDir.Dir = "x" }, "lxc.cgroup", nil},
	{"lxc.cgroup.dir.monitor.pivot = a/b", func(c *Config) { c.CgroupDir.MonitorPivot = "a/b" },
		"lxc.cgroup.dir.monitor.pivot", []string{"a/b"}},
	{"lxc.cgroup.dir.monitor = m", func(c *Config) { c.CgroupDir.Monitor = "m" },
		"lxc.cgroup.dir.monitor", []string{"m"}},
	{"lxc.cgroup.dir.container.inner = i", func(c *Config) { c.CgroupDir.ContainerInner = "i" },
		"lxc.cgroup.dir.container.inner", []string{"i"}},
	{"lxc.cgroup.dir.container = c", func(c *Config) { c.CgroupDir.Container = "c" },
		"lxc.cgroup.dir.container", []string{"c"}},
	{"lxc.cgroup.dir = d//e/./f/", func(c *Config) { c.CgroupDir.Dir = "d/e/f" },
		"lxc.cgroup.dir", []string{"d/e/f"}},
	{"lxc.cgroup.relative = 1", func(c *Config) { c.CgroupRelative = true },
		"lxc.cgroup.relative", []string{"1"}},
	{"lxc.console.buffer.size = auto", func(c *Config) { c.Console.BufferSize = 1 << 17 },
		"lxc.console.buffer.size", []string{"131072"}},
	{"lxc.console.buffer.size = 100 kB", func(c *Config) { c.Console.BufferSize = 1 << 17 },
		"lxc.console.buffer.size", []string{"131072"}},
	{"lxc.console.size = 3MB", func(c *Config) { c.Console.Size = 4 << 20 },
		"lxc.console.size", []string{"4194304"}},
	{"lxc.console.size = 1B", func(c *Config) { c.Console.Size = int64(os.Getpagesize()) },
		"lxc.console.rotate", []string{"0"}},
	{"lxc.console.logfile = /var/log//c", func(c *Config) { c.Console.LogFile = "/var/log/c" },
		"lxc.console.logfile", []string{"/var/log/c"}},
	{"lxc.console.path = none", func(c *Config) { c.Console.Path = "none" },
		"lxc.console.path", []string{"none"}},
	{"lxc.console.rotate = 1", func(c *Config) { c.Console.Rotate = true },
		"lxc.console.rotate", []string{"1"}},
	{"lxc.sched.core = 1", func(c *Config) { c.SchedCore = true }, "lxc.sched.core", []string{"1"}},
	{"lxc.environment = A=b c\nlxc.environment = TERM",
		func(c *Config) { c.Environment = []string{"A=b c", "TERM"} },
		"lxc.environment", []string{"A=b c", "TERM"}},
	{`lxc.environment = "A='x"'`, func(c *Config) { c.Environment = []string{`"A='x"'`} },
		"lxc.environment", []string{`"A='x"'`}},
	{`lxc.environment = "`, func(c *Config) { c.Environment = []string{`"`} },
		"lxc.environment", []string{`"`}},
	{`lxc.environment = "A= x "`, func(c *Config) { c.Environment = []string{"A= x "} },
		"lxc.environment", []string{"A= x "}},
	{"lxc.environment.runtime = A=", func(c *Config) { c.EnvironmentRuntime = []string{"A="} },
		"lxc.environment.runtime", []string{"A="}},
	{"lxc.environment.hooks = A=1", func(c *Config) { c.EnvironmentHooks = []string{"A=1"} },
		"lxc.environment.hooks", []string{"A=1"}},
	{"lxc.ephemeral = 1", func(c *Config) { c.Ephemeral = true }, "lxc.ephemeral", []string{"1"}},
	{"lxc.execute.cmd = '/bin/sh -c \"id\"'",
		func(c *Config) { c.ExecuteCmd = `/bin/sh -c "id"` },
		"lxc.execute.cmd", []string{`/bin/sh -c "id"`}},
	{"lxc.group = onboot web,db\nlxc.group = late",
		func(c *Config) { c.Groups = []string{"onboot", "web,db", "late"} },
		"lxc.group", []string{"onboot", "web,db", "late"}},
	{"lxc.hook.pre-start = /a b\nlxc.hook.pre-start = /c\nlxc.hook.stop = /d",
		func(c *Config) {
			c.Hooks = map[string][]string{"pre-start": {"/a b", "/c"}, "stop": {"/d"}}
		}, "lxc.hook.pre-start", []string{"/a b", "/c"}},
	{"lxc.hook.mount = /a\nlxc.hook.mount =\nlxc.hook.version = 1",
		func(c *Config) { c.HookVersion = 1 }, "lxc.hook.mount", nil},
	{"lxc.hook.clone = /a\nlxc.hook.version = 1\nlxc.hook =",
		func(c *Config) { c.HookVersion = 1 }, "lxc.hook.version", []string{"1"}},
	{"lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536",
		func(c *Config) { c.IDMap = []IDMap{{'u', 0, 100000, 65536}, {'g', 0, 100000, 65536}} },
		"lxc.idmap", []string{"u 0 100000 65536", "g 0 100000 65536"}},
	{"lxc.idmap = b\t1000   1000 1", func(c *Config) { c.IDMap = []IDMap{{'b', 1000, 1000, 1}} },
		"lxc.idmap", []string{"b 1000 1000 1"}},
	{"lxc.idmap = u 0 0 4294967295\nlxc.idmap = g 10 4294967294 1\nlxc.idmap = g 0 5 10",
		func(c *Config) {
			c.IDMap = []IDMap{{'u', 0, 0, 1<<32 - 1}, {'g', 10, 1<<32 - 2, 1}, {'g', 0, 5, 10}}
		}, "lxc.idmap", []string{"u 0 0 4294967295", "g 10 4294967294 1", "g 0 5 10"}},
	{"lxc.include =", func(*Config) {}, "lxc.include", nil},
	{"lxc.init.cmd = /sbin/init --x", func(c *Config) { c.Init.Cmd = "/sbin/init --x" },
		"lxc.init.cmd", []string{"/sbin/init --x"}},
	{"lxc.init.gid = 5", func(c *Config) { c.Init.GID = 5 }, "lxc.init.gid", []string{"5"}},
	{"lxc.init.uid = 0x10", func(c *Config) { c.Init.UID = 16 }, "lxc.init.uid", []string{"16"}},
	{"lxc.init.groups = 1,2\nlxc.init.groups = 3",
		func(c *Config) { c.Init.Groups = []int{1, 2, 3} }, "lxc.init.groups", []string{"1,2,3"}},
	{"lxc.init.cwd = /srv/", func(c *Config) { c.Init.Cwd = "/srv" },
		"lxc.init.cwd", []string{"/srv"}},
	{"lxc.keyring.session = 0", func(c *Config) { c.KeyringSession = new(bool) },
		"lxc.keyring.session", []string{"0"}},
	{"lxc.log.file = /l", func(c *Config) { c.Log.File = "/l" }, "lxc.log.file", []string{"/l"}},
	{"lxc.log.level = debug", func(c *Config) { c.Log.Level = "DEBUG" },
		"lxc.log.level", []string{"DEBUG"}},
	{"lxc.log.level = 5", func(c *Config) { c.Log.Level = "ERROR" },
		"lxc.log.level", []string{"ERROR"}},
	{"", func(*Config) {}, "lxc.log.level", []string{"NOTSET"}},
	{"lxc.log.syslog = LOCAL0", func(c *Config) { c.Log.Syslog = "local0" },
		"lxc.log.syslog", []string{"local0"}},
	{"lxc.monitor.unshare = 1", func(c *Config) { c.MonitorUnshare = true },
		"lxc.monitor.unshare", []string{"1"}},
	{"lxc.monitor.signal.pdeath = SIGTERM", func(c *Config) {
		c.MonitorSignalPdeath = new(int)
		*c.MonitorSignalPdeath = 15
	}, "lxc.monitor.signal.pdeath", []string{"15"}},
	{"lxc.monitor.signal.pdeath = 0", func(c *Config) { c.MonitorSignalPdeath = new(int) },
		"lxc.monitor.signal.pdeath", []string{"0"}},
	{"lxc.mount.auto = cgroup:mixed proc sys:ro\nlxc.mount.auto = sys:rw",
		func(c *Config) {
			c.Mount.Auto = []AutoMount{{What: "proc"}, {What: "sys", Variant: "rw"},
				{What: "cgroup", Variant: "mixed"}}
		}, "lxc.mount.auto", []string{"proc:mixed sys:rw cgroup:mixed"}},
	{"lxc.mount.auto = cgroup-full:rw:force shmounts:/srv/shared:/mnt",
		func(c *Config) {
			c.Mount.Auto = []AutoMount{{What: "cgroup", Variant: "rw", Full: true, Force: true},
				{What: "shmounts", HostPath: "/srv/shared", ContainerPath: "/mnt"}}
		}, "lxc.mount.auto", []string{"cgroup-full:rw:force shmounts:/srv/shared:/mnt"}},
	{"lxc.mount.auto = cgroup:force\nlxc.mount.auto = cgroup2:ro",
		func(c *Config) { c.Mount.Auto = []AutoMount{{What: "cgroup2", Variant: "ro"}} },
		"lxc.mount.auto", []string{"cgroup2:ro"}},
	{"lxc.mount.auto = proc\nlxc.mount.auto =", func(*Config) {}, "lxc.mount.auto", nil},
	{`lxc.mount.entry = /a\040b srv/x none bind,create=dir,optional,ro 0 0`,
		func(c *Config) {
			c.Mount.Entries = []MountEntry{{Source: "/a b", Target: "srv/x", Type: "none",
				Options: []string{"bind", "ro"}, Create: "dir", Optional: true}}
		}, "lxc.mount.entry", []string{`/a\040b srv/x none bind,create=dir,optional,ro 0 0`}},
	{"lxc.mount.entry = tmpfs tmp tmpfs defaults,relative,create=file",
		func(c *Config) {
			c.Mount.Entries = []MountEntry{{Source: "tmpfs", Target: "tmp", Type: "tmpfs",
				Create: "file", Relative: true}}
		}, "lxc.mount.entry", []string{"tmpfs tmp tmpfs defaults,relative,create=file"}},
	{"lxc.mount.entry = a b c\nlxc.mount.entry =", func(*Config) {}, "lxc.mount.entry", nil},
	{"lxc.mount.fstab = /f", func(c *Config) { c.Mount.FSTab = "/f" },
		"lxc.mount.fstab", []string{"/f"}},
	{"lxc.namespace.clone = net pid\nlxc.namespace.clone = USER net",
		func(c *Config) { c.Namespace.Clone = []string{"user", "pid", "net"} },
		"lxc.namespace.clone", []string{"user", "pid", "net"}},
	{"lxc.namespace.keep = time ipc",
		func(c *Config) { c.Namespace.Keep = []string{"ipc", "time"} },
		"lxc.namespace.keep", []string{"ipc", "time"}},
	{"lxc.namespace.share.net = web\nlxc.namespace.share.ipc = 12\nlxc.namespace.share.ipc =",
		func(c *Config) { c.Namespace.Share = map[string]string{"net": "web"} },
		"lxc.namespace.share.net", []string{"web"}},
	{"lxc.time.offset.boot = -2h", func(c *Config) { c.TimeOffset.Boot = "-2h" },
		"lxc.time.offset.boot", []string{"-7200s"}},
	{"lxc.time.offset.monotonic = 5 ms", func(c *Config) { c.TimeOffset.Monotonic = "5ms" },
		"lxc.time.offset.monotonic", []string{"5000000ns"}},
	{"", func(*Config) {}, "lxc.time.offset.boot", []string{"0ns"}},
	{"lxc.no_new_privs = 1", func(c *Config) { c.NoNewPrivs = true },
		"lxc.no_new_privs", []string{"1"}},
	{"lxc.prlimit.nofile = 1024 : 4096\nlxc.prlimit.nice = 5\nlxc.prlimit.nice = unlimited:",
		func(c *Config) {
			c.Prlimit = []Prlimit{{"nofile", 1024, 4096}, {"nice", math.MaxUint64, math.MaxUint64}}
		}, "lxc.prlimit",
		[]string{"lxc.prlimit.nofile = 1024:4096", "lxc.prlimit.nice = unlimited"}},
	{"lxc.prlimit.core = 0:unlimited\nlxc.prlimit.nofile = 9\nlxc.prlimit.nofile =",
		func(c *Config) { c.Prlimit = []Prlimit{{"core", 0, math.MaxUint64}} },
		"lxc.prlimit.core", []string{"0:unlimited"}},
	{"lxc.pty.max = 1024", func(c *Config) { c.PTYMax = 1024 }, "lxc.pty.max", []string{"1024"}},
	{"lxc.rootfs.managed = 0", func(c *Config) { c.Rootfs.Managed = new(bool) },
		"lxc.rootfs.managed", []string{"0"}},
	{"lxc.rootfs.mount = /m", func(c *Config) { c.Rootfs.Mount = "/m" },
		"lxc.rootfs.mount", []string{"/m"}},
	{"lxc.rootfs.options = ro,idmap=container",
		func(c *Config) { c.Rootfs.Options = "ro,idmap=container" },
		"lxc.rootfs.options", []string{"ro,idmap=container"}},
	{"lxc.rootfs.path = dir:/var/lib/lxc/a/rootfs/",
		func(c *Config) { c.Rootfs.Path = "dir:/var/lib/lxc/a/rootfs" },
		"lxc.rootfs.path", []string{"/var/lib/lxc/a/rootfs"}},
	{"lxc.rootfs.path = overlay:/l:/u", func(c *Config) { c.Rootfs.Path = "overlay:/l:/u" },
		"lxc.rootfs.path", []string{"/l:/u"}},
	{"lxc.rootfs.path = /a:b/./c/../d", func(c *Config) { c.Rootfs.Path = "/a:b/c/../d" },
		"lxc.rootfs.path", []string{"/a:b/c/../d"}},
	{"lxc.seccomp.allow_nesting = 1", func(c *Config) { c.Seccomp.AllowNesting = true },
		"lxc.seccomp.allow_nesting", []string{"1"}},
	{"lxc.seccomp.notify.cookie = ab", func(c *Config) { c.Seccomp.NotifyCookie = "ab" },
		"lxc.seccomp.notify.cookie", []string{"ab"}},
	{"lxc.seccomp.notify.proxy = unix:/run/p",
		func(c *Config) { c.Seccomp.NotifyProxy = "unix:/run/p" },
		"lxc.seccomp.notify.proxy", []string{"/run/p"}},
	{"lxc.seccomp.profile = /s", func(c *Config) { c.Seccomp.Profile = "/s" },
		"lxc.seccomp.profile", []string{"/s"}},
	{"lxc.selinux.context.keyring = k", func(c *Config) { c.SELinux.ContextKeyring = "k" },
		"lxc.selinux.context.keyring", []string{"k"}},
	{"lxc.selinux.context = u:r:t:s0", func(c *Config) { c.SELinux.Context = "u:r:t:s0" },
		"lxc.selinux.context", []string{"u:r:t:s0"}},
	{"lxc.signal.halt = SIGRTMIN+3", func(c *Config) { c.Signal.Halt = 37 },
		"lxc.signal.halt", []string{"37"}},
	{"lxc.signal.reboot = sigint", func(c *Config) { c.Signal.Reboot = 2 },
		"lxc.signal.reboot", []string{"2"}},
	{"lxc.signal.stop = SIGKILL\nlxc.signal.stop =", func(*Config) {},
		"lxc.signal.stop", []string{"0"}},
	{"lxc.start.auto = 1",
		func(c *Config) { c.Start.Auto = true }, "lxc.start.auto", []string{"1"}},
	{"lxc.start.delay = 5",
		func(c *Config) { c.Start.Delay = 5 }, "lxc.start.delay", []string{"5"}},
	{"lxc.start.order = -5", func(c *Config) { c.Start.Order = -5 },
		"lxc.start.order", []string{"-5"}},
	{"lxc.tty.dir = lxc", func(c *Config) { c.TTY.Dir = "lxc" }, "lxc.tty.dir", []string{"lxc"}},
	{"lxc.tty.max = 4", func(c *Config) { c.TTY.Max = 4 }, "lxc.tty.max", []string{"4"}},
	{"lxc.uts.name = a\nlxc.uts.name=  b\t", func(c *Config) { c.Uts.Name = "b" },
		"lxc.uts.name", []string{"b"}},
	{"lxc.sysctl.net.ipv4.ip_forward = 1\nlxc.sysctl.kernel.msgmax = 5\n" +
		"lxc.sysctl.net.ipv4.ip_forward = 0",
		func(c *Config) {
			c.Sysctl = []Setting{{"net.ipv4.ip_forward", "0"}, {"kernel.msgmax", "5"}}
		},
		"lxc.sysctl.net.ipv4.ip_forward", []string{"0"}},
	{"lxc.sysctl.net.a = 1\nlxc.sysctl =", func(*Config) {}, "lxc.sysctl", nil},
	{"lxc.proc.oom_score_adj = 10\nlxc.proc.oom_score_adj = 20",
		func(c *Config) { c.Proc = []Setting{{"oom_score_adj", "10"}, {"oom_score_adj", "20"}} },
		"lxc.proc", []string{"lxc.proc.oom_score_adj = 10", "lxc.proc.oom_score_adj = 20"}},
}

func TestEveryKeyMeansWhatItsLinesSay(t *testing.T) {
	t.Parallel()
	covered := make(map[string]bool)
	for _, tc := range keyCases {
		c := parse(t, tc.lines+"\n")
		var want Config
		tc.want(&want)
		equal(t, tc.lines, meaning(c), &want)
		got, err := c.Get(tc.key)
		if err != nil {
			t.Errorf("Get(%q): %v", tc.key, err)
		}
		if !slices.Equal(got, tc.get) {
			t.Errorf("%s\nGet(%q): got %q, want %q", tc.lines, tc.key, got, tc.get)
		}
		for text := range strings.SplitSeq(tc.lines, "\n") {
			key, _, _ := split(text)
			if k, _, ok := lookup(key); ok {
				covered[k.name] = true
			}
		}
	}
	for i := range keys[:len(keys)-gone] {
		name := keys[i].name
		if !covered[name] && name != "lxc.net" && keys[i].kind != &hooks && keys[i].sub != only {
			t.Errorf("no case has %s", name)
		}
	}
}

func address(prefix, broadcast string) Address {
	a := Address{Prefix: netip.MustParsePrefix(prefix)}
	if broadcast != "" {
		a.Broadcast = netip.MustParseAddr(broadcast)
	}
	return a
}

// netCases have lines for lxc.net.0, where the sub key is at the start of the line.
var netCases = []struct {
	lines string
	want  Net
	key   string
	get   []string
}{
	{"type = veth", Net{Type: "veth"}, "type", []string{"veth"}},
	{"type = veth\nlink = br0\ntype = phys", Net{Type: "phys"}, "link", nil},
	{"type = veth\nlink = br0\ntype =", Net{}, "link", nil},
	{"script.up = /up x", Net{ScriptUp: "/up x"}, "script.up", []string{"/up x"}},
	{"script.down = /down", Net{ScriptDown: "/down"}, "script.down", []string{"/down"}},
	{"flags = up", Net{Up: true}, "flags", []string{"up"}},
	{"flags = up\nflags =", Net{}, "flags", nil},
	{"type = phys\nlink = eth+", Net{Type: "phys", Link: "eth+"}, "link", []string{"eth+"}},
	{"l2proxy = 1", Net{L2Proxy: true}, "l2proxy", []string{"1"}},
	{"name = eth0", Net{Name: "eth0"}, "name", []string{"eth0"}},
	{"hwaddr = 00:16:3e:xx:XX:0x", Net{HWAddr: "00:16:3e:xx:XX:0x"},
		"hwaddr", []string{"00:16:3e:xx:XX:0x"}},
	{"mtu = 1400", Net{MTU: 1400}, "mtu", []string{"1400"}},
	{"name = a", Net{Name: "a"}, "mtu", nil},
	{"ipv4.address = 10.0.0.2/24 10.0.0.255\nipv4.address = 192.168.1.1",
		Net{IPv4: []Address{address("10.0.0.2/24", "10.0.0.255"), address("192.168.1.1/24", "")}},
		"ipv4.address", []string{"10.0.0.2/24", "192.168.1.1/24"}},
	{"ipv4.address = 127.1.2.3\nipv4.address = 128.0.0.1\nipv4.address = 191.255.0.1\n" +
		"ipv4.address = 192.0.2.1\nipv4.address = 224.0.0.1",
		Net{IPv4: []Address{address("127.1.2.3/8", ""), address("128.0.0.1/16", ""),
			address("191.255.0.1/16", ""), address("192.0.2.1/24", ""),
			address("224.0.0.1/0", "")}},
		"ipv4.address",
		[]string{"127.1.2.3/8", "128.0.0.1/16", "191.255.0.1/16", "192.0.2.1/24", "224.0.0.1/0"}},
	{"ipv4.address = 10.0.0.2/24\nipv4.address =", Net{}, "ipv4.address", nil},
	{"ipv6.address = 2003:db8:1:0:214:1234:fe0b:3596",
		Net{IPv6: []Address{address("2003:db8:1:0:214:1234:fe0b:3596/64", "")}},
		"ipv6.address", []string{"2003:db8:1:0:214:1234:fe0b:3596/64"}},
	{"ipv6.address = fd00::2/48", Net{IPv6: []Address{address("fd00::2/48", "")}},
		"ipv6.address", []string{"fd00::2/48"}},
	{"ipv4.gateway = auto", Net{IPv4Gateway: Gateway{Auto: true}},
		"ipv4.gateway", []string{"auto"}},
	{"ipv4.gateway = dev\nipv4.gateway = 10.0.0.1",
		Net{IPv4Gateway: Gateway{Addr: netip.MustParseAddr("10.0.0.1")}},
		"ipv4.gateway", []string{"10.0.0.1"}},
	{"ipv6.gateway = dev", Net{IPv6Gateway: Gateway{Dev: true}}, "ipv6.gateway", []string{"dev"}},
	{"ipv6.gateway = fe80::1\nipv6.gateway =", Net{}, "ipv6.gateway", nil},
	{"type = veth\nveth.mode = router", Net{Type: "veth", VethMode: "router"},
		"veth.mode", []string{"router"}},
	{"type = veth", Net{Type: "veth"}, "veth.mode", []string{"bridge"}},
	{"type = veth\nveth.pair = v0", Net{Type: "veth", VethPair: "v0"}, "veth.pair", []string{"v0"}},
	{"type = veth\nveth.n_rxqueues = 4", Net{Type: "veth", VethRxQueues: 4},
		"veth.n_rxqueues", []string{"4"}},
	{"type = veth\nveth.n_txqueues = 8", Net{Type: "veth", VethTxQueues: 8},
		"veth.n_txqueues", []string{"8"}},
	{"type = veth\nveth.ipv4.route = 192.0.2.0/24",
		Net{Type: "veth", VethIPv4Routes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		"veth.ipv4.route", []string{"192.0.2.0/24"}},
	{"type = veth\nveth.ipv6.route = 2001:db8::1/128",
		Net{Type: "veth", VethIPv6Routes: []netip.Prefix{netip.MustParsePrefix("2001:db8::1/128")}},
		"veth.ipv6.route", []string{"2001:db8::1/128"}},
	{"type = veth\nveth.vlan.id = none", Net{Type: "veth", VethVLANID: "none"},
		"veth.vlan.id", []string{"none"}},
	{"type = veth\nveth.vlan.id = 0x10", Net{Type: "veth", VethVLANID: "16"},
		"veth.vlan.id", []string{"16"}},
	{"type = veth\nveth.vlan.tagged.id = 2\nveth.vlan.tagged.id = 3",
		Net{Type: "veth", VethVLANTagged: []int{2, 3}}, "veth.vlan.tagged.id", []string{"2", "3"}},
	{"type = macvlan\nmacvlan.mode = passthru", Net{Type: "macvlan", MACVLANMode: "passthru"},
		"macvlan.mode", []string{"passthru"}},
	{"type = macvlan", Net{Type: "macvlan"}, "macvlan.mode", []string{"private"}},
	{"type = ipvlan\nipvlan.mode = l2", Net{Type: "ipvlan", IPVLANMode: "l2"},
		"ipvlan.mode", []string{"l2"}},
	{"type = ipvlan", Net{Type: "ipvlan"}, "ipvlan.mode", []string{"l3"}},
	{"type = ipvlan\nipvlan.isolation = vepa", Net{Type: "ipvlan", IPVLANIsolated: "vepa"},
		"ipvlan.isolation", []string{"vepa"}},
	{"type = ipvlan", Net{Type: "ipvlan"}, "ipvlan.isolation", []string{"bridge"}},
	{"type = vlan\nvlan.id = 7", Net{Type: "vlan", VLANID: 7}, "vlan.id", []string{"7"}},
}

func TestEveryKeyOfANetworkMeansWhatItsLinesSay(t *testing.T) {
	t.Parallel()
	covered := make(map[string]bool)
	for _, tc := range netCases {
		var b strings.Builder
		for text := range strings.SplitSeq(tc.lines, "\n") {
			b.WriteString("lxc.net.0." + text + "\n")
			word, _, _ := strings.Cut(text, " =")
			covered[word] = true
		}
		c := parse(t, b.String())
		equal(t, tc.lines, c.Nets, []Net{tc.want})
		got, err := c.Get("lxc.net.0." + tc.key)
		if err != nil || !slices.Equal(got, tc.get) {
			t.Errorf("%s\nGet(%q): got %q and %v, want %q", tc.lines, tc.key, got, err, tc.get)
		}
	}
	for i := range netKeys {
		if !covered[netKeys[i].name] {
			t.Errorf("no case has %s", netKeys[i].name)
		}
	}
}

func TestNetworksAreInTheOrderOfTheirNumbers(t *testing.T) {
	t.Parallel()
	c := parse(t, "lxc.net.7.type = phys\nlxc.net.0.type = veth\nlxc.net.3.link = x\n"+
		"lxc.net.1000.type = none\nlxc.net.1000 =\n")
	equal(t, "networks", c.Nets,
		[]Net{{Index: 0, Type: "veth"}, {Index: 3, Link: "x"}, {Index: 7, Type: "phys"}})
	got, _ := c.Get("lxc.net")
	equal(t, "types", got, []string{"veth", "(invalid)", "phys"})
	if c = parse(t, "lxc.net.7.type = phys\nlxc.net.5.link =\nlxc.net =\n"); c.Nets != nil {
		t.Errorf("after lxc.net = there are %v", c.Nets)
	}
}
