package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/cgroup"
)

func (a *app) spec(_ context.Context, fl *flag.FlagSet, args []string) (int, error) {
	var bundle string
	for _, n := range []string{"bundle", "b"} {
		fl.StringVar(&bundle, n, ".", "`directory` to write config.json to")
	}
	rootless := fl.Bool("rootless", false, "for a user without privileges")
	if err := fl.Parse(args); err != nil {
		return 1, err
	}
	if fl.NArg() > 0 {
		return 1, fmt.Errorf("spec: unexpected argument %q", fl.Arg(0))
	}
	s := exampleSpec(*rootless, os.Getuid(), os.Getgid())
	if host, err := cgroup.Detect(a.rt.CgroupRoot); err == nil && host.Version() == 2 {
		// As runc: with version 1 the groups are seen by the paths that they have on the host.
		s.Linux.Namespaces = append(
			s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace},
		)
	}
	raw, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return 1, err
	}
	file := filepath.Join(bundle, "config.json")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return 1, fmt.Errorf("%s exists already; remove it first", file)
	}
	if err != nil {
		return 1, err
	}
	_, err = f.Write(append(raw, '\n'))
	return 0, errors.Join(err, f.Close())
}

// exampleSpec is a configuration that runs a shell in ./rootfs with few privileges, as `runc spec`
// writes one.
func exampleSpec(rootless bool, uid, gid int) *specs.Spec {
	caps := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	s := &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Terminal: true,
			Args:     []string{"sh"},
			Env: []string{
				"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm",
			},
			Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: caps, Effective: caps, Permitted: caps,
			},
			Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
			NoNewPrivileges: true,
		},
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Hostname: "strake",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{
				Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
				Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
			},
			{
				Destination: "/dev/pts", Type: "devpts", Source: "devpts",
				Options: []string{
					"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5",
				},
			},
			{
				Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
				Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"},
			},
			{
				Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue",
				Options: []string{"nosuid", "noexec", "nodev"},
			},
			{
				Destination: "/sys", Type: "sysfs", Source: "sysfs",
				Options: []string{"nosuid", "noexec", "nodev", "ro"},
			},
			{
				Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
				Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"},
			},
		},
		Linux: &specs.Linux{
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
				"/proc/latency_stats", "/proc/sched_debug",
				"/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
				"/sys/devices/virtual/powercap", "/sys/firmware",
			},
			ReadonlyPaths: []string{
				"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
			},
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
			},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
			},
		},
	}
	if rootless {
		withoutRoot(s, uid, gid)
	}
	return s
}

// withoutRoot changes a configuration so that a user without privilege can run it: in a user
// namespace that has this user alone, with the host's network, and without limits.
func withoutRoot(s *specs.Spec, uid, gid int) {
	var without []specs.LinuxNamespace
	for _, ns := range s.Linux.Namespaces {
		if ns.Type != specs.NetworkNamespace {
			without = append(without, ns)
		}
	}
	s.Linux.Namespaces = append(without, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(uid), Size: 1}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(gid), Size: 1}}
	s.Linux.Resources = nil
	for i := range s.Mounts {
		m := &s.Mounts[i]
		switch m.Destination {
		case "/dev/pts":
			m.Options = []string{
				"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620",
			}
		case "/sys":
			m.Type, m.Source, m.Options = "bind", "/sys", []string{
				"rbind", "nosuid", "noexec", "nodev", "ro",
			}
		}
	}
}
