package ocispec

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/capability"
	"strake/container/cgroup"
	"strake/engine"
	"strake/internal/message"
)

// Capabilities resolves CapAdd and CapDrop as dockerd does. A privileged container has all. None
// has what the engine itself lacks, as inside of another container: to ask for one of those by its
// name is an error.
func Capabilities(s *engine.Spec, host *Host) ([]string, error) {
	set := capability.All(host.LastCap)
	if !s.Privileged {
		var err error
		if set, err = capability.Tweak(
			capability.Default(), s.CapAdd, s.CapDrop, host.LastCap,
		); err != nil {
			return nil, message.New(errdefs.ErrInvalidArgument, "invalid %w", err)
		}
	}
	if host.Caps == 0 {
		return set.Names(), nil
	}
	for _, name := range s.CapAdd {
		if n, ok := capability.Lookup(
			"CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_"),
		); ok && set.Has(n) && !host.Caps.Has(n) {
			return nil, message.New(
				errdefs.ErrInvalidArgument,
				"invalid CapAdd: capability %q: the engine does not have it itself", name,
			)
		}
	}
	return (set & host.Caps).Names(), nil
}

// ProcessCaps gives root the capabilities and everybody else only the right to gain them, which is
// what execve(2) makes of them anyway (capabilities(7)).
func ProcessCaps(caps []string, uid uint32) *specs.LinuxCapabilities {
	if uid == 0 {
		return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	}
	return &specs.LinuxCapabilities{Bounding: caps}
}

// systemPaths hides what containers have no business with.
func systemPaths(in *Input, cfg *specs.Spec) {
	s := in.Spec
	if s.Privileged || s.SystemPathsOpen {
		return
	}
	cfg.Linux.MaskedPaths = slices.Concat(engine.DefaultMaskedPaths(), in.Host.ThermalThrottle)
	cfg.Linux.ReadonlyPaths = engine.DefaultReadonlyPaths()
	if s.MaskedPaths != nil {
		cfg.Linux.MaskedPaths = slices.Clone(*s.MaskedPaths)
	}
	if s.ReadonlyPaths != nil {
		cfg.Linux.ReadonlyPaths = slices.Clone(*s.ReadonlyPaths)
	}
}

// sysctls applies the user's over the defaults and refuses those that would change the host.
func sysctls(in *Input, cfg *specs.Spec) error {
	s := in.Spec
	hasNet := s.Network != "host"
	out := map[string]string{}
	if hasNet && in.NetPath == "" {
		// No port is privileged in a network of one's own, and ping needs no capability. Networks
		// that package network makes have this.
		out["net.ipv4.ip_unprivileged_port_start"] = "0"
		out["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	for _, k := range sortedKeys(s.Sysctls) {
		name := strings.ReplaceAll(k, "/", ".")
		switch {
		case strings.Contains(k, "..") || k == "":
			return message.New(errdefs.ErrInvalidArgument, "sysctl '%s' is not a name", k)
		case strings.HasPrefix(name, "net."):
			if !hasNet {
				return message.New(
					errdefs.ErrInvalidArgument, "sysctl '%s' not allowed in host network namespace",
					k,
				)
			}
		case slices.Contains([]string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
			"kernel.shm_rmid_forced"}, name), strings.HasPrefix(name, "fs.mqueue."):
			if s.IPCMode == "host" {
				return message.New(
					errdefs.ErrInvalidArgument, "sysctl '%s' not allowed in host ipc namespace", k,
				)
			}
		case name == "kernel.domainname":
			if s.UTSMode == "host" {
				return message.New(
					errdefs.ErrInvalidArgument, "sysctl '%s' not allowed in host uts namespace", k,
				)
			}
		default:
			return message.New(
				errdefs.ErrInvalidArgument,
				"sysctl '%s' is not namespaced: want net.*, fs.mqueue.*, kernel.domainname or the kernel's IPC limits",
				k,
			)
		}
		out[k] = s.Sysctls[k]
	}
	if len(out) > 0 {
		cfg.Linux.Sysctl = out
	}
	return nil
}

func device(allow bool, typ string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	d := specs.LinuxDeviceCgroup{Allow: allow, Type: typ, Access: access}
	if major >= 0 {
		d.Major = &major
	}
	if minor >= 0 {
		d.Minor = &minor
	}
	return d
}

// defaultDevices may be used by every container (runc's list).
func defaultDevices() []specs.LinuxDeviceCgroup {
	return append(
		[]specs.LinuxDeviceCgroup{device(false, "a", -1, -1, "rwm")}, cgroup.DefaultDevices()...,
	)
}

