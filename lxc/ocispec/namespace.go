package ocispec

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/lxc/config"
)

// namespaceWords are LXC's words for namespaces (lxc.container.conf(5), NAMESPACES) and OCI's, in
// the order in which a configuration lists them.
var namespaceWords = [...]struct {
	word string
	kind specs.LinuxNamespaceType
}{
	{"user", specs.UserNamespace}, {"mnt", specs.MountNamespace}, {"pid", specs.PIDNamespace},
	{"uts", specs.UTSNamespace}, {"ipc", specs.IPCNamespace}, {"net", specs.NetworkNamespace},
	{"cgroup", specs.CgroupNamespace}, {"time", specs.TimeNamespace},
}

// namespaces decides as LXC does (start.c, resolve_clone_flags): lxc.namespace.keep names the ones
// that are not made, lxc.namespace.clone the only ones that are, and without either all are made
// that the configuration has a use for. What is shared is joined in any case.
func (m *maker) namespaces() error {
	conf := &m.in.Config.Namespace
	for _, list := range []struct {
		key   string
		words []string
	}{{"lxc.namespace.clone", conf.Clone}, {"lxc.namespace.keep", conf.Keep}} {
		for _, word := range list.words {
			if !isNamespace(word) {
				return refuse(list.key, word, "want some of %s", namespaceNames())
			}
		}
	}
	if len(conf.Clone) > 0 && len(conf.Keep) > 0 {
		return refuse(
			"lxc.namespace.keep", strings.Join(conf.Keep, " "),
			"lxc.namespace.clone says the opposite; want one of the two",
		)
	}
	for _, word := range slices.Sorted(maps.Keys(conf.Share)) {
		from := conf.Share[word]
		if !isNamespace(word) {
			return refuse("lxc.namespace.share."+word, from, "want one of %s", namespaceNames())
		}
		if m.in.Shared[word] == "" {
			return refuse("lxc.namespace.share."+word, from, "there is no such namespace")
		}
	}
	for _, ns := range namespaceWords {
		path := m.in.Shared[ns.word]
		if path == "" && !m.wantsNamespace(ns.word) {
			continue
		}
		if path == "" && ns.kind == specs.NetworkNamespace {
			path = m.in.Netns
		}
		m.spec.Linux.Namespaces = append(
			m.spec.Linux.Namespaces, specs.LinuxNamespace{Type: ns.kind, Path: path},
		)
	}
	return m.checkNamespaces()
}

// checkNamespaces names the key of what the library would refuse in OCI's words.
func (m *maker) checkNamespaces() error {
	user, users := m.namespace(specs.UserNamespace)
	if mnt, own := m.namespace(specs.MountNamespace); !own || mnt != "" {
		return refuse(
			"lxc.namespace", "mnt",
			"the container's root is made in a mount namespace of its own, which cannot be kept "+
				"or shared",
		)
	}
	switch {
	case users && user == "" && len(m.in.Config.IDMap) == 0:
		return refuse(
			"lxc.namespace.clone", "user", "a user namespace needs lxc.idmap for both u and g",
		)
	case !users && len(m.in.Config.IDMap) > 0:
		l := m.in.Config.IDMap[0]
		return refuse(
			"lxc.idmap", string(l.Kind)+" "+strconv.FormatUint(uint64(l.Container), 10),
			"the configuration keeps the host's user namespace",
		)
	}
	return nil
}

func isNamespace(word string) bool {
	return slices.ContainsFunc(namespaceWords[:], func(ns struct {
		word string
		kind specs.LinuxNamespaceType
	}) bool {
		return ns.word == word
	})
}

func namespaceNames() string {
	var names []string
	for _, ns := range namespaceWords {
		names = append(names, ns.word)
	}
	return strings.Join(names, ", ")
}

// wantsNamespace says whether the container gets a namespace of its own that is made for it.
func (m *maker) wantsNamespace(word string) bool {
	conf := m.in.Config
	switch {
	case len(conf.Namespace.Keep) > 0:
		return !slices.Contains(conf.Namespace.Keep, word) && usesNamespace(conf, word)
	case len(conf.Namespace.Clone) > 0:
		return slices.Contains(conf.Namespace.Clone, word)
	}
	return usesNamespace(conf, word)
}

