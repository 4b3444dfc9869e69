package ocispec

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/internal/message"
)

// kernelMounts are the mounts of every container: the kernel's file systems and /dev/shm.
func kernelMounts(in *Input) []specs.Mount {
	s := in.Spec
	sysMode := "ro"
	if s.Privileged {
		sysMode = "rw"
	}
	cgroupMode := sysMode
	if s.WritableCgroups {
		cgroupMode = "rw"
	}
	shm := s.ShmSizeBytes
	if shm <= 0 {
		shm = 64 << 20
	}
	defaults := []specs.Mount{
		{
			Destination: "/proc", Type: "proc", Source: "proc",
			Options: []string{"nosuid", "noexec", "nodev"},
		},
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
			Destination: "/sys", Type: "sysfs", Source: "sysfs",
			Options: []string{"nosuid", "noexec", "nodev", sysMode},
		},
		{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", cgroupMode},
		},
	}
	// Of the host's IPC namespace as well, where the host has not mounted it (mq_overview(7)).
	defaults = append(
		defaults,
		specs.Mount{
			Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue",
			Options: []string{"nosuid", "noexec", "nodev"},
		},
	)
	switch {
	case s.IPCMode == "none":
	case s.IPCMode == "host":
		defaults = append(defaults, bind("/dev/shm", "/dev/shm"))
	case in.ShmPath != "":
		defaults = append(defaults, bind("/dev/shm", in.ShmPath))
	default:
		defaults = append(defaults, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", shm)}})
	}
	return defaults
}

// bind is a private bind mount of a file or a tree of the host.
func bind(dst, src string, opts ...string) specs.Mount {
	return specs.Mount{
		Destination: dst, Type: "bind", Source: src,
		Options: append([]string{"rbind", "rprivate"}, opts...),
	}
}

// mounts lists the kernel file systems, the engine's files and the user's mounts, parents before
// children.
func mounts(in *Input, cfg *specs.Spec) error {
	s := in.Spec
	defaults := kernelMounts(in)
	var user []specs.Mount
	taken := map[string]string{}
	claim := func(what, dst string) error {
		if !path.IsAbs(dst) {
			return message.New(
				errdefs.ErrInvalidArgument,
				"%s: invalid mount path: '%s' mount path must be absolute", what, dst,
			)
		}
		clean := path.Clean(dst)
		if clean == "/" {
			return message.New(
				errdefs.ErrInvalidArgument, "%s: invalid specification: destination can't be '/'",
				what,
			)
		}
		if _, ok := taken[clean]; ok {
			return message.New(errdefs.ErrInvalidArgument, "Duplicate mount point: %s", clean)
		}
		taken[clean] = what
		return nil
	}
	for i := range in.Mounts {
		m := &in.Mounts[i]
		if err := claim(fmt.Sprintf("mounts[%d]", i), m.Target); err != nil {
			return err
		}
		om, err := userMount(m)
		if err != nil {
			return err
		}
		user = append(user, om)
	}
	for _, dst := range sortedKeys(s.Tmpfs) {
		if err := claim("tmpfs", dst); err != nil {
			return err
		}
		options, err := tmpfsOptions(s.Tmpfs[dst])
		if err != nil {
			return message.New(errdefs.ErrInvalidArgument, "tmpfs %s: %w", dst, err)
		}
		user = append(
			user,
			specs.Mount{
				Destination: path.Clean(dst), Type: "tmpfs", Source: "tmpfs", Options: options,
			},
		)
	}
	for _, f := range []struct{ dst, src string }{
		{"/etc/resolv.conf", in.ResolvPath}, {"/etc/hostname", in.HostnamePath},
		{"/etc/hosts", in.HostsPath},
	} {
		if _, ok := taken[f.dst]; ok || f.src == "" {
			continue
		}
		var opts []string
		if s.ReadonlyRootfs {
			opts = []string{"ro"}
		}
		user = append(user, bind(f.dst, f.src, opts...))
	}
	sort.SliceStable(user, func(i, j int) bool {
		return depth(user[i].Destination) < depth(user[j].Destination)
	})
	for _, m := range defaults {
		if _, ok := taken[m.Destination]; ok {
			continue
		}
		if _, ok := taken["/dev"]; ok && strings.HasPrefix(m.Destination, "/dev/") {
			continue
		}
		cfg.Mounts = append(cfg.Mounts, m)
	}
	cfg.Mounts = append(cfg.Mounts, user...)
	return nil
}

func depth(p string) int { return strings.Count(path.Clean(p), "/") }

var propagations = []string{"private", "rprivate", "shared", "rshared", "slave", "rslave"}

// userMount translates one mount of the user.
func userMount(m *Mount) (specs.Mount, error) {
	om := specs.Mount{Destination: path.Clean(m.Target)}
	switch m.Type {
	case "bind", "volume":
		om.Type, om.Source = "bind", m.HostPath
		om.Options = []string{"rbind"}
		if m.NonRecursive {
			om.Options[0] = "bind"
		}
		prop := m.Propagation
		if prop == "" {
			prop = "rprivate"
		}
		if !slices.Contains(propagations, prop) {
			return om, message.New(
				errdefs.ErrInvalidArgument, "mount %s: propagation %q: want one of %q", m.Target,
				prop, propagations,
			)
		}
		om.Options = append(om.Options, prop)
		switch {
		case m.ReadOnly && (m.NonRecursive || m.ReadOnlyNonRecursive):
			om.Options = append(om.Options, "ro")
		case m.ReadOnly:
			// Mounts below are read-only too, as since dockerd 25 on kernels with mount_setattr(2).
			om.Options = append(om.Options, "ro", "rro")
		}
	case "tmpfs":
		om.Type, om.Source = "tmpfs", "tmpfs"
		om.Options = []string{"noexec", "nosuid", "nodev", "rprivate"}
		if _, ok := m.Options["exec"]; ok {
			om.Options = om.Options[1:]
		}
		if m.SizeBytes > 0 {
			om.Options = append(om.Options, fmt.Sprintf("size=%d", m.SizeBytes))
		}
		if m.Mode != 0 {
			om.Options = append(om.Options, fmt.Sprintf("mode=%o", m.Mode))
		}
		if m.ReadOnly {
			om.Options = append(om.Options, "ro")
		}
	default:
		return om, message.New(
			errdefs.ErrInvalidArgument, "mount %s: type %q: want \"bind\", \"volume\" or \"tmpfs\"",
			m.Target, m.Type,
		)
	}
	return om, nil
}

// tmpfsKnown are the options of docker run --tmpfs: those of the file system, which have values
// (tmpfs(5)), and those of every mount.
var tmpfsKnown = struct{ values, flags []string }{
	[]string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"},
	append([]string{
		"defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async",
		"dirsync", "remount", "mand", "nomand", "atime", "noatime",
		"diratime", "nodiratime", "bind", "rbind", "relatime", "norelatime", "strictatime",
		"nostrictatime", "unbindable", "runbindable",
	}, propagations...),
}
