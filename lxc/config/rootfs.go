package config

import (
	"slices"
	"strconv"
	"strings"
)

var (
	rootPath    = kind{set: setRootPath, get: getRootPath, clear: clearRootPath}
	rootBackend = kind{set: setRootBackend, get: getRootBackend, clear: clearRootBackend}
	rootOptions = kind{set: setRootOptions}
	offset      = kind{set: setOffset, get: getOffset}
)

// storageTypes are what may stand before the path of a root file system and a colon.
var storageTypes = []string{
	"dir", "overlay", "overlayfs", "loop", "nbd", "btrfs", "lvm", "zfs", "rbd",
}

// cutStorage splits the path of a root file system into its type, if it has one, and the rest. What
// begins with a slash has none, so a path may have colons.
func cutStorage(path string) (storage, rest string) {
	before, after, found := strings.Cut(path, ":")
	if !found || strings.HasPrefix(path, "/") {
		return "", path
	}
	return before, after
}

func setRootPath(at any, _, value string) error {
	c := at.(*Config)
	storage, rest := cutStorage(value)
	if storage != "" || strings.HasPrefix(value, ":") {
		if err := oneOf(storage, storageTypes); err != nil {
			return want("a path, or %s with a colon before it%s", either(storageTypes),
				didYouMean(storage, storageTypes))
		}
	}
	if rest == "" {
		return want("a path after the colon")
	}
	if err := setPath(&c.Rootfs.Path, "", value); err != nil {
		return err
	}
	c.joinBackend()
	return nil
}

// joinBackend gives a path without a type the one that lxc.rootfs.backend names.
func (c *Config) joinBackend() {
	storage, _ := cutStorage(c.Rootfs.Path)
	if c.backend != "" && c.Rootfs.Path != "" && storage == "" {
		c.Rootfs.Path = c.backend + ":" + c.Rootfs.Path
	}
}

// getRootPath prints the path without its type, as LXC does.
func getRootPath(at any, _ string) []string {
	_, path := cutStorage(at.(*Config).Rootfs.Path)
	return show(&path)
}

func clearRootPath(at any, _ string) { at.(*Config).Rootfs.Path = "" }

func setRootBackend(at any, _, value string) error {
	if err := oneOf(value, storageTypes); err != nil {
		return err
	}
	c := at.(*Config)
	c.backend = value
	c.joinBackend()
	return nil
}

func getRootBackend(at any, _ string) []string { return show(&at.(*Config).backend) }

func clearRootBackend(at any, _ string) { at.(*Config).backend = "" }

func setRootOptions(at any, _, value string) error {
	for option := range strings.SplitSeq(value, ",") {
		switch {
		case option == "optional", option == "relative", strings.HasPrefix(option, "create="):
			return refusal("optional, relative and create= are only for lxc.mount.entry")
		case option == "idmap=":
			return want("idmap=container or the path of a user namespace")
		}
	}
	*at.(*string) = value
	return nil
}

// units of offsets of clocks, and how many nanoseconds each has.
var (
	units       = []string{"h", "m", "s", "ms", "us", "ns"}
	nanoseconds = []int64{3600e9, 60e9, 1e9, 1e6, 1e3, 1}
)

// splitOffset reads a number with a unit.
func splitOffset(value string) (n int64, unit string, err error) {
	unit = strings.TrimLeft(value, "-0123456789")
	n, err = strconv.ParseInt(strings.TrimSuffix(value, unit), 10, 64)
	unit = strings.TrimSpace(unit)
	i := slices.Index(units, unit)
	if err != nil || i < 0 || n > (1<<63-1)/nanoseconds[i] || n < -(1<<63-1)/nanoseconds[i] {
		return 0, "", want("a number with a unit: %s", either(units))
	}
	return n, unit, nil
}

func setOffset(at any, _, value string) error {
	n, unit, err := splitOffset(value)
	if err == nil {
		*at.(*string) = strconv.FormatInt(n, 10) + unit
	}
	return err
}

// getOffset prints seconds or nanoseconds, as LXC does.
func getOffset(at any, _ string) []string {
	n, unit, err := splitOffset(*at.(*string))
	if err != nil {
		return []string{"0ns"}
	}
	n *= nanoseconds[slices.Index(units, unit)]
	if unit == "ms" || unit == "us" || unit == "ns" || n == 0 {
		return []string{strconv.FormatInt(n, 10) + "ns"}
	}
	return []string{strconv.FormatInt(n/1e9, 10) + "s"}
}