// usesNamespace says whether the configuration has settings for a namespace that is not made for
// every container.
func usesNamespace(conf *config.Config, word string) bool {
	switch word {
	case "user":
		return len(conf.IDMap) > 0
	case "time":
		return conf.TimeOffset.Boot != "" || conf.TimeOffset.Monotonic != ""
	case "net":
		return !hostNetwork(conf)
	}
	return true
}

// hostNetwork says whether the container has the host's network: its only interfaces are of type
// none.
func hostNetwork(conf *config.Config) bool {
	for i := range conf.Nets {
		if conf.Nets[i].Type != "none" {
			return false
		}
	}
	return len(conf.Nets) > 0
}

// namespace is the path of the container's namespace of a type; own is false if it has the host's.
func (m *maker) namespace(kind specs.LinuxNamespaceType) (path string, own bool) {
	for _, ns := range m.spec.Linux.Namespaces {
		if ns.Type == kind {
			return ns.Path, true
		}
	}
	return "", false
}

// idmap turns lxc.idmap into mappings. A user namespace that is shared has its own.
func (m *maker) idmap() error {
	if path, own := m.namespace(specs.UserNamespace); !own || path != "" {
		return nil
	}
	linux := m.spec.Linux
	for _, l := range m.in.Config.IDMap {
		id := specs.LinuxIDMapping{ContainerID: l.Container, HostID: l.Host, Size: l.Count}
		if l.Kind != 'g' {
			linux.UIDMappings = append(linux.UIDMappings, id)
		}
		if l.Kind != 'u' {
			linux.GIDMappings = append(linux.GIDMappings, id)
		}
	}
	for _, c := range []struct {
		have []specs.LinuxIDMapping
		kind string
	}{{linux.UIDMappings, "u"}, {linux.GIDMappings, "g"}} {
		if len(c.have) == 0 {
			return refuse(
				"lxc.idmap", c.kind, "missing: a user namespace needs lines for both u and g",
			)
		}
	}
	return nil
}

// names sets the host name. LXC says nothing when the name belongs to another container.
func (m *maker) names() {
	name := m.in.Config.Uts.Name
	path, own := m.namespace(specs.UTSNamespace)
	switch {
	case name == "" || path != "":
	case !own:
		m.warn("lxc.uts.name", name, "not set, because the container has the host's UTS namespace")
	default:
		m.spec.Hostname = name
	}
}

// timeUnits are those of lxc.time.offset, in nanoseconds. Two letters come before one.
var timeUnits = [...]struct {
	name string
	nano int64
}{
	{"ms", 1e6}, {"us", 1e3}, {"ns", 1}, {"h", 3600e9}, {"m", 60e9}, {"s", 1e9},
}

// timeOffsets are written for a time namespace that is made (time_namespaces(7)).
func (m *maker) timeOffsets() error {
	path, own := m.namespace(specs.TimeNamespace)
	for _, c := range []struct{ key, clock, value string }{
		{"lxc.time.offset.boot", "boottime", m.in.Config.TimeOffset.Boot},
		{"lxc.time.offset.monotonic", "monotonic", m.in.Config.TimeOffset.Monotonic},
	} {
		if c.value == "" {
			continue
		}
		if !own || path != "" {
			return refuse(c.key, c.value, "the container has no time namespace of its own")
		}
		offset, ok := parseOffset(c.value)
		if !ok {
			return refuse(c.key, c.value, "want a whole number and one of h, m, s, ms, us, ns")
		}
		if m.spec.Linux.TimeOffsets == nil {
			m.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{}
		}
		m.spec.Linux.TimeOffsets[c.clock] = offset
	}
	return nil
}

func parseOffset(value string) (specs.LinuxTimeOffset, bool) {
	for _, unit := range timeUnits {
		text, ok := strings.CutSuffix(strings.TrimSpace(value), unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return specs.LinuxTimeOffset{}, false
		}
		if unit.nano >= 1e9 {
			secs := n * (unit.nano / 1e9)
			return specs.LinuxTimeOffset{Secs: secs}, secs/(unit.nano/1e9) == n
		}
		// The rest counts forwards, as the kernel wants it.
		perSecond := 1e9 / unit.nano
		secs, rest := n/perSecond, n%perSecond
		if rest < 0 {
			secs, rest = secs-1, rest+perSecond
		}
		return specs.LinuxTimeOffset{Secs: secs, Nanosecs: uint32(rest * unit.nano)}, true
	}
	return specs.LinuxTimeOffset{}, false
}
