package lxc

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/launch"
	"strake/container/plan"
	"strake/container/spawn"
	"strake/internal/early"
)

// mountOptions are the attributes of a mount that lxc.rootfs.options may name.
var mountOptions = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV,
	"noexec": unix.MOUNT_ATTR_NOEXEC, "noatime": unix.MOUNT_ATTR_NOATIME,
	"nodiratime": unix.MOUNT_ATTR_NODIRATIME, "relatime": unix.MOUNT_ATTR_RELATIME,
	"rw": 0, "bind": 0, "rbind": 0, "defaults": 0,
}

// root prepares the root file system as its options say: a mount of its own below the directory of
// the run, which finish unmounts.
func (l *starting) root(context.Context) error {
	for _, dir := range l.made.Dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// The root of a user namespace need not reach the directory of the containers then.
	reach := l.made.Delegation != nil && l.cfg.Rootfs.Path != "" && l.in.Root != ""
	if len(l.made.RootOptions) == 0 && !reach {
		return nil
	}
	tree, err := unix.OpenTree(
		unix.AT_FDCWD, l.in.Root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE,
	)
	if err != nil {
		return fmt.Errorf("lxc.rootfs.path: open_tree %q: %w", l.in.Root, err)
	}
	defer unix.Close(tree)
	var attr unix.MountAttr
	mapped := false
	for _, o := range l.made.RootOptions {
		set, ok := mountOptions[o]
		switch {
		case o == "idmap=container":
			mapped = true
		case !ok:
			return fmt.Errorf(
				"lxc.rootfs.options %q: a directory does not have it: %w", o,
				errdefs.ErrInvalidArgument,
			)
		}
		attr.Attr_set |= set
	}
	if attr.Attr_set != 0 {
		flags := uint(unix.AT_EMPTY_PATH)
		if err := unix.MountSetattr(tree, "", flags, &attr); err != nil {
			return fmt.Errorf("lxc.rootfs.options: mount_setattr: %w", err)
		}
	}
	if mapped {
		if err := l.mapRoot(tree); err != nil {
			return err
		}
	}
	place := filepath.Join(l.c.run, "root")
	if err := os.MkdirAll(place, 0o700); err != nil {
		return err
	}
	if d := l.made.Delegation; d != nil {
		// The container's root finds the mount by its path, and no other user does.
		if err := os.Chown(l.c.run, 0, int(d.GID)); err != nil {
			return err
		}
		if err := os.Chmod(l.c.run, 0o710); err != nil {
			return err
		}
	}
	if err := unix.MoveMount(
		tree, "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH,
	); err != nil {
		return fmt.Errorf("lxc.rootfs.path: move_mount to %q: %w", place, err)
	}
	l.made.Spec.Root.Path = place
	// What is bound on itself in the container is named by its path below the root.
	for i := range l.made.Spec.Mounts {
		m := &l.made.Spec.Mounts[i]
		if m.Type == "bind" && m.Source == filepath.Join(l.in.Root, m.Destination) {
			m.Source = filepath.Join(place, m.Destination)
		}
	}
	return nil
}

// mapRoot gives a mount the mappings of the container's user namespace.
func (l *starting) mapRoot(tree int) error {
	m, err := spawn.New()
	if err != nil {
		return err
	}
	defer m.Close()
	return launch.MapTree(m, tree, &plan.Tree{
		Field: "lxc.rootfs.options", Path: l.in.Root, UIDMap: l.made.Spec.Linux.UIDMappings,
		GIDMap: l.made.Spec.Linux.GIDMappings,
	})
}

// delegate gives the container's groups to its user.
func (l *starting) delegate(dirs map[string]string) error {
	d := l.made.Delegation
	if d == nil {
		return nil
	}
	for _, dir := range dirs {
		for _, file := range append([]string{""}, d.Files...) {
			name := filepath.Join(dir, file)
			err := os.Lchown(name, int(d.UID), int(d.GID))
			if err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("delegate control group: %w", err)
			}
		}
	}
	return nil
}

// rootID is the number on the host of a container's root: 0 without a user namespace.
func (l *starting) rootID() (uid, gid int) {
	for _, m := range l.cfg.IDMap {
		if m.Container != 0 {
			continue
		}
		if m.Kind != 'g' {
			uid = int(m.Host)
		}
		if m.Kind != 'u' {
			gid = int(m.Host)
		}
	}
	return uid, gid
}

// profile loads the AppArmor profile that was made for the container.
func (l *starting) profile(ctx context.Context) error {
	if l.made.AppArmorProfile == "" {
		return nil
	}
	file := filepath.Join(l.c.run, "apparmor")
	if err := os.WriteFile(file, []byte(l.made.AppArmorProfile), 0o600); err != nil {
		return err
	}
	return appArmorParser(ctx, "--replace", file)
}

// unloadProfile removes the profile that was made for the container.
func (c *Container) unloadProfile(ctx context.Context) error {
	file := filepath.Join(c.run, "apparmor")
	if _, err := os.Stat(file); err != nil {
		return nil
	}
	if err := appArmorParser(ctx, "--remove", file); err != nil {
		// It may never have been loaded: the start was interrupted before.
		c.path.log.Warn("unload the AppArmor profile", "container", c.name, "error", err)
	}
	return nil
}

// appArmorParser compiles and loads profiles: the kernel takes compiled ones only, and this program
// is their compiler.
func appArmorParser(ctx context.Context, verb, file string) error {
	defer early.Lock()()
	out, err := exec.CommandContext(ctx, "apparmor_parser", verb, "--skip-cache", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("apparmor_parser: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// lxcProfiles says whether LXC's own AppArmor profiles are loaded.
func lxcProfiles() bool {
	raw, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
	// The file is for root only, which has to be in the namespace of the profiles.
	return err != nil || strings.Contains(string(raw), "lxc-container-default-cgns (")
}

// schedCore gives the container's processes a core scheduling cookie of their own
// (Documentation/admin-guide/hw-vuln/core-scheduling.rst).
func (l *starting) schedCore() error {
	if !l.made.SchedCore {
		return nil
	}
	const threadGroup = 1 // PIDTYPE_TGID
	if err := unix.Prctl(
		unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_CREATE, uintptr(l.rec.Pid), threadGroup, 0,
	); err != nil {
		return fmt.Errorf("lxc.sched.core: %w", err)
	}
	return nil
}

// lastCap is the highest capability that the kernel knows; 0: it does not say.
func lastCap() int {
	raw, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(raw)))
	return n
}
