package docker

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
)

// specOf translates a request that has passed normalize and adapt. Errors are of the class
// errdefs.ErrInvalidArgument and name the field or the value.
func specOf(req *container.CreateRequest, on host) (engine.Spec, error) {
	c, h := req.Config, req.HostConfig
	s := engine.Spec{
		Image: c.Image, Labels: c.Labels,
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.WorkingDir, User: c.User,
		GroupAdd: h.GroupAdd,
		Hostname: c.Hostname, Domainname: c.Domainname, TTY: c.Tty, OpenStdin: c.OpenStdin,
		StdinOnce: c.StdinOnce, ConsoleSize: consoleSize(&h.ConsoleSize),
		Init: h.Init != nil && *h.Init, StopSignal: c.StopSignal, StopTimeout: c.StopTimeout,
		OOMScoreAdj: h.OomScoreAdj,
		Privileged:  h.Privileged, CapAdd: h.CapAdd, CapDrop: h.CapDrop,
		ReadonlyRootfs: h.ReadonlyRootfs,
		PIDMode:        string(h.PidMode), IPCMode: string(h.IpcMode), UTSMode: string(h.UTSMode),
		CgroupMode: string(h.CgroupnsMode), UsernsMode: string(h.UsernsMode),
		CgroupParent: h.CgroupParent, DeviceRules: h.DeviceCgroupRules, Sysctls: h.Sysctls,
		ShmSizeBytes: h.ShmSize, Tmpfs: h.Tmpfs,
		Network: string(h.NetworkMode), PublishAll: h.PublishAllPorts, DNSSearch: h.DNSSearch,
		DNSOptions: h.DNSOptions, ExtraHosts: h.ExtraHosts,
		AutoRemove: h.AutoRemove, Umask: h.Umask,
		Restart: engine.RestartPolicy{
			Name: string(h.RestartPolicy.Name), MaxRetries: h.RestartPolicy.MaximumRetryCount,
		},
	}
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return s, invalid("%v", err)
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		s.Entrypoint, s.ClearEntrypoint = nil, true
	}
	for _, env := range c.Env {
		if env == "" || env[0] == '=' {
			return s, invalid("invalid environment variable: %s", env)
		}
	}
	s.MaskedPaths, s.ReadonlyPaths = pathsOf(h.MaskedPaths), pathsOf(h.ReadonlyPaths)
	for _, u := range h.Ulimits {
		s.Rlimits = append(
			s.Rlimits,
			specs.POSIXRlimit{
				Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft),
				Hard: uint64(u.Hard),
			},
		)
	}
	for _, d := range h.Devices {
		s.Devices = append(
			s.Devices,
			engine.Device{
				HostPath: d.PathOnHost, ContainerPath: d.PathInContainer,
				Permissions: d.CgroupPermissions,
			},
		)
	}
	for _, a := range h.DNS {
		s.DNS = append(s.DNS, a.String())
	}
	for _, check := range []func() error{
		func() error { return unsupported(h) },
		func() error { return securityOf(&s, h.SecurityOpt) },
		func() error { return resourcesOf(&s, &h.Resources, on) },
		func() error { return mountsOf(&s, c, h, on.root) },
		func() error { return portsOf(&s, c, h) },
		func() error { return endpointsOf(&s, req.NetworkingConfig) },
		func() error { return logOf(&s, &h.LogConfig) },
	} {
		if err := check(); err != nil {
			return s, err
		}
	}
	if hc := c.Healthcheck; hc != nil {
		s.Health = &engine.HealthConfig{
			Test: hc.Test, Interval: hc.Interval, Timeout: hc.Timeout, StartPeriod: hc.StartPeriod,
			StartInterval: hc.StartInterval, Retries: hc.Retries,
		}
	}
	return s, nil
}

// consoleSize reads a height and a width. A size that no terminal can have is none, as is 0.
func consoleSize(size *[2]uint) *engine.ConsoleSize {
	if size == nil || size[0] >= 1<<16 || size[1] >= 1<<16 || size[0] == 0 && size[1] == 0 {
		return nil
	}
	return &engine.ConsoleSize{Width: uint16(size[1]), Height: uint16(size[0])}
}

// pathsOf tells "not given" (nil) from "none" (empty).
func pathsOf(list []string) *[]string {
	if list == nil {
		return nil
	}
	return &list
}

// runtimes are the accepted values of HostConfig.Runtime, the default first. All of them mean
// strake's own runtime.
var runtimes = []string{"strake", "runc", "io.containerd.runc.v2"}

// unsupported refuses fields that are not supported, so that none is silently ignored.
func unsupported(h *container.HostConfig) error {
	switch {
	case len(h.VolumesFrom) > 0:
		return notImplemented("HostConfig.VolumesFrom")
	case len(h.Links) > 0:
		return notImplemented(
			"HostConfig.Links (containers of one network find each other by name)",
		)
	case len(h.DeviceRequests) > 0:
		return notImplemented("HostConfig.DeviceRequests")
	case len(h.StorageOpt) > 0:
		return notImplemented("HostConfig.StorageOpt")
	case !slices.Contains(runtimes, h.Runtime):
		return invalid("unknown or invalid runtime name: %s", h.Runtime)
	case !h.Isolation.IsValid():
		return invalid("invalid isolation %q on linux", h.Isolation)
	case slices.Contains(slices.Collect(maps.Keys(h.Annotations)), ""):
		return invalid(
			"invalid Annotations: the empty string is not permitted as an annotation key",
		)
	case h.Cgroup != "":
		return notImplemented("HostConfig.Cgroup")
	case h.Umask != nil && *h.Umask > 0o777:
		return invalid("HostConfig.Umask %#o: want 0 to 0777", *h.Umask)
	}
	return nil
}

// selinux are the parts of an SELinux label.
var selinux = []string{"type", "level", "user", "role"}

// securityOf reads --security-opt values: name=value, or name:value as old clients have it.
func securityOf(s *engine.Spec, opts []string) error {
	for _, opt := range opts {
		name, value, ok := strings.Cut(opt, "=")
		if !ok {
			name, value, ok = strings.Cut(opt, ":")
		}
		label, _, _ := strings.Cut(value, ":")
		switch {
		case opt == "no-new-privileges":
			s.NoNewPrivileges = true
		case name == "no-new-privileges":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return invalid("invalid --security-opt: %q: want true or false", opt)
			}
			s.NoNewPrivileges = on
		case name == "seccomp" && ok:
			s.Seccomp = value
			if value == "builtin" {
				s.Seccomp = ""
			}
		case name == "apparmor" && ok:
			s.AppArmor = value
		case opt == "writable-cgroups":
			s.WritableCgroups = true
		case name == "writable-cgroups" && (value == "true" || value == "false"):
			s.WritableCgroups = value == "true"
		case name == "systempaths" && value == "unconfined":
			s.SystemPathsOpen = true
		case name == "label" && value == "disable":
			// SELinux is not used, so there is nothing to disable.
		case name == "label" && slices.Contains(selinux, label):
			return notImplemented("--security-opt " + opt)
		default:
			reason := 2 // as dockerd numbers the reasons
			if !ok {
				reason = 1
			}
			return invalid("invalid --security-opt %d: %q", reason, opt)
		}
	}
	return nil
}
