package config

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Kinds whose fields are lists or maps of their own types.
var (
	capDrop     = kind{set: setCapDrop, get: getCapDrop, clear: clearCapDrop}
	capKeep     = kind{set: setCapKeep, get: getCapKeep, clear: clearCapKeep}
	nsClone     = kind{set: setNsClone, get: getNsClone, clear: clearNsClone}
	nsKeep      = kind{set: setNsKeep, get: getNsKeep, clear: clearNsKeep}
	nsShare     = kind{set: setNsShare, get: getNsShare, clear: clearNsShare}
	autoMounts  = kind{set: setAutoMounts, get: getAutoMounts, clear: clearAutoMounts}
	mountEntry  = kind{set: setMountEntry, get: getMountEntry, clear: clearMountEntry}
	idMaps      = kind{set: setIDMaps, get: getIDMaps, clear: clearIDMaps}
	cgroupFiles = kind{set: setCgroupFile, get: getCgroupFiles, clear: clearSettings}
	sysctls     = kind{set: setSysctl, get: getSysctls, clear: clearSettings}
	procFiles   = kind{set: setProcFile, get: getProcFiles, clear: clearSettings}
	prlimits    = kind{set: setPrlimit, get: getPrlimits, clear: clearPrlimits}
	environ     = kind{set: setEnviron}
	userGroups  = kind{set: setUserGroups, get: getUserGroups, clear: clearUserGroups}
	hooks       = kind{set: setHook, get: getHook, clear: clearHook}
	allHooks    = kind{set: setAllHooks, get: getNothing, clear: clearAllHooks}
)

// capabilities are the names of capabilities(7) by number.
var capabilities = []string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
	"setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
	"ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
	"sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod",
	"lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
	"wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
}

// capability returns the name of a capability that is given by name or number.
func capability(word string) (string, error) {
	if n, err := number(word, 0, int64(len(capabilities)-1)); err == nil {
		return capabilities[n], nil
	}
	if slices.Contains(capabilities, word) {
		return word, nil
	}
	plain := strings.TrimPrefix(strings.ToLower(word), "cap_")
	return "", want("names of capabilities(7) in lower case without cap_; %q is not one%s", word,
		didYouMean(plain, capabilities))
}

func setCapDrop(at any, _, value string) error {
	c := at.(*Config)
	if len(c.Caps.Keep) > 0 {
		return refusal("capabilities are either dropped or kept: clear lxc.cap.keep first")
	}
	for word := range strings.FieldsSeq(value) {
		name, err := capability(word)
		if err != nil {
			return err
		}
		c.Caps.Drop = append(c.Caps.Drop, name)
	}
	return nil
}

func setCapKeep(at any, _, value string) error {
	c := at.(*Config)
	if len(c.Caps.Drop) > 0 {
		return refusal("capabilities are either dropped or kept: clear lxc.cap.drop first")
	}
	for word := range strings.FieldsSeq(value) {
		if word == "none" {
			c.Caps.Keep = []string{"none"}
			continue
		}
		name, err := capability(word)
		if err != nil {
			return err
		}
		if len(c.Caps.Keep) == 1 && c.Caps.Keep[0] == "none" {
			c.Caps.Keep = nil
		}
		c.Caps.Keep = append(c.Caps.Keep, name)
	}
	return nil
}

func getCapDrop(at any, _ string) []string { return slices.Clone(at.(*Config).Caps.Drop) }

func getCapKeep(at any, _ string) []string { return slices.Clone(at.(*Config).Caps.Keep) }

func clearCapDrop(at any, _ string) { at.(*Config).Caps.Drop = nil }

func clearCapKeep(at any, _ string) { at.(*Config).Caps.Keep = nil }

// namespaces are LXC's words, in its order.
var namespaces = []string{"user", "mnt", "pid", "uts", "ipc", "net", "cgroup", "time"}

// mergeNamespaces adds the words of a value to some, each once and in LXC's order.
func mergeNamespaces(have []string, value string) ([]string, error) {
	all := slices.Clone(have)
	for word := range strings.FieldsSeq(strings.ToLower(value)) {
		if err := oneOf(word, namespaces); err != nil {
			return nil, err
		}
		if !slices.Contains(all, word) {
			all = append(all, word)
		}
	}
	slices.SortFunc(all, func(a, b string) int {
		return cmp.Compare(slices.Index(namespaces, a), slices.Index(namespaces, b))
	})
	return all, nil
}

func setNsClone(at any, _, value string) error {
	c := at.(*Config)
	if len(c.Namespace.Keep) > 0 {
		return refusal("namespaces are either cloned or kept: clear lxc.namespace.keep first")
	}
	merged, err := mergeNamespaces(c.Namespace.Clone, value)
	if err == nil {
		c.Namespace.Clone = merged
	}
	return err
}

