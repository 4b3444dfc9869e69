package ocispec

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/lxc/config"
)

// resources sorts lxc.cgroup.* or lxc.cgroup2.* into what the library has fields for and the rest.
// Keys of the other version are left out, as by LXC; that is a warning only for a controller about
// which this version's keys say nothing, because LXC's own files have both. Rules about devices
// mean the same in both, and a list that was written for the other version is not a reason to open
// all of them.
func (m *maker) resources() error {
	conf := m.in.Config
	res := &specs.LinuxResources{}
	m.spec.Linux.Resources = res
	prefix, list := "lxc.cgroup.", conf.Cgroup
	otherPrefix, other := "lxc.cgroup2.", conf.Cgroup2
	if m.in.Host.CgroupVersion == 2 {
		prefix, list, otherPrefix, other = otherPrefix, other, prefix, list
	}
	about := func(name string) bool {
		return slices.ContainsFunc(list, func(o config.Setting) bool {
			return controller(o.Name) == name
		})
	}
	devices := about("devices")
	for _, s := range other {
		switch name := controller(s.Name); {
		case name == "devices" && !devices:
			if err := m.resource(otherPrefix, s); err != nil {
				return err
			}
		case !about(name):
			m.warn(
				otherPrefix+s.Name, s.Value, "ignored, because this host has version "+
					strconv.Itoa(cmp.Or(m.in.Host.CgroupVersion, 1))+" cgroups",
			)
		}
	}
	for _, s := range list {
		if err := m.resource(prefix, s); err != nil {
			return err
		}
	}
	if len(res.Devices) == 0 {
		// Without rules LXC leaves the group as it is made, and OCI would close all devices.
		res.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rwm"}}
	}
	return nil
}

// delegation gives the groups of a container with a new user namespace to its root, or, if that has
// no number on the host, to the user of its init.
func (m *maker) delegation() error {
	linux := m.spec.Linux
	if len(linux.UIDMappings) == 0 {
		return nil
	}
	uid, root := hostID(linux.UIDMappings, 0)
	if !root {
		if uid, root = hostID(linux.UIDMappings, m.spec.Process.User.UID); !root {
			return refuse(
				"lxc.init.uid", strconv.Itoa(m.in.Config.Init.UID), "lxc.idmap does not have it",
			)
		}
	}
	gid, root := hostID(linux.GIDMappings, 0)
	if !root {
		if gid, root = hostID(linux.GIDMappings, m.spec.Process.User.GID); !root {
			return refuse(
				"lxc.init.gid", strconv.Itoa(m.in.Config.Init.GID), "lxc.idmap does not have it",
			)
		}
	}
	d := &Delegation{UID: uid, GID: gid, Files: []string{"cgroup.procs", "tasks"}}
	if m.in.Host.CgroupVersion == 2 {
		// cgroup-v2.rst, Delegation.
		d.Files = []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"}
	}
	m.made.Delegation = d
	return nil
}

// hostID is the number outside of a user namespace of an ID in it.
func hostID(list []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, l := range list {
		if id >= l.ContainerID && id-l.ContainerID < l.Size {
			return l.HostID + (id - l.ContainerID), true
		}
	}
	return 0, false
}

// controller is the controller of a file, by its name in version 2.
func controller(file string) string {
	name, _, _ := strings.Cut(file, ".")
	if name == "blkio" {
		return "io"
	}
	return name
}

// resource sets one file.
func (m *maker) resource(prefix string, s config.Setting) error {
	key, value := prefix+s.Name, strings.TrimSpace(s.Value)
	if _, file, ok := strings.Cut(s.Name, "."); !ok || file == "" ||
		strings.ContainsAny(s.Name, "/ \t\n") {
		return refuse(key, value, "want the name of a file of a group, as memory.max")
	}
	res := m.spec.Linux.Resources
	switch s.Name {
	case "devices.allow", "devices.deny":
		rule, ok := deviceRule(value)
		if !ok {
			return refuse(
				key, value,
				`want "a", or TYPE MAJOR:MINOR ACCESS as in "c 1:3 rwm", where a number may be *`,
			)
		}
		rule.Allow = s.Name == "devices.allow"
		res.Devices = append(res.Devices, rule)
		return nil
	}
	if m.in.Host.CgroupVersion == 2 {
		return m.resource2(key, value, s.Name)
	}
	for _, f := range fields1 {
		if f.file != s.Name {
			continue
		}
		if !f.set(res, value) {
			return refuse(key, value, "want %s", f.want)
		}
		return nil
	}
	m.made.Group = append(m.made.Group, config.Setting{Name: s.Name, Value: value})
	return nil
}

