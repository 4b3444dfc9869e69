package docker

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/engine"
	"strake/image"
)

// inspected is InspectResponse with the fields of older versions.
type inspected struct {
	*container.InspectResponse
	Config          any
	NetworkSettings any
}

// oldConfig adds what versions below 1.52 have.
type oldConfig struct {
	*container.Config
	OnBuild    []string
	MacAddress string `json:",omitempty"`
}

// oldNetworkSettings adds what versions below 1.52 have: the default bridge's figures at the top.
type oldNetworkSettings struct {
	Bridge                 string
	SandboxID              string
	SandboxKey             string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
	Ports                  network.PortMap
	Networks               map[string]*network.EndpointSettings
}

func (a *viewAPI) inspect(w http.ResponseWriter, r *request) error {
	info, err := a.engine.Inspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	f, err := frontOf(&info)
	if err != nil {
		return err
	}
	inherit(r.Context(), a.images, &info, f.Config)
	out := inspected{InspectResponse: inspectOf(&info, &f)}
	if r.flag("size") {
		rw, root, err := a.engine.Usage(r.Context(), info.ID)
		if err != nil {
			return err
		}
		out.SizeRw, out.SizeRootFs = &rw, &root
	}
	inForce(out.HostConfig, &info, a.logDriver)
	ports := portMap(&info)
	nets := endpointSettings(&info, f.Networking)
	if r.version < 45 {
		for name, e := range nets {
			if container.NetworkMode(name).IsUserDefined() {
				e.Aliases = oldAliases(e.Aliases, info.ID, out.InspectResponse.Config.Hostname)
			}
		}
	}
	if r.version >= 48 {
		out.ImageManifestDescriptor = manifestOf(r.Context(), a.images, info.ImageID)
	}
	if r.version < 43 {
		out.HostConfig.Annotations = nil
	}
	if r.version < 56 {
		out.HostConfig.Umask = nil
	}
	id := info.ID
	out.Config = out.InspectResponse.Config
	if r.version < 52 {
		out.GraphDriver = &storage.DriverData{Name: out.Driver}
		config := oldConfig{
			Config: out.InspectResponse.Config, OnBuild: out.InspectResponse.Config.OnBuild,
			MacAddress: firstMAC(&info),
		}
		out.Config = config
		old := oldNetworkSettings{
			SandboxID: id, SandboxKey: info.SandboxKey, Ports: ports, Networks: nets,
		}
		if e, ok := info.Networks["bridge"]; ok {
			old.EndpointID, old.MacAddress = e.EndpointID, e.MAC
			old.Gateway, old.IPv6Gateway = addrText(e.GatewayIPv4), addrText(e.GatewayIPv6)
			if e.IPv4.IsValid() {
				old.IPAddress, old.IPPrefixLen = e.IPv4.Addr().String(), e.IPv4.Bits()
			}
			if e.IPv6.IsValid() {
				old.GlobalIPv6Address = e.IPv6.Addr().String()
				old.GlobalIPv6PrefixLen = e.IPv6.Bits()
			}
		}
		out.NetworkSettings = old
	} else {
		out.Storage = &storage.Storage{
			RootFS: &storage.RootFSStorage{
				Snapshot: &storage.RootFSStorageSnapshot{Name: out.Driver},
			},
		}
		out.NetworkSettings = &container.NetworkSettings{
			SandboxID: id, SandboxKey: info.SandboxKey, Ports: ports, Networks: nets,
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// manifestOf describes the manifest of an image, with the platform; nil if the image is gone.
func manifestOf(ctx context.Context, images imageResolver, id string) *ocispec.Descriptor {
	img, err := images.Resolve(ctx, id)
	if id == "" || err != nil || img.Manifest.Digest == "" {
		return nil
	}
	return &ocispec.Descriptor{
		MediaType: img.Manifest.MediaType, Digest: img.Manifest.Digest, Size: img.Manifest.Size,
		Platform: &img.Platform,
	}
}

// inForce fills in what holds for a container that was created without naming it, by an earlier
// version of the API, or by a version that did not fill it in at creation.
func inForce(h *container.HostConfig, info *engine.Info, logDriver string) {
	h.LogConfig.Type = cmp.Or(h.LogConfig.Type, info.Spec.Log.Driver, logDriver)
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
	h.Runtime = cmp.Or(h.Runtime, runtimes[0])
}

// oldAliases adds the short ID and the hostname to the aliases. Versions from 1.45 on show them in
// DNSNames only.
func oldAliases(list []string, id, hostname string) []string {
	list = slices.Clone(list)
	for _, name := range []string{id[:min(12, len(id))], hostname} {
		if name != "" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// inherit fills in the fields that the container has from its image, as dockerd does at creation.
// If the image is gone they stay empty, but for the environment.
func inherit(ctx context.Context, images imageInspector, info *engine.Info, c *container.Config) {
	img, err := images.Inspect(ctx, info.ImageID)
	if err != nil {
		// The process has what was the image's, and two variables that its start has added.
		c.Env = envOf(c.Env, slices.DeleteFunc(slices.Clone(info.Env), func(env string) bool {
			return strings.HasPrefix(env, "HOSTNAME=") || strings.HasPrefix(env, "TERM=")
		}))
		return
	}
	inheritFrom(c, &img.Config)
}

// inheritFrom fills in what a configuration leaves open, as dockerd's merge does.
func inheritFrom(c *container.Config, from *image.RunConfig) {
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = from.Cmd
		}
		c.Entrypoint = from.Entrypoint
	}
	c.StopSignal = cmp.Or(c.StopSignal, from.StopSignal)
	c.Env = envOf(c.Env, from.Env)
	labels := maps.Clone(from.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, c.Labels)
	c.Labels = labels
	for v := range from.Volumes {
		setEntry(&c.Volumes, v, struct{}{})
	}
	for text := range from.ExposedPorts {
		if p, err := network.ParsePort(text); err == nil {
			if c.ExposedPorts == nil {
				c.ExposedPorts = network.PortSet{}
			}
			c.ExposedPorts[p] = struct{}{}
		}
	}
	if h := from.Healthcheck; h != nil {
		own := container.HealthConfig{}
		if c.Healthcheck != nil {
			own = *c.Healthcheck
		}
		if len(own.Test) == 0 {
			own.Test = h.Test
		}
		own.Interval, own.Timeout = cmp.Or(own.Interval, h.Interval), cmp.Or(own.Timeout, h.Timeout)
		own.StartPeriod = cmp.Or(own.StartPeriod, h.StartPeriod)
		own.StartInterval = cmp.Or(own.StartInterval, h.StartInterval)
		own.Retries = cmp.Or(own.Retries, h.Retries)
		c.Healthcheck = &own
	}
	if len(c.Shell) == 0 {
		c.Shell = from.Shell
	}
	c.User, c.WorkingDir = cmp.Or(c.User, from.User), cmp.Or(c.WorkingDir, from.WorkingDir)
}

// envOf is the environment that a container was created with: what the request has, in its form
// ("NAME" alone removes a variable from the process), then what the image has besides.
func envOf(own, image []string) []string {
	out := slices.Clone(own)
	for _, env := range image {
		name, _, _ := strings.Cut(env, "=")
		if !slices.ContainsFunc(own, func(o string) bool {
			has, _, _ := strings.Cut(o, "=")
			return has == name
		}) {
			out = append(out, env)
		}
	}
	return out
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "0001-01-01T00:00:00Z"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func inspectOf(info *engine.Info, f *front) *container.InspectResponse {
	h := *f.HostConfig
	if !h.Privileged && !info.Spec.SystemPathsOpen {
		if h.MaskedPaths == nil {
			h.MaskedPaths = engine.DefaultMaskedPaths()
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = engine.DefaultReadonlyPaths()
		}
	}
	c := *f.Config
	c.Env = orEmpty(c.Env)
	c.User, c.WorkingDir = info.User, info.WorkingDir
	if c.Hostname == "" && !strings.HasPrefix(string(h.NetworkMode), "host") &&
		!strings.HasPrefix(string(h.UTSMode), "host") {
		c.Hostname = info.ID[:min(12, len(info.ID))]
	}
	st := info.State
	out := &container.InspectResponse{
		ID: info.ID, Created: timeText(info.Created), Path: info.Path, Args: orEmpty(info.Args),
		Image: info.ImageID,
		State: &container.State{
			Status: container.ContainerState(st.Status),
			Running: st.Status == engine.Running || st.Status == engine.Paused ||
				st.Status == engine.Restarting,
			Paused: st.Status == engine.Paused, Restarting: st.Status == engine.Restarting,
			Dead: st.Status == engine.Dead, OOMKilled: st.OOMKilled,
			Pid: st.Pid, ExitCode: st.ExitCode, Error: st.Error, StartedAt: timeText(st.StartedAt),
			FinishedAt: timeText(st.FinishedAt),
		},
		ResolvConfPath: info.ResolvConfPath, HostnamePath: info.HostnamePath,
		HostsPath: info.HostsPath, LogPath: info.LogPath,
		Name: "/" + info.Spec.Name, RestartCount: st.RestartCount, Driver: "overlayfs",
		Platform: "linux", AppArmorProfile: info.Spec.AppArmor,
		ExecIDs: info.ExecIDs, HostConfig: &h, Config: &c, Mounts: mountPoints(info, &h),
	}
	if st.Health != "" {
		out.State.Health = &container.Health{
			Status: container.HealthStatus(st.Health), FailingStreak: st.FailingStreak,
		}
		for _, l := range info.HealthLog {
			out.State.Health.Log = append(
				out.State.Health.Log,
				&container.HealthcheckResult{
					Start: l.Start, End: l.End, ExitCode: l.ExitCode, Output: l.Output,
				},
			)
		}
	}
	return out
}

// portMap lists the published ports with their bindings, and the exposed ones with null.
func portMap(info *engine.Info) network.PortMap {
	out := network.PortMap{}
	for _, text := range info.Spec.Exposed {
		if p, err := network.ParsePort(text); err == nil {
			out[p] = nil
		}
	}
	for _, b := range info.Ports {
		p, ok := network.PortFrom(b.ContainerPort, network.IPProtocol(b.Proto))
		if !ok {
			continue
		}
		out[p] = append(
			out[p], network.PortBinding{HostIP: b.HostIP, HostPort: strconv.Itoa(int(b.HostPort))},
		)
	}
	return out
}
