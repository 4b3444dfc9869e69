// Package ocispec is what an LXC configuration means in OCI's terms: a pure function from a
// config.Config and facts of the host to a runtime-spec configuration and to those few things that
// OCI has no words for.
//
// Not for: reading files, mounting root file systems, making interfaces (package lxc).
package ocispec

import (
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/lxc/config"
)

// Input is what a container is made from. Nothing of it is changed.
type Input struct {
	Name   string
	Config *config.Config
	// Command is what lxc-execute runs below a small init; nil: the container's own init.
	Command []string
	// Root is the directory of the root file system, mounted; "/" for a container without one.
	Root string
	// FSTab are the entries of the file Config.Mount.FSTab.
	FSTab []config.MountEntry
	// Seccomp is the content of the file Config.Seccomp.Profile; nil: no filter.
	Seccomp []byte
	// TTYs are terminals of the host that become /dev/tty1 and so on, as many as Config.TTY.Max.
	TTYs []string
	// Netns is the path of the network namespace, in which the interfaces are; "": a new one, which
	// has none. Shared are the paths of namespaces that come from elsewhere, by LXC's word.
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
	SELinux       bool
	// Syscalls says whether a system call is known by this name on this architecture.
	Syscalls func(name string) bool
}

// Made is a container as it is started.
type Made struct {
	Spec *specs.Spec
	// Group are files of the container's group, of version 1 or 2, and what is written to them
	// before a process is inside, beyond what Spec.Linux.Resources has. Names are the kernel's
	// ("memory.swappiness"), with their controller in front.
	Group []config.Setting
	// Proc are files of /proc/PID of the container's init.
	Proc []config.Setting
	// Halt, Reboot and Stop end the container; a Halt or Reboot of 0 is to be found out: a process
	// that blocks SIGRTMIN+3 is systemd and is sent that, any other SIGPWR (to halt) and SIGINT (to
	// reboot).
	Halt, Reboot, Stop syscall.Signal
	// Warnings are settings that this host cannot honour and LXC goes on without, one sentence each.
	Warnings []string
}
