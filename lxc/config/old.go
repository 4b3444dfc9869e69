package config

import (
	"strconv"
	"strings"
)

// oldKeys are the spellings from before LXC 2.1, without those of networks and limits, which have
// sub keys.
var oldKeys = []struct{ old, now string }{
	{"lxc.aa_allow_incomplete", "lxc.apparmor.allow_incomplete"},
	{"lxc.aa_profile", "lxc.apparmor.profile"},
	{"lxc.console", "lxc.console.path"},
	{"lxc.devttydir", "lxc.tty.dir"},
	{"lxc.haltsignal", "lxc.signal.halt"},
	{"lxc.id_map", "lxc.idmap"},
	{"lxc.init_cmd", "lxc.init.cmd"},
	{"lxc.init_gid", "lxc.init.gid"},
	{"lxc.init_uid", "lxc.init.uid"},
	{"lxc.limit", "lxc.prlimit"},
	{"lxc.logfile", "lxc.log.file"},
	{"lxc.loglevel", "lxc.log.level"},
	{"lxc.mount", "lxc.mount.fstab"},
	{"lxc.network", "lxc.net"},
	{"lxc.pts", "lxc.pty.max"},
	{"lxc.rebootsignal", "lxc.signal.reboot"},
	{"lxc.rootfs", "lxc.rootfs.path"},
	{"lxc.se_context", "lxc.selinux.context"},
	{"lxc.seccomp", "lxc.seccomp.profile"},
	{"lxc.stopsignal", "lxc.signal.stop"},
	{"lxc.syslog", "lxc.log.syslog"},
	{"lxc.tty", "lxc.tty.max"},
	{"lxc.utsname", "lxc.uts.name"},
}

// modern is the current spelling of a key. lxc.network.type is the type of a new interface, other
// keys of lxc.network without a number are those of the last interface; no type is no interface.
func (c *Config) modern(name, value string) (string, error) {
	for i := range oldKeys {
		if oldKeys[i].old == name {
			return oldKeys[i].now, nil
		}
	}
	if resource, ok := strings.CutPrefix(name, "lxc.limit."); ok {
		return "lxc.prlimit." + resource, nil
	}
	word, ok := strings.CutPrefix(name, "lxc.network.")
	if !ok {
		return name, nil
	}
	digits, rest, _ := strings.Cut(word, ".")
	if index, err := netIndex(digits); err == nil {
		return netName(index, rest), nil
	}
	last := -1
	if n := len(c.Nets); n > 0 {
		last = c.Nets[n-1].Index
	}
	if word == "type" && value == "" {
		return "lxc.net", nil
	}
	if word == "type" {
		return netName(last+1, word), nil
	}
	if last < 0 {
		return "", refusal("want lxc.network.type first, which starts a new interface")
	}
	return netName(last, word), nil
}

// netName is the current spelling of a key of a numbered interface.
func netName(index int, word string) string {
	switch word {
	case "":
		return "lxc.net." + strconv.Itoa(index)
	case "ipv4", "ipv6":
		word += ".address"
	}
	return "lxc.net." + strconv.Itoa(index) + "." + word
}
