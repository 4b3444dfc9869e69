package ocispec

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/lxc/config"
)

// entry translates a line of lxc.mount.entry or of the file lxc.mount.fstab.
//
// OCI has no optional mounts. An optional one is left out if its source is not there, or if its
// target is not there and nothing asks to make it; any other reason for which a mount fails is
// known when it is made only, and ends the start.
func (m *maker) entry(key string, e *config.MountEntry) error {
	line := strings.Join([]string{e.Source, e.Target, e.Type}, " ")
	target, ok := m.target(e.Target)
	if !ok {
		m.warn(key, line, "ignored, because the target is not below the container's root")
		return nil
	}
	if target == "/" {
		return refuse(
			key, line, "nothing can be mounted on the container's root; set lxc.rootfs.path",
		)
	}
	out := specs.Mount{Destination: target, Type: e.Type, Source: e.Source}
	remount := slices.Contains(e.Options, "remount")
	bind := remount || slices.ContainsFunc(e.Options, func(opt string) bool {
		return opt == "bind" || opt == "rbind"
	})
	for _, opt := range e.Options {
		switch {
		case opt == "" || opt == "defaults":
			continue
		case opt == "move":
			return refuse(
				key, line, `option "move": want "bind", because a container's mounts are new`,
			)
		case strings.HasPrefix(opt, "idmap="):
			if opt != "idmap=container" {
				return refuse(key, line, `option %q: want "idmap=container"`, opt)
			}
			if _, user := m.namespace(specs.UserNamespace); !user {
				return refuse(key, line, "option %q: the container has no user namespace", opt)
			}
			opt = "idmap"
		case bind && !slices.Contains(bindOptions[:], opt):
			// The kernel ignores options of a filesystem at a bind mount.
			m.warn(key, line, "option "+opt+" is left out, because a bind mount has none such")
			continue
		}
		out.Options = append(out.Options, opt)
	}
	if bind {
		out.Type = "bind"
		if remount {
			out.Source = ""
		} else if e.Relative {
			out.Source = path.Join(m.in.Root, e.Source)
		}
		if !remount && !path.IsAbs(out.Source) {
			return refuse(
				key, line, `the source is not absolute; want a path, or option "relative"`,
			)
		}
	} else if e.Type == "" || e.Type == "none" {
		return refuse(key, line, `want a filesystem type, or option "bind" or "rbind"`)
	}
	if e.Optional && !m.possible(e, &out) {
		return nil
	}
	m.layers(&out)
	m.spec.Mounts = append(m.spec.Mounts, out)
	return nil
}

// bindOptions are those of every mount (mount(8), FILESYSTEM-INDEPENDENT MOUNT OPTIONS).
var bindOptions = [...]string{
	"bind", "rbind", "remount", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec",
	"atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
	"nostrictatime", "symfollow", "nosymfollow", "private", "rprivate", "slave", "rslave", "shared",
	"rshared", "unbindable", "runbindable",
}

// layers notes the directories of an overlay that LXC makes: those that belong to the container and
// are not in its root (overlay.c, ovl_mkdir).
func (m *maker) layers(out *specs.Mount) {
	if !strings.HasPrefix(out.Type, "overlay") {
		return
	}
	below := func(dir, root string) bool { return strings.HasPrefix(dir+"/", path.Clean(root)+"/") }
	for _, opt := range out.Options {
		name, dir, _ := strings.Cut(opt, "=")
		if name != "upperdir" && name != "workdir" || !path.IsAbs(dir) {
			continue
		}
		dir = path.Clean(dir)
		own := m.in.LXCPath != "" && below(dir, path.Join(m.in.LXCPath, m.in.Name))
		if m.in.Config.Rootfs.Path == "" || own && !below(dir, m.in.Root) {
			m.made.Dirs = append(m.made.Dirs, dir)
		}
	}
}

// target is the place in the container that an entry names. Relative ones start at the container's
// root, absolute ones name it first.
func (m *maker) target(name string) (string, bool) {
	if !path.IsAbs(name) || m.in.Config.Rootfs.Path == "" {
		return path.Clean("/" + name), true
	}
	roots := []string{m.in.Root, m.in.Config.Rootfs.Mount, rootPath(m.in.Config)}
	if m.in.LXCPath != "" {
		roots = append(roots, path.Join(m.in.LXCPath, m.in.Name, "rootfs"))
	}
	clean := path.Clean(name)
	for _, root := range roots {
		if root == "" || root == "/" || !path.IsAbs(root) {
			continue
		}
		if rest, ok := strings.CutPrefix(clean, path.Clean(root)); ok &&
			(rest == "" || rest[0] == '/') {
			return path.Clean("/" + rest), true
		}
	}
	return "", false
}

// possible says whether an optional mount can be made as far as that is known before.
func (m *maker) possible(e *config.MountEntry, out *specs.Mount) bool {
	if m.in.Exists == nil {
		return true
	}
	if path.IsAbs(out.Source) && !m.in.Exists(out.Source) {
		return false
	}
	within := func(dir string) bool {
		return out.Destination == dir || strings.HasPrefix(out.Destination, dir+"/")
	}
	for _, mnt := range m.spec.Mounts {
		if !within(mnt.Destination) {
			continue
		}
		switch mnt.Type {
		case "sysfs", "proc":
			// Nothing can be made there, and the host's kernel has the same files.
			return m.in.Exists(out.Destination)
		case "tmpfs":
			// A new tmpfs has what earlier entries put there.
			return e.Create != "" || slices.ContainsFunc(m.spec.Mounts, func(o specs.Mount) bool {
				return o.Destination == out.Destination
			})
		}
	}
	return e.Create != "" || m.in.Exists(path.Join(m.in.Root, out.Destination))
}
