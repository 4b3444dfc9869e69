package spec

import (
	"fmt"
	"math"

	"github.com/containerd/errdefs"
)

// Bounds of values.
const (
	maxEviction    = 10000
	minMaxLimit    = 4 // milliseconds a second: the kernel's least quota, 1 ms, in 250 ms
	maxMilliCPUs   = 1 << 30
	maxWeight      = 100
	maxMaskWords   = 128 // 8192 processors, the most that Linux can be built for
	maxDeviceMinor = 1<<20 - 1
	maxDeviceMajor = 1<<12 - 1
)

// problem is an error of a field. It is of class errdefs.ErrInvalidArgument.
func problem(field string, given any, want string) error {
	return fmt.Errorf("%s: %v: want %s: %w", field, given, want, errdefs.ErrInvalidArgument)
}

// Validate finds what no host can do. Errors name the field; they are of class
// errdefs.ErrInvalidArgument, or errdefs.ErrFailedPrecondition for what this version does not do
// and must not leave out silently.
func Validate(s *ContainerSpec) error {
	for name, id := range map[string]*int64{"owner": s.Owner, "owner_group": s.OwnerGroup} {
		if id != nil && (*id < 0 || *id >= math.MaxUint32) {
			return problem(name, *id, "a number of 0 to 4294967294")
		}
	}
	if s.ChildrenLimit != nil && *s.ChildrenLimit < 0 {
		return problem("children_limit", *s.ChildrenLimit, "0 or more containers")
	}
	for _, check := range []func(*ContainerSpec) error{
		validateCPU, validateMemory, validateDirty, validateDevices, validateBlockIO, validateHost,
	} {
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

func validateCPU(s *ContainerSpec) error {
	c := s.GetCpu()
	if c == nil {
		return nil
	}
	if c.GetLimit() > maxMilliCPUs {
		return problem("cpu.limit", c.GetLimit(), "at most 1073741824 milliseconds a second")
	}
	if c.MaxLimit != nil && (*c.MaxLimit < minMaxLimit || *c.MaxLimit > maxMilliCPUs) {
		return problem("cpu.max_limit", *c.MaxLimit, "4 to 1073741824 milliseconds a second")
	}
	if c.Mask == nil {
		return nil
	}
	if len(c.Mask.Data) > maxMaskWords {
		return problem("cpu.mask.data", len(c.Mask.Data), "at most 128 numbers")
	}
	for _, word := range c.Mask.Data {
		if word != 0 {
			return nil
		}
	}
	return problem("cpu.mask.data", "no processor", "one bit set or more")
}

func validateMemory(s *ContainerSpec) error {
	m := s.GetMemory()
	if m == nil {
		return nil
	}
	if p := m.GetEvictionPriority(); p < 0 || p > maxEviction {
		return problem("memory.eviction_priority", p, "0 to 10000")
	}
	for _, f := range []struct {
		name string
		v    *int64
	}{
		{"limit", m.Limit}, {"max_limit", m.MaxLimit}, {"swap_limit", m.SwapLimit},
	} {
		if f.v != nil && (*f.v < -1 || *f.v == 0) {
			return problem("memory."+f.name, *f.v, "a number of bytes, or -1 for no limit")
		}
	}
	if r := m.GetReservation(); r < 0 {
		return problem("memory.reservation", r, "0 or more bytes")
	}
	limit := int64(-1)
	if m.Limit != nil {
		limit = *m.Limit
	}
	if limit > 0 && m.GetReservation() > limit {
		return problem(
			"memory.reservation", m.GetReservation(),
			fmt.Sprintf("at most memory.limit, %d", limit),
		)
	}
	if m.GetMaxLimit() > 0 && (limit < 0 || m.GetMaxLimit() < limit) {
		return problem(
			"memory.max_limit", m.GetMaxLimit(), fmt.Sprintf("at least memory.limit, %d", limit),
		)
	}
	if swap := m.GetSwapLimit(); swap > 0 && (limit < 0 || swap < limit) {
		return problem(
			"memory.swap_limit", swap,
			fmt.Sprintf("the sum of memory and swap: at least memory.limit, %d", limit),
		)
	}
	return nil
}

func validateDirty(s *ContainerSpec) error {
	d := s.GetMemory().GetDirty()
	if d == nil {
		return nil
	}
	if (d.Ratio != nil || d.BackgroundRatio != nil) &&
		(d.Limit != nil || d.BackgroundLimit != nil) {
		return fmt.Errorf(
			"memory.dirty: ratio and limit: want the ratios or the limits, not both: %w",
			errdefs.ErrInvalidArgument,
		)
	}
	for name, v := range map[string]*int32{
		"ratio": d.Ratio, "background_ratio": d.BackgroundRatio,
	} {
		if v != nil && (*v < 0 || *v > 100) {
			return problem("memory.dirty."+name, *v, "0 to 100 percent")
		}
	}
	for name, v := range map[string]*int32{
		"limit": d.Limit, "background_limit": d.BackgroundLimit,
	} {
		if v != nil && *v < 0 {
			return problem("memory.dirty."+name, *v, "0 or more bytes")
		}
	}
	return nil
}

func validateDevices(s *ContainerSpec) error {
	for i, r := range s.GetDevice().GetRestrictionsSet().GetRestrictions() {
		at := fmt.Sprintf("device.restrictions_set.restrictions[%d].", i)
		if r.Permission == nil {
			return problem(at+"permission", "not set", "ALLOW or DENY")
		}
		if r.Type == nil {
			return problem(at+"type", "not set", "DEVICE_CHAR, DEVICE_BLOCK or DEVICE_ALL")
		}
		if r.GetType() != DeviceSpec_DEVICE_ALL && len(r.Access) == 0 {
			return problem(at+"access", "not set", "READ, WRITE and MKNOD, one or more of them")
		}
		if r.GetType() == DeviceSpec_DEVICE_ALL && (r.Major != nil || r.Minor != nil) {
			return problem(
				at+"type", "DEVICE_ALL with a number",
				"DEVICE_CHAR or DEVICE_BLOCK beside major and minor",
			)
		}
		if err := validateDevice(at, r.Major, r.Minor); err != nil {
			return err
		}
	}
	return nil
}

// validateDevice checks numbers (makedev(3), linux/kdev_t.h).
func validateDevice(at string, major, minor *int64) error {
	if major != nil && (*major < 0 || *major > maxDeviceMajor) {
		return problem(at+"major", *major, "0 to 4095")
	}
	if minor != nil && (*minor < 0 || *minor > maxDeviceMinor) {
		return problem(at+"minor", *minor, "0 to 1048575")
	}
	return nil
}

func validateBlockIO(s *ContainerSpec) error {
	set := s.GetBlockio().GetDeviceLimitSet()
	const at, weights = "blockio.device_limit_set.", "1 to 100"
	if set != nil && set.DefaultLimit != nil && (*set.DefaultLimit < 1 || *set.DefaultLimit > 100) {
		return problem(at+"default_limit", *set.DefaultLimit, weights)
	}
	for i, l := range set.GetDeviceLimits() {
		below := fmt.Sprintf("%sdevice_limits[%d].", at, i)
		if err := validateDeviceLimit(below, l); err != nil {
			return err
		}
		if l.GetLimit() > maxWeight {
			return problem(below+"limit", l.GetLimit(), weights)
		}
	}
	for i, m := range s.GetBlockio().GetMaxDeviceLimitSet().GetMaxLimits() {
		at := fmt.Sprintf("blockio.max_device_limit_set.max_limits[%d].", i)
		if m.OpType == nil {
			return problem(at+"op_type", "not set", "READ or WRITE")
		}
		if m.LimitType == nil {
			return problem(at+"limit_type", "not set", "BYTES_PER_SECOND or IO_PER_SECOND")
		}
		for j, l := range m.Limits {
			if err := validateDeviceLimit(fmt.Sprintf("%slimits[%d].", at, j), l); err != nil {
				return err
			}
		}
	}
	return nil
}

func validateDeviceLimit(at string, l *BlockIoSpec_DeviceLimit) error {
	if l.GetDevice() == nil || l.Device.Major == nil || l.Device.Minor == nil {
		return problem(at+"device", "not set", "the major and the minor number of a device")
	}
	if err := validateDevice(at+"device.", l.Device.Major, l.Device.Minor); err != nil {
		return err
	}
	if l.GetLimit() == 0 {
		return problem(at+"limit", l.GetLimit(), "a number above 0")
	}
	return nil
}

// validateHost refuses what needs namespaces. Without them these fields would promise a wall that
// is not there.
func validateHost(s *ContainerSpec) error {
	var field string
	switch {
	case s.GetVirtualHost() != nil:
		field = "virtual_host"
	case s.GetSecuritySpec() != nil:
		field = "security_spec"
	case s.GetFilesystem().GetRootfs() != "":
		field = "filesystem.rootfs"
	case s.GetFilesystem().GetMounts() != nil:
		field = "filesystem.mounts"
	default:
		return nil
	}
	return fmt.Errorf(
		"%s: resource containers have no namespaces here; strake run and strake lxc make "+
			"containers that have: %w", field, errdefs.ErrFailedPrecondition,
	)
}
