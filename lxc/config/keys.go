package config

import (
	"slices"
	"strings"
)

// key is one row of the table of keys.
type key struct {
	name string
	// sub says what may follow the name and a dot.
	sub sub
	// at is where the value is; kinds that concern several fields take the whole configuration.
	at func(*Config) any
	*kind
}

// sub says whether a key has sub keys.
type sub byte

const (
	alone sub = iota // there are none
	also             // NAME.SUB takes values; NAME without a value clears them all
	only             // NAME.SUB takes values; NAME is no key
	fixed            // the row is one hook, whose name, the last word, is its sub key
)

func whole(c *Config) any { return c }

// keys are all keys of lxc.container.conf(5) in the order in which lxc-info lists them. Those of
// networks have a table of their own, netKeys; old spellings are in oldKeys.
var keys = []key{
	{"lxc.arch", alone, func(c *Config) any { return &c.Arch }, &machine},
	{"lxc.apparmor.profile", alone, func(c *Config) any { return &c.AppArmor.Profile }, &text},
	{"lxc.apparmor.allow_incomplete", alone,
		func(c *Config) any { return &c.AppArmor.AllowIncomplete }, &boolean},
	{"lxc.apparmor.allow_nesting", alone,
		func(c *Config) any { return &c.AppArmor.AllowNesting }, &boolean},
	{"lxc.apparmor.raw", alone, func(c *Config) any { return &c.AppArmor.Raw }, &appended},
	{"lxc.autodev.tmpfs.size", alone,
		func(c *Config) any { return &c.AutoDevTmpfsSize }, &tmpfsSize},
	{"lxc.autodev", alone, func(c *Config) any { return &c.AutoDev }, &boolean},
	{"lxc.cap.drop", alone, whole, &capDrop},
	{"lxc.cap.keep", alone, whole, &capKeep},
	{"lxc.cgroup2", also, func(c *Config) any { return &c.Cgroup2 }, &cgroupFiles},
	{"lxc.cgroup.dir.monitor.pivot", alone,
		func(c *Config) any { return &c.CgroupDir.MonitorPivot }, &groupDir},
	{"lxc.cgroup.dir.monitor", alone,
		func(c *Config) any { return &c.CgroupDir.Monitor }, &groupDir},
	{"lxc.cgroup.dir.container.inner", alone,
		func(c *Config) any { return &c.CgroupDir.ContainerInner }, &groupName},
	{"lxc.cgroup.dir.container", alone,
		func(c *Config) any { return &c.CgroupDir.Container }, &groupDir},
	{"lxc.cgroup.dir", alone, func(c *Config) any { return &c.CgroupDir.Dir }, &groupDir},
	{"lxc.cgroup.relative", alone, func(c *Config) any { return &c.CgroupRelative }, &boolean},
	{"lxc.cgroup", also, func(c *Config) any { return &c.Cgroup }, &cgroupFiles},
	{"lxc.console.buffer.size", alone,
		func(c *Config) any { return &c.Console.BufferSize }, &bufferSize},
	{"lxc.console.logfile", alone, func(c *Config) any { return &c.Console.LogFile }, &filePath},
	{"lxc.console.path", alone, func(c *Config) any { return &c.Console.Path }, &filePath},
	{"lxc.console.rotate", alone, func(c *Config) any { return &c.Console.Rotate }, &boolean},
	{"lxc.console.size", alone, func(c *Config) any { return &c.Console.Size }, &bufferSize},
	{"lxc.sched.core", alone, func(c *Config) any { return &c.SchedCore }, &boolean},
	{"lxc.environment.runtime", alone,
		func(c *Config) any { return &c.EnvironmentRuntime }, &environ},
	{"lxc.environment.hooks", alone, func(c *Config) any { return &c.EnvironmentHooks }, &environ},
	{"lxc.environment", alone, func(c *Config) any { return &c.Environment }, &environ},
	{"lxc.ephemeral", alone, func(c *Config) any { return &c.Ephemeral }, &boolean},
	{"lxc.execute.cmd", alone, func(c *Config) any { return &c.ExecuteCmd }, &text},
	{"lxc.group", alone, func(c *Config) any { return &c.Groups }, &words},
	{"lxc.hook.autodev", fixed, whole, &hooks},
	{"lxc.hook.clone", fixed, whole, &hooks},
	{"lxc.hook.destroy", fixed, whole, &hooks},
	{"lxc.hook.mount", fixed, whole, &hooks},
	{"lxc.hook.post-stop", fixed, whole, &hooks},
	{"lxc.hook.pre-mount", fixed, whole, &hooks},
	{"lxc.hook.pre-start", fixed, whole, &hooks},
	{"lxc.hook.start", fixed, whole, &hooks},
	{"lxc.hook.start-host", fixed, whole, &hooks},
	{"lxc.hook.stop", fixed, whole, &hooks},
	{"lxc.hook.version", alone, func(c *Config) any { return &c.HookVersion }, &hookABI},
	{"lxc.hook", alone, whole, &allHooks},
	{"lxc.idmap", alone, func(c *Config) any { return &c.IDMap }, &idMaps},
	{"lxc.include", alone, whole, &ignored}, // read by the parser
	{"lxc.init.cmd", alone, func(c *Config) any { return &c.Init.Cmd }, &text},
	{"lxc.init.gid", alone, func(c *Config) any { return &c.Init.GID }, &id},
	{"lxc.init.groups", alone, func(c *Config) any { return &c.Init.Groups }, &userGroups},
	{"lxc.init.uid", alone, func(c *Config) any { return &c.Init.UID }, &id},
	{"lxc.init.cwd", alone, func(c *Config) any { return &c.Init.Cwd }, &filePath},
	{"lxc.keyring.session", alone, func(c *Config) any { return &c.KeyringSession }, &boolean},
	{"lxc.log.file", alone, func(c *Config) any { return &c.Log.File }, &filePath},
	{"lxc.log.level", alone, func(c *Config) any { return &c.Log.Level }, &logLevel},
	{"lxc.log.syslog", alone, func(c *Config) any { return &c.Log.Syslog }, &facility},
	{"lxc.monitor.unshare", alone, func(c *Config) any { return &c.MonitorUnshare }, &boolean},
	{"lxc.monitor.signal.pdeath", alone,
		func(c *Config) any { return &c.MonitorSignalPdeath }, &pdeath},
	{"lxc.mount.auto", alone, func(c *Config) any { return &c.Mount.Auto }, &autoMounts},
	{"lxc.mount.entry", alone, whole, &mountEntry},
	{"lxc.mount.fstab", alone, func(c *Config) any { return &c.Mount.FSTab }, &filePath},
	{"lxc.namespace.clone", alone, whole, &nsClone},
	{"lxc.namespace.keep", alone, whole, &nsKeep},
	{"lxc.namespace.share", only, whole, &nsShare},
	{"lxc.time.offset.boot", alone, func(c *Config) any { return &c.TimeOffset.Boot }, &offset},
	{"lxc.time.offset.monotonic", alone,
		func(c *Config) any { return &c.TimeOffset.Monotonic }, &offset},
	{"lxc.net", also, whole, &networks},
	{"lxc.no_new_privs", alone, func(c *Config) any { return &c.NoNewPrivs }, &boolean},
	{"lxc.prlimit", also, func(c *Config) any { return &c.Prlimit }, &prlimits},
	{"lxc.pty.max", alone, func(c *Config) any { return &c.PTYMax }, &ptys},
	{"lxc.rootfs.managed", alone, func(c *Config) any { return &c.Rootfs.Managed }, &boolean},
	{"lxc.rootfs.mount", alone, func(c *Config) any { return &c.Rootfs.Mount }, &filePath},
	{"lxc.rootfs.options", alone, func(c *Config) any { return &c.Rootfs.Options }, &rootOptions},
	{"lxc.rootfs.path", alone, whole, &rootPath},
	{"lxc.seccomp.allow_nesting", alone,
		func(c *Config) any { return &c.Seccomp.AllowNesting }, &boolean},
	{"lxc.seccomp.notify.cookie", alone,
		func(c *Config) any { return &c.Seccomp.NotifyCookie }, &text},
	{"lxc.seccomp.notify.proxy", alone,
		func(c *Config) any { return &c.Seccomp.NotifyProxy }, &proxy},
	{"lxc.seccomp.profile", alone, func(c *Config) any { return &c.Seccomp.Profile }, &filePath},
	{"lxc.selinux.context.keyring", alone,
		func(c *Config) any { return &c.SELinux.ContextKeyring }, &text},
	{"lxc.selinux.context", alone, func(c *Config) any { return &c.SELinux.Context }, &text},
	{"lxc.signal.halt", alone, func(c *Config) any { return &c.Signal.Halt }, &signal},
	{"lxc.signal.reboot", alone, func(c *Config) any { return &c.Signal.Reboot }, &signal},
	{"lxc.signal.stop", alone, func(c *Config) any { return &c.Signal.Stop }, &signal},
	{"lxc.start.auto", alone, func(c *Config) any { return &c.Start.Auto }, &boolean},
	{"lxc.start.delay", alone, func(c *Config) any { return &c.Start.Delay }, &count},
	{"lxc.start.order", alone, func(c *Config) any { return &c.Start.Order }, &integer},
	{"lxc.tty.dir", alone, func(c *Config) any { return &c.TTY.Dir }, &devDir},
	{"lxc.tty.max", alone, func(c *Config) any { return &c.TTY.Max }, &ttys},
	{"lxc.uts.name", alone, func(c *Config) any { return &c.Uts.Name }, &hostName},
	{"lxc.sysctl", also, func(c *Config) any { return &c.Sysctl }, &sysctls},
	{"lxc.proc", also, func(c *Config) any { return &c.Proc }, &procFiles},

	// What LXC 2.1 took away. lxc.rootfs.path has what was lxc.rootfs.backend.
	{"lxc.rootfs.backend", alone, whole, &rootBackend},
	{"lxc.kmsg", alone, whole, &ignored},
	{"lxc.pivotdir", alone, whole, &ignored},
}

