// Package ocispec is what an LXC configuration means in OCI's terms: a pure function from a
// config.Config and facts of the host to a runtime-spec configuration and to those few things that
// OCI has no words for. What LXC does is the measure (lxc.container.conf(5) and LXC's conf.c,
// start.c and cgfsng.c).
//
// It promises that the same Input gives the same bytes, that every setting is honoured, or is an
// error that names its key and value, or is a sentence in Made.Warnings where LXC goes on too; and
// that package container/plan accepts the result.
//
// Hooks. OCI runs createContainer when the mounts of a container are made and the root is not
// changed yet, in the container's namespaces: these are LXC's hooks mount and autodev, with
// LXC_ROOTFS_MOUNT as the root's place; the device nodes exist already when autodev runs. OCI runs
// startContainer inside of the root before init: this is LXC's hook start. The caller runs the
// others with HookCall, in the host's namespaces: pre-start and pre-mount before the start,
// start-host when init exists, stop and post-stop after the end, clone and destroy. Pre-mount
// differs from LXC's, whose mounts the host does not see: the library has no stage before the
// mounts.
//
// What the library has no words for, and what happens in place of it:
//
//   - Symbolic links. With lxc.tty.dir, /dev/ttyN is a second mount of the terminal in that
//     directory, and /dev/console exists there under no second name.
//   - Files below /proc. The boot ID is the host's, where LXC invents one.
//   - A container without lxc.autodev has the six usual device nodes added to the /dev of its
//     image.
//   - Optional mounts, see Input.Exists.
//
// The key lxc.apparmor.allow_incomplete makes no difference: a profile is used on every kernel
// that has AppArmor.
//
// Not for: reading files, mounting root file systems, making interfaces, cgroup names, consoles,
// and starting and stopping on a schedule (package lxc). Those are the keys lxc.rootfs.path, mount
// and managed, lxc.net (except for the type none), lxc.cgroup.dir and relative, lxc.console (except
// for the path), lxc.start, lxc.group, lxc.log, lxc.monitor and lxc.ephemeral.
//
// Tested by golden files of whole configurations, each of which package container/plan has to
// accept, and by a table for each key.
package ocispec

import (
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/capability"
	"strake/lxc/config"
)

// Input is what a container is made from. Nothing of it is changed.
type Input struct {
	Name   string
	Config *config.Config
	// ConfigFile is where Config comes from, for hooks; "": nowhere. LXCPath is the directory that
	// containers are in: a target of a mount may begin with LXCPath/Name/rootfs.
	ConfigFile, LXCPath string
	// Command is what lxc-execute runs below a small init; nil: the container's own init. A list
	// that is empty and not nil runs lxc.execute.cmd.
	Command []string
	// Root is the directory of the root file system, mounted; "/" for a container without one.
	Root string
	// FSTab are the entries of the file Config.Mount.FSTab.
	FSTab []config.MountEntry
	// Exists says whether a path of the host exists; nil: all do. OCI has no optional mounts, so
	// one whose source does not exist, or whose target does not and is not to be made, is left out.
	Exists func(path string) bool
	// Seccomp is the content of the file Config.Seccomp.Profile; nil: no filter.
	Seccomp []byte
	// TTYs are terminals of the host that become /dev/tty1 and so on, as many as Config.TTY.Max.
	TTYs []string
	// Netns is the path of the network namespace, in which the interfaces are; "": a new one, which
	// has none. Shared are the paths of namespaces that come from elsewhere, by LXC's word.
	//
	// In a container with a user namespace of its own sysfs can be mounted for a network namespace
	// that belongs to that user namespace only: a new one, into which interfaces are moved later.
	Netns  string
	Shared map[string]string
	// CgroupsPath is specs.Linux.CgroupsPath.
	CgroupsPath string
	// Environ is the caller's environment, for lines like "lxc.environment = TERM".
	Environ []string
	Host    Host
}

