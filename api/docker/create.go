package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"path"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
)

// front is what the API keeps with a container and gives back on inspect.
type front struct {
	Config     *container.Config         `json:"config"`
	HostConfig *container.HostConfig     `json:"hostConfig"`
	Networking *network.NetworkingConfig `json:"networking,omitempty"`
}

func frontOf(info *engine.Info) (front, error) {
	var f front
	if len(info.Spec.Front) > 0 {
		if err := json.Unmarshal(info.Spec.Front, &f); err != nil {
			return f, fmt.Errorf("container %s: %w", info.ID, err)
		}
	}
	if f.Config == nil {
		f.Config = &container.Config{
			Image: info.Spec.Image, Labels: info.Spec.Labels, Tty: info.Spec.TTY,
			OpenStdin: info.Spec.OpenStdin,
		}
	}
	if f.HostConfig == nil {
		f.HostConfig = &container.HostConfig{}
	}
	return f, nil
}

func (s *server) createContainer(w http.ResponseWriter, r *request) error {
	var raw json.RawMessage
	if err := decode(r, &raw); err != nil {
		return err
	}
	var req container.CreateRequest
	var old dropped
	for _, v := range []any{&req, &old} {
		if err := json.Unmarshal(raw, v); len(raw) > 0 && err != nil {
			return invalid("invalid JSON: %v", err)
		}
	}
	if req.Config == nil {
		return invalid("config cannot be empty in order to create a container")
	}
	if req.HostConfig == nil {
		req.HostConfig = &container.HostConfig{}
	}
	if err := checkNetworks(&req); err != nil {
		return err
	}
	normalize(&req, r.version, cgroupVersion())
	notes, err := adapt(&req, &old, r.version)
	if err != nil {
		return err
	}
	spec, err := specOf(&req)
	if err != nil {
		return err
	}
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; r.version < 44 && m.Type == "bind" {
			m.ReadOnlyNonRecursive = true // what is mounted below was writable then
		}
	}
	if r.version >= 41 {
		// Clients take 404 for an image of that platform that is missing, and pull it.
		if err := s.ofPlatform(r, spec.Image, "platform"); err != nil {
			return err
		}
	}
	spec.Name = strings.TrimPrefix(r.form("name"), "/")
	if spec.Front, err = json.Marshal(
		front{req.Config, req.HostConfig, req.NetworkingConfig},
	); err != nil {
		return err
	}
	id, warnings, err := s.Engine.Create(r.Context(), spec)
	if errdefs.IsNotFound(err) {
		// Clients take 404 for a missing image and pull it. If it is something else that is
		// missing, pulling does not help.
		if _, rerr := s.Images.Resolve(r.Context(), spec.Image); rerr == nil {
			return invalid("%v", err)
		}
	}
	if err != nil {
		return err
	}
	return writeJSON(
		w, http.StatusCreated,
		container.CreateResponse{ID: id, Warnings: append(orEmpty(warnings), notes...)},
	)
}

// checkNetworks refuses several networks where one of them is none of the container's own.
func checkNetworks(req *container.CreateRequest) error {
	if req.NetworkingConfig == nil || len(req.NetworkingConfig.EndpointsConfig) < 2 {
		return nil
	}
	modes := append(
		slices.Sorted(maps.Keys(req.NetworkingConfig.EndpointsConfig)),
		string(req.HostConfig.NetworkMode),
	)
	for _, mode := range modes {
		if mode == "none" || mode == "host" || strings.HasPrefix(mode, "container:") {
			return invalid(
				"container cannot be connected to multiple networks with one of the networks in %s mode",
				mode,
			)
		}
	}
	return nil
}