func setNsKeep(at any, _, value string) error {
	c := at.(*Config)
	if len(c.Namespace.Clone) > 0 {
		return refusal("namespaces are either cloned or kept: clear lxc.namespace.clone first")
	}
	merged, err := mergeNamespaces(c.Namespace.Keep, value)
	if err == nil {
		c.Namespace.Keep = merged
	}
	return err
}

func getNsClone(at any, _ string) []string { return slices.Clone(at.(*Config).Namespace.Clone) }

func getNsKeep(at any, _ string) []string { return slices.Clone(at.(*Config).Namespace.Keep) }

func clearNsClone(at any, _ string) { at.(*Config).Namespace.Clone = nil }

func clearNsKeep(at any, _ string) { at.(*Config).Namespace.Keep = nil }

func setNsShare(at any, sub, value string) error {
	c := at.(*Config)
	if err := checkNamespace(sub); err != nil {
		return err
	}
	if c.Namespace.Share == nil {
		c.Namespace.Share = make(map[string]string)
	}
	c.Namespace.Share[strings.ToLower(sub)] = value
	return nil
}

func checkNamespace(sub string) error {
	if err := oneOf(strings.ToLower(sub), namespaces); err != nil {
		return refusal("no such namespace: " + err.Error())
	}
	return nil
}

func getNsShare(at any, sub string) []string {
	value := at.(*Config).Namespace.Share[strings.ToLower(sub)]
	return show(&value)
}

func clearNsShare(at any, sub string) {
	c := at.(*Config)
	delete(c.Namespace.Share, strings.ToLower(sub))
	if len(c.Namespace.Share) == 0 {
		c.Namespace.Share = nil
	}
}

func setIDMaps(at any, _, value string) error {
	p := at.(*[]IDMap)
	fields := strings.Fields(value)
	const form = "u, g or b, then the first ID in the container, the first on the host and how many"
	if len(fields) != 4 || !slices.Contains([]string{"u", "g", "b"}, fields[0]) {
		return want(form)
	}
	var n [3]int64
	for i, field := range fields[1:] {
		var err error
		if n[i], err = number(field, 0, maxUint32); err != nil {
			return want(form + ", each below 2^32")
		}
	}
	if n[2] == 0 || n[0]+n[2] > maxUint32 || n[1]+n[2] > maxUint32 {
		return want("at least one ID, and none above 2^32-2")
	}
	m := IDMap{fields[0][0], uint32(n[0]), uint32(n[1]), uint32(n[2])}
	for _, other := range *p {
		if m.overlaps(other) {
			return refusal(fmt.Sprintf("overlaps %q, which came before", other.line()))
		}
	}
	*p = append(*p, m)
	return nil
}

// overlaps says whether the kernel would refuse two lines together.
func (m IDMap) overlaps(o IDMap) bool {
	if m.Kind != o.Kind && m.Kind != 'b' && o.Kind != 'b' {
		return false
	}
	meet := func(a, b uint32) bool {
		return uint64(a) < uint64(b)+uint64(o.Count) && uint64(b) < uint64(a)+uint64(m.Count)
	}
	return meet(m.Container, o.Container) || meet(m.Host, o.Host)
}

func (m IDMap) line() string {
	return fmt.Sprintf("%c %d %d %d", m.Kind, m.Container, m.Host, m.Count)
}

func getIDMaps(at any, _ string) []string {
	var all []string
	for _, m := range *at.(*[]IDMap) {
		all = append(all, m.line())
	}
	return all
}

func clearIDMaps(at any, _ string) { *at.(*[]IDMap) = nil }

// setCgroupFile adds what is written to a file of the container's group. Every file that a
// configuration has reason to write has a dot in its name; so a mistyped key is not taken for one.
func setCgroupFile(at any, sub, value string) error {
	if err := checkCgroupFile(sub); err != nil {
		return err
	}
	p := at.(*[]Setting)
	*p = append(*p, Setting{sub, value})
	return nil
}

func checkCgroupFile(sub string) error {
	controller, rest, _ := strings.Cut(sub, ".")
	switch {
	case sub == "":
		return refusal("this key clears all files of the group and takes no value")
	case controller == "" || rest == "" || controller == "dir" || strings.ContainsAny(sub, "/ \t"):
		return noKey("; want a file of a control group, as in lxc.cgroup2.memory.max")
	}
	return nil
}

func getCgroupFiles(at any, sub string) []string {
	return settings(*at.(*[]Setting), sub)
}

// settings are the values of one name, or "name = value" of all for no name.
func settings(all []Setting, sub string) []string {
	var lines []string
	for _, s := range all {
		if sub == "" {
			lines = append(lines, s.Name+" = "+s.Value)
		} else if s.Name == sub {
			lines = append(lines, s.Value)
		}
	}
	return lines
}

func clearSettings(at any, sub string) {
	p := at.(*[]Setting)
	*p = slices.DeleteFunc(*p, func(s Setting) bool { return sub == "" || s.Name == sub })
	if len(*p) == 0 {
		*p = nil
	}
}

