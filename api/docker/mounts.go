package docker

import (
	"fmt"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"strake/engine"
)

// mountsOf translates binds, mounts and volumes. root is the engine's data root.
func mountsOf(
	s *engine.Spec, c *container.Config, h *container.HostConfig, root string,
) error {
	seen := map[string]bool{}
	add := func(field string, m engine.Mount) error {
		m.Target = path.Clean(m.Target)
		if !path.IsAbs(m.Target) || m.Target == "/" {
			return invalid(
				"invalid volume specification: %q: invalid mount path: "+
					"want an absolute path other than '/'",
				field,
			)
		}
		if seen[m.Target] {
			return invalid("Duplicate mount point: %s", m.Target)
		}
		if err := engineRoot(&m, root); err != nil {
			return err
		}
		seen[m.Target] = true
		s.Mounts = append(s.Mounts, m)
		return nil
	}
	for _, bind := range h.Binds {
		m, err := parseBind(bind)
		if m.Type == "volume" {
			m.Driver = h.VolumeDriver
		}
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
		switch {
		case seen[target]:
		case h.VolumeDriver == "" || h.VolumeDriver == "local":
			s.Volumes = append(s.Volumes, target)
		default:
			m := engine.Mount{Type: "volume", Target: target, Driver: h.VolumeDriver}
			s.Mounts = append(s.Mounts, m)
		}
	}
	sort.Strings(s.Volumes)
	for target := range h.Tmpfs {
		if !path.IsAbs(target) {
			return invalid(
				"invalid mount path: '%s' mount path must be absolute", target,
			)
		}
		if path.Clean(target) == "/" {
			return invalid("invalid specification: destination can't be '/'")
		}
		if seen[path.Clean(target)] {
			return invalid("Duplicate mount point: %s", target)
		}
	}
	return nil
}

// engineRoot lets a bind mount that has the engine's data root in it follow the host's mounts
// (mount_namespaces(7), propagation rslave), as dockerd does: a private copy would keep mounts
// there busy after the engine has removed them. Other propagations are refused.
func engineRoot(m *engine.Mount, root string) error {
	within := func(dir, at string) bool {
		return strings.HasPrefix(path.Clean(at)+"/", strings.TrimSuffix(path.Clean(dir), "/")+"/")
	}
	if m.Type != "bind" || root == "" || !within(root, m.Source) && !within(m.Source, root) {
		return nil
	}
	switch m.Propagation {
	case "":
		m.Propagation = string(mount.PropagationRSlave)
	case string(mount.PropagationRSlave), string(mount.PropagationRShared):
	default:
		return invalid(
			`invalid mount config: must use either propagation mode "rslave" or "rshared" when `+
				"mount source is within the daemon root, daemon root: %q, bind mount source: %q, "+
				"propagation: %q",
			root, m.Source, m.Propagation,
		)
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
			m.Propagation, m.NonRecursive = string(b.Propagation), b.NonRecursive
			m.CreateSource, m.ReadOnlyNonRecursive = b.CreateMountpoint, b.ReadOnlyNonRecursive
			// Every supported kernel makes binds read-only recursively: there is nothing to force.
			switch {
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
			if v.Subpath != "" && !filepath.IsLocal(v.Subpath) {
				return bad("subpath must be a relative path within the volume")
			}
			m.Subpath = v.Subpath
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