// normalize fills in what inspect must show although the request left it open. What old clients
// expect there depends on their version and, until 1.40, on the host's version of control groups.
func normalize(req *container.CreateRequest, v version, cgroups string) {
	h := req.HostConfig
	switch h.NetworkMode {
	case "", "default":
		h.NetworkMode = "bridge"
		if req.NetworkDisabled {
			h.NetworkMode = "none"
		}
	}
	if n := req.NetworkingConfig; n != nil && n.EndpointsConfig["default"] != nil {
		n.EndpointsConfig[string(h.NetworkMode)] = n.EndpointsConfig["default"]
		delete(n.EndpointsConfig, "default")
	}
	if n := req.NetworkingConfig; n != nil {
		// Clients send an empty entry for modes that are no networks.
		for _, mode := range []string{"none", "host", "default"} {
			delete(n.EndpointsConfig, mode)
		}
	}
	if h.ShmSize == 0 {
		h.ShmSize = 64 << 20
	}
	h.MemorySwap = swapOf(&h.Resources)
	if h.IpcMode == "" {
		h.IpcMode = "private"
		if v < 40 {
			h.IpcMode = "shareable"
		}
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = "private"
		if h.Privileged || v < 41 && cgroups == "1" {
			h.CgroupnsMode = "host"
		}
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = "no"
	}
	if req.Config.Labels == nil {
		req.Config.Labels = map[string]string{}
	}
}

// specOf translates a request. Errors name the field of the request.
func specOf(req *container.CreateRequest) (engine.Spec, error) {
	c, h := req.Config, req.HostConfig
	s := engine.Spec{
		Image: c.Image, Labels: c.Labels,
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.WorkingDir, User: c.User,
		GroupAdd: h.GroupAdd,
		Hostname: c.Hostname, Domainname: c.Domainname, TTY: c.Tty, OpenStdin: c.OpenStdin,
		StdinOnce: c.StdinOnce,
		Init:      h.Init != nil && *h.Init, StopSignal: c.StopSignal, StopTimeout: c.StopTimeout,
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
		func() error { return resourcesOf(&s, &h.Resources) },
		func() error { return mountsOf(&s, c, h) },
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

// pathsOf tells "not given" (nil) from "none" (empty).
func pathsOf(list []string) *[]string {
	if list == nil {
		return nil
	}
	return &list
}

// unsupported refuses what would otherwise be ignored.
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
	case h.VolumeDriver != "" && h.VolumeDriver != "local":
		return invalid("HostConfig.VolumeDriver %q: the one driver is local", h.VolumeDriver)
	case h.Runtime != "" && h.Runtime != "strake" && h.Runtime != "runc" && h.Runtime != "io.containerd.runc.v2":
		return invalid("unknown or invalid runtime name: %s", h.Runtime)
	case !h.Isolation.IsValid():
		return invalid("invalid isolation %q on linux", h.Isolation)
	case h.Cgroup != "":
		return notImplemented("HostConfig.Cgroup")
	case h.Umask != nil && *h.Umask > 0o777:
		return invalid("HostConfig.Umask %#o: want 0 to 0777", *h.Umask)
	}
	return nil
}

// securityOf reads --security-opt values: name=value, or name:value as old clients have it.
func securityOf(s *engine.Spec, opts []string) error {
	for _, opt := range opts {
		name, value, ok := strings.Cut(opt, "=")
		if !ok {
			name, value, ok = strings.Cut(opt, ":")
		}
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
		case name == "systempaths" && value == "unconfined":
			s.SystemPathsOpen = true
		case name == "label" && (value == "disable" || strings.HasPrefix(value, "type:") || strings.HasPrefix(value, "level:") || strings.HasPrefix(value, "user:") || strings.HasPrefix(value, "role:")):
			// SELinux labels mean something on hosts that enforce them; "disable" is what everybody
			// else has.
			if value != "disable" {
				return notImplemented("--security-opt " + opt)
			}
		default:
			return invalid(
				"invalid --security-opt: %q: want seccomp=, apparmor=, no-new-privileges, systempaths=unconfined or label=disable",
				opt,
			)
		}
	}
	return nil
}

func notImplemented(what string) error { return invalid("%s is not supported by strake", what) }

