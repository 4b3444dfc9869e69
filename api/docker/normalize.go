package docker

import (
	"cmp"

	"github.com/moby/moby/api/types/container"
)

// normalize fills in the defaults that inspect shows for fields that the request left empty. Some
// defaults depend on the version and, until 1.40, on the host's version of control groups.
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
		// Clients send an empty entry for modes that are not networks.
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
	// Both say that there is no limit, and inspect shows neither.
	if p := h.PidsLimit; p != nil && *p <= 0 {
		h.PidsLimit = nil
	}
	if m := h.MemorySwappiness; m != nil && *m == -1 {
		h.MemorySwappiness = nil
	}
	if h.OomKillDisable == nil && cgroups == "1" {
		h.OomKillDisable = new(bool)
	}
	h.Runtime = cmp.Or(h.Runtime, runtimes[0])
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = "no"
	}
	if req.Config.Labels == nil {
		req.Config.Labels = map[string]string{}
	}
}