// Host is what the result depends on.
type Host struct {
	Arch string // GOARCH
	// CgroupVersion is 1 or 2; version 1 may have an empty version 2 tree beside it.
	CgroupVersion int
	AppArmor      bool
	// NoLXCProfiles says that the profiles that LXC's packages install are not loaded.
	NoLXCProfiles bool
	SELinux       bool
	// LastCap is the highest capability that the kernel knows; 0: the highest that the library
	// knows. Caps are the capabilities that the caller has itself; 0: all.
	LastCap int
	Caps    capability.Set
	// Confined says that a seccomp filter is in force already, as in a container.
	Confined bool
	// ProcSys are names of directories in /proc/sys beside those of Linux 6.18.
	ProcSys []string
	// Syscalls says whether a system call is known by this name on this architecture; nil: what
	// package container/seccomp knows.
	Syscalls func(name string) bool
}

// Made is a container as it is started.
type Made struct {
	Spec *specs.Spec
	// Init puts a small init in front of the process, which forwards signals and reaps.
	Init bool
	// RootOptions are mount options of the root that OCI has no words for: the caller mounts
	// Input.Root with them. "idmap=container" is an id-mapped mount with Spec.Linux's mappings.
	RootOptions []string
	// Dirs are directories of the host that are made if they are missing, with mode 0755: those of
	// overlays among the mounts.
	Dirs []string
	// Group are files of the container's group, of version 1 or 2, and what is written to them
	// before a process is inside, beyond what Spec.Linux.Resources has. Names are the kernel's
	// ("memory.swappiness"), with their controller in front.
	Group []config.Setting
	// Delegation, if not nil, gives the container's groups to a user of the container.
	Delegation *Delegation
	// Proc are files of /proc/PID of the container's init.
	Proc []config.Setting
	// AppArmorProfile is the text of the profile that Spec.Process.ApparmorProfile names, to be
	// loaded before the start; "": the host has it.
	AppArmorProfile string
	// NoNewKeyring keeps the caller's session keyring (plan.Options.NoNewKeyring).
	NoNewKeyring bool
	// SchedCore gives the processes of the container a core scheduling cookie of their own
	// (Documentation/admin-guide/hw-vuln/core-scheduling.rst, PR_SCHED_CORE_CREATE).
	SchedCore bool
	// Halt, Reboot and Stop end the container; a Halt or Reboot of 0 is to be found out: a process
	// that blocks SIGRTMIN+3 is systemd and is sent that, any other SIGPWR (to halt) and SIGINT (to
	// reboot).
	Halt, Reboot, Stop syscall.Signal
	// Warnings are settings that this host cannot honour and LXC goes on without, one sentence
	// each.
	Warnings []string
}

// Delegation is the owner of the container's group in every hierarchy: of its directory and of
// those of Files that are in it (LXC's cgfsng.c, chown_cgroup_wrapper). The group of the owner may
// write, too. It is given away before a process of the container starts. Without that the init of a
// container with a user namespace cannot make groups.
type Delegation struct {
	// UID and GID are the host's numbers.
	UID, GID uint32
	Files    []string
}

// maker carries what the parts of one translation share.
type maker struct {
	in   *Input
	spec *specs.Spec
	made *Made
	caps capability.Set
	// ttys are the names in /dev of the terminals that lxc-console connects to.
	ttys []string
}

// Make translates a configuration. Errors name the key, the value and what is allowed, and are of
// class errdefs.ErrInvalidArgument. The result shares nothing with in that could be changed.
func Make(in *Input) (*Made, error) {
	m := &maker{in: in, made: &Made{Init: in.Command != nil}}
	m.spec = &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: in.Root}, Process: &specs.Process{},
		Linux: &specs.Linux{
			CgroupsPath: in.CgroupsPath,
			// As with LXC: what the host mounts below the root later shows in the container.
			RootfsPropagation: "rslave",
		},
	}
	m.made.Spec = m.spec
	extras(in.Config, m.made)
	for _, part := range []func() error{
		m.namespaces, m.idmap, m.timeOffsets, m.rootOptions, m.capabilities, m.mounts, m.process,
		m.resources, m.delegation, m.sysctls, m.labels, m.filter, m.hooks,
		func() error { return personality(in.Config.Arch, m.spec.Linux) },
		func() error { return signals(in.Config, m.made) },
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	m.names()
	m.processCaps()
	return m.made, nil
}