// resourcesOf translates limits to those of the runtime-spec.
func resourcesOf(s *engine.Spec, r *container.Resources) error {
	var mem specs.LinuxMemory
	set := func(field string, value int64, min int64, to **int64) error {
		if value == 0 {
			return nil
		}
		if value < min {
			return invalid("%s %d: want at least %d", field, value, min)
		}
		*to = &value
		return nil
	}
	if err := set("Memory", r.Memory, 512<<10, &mem.Limit); err != nil {
		return invalid("Minimum memory limit allowed is 512KiB")
	}
	if err := set("MemoryReservation", r.MemoryReservation, 512<<10, &mem.Reservation); err != nil {
		return err
	}
	switch {
	case r.MemorySwap > 0 && r.Memory == 0:
		return invalid(
			"You should always set the Memory limit when using Memoryswap limit, see usage",
		)
	case r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return invalid(
			"Minimum memory limit can not be less than memory reservation limit, see usage",
		)
	case r.MemorySwap < -1:
		return invalid("MemorySwap %d: want -1, 0 or a size", r.MemorySwap)
	}
	if swap := swapOf(r); swap != 0 {
		mem.Swap = &swap
	}
	if v := r.MemorySwappiness; v != nil && *v != -1 {
		if *v < 0 || *v > 100 {
			return invalid("invalid value: %d, valid memory swappiness range is 0-100", *v)
		}
		n := uint64(*v)
		mem.Swappiness = &n
	}
	mem.DisableOOMKiller = r.OomKillDisable
	if mem.DisableOOMKiller != nil && !*mem.DisableOOMKiller {
		mem.DisableOOMKiller = nil
	}
	if mem != (specs.LinuxMemory{}) {
		s.Resources.Memory = &mem
	}
	if err := cpuOf(s, r); err != nil {
		return err
	}
	if p := r.PidsLimit; p != nil && *p > 0 {
		s.Resources.Pids = &specs.LinuxPids{Limit: p}
	}
	return blockIOOf(s, r)
}

// swapOf is the limit of memory and swap together, in bytes: dockerd's default is as much swap as
// memory.
func swapOf(r *container.Resources) int64 {
	if r.MemorySwap == 0 && r.Memory > 0 {
		return 2 * r.Memory
	}
	return r.MemorySwap
}