// resource2 sets a file of version 2.
func (m *maker) resource2(key, value, file string) error {
	res := m.spec.Linux.Resources
	switch file {
	case "cpuset.cpus":
		cpu(res).Cpus = value
		return nil
	case "cpuset.mems":
		cpu(res).Mems = value
		return nil
	case "pids.max":
		if !setLimit(&pids(res).Limit, value) {
			return refuse(key, value, "want a number or max")
		}
		return nil
	}
	if strings.HasPrefix(file, "cgroup.") {
		// The library refuses most of them as no limits; LXC writes any.
		m.made.Group = append(m.made.Group, config.Setting{Name: file, Value: value})
		return nil
	}
	if res.Unified == nil {
		res.Unified = map[string]string{}
	}
	// A file such as io.max takes one entry a line; a file with one value takes the last.
	if before, ok := res.Unified[file]; ok {
		value = before + "\n" + value
	}
	res.Unified[file] = value
	return nil
}

const (
	wantBytes  = "bytes, with k, m, g or t behind, or -1"
	wantNumber = "a number"
)

// fields1 are the files of version 1 for which OCI has fields (cgroup-v1 of the kernel's
// documentation).
var fields1 = [...]struct {
	file, want string
	set        func(res *specs.LinuxResources, value string) bool
}{
	{"memory.limit_in_bytes", wantBytes, func(res *specs.LinuxResources, v string) bool {
		return setBytes(&memory(res).Limit, v)
	}},
	{"memory.memsw.limit_in_bytes", wantBytes, func(res *specs.LinuxResources, v string) bool {
		return setBytes(&memory(res).Swap, v)
	}},
	{"memory.soft_limit_in_bytes", wantBytes, func(res *specs.LinuxResources, v string) bool {
		return setBytes(&memory(res).Reservation, v)
	}},
	{"memory.kmem.tcp.limit_in_bytes", wantBytes, func(res *specs.LinuxResources, v string) bool {
		return setBytes(&memory(res).KernelTCP, v)
	}},
	{"memory.swappiness", wantNumber, func(res *specs.LinuxResources, v string) bool {
		return setUnsigned(&memory(res).Swappiness, v)
	}},
	{"memory.oom_control", "0 or 1", func(res *specs.LinuxResources, v string) bool {
		off := v == "1"
		memory(res).DisableOOMKiller = &off
		return off || v == "0"
	}},
	{"cpu.shares", wantNumber, func(res *specs.LinuxResources, v string) bool {
		return setUnsigned(&cpu(res).Shares, v)
	}},
	{"cpu.cfs_quota_us", wantNumber, func(res *specs.LinuxResources, v string) bool {
		return setSigned(&cpu(res).Quota, v)
	}},
	{"cpu.cfs_period_us", wantNumber, func(res *specs.LinuxResources, v string) bool {
		return setUnsigned(&cpu(res).Period, v)
	}},
	{"cpu.cfs_burst_us", wantNumber, func(res *specs.LinuxResources, v string) bool {
		return setUnsigned(&cpu(res).Burst, v)
	}},
	{"cpu.rt_runtime_us", wantNumber, func(res *specs.LinuxResources, v string) bool {
		return setSigned(&cpu(res).RealtimeRuntime, v)
	}},
	{"cpu.rt_period_us", wantNumber, func(res *specs.LinuxResources, v string) bool {
		return setUnsigned(&cpu(res).RealtimePeriod, v)
	}},
	{"cpu.idle", "0 or 1", func(res *specs.LinuxResources, v string) bool {
		return setSigned(&cpu(res).Idle, v)
	}},
	{"cpuset.cpus", "", func(res *specs.LinuxResources, v string) bool {
		cpu(res).Cpus = v
		return true
	}},
	{"cpuset.mems", "", func(res *specs.LinuxResources, v string) bool {
		cpu(res).Mems = v
		return true
	}},
	{"pids.max", "a number or max", func(res *specs.LinuxResources, v string) bool {
		return setLimit(&pids(res).Limit, v)
	}},
	{"blkio.weight", "10 to 1000", func(res *specs.LinuxResources, v string) bool {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil || n < 10 || n > 1000 {
			return false
		}
		weight := uint16(n)
		if res.BlockIO == nil {
			res.BlockIO = &specs.LinuxBlockIO{}
		}
		res.BlockIO.Weight = &weight
		return true
	}},
	{"net_cls.classid", "a number, perhaps with 0x in front", func(
		res *specs.LinuxResources, v string,
	) bool {
		n, err := strconv.ParseUint(v, 0, 32)
		if err != nil {
			return false
		}
		class := uint32(n)
		if res.Network == nil {
			res.Network = &specs.LinuxNetwork{}
		}
		res.Network.ClassID = &class
		return true
	}},
}

