package docker

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// dropped are fields of POST /containers/create that the newest version no longer has.
type dropped struct {
	MacAddress network.HardwareAddr // until 1.51, for the network that the container is in first
	HostConfig struct {
		Capabilities []string // in 1.40 only
	}
}

// adapt applies the rules of the API version to a request: it clears fields that later versions
// introduced and restores defaults that later versions changed (moby/moby/api, docs/CHANGELOG.md).
// The request has passed normalize.
func adapt(req *container.CreateRequest, old *dropped, v version) (warnings []string, err error) {
	h := req.HostConfig
	if v == 40 && len(old.HostConfig.Capabilities) > 0 {
		return nil, notImplemented("HostConfig.Capabilities (CapAdd and CapDrop say the same)")
	}
	if v < 42 {
		h.ConsoleSize = [2]uint{}
	}
	if v < 43 {
		h.Annotations = nil
	}
	if v < 44 && req.Healthcheck != nil {
		req.Healthcheck.StartInterval = 0
	}
	if v < 56 {
		h.Umask = nil
	}
	for i := range h.Mounts {
		if err := adaptMount(&h.Mounts[i], v); err != nil {
			return nil, err
		}
	}
	if n := req.NetworkingConfig; n != nil {
		if v < 44 && len(n.EndpointsConfig) > 1 {
			return nil, invalid(
				"Container cannot be created with multiple network endpoints: %s",
				strings.Join(sortedKeys(n.EndpointsConfig), ", "),
			)
		}
		for _, e := range n.EndpointsConfig {
			if e != nil && v < 48 {
				e.GwPriority = 0
			}
			if e != nil && v < 44 {
				e.MacAddress = nil
			}
		}
	}
	warning, err := adaptMAC(req, old.MacAddress, v)
	if err != nil {
		return nil, err
	}
	if warning != "" {
		warnings = append(warnings, warning)
	}
	if h.VolumeDriver != "" && v >= 48 && slices.ContainsFunc(h.Mounts, func(m mount.Mount) bool {
		return m.Type == mount.TypeVolume &&
			(m.VolumeOptions == nil || m.VolumeOptions.DriverConfig == nil ||
				m.VolumeOptions.DriverConfig.Name == "")
	}) {
		warnings = append(
			warnings,
			"WARNING: the container-wide volume-driver configuration is ignored for volumes "+
				"specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead",
		)
	}
	if v >= 52 {
		var bare []string
		for p, bindings := range h.PortBindings {
			if len(bindings) == 0 {
				bare = append(bare, p.String())
			}
		}
		if slices.Sort(bare); len(bare) > 0 {
			warnings = append(
				warnings,
				fmt.Sprintf(
					"Following container port(s) have an empty list of port-bindings: %s. "+
						"Such bindings will be discarded in a future version.",
					strings.Join(bare, ", "),
				),
			)
		}
	}
	return warnings, nil
}

// adaptMount is adapt for an entry of HostConfig.Mounts.
func adaptMount(m *mount.Mount, v version) error {
	switch {
	case v < 42: // those versions ignored the options of other types
		if m.Type != mount.TypeVolume {
			m.VolumeOptions = nil
		}
		if m.Type != mount.TypeTmpfs {
			m.TmpfsOptions = nil
		}
	case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
		return invalid("VolumeOptions must not be specified on mount type %q", m.Type)
	case m.BindOptions != nil && m.Type != mount.TypeBind:
		return invalid("BindOptions must not be specified on mount type %q", m.Type)
	case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
		return invalid("TmpfsOptions must not be specified on mount type %q", m.Type)
	}
	if v < 46 && m.TmpfsOptions != nil {
		m.TmpfsOptions.Options = nil
	}
	if v < 45 && m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" {
		return invalid("VolumeOptions.Subpath needs API v1.45 or newer")
	}
	if v < 48 && m.Type == mount.TypeImage {
		return invalid(`Mount type "Image" needs API v1.48 or newer`)
	}
	b := m.BindOptions
	if b == nil || m.Type != mount.TypeBind {
		return nil
	}
	if v < 40 {
		b.NonRecursive = false
	}
	if v < 42 {
		b.CreateMountpoint = false
	}
	if v < 44 {
		// A client that asks for this relies on it, so the field is refused, not ignored.
		if b.ReadOnlyForceRecursive {
			return invalid("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
		}
		b.ReadOnlyNonRecursive = false
	}
	return nil
}

// adaptMAC moves the MAC address of a whole container, a field until 1.51, to the endpoint in the
// container's first network.
func adaptMAC(
	req *container.CreateRequest, mac network.HardwareAddr, v version,
) (warning string, err error) {
	if len(mac) == 0 {
		return "", nil
	}
	mode := req.HostConfig.NetworkMode
	own := mode.IsBridge() || mode.IsUserDefined()
	switch {
	case v >= 52:
		return "", invalid(
			"container-wide MAC address no longer supported; " +
				"use endpoint-specific MAC address instead",
		)
	case v < 44 && !own:
		return "", invalid("conflicting options: mac-address and the network mode")
	case v >= 44:
		warning = "The container-wide MacAddress field is now deprecated. " +
			"It should be specified in EndpointsConfig instead."
	}
	if !own {
		return warning, nil
	}
	if req.NetworkingConfig == nil {
		req.NetworkingConfig = &network.NetworkingConfig{}
	}
	n := req.NetworkingConfig
	if n.EndpointsConfig == nil {
		n.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	name := string(mode)
	if v < 44 {
		for only := range n.EndpointsConfig { // adapt has refused more than one
			name = only
		}
	} else if n.EndpointsConfig[name] == nil && len(n.EndpointsConfig) > 0 {
		return "", invalid(
			"unable to migrate container-wide MAC address to a specific network: " +
				"HostConfig.NetworkMode must match the identity of a network in " +
				"NetworkSettings.Networks",
		)
	}
	at := n.EndpointsConfig[name]
	if at == nil {
		at = &network.EndpointSettings{}
		n.EndpointsConfig[name] = at
	}
	if len(at.MacAddress) > 0 && !bytes.Equal(at.MacAddress, mac) {
		return "", invalid(
			"the container-wide MAC address must match the endpoint-specific MAC address " +
				"for the main network, or be left empty",
		)
	}
	at.MacAddress = mac
	return warning, nil
}
