package lmctfy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/lmctfy/spec"
)

// kernelNames are the controllers that an InitSpec may mount. The others were patches.
var kernelNames = map[spec.CgroupHierarchy]string{
	spec.CgroupHierarchy_CGROUP_CPU:        "cpu",
	spec.CgroupHierarchy_CGROUP_CPUACCT:    "cpuacct",
	spec.CgroupHierarchy_CGROUP_CPUSET:     "cpuset",
	spec.CgroupHierarchy_CGROUP_FREEZER:    "freezer",
	spec.CgroupHierarchy_CGROUP_MEMORY:     "memory",
	spec.CgroupHierarchy_CGROUP_PERF_EVENT: "perf_event",
	spec.CgroupHierarchy_CGROUP_DEVICE:     "devices",
	spec.CgroupHierarchy_CGROUP_BLOCKIO:    "blkio",
}

// Init sets the machine up: it mounts the trees of version 1 that the specification lists and that
// are not mounted there yet, and makes what containers need. Doing it again changes nothing.
// Errors: errdefs.ErrInvalidArgument with the field; errdefs.ErrFailedPrecondition for what the
// kernel refuses to mount, or if the machine is not usable afterwards.
func Init(ctx context.Context, cfg Config, s *spec.InitSpec) error {
	for i, mount := range s.GetCgroupMount() {
		if err := mountTree(fmt.Sprintf("cgroup_mount[%d]", i), mount); err != nil {
			return err
		}
	}
	m, err := Open(cfg)
	if err != nil {
		return fmt.Errorf(
			"%w; cgroup_mount of the specification mounts trees: %w", err,
			errdefs.ErrFailedPrecondition,
		)
	}
	if err := m.root(); err != nil {
		return err
	}
	release, err := m.lock(ctx, "/")
	if err != nil {
		return err
	}
	defer release()
	for _, t := range m.trees {
		if t.batch {
			if err := m.makeBatch(t); err != nil {
				return err
			}
		}
	}
	return nil
}

// mountTree mounts one tree of version 1.
func mountTree(field string, mount *spec.CgroupMount) error {
	dir := mount.GetMountPath()
	if !path.IsAbs(dir) || path.Clean(dir) != dir {
		return fmt.Errorf(
			"%s.mount_path: %q: want an absolute, clean path: %w", field, dir,
			errdefs.ErrInvalidArgument,
		)
	}
	var names []string
	for _, h := range mount.Hierarchy {
		kernel := kernelNames[h]
		if kernel == "" {
			return fmt.Errorf(
				"%s.hierarchy: %s: no version of Linux has this controller: %w", field, h,
				errdefs.ErrInvalidArgument,
			)
		}
		names = append(names, kernel)
	}
	if len(names) == 0 {
		return fmt.Errorf(
			"%s.hierarchy: not set: want a controller or more: %w", field,
			errdefs.ErrInvalidArgument,
		)
	}
	if h, err := cgroup.Detect(path.Dir(dir)); err == nil {
		only, ok := h.Only(names[0])
		if ok && h.Version() == 1 && only.Hierarchies()[0].Mount == dir &&
			!slices.ContainsFunc(names, func(name string) bool {
				return !slices.Contains(only.Controllers(), name)
			}) {
			return nil
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("%s.mount_path: %w", field, err)
	}
	options := strings.Join(names, ",")
	err := unix.Mount("cgroup", dir, "cgroup", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf(
			"%s: mount %s on %q: %w: the controllers are mounted together with others, or are "+
				"those of version 2: %w", field, options, dir, err, errdefs.ErrFailedPrecondition,
		)
	}
	if err != nil {
		return fmt.Errorf("%s: mount %s on %q: %w", field, options, dir, err)
	}
	return nil
}