// gone are the keys at the end of the table that no list shows.
const gone = 3

// lookup finds the row of a key, and the sub key that follows the row's name.
func lookup(name string) (*key, string, bool) {
	var found *key
	for i := range keys {
		k := &keys[i]
		if k.name == name {
			if k.sub == only {
				return nil, "", false
			}
			if k.sub == fixed {
				return k, name[strings.LastIndexByte(name, '.')+1:], true
			}
			return k, "", true
		}
		if (k.sub == also || k.sub == only) && len(name) > len(k.name) &&
			name[len(k.name)] == '.' && name[:len(k.name)] == k.name {
			found = k
		}
	}
	if found == nil || len(name) == len(found.name)+1 {
		return nil, "", false
	}
	return found, name[len(found.name)+1:], true
}

// apply gives a key a value, or none.
func (c *Config) apply(name, value string) error {
	k, sub, ok := lookup(name)
	switch {
	case !ok:
		return unknownKey(name, "")
	case strings.Contains(value, "\x00"):
		return want("no NUL byte")
	case value == "":
		err := k.check(sub)
		if err == nil {
			k.erase(c, sub)
		}
		return explain(name, err)
	}
	return explain(name, k.set(k.at(c), sub, value))
}

// check refuses a sub key that the row cannot have.
func (k *key) check(sub string) error {
	switch {
	case sub == "":
	case k.name == "lxc.cgroup", k.name == "lxc.cgroup2":
		return checkCgroupFile(sub)
	case k.name == "lxc.net":
		_, _, err := splitNet(sub)
		return err
	case k.kind == &prlimits:
		return checkResource(sub)
	case k.kind == &nsShare:
		return checkNamespace(sub)
	}
	return nil
}

