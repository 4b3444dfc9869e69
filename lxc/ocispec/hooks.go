package ocispec

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/lxc/config"
)

// Moment is when, and for what, a hook runs. The zero value is that of most hooks.
type Moment struct {
	// Section is "net" for lxc.net.N.script.up and down; "": "lxc".
	Section string
	// Args are further arguments: for section net the type of the interface, its link and the
	// host's end of a veth pair; for the hook clone the type of the storage and its arguments.
	Args []string
	// Target is "stop" or "reboot", for the hooks stop and post-stop.
	Target string
	// PID is the container's init, for the hook start-host.
	PID int
	// SrcName is the container that is cloned, for the hook clone.
	SrcName string
	// Namespaces are LXC's words and open files of the container's namespaces ("mnt",
	// "/proc/12/fd/7"), for the hooks start-host and stop.
	Namespaces []config.Setting
}

// HookCall is how LXC runs a hook (utils.c, run_script_argv): the program with its arguments, and
// its environment. Script is one of Config.Hooks[hook], a command line for a shell. With version 0
// the container's name, the section and the hook are arguments, with version 1 they are in the
// environment. Nothing of in is changed.
func HookCall(in *Input, hook, script string, at Moment) (args, env []string) {
	section := at.Section
	if section == "" {
		section = "lxc"
	}
	version1 := in.Config.HookVersion > 0
	var more []string
	if !version1 {
		more = append(more, in.Name, section, hook)
	}
	more = append(more, at.Args...)
	v := hookEnvironment(in, in.Environ)
	if version1 {
		v.add("LXC_HOOK_TYPE="+hook, "LXC_HOOK_SECTION="+section)
		for _, ns := range at.Namespaces {
			v.add("LXC_" + strings.ToUpper(ns.Name) + "_NS=" + ns.Value)
		}
		if section == "net" {
			v.add(networkVariables(at.Args)...)
		}
	} else if hook == "stop" {
		for _, ns := range at.Namespaces {
			more = append(more, ns.Name+":"+ns.Value)
		}
	}
	if at.Target != "" {
		v.add("LXC_TARGET=" + at.Target)
	}
	if at.PID > 0 {
		v.add("LXC_PID=" + strconv.Itoa(at.PID))
	}
	if at.SrcName != "" {
		v.add("LXC_SRC_NAME=" + at.SrcName)
	}
	return command(script, more), v.list
}

// command executes a script. Only what a shell would take apart needs one.
func command(script string, more []string) []string {
	if words := strings.Fields(script); len(words) > 0 && path.IsAbs(words[0]) &&
		!strings.ContainsAny(script, "\"'\\$`;&|<>()*?[]{}~#!\n=") {
		return append(words, more...)
	}
	line := "exec " + script
	for _, arg := range more {
		line += " '" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return []string{"/bin/sh", "-c", line}
}

// hookEnvironment is what every hook is told (start.c, lxc_init).
func hookEnvironment(in *Input, base []string) *variables {
	conf := in.Config
	v := &variables{list: slices.Clone(base), caller: in.Environ}
	v.add(conf.Environment...)
	v.add(conf.EnvironmentHooks...)
	level := conf.Log.Level
	if level == "" {
		level = "ERROR"
	}
	version := "0"
	if conf.HookVersion > 0 {
		version = "1"
	}
	v.add("LXC_NAME=" + in.Name)
	for _, s := range []config.Setting{
		{Name: "LXC_CONFIG_FILE", Value: in.ConfigFile}, {Name: "LXC_ROOTFS_MOUNT", Value: in.Root},
		{Name: "LXC_ROOTFS_PATH", Value: rootPath(conf)},
		{Name: "LXC_CONSOLE", Value: conf.Console.Path},
		{Name: "LXC_CONSOLE_LOGPATH", Value: conf.Console.LogFile},
	} {
		if s.Value != "" {
			v.add(s.Name + "=" + s.Value)
		}
	}
	// Every kernel that the library runs on has cgroup namespaces.
	v.add(
		"LXC_CGNS_AWARE=1", "LXC_LOG_LEVEL="+strings.ToUpper(level), "LXC_HOOK_VERSION="+version,
	)
	return v
}

// rootPath is lxc.rootfs.path without the type in front.
func rootPath(conf *config.Config) string {
	if kind, rest, ok := strings.Cut(conf.Rootfs.Path, ":"); ok && !strings.Contains(kind, "/") {
		return rest
	}
	return conf.Rootfs.Path
}

// networkVariables are those of the scripts of an interface.
func networkVariables(args []string) (list []string) {
	if len(args) == 0 {
		return nil
	}
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	list = []string{"LXC_NET_TYPE=" + args[0]}
	switch args[0] {
	case "veth":
		list = append(list, "LXC_NET_PEER="+arg(2), "LXC_NET_PARENT="+arg(1))
	case "macvlan", "ipvlan", "phys", "vlan":
		list = append(list, "LXC_NET_PARENT="+arg(1))
	}
	return list
}

// hookNames are all of LXC's (lxc.container.conf(5), CONTAINER HOOKS).
var hookNames = [...]string{
	"pre-start", "pre-mount", "mount", "autodev", "start-host", "start", "stop", "post-stop",
	"clone", "destroy",
}

// hooks makes those hooks a part of the specification that run in the container's namespaces.
func (m *maker) hooks() error {
	conf := m.in.Config
	for _, name := range slices.Sorted(maps.Keys(conf.Hooks)) {
		if scripts := conf.Hooks[name]; len(scripts) > 0 && !slices.Contains(hookNames[:], name) {
			return refuse(
				"lxc.hook."+name, scripts[0], "want one of %s", strings.Join(hookNames[:], ", "),
			)
		}
	}
	if conf.HookVersion < 0 || conf.HookVersion > 1 {
		return refuse("lxc.hook.version", strconv.Itoa(conf.HookVersion), "want 0 or 1")
	}
	for _, script := range conf.Hooks["pre-mount"] {
		m.warn(
			"lxc.hook.pre-mount", script,
			"runs in the host's mount namespace, because nothing runs in the container's before "+
				"its mounts",
		)
	}
	var h specs.Hooks
	h.CreateContainer = m.inside("mount")
	if autodev(conf) {
		h.CreateContainer = append(h.CreateContainer, m.inside("autodev")...)
	}
	h.StartContainer = m.inside("start")
	if len(h.CreateContainer)+len(h.StartContainer) > 0 {
		m.spec.Hooks = &h
	}
	return nil
}

// inside are the hooks of a name for the specification. It is written to disk, so of the caller's
// environment they are given the search path only.
func (m *maker) inside(name string) (list []specs.Hook) {
	in := *m.in
	in.Environ = nil
	search := variables{caller: m.in.Environ, list: []string{defaultPath}}
	search.add("PATH")
	for _, script := range m.in.Config.Hooks[name] {
		args, env := HookCall(&in, name, script, Moment{})
		v := variables{list: slices.Clone(search.list), caller: m.in.Environ}
		v.add(m.in.Config.Environment...)
		v.add(m.in.Config.EnvironmentHooks...)
		v.add(env...)
		list = append(list, specs.Hook{Path: args[0], Args: args, Env: v.list})
	}
	return list
}