func cpuOf(s *engine.Spec, r *container.Resources) error {
	var cpu specs.LinuxCPU
	switch {
	case r.NanoCPUs < 0:
		return invalid("NanoCpus %d: want 0 or more", r.NanoCPUs)
	case r.NanoCPUs > 0 && (r.CPUPeriod > 0 || r.CPUQuota > 0):
		return invalid("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
	case r.CPUShares < 0:
		return invalid("CpuShares %d: want 0 or more", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return invalid(
			"CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
		)
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.NanoCPUs > 0:
		period := uint64(100000)
		quota := r.NanoCPUs * int64(period) / 1e9
		if n := runtime.NumCPU(); quota < 1000 || r.NanoCPUs > int64(n)*1e9 {
			return invalid(
				"Range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available: NanoCpus is %d",
				n, n, r.NanoCPUs,
			)
		}
		cpu.Period, cpu.Quota = &period, &quota
	}
	if r.CPUShares > 0 {
		v := uint64(r.CPUShares)
		cpu.Shares = &v
	}
	if r.CPUPeriod > 0 {
		v := uint64(r.CPUPeriod)
		cpu.Period = &v
	}
	if r.CPUQuota != 0 {
		cpu.Quota = &r.CPUQuota
	}
	if r.CPURealtimePeriod > 0 {
		v := uint64(r.CPURealtimePeriod)
		cpu.RealtimePeriod = &v
	}
	if r.CPURealtimeRuntime != 0 {
		cpu.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	cpu.Cpus, cpu.Mems = r.CpusetCpus, r.CpusetMems
	if cpu != (specs.LinuxCPU{}) {
		s.Resources.CPU = &cpu
	}
	return nil
}

func blockIOOf(s *engine.Spec, r *container.Resources) error {
	var io specs.LinuxBlockIO
	used := false
	if r.BlkioWeight != 0 {
		if r.BlkioWeight < 10 || r.BlkioWeight > 1000 {
			return invalid("Range of blkio weight is from 10 to 1000")
		}
		io.Weight, used = &r.BlkioWeight, true
	}
	// an empty list is not the same as none: an update clears with it
	if r.BlkioWeightDevice != nil {
		io.WeightDevice, used = []specs.LinuxWeightDevice{}, true
	}
	for _, d := range r.BlkioWeightDevice {
		major, minor, err := deviceNumber(d.Path)
		if err != nil {
			return err
		}
		w := specs.LinuxWeightDevice{Weight: &d.Weight}
		w.Major, w.Minor = major, minor
		io.WeightDevice, used = append(io.WeightDevice, w), true
	}
	for _, t := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &io.ThrottleReadBpsDevice},
		{r.BlkioDeviceWriteBps, &io.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &io.ThrottleReadIOPSDevice},
		{r.BlkioDeviceWriteIOps, &io.ThrottleWriteIOPSDevice},
	} {
		if t.from != nil {
			*t.to, used = []specs.LinuxThrottleDevice{}, true
		}
		for _, d := range t.from {
			major, minor, err := deviceNumber(d.Path)
			if err != nil {
				return err
			}
			dev := specs.LinuxThrottleDevice{Rate: d.Rate}
			dev.Major, dev.Minor = major, minor
			*t.to, used = append(*t.to, dev), true
		}
	}
	if used {
		s.Resources.BlockIO = &io
	}
	return nil
}

// mountsOf translates binds, mounts and volumes.
func mountsOf(s *engine.Spec, c *container.Config, h *container.HostConfig) error {
	seen := map[string]bool{}
	add := func(field string, m engine.Mount) error {
		m.Target = path.Clean(m.Target)
		if !path.IsAbs(m.Target) || m.Target == "/" {
			return invalid(
				"invalid volume specification: %q: invalid mount path: want an absolute path other than '/'",
				field,
			)
		}
		if seen[m.Target] {
			return invalid("Duplicate mount point: %s", m.Target)
		}
		seen[m.Target] = true
		s.Mounts = append(s.Mounts, m)
		return nil
	}
	for _, bind := range h.Binds {
		m, err := parseBind(bind)
		if err == nil {
			err = add(bind, m)
		}
		if err != nil {
			return err
		}
	}
	for i := range h.Mounts {
		m, err := mountOf(&h.Mounts[i])
		if err == nil {
			err = add(h.Mounts[i].Target, m)
		}
		if err != nil {
			return err
		}
	}
	for target := range c.Volumes {
		target = path.Clean(target)
		if !path.IsAbs(target) || target == "/" {
			return invalid("invalid volume specification: %q", target)
		}
		if !seen[target] {
			s.Volumes = append(s.Volumes, target)
		}
	}
	sort.Strings(s.Volumes)
	for target := range h.Tmpfs {
		if !path.IsAbs(target) || path.Clean(target) == "/" {
			return invalid("invalid tmpfs mount %q: want an absolute path other than '/'", target)
		}
		if seen[path.Clean(target)] {
			return invalid("Duplicate mount point: %s", target)
		}
	}
	return nil
}

// parseBind reads SOURCE:TARGET[:OPTIONS] or TARGET, as docker run -v takes them.
func parseBind(text string) (engine.Mount, error) {
	bad := func(why string) (engine.Mount, error) {
		return engine.Mount{}, invalid("invalid volume specification: %q: %s", text, why)
	}
	parts := strings.Split(text, ":")
	m := engine.Mount{Type: "bind", CreateSource: true}
	switch len(parts) {
	case 1:
		m.Type, m.Target, m.CreateSource = "volume", parts[0], false
		return m, nil
	case 2, 3:
		m.Source, m.Target = parts[0], parts[1]
	default:
		return bad("want source:target:options")
	}
	if m.Source == "" || m.Target == "" {
		return bad("source and target cannot be empty")
	}
	if !path.IsAbs(m.Source) {
		m.Type, m.CreateSource = "volume", false
	}
	if len(parts) == 2 {
		return m, nil
	}
	for _, opt := range strings.Split(parts[2], ",") {
		switch opt {
		case "ro", "readonly":
			m.ReadOnly = true
		case "rw", "z", "Z", "consistent", "cached", "delegated", "rbind":
		case "bind":
			m.NonRecursive = true
		case "nocopy":
			m.NoCopy = true
		case "private", "rprivate", "shared", "rshared", "slave", "rslave":
			m.Propagation = opt
		default:
			return bad(fmt.Sprintf("invalid mode: %s", opt))
		}
	}
	if m.NoCopy && m.Type != "volume" {
		return bad("nocopy is for volumes")
	}
	return m, nil
}

// mountOf translates one entry of HostConfig.Mounts (docker run --mount).
func mountOf(in *mount.Mount) (engine.Mount, error) {
	bad := func(format string, args ...any) (engine.Mount, error) {
		return engine.Mount{}, invalid(
			"invalid mount config for type %q: %s", in.Type, fmt.Sprintf(format, args...),
		)
	}
	m := engine.Mount{
		Type: string(in.Type), Source: in.Source, Target: in.Target, ReadOnly: in.ReadOnly,
	}
	if in.Target == "" {
		return bad("field Target must not be empty")
	}
	switch in.Type {
	case mount.TypeBind:
		if in.Source == "" {
			return bad("field Source must not be empty")
		}
		if !path.IsAbs(in.Source) {
			return bad("invalid mount path: %q mount path must be absolute", in.Source)
		}
		if b := in.BindOptions; b != nil {
			m.Propagation, m.NonRecursive, m.CreateSource, m.ReadOnlyNonRecursive = string(
				b.Propagation,
			), b.NonRecursive, b.CreateMountpoint, b.ReadOnlyNonRecursive
			switch { // what is forced is what happens anyway, on every kernel that strake runs on
			case b.ReadOnlyForceRecursive && !in.ReadOnly:
				return bad("ReadOnlyForceRecursive needs ReadOnly")
			case b.ReadOnlyForceRecursive && (b.NonRecursive || b.ReadOnlyNonRecursive):
				return bad(
					"ReadOnlyForceRecursive conflicts with NonRecursive and ReadOnlyNonRecursive",
				)
			}
		}
	case mount.TypeVolume:
		if v := in.VolumeOptions; v != nil {
			m.NoCopy, m.Labels = v.NoCopy, v.Labels
			if v.Subpath != "" {
				return bad("field VolumeOptions.Subpath is not supported")
			}
			if v.DriverConfig != nil {
				m.Driver, m.Options = v.DriverConfig.Name, v.DriverConfig.Options
			}
		}
	case mount.TypeTmpfs:
		if in.Source != "" {
			return bad("field Source must not be specified")
		}
		if t := in.TmpfsOptions; t != nil {
			m.SizeBytes, m.Mode = t.SizeBytes, uint32(t.Mode)
			for _, o := range t.Options {
				if len(o) != 1 || o[0] != "exec" && o[0] != "noexec" {
					return bad("invalid option %q: want exec or noexec", strings.Join(o, "="))
				}
				m.Options = map[string]string{o[0]: ""}
			}
		}
	default:
		return bad("want bind, volume or tmpfs")
	}
	return m, nil
}

// portsOf translates published and exposed ports.
func portsOf(s *engine.Spec, c *container.Config, h *container.HostConfig) error {
	for p := range c.ExposedPorts {
		s.Exposed = append(s.Exposed, p.String())
	}
	sort.Strings(s.Exposed)
	for p, bindings := range h.PortBindings {
		if !p.IsValid() || p.Num() == 0 {
			return invalid("invalid port specification: %q", p.String())
		}
		switch p.Proto() {
		case network.TCP, network.UDP, network.SCTP:
		default:
			return invalid("invalid port specification: %q: want tcp, udp or sctp", p.String())
		}
		if len(bindings) == 0 {
			bindings = []network.PortBinding{{}}
		}
		for _, b := range bindings {
			out := engine.PortBinding{
				Proto: string(p.Proto()), ContainerPort: p.Num(), HostIP: b.HostIP,
			}
			if b.HostPort != "" {
				first, last, ranged := strings.Cut(b.HostPort, "-")
				n, err := strconv.ParseUint(first, 10, 16)
				if err != nil {
					return invalid("invalid port specification: %q", b.HostPort)
				}
				out.HostPort = uint16(n)
				if ranged {
					end, err := strconv.ParseUint(last, 10, 16)
					if err != nil || end < n {
						return invalid("invalid port specification: %q", b.HostPort)
					}
					out.HostPortEnd = uint16(end)
				}
			}
			s.Ports = append(s.Ports, out)
		}
	}
	sort.SliceStable(s.Ports, func(i, k int) bool {
		return s.Ports[i].ContainerPort < s.Ports[k].ContainerPort
	})
	return nil
}

// endpointsOf translates the wishes for addresses and names.
func endpointsOf(s *engine.Spec, n *network.NetworkingConfig) error {
	if n == nil {
		return nil
	}
	if err := gatewayOf(s.Network, n.EndpointsConfig); err != nil {
		return err
	}
	for name, e := range n.EndpointsConfig {
		if e == nil {
			continue
		}
		out, err := endpointOf(e)
		if err != nil {
			return err
		}
		if s.Endpoints == nil {
			s.Endpoints = map[string]engine.EndpointSpec{}
		}
		s.Endpoints[name] = out
	}
	return nil
}

// gatewayOf refuses priorities that would make another network than the first one the way out.
func gatewayOf(first string, ends map[string]*network.EndpointSettings) error {
	highest := 0
	if e := ends[first]; e != nil {
		highest = e.GwPriority
	}
	for _, name := range sortedKeys(ends) {
		if e := ends[name]; e != nil && e.GwPriority > highest {
			return notImplemented(
				fmt.Sprintf(
					"EndpointsConfig[%s].GwPriority %d: the gateway of %s, the network that the container is in first,",
					name, e.GwPriority, first,
				),
			)
		}
	}
	return nil
}

func endpointOf(e *network.EndpointSettings) (engine.EndpointSpec, error) {
	out := engine.EndpointSpec{Aliases: e.Aliases}
	if len(e.DriverOpts) > 0 {
		return out, notImplemented(
			"EndpointsConfig.DriverOpts (" + strings.Join(sortedKeys(e.DriverOpts), ", ") + ")",
		)
	}
	if len(e.MacAddress) > 0 {
		out.MAC = e.MacAddress.String()
	}
	if c := e.IPAMConfig; c != nil {
		for _, a := range []netip.Addr{c.IPv4Address, c.IPv6Address} {
			if a.IsValid() && a.IsUnspecified() {
				return out, invalid("invalid endpoint settings: address %s", a)
			}
		}
		out.IPv4, out.IPv6 = c.IPv4Address, c.IPv6Address
	}
	return out, nil
}

// logOf reads the log driver and its options.
func logOf(s *engine.Spec, l *container.LogConfig) error {
	switch l.Type {
	case "", "json-file", "local", "none":
		s.Log.Driver = l.Type
	default:
		return invalid(
			"logger: no log driver named '%s' is registered; want json-file, local or none", l.Type,
		)
	}
	for key, value := range l.Config {
		switch key {
		case "max-size":
			n, err := parseSize(value)
			if err != nil {
				return invalid("log option max-size %q: %v", value, err)
			}
			s.Log.MaxBytes = n
		case "max-file":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return invalid("log option max-file %q: want a number from 1 on", value)
			}
			s.Log.MaxFiles = n
		case "mode", "max-buffer-size", "compress":
			// Writing never blocks a container here, whichever mode was asked for.
		default:
			return invalid("unknown log opt '%s' for %s log driver", key, l.Type)
		}
	}
	return nil
}