func setSysctl(at any, sub, value string) error {
	if sub == "" {
		return refusal("this key clears all kernel parameters and takes no value")
	}
	if slices.Contains(strings.Split(sub, "."), "") || strings.Contains(sub, "..") {
		return refusal("want a kernel parameter, as in lxc.sysctl.net.ipv4.ip_forward")
	}
	p := at.(*[]Setting)
	for i, s := range *p {
		if s.Name == sub {
			(*p)[i].Value = value
			return nil
		}
	}
	*p = append(*p, Setting{sub, value})
	return nil
}

func getSysctls(at any, sub string) []string { return settings(*at.(*[]Setting), sub) }

func setProcFile(at any, sub, value string) error {
	if sub == "" {
		return refusal("this key clears all files of /proc/PID and takes no value")
	}
	if strings.HasPrefix(sub, "/") || slices.Contains(strings.Split(sub, "/"), "..") {
		return refusal("want a file of /proc/PID, as in lxc.proc.oom_score_adj")
	}
	p := at.(*[]Setting)
	*p = append(*p, Setting{sub, value})
	return nil
}

func getProcFiles(at any, sub string) []string { return settings(*at.(*[]Setting), sub) }

// resources are the names of getrlimit(2).
var resources = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
	"rss", "rtprio", "rttime", "sigpending", "stack",
}

func setPrlimit(at any, sub, value string) error {
	if sub == "" {
		return refusal("this key clears all resource limits and takes no value")
	}
	if err := checkResource(sub); err != nil {
		return err
	}
	first, second, two := strings.Cut(value, ":")
	if second = strings.TrimSpace(second); second == "" {
		second, two = first, false
	}
	soft, err := limit(first)
	hard, err2 := limit(second)
	if err != nil || err2 != nil {
		return want("SOFT:HARD or one of them for both, each a number or unlimited")
	}
	if two && soft > hard {
		return want("a soft limit that is not above the hard one")
	}
	p := at.(*[]Prlimit)
	one := Prlimit{sub, soft, hard}
	for i := range *p {
		if (*p)[i].Name == sub {
			(*p)[i] = one
			return nil
		}
	}
	*p = append(*p, one)
	return nil
}

func checkResource(sub string) error {
	if err := oneOf(sub, resources); err != nil {
		return refusal("no such resource: " + err.Error())
	}
	return nil
}

func limit(value string) (uint64, error) {
	if value = strings.TrimSpace(value); value == "unlimited" {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(value, 10, 64)
}

func getPrlimits(at any, sub string) []string {
	word := func(n uint64) string {
		if n == math.MaxUint64 {
			return "unlimited"
		}
		return strconv.FormatUint(n, 10)
	}
	all := make([]Setting, 0, len(resources))
	for _, l := range *at.(*[]Prlimit) {
		value := word(l.Soft)
		if l.Hard != l.Soft {
			value += ":" + word(l.Hard)
		}
		all = append(all, Setting{l.Name, value})
	}
	return settings(all, sub)
}

func clearPrlimits(at any, sub string) {
	p := at.(*[]Prlimit)
	*p = slices.DeleteFunc(*p, func(l Prlimit) bool { return sub == "" || l.Name == sub })
	if len(*p) == 0 {
		*p = nil
	}
}

func setEnviron(at any, _, value string) error {
	if value[0] == '=' {
		return want("NAME=VALUE, or NAME for the value that the caller has")
	}
	return setAppended(at, "", value)
}

func setUserGroups(at any, _, value string) error {
	p := at.(*[]int)
	all := slices.Clone(*p)
	for word := range strings.SplitSeq(value, ",") {
		n, err := number(strings.TrimSpace(word), 0, maxUint32-1)
		if err != nil {
			return want("numbers of groups with commas between them")
		}
		all = append(all, int(n))
	}
	*p = all
	return nil
}

func getUserGroups(at any, _ string) []string {
	var all []string
	for _, n := range *at.(*[]int) {
		all = append(all, strconv.Itoa(n))
	}
	one := strings.Join(all, ",")
	return show(&one)
}

func clearUserGroups(at any, _ string) { *at.(*[]int) = nil }

func setHook(at any, sub, value string) error {
	c := at.(*Config)
	if c.Hooks == nil {
		c.Hooks = make(map[string][]string)
	}
	c.Hooks[sub] = append(c.Hooks[sub], value)
	return nil
}

func getHook(at any, sub string) []string { return slices.Clone(at.(*Config).Hooks[sub]) }

func clearHook(at any, sub string) {
	c := at.(*Config)
	delete(c.Hooks, sub)
	if len(c.Hooks) == 0 {
		c.Hooks = nil
	}
}

func setAllHooks(any, string, string) error {
	return refusal("this key clears all hooks and takes no value")
}

func clearAllHooks(at any, _ string) { at.(*Config).Hooks = nil }
