package docker

import (
	"cmp"
	"path"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"strake/engine"
)

// mountPoints are the mounts of a container as inspect shows them. h is what was asked for;
// without it the modes are not shown.
func mountPoints(info *engine.Info, h *container.HostConfig) []container.MountPoint {
	modes := mountModes(h)
	out := make([]container.MountPoint, 0, len(info.Mounts))
	for _, m := range info.Mounts {
		if m.Type == "bind" {
			m.Propagation = cmp.Or(m.Propagation, "rprivate")
		}
		out = append(out, container.MountPoint{
			Type: mount.Type(m.Type), Name: m.Name, Source: m.Source, Destination: m.Destination,
			Driver: m.Driver, Mode: modes[m.Destination], RW: m.RW,
			Propagation: mount.Propagation(m.Propagation),
		})
	}
	return out
}

// mountModes are the modes of a container's mounts by their places: the options that a bind was
// asked for with, and dockerd's "z" for volumes without options. Volumes of the image have none.
func mountModes(h *container.HostConfig) map[string]string {
	const volume = "z"
	modes := map[string]string{}
	if h == nil {
		return modes
	}
	for _, bind := range h.Binds {
		parts := strings.SplitN(bind, ":", 3)
		switch {
		case len(parts) == 3:
			modes[path.Clean(parts[1])] = parts[2]
		case len(parts) == 2 && !path.IsAbs(parts[0]):
			modes[path.Clean(parts[1])] = volume
		case len(parts) == 1:
			modes[path.Clean(parts[0])] = volume
		}
	}
	for _, m := range h.Mounts {
		if m.Type == mount.TypeVolume {
			modes[path.Clean(m.Target)] = volume
		}
	}
	return modes
}