// noKey says that there is no such key. Its text is added to that.
type noKey string

func (n noKey) Error() string { return "no such key" + string(n) }

// explain adds to the error noKey the name of the key that was most likely meant.
func explain(name string, err error) error {
	if hint, ok := err.(noKey); ok {
		return unknownKey(name, string(hint))
	}
	return err
}

// erase removes what a key was given.
func (k *key) erase(c *Config, sub string) {
	if k.clear != nil {
		k.clear(k.at(c), sub)
	} else {
		reset(k.at(c))
	}
}

// unknownKey refuses a key that is in no table.
func unknownKey(name, hint string) error {
	known := keyNames()
	for old := range oldKeys {
		known = append(known, oldKeys[old].old)
	}
	if prefix, word, ok := cutNetKey(name); ok {
		known = known[:0]
		for i := range netKeys {
			known = append(known, prefix+netKeys[i].name)
		}
		name = prefix + word
	}
	return refusal("no such key" + hint + didYouMean(name, known))
}

// keyNames are the names of all keys that there are today.
func keyNames() []string {
	names := make([]string, 0, len(keys)+len(oldKeys))
	for i := range keys[:len(keys)-gone] {
		if keys[i].sub != only {
			names = append(names, keys[i].name)
		}
	}
	for _, word := range namespaces {
		names = append(names, "lxc.namespace.share."+word)
	}
	return slices.Clip(names)
}