// Devices fills in device nodes and the rules about them. The host's nodes were looked at before:
// in.Host.Devices holds every one that Spec.Devices names.
func Devices(in *Input, cfg *specs.Spec) error {
	s := in.Spec
	res := s.Resources
	if s.Privileged {
		res.Devices = []specs.LinuxDeviceCgroup{device(true, "a", -1, -1, "rwm")}
		for _, d := range in.Host.Devices {
			if !strings.HasPrefix(d.Path, "/dev/pts/") && d.Path != "/dev/console" {
				cfg.Linux.Devices = append(cfg.Linux.Devices, d)
			}
		}
	} else {
		res.Devices = defaultDevices()
	}
	for i, d := range s.Devices {
		perm := d.Permissions
		if perm == "" {
			perm = "rwm"
		}
		if strings.Trim(perm, "rwm") != "" {
			return message.New(
				errdefs.ErrInvalidArgument,
				"devices[%d] %s: permissions %q: want a subset of \"rwm\"", i, d.HostPath, perm,
			)
		}
		target := d.ContainerPath
		if target == "" {
			target = d.HostPath
		}
		if !path.IsAbs(target) {
			return message.New(
				errdefs.ErrInvalidArgument,
				"devices[%d] %s: path in the container %q is not absolute", i, d.HostPath, target,
			)
		}
		found := false
		for _, node := range in.Host.Devices {
			rel, below := strings.CutPrefix(node.Path, d.HostPath)
			if !below || rel != "" && rel[0] != '/' {
				continue
			}
			found = true
			node.Path = path.Clean(target + rel)
			cfg.Linux.Devices = slices.DeleteFunc(cfg.Linux.Devices, func(x specs.LinuxDevice) bool {
				return x.Path == node.Path
			})
			cfg.Linux.Devices = append(cfg.Linux.Devices, node)
			if !s.Privileged {
				res.Devices = append(
					res.Devices, device(true, node.Type, node.Major, node.Minor, perm),
				)
			}
		}
		if !found {
			return message.New(
				errdefs.ErrInvalidArgument,
				"error gathering device information while adding custom device %q: no such file or directory",
				d.HostPath,
			)
		}
	}
	for i, r := range s.DeviceRules {
		rule, err := deviceRule(r)
		if err != nil {
			return fmt.Errorf("deviceRules[%d] %q: %w", i, r, err)
		}
		res.Devices = append(res.Devices, rule)
	}
	cfg.Linux.Resources = &res
	return nil
}

// deviceRule reads "c 1:3 rwm"; a number may be "*" (cgroup-v1/devices.rst).
func deviceRule(r string) (specs.LinuxDeviceCgroup, error) {
	bad := message.New(
		errdefs.ErrInvalidArgument, "want TYPE MAJOR:MINOR ACCESS as in \"c 1:3 rwm\"",
	)
	f := strings.Fields(r)
	if len(f) != 3 || !slices.Contains([]string{"a", "b", "c"}, f[0]) ||
		strings.Trim(f[2], "rwm") != "" {
		return specs.LinuxDeviceCgroup{}, bad
	}
	major, minor, ok := strings.Cut(f[1], ":")
	if !ok {
		return specs.LinuxDeviceCgroup{}, bad
	}
	number := func(s string) (int64, bool) {
		if s == "*" {
			return -1, true
		}
		v, err := strconv.ParseUint(s, 10, 32)
		return int64(v), err == nil
	}
	ma, ok1 := number(major)
	mi, ok2 := number(minor)
	if !ok1 || !ok2 {
		return specs.LinuxDeviceCgroup{}, bad
	}
	return device(true, f[0], ma, mi, f[2]), nil
}

// Confine adds the seccomp filter and the AppArmor profile.
func Confine(in *Input, cfg *specs.Spec) (err error) {
	s := in.Spec
	switch {
	case s.Seccomp == "unconfined", s.Seccomp == "" && s.Privileged:
	case s.Seccomp == "":
		profile := seccomp.GetDefaultProfile
		if in.Profile != nil {
			profile = in.Profile
		}
		cfg.Linux.Seccomp, err = profile(cfg)
	default:
		cfg.Linux.Seccomp, err = seccomp.LoadProfile(s.Seccomp, cfg)
	}
	if err != nil {
		return message.New(errdefs.ErrInvalidArgument, "seccomp profile: %w", err)
	}
	if in.Host.AppArmor && s.AppArmor != "unconfined" && (s.AppArmor != "" || !s.Privileged) {
		cfg.Process.ApparmorProfile = s.AppArmor
	}
	return nil
}