func memory(res *specs.LinuxResources) *specs.LinuxMemory {
	if res.Memory == nil {
		res.Memory = &specs.LinuxMemory{}
	}
	return res.Memory
}

func cpu(res *specs.LinuxResources) *specs.LinuxCPU {
	if res.CPU == nil {
		res.CPU = &specs.LinuxCPU{}
	}
	return res.CPU
}

func pids(res *specs.LinuxResources) *specs.LinuxPids {
	if res.Pids == nil {
		res.Pids = &specs.LinuxPids{}
	}
	return res.Pids
}

func setSigned(to **int64, value string) bool {
	n, err := strconv.ParseInt(value, 10, 64)
	*to = &n
	return err == nil
}

func setUnsigned(to **uint64, value string) bool {
	n, err := strconv.ParseUint(value, 10, 64)
	*to = &n
	return err == nil
}

// setLimit reads a number or "max", which OCI writes as -1.
func setLimit(to **int64, value string) bool {
	if value == "max" {
		value = "-1"
	}
	return setSigned(to, value)
}

// setBytes reads a size as the kernel does (lib/cmdline.c, memparse).
func setBytes(to **int64, value string) bool {
	text, shift := value, 0
	if value != "" {
		// Each letter is 1024 times the one before it.
		if i := strings.IndexByte("kmgtpe", value[len(value)-1]|0x20); i >= 0 {
			text, shift = value[:len(value)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil || n < -1 || n < 0 && shift > 0 || n > math.MaxInt64>>shift {
		return false
	}
	n <<= shift
	*to = &n
	return true
}

// deviceRule reads "a" or "c 1:3 rwm" (cgroup-v1/devices.rst). What stands behind an "a" has no
// meaning for the kernel.
func deviceRule(value string) (rule specs.LinuxDeviceCgroup, ok bool) {
	f := strings.Fields(value)
	if len(f) == 0 || len(f) > 3 {
		return rule, false
	}
	if f[0] == "a" {
		return specs.LinuxDeviceCgroup{Type: "a", Access: "rwm"}, true
	}
	if len(f) != 3 || f[0] != "b" && f[0] != "c" || strings.Trim(f[2], "rwm") != "" {
		return rule, false
	}
	rule = specs.LinuxDeviceCgroup{Type: f[0], Access: f[2]}
	major, minor, ok := strings.Cut(f[1], ":")
	for _, n := range []struct {
		text string
		to   **int64
	}{{major, &rule.Major}, {minor, &rule.Minor}} {
		if n.text == "*" {
			continue
		}
		v, err := strconv.ParseUint(n.text, 10, 32)
		if err != nil {
			return rule, false
		}
		number := int64(v)
		*n.to = &number
	}
	return rule, ok
}
