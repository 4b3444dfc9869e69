package lxc

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"strake/container/plan"
	"strake/lxc/config"
)

// overlay is the root file system of a configuration that says overlay:LOWER:UPPER; nil for any
// other.
func overlay(cfg *config.Config, target string) (*plan.Overlay, error) {
	kind, rest, _ := strings.Cut(cfg.Rootfs.Path, ":")
	if kind != "overlay" && kind != "overlayfs" {
		return nil, nil
	}
	dirs := strings.Split(rest, ":")
	if len(dirs) < 2 {
		return nil, fmt.Errorf(
			"lxc.rootfs.path %q: want %s:LOWER:UPPER: %w", cfg.Rootfs.Path, kind,
			errdefs.ErrInvalidArgument,
		)
	}
	upper := dirs[len(dirs)-1]
	// Where LXC has it.
	work := filepath.Join(filepath.Dir(upper), "olwork")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, err
	}
	o := &plan.Overlay{Upper: upper, Work: work, Target: target}
	for _, d := range dirs[:len(dirs)-1] {
		o.Lower = append([]string{d}, o.Lower...)
	}
	return o, nil
}
